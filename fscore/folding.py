"""Adding updates up, the same way wherever it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from attrs import evolve

from fscore.builtin.executors.summing import Together
from fscore.params import Layout, Tensors, zeros
from fscore.tasks import BatchOutput, Output, Slice

if TYPE_CHECKING:
    import torch


NO_ROW = "'{}' names no row of {}"
"""Why an update fails whose `at` lies outside the slot."""


def weight_of(output: Output) -> float:
    """Return the client's weight in the mean: what it stated, or 1."""
    return float(output.values.get("weight", 1.0))


def joined(outputs: Sequence[Output], name: str) -> torch.Tensor | None:
    """Return a public group of all outputs (outputs, ...); None: they have no such group."""
    import torch

    if not outputs or name not in outputs[0].values:
        return None
    values: list[Any] = [output.values for output in outputs]
    runs = [list(run) for _, run in groupby(values, key=lambda v: id(getattr(v, "shared", v)))]
    pieces = [
        run[0].shared[name][[one.place for one in run]]
        if isinstance(run[0], Slice)
        else torch.stack([one[name] for one in run])
        for run in runs
    ]
    return torch.cat(pieces)


def fold_into(sums: Tensors, output: Output, factor: float, layout: Layout) -> Output:
    """Add one update to `sums` in place and return what stays of it: its public groups and its row.

    Groups that are reduced by their mean are multiplied by factor times weight, others by 1.
    """
    if output.error:
        return output
    for group in (g for g in layout.values() if g.at):
        if not 0 <= int(output.values[group.at]) < group.rows:
            return Output(output.task, error=NO_ROW.format(group.at, group.rows))
    weighted = factor * weight_of(output)
    for name, total in sums.items():
        group = layout[name]
        if group.at:
            total = total[int(output.values[group.at])]
        total.add_(output.values[name], alpha=weighted if group.reduce == "mean" else 1)
    public = {name: v for name, v in output.values.items() if name not in sums}
    return Output(output.task, public, output.row)


def empty_sums(layout: Layout) -> Tensors:
    """Return zeros for the sum of no update."""
    return zeros({n: evolve(g, shape=g.summed) for n, g in layout.items() if not g.public})


def fold(outputs: Iterable[Output], factors: Sequence[float], layout: Layout) -> BatchOutput:
    """Sum the updates of one batch, in order."""
    sums = empty_sums(layout)
    with Together(sums) as later:
        left = [fold_into(later, o, f, layout) for o, f in zip(outputs, factors, strict=True)]
    return BatchOutput(tuple(left), sums)


def finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether all values of floating point tensors are finite: their sum is, or each by itself."""
    found = (v.sum().isfinite() or v.isfinite().all() for v in tensors if v.is_floating_point())
    return all(map(bool, found))


def checked(output: Output) -> Output:
    """Return the output, as a failure if its update is not finite."""
    good = output.error or finite(output.values.values())
    return output if good else Output(output.task, error="the update is not finite")
