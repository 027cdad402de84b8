"""Sums of clipped gradients of single samples, three ways: opacus' hooks, its ghost norms, or the executor's own."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve
from opacus.grad_sample import GradSampleModule
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from opacus.validators import ModuleValidator
from torch.nn.modules.batchnorm import _BatchNorm

from fscore.errors import PluginError

if TYPE_CHECKING:
    from fscore.context import Context, Samples
    from fscore.kinds.objective import Objective
    from fscore.kinds.trainer import Loss
    from fscore.params import ParamSpace, Ranges, Tensors


def problems(module: torch.nn.Module, mode: str) -> Iterator[str]:
    """Yield why gradients of single samples cannot be had, or do not bound what one sample does."""
    mixing = [name for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)]
    for name in mixing:
        yield (
            f"batch norm layer '{name}' mixes the samples of a batch, so that no clip bounds what one of them does. "
            "Remedy: group norm, in the model's options or by opacus' ModuleValidator.fix."
        )
    if mode != "vectorised" and not mixing:
        for error in ModuleValidator.validate(module, strict=False):
            text = " ".join(str(error).split())
            yield f"opacus: {text} Remedy: another model, or mode = 'vectorised'."


def coefficients(norms: torch.Tensor, bound: float) -> torch.Tensor:
    """Return min(1, bound / norm) of norms (..., samples).

    Raises:
        FloatingPointError: one is not finite, so that the task fails.
    """
    if not bool(torch.isfinite(norms).all()):
        raise FloatingPointError("a sample's gradient is not finite")
    return torch.clamp(bound / norms, max=1.0)


class Vectorised:
    """Takes the gradients from the executor, `context.per_sample`: (..., samples, P) by variable, clipped jointly."""

    def __init__(self, clip_norm: float) -> None:
        self.clip_norm = clip_norm

    def sums(self, loss: Loss, variables: Tensors, batch: Samples, context: Context) -> Tensors:
        """Return the sum of clipped gradients (..., P) by trained variable; padded samples have none."""
        from fscore.params import take

        axis = variables[context.phase.train[0]].dim() - 1
        if not batch.y.shape[axis]:
            return {n: torch.zeros_like(variables[n]) for n in context.phase.train}
        rows = context.per_sample(loss, variables, batch, context)
        inside = [take(r, context.ranges) for r in rows.values()]
        squares = sum(torch.linalg.vector_norm(r, dim=-1) ** 2 for r in inside)
        scale = coefficients(torch.sqrt(torch.as_tensor(squares)), self.clip_norm)
        return {n: (scale.unsqueeze(-1) * r).sum(dim=-2) for n, r in rows.items()}


class Hooks:
    """Gradients by opacus' hooks, in a copy of the model whose tensors are views of the trained variable."""

    def __init__(
        self, clip_norm: float, module: torch.nn.Module, objective: Objective, space: ParamSpace
    ) -> None:
        self.clip_norm, self.objective, self.space = clip_norm, objective, space
        self._module = module
        # for good: what `catch_warnings` puts back may be another thread's
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        self._wrapped: dict[Ranges, tuple[Any, dict[str, torch.nn.Parameter]]] = {}

    def sums(self, loss: Loss, variables: Tensors, batch: Samples, context: Context) -> Tensors:
        """Return the sum of clipped gradients (P,) of the trained variable.

        Raises:
            PluginError: the loss is not one of the trained variable alone.
        """
        if len(context.phase.train) != 1:
            raise PluginError(
                f"trainer: it trains {' and '.join(context.phase.train)} together; opacus has hooks for one. "
                "Remedy: mode = 'vectorised'."
            )
        (name,) = context.phase.train
        if not len(batch.y):
            return {name: torch.zeros_like(variables[name])}
        wrapped, parameters = self._ready(variables[name], context.ranges)
        with torch.enable_grad():
            values = loss(variables, batch, self._seeing(context, variables[name], wrapped))
            total = self._clipped(wrapped, parameters, values)
        context.loss_sum += float(values.detach().sum())
        context.seen += len(batch.y)
        return {name: total}

    def _seeing(self, context: Context, flat: torch.Tensor, wrapped: Any) -> Context:
        """Return the context with losses of the trained variable computed by the module that has hooks."""

        def outputs(params: torch.Tensor, batch: Samples) -> torch.Tensor:
            if params is flat:
                return wrapped(batch.x)  # type: ignore[no-any-return]
            return context.outputs(params, batch)

        def losses(params: torch.Tensor, batch: Samples) -> torch.Tensor:
            return self.objective.losses(outputs(params, batch), batch.y)

        return evolve(context, outputs=outputs, losses=losses)

    def _ready(
        self, flat: torch.Tensor, ranges: Ranges
    ) -> tuple[Any, dict[str, torch.nn.Parameter]]:
        """Return a module with hooks whose tensors are views of `flat`, and its trained parameters by name."""
        if ranges not in self._wrapped:
            module = copy.deepcopy(self._module)
            named = dict(module.named_parameters())
            trained: dict[str, torch.nn.Parameter] = {}
            for entry in self.space.entries:
                if entry.name in named:
                    inside = any(a < entry.stop and entry.start < b for a, b in ranges)
                    named[entry.name].requires_grad_(inside)
                    trained |= {entry.name: named[entry.name]} if inside else {}
            self._wrapped[ranges] = self._wrap(module), trained
        wrapped, trained = self._wrapped[ranges]
        self.space.bind(wrapped._module, flat.detach())  # noqa: SLF001
        for parameter in trained.values():
            parameter.grad = parameter.grad_sample = None  # type: ignore[attr-defined]
        wrapped.train()
        return wrapped, trained

    def _wrap(self, module: torch.nn.Module) -> Any:
        return GradSampleModule(module, loss_reduction="sum")

    def _clipped(
        self, wrapped: Any, parameters: dict[str, torch.nn.Parameter], values: torch.Tensor
    ) -> torch.Tensor:
        values.sum().backward()  # type: ignore[no-untyped-call]
        rows = {n: self._of(p, n, "grad_sample").flatten(1) for n, p in parameters.items()}
        norms = torch.stack([torch.linalg.vector_norm(r, dim=1) for r in rows.values()])
        scale = coefficients(torch.linalg.vector_norm(norms, dim=0), self.clip_norm)
        return self._flat({n: scale @ r for n, r in rows.items()})

    @staticmethod
    def _of(parameter: torch.nn.Parameter, name: str, what: str) -> torch.Tensor:
        found: torch.Tensor | None = getattr(parameter, what, None)
        if found is None:
            raise PluginError(
                f"trainer: its loss gives no gradient of single samples for '{name}' through opacus' hooks. "
                "Remedy: mode = 'vectorised'."
            )
        return found.detach()

    def _flat(self, gradients: Tensors) -> torch.Tensor:
        total = torch.zeros(self.space.size)
        for entry in self.space.entries:
            if entry.name in gradients:
                total[entry.start : entry.stop] = gradients[entry.name].reshape(-1)
        return total


class Ghost(Hooks):
    """Ghost clipping (Li et al., ICLR 2022; Bu et al., NeurIPS 2022), by opacus: norms first, then one weighted gradient.

    No gradient of a single sample is stored.
    """

    def _wrap(self, module: torch.nn.Module) -> Any:
        return GradSampleModuleFastGradientClipping(
            module, loss_reduction="sum", max_grad_norm=self.clip_norm, use_ghost_clipping=True
        )

    def _clipped(
        self, wrapped: Any, parameters: dict[str, torch.nn.Parameter], values: torch.Tensor
    ) -> torch.Tensor:
        values.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        for name, parameter in parameters.items():
            self._of(parameter, name, "_norm_sample")
        scale = coefficients(wrapped.get_norm_sample(), self.clip_norm)
        for parameter in parameters.values():
            parameter.grad = None
        wrapped.disable_hooks()
        try:
            (scale.detach() * values).sum().backward()  # type: ignore[no-untyped-call]
        finally:
            wrapped.enable_hooks()
        return self._flat({n: self._of(p, n, "grad") for n, p in parameters.items()})
