"""What executors refuse, and what they take although it looks odd: workers, memory, devices, layers."""

import pytest
import torch

from fscore.builtin.given import GivenModel
from fscore.errors import ConfigError
from fscore.rng import Streams
from fscore.testing import fs_course, tiny_course


def refused(**options):
    with pytest.raises(ConfigError) as caught:
        tiny_course(changes={f"executor.{k}": v for k, v in options.items()})
    return str(caught.value)


# ---------------------------------------------------------------------------- memory


@pytest.mark.parametrize("chunk", [{}, {"chunk": 1}])
def test_memory_for_less_than_one_client_is_refused_with_what_one_needs(chunk):
    text = refused(use="cohort", memory=0.0001, **chunk)
    assert text.startswith("executor.memory: one client needs about 0.00")
    assert text.endswith("Remedy: memory = 1 or more, or executor.use = 'serial'.")
    fs_course(changes={"executor.use": "cohort", "executor.memory": 1})


def test_auto_computes_one_at_a_time_what_many_have_no_memory_for():
    made = tiny_course(changes={"executor.use": "auto", "executor.memory": 0.0001}).executor
    assert made.name == "serial"
    assert "one client needs about 0.00" in made.reason
    assert "MB, more than half of executor.memory;" in made.reason


# ---------------------------------------------------------------------------- devices


@pytest.mark.parametrize("device", ["cpu:0", "cpu:3", "meta", "cuda:x", ""])
def test_a_device_that_is_neither_the_processor_nor_a_gpu_is_refused(device):
    text = f"executor.device: expected 'cpu', 'cuda' or 'cuda:N', got '{device}'"
    assert refused(use="cohort", device=device) == text
    assert refused(use="auto", device=device) == text


def test_a_gpu_beyond_those_that_are_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    text = "executor.device: there are 2 CUDA devices, 'cuda:0' to 'cuda:1', got 'cuda:2'"
    assert refused(use="cohort", device="cuda:2") == text


def test_streams_for_torch_leave_gpus_alone(monkeypatch):
    """Looking at a GPU's generator would begin CUDA, and a worker that was forked then could do nothing."""

    def touched(*args):
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", touched)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with Streams(1).torch("layers", 3, 4):
            drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------- workers and layers


def test_a_million_threads_take_as_many_copies_of_the_model_as_there_are_batches():
    run = fs_course(
        changes={
            "executor.use": "thread",
            "executor.workers": 1_000_000,
            "executor.chunk": 2,
        }
    )
    assert run.result.digest == fs_course(changes={"executor.chunk": 2}).result.digest
    assert run.course.executor.lanes.qsize() == 3  # six clients are evaluated


def test_auto_takes_processes_for_a_large_model_with_dropout(monkeypatch):
    """Threads would be refused: layers draw from one generator for all of them."""
    monkeypatch.setattr("fscore.builtin.executors.auto.usable_cores", lambda: 2)
    monkeypatch.setattr("fscore.builtin.executors.auto.PARALLEL", 1.0)
    monkeypatch.setattr("fscore.builtin.executors.auto.LARGE", 1)
    layers = [torch.nn.Linear(4, 3)]
    made = {}
    for name, more in (("plain", []), ("dropout", [torch.nn.Dropout()])):
        monkeypatch.setattr("fscore.builtin.executors.auto.OPERATIONS", 0.0)
        model = GivenModel.of(torch.nn.Sequential(*layers, *more))
        made[name] = tiny_course(
            changes={"executor.use": "auto"}, given={"model": model}
        ).executor.name
    assert made == {"plain": "thread", "dropout": "process"}
