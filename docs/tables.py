"""Writes the tables of README.md, plugin-authors.md and kinds.md from what there is: `python docs/tables.py`; a test compares them."""

from __future__ import annotations

import inspect
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fscore import testing
from fscore.cli import COMMANDS
from fscore.component import Component, options_of
from fscore.compose import FLAGS
from fscore.kinds import KINDS
from fscore.paths import Stage
from fscore.plugins import PluginHost, installed

ROOT = Path(__file__).parents[1]
TITLES = {"datasets": "data sets", "devices": "device models"}
PLACES = {
    "availabilities": "`availability = {}` in `[devices]`",
    "partitions": "`partition = {}` in `[data]`",
    "metrics": "`[evaluation] metrics`",
}


def packages() -> dict[str, Path]:
    """Return the folder of every plugin package of this repository, by distribution name."""
    folders = [*sorted(ROOT.glob("plugins/*")), ROOT / "fs-contrib"]
    return {path.name: path for path in folders if (path / "pyproject.toml").exists()}


def components() -> str:
    """Return the table of kinds and the components that fscore itself has."""
    registry = PluginHost.load({}).registry
    lines = ["| kind | table | components |", "|---|---|---|"]
    for kind in KINDS:
        title = TITLES.get(kind.plural, kind.plural.replace("_", " "))
        table = f"`[[{kind.table}]]`" if kind.many else f"`[{kind.table}]`"
        names = ", ".join(registry.names(kind)) or "from plugins"
        lines.append(f"| {title} | {PLACES.get(kind.plural, table)} | {names} |")
    return "\n".join(lines)


def plugins() -> str:
    """Return the table of the plugin packages of this repository and what they register."""
    known = {plugin.distribution: plugin for plugin in installed()}
    lines = ["| package | switched on by | what it adds |", "|---|---|---|"]
    for name, path in packages().items():
        if name not in known:
            raise SystemExit(f"{name} is not installed: pip install -e {path.relative_to(ROOT)}")
        plugin = known[name]
        host = PluginHost.load({}, [plugin.load()])
        found: dict[str, list[str]] = {}
        for (plural, component), (_, origin) in host.registry.classes.items():
            if origin == plugin.name:
                found.setdefault(plural.replace("_", " "), []).append(component)
        about = tomllib.loads((path / "pyproject.toml").read_text())["project"]["description"]
        adds = "; ".join(f"{kind} {', '.join(sorted(names))}" for kind, names in found.items())
        link = f"[{name}]({path.relative_to(ROOT)}/README.md)"
        lines.append(f"| {link} | `[plugins.{plugin.name}]` | {about}: {adds} |")
    return "\n".join(lines)


def commands() -> str:
    """Return the table of commands."""
    lines = ["| command | what it does |", "|---|---|"]
    return "\n".join(
        [*lines, *(f"| `fscore {name}` | {text} |" for name, text in COMMANDS.items())]
    )


def suites() -> str:
    """Return the table of the contract suites."""
    lines = ["| suite | what it is for | tests |", "|---|---|---|"]
    for name in (n for n in testing.__all__ if n.endswith("Contract")):
        suite = getattr(testing, name)
        count = sum(test.startswith("test_") for test in dir(suite))
        lines.append(f"| `{name}` | {_first(suite.__doc__)} | {count} |")
    return "\n".join(lines)


CONDITIONS = {
    "Aggregator.reduce": "to see single updates",
    "Attack.craft": "if it colludes",
}
"""When a method has to be overridden whose default raises; others always."""


def kinds() -> str:
    """Return, for each kind, what its components must and may override."""
    parts = [_overridable(Component, "any component", object)]
    for kind in KINDS:
        table = f"`[[{kind.table}]]`" if kind.many else f"`[{kind.table}]`"
        place = PLACES.get(kind.plural, table)
        parts.append(
            _overridable(kind.base, f"{kind.plural.replace('_', ' ')}: {place}", Component)
        )
    parts.append(_overridable(Stage, "stages: returned by `stages()` of any component", object))
    return "\n\n".join(parts)


