"""The suites for what acts at the server: samplers, triggers, server optimizers, policies, evaluators, protocols, reporters, tuners."""

# ruff: noqa: S101
from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from fscore.builtin.record.resume import codec
from fscore.component import per_client_options, states_of
from fscore.config import structure_option
from fscore.course import Course
from fscore.kinds.reporter import Reporter
from fscore.params import Tensors
from fscore.result import Result
from fscore.testing.contracts.base import ComponentContract, Described, plain_course, same


class SamplerContract(ComponentContract):
    """For samplers: different free clients, and nobody who is busy."""

    def test_it_chooses_different_free_clients(self) -> None:
        course = self.course()
        for _ in range(5):
            chosen = list(course.sample(4))
            assert len(chosen) <= max(4, self._most(course))
            assert len(set(chosen)) == len(chosen)
            assert all(course.free(chosen, 0.0))
            course.book.waves += 1

    def test_it_never_chooses_a_busy_client(self) -> None:
        course = self.course()
        busy = course.issue([c for c in range(6) if course.free([c], 0.0)[0]][:3])
        assert not {task.client for task in busy} & set(course.sample(6))

    def test_nobody_free_gives_nobody(self) -> None:
        course = self.course()
        course.issue([c for c in range(course.population.size) if course.free([c], 0.0)[0]])
        assert list(course.sample(3)) == []

    def test_it_wants_what_can_be_sampled(self) -> None:
        course = self.course()
        population = course.population
        assert 1 <= course.sampler.wanted(population) <= course.sampler.issued(population)
        rate = course.sampler.rate(population)
        assert rate is None or 0 < rate <= 1

    @staticmethod
    def _most(course: Course) -> int:
        """Most clients of a wave whatever was asked for: of independent draws, everybody."""
        independent = course.sampler.rate(course.population) is not None
        return course.population.participants if independent else 0


class TriggerContract(ComponentContract):
    """For triggers: they name what arrived, give up what is under way, and wake in the future."""

    def test_an_empty_pool_gives_no_cohort(self) -> None:
        course = self.course()
        assert list(course.trigger.ready(course.book, 0.0)) == []

    def test_it_names_only_what_arrived(self) -> None:
        course = self.course()
        tasks = course.issue([c for c in range(8) if course.free([c], 0.0)[0]])
        for task in tasks[:3]:
            course.book.arrive(task.id, 0.5)
        named = [task.id for task in course.trigger.ready(course.book, 1e9)]
        assert set(named) <= {task.id for task in tasks[:3]}

    def test_it_gives_up_only_what_is_under_way(self) -> None:
        course = self.course()
        tasks = course.issue([c for c in range(8) if course.free([c], 0.0)[0]])
        for task in tasks[:3]:
            course.book.arrive(task.id, 0.5)
        course.trigger.ready(course.book, 1e9)
        given_up = [task.id for task in course.trigger.given_up(course.book, 1e9)]
        assert set(given_up) <= {task.id for task in tasks[3:]}

    def test_it_wakes_in_the_future(self) -> None:
        course = self.course()
        course.trigger.ready(course.book, 1.0)
        wake = course.trigger.wake(course.book, 1.0)
        assert wake is None or wake > 1.0

    def test_asking_twice_gives_the_same(self) -> None:
        course = self.course()
        for task in course.issue([c for c in range(8) if course.free([c], 0.0)[0]]):
            course.book.arrive(task.id, 0.5)
        asked = [[t.id for t in course.trigger.ready(course.book, 2.0)] for _ in range(2)]
        assert asked[0] == asked[1]

    def test_firing_while_tasks_are_under_way_is_declared(self) -> None:
        """By the flags of `fscore.builtin.triggers.Early`; mechanisms that need a closed cohort rely on them."""
        course = self.course()
        tasks = course.issue([c for c in range(8) if course.free([c], 0.0)[0]])
        early = False
        for task in tasks[:-1]:
            course.book.arrive(task.id, 0.5)
            early |= bool(course.trigger.ready(course.book, 1e9))
        needs, provides, removes = course.trigger.flags()
        declared = {"open_cohort", "closed_cohort", "fresh_updates"} & (needs | provides | removes)
        assert declared or not early


