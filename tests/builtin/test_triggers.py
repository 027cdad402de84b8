"""Triggers: when a cohort is ready and what is in it, and that time always goes on."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from attrs import define
from builtin_helpers import TinyCourse, TinyPool, everybody, ids
from hypothesis import given
from hypothesis import strategies as st

import fscore
from fscore.builtin.rounds import Rounds
from fscore.builtin.samplers import Uniform
from fscore.builtin.triggers import AllReceived, GoalAchieved, GoalOrDeadline, PerTier, TimeUp
from fscore.component import ge, option
from fscore.errors import ConfigError
from fscore.kinds.trigger import Trigger
from fscore.tasks import Task
from fscore.testing import fs_course

ARRIVED = [(4, 1.0), (2, 2.0), (7, 2.0)]


def test_all_received_waits_for_what_is_under_way():
    assert ids(AllReceived().ready(TinyPool(ARRIVED, in_flight=1), 3.0)) == []
    assert ids(AllReceived().ready(TinyPool(ARRIVED), 3.0)) == [4, 2, 7]


def test_all_received_is_not_ready_with_nothing():
    assert ids(AllReceived().ready(TinyPool(), 3.0)) == []


@pytest.mark.parametrize(
    ("goal", "tasks"), [(1, [4]), (2, [4, 2]), (None, [4, 2, 7]), (0.5, [4, 2]), (4, [])]
)
def test_goal_achieved_takes_the_first_of_them(goal, tasks):
    pool = TinyPool(ARRIVED, in_flight=9, wanted=3)
    assert ids(GoalAchieved(goal=goal).ready(pool, 3.0)) == tasks


@pytest.mark.parametrize(("goal", "problems"), [(3, []), (None, []), (4, 1)])
def test_a_goal_beyond_what_is_in_flight_is_refused(goal, problems):
    course = TinyCourse(
        sampler=Uniform(clients=3),
        population=everybody(10),
        protocol=SimpleNamespace(tasks_at_once=lambda _: 3),
    )
    text = (
        "trigger.goal: 4 results, but only 3 tasks are in flight. "
        "Remedy: lower it, or raise sampler.clients."
    )
    assert list(GoalAchieved(goal=goal).check(course)) == ([text] if problems else [])


def test_time_up_takes_what_arrived_within_the_budget():
    trigger, pool = TimeUp(budget=5.0), TinyPool(ARRIVED, in_flight=2, since=1.0)
    assert ids(trigger.ready(pool, 5.9)) == []
    assert trigger.wake(pool, 5.9) == 6.0
    assert ids(trigger.ready(pool, 6.0)) == [4, 2, 7]


@pytest.mark.parametrize(("if_empty", "deadline"), [("extend", 16.0), ("resample", 6.0)])
def test_time_up_when_the_first_result_is_late(if_empty, deadline):
    trigger = TimeUp(budget=5.0, if_empty=if_empty)
    assert trigger.deadline(TinyPool([(3, 11.5)], in_flight=1, since=1.0)) == deadline


def test_time_up_names_no_time_while_nobody_arrived():
    assert TimeUp(budget=5.0).wake(TinyPool(in_flight=2), 7.0) is None


@given(
    since=st.floats(0, 1e12),
    budget=st.floats(1e-9, 1e6),
    late=st.floats(0, 1e6),
    if_empty=st.sampled_from(["extend", "resample"]),
)
def test_time_up_is_ready_when_it_wakes_and_never_wakes_in_the_past(since, budget, late, if_empty):
    trigger, arrival = TimeUp(budget=budget, if_empty=if_empty), since + late
    pool = TinyPool([(0, arrival)], in_flight=1, since=since)
    if trigger.ready(pool, arrival):
        return
    wake = trigger.wake(pool, arrival)
    assert wake > arrival
    assert ids(trigger.ready(pool, wake)) == [0]


@pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
def test_a_budget_that_is_no_time_is_refused(budget):
    with pytest.raises(ValueError, match=r"must be (greater than 0|finite), got"):
        TimeUp(budget=budget)


@pytest.mark.parametrize("if_empty", ["extend", "resample"])
def test_a_course_whose_tasks_are_all_lost_ends_by_name(if_empty):
    course = {
        "course": {"until": {"versions": 2}},
        "data": {"use": "digits"},
        "model": {"use": "softmax"},
        "trigger": {"use": "time_up", "budget": 5.0, "if_empty": if_empty},
        "devices": {"use": "constant", "compute": 10.0},
        "protocol": {"timeout": 0.5},
        "reporter": [],
    }
    result = fscore.load(course).run()
    assert (result.status, result.reason) == (
        "failed",
        "trigger 'time_up' does not fire: 0 results wait and no task is in flight; "
        "the first failure: client 0: its deadline passed",
    )


# ------------------------------------------------------------------------ resample, goal or deadline, tiers


def tasks(*waves, issued_at=0.0):
    return [Task(i, i, 0, wave=wave, issued_at=issued_at) for i, wave in enumerate(waves)]


def test_resample_gives_up_who_is_under_way_when_the_budget_is_spent():
    trigger = TimeUp(budget=5.0, if_empty="resample")
    pool = TinyPool(in_flight=2, since=1.0, under_way=tasks(1, 1, issued_at=1.0))
    assert trigger.wake(pool, 2.0) == 6.0
    assert ids(trigger.given_up(pool, 5.9)) == []
    assert ids(trigger.given_up(pool, 6.0)) == [0, 1]


def test_resample_counts_the_next_budget_from_the_next_wave():
    trigger = TimeUp(budget=5.0, if_empty="resample")
    pool = TinyPool(in_flight=2, since=1.0, under_way=tasks(2, 2, issued_at=6.0))
    assert ids(trigger.given_up(pool, 6.0)) == []
    assert trigger.wake(pool, 6.0) == 11.0


def test_extend_gives_nobody_up():
    pool = TinyPool(in_flight=2, since=1.0, under_way=tasks(1, 1, issued_at=1.0))
    assert ids(TimeUp(budget=5.0).given_up(pool, 100.0)) == []


def test_goal_or_deadline_takes_the_goal_when_it_is_there():
    trigger = GoalOrDeadline(budget=5.0, goal=2)
    assert ids(trigger.ready(TinyPool(ARRIVED, in_flight=1), 2.0)) == [4, 2]


def test_goal_or_deadline_takes_what_there_is_at_the_deadline():
    trigger, pool = GoalOrDeadline(budget=5.0, goal=4), TinyPool(ARRIVED, in_flight=1)
    assert ids(trigger.ready(pool, 4.9)) == []
    assert ids(trigger.ready(pool, trigger.wake(pool, 4.9))) == [4, 2, 7]


def test_per_tier_waits_for_the_rest_of_a_wave_and_for_no_other():
    first, second, third, fourth = tasks(1, 1, 2, 2)
    arrived = [(first, 1.0), (third, 2.0)]
    pool = TinyPool(arrived, in_flight=2, under_way=[second, fourth])
    assert ids(PerTier().ready(pool, 2.0)) == []
    pool = TinyPool([*arrived, (fourth, 3.0)], in_flight=1, under_way=[second])
    assert ids(PerTier().ready(pool, 3.0)) == [2, 3]


def test_per_tier_takes_what_is_left_of_a_wave():
    first, _, third = tasks(1, 1, 2)
    assert ids(PerTier().ready(TinyPool([(first, 1.0)], 1, under_way=[third]), 1.0)) == [0]


def test_a_deadline_that_nobody_can_meet_ends_the_course_by_name():
    text = '[trigger]\nuse = "time_up"\nbudget = 0.001\nif_empty = "resample"\n'
    result = fs_course(text).result
    assert (result.status, result.reason) == (
        "failed",
        "trigger 'time_up' gave up 4 tasks: 4 times in a row nobody came in time",
    )
    assert result.tasks["aborted"] == result.tasks["issued"] == 16


def test_a_deadline_that_nobody_can_meet_is_extended():
    text = '[trigger]\nuse = "time_up"\nbudget = 0.001\n'
    assert fs_course(text).result.status == "complete"


@pytest.mark.parametrize("use", ["all_received", "per_tier"])
def test_waiting_for_all_while_arrivals_send_out_others_is_refused(use):
    text = f'[trigger]\nuse = "{use}"\n[protocol]\nbroadcast = "after_receiving"\n'
    text += '[sampler]\nuse = "tiers"\ntiers = 2\nclients = 2\n'
    with pytest.raises(ConfigError) as caught:
        fs_course(text)
    assert list(caught.value.problems) == [
        f"trigger.use: '{use}' waits until nobody is under way, but with broadcast = 'after_receiving' "
        "each arrival sends out another. Remedy: 'goal_achieved', or broadcast = 'after_aggregating'."
    ]


def test_per_tier_needs_tiers():
    with pytest.raises(ConfigError) as caught:
        fs_course('[trigger]\nuse = "per_tier"\n')
    assert list(caught.value.problems) == [
        "E-COMPAT: [trigger] 'per_tier' needs tiers, but nothing in this course provides it. "
        "Remedy: add 'tiers', or switch 'per_tier' off."
    ]


def test_time_that_stands_still_ends_the_course_by_name():
    text = '[trigger]\nuse = "time_up"\nbudget = 5.0\n[protocol]\nbroadcast = "after_receiving"\n'
    result = fs_course(text + '[devices]\nuse = "constant"\ncompute = 0.0\n').result
    assert (result.status, result.reason) == (
        "failed",
        "time stands still at 0.0 s: 1000 waves were issued, and trigger 'time_up' does not fire. "
        "Remedy: devices.compute above 0, or another trigger",
    )


@pytest.mark.parametrize(
    ("trigger", "limit", "flags"),
    [
        (AllReceived(), None, (set(), {"closed_cohort"}, set())),
        (GoalAchieved(), None, ({"open_cohort"}, set(), {"fresh_updates"})),
        (GoalAchieved(), 0, (set(), {"closed_cohort"}, set())),
        (TimeUp(budget=1.0), 3, ({"open_cohort"}, set(), {"fresh_updates"})),
    ],
)
def test_what_holds_of_cohorts_follows_from_what_becomes_of_late_results(trigger, limit, flags):
    trigger.bind(TinyCourse(protocol=Rounds(staleness_limit=limit)))
    assert trigger.flags() == flags


def test_the_trigger_of_the_docs_works():
    text = (Path(__file__).parents[2] / "docs" / "heterogeneity.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {"define": define, "Trigger": Trigger, "option": option, "ge": ge}
    exec(code, names)  # noqa: S102 - our own page
    pool = TinyPool([(Task(1, 1, 0), 1.0), (Task(2, 2, 1), 2.0), (Task(3, 3, 1), 3.0)], version=1)
    assert ids(names["Freshest"](goal=2).ready(pool, 3.0)) == [2, 3]
    assert ids(names["Freshest"](goal=3).ready(pool, 3.0)) == []
