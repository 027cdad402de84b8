"""The event loop: time, then priority, then the order of scheduling."""

from __future__ import annotations

from typing import ClassVar

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from fscore.events import AGGREGATE, ARRIVAL, DISPATCH, EVALUATE, TIMER, Condition
from fscore.loop import Loop


@frozen
class Arrival(Condition):
    priority: ClassVar[int] = ARRIVAL
    label: str = ""


@frozen
class Timer(Arrival):
    priority: ClassVar[int] = TIMER


@frozen
class Aggregate(Arrival):
    priority: ClassVar[int] = AGGREGATE


@frozen
class Evaluate(Arrival):
    priority: ClassVar[int] = EVALUATE


@frozen
class Dispatch(Arrival):
    priority: ClassVar[int] = DISPATCH


@frozen
class Once(Arrival):
    once: ClassVar[bool] = True


CLASSES = [Arrival, Timer, Aggregate, Evaluate, Dispatch]


def delivered(*entries):
    """Schedule (event, time) pairs and return the events in the order of their delivery."""
    events = []
    loop = Loop(events.append)
    for event, at in entries:
        loop.schedule(event, at)
    while loop.step() is not None:
        pass
    return events


def test_within_one_instant_arrivals_come_first_and_dispatches_last():
    entries = [(cls(), 1.0) for cls in reversed(CLASSES)]
    assert delivered(*entries) == [cls() for cls in CLASSES]


def test_time_comes_before_priority():
    assert delivered((Arrival(), 2.0), (Dispatch(), 1.0)) == [Dispatch(), Arrival()]


def test_equal_events_keep_the_order_of_scheduling():
    entries = [(Timer(label), 1.0) for label in "cab"]
    assert [event.label for event in delivered(*entries)] == ["c", "a", "b"]


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.sampled_from(CLASSES))))
def test_the_order_is_that_of_a_stable_sort(plan):
    entries = [(cls(str(i)), at) for i, (at, cls) in enumerate(plan)]
    expected = [event for event, _ in sorted(entries, key=lambda e: (e[1], e[0].priority))]
    assert delivered(*entries) == expected


def test_an_arrival_that_is_scheduled_within_an_instant_still_precedes_its_dispatch():
    events = []

    def deliver(event):
        events.append(event)
        if event == Timer():
            loop.schedule(Arrival(), loop.now)

    loop = Loop(deliver)
    loop.schedule(Dispatch(), 1.0)
    loop.schedule(Timer(), 1.0)
    while loop.step():
        pass
    assert events == [Timer(), Arrival(), Dispatch()]


def test_now_is_the_time_of_the_event_that_is_delivered():
    times = []
    loop = Loop(lambda event: times.append(loop.now))
    for at in (3.0, 1.5):
        loop.schedule(Timer(), at)
    while loop.step():
        pass
    assert times == [1.5, 3.0]


def test_a_once_event_that_is_pending_for_the_instant_is_delivered_once():
    assert delivered((Once(), 1.0), (Once(), 1.0)) == [Once()]


def test_a_once_event_of_other_content_or_time_is_another_one():
    entries = [(Once("a"), 1.0), (Once("b"), 1.0), (Once("a"), 2.0)]
    assert delivered(*entries) == [Once("a"), Once("b"), Once("a")]


def test_a_once_event_may_be_scheduled_again_when_it_was_delivered():
    loop = Loop(lambda event: None)
    loop.schedule(Once(), 0.0)
    loop.step()
    loop.schedule(Once(), 0.0)
    assert loop.step() == Once()


def test_nothing_left_is_none():
    assert Loop(lambda event: None).step() is None


WRONG = [
    (-1.0, "Timer cannot happen at -1.0: now is 0.0"),
    (float("inf"), "Timer cannot happen at inf: now is 0.0"),
    (float("nan"), "Timer cannot happen at nan: now is 0.0"),
]


@pytest.mark.parametrize(("at", "text"), WRONG, ids=str)
def test_a_time_that_cannot_be_is_refused(at, text):
    with pytest.raises(ValueError, match="cannot happen") as caught:
        Loop(lambda event: None).schedule(Timer(), at)
    assert str(caught.value) == text


def test_a_loaded_loop_goes_on_like_the_one_that_was_dumped():
    events, others = [], []
    loop, other = Loop(events.append), Loop(others.append)
    for event, at in ((Timer("a"), 1.0), (Once("b"), 2.0), (Arrival("c"), 2.0)):
        loop.schedule(event, at)
    loop.step()
    other.load(loop.dump())
    other.schedule(Once("b"), 2.0)
    while other.step():
        pass
    assert [event.label for event in others] == ["b", "c"]
    assert (other.now, other.delivered) == (2.0, 3)
