"""The built-in trainer: stochastic gradient descent, from which other local algorithms derive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.local import LocalTrainer
from fscore.component import between, ge, option
from fscore.params import take

if TYPE_CHECKING:
    import torch

    from fscore.context import Context
    from fscore.params import Ranges, Tensors


@define(eq=False, slots=False)
class SGD(LocalTrainer):
    """Local SGD with momentum and weight decay: the client of FedAvg (McMahan et al., AISTATS 2017, alg. 1)."""

    name = "sgd"

    momentum: float = option(
        0.0, doc="Momentum of the clients, from zero in each task.", validator=between(0, 1),
        per_client=True,
    )  # fmt: skip
    nesterov: bool = option(False, doc="Nesterov's form of momentum.")
    weight_decay: float = option(0.0, doc="L2 penalty.", validator=ge(0), per_client=True)

    def step(
        self, variables: Tensors, gradient: Tensors, memory: Tensors, context: Context
    ) -> None:
        options = context.options
        if options["max_grad_norm"] is not None:
            bound = options["max_grad_norm"]
            gradient = {n: clipped(g, bound, context.ranges) for n, g in gradient.items()}
        for name, grad in gradient.items():
            for index, (start, stop) in enumerate(context.ranges):
                values, slope = variables[name][..., start:stop], grad[..., start:stop]
                if applies(options["weight_decay"]):
                    slope = slope + options["weight_decay"] * values
                if applies(options["momentum"]):
                    slope = self._velocity(slope, memory, f"{name}.{index}", options["momentum"])
                descend(values, slope, options["lr"])

    def separable(self, context: Context) -> bool:
        """Whether each value is stepped by itself: no norm is bounded, and nothing of it was overridden."""
        cls = type(self)
        own = (cls.gradient, cls.adjust, cls.step)
        plain = own == (SGD.gradient, SGD.adjust, SGD.step)
        return plain and context.options["max_grad_norm"] is None

    def _velocity(
        self, slope: torch.Tensor, memory: Tensors, key: str, momentum: Any
    ) -> torch.Tensor:
        if key not in memory:
            memory[key] = slope.clone()
        else:
            memory[key].mul_(momentum).add_(slope)
        return slope + momentum * memory[key] if self.nesterov else memory[key]


def applies(value: Any) -> bool:
    """Whether a coefficient has an effect: a number that is not 0, or a column of them."""
    return not isinstance(value, int | float) or value != 0


def descend(values: torch.Tensor, slope: torch.Tensor, lr: Any) -> None:
    """Subtract `lr * slope` in place; `lr` is a number or a column (K, 1)."""
    if isinstance(lr, int | float):
        values.add_(slope, alpha=-lr)
    else:
        values.sub_(lr * slope)


def clipped(gradient: torch.Tensor, bound: Any, ranges: Ranges) -> torch.Tensor:
    """Scale each vector (..., P) whose norm over `ranges` exceeds `bound` down to it.

    Terms that pull to another model differ from 0 outside of what is trained, too: on running statistics.
    """
    import torch

    norms = torch.linalg.vector_norm(take(gradient, ranges), dim=-1, keepdim=True)
    return gradient * torch.clamp(bound / (norms + 1e-12), max=1.0)
