"""Synchronous and asynchronous courses are configurations of the same handlers."""

import pytest
from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.component import Component
from fscore.errors import PluginError
from fscore.hookspecs import hookimpl
from fscore.kinds.trigger import Trigger
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

BUFFERED = '[trigger]\nuse = "goal_achieved"\n'
SLOW = '[devices]\nuse = "lognormal"\nsigma = 1.2\njitter = 0.5\n'


def test_buffered_with_goal_equal_to_concurrency_and_equal_latencies_is_synchronous():
    assert fs_course(BUFFERED + "goal = 4").result.digest == fs_course().result.digest


def test_buffered_with_a_smaller_goal_is_not():
    assert fs_course(BUFFERED + "goal = 2").result.digest != fs_course().result.digest


def test_over_selection_of_one_is_synchronous():
    over = fs_course(BUFFERED, changes={"sampler.over_selection": 1.0}).result
    plain = fs_course().result
    assert (over.digest, over.virtual_time) == (plain.digest, plain.virtual_time)


def test_time_up_with_a_budget_above_the_largest_latency_gives_the_synchronous_model():
    timed = fs_course('[trigger]\nuse = "time_up"\nbudget = 100.0').result
    plain = fs_course().result
    assert timed.digest == plain.digest
    assert timed.virtual_time == 300.0


@pytest.mark.parametrize("goal", [1, 2, 4])
def test_mean_staleness_follows_littles_law(goal):
    text = BUFFERED + f"goal = {goal}\n" + SLOW
    text += '[protocol]\nuse = "rounds"\nbroadcast = "after_receiving"\nconcurrency = 4\n'
    text += '[data]\nuse = "synthetic"\nclients = 40\nfeatures = 4\nnum_classes = 3\nmin_samples = 10\nmax_samples = 10\n'
    text += "unseen_clients = 0\n[evaluation]\nevery = 0\n"
    lines = fs_course(text, changes={"course.until.versions": 240 // goal}).result.history
    mean = sum(line["staleness"] for line in lines) / len(lines)
    assert mean == pytest.approx((4 - 1) / goal, rel=0.15)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    goal=st.integers(1, 4),
    broadcast=st.sampled_from(["after_aggregating", "after_receiving"]),
    limit=st.sampled_from([None, 0, 1, 5]),
)
def test_books_balance(seed, goal, broadcast, limit):
    text = BUFFERED + f"goal = {goal}\n" + SLOW
    text += f'[protocol]\nuse = "rounds"\nbroadcast = "{broadcast}"\n'
    text += f"staleness_limit = {limit}\n" if limit is not None else ""
    course = tiny_course(text, changes={"course.seed": seed})
    clock, flying = [], []

    def watch(c):
        clock.append(c.loop.now)
        flying.append(c.book.in_flight)
        return False

    result = course.run(watch)
    tasks = result.tasks
    ends = sum(tasks[how] for how in ("used", "unused", "failed", "expired", "aborted"))
    assert tasks["issued"] == ends
    assert tasks["used"] == goal * 3
    assert clock == sorted(clock)
    assert max(flying) <= 4
    assert result.bytes["down"] == tasks["issued"] * course.site.download.nbytes


def test_an_update_that_nobody_uses_is_not_computed():
    result = fs_course(BUFFERED + "goal = 2\n" + SLOW).result
    assert result.tasks["computed"] == result.tasks["used"] == 6
    assert result.tasks["issued"] > 6


def test_a_course_ends_when_virtual_time_is_up():
    run = fs_course({"course": {"name": "tiny", "until": {"virtual_time": 0.2}}})
    assert run.result.reason == "virtual time is up"
    assert run.result.virtual_time == 0.2


def test_a_course_ends_after_so_many_client_updates():
    run = fs_course({"course": {"name": "tiny", "until": {"client_updates": 9}}})
    assert run.result.reason == "used 12 client updates"


def test_a_trigger_that_waits_for_more_than_there_is_samples_again():
    text = (
        BUFFERED
        + 'goal = 4\n[protocol]\nuse = "rounds"\nbroadcast = "after_receiving"\ntimeout = 0.001'
    )
    run = fs_course(text)
    assert run.result.status == "failed"
    assert run.result.reason.startswith("trigger 'goal_achieved' does not fire: 0 results wait")


@pytest.mark.parametrize("broadcast", ["after_receiving", "after_aggregating"])
def test_a_course_in_which_every_task_is_lost_ends(broadcast):
    text = (
        BUFFERED
        + f'goal = 2\n[protocol]\nbroadcast = "{broadcast}"\n[[faults]]\nuse = "drop"\nrate = 1.0\n'
    )
    result = fs_course(text).result
    assert result.status == "failed"
    if broadcast == "after_receiving":
        assert result.reason == (
            "17 tasks in a row were lost, the last one because its client dropped out"
        )


def test_losses_that_results_come_between_do_not_end_a_course():
    text = (
        BUFFERED
        + 'goal = 2\n[protocol]\nbroadcast = "after_receiving"\n[[faults]]\nuse = "drop"\nrate = 0.5\n'
    )
    result = fs_course(text, changes={"course.until.versions": 30}).result
    assert (result.status, result.versions) == ("complete", 30)
    assert result.tasks["failed"] > 17


@define(eq=False)
class Never(Trigger):
    name = "never"

    def ready(self, pool, now):
        return ()


@define(eq=False)
class NeverPlugin(Component):
    name = "never"

    @hookimpl
    def fscore_register_triggers(self):
        return [Never]


def test_a_trigger_that_never_fires_ends_the_course():
    result = fs_course('[trigger]\nuse = "never"\n', plugins=[NeverPlugin]).result
    assert result.status == "failed"
    assert result.reason.startswith("trigger 'never' does not fire: ")


@define(eq=False, slots=False)
class Counting(Trigger):
    """Wrong: gives a number of tasks in place of tasks."""

    name = "counting"

    def ready(self, pool, now):
        return len(pool.arrived)


class Counter(Component):
    name = "counter"

    @hookimpl
    def fscore_register_triggers(self):
        return [Counting]


def test_a_trigger_that_gives_no_tasks_is_named():
    with pytest.raises(PluginError) as raised:
        fs_course('[trigger]\nuse = "counting"', plugins=[Counter])
    assert str(raised.value) == "trigger 'counting': ready() gave 2, expected a list of tasks"
