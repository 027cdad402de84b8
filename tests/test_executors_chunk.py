"""How many clients form a batch where they are computed one at a time, and what `auto` says of cores."""

import os

import pytest

from fscore.testing import tiny_course

LARGE = 'model = { use = "mlp", hidden = [1000, 1000] }\n'
"""A model of which 8 clients count more than 1e9 operations a version."""


def course(clients, use="auto", toml=LARGE):
    changes = {"sampler.clients": clients, "data.clients": clients + 2, "executor.use": use}
    return tiny_course(f"{toml}[trainer]\nuse = 'sgd'\nepochs = 10", changes=changes)


@pytest.mark.parametrize(
    ("clients", "chunk"), [(2, 1), (3, 1), (8, 2), (10, 2), (20, 5), (50, 8), (100, 8)]
)
def test_a_version_that_is_worth_several_cores_is_cut_into_four_batches(clients, chunk):
    assert course(clients).executor.chunk == chunk


def test_a_version_that_is_not_is_cut_into_batches_of_eight():
    assert course(20, "serial", "").executor.chunk == 8


@pytest.mark.parametrize("use", ["thread", "process", "auto"])
def test_the_chunk_is_that_of_serial(use):
    assert course(12, use).executor.chunk == course(12, "serial").executor.chunk


def test_auto_says_where_one_core_keeps_a_version_from_being_shared(monkeypatch):
    cores = {0, 1}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    shared = course(8).executor
    cores.remove(1)
    alone = course(8).executor
    assert (shared.name, shared.workers, shared.chunk) == ("thread", 2, 2)
    assert (alone.name, alone.chunk) == ("serial", 2)
    assert shared.reason.startswith("thread x 2, 2 clients a batch: a step counts ")
    assert alone.reason.removeprefix("serial") == (
        shared.reason.removeprefix("thread x 2") + " if there were several cores"
    )


def test_a_batch_of_one_client_is_told_as_one(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert course(3).executor.reason.startswith("serial, 1 client a batch: ")
