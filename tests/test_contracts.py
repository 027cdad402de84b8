"""The built-in components pass the contract suites that plugin authors use."""

from attrs import define

from fscore.builtin.aggregators import Mean, Median, Staleness
from fscore.builtin.executors.process import ProcessExecutor
from fscore.builtin.executors.serial import SerialExecutor
from fscore.builtin.privacy import NormClip
from fscore.builtin.samplers import RoundRobin, Uniform, Weighted
from fscore.builtin.trainers import SGD
from fscore.builtin.triggers import AllReceived, GoalAchieved, TimeUp
from fscore.builtin.tuning.tuners import GridSearch, RandomSearch
from fscore.kinds.attack import Attack
from fscore.testing import (
    AggregatorContract,
    AttackContract,
    ExecutorContract,
    PrivacyContract,
    SamplerContract,
    TrainerContract,
    TriggerContract,
    TunerContract,
)


class TestMean(AggregatorContract):
    def make(self):
        return Mean()


class TestStaleness(AggregatorContract):
    def make(self):
        return Staleness()


class TestMedian(AggregatorContract):
    def make(self):
        return Median()


class TestSGD(TrainerContract):
    def make(self):
        return SGD(momentum=0.5, weight_decay=0.01)


class TestPersonalSGD(TrainerContract):
    toml = '[model]\nuse = "mlp"\nhidden = [4]'

    def make(self):
        return SGD(private=["linear"], finetune=1.0)


class TestClip(PrivacyContract):
    def make(self):
        return NormClip(clip_norm=0.1)


class TestUniform(SamplerContract):
    def make(self):
        return Uniform(clients=4)


class TestWeighted(SamplerContract):
    def make(self):
        return Weighted(clients=4)


class TestRoundRobin(SamplerContract):
    def make(self):
        return RoundRobin(clients=4)


class TestAllReceived(TriggerContract):
    def make(self):
        return AllReceived()


class TestGoalAchieved(TriggerContract):
    def make(self):
        return GoalAchieved(goal=2)


class TestTimeUp(TriggerContract):
    def make(self):
        return TimeUp(budget=0.5)


class TestSerial(ExecutorContract):
    def make(self):
        return SerialExecutor()


class TestProcess(ExecutorContract):
    def make(self):
        return ProcessExecutor(workers=2)


class TestGrid(TunerContract):
    def make(self):
        return GridSearch(space={"trainer.lr": [0.1, 0.2]})


class TestRandom(TunerContract):
    def make(self):
        return RandomSearch(trials=3, space={"trainer.lr": {"low": 0.1, "high": 1.0}})


@define(eq=False)
class Flip(Attack):
    """Client 0 flips its labels, and the sum is watched."""

    name = "flip"
    sees = frozenset({"sum", "released"})

    def controls(self, population, rng):
        return frozenset({0})

    def poison(self, data, context):
        return data._replace(y=2 - data.y)


class TestFlip(AttackContract):
    def make(self):
        return Flip()