class ServerOptimizerContract(ComponentContract):
    """For server optimizers: new tensors, a first step along the clients' direction, state that goes through a snapshot."""

    def test_it_gives_new_tensors_of_the_same_shape(self) -> None:
        slots, directions = self._slots(), self._directions(1)
        before = copy.deepcopy((slots, directions))
        moved = self.course().server_optimizer.step(slots, directions)
        assert {n: (v.dtype, v.shape) for n, v in moved.items()} == {
            n: (v.dtype, v.shape) for n, v in slots.items()
        }
        assert same(slots, before[0])
        assert same(directions, before[1])
        for name, value in moved.items():
            assert value.data_ptr() != slots[name].data_ptr()

    def test_what_it_gave_before_is_never_written_again(self) -> None:
        made, slots = self.course().server_optimizer, self._slots()
        for seed in range(4):
            moved = made.step(slots, self._directions(seed))
            kept = copy.deepcopy(moved)
            made.step(moved, self._directions(seed + 10))
            assert same(moved, kept)
            slots = moved

    def test_a_slot_without_a_direction_stays(self) -> None:
        directions = {"a": self._directions(1)["a"]}
        moved = self.course().server_optimizer.step(self._slots(), directions)
        assert list(moved) == ["a"]

    def test_no_direction_at_all_is_legal(self) -> None:
        assert self.course().server_optimizer.step(self._slots(), {}) == {}

    def test_it_stays_where_the_clients_do(self) -> None:
        slots = self._slots()
        still = {name: value.new_zeros(value.shape) for name, value in slots.items()}
        assert same(self.course().server_optimizer.step(slots, still), slots)

    def test_the_first_step_goes_where_the_clients_went(self) -> None:
        slots, directions = self._slots(), self._directions(1)
        moved = self.course().server_optimizer.step(slots, directions)
        along = [float(((moved[n] - slots[n]) * d).sum()) for n, d in directions.items()]
        assert min(along) > 0

    def test_its_state_goes_through_a_snapshot(self) -> None:
        course, other = self.course(), self.course()
        made, restored = course.server_optimizer, other.server_optimizer
        slots = made.step(self._slots(), self._directions(1))
        document, tensors = codec(course).encode({n: getattr(made, n) for n in states_of(made)})
        for name, value in codec(other).decode(document, tensors).items():
            setattr(restored, name, value)
        expected = made.step(slots, self._directions(2))
        assert same(restored.step(slots, self._directions(2)), expected)

    @staticmethod
    def _slots() -> Tensors:
        import torch

        return {"a": torch.linspace(-1, 1, 5), "b": torch.linspace(2, 3, 6).view(2, 3)}

    @classmethod
    def _directions(cls, seed: int) -> Tensors:
        import torch

        numbers = torch.Generator().manual_seed(seed)
        return {n: torch.randn(v.shape, generator=numbers) for n, v in cls._slots().items()}


