"""docs/tuning.md says what a search leaves, and its tuner works."""

import json
import re
from pathlib import Path

import tomli
from tuning_helpers import lines, searched, tables

from fscore.builtin.tuning.search import Tuning

PAGE = (Path(__file__).parents[1] / "docs/tuning.md").read_text()
TOML, PYTHON = (
    re.findall(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)[0] for name in ("toml", "python")
)


def cells(header):
    """Return the names in the first column of the table under a header."""
    rows = PAGE.split(header)[1].split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_field_of_a_line_is_documented(tmp_path):
    searched(tmp_path, {"use": "grid"})
    fields = cells("A line of `trials.jsonl`:\n\n")
    assert set(fields) == set(json.loads(lines(tmp_path)[0]))


def test_every_file_of_a_search_is_documented(tmp_path):
    searched(tmp_path, {"use": "grid"}).write()
    named = {name.partition("/")[0] for name in cells("## The folder of a search\n\n")}
    assert named == {p.name for p in tmp_path.iterdir()} - {".lock"}


def test_the_search_of_the_page_is_one(tmp_path):
    tuning = Tuning({**tables(), **tomli.loads(TOML)}, tmp_path)
    assert tuning.keys() == [
        "trainer.lr",
        "trainer.batch_size",
        "trainer.momentum",
        "trainer.nesterov",
    ]


def test_the_tuner_of_the_page_doubles_until_it_gets_worse(tmp_path):
    names: dict = {}
    exec(PYTHON, names)  # noqa: S102
    tuning = searched(
        tmp_path, {"use": "doubling", "space": {"trainer.lr": [0.1]}}, plugins=[names["MyPlugin"]]
    )
    rates = [d.trial.params["trainer.lr"] for d in tuning.finished]
    values = [d.report.value for d in tuning.finished]
    assert rates == [2.0 ** (i - 6) for i in range(len(rates))]
    assert values[-1] > values[-2] == min(values)
