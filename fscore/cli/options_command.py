"""`fscore options NAME`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs
import click

from fscore.builtin.tables import toml, unstructure
from fscore.component import Component, options_of
from fscore.config import hint_of, type_name
from fscore.errors import ConfigError, FscoreError, nearest
from fscore.kinds import KINDS, Kind, kind_of
from fscore.plugins import Installed, PluginHost, installed
from fscore.settings import SETTINGS, Settings

OTHERS = {
    "plugins": (
        "# Switches plugins on, in the order of the file; `fscore plugins` lists what is installed.\n"
        "[plugins.NAME]\n# its options: `fscore options NAME`\n"
    ),
    "override": (
        "# Options of single clients that differ from the file's; they win over policies.\n"
        "[[override]]\n# Ids of the clients.\nclients = [0]\n"
        "# Any option that may differ by client, by dotted key.\ntrainer.lr = 0.01\n"
    ),
}
"""Tables of a course file that no class describes."""


@click.command("options")
@click.argument("name")
def command(name: str) -> None:
    """Print the commented TOML of every component, plugin or table called NAME; of a kind, list its components."""
    available = {plugin.name: plugin for plugin in installed()}
    host = PluginHost.load({}, list(_whole(available.values())))
    found = list(_found(name, host))
    if not found:
        known = {known for _, known in host.registry.classes} | set(available) | _tables()
        raise ConfigError(
            f"{name}: no component, plugin, table or kind has this name{nearest(name, known)}"
        )
    click.echo("\n".join(found), nl=False)


def _found(name: str, host: PluginHost) -> Iterator[str]:
    """Yield what there is to print of a name."""
    if name in SETTINGS:
        yield table(SETTINGS[name], f"[{name}]")
    if name in OTHERS:
        yield OTHERS[name]
    for kind in KINDS:
        if name.replace("-", "_") in _names(kind):
            yield listing(kind, host)
    for (_, known), (cls, _) in host.registry.classes.items():
        if known == name:
            yield table(cls)
    for plugin in host.plugins:
        if plugin.name == name:
            yield table(type(plugin))


def _names(kind: Kind) -> set[str]:
    """Return what a kind may be called: the plural of its hook, its table, its class."""
    return {kind.plural, kind.base.__name__.lower(), kind.table} - {""}


def _tables() -> set[str]:
    return {*SETTINGS, *OTHERS, *(name for kind in KINDS for name in _names(kind))}


def _whole(plugins: Iterable[Installed]) -> Iterator[Any]:
    """Yield the plugins that can be imported; the others are named and left out."""
    for plugin in plugins:
        try:
            yield plugin.load()
        except FscoreError as error:
            click.echo(f"warning: {error}", err=True)


def listing(kind: Kind, host: PluginHost) -> str:
    """Return a kind's components: name, what each is, and the plugin that it comes with."""
    lines = [f"{_head(kind)}  use = one of these; `fscore options NAME` prints its options"]
    names = host.registry.names(kind)
    width = max(map(len, names), default=0)
    for name in names:
        cls, origin = host.registry.classes[kind.plural, name]
        plugin = "" if origin == "builtin" else f"[plugins.{origin}] "
        lines.append(f"  {name:<{width}}  {plugin}{_summary(cls)}")
    return "\n".join(lines if names else [*lines, "  none is installed"]) + "\n"


def _head(kind: Kind) -> str:
    if not kind.table:
        return f"{kind.plural.replace('_', ' ')}, inside the table of the component that takes one:"
    return f"[[{kind.table}]]" if kind.many else f"[{kind.table}]"


def _summary(cls: type[Any]) -> str:
    return (cls.__doc__ or "").strip().splitlines()[0]


def table(cls: type[Component | Settings], head: str = "") -> str:
    """Return the options of a component class, or of a table of settings, as a commented TOML table."""
    kind = kind_of(cls)
    lines = [f"# {_summary(cls)}"]
    if head:
        lines.append(head)
    elif kind is None:
        lines.append(f"[plugins.{cls.name}]")  # type: ignore[union-attr]
    elif not kind.table:
        lines.append(
            f"# one of {kind.plural}: write these inside the table of the component that takes it"
        )
    else:
        lines.append(_head(kind))
    if kind:
        lines.append(f'use = "{cls.name}"')  # type: ignore[union-attr]
    return "\n".join([*lines, *_options(cls)]) + "\n"


def _options(cls: type[Any], prefix: str = "") -> Iterator[str]:
    """Yield two lines per option, those of a table inside by their dotted keys."""
    for attribute in options_of(cls):
        yield f"# {attribute.metadata['doc']}"
        hint = hint_of(cls, attribute.name)
        if isinstance(hint, type) and issubclass(hint, Settings):
            yield from _options(hint, f"{prefix}{attribute.name}.")
        else:
            yield _line(cls, attribute, prefix)


def _line(cls: type[Any], attribute: attrs.Attribute[object], prefix: str) -> str:
    key = f"{prefix}{attribute.name}"
    default = attribute.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()  # type: ignore[attr-defined]
    if default is attrs.NOTHING:
        return f"# {key} = ...  required: {type_name(hint_of(cls, attribute.name))}"
    value = unstructure(default)
    return f"# {key} =" if value is None else f"{key} = {toml(value)}"
