"""`fscore resume RUN_DIR`."""

from __future__ import annotations

from pathlib import Path

import click

from fscore.cli.running import QUIET, finished


@click.command("resume")
@click.argument("run_dir", type=click.Path(path_type=Path))
@QUIET
def command(run_dir: Path, quiet: bool) -> int:
    """Go on with the interrupted run in RUN_DIR, from its newest whole snapshot."""
    import torch

    from fscore.builtin.record.resume import resumed

    torch.set_num_threads(1)
    course, notes = resumed(run_dir)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return finished(course, run_dir, quiet=quiet)
