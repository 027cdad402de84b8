"""Model space over many clients: losses and gradients, lifted by `torch.func` and run again as recorded programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field

from fscore.builtin.executors.losses import one_per_sample
from fscore.builtin.executors.many import Guard, Many, NotLifted, One, shared
from fscore.builtin.executors.norms import Norms
from fscore.builtin.executors.program import Program, Unrepeatable, record
from fscore.context import Phase, Samples

if TYPE_CHECKING:
    from fscore.kinds.trainer import Loss
    from fscore.params import Ranges, Tensors
    from fscore.site import Site

Function = Callable[..., tuple[torch.Tensor, ...]]
Valued = Callable[..., tuple[torch.Tensor, Sequence[torch.Tensor]]]
"""What gives a client's value, and results beside it that have no gradient."""
Vectors = Mapping[str, "torch.Tensor | Sequence[torch.Tensor]"]
"""Variables (K, ...) by name; vectors (K, P) whole, or in pieces."""
PROGRAMS = 512
"""Recorded programs that are kept; then they are made anew."""


@define(eq=False)
class Inputs:
    """Tensors that a lifted function reads, in a fixed order, and how to put them together for one client.

    A vector may go in as pieces, which then have its name, one after another.
    """

    names: list[tuple[str, str]] = field(factory=list)
    tensors: list[torch.Tensor] = field(factory=list)
    batched: list[bool] = field(factory=list)

    def add(self, family: str, values: Mapping[str, torch.Tensor | Sequence[torch.Tensor]]) -> None:
        """Add tensors (K, ...); what all clients share goes in once, without their axis."""
        for name, given in values.items():
            for value in [given] if isinstance(given, torch.Tensor) else given:
                one = shared(value)
                self.names.append((family, name))
                self.tensors.append(value[0] if one else value)
                self.batched.append(not one)

    def tables(self, values: Sequence[torch.Tensor]) -> dict[str, Tensors]:
        """Return tensors of one client by family and name."""
        found: dict[str, Tensors] = {
            "variables": {}, "batch": {}, "sent": {}, "row": {}, "measured": {}, "option": {},
            "told": {},
        }  # fmt: skip
        for name, same in itertools.groupby(
            zip(self.names, values, strict=True), lambda pair: pair[0]
        ):
            pieces = [value for _, value in same]
            found[name[0]][name[1]] = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
        return found

    def trained(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the places of the variables that get gradients."""
        wanted = [("variables", name) for name in names]
        return tuple(i for i, name in enumerate(self.names) if name in wanted)

    def key(self) -> tuple[Any, ...]:
        """Return what a recording of a function of these inputs depends on."""
        shapes = tuple(
            (tuple(t.shape[1:]) if wide else tuple(t.shape), wide, t.dtype)
            for t, wide in zip(self.tensors, self.batched, strict=True)
        )
        return (tuple(self.names), shapes)


@define(eq=False)
class Prepared:
    """A gradient that is ready to be computed for further batches of the same clients."""

    loss: Loss
    variables: Vectors | None
    """None: it is not to be used again."""
    shape: Any
    context: Many
    phase: Phase
    inputs: Inputs
    moving: list[int]
    """Places of the inputs that differ from batch to batch."""
    names: list[str]
    run: Callable[[Sequence[torch.Tensor]], Sequence[Any]]

    def serves(self, loss: Loss, variables: Vectors, batch: Samples, context: Many) -> bool:
        """Whether it computes the gradient of these arguments."""
        return (
            self.context is context
            and self.phase is context.phase
            and self.variables is variables
            and self.loss == loss
            and self.shape == _shape(batch)
        )


@define(eq=False)
class Lift:
    """Lifts the losses of one model and trainer over clients."""

    site: Site
    device: torch.device
    replay: bool = True
    module: torch.nn.Module = field(init=False)
    norms: Norms = field(init=False)
    _programs: dict[Any, Program | None] = field(factory=dict, init=False)
    _pieces: dict[Ranges, tuple[list[int], list[bool]]] = field(factory=dict, init=False)
    _read: set[str] = field(factory=set, init=False)
    _inside: bool = field(default=False, init=False)
    _ready: Prepared | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        import copy

        self.module = copy.deepcopy(self.site.module).to(self.device)
        self.norms = Norms(self.module, self.site.space)

    def callables(self) -> dict[str, Any]:
        """Return what a context of many clients calls."""
        return {
            "losses": self._lifted(self.losses),
            "outputs": self._lifted(self.outputs),
            "features": self._lifted(self.features),
            "differentiate": self.differentiate,
            "per_sample": self.per_sample,
        }

    # ------------------------------------------------------------------------ one client

    def outputs(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        """Return what the model puts out: (P,), samples -> (samples, ...)."""
        return self.norms.outputs(params, batch)

    def losses(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        """Return the losses (samples,) of one client."""
        return self.site.objective.losses(self.outputs(params, batch), batch.y)

    def features(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        """Return the input (samples, d) of the model's head."""
        caught: list[torch.Tensor] = []
        head = self.module.get_submodule(self.site.head)
        handle = head.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            self.outputs(params, batch)
        finally:
            handle.remove()
        return caught[0]

    def _one(self, tables: dict[str, Tensors], context: Many) -> One:
        return One.of(
            context,
            self._read,
            received=tables["sent"],
            own=tables["row"],
            measured=tables["measured"],
            options={**context.options, **tables["option"]},
            told={**context.told, **tables["told"]},
            counts=Guard(),
            losses=self.losses,
            outputs=self.outputs,
            features=self.features,
            differentiate=_alone,
            per_sample=_alone,
        )

    # ------------------------------------------------------------------------ many clients

    def _lifted(self, function: Any) -> Any:
        def lifted(params: torch.Tensor, batch: Samples) -> torch.Tensor:
            one = shared(params)

            def single(params: torch.Tensor, *batch: torch.Tensor) -> torch.Tensor:
                return function(params, Samples(*batch))  # type: ignore[no-any-return]

            given = [v for v in batch[:3] if v is not None]
            dims = (None if one else 0, *[0 for _ in given])
            first = params[0] if one else params
            found: torch.Tensor = torch.func.vmap(single, in_dims=dims)(first, *given)
            return found

        return lifted

    def measure(
        self, piece: Callable[..., Any], variables: Tensors, batch: Samples, context: Many
    ) -> Any:
        """Return what a piece `(variables, samples, context)` makes of each client's samples: tensors (K, ...).

        The model is in evaluation mode, and there are no gradients.
        """
        inputs = self._inputs(variables, batch, context)

        def single(*values: torch.Tensor) -> Any:
            tables = inputs.tables(values)
            found = tables["batch"]
            one = Samples(found["x"], found["y"], found.get("valid"), found["numbers"])
            return piece(tables["variables"], one, self._one(tables, context))

        self.module.eval()
        try:
            dims = tuple(0 if wide else None for wide in inputs.batched)
            return torch.func.vmap(single, in_dims=dims)(*inputs.tensors)
        finally:
            self.module.train()

    def differentiate(
        self, loss: Loss, variables: Tensors, batch: Samples, context: Many
    ) -> Tensors:
        """Return the gradients (K, P) of each client's mean loss by trained variable."""
        return {n: s[0] for n, s in self.slopes(loss, variables, batch, context).items()}

    def slopes(
        self, loss: Loss, variables: Vectors, batch: Samples, context: Many
    ) -> dict[str, list[Any]]:
        """Return the gradients of each client's mean loss by trained variable, in as many pieces as the variable has.

        Gradients of pieces may be `Product`s.
        """
        made = self._ready
        if made is None or not made.serves(loss, variables, batch, context):
            made = self._ready = self._prepared(loss, variables, batch, context)
        tensors = made.inputs.tensors
        for place, value in zip(made.moving, _moving(batch), strict=True):
            tensors[place] = value
        found, count = made.run(tensors), len(made.names)
        if self.norms:
            self.norms.write(variables, found[count + 1 :], batch)  # type: ignore[arg-type]  # in no pieces
        self._note(found[count], batch, context)
        slopes: dict[str, list[Any]] = {}
        for name, slope in zip(made.names, found, strict=False):
            slopes.setdefault(name, []).append(slope)
        return slopes

    def _prepared(self, loss: Loss, variables: Vectors, batch: Samples, context: Many) -> Prepared:
        train = context.phase.train
        inputs, scale = self._inputs(variables, batch, context), _scale(batch)
        if scale is not None:
            inputs.add("batch", {"scale": scale})
        places = inputs.trained(train)

        def mean(*values: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
            tables = inputs.tables(values)
            trained = self._only(tables["variables"], train, context.ranges)
            batch = tables["batch"]
            one = Samples(batch["x"], batch["y"], batch.get("valid"), batch["numbers"])
            with self.norms.watching(trained) as statistics:
                each = loss(trained, one, self._one(tables, context))
            one_per_sample(each, len(one.y), self.site)
            return each.mean() if scale is None else (each * batch["scale"]).sum(), statistics

        def lifted(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            dims = tuple(0 if wide else None for wide in inputs.batched)
            return self._slopes(mean, values, places, [dims])

        names = [inputs.names[i][1] for i in places]
        moving = [i for i, (family, _) in enumerate(inputs.names) if family == "batch"]
        written = places if len(set(names)) < len(names) else ()
        run = self._runner("mean", lifted, loss, inputs, context, written)
        kept = None if loss != self.site.trainer.loss else variables
        return Prepared(
            loss, kept, _shape(batch), context, context.phase, inputs, moving, names, run
        )

    def per_sample(self, loss: Loss, variables: Tensors, batch: Samples, context: Many) -> Tensors:
        """Return the gradients (K, samples, P) of each sample's loss; 0 where a batch is padded."""
        if self.norms:
            raise NotLifted("batch norm mixes the samples of a batch")
        train = context.phase.train
        inputs = self._inputs(variables, batch, context)
        places = inputs.trained(train)
        samples = tuple(0 if f == "batch" else None for f, _ in inputs.names)
        wide = batch.y.shape[1]

        def single(*values: torch.Tensor) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
            tables = inputs.tables(values)
            trained = self._only(tables["variables"], train, context.ranges)
            x, y, numbers = (tables["batch"][n][None] for n in ("x", "y", "numbers"))
            return loss(trained, Samples(x, y, None, numbers), self._one(tables, context))[0], ()

        def lifted(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            values = tuple(
                v[:, None].expand(-1, wide, *v.shape[1:]) if i in places else v
                for i, v in enumerate(values)
            )
            over = tuple(0 if i in places else dim for i, dim in enumerate(samples))
            dims = tuple(0 if many else None for many in inputs.batched)
            return self._slopes(single, values, places, [over, dims])

        *slopes, value = self._runner("each", lifted, loss, inputs, context)(inputs.tensors)
        scale = _scale(batch)
        self._note(value.mean(1) if scale is None else (value * scale).sum(1), batch, context)
        if batch.valid is not None:
            slopes = [slope * batch.valid[:, :, None] for slope in slopes]
        return {inputs.names[i][1]: s for i, s in zip(places, slopes, strict=True)}

    def _slopes(
        self,
        function: Valued,
        values: Sequence[torch.Tensor],
        places: tuple[int, ...],
        dims: Sequence[tuple[int | None, ...]],
    ) -> tuple[torch.Tensor, ...]:
        """Return the gradient of each client's value by its own values at `places`, the values, and what is beside them.

        No client's value depends on another's parameters, so that the gradient of their sum has all of them side by
        side. Fused recurrent layers have no rule for that: there the gradient is taken inside, which costs more.
        """
        if not self._inside:
            try:
                return _outside(_vmapped(function, dims), values, places)
            except RuntimeError as error:
                if "Batching rule not implemented" not in str(error):
                    raise
                self._inside = True
        sloped = torch.func.grad_and_value(function, argnums=places, has_aux=True)
        slopes, (value, more) = _vmapped(sloped, dims)(*values)
        return (*slopes, value, *more)

    def _inputs(self, variables: Vectors, batch: Samples, context: Many) -> Inputs:
        inputs = Inputs()
        inputs.add("variables", variables)
        inputs.add("batch", {n: v for n, v in batch._asdict().items() if v is not None})
        inputs.add("sent", context.received)
        inputs.add("row", context.own)
        inputs.add("measured", context.measured)
        for family, table in (("option", context.options), ("told", context.told)):
            columns = {n: v for n, v in table.items() if isinstance(v, torch.Tensor)}
            inputs.add(family, columns)
        return inputs

    def _runner(
        self,
        kind: str,
        function: Function,
        loss: Loss,
        inputs: Inputs,
        context: Many,
        written: Sequence[int] = (),
    ) -> Callable[[Sequence[torch.Tensor]], Sequence[Any]]:
        """Return what computes a function of the inputs: a recorded program, where there may be one.

        Args:
            written: places of inputs that are written before all results have been read: the first results are their
                gradients.
        """
        clients = len(context.jobs)
        if not self.replay or loss != self.site.trainer.loss:
            return lambda values: function(*values)
        plain = tuple(
            (n, v)
            for table in (context.options, context.told)
            for n, v in table.items()
            if not isinstance(v, torch.Tensor)
        )
        key = (kind, context.phase, context.ranges, plain, *inputs.key())
        if key not in self._programs:
            self._programs[key] = self._recorded(function, inputs, written)
        program = self._programs[key]
        if program is None:
            return lambda values: function(*values)
        return program.of(clients)

    def _recorded(
        self, function: Function, inputs: Inputs, written: Sequence[int]
    ) -> Program | None:
        if len(self._programs) >= PROGRAMS:
            self._programs.clear()
        self._read.clear()
        try:
            program = record(function, inputs.tensors, inputs.batched, written)
        except Unrepeatable:
            return None
        return None if self._read else program

    def _only(self, variables: Tensors, train: Sequence[str], ranges: Ranges) -> Tensors:
        """Cut the gradient of parameters that lie outside `ranges`."""
        if ranges == self.site.space.whole:
            return variables
        if ranges not in self._pieces:
            entries = self.site.space.entries
            inside = [
                e.trainable and any(a < e.stop and e.start < b for a, b in ranges) for e in entries
            ]
            self._pieces[ranges] = [e.stop - e.start for e in entries], inside
        sizes, inside = self._pieces[ranges]
        cut = dict(variables)
        for name in train:
            pieces = variables[name].split(sizes)  # type: ignore[no-untyped-call]
            cut[name] = torch.cat(
                [p if wanted else p.detach() for p, wanted in zip(pieces, inside, strict=True)]
            )
        return cut

    @staticmethod
    def _note(mean: torch.Tensor, batch: Samples, context: Many) -> None:
        """Add a batch to the sums of losses and samples of the clients (K,)."""
        loss_sum: Any = context.loss_sum
        if batch.valid is None:
            loss_sum.add_(mean, alpha=batch.y.shape[1])
            context.seen += batch.y.shape[1]
        else:
            count: Any = batch.valid.sum(1)
            loss_sum.add_(mean.double() * count)
            context.seen += count


def _vmapped(function: Callable[..., Any], dims: Sequence[tuple[int | None, ...]]) -> Any:
    for over in dims:
        function = torch.func.vmap(function, in_dims=over)
    return function


def _outside(
    function: Valued, values: Sequence[torch.Tensor], places: Sequence[int]
) -> tuple[torch.Tensor, ...]:
    inputs = list(values)
    with torch.enable_grad():
        for i in places:
            inputs[i] = values[i].detach().requires_grad_()
        value, more = function(*inputs)
        wanted = [inputs[i] for i in places]
        slopes = torch.autograd.grad(value.sum(), wanted, materialize_grads=True)
    return (*slopes, value.detach(), *more)


def _moving(batch: Samples) -> list[torch.Tensor]:
    """Return the tensors of a batch in the order in which they are inputs."""
    scale = _scale(batch)
    found = [v for v in batch if v is not None]
    return found if scale is None else [*found, scale]


def _shape(batch: Samples) -> Any:
    return batch.y.shape[:2], batch.valid is None, batch.numbers is None


def _scale(batch: Samples) -> torch.Tensor | None:
    """Return the weight of each sample in its client's mean (K, samples); None: all are equal."""
    if batch.valid is None:
        return None
    return batch.valid / batch.valid.sum(1, keepdim=True).clamp(min=1)


def _alone(*args: Any, **kwargs: Any) -> Any:
    raise NotLifted("it takes a gradient inside its loss")
