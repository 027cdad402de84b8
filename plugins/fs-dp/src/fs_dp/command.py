"""`fscore privacy FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from fscore.cli.arguments import FILE, SET, tables_of
from fscore.errors import CourseError


@click.command("privacy")
@FILE
@SET
@click.option("--versions", type=click.IntRange(min=1), help="Versions to foresee.")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a chart as an HTML file."
)
def command(file: Path, changes: tuple[str, ...], versions: int | None, plot: Path | None) -> None:
    """Say what the course that FILE describes guarantees, before it runs."""
    from fs_dp.report import picture, report
    from fscore.config import resolve
    from fscore.course import Course

    course = Course(resolve(tables_of(file, changes)))
    for line in report(course, versions):
        click.echo(line)
    if plot is not None:
        _write(plot, picture(course, versions))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CourseError(f"{path}: {error.strerror}") from error
