"""FedEx: hyper-parameters of local training, tuned inside one course by weight sharing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import define, field

from fs_hpo.exponentiated import Step, discounted_mean, entropy, gradient, stepped
from fs_hpo.probe import GROUP, Probe
from fscore.builtin.policies import (
    Arm,
    Choice,
    Drawing,
    choice_problems,
    table_of,
)
from fscore.builtin.record.files import write_file
from fscore.builtin.tables import document
from fscore.builtin.tuning.space import Axis, axes, flat, problems
from fscore.component import between, ge, gt, option, state
from fscore.kinds.metric import Metric
from fscore.kinds.trainer import Trainer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fscore.course import Course
    from fscore.paths import Stage
    from fscore.tasks import Cohort, Output


@define(eq=False, slots=False)
class FedEx(Drawing):
    """FedEx (Khodak et al., NeurIPS 2021, algorithm 2): exponentiated gradient on a distribution over arms.

    Each task draws an arm from theta. Its client reports the metric on its validation data after training (and before
    it, with `diff`). With weights w_i, scores s_i (smaller is better) and a baseline b, the discounted mean of the rounds
    before (0 in the first), the gradient of arm a is sum_i w_i (s_i - b) / theta_a over the tasks that drew a, where theta is that of the
    time of issue; then log theta <- log theta - eta gradient, normalised. Below an entropy of `cutoff` the likeliest arm
    is used from then on. Arms are a flat list, a grid (one distribution per option), or perturbations around the
    course's own options; a tuner around it that searches the latter gives the wrapped form of the paper.
    """

    name = "fedex"
    needs = frozenset({"plain_metrics"})

    arms: list[Arm] = option(factory=list, doc="A flat list of settings by dotted key.")
    grid: dict[str, Any] = option(
        factory=dict, doc="Values by dotted key; each option has its own distribution."
    )
    around: dict[str, Any] = option(
        factory=dict, doc="Ranges by dotted key: arms are drawn around the course's own values."
    )
    count: int = option(9, doc="With around: arms, the course's own values first.", validator=ge(1))
    epsilon: float = option(
        0.1,
        doc="With around: distance from the course's values, as a share of the range.",
        validator=gt(0),
    )
    metric: str = option("loss", doc="Metric on the client's validation data.")
    eta: float | None = option(None, doc="Step size; default: sqrt(2 log k).", validator=gt(0))
    step: Step = option(
        "aggressive", doc="Step size over time: eta over the gradient's largest entry, ..."
    )
    baseline: float = option(
        0.0,
        doc="Discount of older rounds in the baseline: 0 the last round, 1 the mean.",
        validator=between(0, 1),
    )
    diff: bool = option(False, doc="Score the difference that local training makes.")
    privacy: Literal["", "ignored"] = option(
        "", doc="With [[privacy]]: 'ignored' lets clients send metrics that no accountant sees."
    )
    cutoff: float = option(0.0, doc="Entropy (nats) below which exploring ends.", validator=ge(0))
    z: list[list[float]] = state(list)
    """log theta, by choice."""
    norms: list[float] = state(list)
    scores: list[float] = state(list)
    """Weighted mean score of each round."""
    stopped: bool = state(bool)
    history: list[tuple[int, list[list[float]]]] = state(list)
    """(version, theta by choice) from that version on."""
    _made: list[list[Arm]] = field(factory=list, init=False)

    # ------------------------------------------------------------------------ before the course

    def bind(self, course: Course) -> None:
        """Make the arms."""
        self._course = course
        self._made = self._arms(course)
        if not self.z:
            self.z = [[-math.log(len(arms))] * len(arms) for arms in self._made if arms]
            self.norms = [0.0] * len(self.z)
            self.history = [(0, self.theta())]

    @property
    def _judge(self) -> Metric | None:
        """The metric; the evaluation knows it once it is bound."""
        judges = self._course.evaluator.judges()
        return next((judge for judge in judges if judge.name == self.metric), None)

    def _arms(self, course: Course) -> list[list[Arm]]:
        """Return the arms of each choice."""
        if self.arms:
            return [[flat(arm) for arm in self.arms]]
        if self.grid:
            return [[{key: value} for value in values] for key, values in flat(self.grid).items()]
        if self.around and not list(problems(self.around)):
            rng = course.streams.generator("fedex", self._place(course))
            return [list(around(axes(self.around), course, self.count, self.epsilon, rng))]
        return []

    def _place(self, course: Course) -> int:
        return int(table_of(self, course).rpartition(".")[2])

    def check(self, course: Course) -> Iterable[str]:
        """Refuse arms that tasks cannot have, and metrics that nobody reports."""
        key = table_of(self, course)
        given = [name for name in ("arms", "grid", "around") if getattr(self, name)]
        if len(given) != 1:
            yield f"{key}: expected one of arms, grid and around, got {' and '.join(given) or 'none'}"
        elif self.around:
            yield from problems(self.around, f"{key}.around")
        for place, arms in enumerate(self._made):
            yield from choice_problems(course, Choice(arms=arms), f"{key}.{given[0]}.{place}")
        if self._judge is None:
            known = ", ".join(judge.name for judge in course.evaluator.judges())
            yield f"{key}.metric: nobody reports '{self.metric}' (known: {known})"
        if course.privacy and not self.privacy:
            yield (
                f"{key}.privacy: missing; clients send metrics in the clear, which [[privacy]] '{course.privacy[0].name}' "
                "does not account for. Remedy: privacy = \"ignored\", or tune without 'fedex'."
            )
        yield from self._model_problems(key, course)

    def advise(self, course: Course) -> Iterable[str]:
        """Say what is ignored."""
        if course.privacy:
            yield (
                f"{table_of(self, course)}.privacy: ignored; the clients' metrics are releases that nobody accounts for. "
                "Remedy: tune without 'fedex'."
            )

    def _model_problems(self, key: str, course: Course) -> Iterable[str]:
        if "model" not in course.trainer.groups(course.space):
            yield f"{key}.use: trainer '{course.trainer.name}' sends no model that 'fedex' could judge"
        cls = type(course.trainer)
        if (cls.predictor, cls.predict) != (Trainer.predictor, Trainer.predict):
            yield (
                f"{key}.use: trainer '{course.trainer.name}' is evaluated by more than the model that it sends, which is "
                "all that 'fedex' judges. Remedy: another trainer, or tune without 'fedex'."
            )

    def stages(self) -> Iterable[Stage]:
        """Let clients judge what they trained."""
        start = 1  # the number of samples
        for judge in self._course.evaluator.judges():
            if judge.name == self.metric:
                sums = slice(start, start + judge.width)
                yield Probe(self._course.trainer, sums, before=self.diff)
            start += judge.width

    # ------------------------------------------------------------------------ during the course

    def theta(self) -> list[list[float]]:
        """Return the distribution of each choice; one-hot once exploring has ended."""
        rows = [[math.exp(v) for v in row] for row in self.z]
        if not self.stopped:
            return rows
        return [[float(i == row.index(max(row))) for i in range(len(row))] for row in rows]

    def arms_by_choice(self) -> list[list[Arm]]:
        """Return the arms of each choice."""
        return self._made

    def choices(self, version: int) -> Sequence[tuple[Sequence[Arm], Sequence[float]]]:
        return list(zip(self._made, self.theta(), strict=True))

    def learn(self, outputs: Sequence[Output], cohort: Cohort) -> None:
        """Take one step of exponentiated gradient."""
        reported = [output.values[GROUP] for output in outputs]
        weights = np.array([float(group[0]) for group in reported])
        if self.stopped or self._judge is None or not weights.sum() > 0:
            return
        weights = weights / weights.sum()
        each = np.array([self._score(group.tolist()) for group in reported])
        base = discounted_mean(self.scores, self.baseline) if self.scores else 0.0
        self.scores = [*self.scores, float(weights @ each)]
        memos = [task.memo for task in cohort.tasks]
        for i, row in enumerate(self.z):
            places = [memo["fedex_arms"][i] for memo in memos]
            chances = [memo["fedex_chances"][i] for memo in memos]
            slope = gradient(len(row), places, chances, weights, each - base)
            self._move(i, slope)
        self.stopped = entropy(self.theta()) < self.cutoff
        self.history = [*self.history, (self._course.book.version + 1, self.theta())]

    def _score(self, group: Sequence[float]) -> float:
        """Return what a client's report is worth, smaller is better; 0 with weight 0 where it has no such data."""
        judge = self._judge
        if judge is None or not group[0]:
            return 0.0
        sign = -1.0 if judge.higher_is_better else 1.0
        after = judge.value(group[1 : 1 + judge.width])
        before = judge.value(group[1 + judge.width :]) if self.diff else 0.0
        return sign * (after - before)

    def _move(self, i: int, slope: NDArray[np.float64]) -> None:
        size = len(slope)
        eta = math.sqrt(2 * math.log(size)) if self.eta is None else self.eta
        largest = float(np.abs(slope).max())
        rate, self.norms[i] = stepped(self.step, eta, largest, self.norms[i], size)
        moved = np.array(self.z[i]) - rate * slope
        top = moved.max()
        moved -= top + math.log(np.exp(moved - top).sum())
        self.z = [*self.z[:i], moved.tolist(), *self.z[i + 1 :]]

    def figures(self) -> Mapping[str, float]:
        theta = self.theta()
        return {
            "fedex_entropy": entropy(theta),
            "fedex_likeliest": math.prod(max(row) for row in theta),
        }


