"""What `run` and `resume` share: a course that runs, is interrupted, ends."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.result import Result

QUIET = click.option(
    "--quiet", is_flag=True, help="Print nothing but errors; the run's files are the same."
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


def finished(course: Course, place: Path, *, quiet: bool) -> int:
    """Run a course that records itself in `place`; return the exit code.

    Ctrl-C and SIGTERM end it at once, which is said with the command that goes on from its newest snapshot.
    """
    try:
        with _terminable(), _muted(quiet):
            return ended(course.run())
    except KeyboardInterrupt as stop:
        click.echo(f"interrupted; `fscore resume {place}` goes on", err=True)
        return 128 + (signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)


def ended(result: Result | None) -> int:
    """Say how a course ended if it is not complete; return the exit code."""
    if result is not None and result.status == "failed":
        click.echo(f"error: course failed: {result.reason}", err=True)
    elif result is not None and result.status == "partial":
        click.echo("warning: the course is partial: some cohorts failed", err=True)
    return result.exit_code if result else 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C, in this process and not in its workers."""
    own = os.getpid()

    def stop(number: int, frame: Any) -> None:
        if os.getpid() != own:
            os._exit(128 + number)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _muted(quiet: bool) -> Iterator[None]:
    """Drop what reporters print, in this process alone: they stay in the course, and in what is recorded of it."""
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
