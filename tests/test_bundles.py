"""Bundles: the same course as if each of their events were scheduled by itself."""

from typing import ClassVar

import pytest
from attrs import define, field, frozen

from fscore.builtin.devices import Constant
from fscore.builtin.rounds import Computed, ResultUp, TaskDown
from fscore.component import Component
from fscore.events import Bundle, Condition, Event, Message
from fscore.loop import Loop
from fscore.participant import Handlers, Participant, handles
from fscore.tasks import SERVER, Deferred, Task
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

EQUAL = '[data]\nuse = "synthetic"\nclients = 30\nfeatures = 4\nnum_classes = 3\nmin_samples = 6\nmax_samples = 6\nunseen_clients = 0\n'
RAGGED = EQUAL.replace("min_samples = 6", "min_samples = 2")
LINKED = '[devices]\nbandwidth = 8.0\n[sampler]\nuse = "uniform"\nclients = 6\n'
BUFFERED = '[trigger]\nuse = "goal_achieved"\ngoal = 2\n[protocol]\nbroadcast = "after_receiving"\n'
TIMED_OUT = "[protocol]\ntimeout = 0.04\n[course]\npatience = 50\n"


@define(eq=False, slots=False)
class Looking(Participant):
    """Sees every event of its role, so that none travels in a bundle."""

    role: str
    seen: list = field(factory=list)

    @handles(Event, rank=-100)
    def look(self, event):
        self.seen.append(type(event))


@define(eq=False)
class Watch(Component):
    name = "watch"

    def participants(self):
        self.eyes = [Looking("server"), Looking("client")]
        return self.eyes


def outcome(run):
    result = run.result
    lines = [{**line, "real_seconds": 0} for line in result.history]
    return result.digest, result.virtual_time, result.tasks, result.bytes, lines


@pytest.mark.parametrize("text", ["", BUFFERED, TIMED_OUT], ids=["rounds", "buffered", "timeouts"])
@pytest.mark.parametrize("data", [EQUAL, RAGGED], ids=["equal", "ragged"])
def test_a_course_with_bundles_is_the_course_without(data, text):
    text = data + LINKED + text
    bundled, single = (fs_course(text, plugins=plugins) for plugins in ([], [Watch]))
    assert outcome(bundled) == outcome(single)
    assert bundled.course.loop.delivered == single.course.loop.delivered
    assert bundled.course.messages == single.course.messages


def deliveries(text):
    course = tiny_course(text)
    found, deliver = [], course.loop.deliver

    def noting(event):
        found.append(event)
        deliver(event)

    course.loop.deliver = noting
    course.run()
    return found


def test_messages_of_a_wave_travel_together_where_clients_are_alike():
    found = deliveries(EQUAL + LINKED)
    kinds = [event.kind for event in found if isinstance(event, Bundle)]
    assert kinds[:3] == [TaskDown, Computed, ResultUp]
    assert {len(event) for event in found if isinstance(event, Bundle)} == {6}


def test_clients_of_their_own_speed_are_served_one_by_one():
    slow = deliveries(EQUAL + '[devices]\nuse = "lognormal"\nsigma = 1.0\n')
    assert not any(isinstance(event, Bundle) and len(event) > 1 for event in slow)


def test_a_snapshot_between_bundles_leads_to_the_same_end():
    text = EQUAL + LINKED
    plain = tiny_course(text).run()
    assert plain is not None
    for stop in (1, 2, 3, 4, 9):
        first = tiny_course(text)
        seen = []
        first.run(lambda course, seen=seen, stop=stop: seen.append(0) or len(seen) > stop)
        state = first.dump()
        assert not any(isinstance(entry[3], Bundle) for entry in state["loop"]["heap"])
        second = tiny_course(text)
        second.load(state)
        assert second.run().digest == plain.digest


# ------------------------------------------------------------------------ the loop


@frozen
class Ping(Condition):
    label: str = ""


@frozen
class Soon(Ping):
    once: ClassVar[bool] = True


@frozen
class Letter(Message):
    body: bytes = b""


def taken(loop):
    found = []
    loop.deliver = found.append
    while loop.step():
        pass
    return found


def test_a_bundle_is_taken_apart_unless_its_handler_takes_bundles():
    bundle = Bundle(Ping, {"label": ["a", "b"], "at": [1, 2]})
    loop = Loop(print)
    loop.schedule(bundle, 1.0)
    assert taken(loop) == [Ping("a", at=1), Ping("b", at=2)]
    loop = Loop(print, whole=lambda kind: kind is Ping)
    loop.schedule(bundle, 1.0)
    assert taken(loop) == [bundle]