class PolicyContract(ComponentContract):
    """For policies: options that a task can have, and memos that stay at the server."""

    def test_it_chooses_options_that_a_task_can_have(self) -> None:
        course = self.course()
        for client, version in ((0, 0), (3, 1), (5, 2)):
            chosen, _ = self._choose(course, client, version)
            for key, value in chosen.items():
                table, _, name = key.rpartition(".")
                component = course.components[table]
                assert name in per_client_options(component), key
                assert structure_option(type(component), name, value, key) == (value, [])

    def test_the_same_numbers_give_the_same_choice(self) -> None:
        course = self.course()
        first = self._choose(course, 2, 1)
        self._choose(course, 4, 0)
        assert self._choose(course, 2, 1) == first

    def test_choosing_changes_no_state(self) -> None:
        course = self.course()
        before = self._state(course)
        self._choose(course, 1, 0)
        assert self._state(course) == before

    def test_what_the_server_remembers_is_plain_data(self) -> None:
        course = self.course()
        _, memo = self._choose(course, 1, 0)
        coder = codec(course)
        assert coder.decode(*coder.encode(dict(memo))) == memo

    def test_its_choice_reaches_the_task_and_its_memo_does_not_reach_the_client(self) -> None:
        course = self.course()
        (task,) = course.issue([next(c for c in range(8) if course.free([c], 0.0)[0])])
        rng = course.streams.generator("policy", 0, task.id)
        chosen, memo = course.policies[0].choose(task.client, 0, rng)
        assert dict(task.hparams) == dict(chosen)
        assert dict(task.memo) == dict(memo)
        assert dict(course.opener.job(task).task.memo) == {}

    def test_it_learns_nothing_from_an_empty_cohort(self) -> None:
        from fscore.tasks import Cohort

        course = self.course()
        course.policies[0].learn((), Cohort(1, (), ()))
        self._choose(course, 1, 0)

    @staticmethod
    def _choose(course: Course, client: int, version: int) -> Any:
        rng = course.streams.generator("test", client, version)
        chosen, memo = course.policies[0].choose(client, version, rng)
        return dict(chosen), dict(memo)

    @staticmethod
    def _state(course: Course) -> str:
        made = course.policies[0]
        return repr({name: getattr(made, name) for name in states_of(made)})


class EvaluatorContract(ComponentContract):
    """For evaluators: they change nothing, repeat, and give numbers."""

    def test_an_evaluation_changes_nothing(self) -> None:
        """But what the evaluator itself keeps."""
        course = self._begun()
        before = self._dumped(course)
        course.evaluator.evaluate(course, everybody=True)
        after = self._dumped(course)
        assert after[0] == before[0]
        assert same(after[1], before[1])

    def test_an_evaluation_repeats(self) -> None:
        course = self._begun()
        first, second = (course.evaluator.evaluate(course) for _ in range(2))
        assert repr(first) == repr(second)

    def test_evaluating_more_often_changes_no_bit_of_the_model(self) -> None:
        often, never = self.course(), self.course(**{"evaluation.every": 0})
        never.evaluator.every = 0
        assert self.finished(often).digest == self.finished(never).digest

    def test_metrics_are_numbers(self) -> None:
        course = self._begun()
        metrics, per_client = course.evaluator.evaluate(course)
        assert metrics
        assert all(isinstance(v, int | float) for v in metrics.values())
        for clients in per_client.values():
            for client, values in clients.items():
                assert 0 <= client < course.population.size
                assert all(isinstance(v, int | float) for v in values.values())

    def test_everybody_includes_whoever_is_evaluated_otherwise(self) -> None:
        course = self._begun()
        some = course.evaluator.evaluate(course)[1]
        everybody = course.evaluator.evaluate(course, everybody=True)[1]
        assert {p: set(c) - set(everybody[p]) for p, c in some.items()} == {p: set() for p in some}

    def test_its_metrics_have_names_of_their_own(self) -> None:
        names = [metric.name for metric in self.course().evaluator.judges()]
        assert len(set(names)) == len(names)

    @staticmethod
    def _dumped(course: Course) -> Any:
        data = course.dump()
        data["components"] = {t: s for t, s in data["components"].items() if t != "evaluation"}
        return codec(course).encode(data)

    def _begun(self) -> Course:
        course = self.course()
        course.run(lambda c: c.book.version == 1)
        course.executor.start(course.site)
        return course


