"""Tournaments: what a file may say, that every pair is played as if alone, and what is written."""

from __future__ import annotations

import json
import math

import pytest
from attrs import evolve
from click.testing import CliRunner
from fs_byzantine.command import tournament
from fs_byzantine.report import Score, backdoors, scores, table
from fs_byzantine.tournament import Cell, Diary, Tournament

import fscore
from fscore.errors import ConfigError

BASE = """
[course]
name = "games"
until = { versions = 2 }
[plugins.byzantine]
[data]
use = "synthetic"
clients = 6
features = 4
num_classes = 3
min_samples = 5
max_samples = 20
unseen_clients = 0
[model]
use = "softmax"
[sampler]
use = "all"
[tournament]
clients = 2
seeds = [1, 2]
[[tournament.attack]]
use = "sign_flip"
scale = 3.0
[[tournament.attack]]
label = "half"
use = "ipm"
[[tournament.defence]]
use = "mean"
"""
UNIFORM = '[[tournament.defence]]\nlabel = "uniform"\nuse = "mean"\nweighting = "uniform"\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "games.toml"
    path.write_text(BASE + UNIFORM)
    return path


def test_every_pair_is_played_with_every_seed(file):
    cells = [(c.attack, c.defence, c.seed) for c in Tournament.of(file).cells()]

    assert cells == [
        (attack, defence, seed)
        for attack in ("none", "sign_flip", "half")
        for defence in ("mean", "uniform")
        for seed in (1, 2)
    ]


def test_a_cell_is_the_course_that_one_would_write(file):
    games = Tournament.of(file)
    (cell,) = [c for c in games.play() if (c.attack, c.defence, c.seed) == ("half", "uniform", 2)]
    tables = {k: v for k, v in games.course.items() if k != "tournament"}
    tables["course"] = {**tables["course"], "seed": 2}
    tables["attack"] = [{"use": "ipm", "clients": 2}]
    tables["aggregator"] = {"use": "mean", "weighting": "uniform"}

    alone = fscore.load(tables).run()

    assert cell.metrics["test_accuracy"] == alone.metrics["test_accuracy"]
    assert cell.metrics["test_loss"] == alone.metrics["test_loss"]


def test_workers_do_not_change_what_it_gives(file):
    games = Tournament.of(file)

    assert games.play(workers=2) == games.play()


def test_a_tournament_that_was_interrupted_goes_on(file, tmp_path):
    games = Tournament.of(file)
    diary = Diary(tmp_path / "cells.jsonl", games)
    played = games.play()
    for cell in played[:5]:
        diary.note(cell)
    with diary.path.open("a") as torn:
        torn.write('{"key": "ab')
    again = []

    cells = games.play(told=again.append, known=diary.read())

    assert again == played[5:]
    assert cells == played


@pytest.mark.parametrize("line", ["[]", "3", "{}", '{"key": "ab", "attacked": 1}', "not json"])
def test_a_damaged_diary_is_played_again(file, tmp_path, line):
    (tmp_path / "cells.jsonl").write_text(line + "\n")

    assert Diary(tmp_path / "cells.jsonl", Tournament.of(file)).read() == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_metric_that_courses_do_not_report_ends_it_at_the_first_of_them(file, workers):
    file.write_text(
        file.read_text().replace("[tournament]", '[tournament]\nmetric = "test_acuracy"')
    )
    told = []

    with pytest.raises(ConfigError) as error:
        Tournament.of(file).play(workers, told.append)

    assert str(error.value) == (
        "tournament.metric: the courses report no 'test_acuracy', did you mean 'test_accuracy'?"
    )
    assert told == []


def test_a_metric_that_is_no_number_is_seen_in_the_table(file):
    """Two liars send noise of 2e30, which the server takes 2e8 times: the logits overflow, the model does not."""
    file.write_text(
        file.read_text()
        .replace("[tournament]", '[tournament]\nmetric = "test_loss"')
        .replace("versions = 2", "versions = 1")
        .replace('use = "sign_flip"\nscale = 3.0', 'use = "gaussian"\nstd = 2e30')
        .replace("[sampler]", '[server_optimizer]\nuse = "sgd"\nlr = 2e8\n[sampler]')
    )

    cells = Tournament.of(file).play()

    huge = [c for c in cells if c.attack == "gaussian"]
    assert {(c.status, c.metrics["test_loss"]) for c in huge} == {("complete", None)}
    assert math.isnan(scores(cells, "test_loss")["gaussian", "mean"].mean)


def exit_code(file, out):
    arguments = [str(file), "--out", str(out), "--quiet"]
    return CliRunner().invoke(tournament, arguments, standalone_mode=False).return_value


def test_a_tournament_of_which_some_courses_failed_exits_with_4(file, tmp_path):
    games = Tournament.of(file)
    (tmp_path / "out").mkdir()
    diary = Diary(tmp_path / "out" / "cells.jsonl", games)
    for cell in games.cells():
        status = "failed" if cell.attack == "half" else "complete"
        diary.note(evolve(cell, status=status, reason="why", metrics={"test_accuracy": 0.5}))

    assert exit_code(file, tmp_path / "out") == 4


def test_a_tournament_of_which_all_courses_failed_exits_with_1(file, tmp_path):
    broken = '[[faults]]\nuse = "corrupt"\nhow = "nan"\nrate = 1.0\n[sampler]'
    file.write_text(file.read_text().replace("[sampler]", broken))

    assert exit_code(file, tmp_path / "out") == 1


def test_what_was_played_of_another_course_is_played_again(file, tmp_path):
    games = Tournament.of(file)
    diary = Diary(tmp_path / "cells.jsonl", games)
    diary.note(games.play()[0])
    file.write_text(file.read_text().replace("versions = 2", "versions = 1"))
    again = []

    Tournament.of(file).play(told=again.append, known=diary.read())

    assert len(again) == 12


