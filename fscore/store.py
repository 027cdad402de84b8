"""Client rows: what each client keeps between its tasks (a personal model, error feedback), in memory or on disk.

A row holds one tensor per name of a layout. A client that has none yet has the first row. Rows change only when the
kernel commits them.
"""

from __future__ import annotations

import errno
import os
import re
import struct
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fscore.errors import PluginError, SnapshotError, nearest
from fscore.files import sync_folder, writing
from fscore.params import Layout, Tensors, as_bytes, layout_nbytes, zeros

if TYPE_CHECKING:
    import torch

COMPACT_BYTES = 1 << 20
"""A log smaller than this is not worth compacting."""
_HEAD = struct.Struct("<qI")
"""Of a record: client and crc32 over the client and the row."""


class Store(ABC):
    """Rows of all clients.

    Args:
        layout: shape and dtype by name; may be empty.
        first: the row of a client that has none yet.

    Raises:
        PluginError: the first row does not fit the layout.
    """

    def __init__(self, layout: Layout, first: Tensors) -> None:
        self.layout = dict(layout)
        self._first = {name: first[name].detach().cpu().clone() for name in layout if name in first}
        self._check("first row", first)
        if missing := [name for name in layout if name not in first]:
            raise PluginError(f"first row: '{missing[0]}' is missing")

    def get(self, client: int) -> Tensors:
        """Return a client's row, or the first row; the tensors are copies, and the caller's to change.

        Raises:
            SnapshotError: the row was damaged on disk.
        """
        row = self._read(client)
        return {n: t.clone() for n, t in self._first.items()} if row is None else row

    def put(self, client: int, row: Tensors) -> None:
        """Store a row; names that are left out keep their values. The tensors are copied.

        Raises:
            PluginError: an unknown name, or a shape or dtype that is not the layout's.
            CourseError: the row could not be written (full disk); rows already stored are untouched.
        """
        if not row:
            return
        self._check(f"row of client {client}", row)
        if len(row) < len(self.layout):
            row = {**self.get(client), **row}
        self._write(client, {name: row[name].detach().cpu() for name in self.layout})

    @abstractmethod
    def clients(self) -> list[int]:
        """Return the clients that have a row, ascending."""

    @abstractmethod
    def mark(self) -> dict[str, Any]:
        """Make all rows durable; return plain data that `restore` goes back to."""

    @abstractmethod
    def restore(self, mark: Mapping[str, Any]) -> None:
        """Go back to a mark; later marks lose their meaning.

        Raises:
            SnapshotError: the mark does not fit the layout or the files; then nothing was changed.
        """

    def close(self) -> None:
        """Release files; the store is of no use afterwards."""

    @abstractmethod
    def _read(self, client: int) -> Tensors | None: ...

    @abstractmethod
    def _write(self, client: int, row: Tensors) -> None: ...

    def _check(self, whose: str, row: Tensors) -> None:
        for name, tensor in row.items():
            if name not in self.layout:
                hint = nearest(name, self.layout)
                raise PluginError(f"{whose}: unknown name '{name}'{hint}")
            group = self.layout[name]
            actual = (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
            if actual != (group.dtype, tuple(group.shape)):
                raise PluginError(
                    f"{whose}: '{name}' is {actual[0]} {actual[1]}, expected {group.dtype} {tuple(group.shape)}"
                )


class MemoryStore(Store):
    """Rows in memory: one tensor (capacity, *shape) per name. A mark holds all rows, and is a copy."""

    def __init__(self, layout: Layout, first: Tensors) -> None:
        super().__init__(layout, first)
        self._places: dict[int, int] = {}
        self._rows = {name: tensor.unsqueeze(0)[:0] for name, tensor in zeros(layout).items()}
        self._capacity = 0

    def clients(self) -> list[int]:
        return sorted(self._places)

    def mark(self) -> dict[str, Any]:
        import torch

        count = len(self._places)
        return {
            "clients": torch.tensor(list(self._places), dtype=torch.int64),
            "rows": {name: rows[:count].clone() for name, rows in self._rows.items()},
        }

    def restore(self, mark: Mapping[str, Any]) -> None:
        clients, rows = mark["clients"].tolist(), mark["rows"]
        shapes = {n: ((len(clients), *g.shape), f"torch.{g.dtype}") for n, g in self.layout.items()}
        if {n: (tuple(t.shape), str(t.dtype)) for n, t in rows.items()} != shapes:
            raise SnapshotError("client rows: they do not fit the layout of this course")
        self._places = {client: place for place, client in enumerate(clients)}
        self._rows = {name: rows[name].clone() for name in self.layout}
        self._capacity = len(clients)

    def _read(self, client: int) -> Tensors | None:
        place = self._places.get(client)
        if place is None:
            return None
        return {name: rows[place].clone() for name, rows in self._rows.items()}

    def _write(self, client: int, row: Tensors) -> None:
        place = self._places.setdefault(client, len(self._places))
        if place >= self._capacity:
            self._grow(max(16, 2 * self._capacity))
        for name, tensor in row.items():
            self._rows[name][place] = tensor

    def _grow(self, capacity: int) -> None:
        for name, rows in self._rows.items():
            larger = rows.new_zeros((capacity, *rows.shape[1:]))
            larger[: self._capacity] = rows
            self._rows[name] = larger
        self._capacity = capacity


class DiskStore(Store):
    """Rows in an append-only log; memory holds only where each client's latest record lies.

    When more than half of the log is superseded, a mark copies the rest into a new log. The old one is removed once none
    of the last `keep` marks refers to it, so that every snapshot that is kept can be restored.

    Args:
        layout: shape and dtype by name.
        first: the row of a client that has none yet.
        folder: where the logs lie; it belongs to this store alone.
        keep: how many marks stay usable: the number of snapshots kept.
        compact_bytes: smallest log that is compacted.
    """

    def __init__(
        self,
        layout: Layout,
        first: Tensors,
        folder: Path,
        keep: int = 2,
        compact_bytes: int = COMPACT_BYTES,
    ) -> None:
        super().__init__(layout, first)
        self.folder = folder
        self._compact_bytes = compact_bytes
        self._width = layout_nbytes(layout)
        self._index: dict[int, int] = {}
        self._marked: deque[str] = deque(maxlen=keep)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._log = self._new_log()

    def clients(self) -> list[int]:
        return sorted(self._index)

    def mark(self) -> dict[str, Any]:
        for path in self._logs():
            if path.name not in (*self._marked, self._log.path.name):
                path.unlink()
        live = len(self._index) * self._log.record
        if self._log.end >= self._compact_bytes and self._log.end > 2 * live:
            self._compact()
        self._log.sync()
        self._marked.append(self._log.path.name)
        return {
            "file": self._log.path.name,
            "offset": self._log.end,
            "count": len(self._index),
            "crc": self._log.chain,
        }

    def restore(self, mark: Mapping[str, Any]) -> None:
        name = str(mark["file"])
        path = self.folder / name
        if not re.fullmatch(r"[0-9]{6,}\.rows", name) or not path.is_file():
            raise SnapshotError(f"{path}: no such file of client rows")
        log = _Log(path, self._width)
        try:
            index = dict(log.scan(mark["offset"]))
            if (log.chain, len(index)) != (mark["crc"], mark["count"]):
                raise SnapshotError(f"{path}: not the rows of this snapshot (crc32 does not match)")
            log.cut()
        except BaseException:
            log.close()
            raise
        self._log.close()
        self._log, self._index = log, index
        for later in self._logs():
            if later.name > name:
                later.unlink()
        self._marked.clear()
        self._marked.extend(path.name for path in self._logs())

    def close(self) -> None:
        self._log.close()

    def _read(self, client: int) -> Tensors | None:
        offset = self._index.get(client)
        return None if offset is None else self._decode(self._log.read(offset))

    def _write(self, client: int, row: Tensors) -> None:
        self._index[client] = self._log.append(client, self._encode(row))

    def _encode(self, row: Tensors) -> bytes:
        return b"".join(as_bytes(row[name].contiguous()) for name in self.layout)

    def _decode(self, record: bytearray) -> Tensors:
        import torch

        memory: torch.Tensor = torch.frombuffer(record, dtype=torch.uint8)
        row, start = {}, _HEAD.size
        for name, group in self.layout.items():
            stop = start + group.nbytes
            values = memory[start:stop].clone().view(getattr(torch, group.dtype))
            row[name] = values.view(group.shape)
            start = stop
        return row

    def _logs(self) -> list[Path]:
        """Return the logs, oldest first."""
        return sorted(self.folder.glob("*.rows"))

    def _new_log(self) -> _Log:
        number = max((int(path.stem) for path in self._logs()), default=0) + 1
        path = self.folder / f"{number:06d}.rows"
        with writing(path):
            path.touch(exist_ok=False)
            sync_folder(self.folder)
        return _Log(path, self._width)

    def _compact(self) -> None:
        fresh, index = self._new_log(), {}
        try:
            for client, offset in sorted(self._index.items(), key=lambda item: item[1]):
                record = self._log.read(offset)
                index[client] = fresh.append(client, memoryview(record)[_HEAD.size :])
        except BaseException:
            fresh.close()
            fresh.path.unlink()
            raise
        self._log.close()
        self._log, self._index = fresh, index


class _Log:
    """A file of records of equal size: client, crc32, row. What lies behind `end` does not count.

    `chain` is a crc32 over the heads of all records up to `end`: it tells one history of the file from another.
    """

    def __init__(self, path: Path, width: int) -> None:
        self.path = path
        self.record = _HEAD.size + width
        self.end = 0
        self.chain = 0
        with writing(path):
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def append(self, client: int, row: bytes | memoryview) -> int:
        """Write a record; return its offset."""
        offset = self.end
        head = _HEAD.pack(client, _crc(client, row))
        with writing(self.path):
            if os.pwrite(self._descriptor, head + row, offset) != self.record:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.end += self.record
        self.chain = zlib.crc32(head, self.chain)
        return offset

    def read(self, offset: int) -> bytearray:
        """Return a whole record."""
        record = bytearray(self.record)
        try:
            read = os.preadv(self._descriptor, [record], offset)
        except OSError as error:
            raise SnapshotError(f"{self.path}: cannot read: {error.strerror}") from error
        client, crc = _HEAD.unpack_from(record)
        if read != self.record or crc != _crc(client, memoryview(record)[_HEAD.size :]):
            number = offset // self.record
            raise SnapshotError(f"{self.path}: record {number} is damaged (crc32 does not match)")
        return record

    def scan(self, end: int) -> Iterator[tuple[int, int]]:
        """Yield (client, offset) of every record up to `end`, which becomes the log's end."""
        size = os.fstat(self._descriptor).st_size
        if end > size or end % self.record:
            raise SnapshotError(
                f"{self.path}: {size} bytes of client rows, the snapshot needs {end}"
            )
        while self.end < end:
            head = self.read(self.end)[: _HEAD.size]
            yield _HEAD.unpack(head)[0], self.end
            self.chain = zlib.crc32(head, self.chain)
            self.end += self.record

    def cut(self) -> None:
        """Remove what lies behind the end."""
        with writing(self.path):
            os.ftruncate(self._descriptor, self.end)

    def sync(self) -> None:
        """Make every record durable."""
        with writing(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Release the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _crc(client: int, row: bytes | memoryview) -> int:
    return zlib.crc32(row, zlib.crc32(client.to_bytes(8, "little", signed=True)))
