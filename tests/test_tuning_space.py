"""Search spaces, the policy `schedule`, and the page of a search."""

from html.parser import HTMLParser

import numpy as np
import pytest

from fscore.builtin.tuning.page import Scale, chart, page
from fscore.builtin.tuning.search import Tuning
from fscore.builtin.tuning.space import Axis, axes, draw, examples, flat, grid, problems
from fscore.errors import ConfigError
from fscore.testing import fs_course
from fscore.testing.course import TINY

LOG = {"low": 1e-4, "high": 1.0, "log": True}
NESTED = {
    "a": [1, 2],
    "b": {"values": [3, 4], "when": {"a": 2}},
    "c": {"low": 0, "high": 1, "when": {"b": [3]}},
}


@pytest.mark.parametrize(
    ("axis", "shares", "values"),
    [
        (Axis("k", (), 0.0, 2.0), (0.0, 0.5, 1.0), [0.0, 1.0, 2.0]),
        (Axis("k", (), 1e-4, 1.0, log=True), (0.0, 0.5, 1.0), [1e-4, 1e-2, 1.0]),
        (Axis("k", (), 1, 4), (0.0, 0.24, 0.25, 0.99, 1.0), [1, 1, 2, 4, 4]),
        (Axis("k", ("x", "y")), (0.0, 0.49, 0.5, 1.0), ["x", "x", "y", "y"]),
    ],
)
def test_a_share_of_an_axis(axis, shares, values):
    assert [axis.at(s) for s in shares] == pytest.approx(values)


@pytest.mark.parametrize(
    "axis", [Axis("k", (), 0.5, 2.0), Axis("k", (), 1e-4, 1.0, log=True), Axis("k", (), 1, 9)]
)
def test_the_share_of_a_value_gives_it_back(axis):
    for share in (0.0, 0.3, 0.999):
        value = axis.at(share)
        assert axis.at(axis.share(value)) == pytest.approx(value)


def test_each_integer_is_as_likely_as_the_others():
    rng = np.random.default_rng(0)
    values = [Axis("k", (), 1, 5).at(rng.random()) for _ in range(20000)]
    assert np.bincount(values)[1:] / 20000 == pytest.approx([0.2] * 5, abs=0.015)


def test_a_logarithmic_range_is_uniform_in_the_exponent():
    rng = np.random.default_rng(0)
    values = [draw(axes({"k": LOG}), rng)["k"] for _ in range(20000)]
    assert np.histogram(np.log10(values), bins=4)[0] / 20000 == pytest.approx([0.25] * 4, abs=0.015)


def test_dotted_keys_may_be_tables():
    space = {"trainer": {"lr": LOG, "epochs": [1.0]}, "sampler.clients": [1]}
    assert flat(space) == {"trainer.lr": LOG, "trainer.epochs": [1.0], "sampler.clients": [1]}


def test_a_grid_leaves_out_what_does_not_hold():
    assert grid(axes(NESTED), 2) == [
        {"a": 1},
        {"a": 2, "b": 3, "c": 0},
        {"a": 2, "b": 3, "c": 1},
        {"a": 2, "b": 4},
    ]


def test_draws_keep_to_the_conditions():
    rng = np.random.default_rng(0)
    drawn = {tuple(draw(axes(NESTED), rng)) for _ in range(200)}
    assert drawn == {("a",), ("a", "b"), ("a", "b", "c")}


def test_examples_reach_every_corner():
    tried = {(key, params[key]) for key, params in examples(axes(NESTED))}
    assert tried == {("a", 1), ("a", 2), ("b", 3), ("b", 4), ("c", 0), ("c", 1)}


@pytest.mark.parametrize(
    ("space", "line"),
    [
        ({}, "tune.space: empty; name at least one dotted key of the course"),
        ({"a": []}, "tune.space.a: expected a list that is not empty"),
        ({"a": [1, 2, 1]}, "tune.space.a: 1 stands there twice"),
        ({"a": {"values": [True, 1]}}, "tune.space.a: values: 1 stands there twice"),
        (
            {"b": [1, 2], "a": {"values": [1], "when": {"b": [2, 3]}}},
            "tune.space.a: when: 'b' is never 3",
        ),
        (
            {"b": {"low": 1, "high": 4}, "a": {"values": [1], "when": {"b": 5}}},
            "tune.space.a: when: 'b' is never 5",
        ),
        (
            {"b": {"low": 0.0, "high": 1.0}, "a": {"values": [1], "when": {"b": 0.5}}},
            "tune.space.a: when: 'b' is never 0.5",
        ),
        ({"a": 3}, "tune.space.a: expected a list, { low, high, log, when } or { values, when }"),
        (
            {"a": {"low": 1, "step": 2}},
            "tune.space.a: expected a list, { low, high, log, when } or { values, when }",
        ),
        ({"a": {"low": 2, "high": 1}}, "tune.space.a: low 2 is greater than high 1"),
        ({"a": {"low": "x", "high": 1}}, "tune.space.a: low and high: expected numbers"),
        (
            {"a": {"low": 0.0, "high": float("inf")}},
            "tune.space.a: low and high: expected finite numbers",
        ),
        (
            {"a": {"low": 0, "high": 1, "log": True}},
            "tune.space.a: a logarithmic range needs low > 0, got 0",
        ),
        ({"a": {"low": 0, "high": 1, "log": 1}}, "tune.space.a: log: expected true or false"),
        ({"a": {"values": []}}, "tune.space.a: values: expected a list that is not empty"),
        (
            {"a": {"values": [1], "when": {"b": 1}}, "b": [1]},
            "tune.space.a: when: 'b' is no key of the space before this one",
        ),
        (
            {"a": {"values": [1], "when": 3}},
            'tune.space.a: when: expected a table, like { "trainer.use" = "prox" }',
        ),
    ],
)
def test_a_bad_space_is_refused(space, line):
    assert list(problems(space)) == [line]


