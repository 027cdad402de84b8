"""Triggers: when a cohort is ready and what is in it, and that time always goes on."""

from types import SimpleNamespace

import pytest
from builtin_helpers import TinyCourse, TinyPool, everybody, ids
from hypothesis import given
from hypothesis import strategies as st

import fscore
from fscore.builtin.samplers import Uniform
from fscore.builtin.triggers import AllReceived, GoalAchieved, TimeUp

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
        "trigger 'time_up' does not fire: 0 results wait and no task is in flight",
    )