def test_the_command_writes_table_picture_and_data(file, tmp_path):
    out = tmp_path / "out"

    result = CliRunner().invoke(tournament, [str(file), "--out", str(out), "--quiet"])

    assert result.exit_code == 0
    text = (out / "tournament.md").read_text()
    assert result.stdout == text + "\n"
    assert [line.split(" | ")[0].strip("| ") for line in text.splitlines()[2:]] == [
        "attack",
        "---------",
        "none",
        "sign_flip",
        "half",
    ]
    assert (out / "tournament.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    data = json.loads((out / "tournament.json").read_text())
    assert len(data["cells"]) == 12
    assert data["seeds"] == [1, 2]


def test_one_trigger_may_be_played_in_several_ways(tmp_path):
    path = tmp_path / "ways.toml"
    one = '[[tournament.attack]]\nuse = "badnets"\nshape = [2, 2]\n'
    path.write_text(BASE + one + one + 'label = "bounded"\nradius = 0.1\nfraction = 0.2\n')

    games = Tournament.of(path)

    assert list(games.attacks) == ["sign_flip", "half", "badnets", "bounded"]
    (clean, *_) = games.cells()
    assert [a["clients"] for a in games.tables(clean)["attack"]] == [0]


def test_a_score_is_mean_and_deviation_over_seeds():
    cells = [Cell("a", "d", s, "complete", "", {"m": v}) for s, v in ((1, 0.5), (2, 0.7))]

    found = scores(cells, "m")["a", "d"]

    assert found.mean == pytest.approx(0.6)
    assert found.spread == pytest.approx(0.02**0.5)


def test_a_failed_course_is_seen_in_the_table():
    cells = [Cell("a", "d", 1, "failed", "why"), Cell("a", "d", 2, "complete", "", {"m": 0.5})]

    found = scores(cells, "m")

    assert math.isnan(found["a", "d"].mean)
    assert table(found).splitlines()[-1] == "| a      | failed |"


def test_the_report_of_a_backdoor_holds_the_three_numbers():
    def cell(attack, **metrics):
        return Cell(attack, "mean", 1, "complete", "", metrics)

    cells = [
        cell("none", test_accuracy=0.9, badnets_accuracy=0.1),
        cell("patch", test_accuracy=0.8, badnets_accuracy=0.95),
        cell("flip", test_accuracy=0.4),
    ]
    attacks = {"patch": {"use": "badnets"}, "flip": {"use": "sign_flip"}}

    assert backdoors(cells, attacks, "test_accuracy").splitlines() == [
        "| attack | defence | test_accuracy | attack success | attack success of a clean model |",
        "|---|---|---|---|---|",
        "| patch | mean | 0.800 | 0.950 | 0.100 |",
    ]


def test_without_backdoors_there_is_no_report_of_them():
    assert backdoors([Cell("a", "d", 1, "complete", "", {})], {"a": {"use": "ipm"}}, "m") == ""


def test_the_table_shows_deviations_where_there_are_some():
    text = table({("a", "x"): Score(0.5, 0.0), ("a", "y"): Score(0.25, 0.125)})

    assert text.splitlines() == [
        "| attack | x     | y             |",
        "| ------ | ----- | ------------- |",
        "| a      | 0.500 | 0.250 ± 0.125 |",
    ]


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("[course]\nname = 'x'", "tournament: {file} has no table [tournament]"),
        (
            BASE.replace("seeds = [1, 2]", "seeds = []"),
            "tournament.seeds: expected a list of integers",
        ),
        (
            BASE.replace("seeds = [1, 2]", "seeds = [1, 1]"),
            "tournament.seeds: a seed is there twice. Remedy: name each once.",
        ),
        (
            BASE.replace("seeds = [1, 2]", "sedes = [1]"),
            "tournament.sedes: unknown option of [tournament], did you mean 'seeds'?",
        ),
        (
            BASE + '[[tournament.defence]]\nuse = "mean"\n',
            "tournament.defence: two are called 'mean'. Remedy: give one of them another label.",
        ),
        (
            BASE.replace('label = "half"', 'label = "none"'),
            "tournament.attack: 'none' is the row without an attack. Remedy: use another label.",
        ),
        (
            BASE.replace('use = "ipm"', ""),
            "tournament.attack.1.use: missing; choose a component",
        ),
        (
            BASE
            + '[[tournament.attack]]\nuse = "badnets"\nshape = [2, 2]\n'
            + '[[tournament.attack]]\nlabel = "b"\nuse = "badnets"\nshape = [2, 2]\nsize = 1\n',
            "tournament.attack: two use 'badnets' with different triggers, but their reports have one name. "
            "Remedy: play them in two tournaments.",
        ),
        (
            BASE + '[aggregator]\nuse = "mean"\n',
            "aggregator: a tournament takes it from [[tournament.defence]]. Remedy: remove this table.",
        ),
    ],
)
def test_a_bad_file_is_refused(tmp_path, toml, expected):
    path = tmp_path / "bad.toml"
    path.write_text(toml)

    with pytest.raises(ConfigError) as error:
        Tournament.of(path)

    assert str(error.value) == expected.format(file=path)


def test_every_pair_that_cannot_be_played_is_named_before_the_first_is(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BASE.replace("scale = 3.0", "scale = -1.0").replace("[1, 2]", "[1]"))

    with pytest.raises(ConfigError) as error:
        Tournament.of(path).check()

    assert str(error.value) == (
        "sign_flip against mean: attack.0.scale: must be greater than 0, got -1.0"
    )
