"""Whether a course can be computed for many clients at once, found out before it runs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

import torch

from fscore.builtin.executors.base import brief, memory_ran_out
from fscore.builtin.executors.cohort_lane import CohortLane
from fscore.builtin.executors.lane import Lane
from fscore.builtin.executors.norms import unliftable
from fscore.builtin.executors.reads import Reads
from fscore.errors import ConfigError, CourseError, FscoreError
from fscore.folding import checked
from fscore.tasks import Batch, BatchOutput, Task

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.params import Tensors

CLIENTS, AMONG = 3, 100
"""Clients that are computed both ways before the course, chosen of so many."""
ABSOLUTE, RELATIVE = 1e-4, 1e-2
"""How far the two ways may differ: rounding that grows over a client's steps, and not another algorithm."""

ONE = (
    ", one value for all clients that are computed at once "
    "(torch.where and torch.clamp take each client's own)"
)
"""What is wrong with reading a value."""
READ = ("data-dependent control flow", "calling .item()")
"""What `vmap` says where a lifted piece reads a value."""


def obstacle(course: Course, device: str = "cpu") -> str:
    """Return why a course cannot be computed for many clients at once; empty: it can."""
    trainer = course.trainer
    if not trainer.lifts:
        return f"trainer '{trainer.name}' is written for one client at a time"
    if course.site.random_layers:
        return "the model draws random numbers in its layers (dropout)"
    if kept := unliftable(course.site.module):
        return kept
    if device == "cpu" and torch.cuda.is_available():
        return _in_a_fork(lambda: _difference(course, torch.device("cpu")))
    return _difference(course, torch.device(device))


def _in_a_fork(question: Callable[[], str]) -> str:
    """Ask in a process of its own: where a GPU is there, nothing can be forked after this one's autograd has begun."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=lambda: theirs.send(question()), daemon=True)
    child.start()
    theirs.close()
    try:
        answer: str = ours.recv()
    except EOFError:
        answer = "the process that computed some clients at once died"
    child.join()
    return answer


def _difference(course: Course, device: torch.device) -> str:
    """Compute a few clients both ways and return what is wrong, if anything is."""
    jobs = [course.opener.job(Task(-1 - i, c, 0)) for i, c in enumerate(_telling(course))]
    name, reads = course.trainer.name, Reads()
    try:
        outputs = Lane(course.site).batch(Batch(tuple(jobs), sum=False)).outputs
        whole = [(job, o) for job, o in zip(jobs, outputs, strict=True) if not checked(o).error]
        if not whole:
            return ""
        many = CohortLane(course.site, device, cache=1 << 24)
        with reads:
            done = many.attempt(Batch(tuple(job for job, _ in whole), sum=False))
    except CourseError as error:  # a model that no executor serves, which another says in full
        return str(error)
    except FscoreError:  # bad data: the course says so when it comes to them
        return ""
    except Exception as error:
        if memory_ran_out(error):
            raise ConfigError(
                f"executor.use: memory ran out while {len(whole)} clients were tried at once. "
                "Remedy: executor.use = 'serial', or more free memory."
            ) from error
        if reads.lifted and any(sign in str(error) for sign in READ):
            return reads.lifted + ONE
        return f"trainer '{name}' fails for many clients at once ({brief(error)})"
    if reads.flat:
        return reads.flat + ONE
    worst = _unlike(done, BatchOutput(tuple(output for _, output in whole)))
    if worst:
        return f"trainer '{name}' gives something else for many clients than for one ({worst})"
    return ""


def _telling(course: Course) -> list[int]:
    """Return the clients that are computed both ways: of several steps, and not all of them equally ragged.

    What a trainer wrongly keeps from step to step shows in the second, and what a model makes of padding where one
    client's last batch is shorter than another's.
    """
    unseen = course.population.unseen
    first = islice((c for c in range(course.population.size) if c not in unseen), AMONG)
    size = getattr(course.trainer, "batch_size", 0)
    samples = {client: course.dataset.samples(client) for client in first}
    last = {client: n % size if size else n for client, n in samples.items()}
    found = sorted(samples, key=lambda client: samples[client] <= size)
    ragged = [c for c in found if last[c] not in (0, last[found[0]])]
    return [*dict.fromkeys([*found[: CLIENTS - 1], *ragged[:1], *found])][:CLIENTS]


def _unlike(many: BatchOutput, serial: BatchOutput) -> str:
    for one, other in zip(many.outputs, serial.outputs, strict=True):
        for values, expected in ((one.values, other.values), (one.row, other.row)):
            worst = _far(values, expected)
            if worst:
                return worst
    return ""


def _far(values: Tensors, expected: Tensors) -> str:
    for name, value in expected.items():
        other = values.get(name)
        if other is None or other.shape != value.shape:
            return f"group '{name}'"
        scale = float(value.abs().max()) if value.numel() else 0.0
        difference = float((other.double() - value.double()).abs().max()) if value.numel() else 0.0
        if not difference <= ABSOLUTE + RELATIVE * scale:
            return f"group '{name}' differs by {difference:.2g}"
    return ""
