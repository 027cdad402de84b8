"""The built-in components pass the contract suites that plugin authors use."""

import numpy as np
import pytest
import torch
from attrs import define

from fscore.builtin import aggregators, aggregators_async, metrics, objectives
from fscore.builtin.data import partitions
from fscore.builtin.data.digits import Digits
from fscore.builtin.data.npz import Npz
from fscore.builtin.data.synthetic import Synthetic
from fscore.builtin.models import specs
from fscore.builtin.privacy import Clip, NormClip
from fscore.builtin.stages import Weight
from fscore.builtin.trainers import SGD
from fscore.kinds.attack import Attack
from fscore.kinds.compressor import Compressor
from fscore.paths import Stage, elementwise
from fscore.testing import (
    AggregatorContract,
    AttackContract,
    CompressorContract,
    DatasetContract,
    MetricContract,
    ModelContract,
    ObjectiveContract,
    PartitionContract,
    PrivacyContract,
    StageContract,
    TrainerContract,
)

# ------------------------------------------------------------------------ aggregators


class TestMean(AggregatorContract):
    def make(self):
        return aggregators.Mean()


class TestUniformMean(AggregatorContract):
    def make(self):
        return aggregators.Mean(weighting="uniform")


class TestStaleness(AggregatorContract):
    def make(self):
        return aggregators.Staleness()


class TestHinge(AggregatorContract):
    def make(self):
        return aggregators.Staleness(discount="hinge", a=2.0, b=0.0, renormalise=True)


class TestMedian(AggregatorContract):
    def make(self):
        return aggregators.Median()


class TestFedAsync(AggregatorContract):
    toml = '[trigger]\nuse = "goal_achieved"\ngoal = 1'
    clients = 1

    def make(self):
        return aggregators_async.FedAsync()

    def slow(self, course, rows, weights, staleness):
        """alpha s(0) times the update, which starts from the current model."""
        return 0.6 * rows[0].double()


class TestFedAT(AggregatorContract):
    toml = '[sampler]\nuse = "tiers"\ntiers = 2\nclients = 2\n[trigger]\nuse = "per_tier"'

    def make(self):
        return aggregators_async.FedAT()

    def groups(self, course, *cohort, **how):
        """Tasks that no sampler issued belong to the fastest tier."""
        course.sampler.of_wave[0] = 0
        return super().groups(course, *cohort, **how)

    def slow(self, course, rows, weights, staleness):
        """A tier that alone had a cohort counts only with the weight of the other tier, which has none."""
        return torch.zeros(rows.shape[1])


class TestSAFA(AggregatorContract):
    width = 15

    def make(self):
        return aggregators_async.SAFA(weighting="uniform")

    def reduced(self, rows):
        """The mean of the cache: all who take part have their entries, of the updates or of the first model."""
        fresh = [0] * len(rows)
        return self.direction(self.course(), rows, [1.0] * len(rows), fresh)


# ------------------------------------------------------------------------ at the clients


class TestSGD(TrainerContract):
    def make(self):
        return SGD(momentum=0.5, weight_decay=0.01)


class TestPersonalSGD(TrainerContract):
    toml = '[model]\nuse = "mlp"\nhidden = [4]'

    def make(self):
        return SGD(private=["linear"], finetune=1.0)


class TestSoftmax(ModelContract):
    def make(self):
        return specs.Softmax()


class TestMLP(ModelContract):
    def make(self):
        return specs.MLP(hidden=[4])


class Images(ModelContract):
    """On images of one colour, 8 x 8."""

    toml = '[data]\nuse = "digits"\nimage = true'


class TestFemnistCNN(Images):
    def make(self):
        return specs.FemnistCNN()


class TestCNN(Images):
    def make(self):
        return specs.CNN()


