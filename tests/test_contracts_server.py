"""The built-in components of the server pass the contract suites that plugin authors use."""

import json
from pathlib import Path

import pytest

from fscore.builtin import reporters as reporting
from fscore.builtin import server_optimizers as optimizers
from fscore.builtin.evaluation import Instrument
from fscore.builtin.policies import Choice, Schedule, Step
from fscore.builtin.rounds import Rounds
from fscore.builtin.samplers import All, Poisson, RoundRobin, Uniform, Weighted
from fscore.builtin.triggers import AllReceived, GoalAchieved, TimeUp
from fscore.builtin.tuning.tuners import GridSearch, RandomSearch
from fscore.testing import (
    EvaluatorContract,
    PolicyContract,
    ProtocolContract,
    ReporterContract,
    SamplerContract,
    ServerOptimizerContract,
    TriggerContract,
    TunerContract,
)


class TestUniform(SamplerContract):
    def make(self):
        return Uniform(clients=4)


class TestWeighted(SamplerContract):
    def make(self):
        return Weighted(clients=4)


class TestRoundRobin(SamplerContract):
    def make(self):
        return RoundRobin(clients=4)


class TestPoisson(SamplerContract):
    def make(self):
        return Poisson(clients=0.5)


class TestAll(SamplerContract):
    def make(self):
        return All()


class TestAllReceived(TriggerContract):
    def make(self):
        return AllReceived()


class TestGoalAchieved(TriggerContract):
    def make(self):
        return GoalAchieved(goal=2)


class TestTimeUp(TriggerContract):
    def make(self):
        return TimeUp(budget=0.5)


class TestServerSGD(ServerOptimizerContract):
    def make(self):
        return optimizers.SGD(lr=0.5)


class TestMomentum(ServerOptimizerContract):
    def make(self):
        return optimizers.SGD(momentum=0.9)


class TestAdagrad(ServerOptimizerContract):
    def make(self):
        return optimizers.Adagrad()


class TestAdam(ServerOptimizerContract):
    def make(self):
        return optimizers.Adam()


class TestYogi(ServerOptimizerContract):
    def make(self):
        return optimizers.Yogi()


class TestSchedule(PolicyContract):
    def make(self):
        arms = [{"trainer.lr": 0.1}, {"trainer.lr": 0.2, "trainer.epochs": 2.0}]
        later = Step(version=1, choices=[Choice(arms=arms)])
        return Schedule(steps=[Step(version=0, values={"trainer.lr": 0.05}), later])


class TestInstrument(EvaluatorContract):
    def make(self):
        return Instrument()


class TestSampledInstrument(EvaluatorContract):
    def make(self):
        return Instrument(clients=2, parts=["train", "test"], worst=0.5)


class TestRounds(ProtocolContract):
    def make(self):
        return Rounds()


class TestAsynchronousRounds(ProtocolContract):
    toml = '[trigger]\nuse = "goal_achieved"\ngoal = 2\n[devices]\nuse = "lognormal"'

    def make(self):
        return Rounds(broadcast="after_receiving", concurrency=4)


class TestConsole(ReporterContract):
    def make(self):
        return reporting.Console()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder that reporters write into."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("here")
class TestJSONLines(ReporterContract):
    def make(self):
        return reporting.JSONLines(path="lines.jsonl")

    def test_the_file_holds_a_line_per_version(self):
        self.finished(self.course())
        lines = Path("lines.jsonl").read_text().splitlines()
        assert [json.loads(line)["version"] for line in lines] == [1, 2, 3]


@pytest.mark.usefixtures("here")
class TestCSV(ReporterContract):
    def make(self):
        return reporting.CSV(path="rows.csv")


class TestGrid(TunerContract):
    def make(self):
        return GridSearch(space={"trainer.lr": [0.1, 0.2]})


class TestRandom(TunerContract):
    def make(self):
        return RandomSearch(trials=3, space={"trainer.lr": {"low": 0.1, "high": 1.0}})
