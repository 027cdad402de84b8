"""Built-in models, chosen by `[model] use = "..."`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import define, validators

from fscore.builtin.models.headed import HeadedModel
from fscore.component import between, ge, option
from fscore.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from fscore.context import Samples


def _outputs(classes: int | None, example: Samples) -> int:
    """Return the number of outputs: one per class, or one per target of a regression."""
    return classes if classes is not None else int(example.y[0].numel())


@define(eq=False, slots=False)
class Softmax(HeadedModel):
    """Multinomial logistic regression on flattened samples (linear regression where targets are numbers)."""

    name = "softmax"
    head: str = option("linear", doc="Dotted name of the module whose input are the features.")

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from fscore.builtin.models import modules

        return modules.dense(example.x[0].numel(), [], _outputs(classes, example), "relu")


@define(eq=False, slots=False)
class MLP(HeadedModel):
    """Fully connected layers on flattened samples."""

    name = "mlp"
    head: str = option("linear", doc="Dotted name of the module whose input are the features.")
    hidden: list[int] = option(
        factory=lambda: [64],
        doc="Widths of the hidden layers, 1 to 1,000,000 each.",
        validator=validators.deep_iterable(between(1, 1_000_000)),
    )
    activation: Literal["relu", "tanh"] = option("relu", doc="Between the layers.")

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from fscore.builtin.models import modules

        inputs = example.x[0].numel()
        return modules.dense(inputs, self.hidden, _outputs(classes, example), self.activation)


@define(eq=False, slots=False)
class FemnistCNN(HeadedModel):
    """Two 5x5 convolutions and one hidden layer: the FEMNIST model of LEAF (Caldas et al., 2018)."""

    name = "femnist_cnn"
    head: str = option("linear", doc="Dotted name of the module whose input are the features.")
    hidden: int = option(2048, doc="Width of the hidden layer.", validator=ge(1))

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from fscore.builtin.models import modules

        shape = _image(self.name, example, side=4)
        return modules.femnist_cnn(shape, self.hidden, _outputs(classes, example))


@define(eq=False, slots=False)
class CNN(HeadedModel):
    """Two 3x3 convolutions (32, 64) without padding, pooling and one hidden layer, for images of 32x32."""

    name = "cnn"
    head: str = option("linear", doc="Dotted name of the module whose input are the features.")
    hidden: int = option(128, doc="Width of the hidden layer.", validator=ge(1))

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from fscore.builtin.models import modules

        shape = _image(self.name, example, side=6)
        return modules.small_cnn(shape, self.hidden, _outputs(classes, example))


@define(eq=False, slots=False)
class CharLSTM(HeadedModel):
    """Embedding and stacked LSTM over characters (McMahan et al., AISTATS 2017, section 3).

    x: (samples, time) int64; outputs: (samples, time, vocabulary).
    """

    name = "char_lstm"
    head: str = option("linear", doc="Dotted name of the module whose input are the features.")
    embedding: int = option(8, doc="Length of a character's vector.", validator=ge(1))
    hidden: int = option(256, doc="Width of the LSTM.", validator=ge(1))
    layers: int = option(2, doc="Stacked LSTMs.", validator=ge(1))

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from fscore.builtin.models import modules

        if example.x.is_floating_point() or example.x.ndim != 2 or classes is None:
            raise ConfigError(
                f"model.use: '{self.name}' needs sequences of integers, but the data have samples of shape "
                f"{tuple(example.x.shape[1:])} and type {example.x.dtype}"
            )
        return modules.CharLSTM(classes, self.embedding, self.hidden, self.layers)


def _image(name: str, example: Samples, side: int) -> tuple[int, int, int]:
    """Return (channels, height, width) of the samples, at least `side` pixels high and wide."""
    shape = tuple(example.x.shape[1:])
    if len(shape) != 3 or min(shape[1:]) < side:
        raise ConfigError(
            f"model.use: '{name}' needs images (channels, height, width) of at least {side} pixels, but the data "
            f"have samples of shape {shape}"
        )
    return shape
