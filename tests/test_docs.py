"""What the documents list is what there is."""

import importlib.util
import inspect
import re
import sys
from pathlib import Path

import pytest
from pytest_helpers import run_tests

from fscore import hookspecs
from fscore.cli import COMMANDS
from fscore.component import Component
from fscore.errors import SnapshotError
from fscore.kinds import KINDS
from fscore.plugins import installed
from fscore.testing import fs_course

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "docs/plugin-authors.md", "docs/kinds.md"])
def test_tables_are_as_generated(name, monkeypatch):
    """Remedy: python docs/tables.py."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    missing = set(tables.packages()) - {plugin.distribution for plugin in installed()}
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")
    text = (ROOT / name).read_text()
    assert name in tables.DOCUMENTS
    assert "<!-- end -->" in text
    assert tables.filled(text) == text


def test_what_must_be_overridden_raises_and_what_may_does_not(monkeypatch):
    """The page of kinds says `must` of methods without which a component of the kind cannot work."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    for kind in KINDS:
        whens = {re.match(r"\w+", row[1])[0]: row[0] for row in tables._rows(kind.base, Component)}
        made = kind.base.__new__(kind.base)
        for name, when in whens.items():
            method = getattr(kind.base, name)
            if when == "must" and inspect.isfunction(method):
                count = len(inspect.signature(method).parameters) - 1
                with pytest.raises(NotImplementedError):
                    method(made, *[None] * count)


def test_a_component_without_what_it_must_override_is_not_listed_as_complete(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import tables

    must = {
        kind.plural: [
            row[1].split("(")[0] for row in tables._rows(kind.base, Component) if row[0] == "must"
        ]
        for kind in KINDS
    }
    assert must["stores"] == ["open", "get", "put", "clients", "mark", "restore"]
    assert must["trainers"] == ["batches", "step"]
    assert must["aggregators"] == []


def test_readme_shows_the_first_course():
    assert (ROOT / "examples" / "digits.toml").read_text().strip() in README


def test_the_authors_guide_names_every_hook():
    guide = (ROOT / "docs" / "plugin-authors.md").read_text()
    hooks = [name for name in vars(hookspecs) if name.startswith("fscore_")]
    register = {f"fscore_register_{kind.plural}" for kind in KINDS}
    assert [name for name in hooks if name not in guide and name not in register] == []


def test_commands_that_documents_name_exist():
    texts = [path.read_text() for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]]
    named = {word for text in texts for word in re.findall(r"`fscore ([a-z][a-z-]*)", text)}
    of_plugins = {"privacy", "leakage", "tournament"}
    assert named <= {*COMMANDS, *of_plugins}


# ------------------------------------------------------------------------ Python on the pages

GUIDE = (ROOT / "docs" / "plugin-authors.md").read_text()
COHORTS = (ROOT / "docs" / "cohorts.md").read_text()


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)


def module_of(tmp_path, number, text):
    """Save a piece of Python as a module of its own and import it."""
    path = tmp_path / f"test_block_{number}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("number", range(len(blocks(GUIDE))))
def test_python_of_the_authors_guide_runs_as_printed(number, tmp_path):
    text = blocks(GUIDE)[number]
    module_of(tmp_path, number, text)
    if "class Test" not in text and "def test_" not in text:
        return
    done = run_tests(tmp_path, f"test_block_{number}.py")
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d{2,} passed", done.stdout, re.M), done.stdout


def named(tmp_path, name):
    """Return a class that the guide prints."""
    for number, text in enumerate(blocks(GUIDE)):
        if f"class {name}(" in text:
            return getattr(module_of(tmp_path, number, text), name)
    raise AssertionError(f"the guide has no class {name}")


def test_the_guide_shows_components_that_work_in_a_course(tmp_path):
    given = {
        "server_optimizer": named(tmp_path, "Momentum")(),
        "trainer": named(tmp_path, "Prox")(),
        "attack.0": named(tmp_path, "Sum")(),
    }
    run = fs_course(given=given)
    assert run.result.status == "complete"
    assert "against_norm" in run.result.history[0]


def test_the_guide_shows_plugins_that_work_in_a_course(tmp_path):
    slow, stop = named(tmp_path, "SlowPlugin"), named(tmp_path, "StopPlugin")
    run = fs_course(plugins=[slow, stop])
    assert run.result.reason == "the training loss is low enough"
    plain = fs_course(plugins=[stop]).result
    assert (run.result.versions, plain.versions) == (2, 2)
    assert run.result.digest == plain.digest
    assert run.result.virtual_time > plain.virtual_time


def test_a_trainer_of_the_guide_without_its_term_is_sgd(tmp_path):
    prox = named(tmp_path, "Prox")(mu=0.0)
    assert fs_course(given={"trainer": prox}).result.digest == fs_course().result.digest


def test_the_plugin_of_the_guide_that_counts_results_counts_them(tmp_path):
    run = fs_course(plugins=[named(tmp_path, "CountPlugin")])
    assert [line["results"] for line in run.result.history] == [4, 8, 12]


@pytest.mark.parametrize("longest", [0.01, 1e9])
def test_the_trainer_of_the_page_on_cohorts_gives_the_model_of_serial(longest, tmp_path):
    (text,) = blocks(COHORTS)
    trainer = module_of(tmp_path, "cohorts", text).BoundedProx
    models = {
        use: fs_course(
            given={"trainer": trainer(mu=0.5, longest=longest, epochs=5)},
            changes={"executor.use": use},
        )
        for use in ("serial", "cohort", "auto")
    }
    serial = models["serial"].result.model["model"]
    for use in ("cohort", "auto"):
        assert models[use].course.executor.name == "cohort"
        difference = (models[use].result.model["model"] - serial).abs().max()
        assert difference < 1e-6


def test_python_of_the_readme_runs_as_printed(tmp_path, monkeypatch):
    own, tried, api = blocks(README)
    names = vars(module_of(tmp_path, "readme", own + tried))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    import torch

    from fscore.context import Samples

    x, y = torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3
    names |= {
        "tables": {"course": {"until": {"versions": 2}}},
        "my_module": torch.nn.Linear(4, 3),
        "my_clients": [(Samples(x, y), Samples(x, y)) for _ in range(3)],
    }
    with pytest.raises(SnapshotError, match="this run has ended"):
        exec(api, names)  # noqa: S102
    assert names["result"].status == "complete"
