"""Server optimizers of FedOpt (Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.component import between, gt, option, state
from fscore.kinds.server_optimizer import ServerOptimizer

if TYPE_CHECKING:
    import torch

    from fscore.params import Tensors


@define(eq=False, slots=False)
class SGD(ServerOptimizer):
    """Gradient descent with momentum; lr 1 without momentum is FedAvg, with momentum FedAvgM (Hsu et al., 2019)."""

    name = "sgd"
    momentum: float = option(0.0, doc="Momentum of the server.", validator=between(0, 1))
    velocity: dict[str, Any] = state(dict)

    def step(self, slots: Tensors, directions: Tensors) -> Tensors:
        return {
            name: slots[name] + self.lr * self._moved(name, d) for name, d in directions.items()
        }

    def _moved(self, name: str, direction: torch.Tensor) -> torch.Tensor:
        if not self.momentum:
            return direction
        if name in self.velocity:
            direction = self.momentum * self.velocity[name] + direction
        self.velocity[name] = direction
        return direction


@define(eq=False, slots=False)
class Adaptive(ServerOptimizer):
    """What the adaptive server optimizers share: x + lr m / (sqrt(v) + tau), without bias correction."""

    lr: float = option(0.1, doc="Server learning rate.", validator=gt(0))
    beta1: float = option(0.9, doc="Decay of the first moment.", validator=between(0, 1))
    tau: float = option(1e-3, doc="Degree of adaptivity.", validator=gt(0))
    m: dict[str, Any] = state(dict)
    v: dict[str, Any] = state(dict)

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        """Return the next second moment; both (P,)."""
        raise NotImplementedError

    def step(self, slots: Tensors, directions: Tensors) -> Tensors:
        moved = {}
        for name, direction in directions.items():
            m = self.m.get(name, 0.0)
            v = self.v.get(name, direction.new_full(direction.shape, self.tau**2))
            self.m[name] = m = self.beta1 * m + (1 - self.beta1) * direction
            self.v[name] = v = self.second(v, direction.square())
            moved[name] = slots[name] + self.lr * m / (v.sqrt() + self.tau)
        return moved


@define(eq=False, slots=False)
class Adagrad(Adaptive):
    """FedAdagrad."""

    name = "adagrad"
    beta1: float = option(0.0, doc="Decay of the first moment.", validator=between(0, 1))

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return v + squared


@define(eq=False, slots=False)
class Adam(Adaptive):
    """FedAdam."""

    name = "adam"
    beta2: float = option(0.99, doc="Decay of the second moment.", validator=between(0, 1))

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return self.beta2 * v + (1 - self.beta2) * squared


@define(eq=False, slots=False)
class Yogi(Adam):
    """FedYogi."""

    name = "yogi"

    def second(self, v: torch.Tensor, squared: torch.Tensor) -> torch.Tensor:
        return v - (1 - self.beta2) * squared * (v - squared).sign()
