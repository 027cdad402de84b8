"""The torch modules of the built-in models; imported when one is built."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn


def dense(inputs: int, hidden: Sequence[int], outputs: int, activation: str) -> nn.Module:
    """Return fully connected layers: (samples, ...) -> (samples, outputs)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for i, width in enumerate(hidden):
        layers[f"hidden{i}"] = nn.Linear(inputs, width)
        layers[f"activation{i}"] = nn.ReLU() if activation == "relu" else nn.Tanh()
        inputs = width
    layers["linear"] = nn.Linear(inputs, outputs)
    return nn.Sequential(layers)


def femnist_cnn(shape: tuple[int, int, int], hidden: int, outputs: int) -> nn.Module:
    """Return the two-layer 5x5 CNN: (samples, channels, height, width) -> (samples, outputs)."""
    channels, height, width = shape
    flat = 64 * (height // 4) * (width // 4)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 5, padding=2),
            activation1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 5, padding=2),
            activation2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(flat, hidden),
            activation3=nn.ReLU(),
            linear=nn.Linear(hidden, outputs),
        )
    )


def small_cnn(shape: tuple[int, int, int], hidden: int, outputs: int) -> nn.Module:
    """Return the small CNN: (samples, channels, height, width) -> (samples, outputs)."""
    channels, height, width = shape
    flat = 64 * ((height - 4) // 2) * ((width - 4) // 2)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 32, 3),
            activation1=nn.ReLU(),
            conv2=nn.Conv2d(32, 64, 3),
            activation2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(flat, hidden),
            activation3=nn.ReLU(),
            linear=nn.Linear(hidden, outputs),
        )
    )


class CharLSTM(nn.Module):
    """Characters to logits of the next ones: (samples, time) -> (samples, time, vocabulary)."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.linear = nn.Linear(hidden, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits at every place."""
        states, _ = self.lstm(self.embedding(x))
        return self.linear(states)  # type: ignore[no-any-return]
