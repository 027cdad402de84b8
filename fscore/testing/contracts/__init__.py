"""Contract suites: an author subclasses one, returns a component from `make`, and gets its tests.

class TestMine(AggregatorContract):
    def make(self):
        return Mine()

There is one suite for each kind of component, and one for stages.
"""

from fscore.testing.contracts.aggregators import AggregatorContract
from fscore.testing.contracts.base import ComponentContract, Described, cohort
from fscore.testing.contracts.clients import (
    DatasetContract,
    MetricContract,
    ModelContract,
    ObjectiveContract,
    PartitionContract,
    TrainerContract,
)
from fscore.testing.contracts.machines import (
    AvailabilityContract,
    DevicesContract,
    ExecutorContract,
    FaultContract,
)
from fscore.testing.contracts.server import (
    EvaluatorContract,
    PolicyContract,
    ProtocolContract,
    ReporterContract,
    SamplerContract,
    ServerOptimizerContract,
    TriggerContract,
    TunerContract,
)
from fscore.testing.contracts.stages import (
    AttackContract,
    CompressorContract,
    PathContract,
    PrivacyContract,
    StageContract,
)
from fscore.testing.contracts.stores import StoreContract

__all__ = [
    "AggregatorContract",
    "AttackContract",
    "AvailabilityContract",
    "ComponentContract",
    "CompressorContract",
    "DatasetContract",
    "Described",
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
    "SamplerContract",
    "ServerOptimizerContract",
    "StageContract",
    "StoreContract",
    "TrainerContract",
    "TriggerContract",
    "TunerContract",
    "cohort",
]
