"""The run directory: everything that one run writes.

    run.json             the resolved course, its seed, the versions of every distribution in use
    metrics.jsonl        one line per version or evaluation
    result.json          how it ended
    model.safetensors    the final model
    snapshots/           see `fscore.builtin.record.snapshot`
    rows/                client rows, where they are kept on disk; see `fscore.builtin.stores`

Every field is documented in `docs/run-directory.md`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import itertools
import json
import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs
from attrs import define, field

from fscore.builtin.record.files import append_line, pack, unpack, write_file, writing
from fscore.errors import ConfigError, SnapshotError
from fscore.result import Recorder, Result

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.params import Tensors

FORMAT = 1
REAL_TIME = "real_seconds"
"""Name of every field that holds real time, which is no part of a comparison."""
_RUN_FILES = ("run.json", "metrics.jsonl", "result.json", "snapshots")
_NOT_IN_FILE = ("history", "run_dir", "model")


@define(eq=False)
class RunDirectory(Recorder):
    """One run's folder.

    `RunDirectory(path)` only reads. `create` and `open` are for the one process that writes; a second one is refused.
    """

    path: Path
    _lock: int | None = field(default=None, init=False)
    _snapshotted: float = field(factory=time.monotonic, init=False)
    """Real time of the last snapshot."""

    @classmethod
    def create(cls, path: Path | None, name: str) -> Self:
        """Make a folder for a new run: `path`, else `runs/NAME-001`, counting up.

        Raises:
            ConfigError: `path` already holds a run, or the folder cannot be made.
        """
        if path is None:
            run = cls(_fresh_folder(name))
        else:
            if path.exists() and not path.is_dir():
                raise ConfigError(f"--out: '{path}' is a file, expected a folder")
            with _config("--out", path):
                path.mkdir(parents=True, exist_ok=True)
            run = cls(path)
        run._take()
        if any((run.path / file).exists() for file in _RUN_FILES):
            run.close()
            raise ConfigError(
                f"--out: '{path}' already holds a run. Remedy: name another folder, or 'fscore resume {path}'."
            )
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a run in order to go on with it.

        Raises:
            SnapshotError: there is no such folder, it holds no run, or another process writes to it.
        """
        if not path.is_dir():
            raise SnapshotError(f"{path}: no such run directory")
        if not (path / "run.json").is_file():
            raise SnapshotError(f"{path}: not a run directory, it has no run.json")
        run = cls(path)
        run._take()
        return run

    @property
    def snapshots(self) -> Path:
        """The folder of the snapshots."""
        return self.path / "snapshots"

    @property
    def metrics_path(self) -> Path:
        """The file of the metrics."""
        return self.path / "metrics.jsonl"

    def write_run(self, fields: Mapping[str, Any]) -> None:
        """Write `run.json`: the given fields, exactly, besides `format` and `created`.

        Raises:
            CourseError: it could not be written.
        """
        created = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        content = _plain({"format": FORMAT, "created": created, **fields}, exact=True)
        write_file(self.path / "run.json", _pretty({**content, "sha256": _sha256(content)}))

    def read_run(self) -> dict[str, Any]:
        """Return the fields of `run.json`.

        Raises:
            SnapshotError: it is missing, unreadable, truncated or edited, or of another format.
        """
        fields = self._read_json("run.json")
        if fields.get("format") != FORMAT:
            raise SnapshotError(
                f"{self.path / 'run.json'}: format {fields.get('format')!r}, expected {FORMAT}"
            )
        if not isinstance(fields.get("course"), dict):
            raise SnapshotError(f"{self.path / 'run.json'}: it describes no course")
        if fields.pop("sha256", "") != _sha256(_plain(fields, exact=True)):
            raise SnapshotError(
                f"{self.path / 'run.json'}: it was edited or damaged since the run began (sha256 does not match)"
            )
        return fields

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line to `metrics.jsonl`; floats that are not finite become null.

        Raises:
            CourseError: it could not be written; the lines before it are untouched.
        """
        append_line(self.metrics_path, as_line(line))

    def offset(self) -> int:
        """Make the lines of `metrics.jsonl` durable; return its length in bytes, for a snapshot.

        Raises:
            CourseError: they could not be made durable.
        """
        path = self.metrics_path
        with writing(path), _opened(path, os.O_RDWR | os.O_CREAT) as descriptor:
            os.fsync(descriptor)
            return os.fstat(descriptor).st_size

    def cut(self, offset: int) -> None:
        """Cut `metrics.jsonl` back to the offset of a snapshot.

        Raises:
            SnapshotError: the file is missing or shorter, or no line ends there; then it is left as it is.
            CourseError: it could not be cut.
        """
        path = self.metrics_path
        if not path.exists():
            if offset:
                raise SnapshotError(f"{path}: it is missing, the snapshot expects {offset} bytes")
            return
        with writing(path), _opened(path, os.O_RDWR) as descriptor:
            size = os.fstat(descriptor).st_size
            if size < offset:
                raise SnapshotError(f"{path}: has {size} bytes, the snapshot expects {offset}")
            if offset and os.pread(descriptor, 1, offset - 1) != b"\n":
                raise SnapshotError(
                    f"{path}: no line ends at byte {offset}, as the snapshot expects"
                )
            os.ftruncate(descriptor, offset)

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yield the lines of `metrics.jsonl`; a last one that was cut off in the middle is left out.

        Raises:
            SnapshotError: the file cannot be read, or a whole line is no JSON object.
        """
        if not self.metrics_path.exists():
            return
        try:
            with self.metrics_path.open("rb") as file:
                for number, text in enumerate(file, 1):
                    if text.endswith(b"\n"):
                        yield _parse(text, f"{self.metrics_path}: line {number}")
        except OSError as error:
            raise SnapshotError(f"{self.metrics_path}: cannot read: {error.strerror}") from error

    def folder(self, name: str) -> Path:
        """Return a folder of the run for a component's own files, made on demand.

        Raises:
            CourseError: it cannot be made.
        """
        place = self.path / name
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        return place

    def changed(self, course: Course) -> bool:
        """Write a snapshot, if enough real time went by since the last.

        Raises:
            CourseError: it could not be written.
        """
        from fscore.builtin.record.resume import write

        wait = 0.0 if course.durable else course.config.record.snapshot_seconds
        if time.monotonic() - self._snapshotted < wait:
            return False
        write(course, self)
        self._snapshotted = time.monotonic()
        return True

    def finish(self, result: Result) -> None:
        """Write the final model and `result.json`, and let go of the folder."""
        self.write_model(result.model)
        self.write_result(result)
        self.close()

    def write_result(self, result: Result) -> None:
        """Write `result.json`: the fields of a result but `history`, `run_dir` and `model`.

        Raises:
            CourseError: it could not be written.
        """
        names = (f.name for f in attrs.fields(Result) if f.name not in _NOT_IN_FILE)
        fields = {name: getattr(result, name) for name in names}
        write_file(self.path / "result.json", _pretty(_plain(fields)))

    def read_result(self) -> dict[str, Any] | None:
        """Return the fields of `result.json`; None while the run has not ended.

        Raises:
            SnapshotError: it is unreadable or truncated.
        """
        return self._read_json("result.json") if (self.path / "result.json").exists() else None

    def write_model(self, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
        """Write `model.safetensors`.

        Raises:
            CourseError: it could not be written.
        """
        write_file(self.path / "model.safetensors", pack(tensors, metadata))

    def read_model(self) -> Tensors:
        """Return the tensors of `model.safetensors`.

        Raises:
            SnapshotError: it is missing, unreadable or truncated.
        """
        path = self.path / "model.safetensors"
        try:
            return unpack(path.read_bytes())
        except OSError as error:
            raise SnapshotError(f"{path}: cannot read: {error.strerror}") from error
        except SnapshotError as error:
            raise SnapshotError(f"{path}: {error}") from error

    def close(self) -> None:
        """Let another process write; a second call does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take(self) -> None:
        """Lock the folder for this process; a killed process lets go of it."""
        import fcntl

        with writing(self.path / ".lock"):
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise SnapshotError(f"{self.path}: another process is writing to this run") from None
        self._lock = lock

    def _read_json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            return _parse(path.read_bytes(), str(path))
        except OSError as error:
            raise SnapshotError(f"{path}: cannot read: {error.strerror}") from error


def comparable(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of metrics without real time: what two runs of one course have in common."""
    return {name: value for name, value in line.items() if name != REAL_TIME}


def _fresh_folder(name: str) -> Path:
    """Make and return the first free `runs/NAME-001`; two processes never get the same."""
    stem = re.sub(r"[^\w.-]+", "-", name).strip(".-") or "course"
    for number in itertools.count(1):
        path = Path("runs") / f"{stem}-{number:03d}"
        with _config("runs", path), contextlib.suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError


@contextlib.contextmanager
def _config(key: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError: the folder that the user chose cannot be used."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{key}: '{path}': {error.strerror}") from error


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def as_line(fields: Mapping[str, Any]) -> bytes:
    """Return fields as one line of JSON; floats that are not finite become null."""
    return json.dumps(_plain(fields), allow_nan=False).encode()


def _plain(value: Any, *, exact: bool = False) -> Any:
    """Return a value as JSON has it; NaN and infinities become null, or an object that `_parse` undoes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item, exact=exact) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, exact=exact) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)} if exact else None
    return str(value) if isinstance(value, Path) else value


def _sha256(fields: Any) -> str:
    return hashlib.sha256(_pretty(fields)).hexdigest()


def _pretty(fields: Any) -> bytes:
    return json.dumps(fields, indent=2, allow_nan=False).encode() + b"\n"


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        fields = json.loads(text, object_hook=_float_back)
    except (RecursionError, ValueError) as error:
        raise SnapshotError(f"{where}: truncated or no valid JSON: {error}") from error
    if not isinstance(fields, dict):
        raise SnapshotError(f"{where}: expected a JSON object")
    return fields


def _float_back(fields: dict[str, Any]) -> Any:
    """Undo how `run.json` writes a float that is not finite: {"float": "inf"}."""
    if list(fields) == ["float"] and fields["float"] in ("nan", "inf", "-inf"):
        return float(fields["float"])
    return fields
