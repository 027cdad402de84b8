"""Attackers are judged, and fine-tuned for it, with their own samples."""

import pytest

from fscore.testing import fs_course

COURSE = """
[plugins.byzantine]
[[attack]]
use = "label_flip"
clients = 0.4
[trainer]
use = "sgd"
lr = 1.0
finetune = 5.0
[evaluation]
every = 1
"""


def accuracy(executor):
    run = fs_course(COURSE, changes={"executor.use": executor, "data.test": 0.3})
    metrics = run.result.metrics
    return metrics["test_accuracy"], metrics["test_accuracy_worst"]


@pytest.mark.parametrize("executor", ["cohort", "auto"])
def test_fine_tuning_before_an_evaluation_is_not_poisoned(executor):
    assert accuracy(executor) == pytest.approx(accuracy("serial"))
