"""A lane computes jobs one after another, in buffers that it reuses: the reference for every executor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field

from fscore.builtin.draws import shuffled
from fscore.builtin.executors.base import brief, memory_ran_out
from fscore.builtin.executors.losses import one_per_sample
from fscore.builtin.executors.replica import Replicas
from fscore.builtin.executors.summing import add_difference
from fscore.builtin.stages import Difference, Weight
from fscore.context import Context, Order, Passes, Phase, Samples
from fscore.errors import CourseError, FscoreError, PluginError
from fscore.folding import checked, empty_sums, finite, fold, fold_into, weight_of
from fscore.kinds.trainer import Trainer
from fscore.params import Ranges, Tensors, intersect
from fscore.tasks import Batch, BatchOutput, Job, Output

if TYPE_CHECKING:
    import torch

    from fscore.builtin.executors.factors import Factors
    from fscore.kinds.trainer import Loss
    from fscore.site import Site

LARGE = 1 << 18
"""Parameters from which copying gradients into one vector costs more than a step for each tensor."""


@define(eq=False)
class Lane:
    """Runs a trainer's pieces for one client at a time."""

    site: Site
    precision: str = field(default="float32", kw_only=True)
    """Of products and convolutions in the model: float32, or bfloat16 with float32 sums (autocast)."""
    _replicas: Replicas = field(init=False)
    _ranges: dict[str, Ranges] = field(factory=dict, init=False)
    _surveys: bool = field(init=False)
    _sums_up: bool = field(init=False)
    _convolves: bool = field(init=False)
    _large: bool = field(init=False)
    _judging: bool = field(default=False, init=False)
    _adds: dict[Phase, bool] = field(factory=dict, init=False)
    """Whether the model's own functions have backward passes of their own, for each phase that was looked at."""
    _difference: Difference | None = field(init=False)
    """The stage, where no other one changes a group: then a sum needs no update by itself."""

    def __attrs_post_init__(self) -> None:
        trainer = type(self.site.trainer)
        self._convolves = convolves(self.site.module)
        self._large = self.site.space.size >= LARGE
        self._replicas = Replicas(self.site, self._factors())
        self._difference = _lone_difference(self.site) if self._large else None
        self._surveys = trainer.survey is not Trainer.survey
        self._sums_up = trainer.summary is not Trainer.summary

    def _factors(self) -> Factors | None:
        """Return what takes gradients as factors, where the model is large and nothing but the objective looks at its outputs."""
        if not self._large or self.precision != "float32":
            return None
        from fscore.builtin.executors.factors import Factors

        return Factors() if type(self.site.trainer).loss is Trainer.loss else None

    # ------------------------------------------------------------------------ batches

    def batch(self, batch: Batch) -> BatchOutput:
        """Compute a batch; summed, unless one of its updates is not finite or the batch wants single ones."""
        if batch.sum:
            done = self._summed(batch.jobs)
            if finite((done.sums or {}).values()) and finite(_public(done.outputs)):
                return done
        outputs = [self.job(job, wire=batch.wire) for job in batch.jobs]
        if not batch.sum:
            return BatchOutput(tuple(outputs))
        factors = [job.factor for job in batch.jobs]
        return fold(map(checked, outputs), factors, self.site.upload.single)

    def _summed(self, jobs: tuple[Job, ...]) -> BatchOutput:
        layout = self.site.upload.single
        sums = empty_sums(layout)
        if self._difference:
            outputs = [self._added(sums, self.job(job, raw=True), job) for job in jobs]
        else:
            outputs = [fold_into(sums, self.job(job), job.factor, layout) for job in jobs]
        return BatchOutput(tuple(outputs), sums)

    def _added(self, sums: Tensors, output: Output, job: Job) -> Output:
        """Add an update that still lies in the buffers: the same bits as its difference, added, in one pass."""
        if output.error:
            return output
        layout = self.site.upload.single
        slots = self._difference.slots if self._difference else {}
        values = {n: v for n, v in output.values.items() if n not in slots}
        rest = {name: total for name, total in sums.items() if name not in slots}
        left = fold_into(rest, evolve(output, values=values), job.factor, layout)
        if left.error:
            return left
        weighted = job.factor * weight_of(output)
        for name, slot in slots.items():
            factor = weighted if layout[name].reduce == "mean" else 1.0
            add_difference(sums[name], output.values[name], job.sent[slot], factor)
        return left

    # ------------------------------------------------------------------------ one job

    def job(self, job: Job, *, wire: bool = False, raw: bool = False) -> Output:
        """Compute one job; a failure becomes `Output.error`.

        Args:
            wire: return its wire form as well.
            raw: leave the difference out; its groups lie in buffers that the next job overwrites.
        """
        import torch

        guard: Any = contextlib.nullcontext()
        if self.site.random_layers:
            guard = self.site.streams.torch("layers", job.task.client, job.task.id)
        try:
            with guard, torch.no_grad():
                if job.task.kind == "evaluate":
                    return self._evaluate(job)
                return self._train(job, wire, raw)
        except FscoreError:  # bad data or a broken contract concerns the course, not one client
            raise
        except Exception as error:
            if memory_ran_out(error):
                raise CourseError(
                    f"executor: memory ran out while client {job.task.client} was computed. "
                    "Remedy: fewer workers, smaller batches or a smaller model."
                ) from error
            return Output(job.task.id, error=brief(error))

    def _train(self, job: Job, wire: bool, raw: bool) -> Output:
        site, context = self.site, self._context(job)
        self._survey(context, context.data)
        variables = self._load(site.trainer.start(context))
        self._phases(site.trainer.phases(context), variables, context)
        if self._sums_up:
            with self._evaluating():
                more = site.trainer.summary(variables, context.data, context)
            context.measured = {**context.measured, **more}
        groups, rows = site.trainer.finish(variables, context)
        expected = site.upload.layouts[0].keys() - {"metrics"}
        if groups.keys() != expected:
            raise PluginError(
                f"trainer '{site.trainer.name}': finish() gave groups {sorted(groups)}, expected {sorted(expected)}"
            )
        if raw:
            return self._raw(groups, context)
        return self._sent(groups, rows, context, wire)

    def _raw(self, groups: Tensors, context: Context) -> Output:
        """Send everything but the groups that travel as differences, and return those as they are."""
        slots = self._difference.slots if self._difference else {}
        rest = {n: v for n, v in groups.items() if n not in slots}
        sent, _ = self.site.upload.apply({**rest, "metrics": metrics_of(context)}, context)
        whole = {n: v.detach() for n, v in groups.items() if n in slots}
        return Output(context.task.id, {**whole, **self._replicas.owned(sent)})

    def _sent(self, groups: Tensors, rows: Tensors, context: Context, wire: bool) -> Output:
        """Send an update up the path; of a job that ends before some rank, return its form there."""
        upload, job = self.site.upload, context.job
        values, changed = upload.apply(
            {**groups, "metrics": metrics_of(context)}, context, job.upto
        )
        rows = {name: row.detach().clone() for name, row in {**rows, **changed}.items()}
        single = values if job.upto is not None else upload.undo_single(values, context)
        wired = self._replicas.owned(values) if wire else None
        return Output(job.task.id, self._replicas.owned(single), rows, wire=wired)

    def _evaluate(self, job: Job) -> Output:
        site, context = self.site, self._context(job)
        if self._surveys:
            self._survey(context, site.data(job.task.client, "train"))
        variables = self._load(site.trainer.start(context))
        if phases := site.trainer.finetune_phases(context):
            context.data = site.data(job.task.client, "train")
            self._phases(phases, variables, context)
            context.data = site.data(job.task.client, job.part)
        return Output(job.task.id, {"sums": self._judged(variables, context)})

    def _judge(self, job: Job, variables: Tensors, part: str) -> torch.Tensor:
        """Judge variables as an evaluation does that does not fine-tune; see `Context.judge`."""
        import torch

        context = self._context(evolve(job, part=part))  # of its own: no cycle keeps tensors alive
        if not context.samples:
            return torch.zeros(1 + sum(m.width for m in self.site.metrics), dtype=torch.float64)
        if self._surveys:
            self._survey(context, self.site.data(job.task.client, "train"))
        return self._judged(variables, context)

    def _judged(self, variables: Tensors, context: Context) -> torch.Tensor:
        import torch

        with self._evaluating():
            outputs = self.site.trainer.predict(variables, context.data, context)
        sums = [metric.sums(outputs, context.data.y) for metric in self.site.metrics]
        return torch.cat([torch.tensor([float(context.samples)], dtype=torch.float64), *sums])

    def _survey(self, context: Context, samples: Samples) -> None:
        if self._surveys:
            with self._evaluating():
                context.measured = self.site.trainer.survey(samples, context)

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        before, self._judging = self._judging, True
        self._replicas.mode(train=False)
        try:
            yield
        finally:
            self._judging = before
            self._replicas.mode(train=not before)

    def _phases(self, phases: Any, variables: Tensors, context: Context) -> None:
        trainer = self.site.trainer
        confining = [
            attack
            for attack, clients in self.site.attacks
            if context.task.client in clients and context.task.kind == "train"
        ]
        for phase in phases:
            self._enter(phase, context)
            memory: dict[str, Any] = {}
            tensorwise = self._large and trainer.separable(context)
            order = expanded(trainer.batches(context), context)
            for batch in self._split(order, context.data):
                if tensorwise and len(batch.y):
                    self._step_tensorwise(variables, batch, memory, context)
                else:
                    gradient = trainer.gradient(trainer.loss, variables, batch, context)
                    gradient = trainer.adjust(gradient, variables, context)
                    trainer.step(variables, gradient, memory, context)
                for attack in confining:
                    attack.confine(variables, context)
                context.step += 1
                context.steps += 1

    def _step_tensorwise(
        self, variables: Tensors, batch: Samples, memory: dict[str, Any], context: Context
    ) -> None:
        """Step each tensor of the model with its own gradient, which is then never copied into a vector."""
        import torch

        trainer, ranges = self.site.trainer, context.ranges
        slopes = self._slopes(trainer.loss, variables, batch, context, self._replicas.factors)
        for name, found in slopes.items():
            for entry, slope in self._replicas[name].tensorwise(found):
                start, stop = entry.start, entry.stop
                inside = intersect(ranges, ((start, stop),))
                context.ranges = tuple((a - start, b - start) for a, b in inside)
                own = memory.setdefault(f"{name}.{start}", {})
                values = variables[name][start:stop]
                shaped = values if isinstance(slope, torch.Tensor) else values.unsqueeze(0)
                trainer.step({name: shaped}, {name: slope}, own, context)
        context.ranges = ranges

    def _enter(self, phase: Phase, context: Context) -> None:
        context.phase, context.step = phase, 0
        context.ranges = self.trained(phase.part)
        for name in phase.train:
            self._replicas[name].train_only(context.ranges)

    def trained(self, part: str) -> Ranges:
        """Return the ranges that a phase trains: its part, without buffers and frozen modules."""
        if part not in self._ranges:
            space = self.site.space
            ranges = space.trainable
            ranges = intersect(ranges, space.complement(self.site.parts["frozen"]))
            if part:
                ranges = intersect(ranges, self.site.parts[part])
            self._ranges[part] = ranges
        return self._ranges[part]

    def _split(self, order: Order, data: Samples) -> Iterable[Samples]:
        import torch

        if order.index is None:
            whole = data._replace(numbers=torch.arange(data.y.shape[0]))
            return (whole for _ in order.sizes)
        if not order.sizes:
            return ()
        x, y = data.x.index_select(0, order.index), data.y.index_select(0, order.index)
        pieces = (torch.split(v, list(order.sizes)) for v in (x, y, order.index))
        return (Samples(a, b, None, i) for a, b, i in zip(*pieces, strict=True))

    def _laid(self, x: torch.Tensor) -> torch.Tensor:
        """Lay out images (samples, channels, height, width) as convolutions on a CPU are fastest with them."""
        import torch

        return x.to(memory_format=torch.channels_last) if self._convolves and x.ndim == 4 else x

    # ------------------------------------------------------------------------ what contexts call

    def _context(self, job: Job) -> Context:
        context = self.site.context(
            job,
            losses=self._losses,
            outputs=self._outputs,
            features=self._features,
            differentiate=self._differentiate,
            per_sample=self._per_sample,
        )
        context.judge = partial(self._judge, job)
        return context

    def _outputs(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        replica = self._replicas.holding(params)
        with self._autocast():
            x = self._laid(batch.x)
            found = replica.module(x) if replica else self._functional(params, x)
        return found if self.precision == "float32" else found.float()

    def _autocast(self) -> Any:
        import torch

        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=getattr(torch, self.precision))

    def _losses(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        return self.site.objective.losses(self._outputs(params, batch), batch.y)

    def _functional(self, params: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        from torch.func import functional_call

        views = self.site.space.views(params)
        for entry in self.site.space.entries:
            if not entry.trainable:  # layers write into their statistics: not into these
                views[entry.name] = views[entry.name].clone()
        return functional_call(self.site.module, views, (x,))  # type: ignore[no-any-return]

    def _features(self, params: torch.Tensor, batch: Samples) -> torch.Tensor:
        caught: list[torch.Tensor] = []
        replica = self._replicas.holding(params)
        module = replica.module if replica else self.site.module
        head = module.get_submodule(self.site.head)
        handle = head.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            self._outputs(params, batch)
        finally:
            handle.remove()
        return caught[0]

    def _load(self, start: Tensors) -> Tensors:
        return self._replicas.load(start)

    def _differentiate(
        self, loss: Loss, variables: Tensors, batch: Samples, context: Context
    ) -> Tensors:
        import torch

        replicas = {name: self._replicas[name] for name in context.phase.train}
        size = batch.y.shape[0]  # len() takes four times as long
        if self._large and size:
            found = self._slopes(loss, variables, batch, context)
            return {name: replica.joined(found[name]) for name, replica in replicas.items()}
        for replica in replicas.values():
            replica.grad.zero_()
        if size:
            mean = self._mean(loss, variables, batch, context)
            torch.autograd.backward(mean)  # as mean.backward(), with less on the way
        return {name: replica.grad for name, replica in replicas.items()}

    def _slopes(
        self,
        loss: Loss,
        variables: Tensors,
        batch: Samples,
        context: Context,
        factors: Factors | None = None,
    ) -> dict[str, tuple[torch.Tensor | None, ...]]:
        """Return the gradients of the mean loss of a batch by the leaves of each trained variable's replica.

        Args:
            factors: takes what linear layers would make gradients of, which then are None.
        """
        import torch

        leaves = {name: self._replicas[name].leaves for name in context.phase.train}
        wanted = [leaf for own in leaves.values() for leaf in own]
        mean = self._mean(loss, variables, batch, context)
        if self._accumulates(mean, context.phase):
            return self._accumulated(mean, list(leaves))
        with factors.wanted() if factors else contextlib.nullcontext():
            found = iter(torch.autograd.grad(mean, wanted, allow_unused=True))
        return {name: tuple(islice(found, len(own))) for name, own in leaves.items()}

    def _accumulates(self, mean: torch.Tensor, phase: Phase) -> bool:
        """Whether gradients may be added to parameters by the model's own functions; found out with a phase's first loss."""
        from fscore.builtin.executors.factors import Linear
        from fscore.builtin.executors.graphs import accumulates

        if phase not in self._adds:
            self._adds[phase] = accumulates(mean, Linear)
        return self._adds[phase]

    def _accumulated(
        self, mean: torch.Tensor, names: Sequence[str]
    ) -> dict[str, tuple[torch.Tensor | None, ...]]:
        """Return what a whole backward pass adds to the gradients of parameters."""
        replicas = {name: self._replicas[name] for name in names}
        for replica in replicas.values():
            replica.grad.zero_()
        mean.backward()  # type: ignore[no-untyped-call]
        return {name: (None, *replica.slopes()) for name, replica in replicas.items()}

    def _mean(
        self, loss: Loss, variables: Tensors, batch: Samples, context: Context
    ) -> torch.Tensor:
        """Return the mean loss of a batch, and note it."""
        import torch

        size = batch.y.shape[0]
        with torch.enable_grad():
            mean = one_per_sample(loss(variables, batch, context), size, self.site).mean()
        context.loss_sum += float(mean.detach()) * size
        context.seen += size
        return mean

    def _per_sample(
        self, loss: Loss, variables: Tensors, batch: Samples, context: Context
    ) -> Tensors:
        import torch

        rows: dict[str, list[torch.Tensor]] = {name: [] for name in context.phase.train}
        for i in range(len(batch.y)):
            x, y, _, numbers = batch
            one = Samples(
                x[i : i + 1], y[i : i + 1], None, numbers if numbers is None else numbers[i : i + 1]
            )
            for name, grad in self._differentiate(loss, variables, one, context).items():
                rows[name].append(grad.clone())
        size = self.site.space.size
        return {n: torch.stack(r) if r else torch.zeros(0, size) for n, r in rows.items()}


def expanded(order: Order | Passes, context: Context) -> Order:
    """Return which samples each step uses; passes are drawn."""
    if isinstance(order, Passes):
        return shuffled(context, float(order.epochs), int(order.batch_size))
    return order


def metrics_of(context: Context) -> torch.Tensor:
    """Return what every training task reports: sum of losses, samples trained on."""
    import torch

    return torch.tensor((context.loss_sum, context.seen), dtype=torch.float64)


def _lone_difference(site: Site) -> Difference | None:
    """Return the difference, or None: other stages change an update too, or clients keep states."""
    placed = site.upload.placed
    if site.rows or any(p.only is not None or type(p.stage) is not Weight for p in placed[1:]):
        return None
    first = placed[0].stage if placed and placed[0].only is None else None
    return first if type(first) is Difference else None


def _public(outputs: Iterable[Output]) -> Iterator[torch.Tensor]:
    """Yield the public groups of outputs whose updates are summed: each group of all of them in one, since they are small."""
    import torch

    named: dict[str, list[torch.Tensor]] = {}
    for output in outputs:
        for name, value in output.values.items():
            named.setdefault(name, []).append(value.reshape(-1))
    return map(torch.cat, named.values())


def convolves(module: torch.nn.Module) -> bool:
    """Whether a model convolves images."""
    import torch

    kinds = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
    return any(isinstance(part, kinds) for part in module.modules())
