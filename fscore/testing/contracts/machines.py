"""The suites for machines: devices, when they are online, what goes wrong with them, and what computes."""

# ruff: noqa: S101
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import SkipTest

import tomli
from attrs import define, frozen

from fscore.builtin.trainers import SGD
from fscore.component import Component
from fscore.config import Tables
from fscore.errors import ConfigError
from fscore.events import Message
from fscore.tasks import SERVER, Batch, Task
from fscore.testing.contracts.base import ComponentContract, plain_course
from fscore.testing.course import tiny_course

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import Tensors


@define(eq=False, slots=False)
class Failing(SGD):
    """Client 2 raises when it has trained."""

    name = "failing"
    lifts = False

    def finish(self, variables: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        if context.task.client == 2:
            raise ValueError("client 2 fails")
        return super().finish(variables, context)


@frozen
class Letter(Message):
    """Something that travels."""


class DevicesContract(ComponentContract):
    """For device models: times, arrivals and who is online depend on the arguments only."""

    clients: ClassVar[tuple[int, ...]] = (0, 2, 5)
    """Whom it is asked about."""
    times: ClassVar[tuple[float, ...]] = (0.0, 1.5, 700.0)
    """Virtual seconds at which it is asked."""

    def test_times_are_not_negative(self) -> None:
        course = self.course()
        assert all(self._seconds(course, c, 20.0, t) >= 0 for c in self.clients for t in self.times)

    def test_answers_depend_on_the_arguments_only(self) -> None:
        """Two courses are asked the same in another order."""
        one, other = self.course(), self.course()
        asked = [(c, t) for c in self.clients for t in self.times]
        forth = {key: self._answers(one, *key) for key in asked}
        back = {key: self._answers(other, *key) for key in reversed(asked)}
        assert forth == back

    def test_more_work_takes_no_less_time(self) -> None:
        course = self.course()
        for client in self.clients:
            taken = [self._seconds(course, client, work, 0.0) for work in (1.0, 10.0, 1000.0)]
            assert taken == sorted(taken)

    def test_no_message_arrives_before_it_leaves(self) -> None:
        course = self.course()
        for client in self.clients:
            for now in self.times:
                arrivals = self._arrivals(course, client, 1000, now)
                assert all(at >= now for at in arrivals)

    def test_more_bytes_arrive_no_earlier(self) -> None:
        course = self.course()
        for client in self.clients:
            first = [self._arrivals(course, client, n, 0.0) for n in (0, 10_000, 10_000_000)]
            there = [min(arrivals) for arrivals in first if arrivals]
            assert there == sorted(there)

    def test_who_is_online_does_not_depend_on_who_else_is_asked(self) -> None:
        course = self.course()
        everybody = range(course.population.size)
        for now in self.times:
            together = [bool(up) for up in course.devices.online(everybody, now)]
            apart = [bool(course.devices.online([c], now)[0]) for c in everybody]
            assert together == apart

    def test_the_next_change_lies_ahead_and_brings_somebody(self) -> None:
        course = self.course()
        everybody = [c for c in range(course.population.size) if c not in course.population.unseen]
        for now in self.times:
            at = course.devices.next_change(now)
            if at is None:
                continue
            assert now < at < math.inf
            assert any(course.devices.online(everybody, at))

    def test_a_client_goes_away_while_it_computes_or_not_at_all(self) -> None:
        course = self.course()
        for client in self.clients:
            task = Task(client, client, 0)
            rng = course.streams.generator("test", client)
            left = course.devices.leaves(task, 2.0, 50.0, rng)
            assert left is None or (2.0 <= left[0] <= 50.0 and left[1])

    def test_devices_that_are_alike_treat_everybody_alike(self) -> None:
        course = self.course()
        if not course.devices.alike:
            raise SkipTest("its clients are not alike")
        for now in self.times:
            clients = range(course.population.size)
            assert len({self._seconds(course, client, 20.0, now) for client in clients}) == 1
            (arrivals,) = {tuple(self._arrivals(course, c, 1000, now)) for c in clients}
            assert len(arrivals) == 1
            stays = [course.devices.leaves(Task(c, c, 0), now, now + 9.0, None) for c in clients]
            assert stays == [None] * len(stays)

    @staticmethod
    def _seconds(course: Course, client: int, work: float, now: float) -> float:
        rng = course.streams.generator("test", client)
        return float(course.devices.seconds(client, work, now, rng))

    @staticmethod
    def _arrivals(course: Course, client: int, nbytes: int, now: float) -> list[float]:
        rng = course.streams.generator("test", client)
        return list(course.devices.deliver(Letter(client, SERVER), nbytes, now, rng))

    def _answers(self, course: Course, client: int, now: float) -> Any:
        return (
            self._seconds(course, client, 20.0, now),
            self._arrivals(course, client, 1000, now),
            [bool(up) for up in course.devices.online([client], now)],
        )


class FaultContract(DevicesContract):
    """For faults: the devices of the course have the fault around them. Choose options with which a course completes."""

    def test_it_leaves_other_devices_as_they_are(self) -> None:
        course = self.course()
        inner = plain_course(self.toml).devices
        rng = course.streams.generator("test")
        before = inner.seconds(0, 20.0, 0.0, course.streams.generator("test"))
        course.faults[0].around(inner).seconds(0, 20.0, 0.0, rng)
        assert inner.seconds(0, 20.0, 0.0, course.streams.generator("test")) == before


class AvailabilityContract(ComponentContract):
    """For availabilities: sessions that follow one another, whatever was asked before."""

    times: ClassVar[tuple[float, ...]] = (0.0, 100.0, 90_000.0, 1_000_000.0)
    """Virtual seconds at which it is asked."""

    def place(self, made: Component, tables: Tables) -> dict[str, Component]:
        """Put the component into the tables, or return it by the table that it stands in for."""
        devices = tables.setdefault("devices", {"use": "constant", "if_offline": "pause"})
        devices["availability"] = made
        return {}

    def test_a_session_is_the_present_one_or_the_next(self) -> None:
        made = self._bound()
        for client in range(6):
            for now in self.times:
                begin, end = made.session(client, now)
                assert (begin, end) == (math.inf, math.inf) or begin < end
                assert now < end

    def test_all_of_a_session_is_one_session(self) -> None:
        made = self._bound()
        for client in range(6):
            begin, end = made.session(client, 0.0)
            if math.isfinite(begin) and math.isfinite(end):
                inside = [begin, (begin + end) / 2, math.nextafter(end, begin)]
                assert [made.session(client, t) for t in inside] == [(begin, end)] * 3

    def test_the_next_session_begins_after_the_last(self) -> None:
        made = self._bound()
        for client in range(6):
            _, end = made.session(client, 0.0)
            if math.isfinite(end):
                assert made.session(client, end)[0] >= end

    def test_answers_do_not_depend_on_what_was_asked_before(self) -> None:
        one, other = self._bound(), self._bound()
        asked = [(c, t) for c in range(4) for t in self.times]
        forth = {key: one.session(*key) for key in asked}
        back = {key: other.session(*key) for key in reversed(asked)}
        assert forth == back

    def _bound(self) -> Any:
        devices: Any = self.course().components["devices"]
        return devices.availability


class ExecutorContract(ComponentContract):
    """For executors: same batches in, same outputs out as the reference, `serial`."""

    exact: ClassVar[bool] = True
    """False: it adds up in another order, so that the last digits differ."""

    def test_it_gives_what_serial_gives(self) -> None:
        import torch

        own = self.finished(self.course())
        reference = self.finished(plain_course(self.toml, **{"executor.use": "serial"}))
        if self.exact:
            assert own.digest == reference.digest
        for name, slot in reference.model.items():
            torch.testing.assert_close(own.model[name], slot, atol=1e-5, rtol=1e-4)

    def test_a_client_that_fails_is_one_output_with_an_error(self) -> None:
        """The others of its batch are whole; nothing raises."""
        given = {"trainer": Failing(), "executor": self.make()}
        try:
            made = tiny_course(tomli.loads(self.toml), given=given)
        except ConfigError as error:
            raise SkipTest(f"it refuses such a trainer: {error}") from error
        made.executor.start(made.site)
        try:
            jobs = tuple(made.opener.job(Task(i, i, 0)) for i in range(4))
            (done,) = made.executor.compute([Batch(jobs, sum=False)])
            errors = [output.error for output in done.outputs]
        finally:
            made.executor.stop()
        assert [bool(error) for error in errors] == [False, False, True, False]
        assert "client 2 fails" in errors[2]

    def test_it_can_stop_twice(self) -> None:
        course = self.course()
        self.finished(course)
        course.executor.stop()


__all__ = ["AvailabilityContract", "DevicesContract", "ExecutorContract", "FaultContract"]
