"""The contract suites on what of this plugin lies on the path, and on its models."""

from fs_inversion.defences import AddNoise, GradientPruning, Prune, Soteria, UpdateNoise
from fs_inversion.models import Imprinted, LeNet
from fs_inversion.readers import Imprint

from fscore.builtin.models.specs import Softmax
from fscore.testing import (
    AttackContract,
    CompressorContract,
    ModelContract,
    PathContract,
    PrivacyContract,
    StageContract,
)

IMAGES = '[data]\nuse = "digits"\nimage = true\n'


class TestGradientPruning(CompressorContract):
    def make(self):
        return GradientPruning(share=0.5)


class TestPruneStage(StageContract):
    def make(self):
        return Prune(0.5)


class TestPruningNothing(StageContract):
    error = 0.0

    def make(self):
        return Prune(0.0)


class TestNoiseStage(StageContract):
    def make(self):
        return AddNoise(0.1)


class TestUpdateNoise(PathContract, PrivacyContract):
    def make(self):
        return UpdateNoise(stddev=0.1)


class TestSoteria(PathContract, PrivacyContract):
    def make(self):
        return Soteria()


class TestImprint(PathContract, AttackContract):
    toml = (
        IMAGES
        + '[model]\nuse = "imprinted"\nbase = { use = "softmax" }\nbins = 8\n[plugins.inversion]\n'
    )

    def make(self):
        return Imprint(versions=[1], max_images=150)


class TestLeNet(ModelContract):
    toml = IMAGES

    def make(self):
        return LeNet()


class TestImprinted(ModelContract):
    toml = IMAGES

    def make(self):
        return Imprinted(base=Softmax(), bins=8)
