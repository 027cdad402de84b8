"""The graph of events: complete courses pass, and what is wrong with others is named before they run."""

from __future__ import annotations

from typing import ClassVar

import pytest
from attrs import define, frozen

from fscore.cli import drawing
from fscore.component import Component
from fscore.errors import ConfigError, PluginError
from fscore.events import Condition, CourseStarted, Ending, Message, Role
from fscore.graph import Graph
from fscore.participant import Handlers, Participant, handles
from fscore.testing.course import fs_course, tiny_course


@frozen
class Ping(Message):
    to: ClassVar[Role] = "client"


@frozen
class Pong(Message):
    pass


@frozen
class Tick(Condition):
    pass


@define(eq=False, slots=False)
class Server(Participant):
    name = "server"

    @handles(CourseStarted, emits=(Ping,))
    def begin(self, event):
        pass

    @handles(Pong, emits=(Ending,))
    def end(self, event):
        pass


@define(eq=False, slots=False)
class Clients(Participant):
    name = "clients"
    role = "client"

    @handles(Ping, emits=(Pong,))
    def answer(self, event):
        pass


def graph(*participants):
    """Return the graph of some participants."""
    return Graph.of(Handlers.of(participants))


def test_a_complete_graph_has_no_problems():
    assert graph(Server(), Clients()).problems() == []


def test_the_built_in_rounds_are_complete():
    assert fs_course().course.graph.problems() == []


def test_a_message_without_a_handler_at_its_receiver_is_named():
    assert graph(Server()).problems() == [
        "graph: server.end handles Pong, which nobody emits to the server",
        "graph: Ping is emitted, but no handler of the client handles it",
        "graph: no path leads from CourseStarted to Ending",
    ]


def test_an_empty_course_has_no_path_to_its_end():
    assert graph().problems() == [
        "graph: CourseStarted is emitted, but no handler handles it",
        "graph: no path leads from CourseStarted to Ending",
    ]


@define(eq=False, slots=False)
class Ticking(Participant):
    name = "ticking"

    @handles(Tick)
    def tick(self, event):
        pass


def test_a_handler_that_cannot_be_reached_is_named():
    assert graph(Server(), Clients(), Ticking()).problems() == [
        "graph: ticking.tick handles Tick, which nobody emits to the server"
    ]


@define(eq=False, slots=False)
class WrongRole(Participant):
    name = "wrong"

    @handles(Ping)
    def hear(self, event):
        pass


def test_a_handler_at_the_wrong_participant_is_named():
    assert graph(Server(), Clients(), WrongRole()).problems() == [
        "graph: wrong.hear handles Ping, which nobody emits to the server"
    ]


def test_text_draws_one_line_per_handler():
    assert drawing.text(graph(Server(), Clients())) == (
        "CourseStarted    server  server.begin                 -> Ping\n"
        "Pong             server  server.end                   -> Ending\n"
        "Ping             client  clients.answer               -> Pong"
    )


def test_mermaid_draws_messages_round_and_conditions_square():
    assert drawing.mermaid(graph(Server(), Clients())) == (
        "flowchart TD\n"
        '    CourseStarted["CourseStarted"]\n'
        '    Ping(["Ping"])\n'
        '    Pong(["Pong"])\n'
        '    Ending["Ending"]\n'
        "    CourseStarted -->|server.begin| Ping\n"
        "    Pong -->|server.end| Ending\n"
        "    Ping -->|clients.answer| Pong"
    )


# ------------------------------------------------------------------------------------------------ handlers


@define(eq=False, slots=False)
class OtherEnd(Participant):
    name = "other"

    @handles(Pong, emits=(Ending,), replaces="server.end")
    def end(self, event):
        pass


@define(eq=False, slots=False)
class ThirdEnd(OtherEnd):
    name = "third"


@define(eq=False, slots=False)
class LostEnd(Participant):
    name = "lost"

    @handles(Pong, emits=(Ending,), replaces="server.ends")
    def end(self, event):
        pass


@define(eq=False, slots=False)
class EarlyEnd(Participant):
    name = "early"

    @handles(Pong, emits=(Ending,), rank=10)
    def end(self, event):
        pass


def names(*participants):
    """Return the names of all handlers, in the order of their calls."""
    return [handler.name for handler in Handlers.of(participants).every]


def test_a_replacer_takes_the_place_of_the_handler():
    assert names(Server(), Clients(), OtherEnd()) == ["server.begin", "other.end", "clients.answer"]


def test_two_replacers_are_refused():
    with pytest.raises(PluginError) as caught:
        names(Server(), OtherEnd(), ThirdEnd())
    assert str(caught.value) == "third.end and other.end both replace server.end"


def test_replacing_what_is_not_there_is_refused_with_the_nearest_name():
    with pytest.raises(PluginError) as caught:
        names(Server(), LostEnd())
    assert str(caught.value) == (
        "lost.end replaces 'server.ends', which is not a handler of this course, "
        "did you mean 'server.end'?"
    )


def test_handlers_of_one_event_run_by_rank_then_place():
    handlers = Handlers.of([Server(), EarlyEnd()])
    found = handlers.of_class(Pong)
    assert [handler.name for handler in found] == ["early.end", "server.end"]


@define(eq=False, slots=False)
class Every(Participant):
    name = "every"

    @handles(Condition)
    def any(self, event):
        pass


def test_a_handler_of_a_base_class_handles_its_subclasses():
    found = Handlers.of([Every()]).of_class(Tick)
    assert [handler.name for handler in found] == ["every.any"]


# ------------------------------------------------------------------------------------------------ in a course


@define(eq=False, slots=False)
class Undeclared(Participant):
    name = "undeclared"

    @handles(CourseStarted)
    def begin(self, event):
        self.emit(Ending("too early"))


@define(eq=False)
class UndeclaredPlugin(Component):
    name = "undeclared-plugin"

    def participants(self):
        return (Undeclared,)


def test_an_emission_that_is_not_declared_is_refused():
    with pytest.raises(PluginError) as caught:
        fs_course(plugins=[UndeclaredPlugin])
    assert str(caught.value) == (
        "undeclared.begin emits Ending, which it does not declare. "
        "Remedy: add it to emits=(...) of @handles."
    )


@define(eq=False)
class TickingPlugin(Component):
    name = "ticking-plugin"

    def participants(self):
        return (Ticking,)


def test_an_incomplete_graph_is_refused_before_the_course_runs():
    with pytest.raises(ConfigError) as caught:
        tiny_course(plugins=[TickingPlugin])
    assert caught.value.problems == (
        "graph: ticking.tick handles Tick, which nobody emits to the server",
    )


@define(eq=False, slots=False)
class Short(Participant):
    """Ends a course where the built-in round would begin."""

    name = "short"

    @handles(CourseStarted, emits=(Ending,), replaces="rounds.begin")
    def begin(self, event):
        self.emit(Ending("ended by a plugin"))


@define(eq=False)
class ShortPlugin(Component):
    name = "short-plugin"

    def participants(self):
        return (Short,)


def test_a_plugin_can_replace_a_handler_of_the_round():
    result = fs_course(plugins=[ShortPlugin]).result
    assert (result.reason, result.versions) == ("ended by a plugin", 0)
