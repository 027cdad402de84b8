"""The contract suite for server optimizers on what this distribution offers."""

from fs_contrib.swa import SWA

from fscore.testing import ServerOptimizerContract


class TestSWA(ServerOptimizerContract):
    def make(self):
        return SWA(start=2)


class TestSWAFromTheBeginning(ServerOptimizerContract):
    def make(self):
        return SWA(start=1, every=2, momentum=0.9)
