r"""What plugin authors use to test: `fs_course` runs a tiny course, contract suites check a component.

from fscore.testing import AggregatorContract, fs_course

class TestMine(AggregatorContract):
    def make(self):
        return Mine()

def test_it_runs():
    run = fs_course('[aggregator]\nuse = "mine"', plugins=[MyPlugin])
    assert run.result.status == "complete"
"""

from fscore.testing.contracts import (
    AggregatorContract,
    AttackContract,
    AvailabilityContract,
    ComponentContract,
    CompressorContract,
    DatasetContract,
    DevicesContract,
    EvaluatorContract,
    ExecutorContract,
    FaultContract,
    MetricContract,
    ModelContract,
    ObjectiveContract,
    PartitionContract,
    PathContract,
    PolicyContract,
    PrivacyContract,
    ProtocolContract,
    ReporterContract,
    SamplerContract,
    ServerOptimizerContract,
    StageContract,
    StoreContract,
    TrainerContract,
    TriggerContract,
    TunerContract,
    cohort,
)
from fscore.testing.course import Run, fs_course, tiny_course

__all__ = [
    "AggregatorContract",
    "AttackContract",
    "AvailabilityContract",
    "ComponentContract",
    "CompressorContract",
    "DatasetContract",
    "DevicesContract",
    "EvaluatorContract",
    "ExecutorContract",
    "FaultContract",
    "MetricContract",
    "ModelContract",
    "ObjectiveContract",
    "PartitionContract",
    "PathContract",
    "PolicyContract",
    "PrivacyContract",
    "ProtocolContract",
    "ReporterContract",
    "Run",
    "SamplerContract",
    "ServerOptimizerContract",
    "StageContract",
    "StoreContract",
    "TrainerContract",
    "TriggerContract",
    "TunerContract",
    "cohort",
    "fs_course",
    "tiny_course",
]
