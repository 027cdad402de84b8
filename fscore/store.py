"""Client rows: the state that a client keeps between its tasks."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from attrs import define, field

from fscore.errors import PluginError, SnapshotError
from fscore.params import Layout, Tensors, as_bytes, layout_nbytes


@define(eq=False)
class Store(ABC):
    """Rows by client; a client without one has the first row. What `get` returns is never written into."""

    layout: Layout
    first: Tensors

    def get(self, client: int) -> Tensors:
        """Return a client's row."""
        return self._find(client) or self.first

    def put(self, client: int, row: Tensors) -> None:
        """Commit the changed tensors of a client's row.

        Raises:
            PluginError: a name or a shape that was not declared.
        """
        for name, value in row.items():
            if name not in self.layout:
                raise PluginError(f"trainer: row '{name}' of client {client} was not declared in row()")
            if tuple(value.shape) != self.layout[name].shape:
                raise PluginError(
                    f"trainer: row '{name}' has shape {tuple(value.shape)}, declared {self.layout[name].shape}"
                )
        self._keep(client, {**self.get(client), **row})

    @abstractmethod
    def _find(self, client: int) -> Tensors | None: ...

    @abstractmethod
    def _keep(self, client: int, row: Tensors) -> None: ...

    @abstractmethod
    def mark(self) -> dict[str, Any]:
        """Make everything so far durable and return plain data that `restore` takes."""

    @abstractmethod
    def restore(self, mark: dict[str, Any]) -> None:
        """Go back to a mark."""


@define(eq=False)
class MemoryStore(Store):
    """Rows in memory; its mark holds them all."""

    _rows: dict[int, Tensors] = field(factory=dict, init=False)

    def _find(self, client: int) -> Tensors | None:
        return self._rows.get(client)

    def _keep(self, client: int, row: Tensors) -> None:
        self._rows[client] = row

    def mark(self) -> dict[str, Any]:
        return {"rows": dict(self._rows)}

    def restore(self, mark: dict[str, Any]) -> None:
        self._rows = dict(mark["rows"])


@define(eq=False)
class DiskStore(Store):
    """Rows in an append-only file of records of equal size: client, checksum, values."""

    folder: Path
    _index: dict[int, int] = field(factory=dict, init=False)
    _end: int = field(default=0, init=False)

    HEADER = 16

    def __attrs_post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def file(self) -> Path:
        """The file of records."""
        return self.folder / "rows.bin"

    @property
    def record(self) -> int:
        """Bytes of one record."""
        return self.HEADER + layout_nbytes(self.layout)

    def _find(self, client: int) -> Tensors | None:
        if client not in self._index:
            return None
        with self.file.open("rb") as stream:
            stream.seek(self._index[client])
            return self._decode(stream.read(self.record))[1]

    def _keep(self, client: int, row: Tensors) -> None:
        body = b"".join(bytes(as_bytes(row[name].contiguous())) for name in self.layout)
        head = client.to_bytes(8, "little") + zlib.crc32(body).to_bytes(8, "little")
        with self.file.open("r+b" if self.file.exists() else "w+b") as stream:
            stream.seek(self._end)
            stream.write(head + body)
        self._index[client] = self._end
        self._end += self.record

    def mark(self) -> dict[str, Any]:
        if self.file.exists():
            with self.file.open("rb") as stream:
                os.fsync(stream.fileno())
        return {"end": self._end}

    def restore(self, mark: dict[str, Any]) -> None:
        """Go back to a mark.

        Raises:
            SnapshotError: the file is shorter than the mark, or a record is damaged.
        """
        self._index.clear()
        self._end = int(mark["end"])
        if not self._end:
            return
        if not self.file.exists() or self.file.stat().st_size < self._end:
            raise SnapshotError(f"{self.file}: shorter than the snapshot expects")
        with self.file.open("rb") as stream:
            for offset in range(0, self._end, self.record):
                client, _ = self._decode(stream.read(self.record))
                self._index[client] = offset

    def _decode(self, content: bytes) -> tuple[int, Tensors]:
        import torch

        client = int.from_bytes(content[:8], "little")
        body = content[self.HEADER :]
        if zlib.crc32(body) != int.from_bytes(content[8:16], "little"):
            raise SnapshotError(f"{self.file}: a record of client {client} is damaged")
        row, start = {}, 0
        for name, group in self.layout.items():
            piece = bytearray(body[start : start + group.nbytes])
            row[name] = torch.frombuffer(piece, dtype=getattr(torch, group.dtype)).reshape(group.shape)
            start += group.nbytes
        return client, row
