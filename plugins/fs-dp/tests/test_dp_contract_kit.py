"""The contract suites on what of this plugin lies on the path."""

from fs_dp.aggregator import BoundedWeight, FixedMean
from fs_dp.central import AdaptiveClipping, Gaussian
from fs_dp.clipping import JointClip
from fs_dp.local_dp import LocalDP, NbAFL

from fscore.testing import AggregatorContract, PathContract, PrivacyContract, StageContract

PLUGIN = "[plugins.dp]\nreproducible = true\n"
FIXED = PLUGIN + '[aggregator]\nuse = "fixed_mean"\n'


class Central(PathContract, PrivacyContract):
    """The noise of its suite is in test_dp_contracts.py, on a cohort that started from an announced version."""

    toml = FIXED
    test_noise_meets_every_group_in_its_shape = None


class TestGaussian(Central):
    def make(self):
        return Gaussian(noise_multiplier=1.0)


class TestAdaptiveClipping(Central):
    def make(self):
        return AdaptiveClipping(noise_multiplier=1.0)


class TestLocalDP(PathContract, PrivacyContract):
    toml = PLUGIN

    def make(self):
        return LocalDP(noise_multiplier=1.0)


class TestNbAFL(PathContract, PrivacyContract):
    toml = FIXED

    def make(self):
        return NbAFL(nominal_epsilon=1.0, least_samples=1)


class TestJointClip(StageContract):
    def make(self):
        return JointClip("privacy.0", 0.1)


class TestWideJointClip(StageContract):
    error = 0.0

    def make(self):
        return JointClip("privacy.0", 1e6)


class TestBoundedWeight(StageContract):
    toml = 'aggregator = { weighting = "uniform" }'

    def make(self):
        return BoundedWeight(10.0)


class TestFixedMeanOfSamples(PathContract, AggregatorContract):
    toml = PLUGIN

    def make(self):
        made = FixedMean(clients=6.0, weighting="samples", max_weight=12.0)
        made.expected = 6.0
        return made
