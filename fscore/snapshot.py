"""Snapshots on disk: safetensors and JSON, written atomically, checked by digest. No pickle, no class lookup by path."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from fscore.errors import SnapshotError
from fscore.record import write_atomically

KEY = "~"


class Codec:
    """Turns plain data, tensors and instances of known frozen attrs classes into JSON and tensors, and back."""

    def __init__(self, classes: Iterable[type]) -> None:
        self.classes = {cls.__name__: cls for cls in classes}

    def encode(self, data: Any) -> tuple[Any, dict[str, Any]]:
        """Return a document for JSON, and the tensors that it refers to."""
        tensors: dict[str, Any] = {}
        seen: dict[int, str] = {}
        return self._encode(data, tensors, seen), tensors

    def _encode(self, value: Any, tensors: dict[str, Any], seen: dict[int, str]) -> Any:
        def inner(entry: Any) -> Any:
            return self._encode(entry, tensors, seen)

        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, float):
            return value if np.isfinite(value) else {KEY: "float", "v": repr(value)}
        if isinstance(value, list):
            return [inner(entry) for entry in value]
        if isinstance(value, tuple):
            return {KEY: "tuple", "v": [inner(entry) for entry in value]}
        if isinstance(value, dict):
            return {KEY: "dict", "v": [[inner(k), inner(v)] for k, v in value.items()]}
        if hasattr(value, "untyped_storage"):
            name = seen.setdefault(id(value), f"t{len(seen)}")
            tensors[name] = value.detach().contiguous()
            return {KEY: "tensor", "v": name}
        if isinstance(value, np.generic):
            return inner(value.item())
        if type(value).__name__ in self.classes:
            fields = {a.name: inner(getattr(value, a.name)) for a in attrs.fields(type(value))}
            return {KEY: type(value).__name__, "v": fields}
        raise SnapshotError(f"a snapshot cannot hold a {type(value).__name__}")

    def decode(self, document: Any, tensors: dict[str, Any]) -> Any:
        """Return the data of a document."""
        if isinstance(document, list):
            return [self.decode(entry, tensors) for entry in document]
        if not isinstance(document, dict):
            return document
        tag, value = document[KEY], document["v"]
        plain: dict[str, Callable[[], Any]] = {
            "float": lambda: float(value),
            "tuple": lambda: tuple(self.decode(entry, tensors) for entry in value),
            "dict": lambda: {self.decode(k, tensors): self.decode(v, tensors) for k, v in value},
            "tensor": lambda: tensors[value],
        }
        if tag in plain:
            return plain[tag]()
        if tag not in self.classes:
            raise SnapshotError(f"the snapshot names '{tag}', which this course does not have")
        fields = {name: self.decode(entry, tensors) for name, entry in value.items()}
        return self.classes[tag](**fields)


def write_snapshot(folder: Path, number: int, data: Any, codec: Codec) -> Path:
    """Write snapshot `number` as one folder that appears whole; return it."""
    from safetensors.torch import save

    document, tensors = codec.encode(data)
    blob = save({name: tensor.clone() for name, tensor in tensors.items()})
    text = json.dumps(document).encode()
    final, part = folder / f"{number:08d}", folder / f"{number:08d}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write_atomically(part / "tensors.safetensors", blob)
    write_atomically(part / "state.json", text)
    write_atomically(part / "sha256", _digest(text, blob).encode())
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    return final


def read_snapshot(path: Path, codec: Codec) -> Any:
    """Return the data of one snapshot.

    Raises:
        SnapshotError: it is torn or tampered with.
    """
    from safetensors.torch import load

    try:
        text = (path / "state.json").read_bytes()
        blob = (path / "tensors.safetensors").read_bytes()
        stated = (path / "sha256").read_text()
    except OSError as error:
        raise SnapshotError(f"{path}: torn: {error.strerror}") from error
    if stated != _digest(text, blob):
        raise SnapshotError(f"{path}: its contents do not match its sha256")
    return codec.decode(json.loads(text), load(blob))


def latest(folder: Path, codec: Codec) -> tuple[Any, Path, list[str]] | None:
    """Return the newest whole snapshot, its place, and a line about each newer one that was refused.

    Raises:
        SnapshotError: there are snapshots, and none of them is whole.
    """
    refused: list[str] = []
    for path in sorted(_numbered(folder), reverse=True):
        try:
            return read_snapshot(path, codec), path, refused
        except SnapshotError as error:
            refused.append(str(error))
    if refused:
        raise SnapshotError("\n".join(refused))
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` snapshots."""
    for path in sorted(_numbered(folder))[:-keep]:
        shutil.rmtree(path)


def _numbered(folder: Path) -> list[Path]:
    return [p for p in folder.glob("[0-9]*") if p.is_dir() and not p.name.endswith(".part")]


def _digest(*parts: bytes) -> str:
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little") + part)
    return hasher.hexdigest()