def test_places_in_the_order_are_those_of_single_events():
    single, whole = Loop(print), Loop(print, whole=lambda kind: True)
    for loop in (single, whole):
        loop.schedule(Ping("before"), 1.0)
        loop.schedule(Bundle(Ping, {"label": ["a", "b", "c"]}), 1.0)
        loop.schedule(Ping("after"), 1.0)
    assert whole.dump() == single.dump()
    restored = Loop(print, whole=lambda kind: True)
    restored.load(whole.dump())
    assert [event.label for event in taken(restored)] == ["before", "a", "b", "c", "after"]
    assert restored.delivered == 5


def test_a_bundle_of_nothing_is_nothing():
    loop = Loop(print, whole=lambda kind: True)
    for label in ("a", "b"):
        loop.schedule(Bundle(Ping, {"label": []}), 1.0)
        loop.schedule(Ping(label), 1.0)
    assert taken(loop) == [Ping("a"), Ping("b")]
    course = tiny_course(EQUAL + LINKED)
    course.dispatch(Bundle(Message, {"sender": [], "receiver": []}))
    assert (course.messages, course.loop.dump()["heap"]) == (0, [])


def test_the_past_is_refused_for_bundles_too():
    loop = Loop(print, now=2.0, whole=lambda kind: True)
    with pytest.raises(ValueError, match="Ping cannot happen at 1"):
        loop.schedule(Bundle(Ping, {"label": ["a"]}), 1.0)


# ------------------------------------------------------------------------ handlers


@define(eq=False, slots=False)
class Taker(Participant):
    @handles(Ping, bundled=True)
    def take(self, events):
        self.got = list(events["label"])


def test_a_handler_of_bundles_is_given_one_event_as_a_bundle():
    taker = Taker()
    handlers = Handlers.of([taker])
    handlers.deliver(Ping("alone"))
    assert taker.got == ["alone"]
    assert handlers.bundled(Ping)


def test_two_handlers_or_a_plain_one_or_events_that_are_delivered_once_part_a_bundle():
    assert not Handlers.of([Taker(), Looking("server")]).bundled(Ping)
    assert not Handlers.of([Looking("server")]).bundled(Ping)
    assert not Handlers.of([Taker()]).bundled(Soon)


def test_a_bundle_and_its_events_say_the_same():
    event = Letter(3, SERVER, b"abc")
    bundle = Bundle.of(event)
    assert (len(bundle), list(bundle), bundle["body"]) == (1, [event], (b"abc",))


# ------------------------------------------------------------------------ bytes


def test_messages_of_unequal_size_are_sent_one_by_one():
    course = tiny_course(EQUAL + LINKED)
    names = {"sender": [0, 1], "receiver": [SERVER, SERVER]}
    course.dispatch(Bundle(Letter, {**names, "body": [b"x" * 1000, b"x" * 2000]}))
    times = [at for at, *_ in course.loop.dump()["heap"]]
    assert (times, course.bytes_up) == ([1.0, 2.0], 3000)  # 8 kbit/s: a kilobyte a second


def test_bytes_of_a_bundle_are_those_of_all_its_messages():
    course = tiny_course(EQUAL + LINKED)
    results = [Deferred(task, 500, 0.0) for task in range(4)]
    course.dispatch(
        Bundle(ResultUp, {"sender": range(4), "receiver": [SERVER] * 4, "result": results})
    )
    assert (course.bytes_up, course.messages) == (2000, 4)
    tasks = [Task(i, i, 0) for i in range(3)]
    course.dispatch(Bundle(TaskDown, {"sender": [SERVER] * 3, "receiver": range(3), "task": tasks}))
    assert course.bytes_down == 3 * course.site.download.nbytes


def test_constant_devices_are_alike_only_without_availability_and_faults():
    assert Constant().alike
    dropping = tiny_course(EQUAL + '[[faults]]\nuse = "drop"\nrate = 0.5\n')
    away = tiny_course(EQUAL + '[devices]\navailability = { use = "sessions" }\n')
    assert not dropping.devices.alike
    assert not away.devices.alike


def test_columns_of_unequal_length_are_refused():
    for bundle in (Bundle(Ping, {"label": ["a", "b"], "at": [1]}),
                   Bundle(Letter, {"sender": [1], "receiver": [2, 3], "body": [b""]})):  # fmt: skip
        with pytest.raises(ValueError, match="zip"):
            list(bundle)
