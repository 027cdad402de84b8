"""`fscore check FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from fscore.config import assign, read, resolve


@click.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Replace any dotted key."
)
def command(file: Path, changes: tuple[str, ...]) -> None:
    """Validate FILE; print the resolved course, the upload path in order, and the graph's verdict."""
    from fscore.course import Course

    tables = read(file)
    assign(tables, changes)
    course = Course(resolve(tables))
    click.echo(document(course.config.resolved()))
    click.echo("upload path (rank, stage, owner)")
    for line in course.site.upload.describe():
        click.echo(f"  {line}")
    public = [name for name, group in course.site.upload.wire.items() if group.public]
    click.echo(f"  beside the path, in the clear: {', '.join(public)}")
    click.echo(
        f"  {course.site.upload.nbytes} bytes up, {course.site.download.nbytes} bytes down per task"
    )
    click.echo(
        f"graph: complete, {len(course.handlers.every)} handlers lead from CourseStarted to Ending"
    )


def document(tables: dict[str, Any]) -> str:
    """Return tables as a TOML document; options that hold tables are written inline."""
    lines = []
    for table, options in tables.items():
        if table == "plugins":
            entries = [(f"[plugins.{name}]", own) for name, own in options.items()]
        elif isinstance(options, list):
            entries = [(f"[[{table}]]", entry) for entry in options]
        else:
            entries = [(f"[{table}]", options)]
        for head, entry in entries:
            lines += [head, *(f"{key} = {toml(value)}" for key, value in entry.items()), ""]
    return "\n".join(lines)


def toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {toml(entry)}" for key, entry in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(toml(entry) for entry in value)}]"
    return json.dumps(value)
