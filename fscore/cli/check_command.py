"""`fscore check FILE`."""

from __future__ import annotations

from pathlib import Path

import click

from fscore.builtin.tables import document, resolved
from fscore.cli.arguments import FILE, SET, tables_of
from fscore.config import resolve


@click.command("check")
@FILE
@SET
def command(file: Path, changes: tuple[str, ...]) -> None:
    """Validate FILE; print the resolved course, the upload path in order, and the graph's verdict."""
    from fscore.course import Course

    course = Course(resolve(tables_of(file, changes)))
    click.echo(document(resolved(course.config)))
    click.echo("upload path (rank, stage, owner)")
    for line in course.site.upload.describe():
        click.echo(f"  {line}")
    public = [name for name, group in course.site.upload.wire.items() if group.public]
    click.echo(f"  beside the path, in the clear: {', '.join(public)}")
    click.echo(
        f"  {course.site.upload.nbytes} bytes up, {course.site.download.nbytes} bytes down per task"
    )
    click.echo(f"executor: {course.executor.reason or course.executor.name}")
    for line in course.advice:
        click.echo(f"note: {line}")
    click.echo(
        f"graph: complete, {len(course.handlers.every)} handlers lead from CourseStarted to Ending"
    )
