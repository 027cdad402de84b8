"""The data of the benchmark: settings that need no file, and two that read the folder FSCORE_DATA."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from attrs import field, frozen

Tables = dict[str, Any]


@frozen
class Setting:
    """Tables that replace those of the example files, and the accuracy to reach."""

    name: str
    target: float
    versions: int
    """At most that many synchronous versions' worth of updates."""
    tables: Tables = field(factory=dict)
    archive: str = ""
    """Folder of FSCORE_DATA that it needs."""
    usual: bool = True
    """Whether it is run when nobody names settings: a CNN takes a day of one core."""


CIFAR: Tables = {
    "data": {
        "use": "npz", "scale": 255.0, "unseen_clients": 0,
        "partition": {"use": "dirichlet", "alpha": 0.2, "clients": 200, "min_samples": 10},
    },
    "model": {"use": "mlp", "hidden": [64]},
    "trainer": {"use": "sgd", "lr": 0.02, "epochs": 2, "batch_size": 20},
    "evaluation": {"every": 2, "parts": ["test"]},
}  # fmt: skip


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("digits", 0.90, 150, {"evaluation": {"every": 1, "parts": ["test"]}}),
        Setting(
            "logistic",
            0.55,
            150,
            {
                "data": {
                    "use": "synthetic", "alpha": 0.0, "beta": 0.0, "clients": 100, "unseen_clients": 0,
                    "max_samples": 400,
                },
                "model": {"use": "softmax"},
                "trainer": {"use": "sgd", "lr": 0.05, "epochs": 2, "batch_size": 10},
                "evaluation": {"every": 1, "parts": ["test"]},
            },
        ),
        Setting(
            "writers",
            0.86,
            100,
            {
                "data": {"use": "npz", "scale": 255.0, "unseen_clients": 0.2, "partition": {"use": "natural"}},
                "model": {"use": "softmax"},
                "trainer": {"use": "sgd", "lr": 0.03, "epochs": 1, "batch_size": 10},
                "evaluation": {"every": 1, "parts": ["test"], "clients": 150},
            },
            archive="mnist_writers",
        ),
        Setting("cifar10", 0.35, 150, CIFAR, archive="cifar10"),
        Setting(
            "cifar10_cnn",
            0.25,
            100,
            {
                **CIFAR,
                "model": {"use": "cnn"},
                "trainer": {"use": "sgd", "lr": 0.05, "epochs": 1, "batch_size": 20},
                "evaluation": {"every": 2, "parts": ["test"], "clients": 60},
            },
            archive="cifar10",
            usual=False,
        ),
    )
}  # fmt: skip


def source(setting: Setting) -> Path | None:
    """Return the folder that a setting reads; None: it needs none.

    Raises:
        FileNotFoundError: it is absent; the message says how to name it.
    """
    if not setting.archive:
        return None
    root = os.environ.get("FSCORE_DATA", "")
    folder = Path(root, setting.archive)
    if not root or not folder.is_dir():
        raise FileNotFoundError(
            f"{setting.name}: skipped, FSCORE_DATA names no folder with {setting.archive}/ (see README.md)"
        )
    return folder


def prepare(setting: Setting, folder: Path) -> Tables:
    """Return the tables of a setting; write the npz file that they name into `folder`."""
    found = source(setting)
    if found is None:
        return setting.tables
    path = folder / f"{setting.name}.npz"
    arrays = writers(found) if setting.archive == "mnist_writers" else cifar(found)
    np.savez(path, **arrays)
    return {**setting.tables, "data": {**setting.tables["data"], "path": str(path)}}


def writers(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return MNIST by writer: x (samples, 784) uint8, y, client."""
    parts = [np.load(path, allow_pickle=False) for path in sorted(folder.glob("train*.npz"))]
    x, y, client = (np.concatenate([part[key] for part in parts]) for key in ("x", "y", "writer"))
    return {"x": x.reshape(len(x), -1), "y": y, "client": client}


def cifar(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the 50,000 training images of CIFAR-10: x (samples, 3, 32, 32) uint8, y."""
    from PIL import Image

    images, labels = [], []
    for path in sorted(folder.glob("train*.npz")):
        part = np.load(path, allow_pickle=False)
        raw, offset = part["jpg"].tobytes(), part["offset"]
        labels.append(part["y"])
        for i in range(len(part["y"])):
            image = Image.open(io.BytesIO(raw[offset[i] : offset[i + 1]]))
            images.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    return {"x": np.stack(images), "y": np.concatenate(labels)}
