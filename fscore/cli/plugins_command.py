"""`fscore plugins`."""

from __future__ import annotations

import click

from fscore.errors import FscoreError
from fscore.kinds import KINDS
from fscore.plugins import Installed, PluginHost, installed


@click.command("plugins")
def command() -> None:
    """List the installed plugins with version and components; `[plugins.NAME]` in a course switches one on."""
    own = PluginHost.load({})
    click.echo("always on: fscore")
    _components(own, "builtin")
    for plugin in installed():
        click.echo(f"[plugins.{plugin.name}]  {plugin.distribution} {plugin.version}")
        _inside(plugin)


def _inside(plugin: Installed) -> None:
    try:
        host = PluginHost.load({}, [plugin.load()])
    except FscoreError as error:
        click.echo(f"  broken: {error}")
    else:
        _components(host, plugin.name)


def _components(host: PluginHost, origin: str) -> None:
    for kind in KINDS:
        names = [
            n
            for (p, n), (_, o) in host.registry.classes.items()
            if p == kind.plural and o == origin
        ]
        if names:
            click.echo(f"  {kind.plural:<18} {', '.join(sorted(names))}")
