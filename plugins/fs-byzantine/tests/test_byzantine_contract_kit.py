"""The contract suite on the stages by which attackers of this plugin replace what they send."""

from fs_byzantine import simple
from fs_byzantine.free_rider import FreeRider

from fscore.testing import AttackContract, PathContract


class TestSignFlip(PathContract, AttackContract):
    def make(self):
        return simple.SignFlip(clients=2)


class TestNonFinite(PathContract, AttackContract):
    toml = "protocol = { min_results = 1 }"

    def make(self):
        return simple.NonFinite(clients=1)


class TestFreeRider(PathContract, AttackContract):
    def make(self):
        return FreeRider(clients=2)
