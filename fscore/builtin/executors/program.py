"""Recorded programs: what `vmap` and autograd make of a function once, run again without their dispatch.

The gradient of a lifted function costs about a millisecond of Python and dispatch a call, whatever the number of clients.
Below `vmap` and autograd it is a straight list of tensor operations. That list is recorded for three numbers of clients; whole numbers that
differ between them are functions a K + b of that number, so that one recording serves any number of clients. Recordings
that differ in anything else (a Python counter, numpy or `random` inside a model) are refused as `Impure`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from attrs import define, evolve, field
from torch.utils._python_dispatch import TorchDispatchMode

from fscore.builtin.executors.products import Product
from fscore.builtin.executors.rewriting import (
    Affine,
    Call,
    Ref,
    aten,
    on_short_axes,
    plain,
    shortened,
    with_products,
)

SIZES = (3, 5, 8)
"""Numbers of clients that a function is recorded with."""
_BY_SHAPE = {aten.ones_like.default, aten.zeros_like.default, aten.new_zeros.default,
             aten.new_ones.default, aten.new_full.default, aten.full_like.default}  # fmt: skip
_DIRECT = {
    aten.add.Tensor: torch.add, aten.bmm.default: torch.bmm, aten.gather.default: torch.gather,
    aten.mean.dim: torch.mean, aten.mul.Tensor: torch.mul, aten.neg.default: torch.neg,
    aten.relu.default: torch.relu, aten.scatter_add.default: torch.scatter_add,
    aten.squeeze.dims: torch.squeeze, aten.sub.Tensor: torch.sub, aten.sum.dim_IntList: torch.sum,
    aten.tanh.default: torch.tanh, aten.transpose.int: torch.transpose,
    aten.unsqueeze.default: torch.unsqueeze, aten.view.default: torch.Tensor.view,
}  # fmt: skip
"""Functions that compute the same of the same arguments, in a microsecond less a call."""
KEPT = 1 << 20
"""Bytes up to which a tensor is kept that depends on shapes alone."""


class Impure(Exception):  # noqa: N818
    """The function does not do the same thing each time it is called."""


class Unrepeatable(Exception):  # noqa: N818
    """The function does what a recording does not hold: it changes a tensor in place."""


# ---------------------------------------------------------------------------- recording


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the operations of a block. Tensors that are neither inputs nor results are constants."""

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Call] = []
        self.constants: list[tuple[int, torch.Tensor]] = []
        self._kept: list[Any] = []
        self._places: dict[Any, int] = {}
        for tensor in inputs:
            self._place(tensor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler, a second of start-up."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise Impure(f"it draws random numbers ({func})")
        if func._schema.is_mutable:  # noqa: SLF001
            if any(_identity(v) not in self._places for v in _written(func, args)):
                raise Impure(f"it changes a tensor that stays from call to call ({func})")
            raise Unrepeatable(f"it changes a tensor in place ({func})")
        known = self._known(args), tuple((k, self._known(v)) for k, v in (kwargs or {}).items())
        result = func(*args, **(kwargs or {}))
        func = on_short_axes(func, args, result)
        self.calls.append(Call(func, *known, self._place(result), _alike(args, result)))
        if isinstance(result, list | tuple):
            out = Ref(self.calls[-1].out)
            for i, tensor in enumerate(result):
                self.calls.append(Call(operator.getitem, (out, i), (), self._place(tensor)))
        return result

    def _place(self, value: Any) -> int:
        self._kept.append(value)
        self._places[_identity(value)] = len(self._kept) - 1
        return len(self._kept) - 1

    def _known(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if _identity(value) not in self._places:
                self.constants.append((self._place(value), value))
            return Ref(self._places[_identity(value)])
        if isinstance(value, list | tuple):
            return tuple(self._known(entry) for entry in value)
        return value

    def shapes(self) -> dict[int, tuple[int, ...]]:
        """Return the shapes of tensors by register."""
        tensors = ((i, v) for i, v in enumerate(self._kept) if isinstance(v, torch.Tensor))
        return {i: tuple(v.shape) for i, v in tensors}

    def refs(self, values: Sequence[torch.Tensor]) -> tuple[Ref, ...]:
        """Return the registers of tensors."""
        return tuple(self._known(value) for value in values)


def _written(func: Any, args: Sequence[Any]) -> list[torch.Tensor]:
    """Return the tensors that an operation changes in place."""
    pairs = zip(func._schema.arguments, args, strict=False)  # noqa: SLF001
    written = [v for a, v in pairs if a.alias_info is not None and a.alias_info.is_write]
    return [v for v in written if isinstance(v, torch.Tensor) and v.numel()]


def _alike(args: Sequence[Any], result: Any) -> bool:
    if not args or not isinstance(args[0], torch.Tensor) or not isinstance(result, torch.Tensor):
        return False
    return args[0].shape == result.shape and args[0].dtype == result.dtype


def _identity(value: Any) -> Any:
    """Return where a tensor lies and how: autograd hands out what it saved as new tensors over the same memory."""
    if isinstance(value, torch.Tensor) and value.numel():
        return value.data_ptr(), value.shape, value.stride(), value.dtype
    return id(value)


def record(
    function: Callable[..., Sequence[torch.Tensor]],
    inputs: Sequence[torch.Tensor],
    batched: Sequence[bool],
    written: Sequence[int] = (),
) -> Program:
    """Record a function of tensors; the first axis of those that are `batched` is the clients'.

    Args:
        function: returns tensors; it is called once for each of `SIZES`.
        inputs: examples of what it will be called with.
        written: places of inputs that are written while results are still in use; the first results are gradients by
            these, and may be `Product`s.

    Raises:
        Impure: the recordings differ.
        Unrepeatable: it changes a tensor in place.
    """
    recorders, results = [], []
    for size in SIZES:
        examples = [
            _of_size(tensor, size) if wide else tensor
            for tensor, wide in zip(inputs, batched, strict=True)
        ]
        with Recorder(examples) as recorder:
            made = function(*examples)
        recorders.append(recorder)
        results.append(recorder.refs(made))
    if len({len(r.calls) for r in recorders}) > 1 or len(set(results)) > 1:
        raise Impure("it does not do the same thing twice")
    calls = [_joined(same) for same in zip(*(r.calls for r in recorders), strict=True)]
    constants = dict(_constants([r.constants for r in recorders]))
    return Program(len(inputs), calls, constants, results[0], recorders[0].shapes(), tuple(written))


def _of_size(tensor: torch.Tensor, size: int) -> torch.Tensor:
    return tensor[:1].expand(size, *tensor.shape[1:]).contiguous()


def _joined(calls: Sequence[Call]) -> Call:
    """Return one call of one per number of clients."""
    first = calls[0]
    if any((c.function, c.out) != (first.function, first.out) for c in calls):
        raise Impure("it does not do the same thing twice")
    return evolve(
        first,
        args=_common([c.args for c in calls]),
        kwargs=_common([c.kwargs for c in calls]),
        same=all(c.same for c in calls),
    )


def _common(values: Sequence[Any]) -> Any:
    """Return what values have in common, with `Affine` in the place of numbers that follow the clients."""
    first = values[0]
    if all(type(v) is type(first) and v == first for v in values):
        return first
    if all(isinstance(v, tuple) and len(v) == len(first) for v in values):
        return tuple(_common(entries) for entries in zip(*values, strict=True))
    if all(type(v) is int for v in values):
        a, rest = divmod(values[1] - first, SIZES[1] - SIZES[0])
        line = Affine(a, first - a * SIZES[0])
        if not rest and all(line.a * k + line.b == v for k, v in zip(SIZES, values, strict=True)):
            return line
    raise Impure(f"it does not do the same thing twice: {first} and then {values[1]}")


def _constants(
    recorded: Sequence[list[tuple[int, torch.Tensor]]],
) -> Iterator[tuple[int, torch.Tensor]]:
    for same in zip(*recorded, strict=True):
        place, first = same[0]
        for other, tensor in same:
            alike = tensor is first or (
                tensor.shape == first.shape
                and tensor.dtype == first.dtype
                and torch.equal(tensor, first)
            )
            if other != place or not alike:
                raise Impure("it uses a tensor that changes from call to call")
        yield place, first


# ---------------------------------------------------------------------------- running


@define(eq=False)
class Program:
    """A recorded function."""

    inputs: int
    calls: list[Call]
    constants: dict[int, torch.Tensor]
    results: tuple[Any, ...]
    """Registers; of a `Product`, those of its factors."""
    shapes: dict[int, tuple[int, ...]]
    written: tuple[int, ...] = ()
    _runs: dict[int, Run] = field(factory=dict, init=False)
    _rooms: dict[int, torch.Tensor] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.calls, self.results, more = shortened(self.calls, self.results, self.shapes)
        self.constants |= more
        if self.written:
            self.calls, self.results = with_products(
                self.calls, self.results, frozenset(self.written)
            )

    def room(self, place: int, like: torch.Tensor) -> torch.Tensor:
        """Return memory for a result, which all numbers of clients share."""
        held = self._rooms.get(place)
        if held is None or held.numel() < like.numel():
            held = self._rooms[place] = like.new_empty(like.numel())
        return held[: like.numel()].view(like.shape)

    def of(self, clients: int) -> Run:
        """Return the program for a number of clients."""
        if clients not in self._runs:
            self._runs[clients] = Run(self, clients)
        return self._runs[clients]


class Run:
    """A program made ready for one number of clients: functions over registers, without any lookup.

    What depends on shapes alone is computed by the first call and kept, if it is small. Joined results (gradients) lie in
    memory that the next call writes again, whatever its number of clients.
    """

    def __init__(self, program: Program, clients: int) -> None:
        self._room = program.room
        self._registers: list[Any] = [None] * program.inputs
        self._index = {i: i for i in range(program.inputs)}
        for place, tensor in program.constants.items():
            self._index[place] = self._new(tensor)
        self._steps: list[tuple[Any, list[int], int]] = []
        self._fixed = {i for i, value in enumerate(self._registers) if value is not None}
        self._lasting: list[int] = []
        self._settled = False
        for call in program.calls:
            self._add(call, clients)
        self._results = [
            self._pair(result)
            if isinstance(result, tuple)
            else self._own(self._index[result.place])
            for result in program.results
        ]
        self._frees = self._last_uses()
        self._inputs = program.inputs

    def __call__(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run the program on tensors."""
        registers = self._registers.copy()
        registers[: self._inputs] = inputs
        for (function, operands, out), free in zip(self._steps, self._frees, strict=True):
            registers[out] = function(*[registers[i] for i in operands])
            for i in free:
                registers[i] = None
        if not self._settled:
            self._settled = True
            self._keep(registers)
        return [registers[i] for i in self._results]

    def _keep(self, registers: list[Any]) -> None:
        """Keep what the next calls would compute again to the same values."""
        small = {i for i in self._lasting if _kept_bytes(registers[i]) <= KEPT}
        for i in small:
            self._registers[i] = registers[i]
        self._lasting = []
        self._reuse(registers)
        needed, steps = set(self._results), []
        for step in reversed(self._steps):
            if step[2] in needed and step[2] not in small:
                steps.append(step)
                needed |= set(step[1])
        self._steps = steps[::-1]
        self._fixed |= small
        self._frees = self._last_uses()

    def _reuse(self, registers: list[Any]) -> None:
        """Let joined results be written where the first ones lie: they are used before the next call."""
        for i, (function, operands, out) in enumerate(self._steps):
            if function is aten.cat.default and out in self._results:
                buffer = self._room(out, registers[out])
                self._steps[i] = partial(aten.cat.out, out=buffer), operands, out

    def _pair(self, factors: tuple[Ref, Ref]) -> int:
        """Add a product that is left to whoever asks for it."""
        self._steps.append(
            (Product, [self._index[ref.place] for ref in factors], out := self._new())
        )
        return out

    def _own(self, result: int) -> int:
        """Return where a result lies that is not kept: a trainer may change a gradient in place."""
        if result not in self._fixed:
            return result
        self._steps.append((torch.clone, [result], out := self._new()))
        return out

    def _new(self, value: Any = None) -> int:
        self._registers.append(value)
        return len(self._registers) - 1

    def _add(self, call: Call, clients: int) -> None:
        function = _DIRECT.get(call.function, call.function)
        kwargs = {n: plain(v, clients) for n, v in call.kwargs}
        if kwargs:
            function = partial(function, **kwargs)
        operands = [self._operand(arg, clients) for arg in call.args]
        self._index[call.out] = out = self._new()
        self._steps.append((function, operands, out))
        tensors = [i for i in operands if i not in self._fixed]
        if call.function in _BY_SHAPE or not tensors:
            self._fixed.add(out)
            self._lasting.append(out)

    def _operand(self, arg: Any, clients: int) -> int:
        if isinstance(arg, Ref):
            return self._index[arg.place]
        if isinstance(arg, tuple) and any(isinstance(v, Ref) for v in arg):
            packed = [self._operand(v, clients) for v in arg]
            out = self._new()
            self._steps.append((_pack, packed, out))
            return out
        self._fixed.add(place := self._new(plain(arg, clients)))
        return place

    def _last_uses(self) -> list[list[int]]:
        held = (i for i, value in enumerate(self._registers) if value is not None)
        seen = {*held, *self._results, *self._lasting}
        frees: list[list[int]] = []
        for _, operands, out in reversed(self._steps):
            frees.append([i for i in dict.fromkeys(operands) if i not in seen])
            seen |= {*operands, out}
        return frees[::-1]


def _kept_bytes(value: Any) -> float:
    """Return the bytes of memory behind a tensor; what is no tensor is not kept."""
    return value.untyped_storage().nbytes() if isinstance(value, torch.Tensor) else float("inf")


def _pack(*values: Any) -> list[Any]:
    return list(values)
