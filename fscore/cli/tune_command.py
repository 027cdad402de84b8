"""`fscore tune FILE`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import click

from fscore.cli.arguments import FILE, SET, tables_of

if TYPE_CHECKING:
    from rich.table import Table

    from fscore.builtin.tuning.search import Finished, Tuning


@click.command("tune")
@FILE
@SET
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder of the search; default: a fresh one under runs/.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, help="Processes; they change no result."
)
def command(file: Path, changes: tuple[str, ...], out: Path | None, workers: int) -> int:
    """Search for hyper-parameters as the [tune] table of FILE says.

    FILE may also be the folder of a search that was interrupted: it goes on.
    """
    import torch

    from fscore.builtin.tuning.search import Tuning
    from fscore.errors import CourseError, WriteError

    torch.set_num_threads(1)
    tables, folder = _found(file, changes, out)
    tuning = Tuning(tables, folder, workers=workers)
    error = ""
    try:
        with _shown(tuning) as show:
            for done in tuning.run():
                show(done)
    except WriteError:
        click.echo(f"when there is room, `fscore tune {folder}` goes on", err=True)
        raise
    except CourseError as failure:
        error = str(failure)
    except KeyboardInterrupt:
        click.echo(f"interrupted; `fscore tune {folder}` goes on", err=True)
        return 130
    for line in _summary(tuning, folder, error):
        click.echo(line, err=bool(error))
    return 1 if error else 0


def _found(
    file: Path, changes: tuple[str, ...], out: Path | None
) -> tuple[dict[str, object], Path]:
    """Return the tables and the folder of a search that begins or goes on."""
    from fscore.builtin.record.directory import RunDirectory
    from fscore.builtin.tuning.journal import read_tables
    from fscore.errors import ConfigError

    if file.is_dir():
        if changes or out:
            raise ConfigError(f"{file}: a search that goes on takes neither --set nor --out")
        return read_tables(file), file
    tables = tables_of(file, changes)
    record = RunDirectory.create(out, f"tune-{file.stem}")
    record.close()
    return tables, record.path


class Show(Protocol):
    """Shows one more result."""

    def __call__(self, done: Finished) -> None: ...


@contextmanager
def _shown(tuning: Tuning) -> Iterator[Show]:
    """Yield what shows results: a live table on a terminal, else plain lines."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        yield lambda done: click.echo(_line(tuning, done))
        return
    from rich.live import Live

    with Live(_table(tuning), console=console, auto_refresh=False) as live:
        yield lambda _: live.update(_table(tuning), refresh=True)


def _line(tuning: Tuning, done: Finished) -> str:
    params = ", ".join(f"{key} = {value}" for key, value in done.trial.params.items())
    fork = f" from {done.trial.fork}" if done.trial.fork is not None else ""
    head = f"trial {done.trial.id:>3}{fork}  {params}  {done.trial.versions} versions"
    return f"{head}  {_outcome(tuning, done)}"


def _outcome(tuning: Tuning, done: Finished) -> str:
    if done.report is None:
        return f"failed: {done.reason}"
    report = done.report
    privacy = ", privacy ignored" if tuning.privacy == "ignored" else ""
    return (
        f"{tuning.tuner.metric} {report.value:.4f} "
        f"({report.clients} clients, standard error {report.stderr:.4f}{privacy})"
    )


def _table(tuning: Tuning) -> Table:
    """Return the trials so far, best first; of a long search only the best."""
    from rich.table import Table

    from fscore.builtin.tuning.page import shown

    keys = tuning.keys()
    count = len(tuning.finished)
    title = f"{tuning.tuner.name}: {count} steps, {tuning.spent()['versions']:.0f} versions"
    table = Table(*["trial", "from", *keys, "versions", tuning.tuner.metric, "stderr"], title=title)
    for done in tuning.ranked()[:30]:
        trial, report = done.trial, done.report
        cells = [str(trial.id), "" if trial.fork is None else str(trial.fork)]
        cells += [shown(trial.params.get(key, "")) for key in keys]
        result = (f"{report.value:.4f}", f"{report.stderr:.4f}") if report else ("failed", "")
        table.add_row(*cells, str(trial.versions), *result)
    return table


def _summary(tuning: Tuning, folder: Path, error: str) -> Iterator[str]:
    spent = tuning.spent()
    failed = sum(done.report is None for done in tuning.finished)
    if tuning.over:
        yield f"ended: {tuning.over}"
    yield (
        f"{len(tuning.finished)} steps of trials, {failed} failed; {spent['versions']:.0f} versions, "
        f"{spent['client_updates']:.0f} client updates, {spent['virtual_time']:.6g} virtual seconds"
    )
    if error:
        yield f"error: {error}"
        return
    tuning.write()
    best = tuning.best()
    yield f"best: trial {best.trial.id}, {_outcome(tuning, best)}, digest {best.outcome.digest}"
    if tuning.remark:
        yield tuning.remark
    yield f"`fscore run {folder / 'best.toml'}` {_again(tuning)}; plots: {folder / 'report.html'}"


def _again(tuning: Tuning) -> str:
    if tuning.privacy == "proxy_data":
        return "runs its settings on the course's own data"
    return "runs it again" if tuning.repeats else "runs its settings again, with other noise"
