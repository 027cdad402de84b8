"""The contract suites on the evaluator of this plugin, and on the stage that one of its trainers has."""

from fs_personalization.drift import FedNova
from fs_personalization.selection import BestOnValidation

from fscore.testing import EvaluatorContract, PathContract, TrainerContract


class TestBestOnValidation(EvaluatorContract):
    toml = "data = { val = 0.3 }\n"

    def make(self):
        return BestOnValidation()


class TestFedNova(PathContract, TrainerContract):
    def make(self):
        return FedNova(momentum=0.5)