def around(
    space: Sequence[Axis], course: Course, count: int, epsilon: float, rng: np.random.Generator
) -> Iterable[Arm]:
    """Yield the course's own options, then `count` - 1 settings drawn around them (Khodak et al., appendix).

    Each number is uniform within `epsilon` of the range's width on either side, in logarithms where the range is, and
    inside the range; lists are drawn from.
    """
    centre = {axis.key: _own(axis.key, course) for axis in space}
    for number in range(count):
        yield {
            axis.key: centre[axis.key]
            if not number
            else _near(axis, centre[axis.key], epsilon, rng)
            for axis in space
        }


def _own(key: str, course: Course) -> Any:
    table, _, name = key.rpartition(".")
    return getattr(course.components.get(table), name, None)


def _near(axis: Axis, centre: Any, epsilon: float, rng: np.random.Generator) -> Any:
    if axis.values:
        return axis.at(float(rng.random()))
    share = axis.share(centre) + float(rng.uniform(-epsilon, epsilon))
    return axis.at(min(max(share, 0.0), 1.0))


# ------------------------------------------------------------------------------------------------ the schedule


def schedule(policy: FedEx) -> dict[str, Any]:
    """Return the table of a policy `schedule` that draws for every task what this course drew."""
    steps: list[dict[str, Any]] = []
    for version, theta in policy.history:
        choices = [
            {"arms": arms, "weights": weights}
            for arms, weights in zip(policy.arms_by_choice(), theta, strict=True)
        ]
        if not steps or steps[-1]["choices"] != choices:
            steps.append({"version": version, "choices": choices})
    return {"use": "schedule", "steps": steps}


def write_schedule(policy: FedEx, course: Course) -> None:
    """Write `schedule-0.toml` into the run directory: the [[policy]] table that replays the policy of that place."""
    if course.record is not None:
        name = table_of(policy, course).replace("policy.", "schedule-")
        text = document({"policy": [schedule(policy)]})
        write_file(course.record.path / f"{name}.toml", text.encode())
