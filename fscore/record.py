"""The run directory: everything that one run writes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from attrs import asdict, field, frozen

from fscore.errors import ConfigError, CourseError, SnapshotError

if TYPE_CHECKING:
    from fscore.params import Tensors

REAL_TIME = ("real_seconds",)
"""Fields of a line of metrics that are not part of a comparison between runs."""


@frozen
class Result:
    """What a course gave."""

    name: str
    status: Literal["complete", "partial", "failed"]
    """`complete`: it reached its end; `partial`: it did, but some cohorts failed; `failed`."""
    reason: str
    versions: int
    digest: str
    """sha256 over the final version."""
    metrics: dict[str, float]
    history: tuple[dict[str, Any], ...] = field(repr=False)
    """The lines of `metrics.jsonl`."""
    per_client: dict[str, dict[int, dict[str, float]]] = field(repr=False)
    virtual_time: float
    real_seconds: float
    tasks: dict[str, int]
    bytes: dict[str, int]
    run_dir: Path | None = None
    model: Tensors = field(factory=dict, repr=False)

    @property
    def exit_code(self) -> int:
        """0 for complete and partial courses, 1 for failed ones."""
        return 1 if self.status == "failed" else 0


@frozen
class RunDirectory:
    """A folder with run.json, metrics.jsonl, result.json, model.safetensors and snapshots/."""

    path: Path

    @classmethod
    def create(cls, path: Path | None, name: str) -> RunDirectory:
        """Make a run directory: the given one, or a fresh one under `runs/`.

        Raises:
            ConfigError: the given folder holds a run already, or cannot be made.
        """
        if path is not None:
            if (path / "run.json").exists():
                raise ConfigError(f"--out: '{path}' already holds a run. Remedy: name another folder.")
            _or_config_error("--out", path, lambda: path.mkdir(parents=True, exist_ok=True))
            return cls(path)
        base = Path("runs")
        number = 1
        while True:
            fresh = base / f"{name}-{number:03d}"
            try:
                fresh.mkdir(parents=True)
            except FileExistsError:
                number += 1
            except OSError as error:
                raise ConfigError(f"{fresh}: {error.strerror}") from error
            else:
                return cls(fresh)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open the directory of a run that shall be resumed.

        Raises:
            SnapshotError: there is no run.
        """
        if not (path / "run.json").is_file():
            raise SnapshotError(f"{path}: not a run directory, it has no run.json")
        return cls(path)

    @property
    def snapshots(self) -> Path:
        """Folder of the snapshots."""
        return self.path / "snapshots"

    def write_run(self, data: Mapping[str, Any]) -> None:
        """Write run.json: the resolved course, seed, and versions of the distributions in use."""
        self._write("run.json", json.dumps(data, indent=2).encode())

    def read_run(self) -> dict[str, Any]:
        """Return run.json.

        Raises:
            SnapshotError: it cannot be read.
        """
        try:
            return dict(json.loads((self.path / "run.json").read_text()))
        except (OSError, ValueError) as error:
            raise SnapshotError(f"{self.path / 'run.json'}: cannot be read: {error}") from error

    def append(self, line: Mapping[str, Any]) -> None:
        """Append one JSON object to metrics.jsonl; numbers that are not finite become null."""
        text = json.dumps({key: _plain(value) for key, value in line.items()}) + "\n"
        file = self.path / "metrics.jsonl"
        try:
            with file.open("a") as stream:
                stream.write(text)
        except OSError as error:
            raise CourseError(f"{file}: {error.strerror}") from error

    def offset(self) -> int:
        """Return the length of metrics.jsonl in bytes."""
        file = self.path / "metrics.jsonl"
        return file.stat().st_size if file.exists() else 0

    def cut(self, offset: int) -> None:
        """Cut metrics.jsonl back to a snapshot's offset.

        Raises:
            SnapshotError: the file is shorter than that.
        """
        file = self.path / "metrics.jsonl"
        if self.offset() < offset:
            raise SnapshotError(f"{file}: has {self.offset()} bytes, the snapshot expects {offset}")
        if file.exists():
            os.truncate(file, offset)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl."""
        file = self.path / "metrics.jsonl"
        return [json.loads(line) for line in file.open()] if file.exists() else []

    def write_result(self, result: Result) -> None:
        """Write result.json."""
        hidden = {"model", "history", "run_dir"}
        data = asdict(result, filter=lambda a, _: a.name not in hidden, recurse=False)
        self._write("result.json", json.dumps(_plain(data), indent=2).encode())

    def write_model(self, slots: Tensors) -> None:
        """Write model.safetensors: the slots of the final version."""
        from safetensors.torch import save

        self._write("model.safetensors", save({n: v.contiguous() for n, v in slots.items()}))

    def _write(self, name: str, content: bytes) -> None:
        write_atomically(self.path / name, content)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a whole file or nothing; what was there before stays until then.

    Raises:
        CourseError: the disk is full or the file cannot be written.
    """
    part = file.with_name(file.name + ".part")
    try:
        with part.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise CourseError(f"{file}: {error.strerror}") from error


def comparable(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of metrics without its real-time fields."""
    return {key: value for key, value in line.items() if key not in REAL_TIME}


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return value


def _or_config_error(key: str, path: Path, action: Any) -> None:
    try:
        action()
    except OSError as error:
        raise ConfigError(f"{key}: '{path}': {error.strerror}") from error
