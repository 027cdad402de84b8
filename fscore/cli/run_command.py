"""`fscore run FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from fscore.cli.arguments import FILE, SET, tables_of
from fscore.cli.running import QUIET, finished


@click.command("run")
@FILE
@SET
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Run directory; default: a fresh one under runs/.",
)
@QUIET
def command(file: Path, changes: tuple[str, ...], out: Path | None, quiet: bool) -> int:
    """Run the course that FILE describes."""
    import torch

    from fscore.builtin.record.directory import RunDirectory
    from fscore.builtin.record.resume import describe
    from fscore.config import resolve
    from fscore.course import Course

    torch.set_num_threads(1)
    tables = tables_of(file, changes)
    tables.setdefault("reporter", [{"use": "console"}])
    config = resolve(tables)
    record = RunDirectory.create(out, config.course.name)
    course = Course(config, record)
    record.write_run(describe(course))
    for line in course.advice:
        click.echo(f"note: {line}", err=True)
    return finished(course, record.path, quiet=quiet)
