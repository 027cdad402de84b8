"""Snapshots: the whole state of a course in typed tensors and JSON, written so that it is there entirely or not at all.

A snapshot is a folder, `snapshots/000012`, of two files: `state.json` holds everything but the tensors, which lie in
`tensors.safetensors`. The first field of `state.json` is a sha256 over every other byte of both. Nothing in a file can
name code: instances are looked up by bare class name among the classes that the course handed in.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from fscore.errors import CourseError, PluginError, SnapshotError, nearest
from fscore.params import ITEM_BYTES, Tensors

if TYPE_CHECKING:
    import torch

FORMAT = 1
MAX_STATE_BYTES = 1 << 30
"""Largest `state.json` that is written or read."""

_PLAIN = frozenset({type(None), bool, int, str})
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_SHA_FIELD = re.compile(rb'\{"sha256": "([0-9a-f]{64})", ')
_MALFORMED = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)

# ----------------------------------------------------------------------------------------- plain data


class Codec:
    """Turns plain data into a JSON document and tensors, and back to equal data of the same types.

    Plain data are None, bool, int, float (NaN and infinities too), str, bytes, list, tuple, dict with keys of scalars or
    tuples, numpy numbers and arrays, tensors, and instances of `classes`. A tensor or array that occurs in several places
    is stored once, and is one object again. Sets have no order of their own and are refused, as is everything else.

    Args:
        classes: attrs classes whose instances may occur (events, tasks); their `init` fields are kept.

    Raises:
        PluginError: two of the classes have the same name.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._classes: dict[str, type] = {}
        for cls in classes:
            other = self._classes.setdefault(cls.__name__, cls)
            if other is not cls:
                raise PluginError(
                    f"'{other.__module__}' and '{cls.__module__}' both define a class '{cls.__name__}': "
                    "events of one course need different names"
                )
        self._fields = {
            cls: {field.name: field.alias for field in attrs.fields(cls) if field.init}
            for cls in self._classes.values()
        }

    def encode(self, data: Any) -> tuple[Any, Tensors]:
        """Return a JSON document and the tensors that it refers to; they are not copied where they need not be.

        Raises:
            SnapshotError: something cannot be kept; the text says where it is.
        """
        encoder = _Encoder(self._fields)
        try:
            return encoder.encode(data, "state"), encoder.tensors
        except RecursionError:
            raise SnapshotError("state: nested too deep to be kept in a snapshot") from None

    def decode(self, document: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
        """Return what `encode` was given; tensors are on the CPU and contiguous.

        Raises:
            SnapshotError: the document is malformed or names something unknown.
        """
        try:
            return _Decoder(self._classes, self._fields, tensors).decode(document)
        except _MALFORMED as error:
            raise SnapshotError(f"state: malformed ({type(error).__name__}: {error})") from error


class _Encoder:
    """One pass over the data; collects tensors by name."""

    def __init__(self, fields: Mapping[type, Mapping[str, str | None]]) -> None:
        import numpy as np
        import torch

        self.tensors: Tensors = {}
        self._fields = fields
        self._names: dict[int, str] = {}
        self._number = np.generic
        self._kinds: dict[type, Callable[[Any, str], Any]] = {
            float: self._float,
            bytes: lambda value, where: {"bytes": base64.b64encode(value).decode()},
            list: self._list,
            tuple: lambda value, where: {"tuple": self._list(value, where)},
            dict: self._dict,
            torch.Tensor: self._tensor,
            np.ndarray: self._array,
        }

    def encode(self, value: Any, where: str) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if encode := self._kinds.get(kind):
            return encode(value, where)
        if kind in self._fields:
            return self._instance(value, where)
        if isinstance(value, self._number) and value.dtype.name in ITEM_BYTES:
            return {"number": [value.dtype.name, self.encode(value.item(), where)]}
        raise _refused(where, f"'{kind.__module__}.{kind.__qualname__}'")

    def _float(self, value: float, where: str) -> Any:
        return value if math.isfinite(value) else {"float": str(value)}

    def _list(self, values: Iterable[Any], where: str) -> list[Any]:
        return [self.encode(value, f"{where}[{i}]") for i, value in enumerate(values)]

    def _dict(self, value: dict[Any, Any], where: str) -> Any:
        if all(type(key) is str for key in value):
            return {"dict": {key: self.encode(v, f"{where}.{key}") for key, v in value.items()}}
        pairs = (
            [self.encode(key, where), self.encode(v, f"{where}.{key}")] for key, v in value.items()
        )
        return {"pairs": list(pairs)}

    def _instance(self, value: Any, where: str) -> Any:
        name = type(value).__name__
        fields = {
            field: self.encode(getattr(value, field), f"{where}.{field}")
            for field in self._fields[type(value)]
        }
        return {"instance": [name, fields]}

    def _tensor(self, value: torch.Tensor, where: str) -> Any:
        import torch

        dtype = str(value.dtype).removeprefix("torch.")
        if dtype not in ITEM_BYTES or value.layout is not torch.strided:
            raise _refused(where, f"a tensor of {value.dtype}, {value.layout}")
        if value.requires_grad:
            raise _refused(where, "a tensor that requires gradients")
        return {"tensor": self._keep(value, value)}

    def _array(self, value: Any, where: str) -> Any:
        import numpy as np
        import torch

        if not value.dtype.isnative or value.dtype.name not in ITEM_BYTES:
            raise _refused(where, f"an array of {value.dtype.str}")
        return {"array": self._keep(value, torch.from_numpy(np.array(value, order="C")))}

    def _keep(self, original: object, tensor: torch.Tensor) -> str:
        name = self._names.setdefault(id(original), str(len(self._names)))
        self.tensors.setdefault(name, tensor.detach().cpu().contiguous())
        return name


class _Decoder:
    """The inverse of `_Encoder`: every object of the document has one field, which says what it is."""

    def __init__(
        self,
        classes: Mapping[str, type],
        fields: Mapping[type, Mapping[str, str | None]],
        tensors: Mapping[str, torch.Tensor],
    ) -> None:
        self._classes, self._fields, self._tensors = classes, fields, tensors
        self._arrays: dict[str, Any] = {}
        self._kinds: dict[str, Callable[[Any], Any]] = {
            "float": _NOT_FINITE.__getitem__,
            "bytes": lambda text: base64.b64decode(text, validate=True),
            "tuple": lambda items: tuple(map(self.decode, items)),
            "dict": lambda items: {key: self.decode(value) for key, value in items.items()},
            "pairs": lambda pairs: {self.decode(key): self.decode(value) for key, value in pairs},
            "instance": self._instance,
            "number": self._number,
            "tensor": self._tensors.__getitem__,
            "array": self._array,
        }

    def decode(self, document: Any) -> Any:
        if isinstance(document, list):
            return [self.decode(item) for item in document]
        if not isinstance(document, dict):
            return document
        ((kind, content),) = document.items()
        return self._kinds[kind](content)

    def _instance(self, content: Any) -> Any:
        name, values = content
        cls = self._classes.get(name)
        if cls is None:
            hint = nearest(str(name), self._classes)
            raise SnapshotError(f"state: '{name}' is no class of this course{hint}")
        known = self._fields[cls]
        arguments = {str(known[field]): self.decode(value) for field, value in values.items()}
        try:
            return cls(**arguments)
        except Exception as error:
            raise SnapshotError(f"state: no valid '{name}': {error}") from error

    def _number(self, content: Any) -> Any:
        import numpy as np

        dtype, value = content
        if dtype not in ITEM_BYTES:
            raise ValueError(f"'{dtype}' is no type of a number")
        return np.dtype(dtype).type(self.decode(value))

    def _array(self, name: str) -> Any:
        return self._arrays.setdefault(name, self._tensors[name].numpy())


def _refused(where: str, what: str) -> SnapshotError:
    return SnapshotError(
        f"{where}: {what} cannot be kept in a snapshot, expected plain data, tensors or an event of this course"
    )


# ------------------------------------------------------------------------------------------ snapshots


def write_snapshot(folder: Path, number: int, data: Any, codec: Codec) -> Path:
    """Write `folder/000012` for number 12, durable when this returns; one of that number is replaced.

    Raises:
        SnapshotError: something in `data` cannot be kept.
        CourseError: it could not be written (full disk); the snapshots before it are untouched.
    """
    path = folder / f"{number:06d}"
    document, tensors = codec.encode(data)
    packed = pack(tensors)
    rest = _to_json({"format": FORMAT, "number": number, "state": document})
    if len(rest) > MAX_STATE_BYTES:
        raise SnapshotError(
            f"{path}: state.json would have {len(rest)} bytes, the most is {MAX_STATE_BYTES}"
        )
    state = b'{"sha256": "%b", %b' % (_sha256(rest, packed).encode(), rest)
    fresh = folder / f".{path.name}.new"
    with writing(path):
        try:
            _discard(fresh)
            fresh.mkdir(parents=True)
            _write_durably(fresh / "tensors.safetensors", packed)
            _write_durably(fresh / "state.json", state)
            sync_folder(fresh)
            _discard(path)
            fresh.rename(path)
            sync_folder(folder)
        except OSError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    return path


def read_snapshot(path: Path, codec: Codec) -> Any:
    """Return the data of one snapshot.

    Raises:
        SnapshotError: a file is missing, torn or tampered with, or does not fit this course.
    """
    name = f"{path.parent.name}/{path.name}"
    state = _read(path / "state.json", name, MAX_STATE_BYTES + 128)
    packed = _read(path / "tensors.safetensors", name)
    head = _SHA_FIELD.match(state)
    if head is None or head[1].decode() != _sha256(memoryview(state)[head.end() :], packed):
        raise SnapshotError(f"{name}: sha256 does not match")
    try:
        fields = json.loads(state, parse_constant=_not_json)
        if (fields["format"], fields["number"]) != (FORMAT, int(path.name)):
            raise SnapshotError(
                f"format {fields['format']}, number {fields['number']}; expected {FORMAT}, {int(path.name)}"
            )
        return codec.decode(fields["state"], unpack(packed))
    except SnapshotError as error:
        raise SnapshotError(f"{name}: {error}") from error
    except _MALFORMED as error:
        raise SnapshotError(f"{name}: malformed ({type(error).__name__}: {error})") from error


def latest(
    folder: Path, codec: Codec, use: Callable[[Any], object] = lambda data: None
) -> tuple[Any, Path, list[str]] | None:
    """Return the newest usable snapshot: its data, its path, and one line per newer one that was skipped.

    Args:
        folder: the run's `snapshots`.
        codec: knows the classes of the course.
        use: called with the data; if it raises SnapshotError, the snapshot before is tried.

    Returns:
        None if there is no snapshot at all.

    Raises:
        SnapshotError: there are snapshots, but none can be used; one line each.
    """
    problems: list[str] = []
    for path in reversed(_snapshots(folder)):
        try:
            data = read_snapshot(path, codec)
            use(data)
        except SnapshotError as error:
            problem = str(error)
            prefix = f"{folder.name}/{path.name}: "
            problems.append(problem if problem.startswith(prefix) else prefix + problem)
        else:
            return data, path, [f"{problem}; using {path.name}" for problem in problems]
    if problems:
        raise SnapshotError("\n".join(problems))
    return None


def prune(folder: Path, keep: int) -> None:
    """Remove all but the newest `keep` snapshots (at least 1), and what a killed process left half done.

    Raises:
        CourseError: something could not be removed.
    """
    with writing(folder):
        for path in [*_snapshots(folder)[:-keep], *folder.glob(".*")]:
            _discard(path)


def _snapshots(folder: Path) -> list[Path]:
    """Return the snapshots of a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(r"[0-9]{6,}", path.name))
    return sorted(found, key=lambda path: int(path.name))


def _discard(path: Path) -> None:
    """Remove a folder so that its name is never that of a half removed one."""
    if not path.exists():
        return
    if not path.name.startswith("."):
        path = path.rename(path.with_name(f".{path.name}.old"))
    shutil.rmtree(path)


def _sha256(rest: bytes | memoryview, packed: bytes) -> str:
    hasher = hashlib.sha256(rest)
    hasher.update(packed)
    return hasher.hexdigest()


def _to_json(fields: Mapping[str, Any]) -> bytes:
    """Return a JSON object without its opening brace."""
    try:
        return json.dumps(fields, allow_nan=False).encode()[1:]
    except (RecursionError, ValueError) as error:
        raise SnapshotError(f"state: cannot be written as JSON: {error}") from error


def _not_json(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _read(path: Path, name: str, limit: int | None = None) -> bytes:
    try:
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise SnapshotError(f"{name}: {path.name} has {size} bytes, the most is {limit}")
        return path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{name}: cannot read {path.name}: {error.strerror}") from error


# ------------------------------------------------------------------------------------ files in general


def pack(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """Return tensors as a safetensors file; those that share memory are stored one by one."""
    from safetensors.torch import save

    seen: set[int] = set()
    own: Tensors = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        own[name] = tensor.clone() if memory in seen else tensor
        seen.add(memory)
    return save(own, metadata)


def unpack(packed: bytes) -> Tensors:
    """Return the tensors of a safetensors file.

    Raises:
        SnapshotError: it is no safetensors file, or a truncated one.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return dict(load(packed))
    except SafetensorError as error:
        raise SnapshotError(f"no valid safetensors file: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into one line that names the file.

    Raises:
        CourseError: writing failed.
    """
    try:
        yield
    except OSError as error:
        raise CourseError(f"{path}: cannot write: {error.strerror}") from error


def write_file(path: Path, content: bytes) -> None:
    """Replace a file's content atomically and durably.

    Raises:
        CourseError: it could not be written; what was there before is still there.
    """
    fresh = path.with_name(f".{path.name}.new")
    with writing(path):
        try:
            _write_durably(fresh, content)
            fresh.replace(path)
            sync_folder(path.parent)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