def flags() -> str:
    """Return the table of the flags that hold in a plain course."""
    lines = ["| flag | in a plain course there are |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{flag}` | {text} |" for flag, text in FLAGS.items())])


def _overridable(cls: type[Any], title: str, above: type[Any]) -> str:
    """Return the section of one interface: a line per attribute and method, those first that must be overridden."""
    module = cls.__module__
    lines = [f"## {title}", "", f"`from {module} import {cls.__name__}`. {_first(cls.__doc__)}", ""]
    rows = sorted(_rows(cls, above), key=lambda row: row[0] != "must")
    lines += ["| | signature | what it is |", "|---|---|---|"]
    lines += [f"| {when} | `{signature}` | {what} |" for when, signature, what in rows]
    if issubclass(cls, Component) and (names := [a.name for a in options_of(cls)]):
        lines += ["", f"Options that it has already: {', '.join(f'`{name}`' for name in names)}."]
    return "\n".join(lines)


def _rows(cls: type[Any], above: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (when, signature, what) of everything that a class declares for others to override."""
    own = {n: v for base in reversed(cls.__mro__) if issubclass(base, above) and base is not above
           for n, v in vars(base).items()}  # fmt: skip
    fields = {a.name for a in getattr(cls, "__attrs_attrs__", ())}
    for name, value in own.items():
        if name.startswith("_") or name in fields:
            continue
        if isinstance(value, property):
            hints = inspect.get_annotations(value.fget)  # type: ignore[arg-type]
            yield "may", f"{name}: {hints['return']}", f"a property. {_first(value.__doc__)}"
        elif inspect.isfunction(value):
            yield _when(cls, name, value), f"{name}{_signature(value)}", _first(value.__doc__)
        elif (about := _attribute(cls, name)) is not None:
            yield "must" if name == "name" else "may", f"{name} = {_shown(value)}", about


def _when(cls: type[Any], name: str, method: Callable[..., Any]) -> str:
    raises = "raise NotImplementedError" in inspect.getsource(method)
    return CONDITIONS.get(f"{cls.__name__}.{name}", "must") if raises else "may"


def _signature(method: Callable[..., Any]) -> str:
    """Return a signature in one line, without self and without the modules of types."""
    text = str(inspect.signature(method)).replace("'", "")
    text = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text)
    return re.sub(r"\(self(, )?", "(", text, count=1).replace("|", "\\|")


def _shown(value: Any) -> str:
    return "frozenset()" if value == frozenset() else repr(value)


def _attribute(cls: type[Any], name: str) -> str | None:
    """Return what stands below a class attribute in the source; None: nothing does."""
    for base in cls.__mro__[:-1]:
        found = re.search(
            rf'^    {name}\b[^\n]*\n    """(.*?)"""', inspect.getsource(base), re.S | re.M
        )
        if found:
            return " ".join(found[1].split())
    return None


def _first(text: str | None) -> str:
    """Return the first paragraph of a docstring in one line, as a table has it."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return paragraph.replace("|", "\\|")


def filled(text: str) -> str:
    """Return a document with its tables, between `<!-- NAME -->` and `<!-- end -->`, made new."""
    for table in (components, plugins, commands, suites, flags, kinds):
        if f"<!-- {table.__name__} -->" in text:
            pattern = rf"(<!-- {table.__name__} -->\n).*?(\n<!-- end -->)"
            text = re.sub(pattern, lambda m, t=table: m[1] + t() + m[2], text, flags=re.S)
    return text


DOCUMENTS = ("README.md", "docs/plugin-authors.md", "docs/kinds.md")

if __name__ == "__main__":
    for path in (ROOT / name for name in DOCUMENTS):
        path.write_text(filled(path.read_text()))
        sys.stdout.write(f"{path}\n")