class TestClassification(ObjectiveContract):
    def make(self):
        return objectives.Classification()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with data sets for other objectives."""
    numbers = np.random.default_rng(0)
    client = np.repeat(np.arange(8), 12)
    x = numbers.normal(size=(96, 4)).astype(np.float32)
    np.savez(tmp_path / "points.npz", x=x, y=x[:, :1] * 2 + 1, client=client)
    text = numbers.integers(0, 6, size=(96, 7))
    np.savez(tmp_path / "text.npz", x=text[:, :-1], y=text[:, 1:], client=client)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("folder")
class TestRegression(ObjectiveContract):
    toml = '[data]\nuse = "npz"\npath = "points.npz"\n[model]\nuse = "mlp"\nhidden = [3]'

    def make(self):
        return objectives.Regression()

    def batch(self, samples):
        numbers = torch.Generator().manual_seed(8)
        pairs = torch.randn(2, 9, 1, generator=numbers)
        return pairs[0, :samples], pairs[1, :samples]


TEXT = '[data]\nuse = "npz"\npath = "text.npz"\n[model]\nuse = "char_lstm"\n'


@pytest.mark.usefixtures("folder")
class TestNextToken(ObjectiveContract):
    toml = TEXT + "hidden = 4\nembedding = 2"

    def make(self):
        return objectives.NextToken()

    def batch(self, samples):
        numbers = torch.Generator().manual_seed(8)
        outputs = torch.randn(9, 5, 6, generator=numbers)
        return outputs[:samples], torch.randint(6, (9, 5), generator=numbers)[:samples]


@pytest.mark.usefixtures("folder")
class TestCharLSTM(ModelContract):
    toml = '[data]\nuse = "npz"\npath = "text.npz"\n[objective]\nuse = "next_token"'

    def make(self):
        return specs.CharLSTM(hidden=4, embedding=2)


class TestLoss(MetricContract):
    def make(self):
        return metrics.Loss()


class TestAccuracy(MetricContract):
    def make(self):
        return metrics.Accuracy()


class TestTopK(MetricContract):
    def make(self):
        return metrics.TopK(k=2)


class Points(MetricContract):
    """On numbers to be predicted."""

    toml = TestRegression.toml + '\n[objective]\nuse = "regression"'

    def batch(self, samples):
        return TestRegression().batch(samples)


@pytest.mark.usefixtures("folder")
class TestMSE(Points):
    def make(self):
        return metrics.MSE()


@pytest.mark.usefixtures("folder")
class TestMAE(Points):
    def make(self):
        return metrics.MAE()


class TestSynthetic(DatasetContract):
    def make(self):
        return Synthetic(clients=8, features=4, num_classes=3, min_samples=5, max_samples=20)


class TestDigits(DatasetContract):
    def make(self):
        return Digits(unseen_clients=2, val=0.1)


@pytest.mark.usefixtures("folder")
class TestNpz(DatasetContract):
    toml = '[objective]\nuse = "regression"'

    def make(self):
        return Npz(path="points.npz")


class TestNatural(PartitionContract):
    def make(self):
        return partitions.Natural()


class TestIid(PartitionContract):
    def make(self):
        return partitions.Iid(clients=6)


class TestDirichlet(PartitionContract):
    def make(self):
        return partitions.Dirichlet(clients=6, alpha=0.3)


class TestShards(PartitionContract):
    def make(self):
        return partitions.Shards(clients=6)


class TestQuantity(PartitionContract):
    def make(self):
        return partitions.Quantity(clients=6)


# ------------------------------------------------------------------------ on the path


class TestClip(PrivacyContract):
    def make(self):
        return NormClip(clip_norm=0.1)


class TestClipStage(StageContract):
    def make(self):
        return Clip(0.1)


class TestWideClipStage(StageContract):
    error = 0.0

    def make(self):
        return Clip(1e6)


class TestWeightStage(StageContract):
    toml = 'aggregator = { weighting = "uniform" }'
    error = 0.0

    def make(self):
        return Weight()


class Halve(Stage):
    """Halves every value on the way up, and doubles the sum."""

    name = "halve"
    rank = 40
    on_sum = True
    lifts = True

    def layout(self, before):
        self.before = before
        return before

    def apply(self, values, context):
        return elementwise(self.before, values, lambda v: v / 2), {}

    def undo(self, values, context):
        return {
            n: v * 2 if n in self.before and not self.before[n].public else v
            for n, v in values.items()
        }


class TestHalve(StageContract):
    error = 0.0

    def make(self):
        return Halve()


@define(eq=False)
class Halving(Compressor):
    """Halves and doubles."""

    name = "halving"

    def stages(self):
        return (Halve(),)


class TestHalving(CompressorContract):
    def make(self):
        return Halving()


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
