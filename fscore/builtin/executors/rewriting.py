"""Recorded operations, and how a list of them is made shorter without changing what it gives."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from attrs import define, evolve, field, frozen

aten = torch.ops.aten
Shapes = Mapping[int, tuple[int, ...]]
"""Shapes of tensors by register, for the first number of clients that was recorded."""
NARROW = 16
"""Length of an axis up to which torch's softmax over it computes one number at a time."""
_RESHAPES = {aten.view.default, aten.expand.default, aten._unsafe_view.default}  # noqa: SLF001
_TURN, _PRODUCT, _COPY = aten.transpose.int, aten.bmm.default, aten.clone.default


@frozen
class Ref:
    """A register that holds a tensor, or a list of tensors."""

    place: int


@frozen
class Affine:
    """A whole number a K + b of the number of clients K."""

    a: int
    b: int


@frozen
class Call:
    """One operation, with `Ref` and `Affine` inside its arguments, and the register of its result."""

    function: Any
    args: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    out: int
    same: bool = False
    """Whether the result has the shape and type of the first argument."""

    def at(self, clients: int) -> Any:
        """Compute it, where it depends on no register."""
        kwargs = {name: plain(value, clients) for name, value in self.kwargs}
        return self.function(*(plain(arg, clients) for arg in self.args), **kwargs)


def plain(value: Any, clients: int) -> Any:
    """Return an argument for a number of clients; tuples become lists."""
    if isinstance(value, Affine):
        return value.a * clients + value.b
    return [plain(v, clients) for v in value] if isinstance(value, tuple) else value


def leaves(value: Any) -> Iterator[Any]:
    """Yield what lies inside of nested tuples."""
    if isinstance(value, tuple):
        for entry in value:
            yield from leaves(entry)
    else:
        yield value


# ---------------------------------------------------------------------------- fewer calls


def shortened(
    calls: list[Call], results: tuple[Ref, ...], shapes: Shapes
) -> tuple[list[Call], tuple[Ref, ...], dict[int, torch.Tensor]]:
    """Return the calls that are needed, the results, and constants that were computed on the way."""
    shorter = Shorter(shapes)
    for call in calls:
        shorter.take(call)
    results = tuple(Ref(shorter.renamed.get(r.place, r.place)) for r in results)
    return used(turned(shorter.kept), results), results, shorter.constants


@define(eq=False)
class Shorter:
    """Joins equal operations (common subexpressions), drops those that change nothing, folds constants."""

    shapes: Shapes
    kept: list[Call] = field(factory=list)
    renamed: dict[int, int] = field(factory=dict)
    constants: dict[int, torch.Tensor] = field(factory=dict)
    _made: dict[Any, int] = field(factory=dict)
    _joined: dict[int, Call] = field(factory=dict)
    """Calls of `cat` by register."""
    _pieces: dict[int, tuple[Ref, ...]] = field(factory=dict)
    """What the lists in registers hold, where that is known."""

    def take(self, call: Call) -> None:
        """Take the next call."""
        call = _renamed(call, self.renamed)
        key = (call.function, repr((call.args, call.kwargs)))  # 1 == 1.0, which gives another type
        found = self._known(call)
        if found is not None:
            self.renamed[call.out] = found
        elif key in self._made:
            self.renamed[call.out] = self._made[key]
        elif not any(isinstance(v, Ref | Affine) for v in leaves((call.args, call.kwargs))):
            self._made[key] = call.out
            self.constants[call.out] = call.at(0)
        else:
            self._made[key] = call.out
            self.kept.append(call)

    def _known(self, call: Call) -> int | None:
        """Return the register that holds the result already."""
        if _does_nothing(call):
            place: int = call.args[0].place
            return place
        if call.function is aten.cat.default:
            self._joined[call.out] = call
        elif call.function is aten.split_with_sizes.default:
            self._split(call)
        elif call.function is operator.getitem and call.args[0].place in self._pieces:
            piece: int = self._pieces[call.args[0].place][call.args[1]].place
            return piece
        elif call.function is aten.slice.Tensor:
            return self._slice(call)
        return None

    def _split(self, call: Call) -> None:
        """Note that what is split was joined of just these pieces."""
        (source, sizes), dim = call.args[:2], _dim(call.args[2:])
        pieces = self._joined_of(source, dim)
        if pieces and tuple(sizes) == tuple(size for _, size in pieces):
            self._pieces[call.out] = tuple(piece for piece, _ in pieces)

    def _slice(self, call: Call) -> int | None:
        """Return the piece that is cut out of what was joined."""
        source, dim, start, stop, *step = call.args
        if step not in ([], [1]):
            return None
        end = 0
        for piece, size in self._joined_of(source, dim):
            begin, end = end, end + size
            if (start, stop) == (begin, end):
                place: int = piece.place
                return place
        return None

    def _joined_of(self, source: Ref, dim: int) -> list[tuple[Ref, int]]:
        """Return the pieces that a register was joined of along an axis, and their lengths."""
        call = self._joined.get(source.place)
        if call is None or _dim(call.args[1:]) != dim:
            return []
        return [(piece, self.shapes[piece.place][dim]) for piece in call.args[0]]


def _dim(rest: tuple[Any, ...]) -> int:
    return rest[0] if rest else 0


