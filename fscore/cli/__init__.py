"""The command line: one module per command, imported when the command is used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import click

COMMANDS = {
    "run": "Run a course.",
    "resume": "Go on with a run that was interrupted.",
    "check": "Validate a course; print it, its upload path and its graph.",
    "graph": "Draw the course's events and handlers.",
    "plugins": "List what is installed, switched on or not.",
    "options": "Print a commented TOML table for a component or plugin.",
    "new-plugin": "Write a package for a new plugin.",
    "tune": "Search for hyper-parameters.",
}


class Lazy(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return [name for name in COMMANDS if _exists(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"fscore.cli.{cmd_name.replace('-', '_')}_command")
        return module.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(n, COMMANDS[n]) for n in self.list_commands(ctx)])


def _exists(name: str) -> bool:
    return importlib.util.find_spec(f"fscore.cli.{name.replace('-', '_')}_command") is not None


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="fscore")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Federated learning in which everything but the kernel is a plugin."""
    context.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; the exit code says what went wrong (see `fscore.errors`)."""
    from fscore.errors import FscoreError

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(words, standalone_mode=False)
    except FscoreError as error:
        if "--debug" in words:
            raise
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; `fscore resume RUN_DIR` goes on", err=True)
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
