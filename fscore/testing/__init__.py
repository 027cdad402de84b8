r"""What plugin authors use to test: `fs_course` runs a tiny course, contract suites check a component.

from fscore.testing import AggregatorContract, fs_course

class TestMine(AggregatorContract):
    def make(self):
        return Mine()

def test_it_runs():
    run = fs_course('[aggregator]\nuse = "mine"', plugins=[MyPlugin])
    assert run.result.status == "complete"
"""

from fscore.testing import contracts
from fscore.testing.contracts import *  # noqa: F403 - `contracts.__all__` is the one list of suites
from fscore.testing.course import Run, fs_course, tiny_course

__all__ = ["Run", "fs_course", "tiny_course"]
__all__ += contracts.__all__