class ProtocolContract(ComponentContract):
    """For protocols: a complete graph, every task resolved once, time that never goes back."""

    def test_a_path_of_handlers_leads_to_the_end(self) -> None:
        assert list(self.course().graph.problems()) == []

    def test_it_reads_only_tables_that_it_may_leave_out(self) -> None:
        readable = {"sampler", "trigger", "aggregator", "server_optimizer"}
        assert self.make().tables <= readable

    def test_two_courses_share_no_participant(self) -> None:
        courses = [self.course(), self.course()]  # both alive: else an address may serve twice
        made = [{id(p) for p in course.participants} for course in courses]
        assert made[0] & made[1] == set()

    def test_every_task_resolves_once(self) -> None:
        tasks = self.finished(self.course()).tasks
        ways = ("used", "unused", "failed", "expired", "aborted")
        assert tasks["issued"] == sum(tasks[way] for way in ways)

    def test_versions_are_counted_and_time_never_goes_back(self) -> None:
        history = self.finished(self.course()).history
        versions = [line["version"] for line in history]
        times = [line["virtual_time"] for line in history]
        assert versions == list(range(1, len(versions) + 1))
        assert times == sorted(times)


@define(eq=False, slots=False)
class Silent(Reporter):
    """Keeps what it was told."""

    name = "silent"
    told: list[Any] = field(factory=list, init=False)

    def reported(self, line: Mapping[str, Any]) -> None:
        self.told.append(copy.deepcopy(dict(line)))


class ReporterContract(ComponentContract):
    """For reporters: they influence nothing, and bear any line."""

    def test_it_influences_nothing(self) -> None:
        without = plain_course(self.toml)
        assert self.finished(self.course()).digest == self.finished(without).digest

    def test_it_changes_no_line(self) -> None:
        course = self.course()
        for place in ("before", "after"):
            course.reporters.insert(0 if place == "before" else 9, Silent())
        self.finished(course)
        before, after = course.reporters[0], course.reporters[-1]
        assert before.told == after.told

    def test_it_bears_numbers_that_are_not_finite_and_fields_that_it_does_not_know(self) -> None:
        course = self.course()
        made = course.reporters[0]
        made.started(course)
        made.reported({"version": 1, "virtual_time": 0.5, "train_loss": math.nan, "unheard": 1})
        made.ended(self._failed())

    def test_it_begins_again_after_a_resume(self) -> None:
        course = self.course()
        course.run(lambda c: c.book.version == 1)
        other = self.course()
        coder = codec(course)
        other.load(coder.decode(*coder.encode(course.dump())))
        assert self.finished(other).versions == self.versions

    @staticmethod
    def _failed() -> Result:
        course = plain_course()
        return course.reporting.result("it was told to", failed=True)


class TunerContract(Described):
    """For tuners: what they ask for can be run, and a search ends. `make` returns one with a space of `trainer.lr`."""

    def test_it_ends_and_asks_for_what_exists(self) -> None:
        from fscore.kinds.tuner import Report

        made, known = self.make(), set()
        for _ in range(1000):
            trials = made.ask()
            if not trials:
                return
            for trial in trials:
                assert trial.versions >= 1
                assert set(trial.params) <= set(made.space)
                assert trial.fork is None or trial.fork in known
                known.add(trial.id)
                made.tell(trial, Report(1.0 / (1 + trial.id), 3, 0.1, trial.versions))
        raise AssertionError("the search does not end")

    def test_it_survives_failed_trials(self) -> None:
        made = self.make()
        for trial in made.ask():
            made.tell(trial, None)
        made.ask()

    def test_it_repeats(self) -> None:
        asked = [[t.params for t in self.make().ask()] for _ in range(2)]
        assert asked[0] == asked[1]

    def test_it_is_told_all_again_after_a_kill(self) -> None:
        """A search that was killed hears the same results, and goes on as it would have."""
        from fscore.kinds.tuner import Report

        made, again = self.make(), self.make()
        for trial in made.ask():
            made.tell(trial, Report(1.0 / (1 + trial.id), 3, 0.1, trial.versions))
        for trial in again.ask():
            again.tell(trial, Report(1.0 / (1 + trial.id), 3, 0.1, trial.versions))
        assert list(made.ask()) == list(again.ask())


__all__ = [
    "EvaluatorContract",
    "PolicyContract",
    "ProtocolContract",
    "ReporterContract",
    "SamplerContract",
    "ServerOptimizerContract",
    "TriggerContract",
    "TunerContract",
]