def _does_nothing(call: Call) -> bool:
    """Whether the result has the values of the first argument, and nobody can tell them apart."""
    if call.function is aten.detach.default:
        return True
    one = call.function is aten.mul.Scalar and call.args[1] == 1
    return call.same and (one or call.function in _RESHAPES)


def _renamed(call: Call, names: dict[int, int]) -> Call:
    def change(value: Any) -> Any:
        if isinstance(value, Ref):
            return Ref(names.get(value.place, value.place))
        return tuple(map(change, value)) if isinstance(value, tuple) else value

    return evolve(call, args=change(call.args), kwargs=change(call.kwargs))


def used(calls: list[Call], results: tuple[Any, ...]) -> list[Call]:
    """Return the calls that the results depend on."""
    needed = {r.place for r in leaves(results)}
    kept: list[Call] = []
    for call in reversed(calls):
        if call.out in needed:
            kept.append(call)
            needed |= {v.place for v in leaves((call.args, call.kwargs)) if isinstance(v, Ref)}
    return kept[::-1]


# ---------------------------------------------------------------------------- products


def turned(calls: list[Call]) -> list[Call]:
    """Compute what is copied out of (A' B)' as B' A: the gradient of a weight, laid out as the weight is."""
    made = {call.out: call for call in calls}
    kept: list[Call] = []
    for call in calls:
        product = _turned_product(call, made)
        if product is None:
            kept.append(call)
            continue
        left, right = product.args
        turn = Call(_TURN, (right, 1, 2), (), -1 - call.out)
        kept += [turn, Call(_PRODUCT, (Ref(turn.out), left), (), call.out)]
    return kept


def _turned_product(call: Call, made: dict[int, Call]) -> Call | None:
    """Return A, B (as the arguments of a call) where a call copies the transpose of bmm(transpose(A), B)."""
    chain = [call]
    for function in (_COPY, _TURN, _PRODUCT, _TURN):
        found = chain[-1]
        if found.function is not function or (function is _TURN and set(found.args[1:]) != {1, 2}):
            return None
        chain.append(made.get(found.args[0].place, _NONE))
    product, turned = chain[2], chain[3]
    return Call(_PRODUCT, (turned.args[0], product.args[1]), (), call.out)


_NONE = Call(None, (Ref(-1),), (), -1)


def with_products(
    calls: list[Call], results: tuple[Ref, ...], written: frozenset[int]
) -> tuple[list[Call], tuple[Any, ...]]:
    """Leave products to whoever reads the first results, one for each input in `written`.

    They are read while those inputs are being written, so that nothing among them may look at their memory.
    """
    made = {call.out: call for call in calls}
    reads = Counter(
        v.place for c in calls for v in leaves((c.args, c.kwargs)) if isinstance(v, Ref)
    )
    kept, found = list(calls), list[Any]()
    for i, result in enumerate(results[: len(written)]):
        pair = _factors(made, reads, result) if results.count(result) == 1 else None
        if pair and not any(_source(made, ref) in written for ref in pair):
            found.append(pair)
        elif _source(made, result) in written:
            kept.append(Call(_COPY, (result,), (), out := -1_000_000 - i))
            found.append(Ref(out))
        else:
            found.append(result)
    left = (*found, *results[len(written) :])
    return used(kept, left), left


def _factors(made: dict[int, Call], reads: Counter[int], result: Ref) -> tuple[Ref, Ref] | None:
    """Return A and B where a result is bmm(A, B) with its last two axes joined, and nobody else looks at it."""
    joined = made.get(result.place, _NONE)
    if joined.function not in _RESHAPES or len(joined.args[1]) != 2 or reads[result.place]:
        return None
    call = made.get(joined.args[0].place, _NONE)
    if call.function is not _PRODUCT or reads[call.out] != 1:
        return None
    left, right = call.args
    return left, right


def _source(made: dict[int, Call], ref: Ref) -> int:
    """Return the register whose memory a register may look at."""
    while (call := made.get(ref.place)) is not None:
        views = call.function is operator.getitem or getattr(call.function, "is_view", False)
        if not views and call.function not in _RESHAPES:
            break
        ref = call.args[0]
    return ref.place


# ---------------------------------------------------------------------------- softmax over short axes


def on_short_axes(function: Any, args: tuple[Any, ...], result: Any) -> Any:
    """Return what computes the same faster where a softmax goes over a short last axis on a CPU, else the function."""
    faster = _SHORT.get(function)
    if faster is None or result.device.type != "cpu" or result.dtype != torch.float32:
        return function
    axis = args[1] if function is aten._log_softmax.default else args[2]  # noqa: SLF001
    last = axis in (-1, result.ndim - 1)
    return faster if last and result.shape[-1] < NARROW else function


def _log_softmax(x: torch.Tensor, dim: int, _half_to_float: bool) -> torch.Tensor:
    shifted = x - x.amax(dim, True)
    return shifted.sub_(shifted.exp().sum(dim, True).log_())


def _log_softmax_slope(
    slope: torch.Tensor, output: torch.Tensor, dim: int, _dtype: torch.dtype
) -> torch.Tensor:
    return slope - output.exp().mul_(slope.sum(dim, True))


_SHORT = {
    aten._log_softmax.default: _log_softmax,  # noqa: SLF001
    aten._log_softmax_backward_data.default: _log_softmax_slope,  # noqa: SLF001
}
