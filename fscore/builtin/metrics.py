"""Built-in metrics: a sum over predictions, divided by their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fscore.component import ge, option
from fscore.kinds.metric import Metric

if TYPE_CHECKING:
    import torch

    from fscore.course import Course


@define(eq=False, slots=False)
class Average(Metric):
    """The mean of one number per prediction."""

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the number of each prediction, in any shape."""
        raise NotImplementedError

    def sums(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import torch

        each = self.each(outputs, y).double()
        return torch.stack([each.sum(), each.new_tensor(float(each.numel()))])

    def value(self, sums: Sequence[float]) -> float:
        return sums[0] / sums[1] if sums[1] else float("nan")


@define(eq=False, slots=False)
class Loss(Average):
    """Mean loss of the course's objective."""

    name = "loss"
    higher_is_better: ClassVar[bool] = False

    def bind(self, course: Course) -> None:
        self.objective = course.objective

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.objective.losses(outputs, y)  # type: ignore[no-any-return]


@define(eq=False, slots=False)
class OfClasses(Average):
    """A metric of outputs (..., classes) and targets (...), numbers of classes."""

    def fits(self, outputs: torch.Tensor, y: torch.Tensor) -> str:
        if y.is_floating_point() or outputs.shape[:-1] != y.shape:
            return (
                f"it judges outputs (..., classes) by class numbers (...), got {_both(outputs, y)}"
            )
        return ""


@define(eq=False, slots=False)
class Accuracy(OfClasses):
    """Share of predictions whose largest output is the target; along the last axis."""

    name = "accuracy"

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return outputs.argmax(dim=-1) == y


@define(eq=False, slots=False)
class TopK(OfClasses):
    """Share of predictions with the target among the k largest outputs."""

    name = "top_k"
    k: int = option(5, doc="How many outputs count.", validator=ge(1))

    def fits(self, outputs: torch.Tensor, y: torch.Tensor) -> str:
        if self.k > outputs.shape[-1]:
            return f"k = {self.k}, but there are {outputs.shape[-1]} classes"
        return super().fits(outputs, y)

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        k = min(self.k, outputs.shape[-1])
        return (outputs.topk(k, dim=-1).indices == y.unsqueeze(-1)).any(dim=-1)


@define(eq=False, slots=False)
class OfNumbers(Average):
    """A metric of outputs and targets that are numbers, as many of the one as of the other."""

    def fits(self, outputs: torch.Tensor, y: torch.Tensor) -> str:
        if not y.is_floating_point() or outputs.numel() != y.numel():
            return f"it compares numbers with as many numbers, got {_both(outputs, y)}"
        return ""


@define(eq=False, slots=False)
class MSE(OfNumbers):
    """Mean squared error over samples and outputs."""

    name = "mse"
    higher_is_better: ClassVar[bool] = False

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs.reshape(y.shape) - y).square()


@define(eq=False, slots=False)
class MAE(OfNumbers):
    """Mean absolute error over samples and outputs."""

    name = "mae"
    higher_is_better: ClassVar[bool] = False

    def each(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (outputs.reshape(y.shape) - y).abs()


def _both(outputs: torch.Tensor, y: torch.Tensor) -> str:
    kind = str(y.dtype).removeprefix("torch.")
    return f"outputs {tuple(outputs.shape)} and targets {tuple(y.shape)} of {kind}"
