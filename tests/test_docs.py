"""What the documents list is what there is."""

from pathlib import Path

from fscore import hookspecs
from fscore.cli import COMMANDS
from fscore.kinds import KINDS
from fscore.plugins import PluginHost

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def rows():
    lines = [line.strip("|").split("|") for line in README.splitlines() if line.startswith("| ")]
    return {cells[0].strip(): cells[-1].strip() for cells in lines}


def test_readme_lists_every_component_and_nothing_else():
    registry = PluginHost.load({}).registry
    listed = rows()
    titles = {"datasets": "data sets", "devices": "device models", "privacy_mechanisms": "privacy mechanisms",
              "server_optimizers": "server optimizers"}  # fmt: skip
    for kind in KINDS:
        named = listed[titles.get(kind.plural, kind.plural)].split(";")[0]
        assert named == (", ".join(registry.names(kind)) or "none yet")


def test_readme_lists_every_command():
    listed = " ".join(rows())
    assert [name for name in COMMANDS if f"`fscore {name}" not in listed] == []


def test_readme_shows_the_first_course():
    assert (ROOT / "examples" / "digits.toml").read_text().strip() in README


def test_the_authors_guide_names_every_hook():
    guide = (ROOT / "docs" / "plugin-authors.md").read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("fscore_")]
    register = {f"fscore_register_{kind.plural}" for kind in KINDS}
    assert [name for name in hooks if name not in guide and name not in register] == []
