"""The command line: one module per command, imported when the command is used."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

COMMANDS = {
    "run": "Run a course.",
    "resume": "Go on with a run that was interrupted.",
    "check": "Validate a course; print it, its upload path and its graph.",
    "graph": "Draw the course's events and handlers.",
    "plugins": "List what is installed, switched on or not.",
    "options": "Print the commented TOML of a component, plugin or table; list a kind.",
    "new-plugin": "Write a package for a new plugin.",
    "tune": "Search for hyper-parameters.",
    "bench": "Measure this machine, and say what `auto` would choose.",
    "timeline": "Draw when clients worked and versions were made.",
    "compare": "Draw a metric of several runs against virtual time.",
}


class Lazy(click.Group):
    """A group that imports a command's module when the command is asked for; plugins add commands of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of fscore's own commands and those of installed plugins."""
        return [*COMMANDS, *_of_plugins()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in COMMANDS:
            return _of_plugins().get(cmd_name)
        module = importlib.import_module(f"fscore.cli.{cmd_name.replace('-', '_')}_command")
        return module.command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands; of fscore's own nothing is imported."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        if added := _of_plugins():
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(n, c.get_short_help_str()) for n, c in added.items()])


def _of_plugins() -> dict[str, click.Command]:
    """Return what installed plugins add through `fscore_add_commands`; a broken one is named and left out."""
    from fscore.errors import FscoreError
    from fscore.plugins import installed

    found: dict[str, click.Command] = {}
    for plugin in installed():
        try:
            commands = _commands(plugin.load())
        except FscoreError as error:
            click.echo(f"warning: {error}", err=True)
            continue
        for command in commands:
            if not command.name or command.name in COMMANDS or command.name in found:
                click.echo(
                    f"warning: plugin '{plugin.name}': the command '{command.name}' is taken",
                    err=True,
                )
            else:
                found[command.name] = command
    return found


def _commands(plugin: Any) -> Sequence[click.Command]:
    """Return the commands of a plugin with its default options."""
    return plugin().fscore_add_commands() if hasattr(plugin, "fscore_add_commands") else ()


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="fscore")
@click.pass_context
def cli(context: click.Context, debug: bool) -> None:
    """Federated learning in which everything but the kernel is a plugin."""
    context.obj = {"debug": debug}


def main(arguments: Sequence[str] | None = None) -> Any:
    """Run the command line; the exit code says what went wrong (see `fscore.errors`)."""
    from fscore.builtin.executors.base import memory_ran_out
    from fscore.errors import FscoreError

    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = cli.main(words, standalone_mode=False)
    except FscoreError as error:
        if "--debug" in words:
            traceback.print_exc()
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        code = 130
    except (Exception, SystemExit) as error:
        if "--debug" in words:
            traceback.print_exc()
        if memory_ran_out(error):
            click.echo(f"error: memory ran out: {str(error) or type(error).__name__}", err=True)
            sys.exit(1)
        frame = traceback.extract_tb(error.__traceback__)[-1]
        click.echo(
            f"error: {frame.filename}, line {frame.lineno}, in {frame.name}: {type(error).__name__}: {error}. "
            "Remedy: `fscore --debug ...` shows how it came there.",
            err=True,
        )
        code = 3
    sys.exit(code if isinstance(code, int) else 0)
