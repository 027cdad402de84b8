"""The built-in devices, faults, executors and stores pass the contract suites; together the suites see every built-in."""

import json

import pytest
import test_contracts
import test_contracts_server

from fscore import testing
from fscore.builtin import devices, faults
from fscore.builtin.executors.auto import AutoExecutor
from fscore.builtin.executors.cohort import CohortExecutor
from fscore.builtin.executors.process import ProcessExecutor
from fscore.builtin.executors.serial import SerialExecutor
from fscore.builtin.executors.thread import ThreadExecutor
from fscore.builtin.stores import DiskStore, MemoryStore, NoStore
from fscore.kinds import KINDS
from fscore.plugins import PluginHost
from fscore.testing import (
    AvailabilityContract,
    DevicesContract,
    ExecutorContract,
    FaultContract,
    StoreContract,
)
from fscore.testing.contracts import Described

# ------------------------------------------------------------------------ devices


class TestConstant(DevicesContract):
    def make(self):
        return devices.Constant(compute=5.0, bandwidth=100.0, latency=0.1)


class TestLogNormal(DevicesContract):
    def make(self):
        return devices.LogNormal(sigma=1.0, jitter=0.5, bandwidth=100.0)


class TestPhones(DevicesContract):
    def make(self):
        return devices.Phones()


class TestExponential(DevicesContract):
    def make(self):
        return devices.Exponential()


class TestHalfNormal(DevicesContract):
    def make(self):
        return devices.HalfNormal()


class TestInSessions(DevicesContract):
    def make(self):
        return devices.Constant(availability=devices.Sessions(), if_offline="pause")


@pytest.fixture
def traces(tmp_path, monkeypatch):
    """Files of device speeds and of sessions."""
    speeds = {str(i): {"computation": 20 + i, "communication": 5000} for i in range(1, 5)}
    (tmp_path / "speeds.json").write_text(json.dumps(speeds))
    ready = {str(i): [[10 * i, 10 * i + 500], [700, 900]] for i in range(8)}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("traces")
class TestTrace(DevicesContract):
    def make(self):
        return devices.Trace(path="speeds.json", assign="random")


class TestSessions(AvailabilityContract):
    def make(self):
        return devices.Sessions()


@pytest.mark.usefixtures("traces")
class TestAvailabilityTrace(AvailabilityContract):
    def make(self):
        return devices.AvailabilityTrace(path="ready.json", period=1000.0)


# ------------------------------------------------------------------------ faults


class TestDrop(FaultContract):
    toml = "protocol = { timeout = 5.0, min_results = 1 }"

    def make(self):
        return faults.Drop(rate=0.2)


class TestCrash(FaultContract):
    toml = "protocol = { min_results = 1 }"

    def make(self):
        return faults.Crash(clients=[0], at=[0.01], downtime=1.0)


class TestDelay(FaultContract):
    def make(self):
        return faults.Delay(rate=0.5, seconds=2.0)


class TestDuplicate(FaultContract):
    def make(self):
        return faults.Duplicate(rate=0.5)


class TestSlowLink(FaultContract):
    toml = "devices = { bandwidth = 100.0 }"

    def make(self):
        return faults.SlowLink(factor=3.0)


class TestCorrupt(FaultContract):
    toml = "protocol = { min_results = 1 }"

    def make(self):
        return faults.Corrupt(rate=0.2, how="nan")


class TestKill(FaultContract):
    """It kills at an event that never comes; that it kills is tested with real processes elsewhere."""

    def make(self):
        return faults.Kill(events=[10**9])


# ------------------------------------------------------------------------ executors and stores


class TestSerial(ExecutorContract):
    def make(self):
        return SerialExecutor()


class TestProcess(ExecutorContract):
    def make(self):
        return ProcessExecutor(workers=2)


class TestThread(ExecutorContract):
    def make(self):
        return ThreadExecutor(workers=2)


class TestAuto(ExecutorContract):
    exact = False

    def make(self):
        return AutoExecutor()


class TestCohort(ExecutorContract):
    exact = False

    def make(self):
        return CohortExecutor(fallback=True)


class TestMemoryStore(StoreContract):
    def make(self):
        return MemoryStore()


class TestDiskStore(StoreContract):
    def make(self):
        return DiskStore()


class TestNoStore(StoreContract):
    def make(self):
        return NoStore()


# ------------------------------------------------------------------------ all of them

ELSEWHERE = {
    # tests/builtin/test_contracts_heterogeneity.py
    "Responsiveness", "Group", "Tiers", "Oort", "PowerOfChoice", "GoalOrDeadline", "PerTier",
    # tests/test_timeline.py: it reports into a run directory
    "Timeline",
}  # fmt: skip


def test_every_built_in_component_passes_a_suite():
    suites = [
        suite
        for module in (globals(), vars(test_contracts), vars(test_contracts_server))
        for name, suite in module.items()
        if name.startswith("Test") and issubclass(suite, Described)
    ]
    made = {type(suite().make()).__name__ for suite in suites} | ELSEWHERE

    built_in = {cls.__name__ for cls, _ in PluginHost.load({}).registry.classes.values()}
    assert built_in - made == set()


def test_every_kind_has_a_suite():
    suites = {name.removesuffix("Contract") for name in testing.__all__}
    kinds = {kind.base.__name__.removesuffix("Mechanism") for kind in KINDS}
    assert kinds - suites == set()
