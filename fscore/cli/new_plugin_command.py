"""`fscore new-plugin NAME`: the files of a package for a new plugin."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import click

from fscore.cli.recipes import RECIPES, Recipe
from fscore.errors import ConfigError, nearest
from fscore.plugins import PluginHost, installed

PYPROJECT = Template("""\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "$folder"
version = "0.1.0"
description = "The plugin $name of fscore"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["fscore"]

[project.entry-points."fscore.plugins"]
$name = "$module.plugin:${title}Plugin"

[tool.hatch.build.targets.wheel]
packages = ["src/$module"]
""")

README = Template("""\
# $folder

A plugin of fscore. It adds the $kind `$name`: $about.
`fscore options $name` prints its options.

    pip install -e .
    fscore $command course.toml

with the file `course.toml`:

```toml
$course
```
""")

COURSE = """\
[course]
name = "$name"
seed = 1
until = { versions = 5 }

[plugins.$name]

[data]
use = "synthetic"
clients = 20

[model]
use = "softmax"

[trainer]
use = "sgd"
lr = 0.01
"""

PLUGIN = Template('''\
"""The hooks of the plugin `$name`; what they offer is imported on demand."""

from __future__ import annotations

from typing import Any

from attrs import define

from fscore import Component, hookimpl


@define(eq=False)
class ${title}Plugin(Component):
    """Registers what this distribution offers; `[plugins.$name]` switches it on."""

    name = "$name"

    @hookimpl
    def fscore_register_$plural(self) -> list[Any]:
        from $module.$stem import $cls

        return [$cls]
''')

WORDS = {"privacy": "privacy mechanism", "devices": "device model", "dataset": "data set"}
"""What a kind is called in a sentence, where that is not its name."""

COMPONENT = Template('''\
"""The $kind `$name`."""

from __future__ import annotations

$code''')

TEST = Template('''\
from __future__ import annotations

$own

from fscore.testing import $imports

TABLES = """
$tables"""


class Test${title}($suites):
    """What every $kind promises."""

    def make(self):
        return $cls($arguments)


def test_a_course_with_it_reaches_its_end():
    run = fs_course(TABLES, plugins=[${title}Plugin])

    assert run.result.status == "complete"
$more''')


@click.command("new-plugin")
@click.argument("name")
@click.option("--into", default=".", metavar="DIR", help="Where the folder is made.")
@click.option(
    "--kind",
    default="aggregator",
    metavar="KIND",
    help=f"What it adds: {', '.join(RECIPES)}. Default: aggregator.",
)
def command(name: str, into: str, kind: str) -> None:
    """Write the package fs-NAME: a plugin with one component of a kind, and its contract test."""
    root = Path(into) / f"fs-{name}"
    files = render(name, kind)
    if root.exists():
        raise ConfigError(f"fs-{name}: already exists")
    try:
        for path, text in files.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{root}: {error.strerror}") from error
    click.echo(f"wrote {root}; next: pip install -e {root} pytest && python -m pytest {root}")


def render(name: str, kind: str = "aggregator") -> dict[str, str]:
    """Return the files of the package of a plugin: path below its folder -> text.

    Raises:
        ConfigError: the name cannot be that of a plugin, or there is no such kind.
    """
    recipe = RECIPES.get(kind.replace("-", "_"))
    if recipe is None:
        raise ConfigError(
            f"--kind: there is no '{kind}'{nearest(kind, RECIPES)} (known: {', '.join(RECIPES)})"
        )
    words = {**_names(name), **_parts(recipe)}
    words |= {key: Template(text).substitute(words) for key, text in words.items()}
    words["course"] = _course(words)
    modules = ((words["stem"], words["cls"]), ("plugin", f"{words['title']}Plugin"))
    words["own"] = "\n".join(f"from {words['module']}.{m} import {c}" for m, c in sorted(modules))
    source = f"src/{words['module']}"
    return {
        "pyproject.toml": PYPROJECT.substitute(words),
        "README.md": README.substitute(words),
        f"{source}/__init__.py": f'"""The plugin {words["name"]} of fscore."""\n',
        f"{source}/plugin.py": PLUGIN.substitute(words),
        f"{source}/{words['stem']}.py": COMPONENT.substitute(words),
        f"{source}/py.typed": "",
        f"tests/test_{words['name']}.py": TEST.substitute(words),
    }


def _names(name: str) -> dict[str, str]:
    """Return what a package and its parts are called."""
    plain = name.replace("-", "_")
    if not re.fullmatch("[a-z]([a-z0-9_]*[a-z0-9])?", plain):
        raise ConfigError(
            f"NAME: expected lower-case letters, digits and hyphens, a letter first, got '{name}'"
        )
    own = PluginHost.load({}).registry
    if plain.startswith("fs_"):
        raise ConfigError(f"NAME: the folder gets its 'fs-' by itself, write '{name[3:]}'")
    if plain in ("fscore", "builtin") or plain in {plugin.name for plugin in installed()} | {
        known for _, known in own.classes
    }:
        raise ConfigError(
            f"NAME: '{plain}' is taken, by a component of fscore or an installed plugin"
        )
    return {
        "folder": f"fs-{name}",
        "name": plain,
        "module": f"fs_{plain}",
        "title": "".join(word.capitalize() for word in plain.split("_")),
    }


def _parts(recipe: Recipe) -> dict[str, str]:
    """Return the texts of a recipe."""
    suites = recipe.suites.split(", ")
    return {
        "kind": WORDS.get(recipe.kind, recipe.kind.replace("_", " ")),
        "stem": recipe.kind,
        "plural": recipe.plural,
        "about": recipe.about,
        "code": recipe.code,
        "cls": "${title}" + recipe.suffix,
        "suites": recipe.suites,
        "imports": ", ".join([*sorted(suites), "fs_course"]),
        "arguments": recipe.arguments,
        "tables": recipe.tables,
        "more": recipe.more,
        "command": recipe.command,
    }


def _course(words: dict[str, str]) -> str:
    """Return a whole course: the tables of the recipe in the place of those of the same name."""
    own = _by_head(words["tables"])
    tables = {**_by_head(Template(COURSE).substitute(words)), **own}
    return "\n\n".join(tables.values())


def _by_head(text: str) -> dict[str, str]:
    """Return the tables of a course file by their first line."""
    return {table.split("\n")[0]: table for table in text.strip().split("\n\n")}
