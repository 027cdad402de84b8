"""`fscore tournament FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fscore.errors import FscoreError

if TYPE_CHECKING:
    from fs_byzantine.tournament import Cell, Tournament

PARTIAL = 4
"""Exit code of what reached its end although a part of it failed."""


@click.command("tournament")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("tournament"),
    help="Folder for table, heat map and JSON.",
)
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Courses at a time.")
@click.option("--quiet", is_flag=True, help="Print the table alone.")
def tournament(file: Path, out: Path, workers: int, quiet: bool) -> int:
    """Run every attack against every defence of FILE; write a table and a heat map.

    Courses that an interrupted tournament in the same folder finished are not run again. Exits with 4 where some courses failed,
    with 1 where all did.
    """
    import torch

    from fs_byzantine.tournament import Diary, Tournament, key

    torch.set_num_threads(1)
    games = Tournament.of(file)
    games.check()
    out.mkdir(parents=True, exist_ok=True)
    diary = Diary(out / "cells.jsonl", games)
    known = diary.read()
    left = sum(key(cell, games.tables(cell)) not in known for cell in games.cells())

    def told(cell: Cell) -> None:
        nonlocal left
        left -= 1
        diary.note(cell)
        if not quiet:
            names = f"{cell.attack} against {cell.defence}, seed {cell.seed}"
            click.echo(f"{names}: {cell.status}; {left} left", err=True)

    cells = games.play(workers, told, known)
    click.echo(_written(out, games, cells))
    failed = [cell for cell in cells if cell.status == "failed"]
    for cell in failed:
        names = f"{cell.attack} against {cell.defence}, seed {cell.seed}"
        click.echo(f"{names}: {cell.reason}", err=True)
    if failed:
        return FscoreError.exit_code if len(failed) == len(cells) else PARTIAL
    return 0


def _written(out: Path, games: Tournament, cells: list[Cell]) -> str:
    """Write the table, the picture and the data; return the table."""
    from fs_byzantine.heat_map import draw
    from fs_byzantine.report import backdoors, scores, table
    from fs_byzantine.tournament import plain

    found = scores(cells, games.metric)
    text = f"{games.metric}, {len(games.seeds)} seeds\n\n{table(found)}\n"
    if report := backdoors(cells, games.attacks, games.metric):
        text += f"\n{report}\n"
    data = json.dumps(plain(games, cells), indent=1)
    (out / "tournament.md").write_text(text, encoding="utf-8")
    (out / "tournament.json").write_text(data, encoding="utf-8")
    draw(found, games.metric, out / "tournament.png")
    return text