# ------------------------------------------------------------------------ the policy `schedule`


def scheduled(steps, **changes):
    return fs_course({"policy": [{"use": "schedule", "steps": steps}]}, changes=changes)


def test_a_schedule_of_one_step_is_the_option_itself():
    plain = fs_course(changes={"trainer.lr": 0.3})
    assert (
        scheduled([{"version": 0, "values": {"trainer.lr": 0.3}}]).result.digest
        == plain.result.digest
    )


def test_a_schedule_without_values_changes_nothing():
    assert scheduled([{"version": 1}]).result.digest == fs_course().result.digest


def test_a_step_holds_from_its_version_on():
    late = scheduled([{"version": 3, "values": {"trainer.lr": 0.3}}])
    assert late.result.digest == fs_course().result.digest
    last = scheduled([{"version": 2, "values": {"trainer.lr": 0.3}}])
    assert last.result.digest != fs_course().result.digest
    assert last.result.history[1]["train_loss"] == late.result.history[1]["train_loss"]


def test_a_choice_is_drawn_anew_for_each_task():
    choice = {"arms": [{"trainer.lr": 0.1}, {"trainer.lr": 0.2}], "weights": [0.5, 0.5]}
    course = scheduled([{"version": 0, "choices": [choice]}]).course
    rng = np.random.default_rng(0)
    rates = [course.policies[0].choose(0, 0, rng)[0]["trainer.lr"] for _ in range(4000)]
    assert np.mean(np.array(rates) == 0.1) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("steps", "line"),
    [
        (
            [{"version": 2}, {"version": 1}],
            "policy.0.steps: expected versions in rising order, got [2, 1]",
        ),
        (
            [{"version": 0, "values": {"sampler.clients": 2}}],
            "policy.0.steps.0.values: 'sampler.clients' cannot differ by task (these can: none)",
        ),
        (
            [{"version": 0, "values": {"trainr.lr": 2}}],
            "policy.0.steps.0.values: 'trainr.lr': no table [trainr], did you mean 'trainer'?",
        ),
        (
            [{"version": 0, "choices": [{"arms": [{}, {}], "weights": [0.5, 0.6]}]}],
            "policy.0.steps.0.choices.0.weights: expected probabilities that add up to 1, got [0.5, 0.6]",
        ),
        (
            [{"version": 0, "choices": [{"arms": [{}], "weights": [0.5, 0.5]}]}],
            "policy.0.steps.0.choices.0.weights: 2 weights for 1 arms",
        ),
    ],
)
def test_a_bad_schedule_is_refused(steps, line):
    with pytest.raises(ConfigError) as caught:
        scheduled(steps)
    assert caught.value.problems == (line,)


# ------------------------------------------------------------------------ the page


class Counting(HTMLParser):
    """Counts elements, and notes whether they are closed in order."""

    def __init__(self):
        super().__init__()
        self.counts, self.open, self.good = {}, [], True

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        self.good &= bool(self.open) and self.open.pop() == tag


def test_the_page_shows_each_trial_in_every_plot(tmp_path):
    tables = {**TINY, "data": {**TINY["data"], "val": 0.2}}
    space = {"trainer.lr": [3e38, 0.1, 0.2], "trainer.nesterov": [True]}
    tune = {"use": "grid", "versions": 2, "space": space}
    tuning = Tuning({**tables, "tune": tune}, tmp_path)
    list(tuning.run())
    parser = Counting()
    parser.feed(page(tuning))
    assert (parser.good, parser.open) == (True, [])
    assert parser.counts["svg"] == 3
    assert parser.counts["circle"] == 2 * 2
    assert parser.counts["polyline"] == 2 + 2
    assert parser.counts["tr"] == 1 + 3


def test_a_plot_of_one_value_stands_in_the_middle():
    assert Scale(3.0, 3.0, 0.0, 10.0)(3.0) == 5.0
    assert "<circle" in chart([1.0], [2.0], [2.0], "x", "y")
