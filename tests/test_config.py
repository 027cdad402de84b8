"""Course files: strict, every problem at once, dotted key first, with the nearest known name."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Literal

import pytest
import tomli
from attrs import define
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fscore.builtin.tables import assign, document, read, resolved
from fscore.component import Component, options_of, state
from fscore.config import _typed, resolve
from fscore.errors import ConfigError
from fscore.hookspecs import hookimpl
from fscore.kinds import KINDS
from fscore.settings import SETTINGS
from fscore.testing import fs_course
from fscore.testing.course import TINY

EXAMPLES = Path(__file__).parents[1] / "examples"


def problems(toml: str) -> tuple[str, ...]:
    """Return the problems of the tiny course with some tables changed."""
    tables = {**copy.deepcopy(TINY), **tomli.loads(toml)}
    with pytest.raises(ConfigError) as caught:
        resolve(tables)
    return caught.value.problems


@functools.cache
def known(plural: str) -> str:
    """Return the names of a kind as messages list them."""
    kind = next(kind for kind in KINDS if kind.plural == plural)
    return ", ".join(resolve(TINY).host.registry.names(kind)) or "none"


def test_every_problem_of_a_file_is_reported_at_once():
    found = problems(
        """
        [course]
        sed = 1
        until = { version = 3 }
        [trainr]
        lr = 1
        [trainer]
        lr = "x"
        momentm = 0.5
        epochs = -1
        nesterov = 1
        [aggregator]
        use = "meen"
        """
    )
    assert found == (
        "trainr: unknown table, did you mean 'trainer'?",
        "course.sed: unknown option of [course], did you mean 'seed'?",
        "course.until.version: unknown option of [course.until], did you mean 'versions'?",
        f"aggregator.use: no aggregator is called 'meen', did you mean 'mean'? "
        f"(known: {known('aggregators')})",
        "trainer.momentm: unknown option of 'sgd', did you mean 'momentum'?",
        "trainer.lr: expected a number, got the string 'x'",
        "trainer.epochs: must be greater than 0, got -1.0",
        "trainer.nesterov: expected true or false, got 1",
    )


def test_the_text_of_the_error_is_one_line_per_problem():
    assert str(ConfigError(["a: x", "b: y"])) == "a: x\nb: y"


def test_problems_of_plugins_come_with_those_of_settings():
    first, second = problems("[plugins.zzzz]\n[course]\nseed = -1")
    assert first.startswith("plugins.zzzz: no installed plugin has this name (installed: ")
    assert second == "course.seed: must be at least 0, got -1"


ONE_PROBLEM = {
    "trainer = 3": "trainer: expected a table, got 3",
    '[[trainer]]\nuse = "sgd"': "trainer: expected a table, got a list",
    "trainer = {use = 3}": "trainer.use: expected a string, got 3",
    "trainer = {use = {a = 1}}": "trainer.use: expected a string, got a table",
    'trainer = {use = ""}': "trainer.use: missing; choose one of <trainers>",
    "privacy = 3": "privacy: expected an array of tables, [[privacy]]",
    "privacy = [3]": "privacy.0: expected a table, got 3",
    "[[privacy]]\nclip_norm = 1.0": "privacy.0.use: missing; choose one of <privacy_mechanisms>",
    "[[attack]]\nclients = 1": "attack.0.use: missing; choose one of <attacks>",
    '[[attack]]\nuse = "flip"': "attack.0.use: no attack is called 'flip' (known: <attacks>)",
    "course = 3": "course: expected a table, got 3",
    '[course]\nuse = "x"': "course.use: unknown option of [course]",
    "[course]\nseed = true": "course.seed: expected an integer, got true",
    '[course]\nseed = "1"': "course.seed: expected an integer, got the string '1'",
    "[course]\nseed = 1.0": "course.seed: expected an integer, got 1.0",
    "[course]\nuntil = 3": "course.until: expected a table, got 3",
    "[trainer]\nlr = nan": "trainer.lr: must be at least 0, got nan",
    "[trainer]\nlr = true": "trainer.lr: expected a number, got true",
    '[trainer]\nmax_grad_norm = "a"': (
        "trainer.max_grad_norm: expected a number, got the string 'a'"
    ),
    '[trainer]\nprivate = "head"': "trainer.private: expected a list, got the string 'head'",
    "[trainer]\nprivate = [1]": "trainer.private.0: expected a string, got 1",
    '[aggregator]\nweighting = "sample"': (
        "aggregator.weighting: expected one of 'samples', 'uniform', got the string 'sample', "
        "did you mean 'samples'?"
    ),
    '[evaluation]\nmetrics = ["acuracy"]': (
        "evaluation.metrics.0.use: no metric is called 'acuracy', did you mean 'accuracy'? "
        "(known: <metrics>)"
    ),
    '[evaluation]\nmetrics = [{ use = "accuracy", k = 3 }]': (
        "evaluation.metrics.0.k: unknown option of 'accuracy'"
    ),
    "[evaluation]\nmetrics = [3]": "evaluation.metrics.0: expected a table, got 3",
    '[data]\nuse = "digits"\npartition = "natura"': (
        "data.partition.use: no partition is called 'natura', did you mean 'natural'? "
        "(known: <partitions>)"
    ),
    '[data]\nuse = "digits"\npartition = { use = "iid" }': (
        "data.partition.clients: missing; 'iid' needs it. Number of clients."
    ),
    "plugins = 3": "plugins: expected tables, [plugins.NAME]",
    "override = 3": "override: expected an array of tables, [[override]]",
    "override = [3]": "override.0: expected a table, got 3",
    "[[override]]\ntrainer.lr = 0.1": "override.0.clients: expected a list of client ids",
    "[[override]]\nclients = [-1]": "override.0.clients: expected a list of client ids",
    "[[override]]\nclients = [1]\ntrainr.lr = 0.1": (
        "override.0.trainr: unknown table, did you mean 'trainer'?"
    ),
    "[[override]]\nclients = [true]": "override.0.clients: expected a list of client ids",
}


@pytest.mark.parametrize("toml", ONE_PROBLEM, ids=lambda text: text.replace("\n", " "))
def test_problem(toml):
    expected = re.sub("<([a-z_]+)>", lambda kind: known(kind[1]), ONE_PROBLEM[toml])
    assert problems(toml) == (expected,)


def test_a_missing_table_is_named():
    with pytest.raises(ConfigError) as caught:
        resolve({"course": {}})
    assert caught.value.problems == (
        "data: missing table; a course needs it",
        "model: missing table; a course needs it",
    )


def test_an_integer_is_accepted_for_a_number():
    assert resolve({**TINY, "trainer": {"lr": 1}}).components["trainer"].lr == 1.0


# ------------------------------------------------------------------------------------------------ any key


TABLES = [*SETTINGS, *(kind.table for kind in KINDS if kind.table in TINY or kind.default)]


@functools.cache
def options(table: str) -> frozenset[str]:
    """Return the keys that a table of the tiny course may hold."""
    if table in SETTINGS:
        return frozenset(a.name for a in options_of(SETTINGS[table]))
    made = resolve(TINY).components[table]
    return frozenset({"use", *(a.name for a in options_of(type(made)))})


@settings(max_examples=60, deadline=None)
@given(table=st.sampled_from(TABLES), key=st.text(min_size=1, max_size=12))
def test_any_unknown_key_is_reported(table, key):
    assume(key not in options(table))
    tables = copy.deepcopy(TINY)
    tables.setdefault(table, {})[key] = 1
    with pytest.raises(ConfigError) as caught:
        resolve(tables)
    (line,) = caught.value.problems
    assert line.startswith(f"{table}.{key}: unknown option of ")


@settings(max_examples=40, deadline=None)
@given(name=st.text(max_size=12))
def test_any_unknown_table_is_reported(name):
    assume(name not in {*SETTINGS, "plugins", "override", *(k.table for k in KINDS if k.table)})
    with pytest.raises(ConfigError) as caught:
        resolve({**TINY, name: {}})
    (line,) = caught.value.problems
    assert line.startswith(f"{name}: unknown table")


# ------------------------------------------------------------------------------------------------ --set


def assigned(tables, *changes):
    """Return tables after some settings."""
    tables = copy.deepcopy(tables)
    assign(tables, changes)
    return tables


SETS = [
    ("trainer.lr=0.05", {"trainer": {"lr": 0.05}}),
    ("trainer.use=sgd", {"trainer": {"use": "sgd"}}),
    ('course.name="a=b"', {"course": {"name": "a=b"}}),
    ("course.until.versions = 5", {"course": {"until": {"versions": 5}}}),
    ("trainer.nesterov=true", {"trainer": {"nesterov": True}}),
    ("model.hidden=[3, 4]", {"model": {"hidden": [3, 4]}}),
]


@pytest.mark.parametrize(("change", "expected"), SETS, ids=[change for change, _ in SETS])
def test_set_makes(change, expected):
    assert assigned({}, change) == expected


def test_set_reaches_into_arrays_of_tables():
    tables = {"privacy": [{"use": "clip"}]}
    assert assigned(tables, "privacy.0.clip_norm=2.0") == {
        "privacy": [{"use": "clip", "clip_norm": 2.0}]
    }


def test_set_replaces_an_entry_of_a_list():
    assert assigned({"model": {"hidden": [1, 2]}}, "model.hidden.1=5") == {
        "model": {"hidden": [1, 5]}
    }


WRONG_SETS = {
    "trainer.lr": "--set: expected KEY=VALUE, got 'trainer.lr'",
    "=3": "--set: expected KEY=VALUE, got '=3'",
    "course.seed.x=1": "--set: course.seed.x: 'seed' is a value, not a table",
    "privacy.1.clip_norm=1": "--set: privacy.1.clip_norm: there is no entry 1, the file has 1",
    "privacy.clip_norm=1": "--set: privacy.clip_norm: there is no entry clip_norm, the file has 1",
    "hidden.0.x=1": "--set: hidden.0.x: '0' is a value, not a table",
    "trainer..lr=1": "--set: trainer..lr: a part of the key is empty",
    "trainer.private=[a]": "--set: trainer.private: not a TOML value: '[a]'",
    "trainer.lr=": "--set: trainer.lr: not a TOML value: ''",
    "trainer.lr=1\nw = 2": "--set: trainer.lr: expected one value, got '1\\nw = 2'",
}


@pytest.mark.parametrize("change", WRONG_SETS)
def test_set_refuses(change):
    tables = {"course": {"seed": 1}, "privacy": [{}], "hidden": [3]}
    with pytest.raises(ConfigError) as caught:
        assign(tables, [change])
    assert str(caught.value) == WRONG_SETS[change]


def test_set_is_validated_like_the_file():
    tables = assigned(TINY, "trainer.lr=-1")
    with pytest.raises(ConfigError) as caught:
        resolve(tables)
    assert str(caught.value) == "trainer.lr: must be at least 0, got -1.0"


# ------------------------------------------------------------------------------------------------ files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "no.toml")
    assert str(caught.value) == f"{tmp_path / 'no.toml'}: No such file or directory"


def test_a_file_that_is_no_toml_is_named_with_the_place(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text("[course\n")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path}: not TOML: Expected ']' at the end of a table declaration (at line 1, column 8)"
    )


def test_a_file_that_is_not_utf8_is_named_with_the_place(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(b"a = '\xff'")
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value) == f"{path}: not UTF-8: invalid start byte at byte 5"


# ------------------------------------------------------------------------------------------------ [[override]]


def test_an_override_reaches_the_task_of_its_client_only():
    run = fs_course('[[override]]\nclients = [3]\ntrainer.lr = 0.0\n[sampler]\nuse = "all"')
    assert run.course.config.overrides[0].values == {"trainer.lr": 0.0}
    assert run.course._hparams(3) == ({"trainer.lr": 0.0}, {})
    assert run.course._hparams(2) == ({}, {})


@define(eq=False)
class Idle(Component):
    """Notes the clients whose update is zero."""

    name = "idle"
    clients: list[int] = state(list)

    @hookimpl
    def fscore_update_received(self, task, update):
        if not update["model"].any():
            self.clients.append(task.client)


def test_a_learning_rate_of_0_for_one_client_reaches_its_trainer_only():
    idle = Idle()
    fs_course(
        '[[override]]\nclients = [3]\ntrainer.lr = 0.0\n[sampler]\nuse = "all"', plugins=[idle]
    )
    assert idle.clients == [3, 3, 3]


def test_an_override_of_the_learning_rate_to_0_keeps_the_model_as_it_was():
    run = fs_course("[[override]]\nclients = [0, 1, 2, 3, 4, 5]\ntrainer.lr = 0.0")
    assert run.result.model["model"].tolist() == run.course.initial.tolist()


def test_a_later_override_wins():
    run = fs_course(
        "[[override]]\nclients = [3]\ntrainer.lr = 0.0\n"
        "[[override]]\nclients = [3, 4]\ntrainer.lr = 0.5"
    )
    assert run.course._hparams(3)[0] == {"trainer.lr": 0.5}


def test_every_problem_of_an_override_is_reported():
    found = problems(
        """
        [[override]]
        clients = [1]
        trainer.lr = -1.0
        trainer.nesterov = true
        trainer.epoch = 1
        foo.a = 1
        """
    )
    assert found == (
        "override.0.trainer.lr: must be at least 0, got -1.0",
        "override.0.trainer.nesterov: cannot differ by client",
        "override.0.trainer.epoch: unknown option of 'sgd', did you mean 'epochs'?",
        "override.0.foo: expected a table of options of a component, like trainer.lr = 0.1",
    )


# ------------------------------------------------------------------------------------------------ resolved()

FILES = [
    "",
    '[[privacy]]\nuse = "clip"\nclip_norm = 2\n[[privacy]]\nuse = "clip"',
    '[evaluation]\nmetrics = ["loss", { use = "top_k", k = 2 }]',
    "[[override]]\nclients = [1]\ntrainer.lr = 0.5",
    '[data]\nuse = "digits"\npartition = { use = "iid", clients = 4 }\n[trainer]\nfrozen = ["a"]',
]


@pytest.mark.parametrize("toml", FILES)
def test_resolving_what_was_resolved_changes_nothing(toml):
    first = resolved(resolve({**TINY, **tomli.loads(toml)}))
    assert resolved(resolve(first)) == first


def test_examples_resolve_to_a_fixed_point():
    first = resolved(resolve(read(EXAMPLES / "digits.toml")))
    assert resolved(resolve(first)) == first


def test_resolved_fills_in_every_default():
    filled = resolved(resolve(TINY))
    assert filled["record"] == {"snapshot_seconds": 10.0, "snapshots": 2}
    assert set(filled) == {*TABLES, "plugins"}


def test_a_component_given_in_the_process_stands_in_for_its_table():
    from fscore.builtin.trainers import SGD

    own: Component = SGD(lr=0.25)
    config = resolve({**TINY, "trainer": {"lr": 1}}, given={"trainer": own})
    assert config.components["trainer"] is own


def test_a_given_component_of_no_table_is_refused():
    from fscore.builtin.trainers import SGD

    with pytest.raises(ConfigError) as caught:
        resolve(TINY, given={"trainr": SGD()})
    assert str(caught.value) == "trainr: no such table, did you mean 'trainer'?"


# ------------------------------------------------------------------------------------------------ written as TOML

values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["data", "model"]),
        st.dictionaries(st.sampled_from(["a", "trainer.lr", "b c"]), values),
    )
)
@settings(deadline=None)
def test_a_written_document_reads_back(tables):
    assert tomli.loads(document(tables)) == tables


def test_a_file_that_is_nested_too_deep_is_named(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: not TOML: ")


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (
            float | Literal["replace"],
            "replcae",
            "x: expected a number or one of 'replace', got the string 'replcae', did you mean 'replace'?",
        ),
        (int | float | list[int], [1.5], "x.0: expected an integer, got 1.5"),
        (int | float, "a", "x: expected an integer or a number, got the string 'a'"),
    ],
)
def test_a_value_of_none_of_several_types_is_refused_with_the_nearest(hint, value, expected):
    assert _typed(hint, value, "x", None) == (None, [expected])
