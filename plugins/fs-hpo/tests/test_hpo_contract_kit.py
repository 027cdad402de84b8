"""The contract suite for policies on FedEx, with its stage on the path."""

from fs_hpo.fedex import FedEx

from fscore.testing import PathContract, PolicyContract

VALIDATED = "data = { val = 0.3 }\n"


class TestFlatArms(PathContract, PolicyContract):
    toml = VALIDATED

    def make(self):
        return FedEx(arms=[{"trainer.lr": 0.1}, {"trainer.lr": 0.2}])


class TestGrid(PathContract, PolicyContract):
    toml = VALIDATED

    def make(self):
        return FedEx(grid={"trainer.lr": [0.1, 0.2], "trainer.epochs": [1.0, 2.0]}, diff=True)


class TestAround(PathContract, PolicyContract):
    toml = VALIDATED

    def make(self):
        return FedEx(around={"trainer.lr": {"low": 0.01, "high": 1.0}}, count=3)
