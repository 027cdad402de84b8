"""Device models and availability from files: JSON or CSV, plain or gzipped, checked when they are read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from attrs import define

from fscore.builtin.bounds import MOST
from fscore.builtin.devices.base import Timed
from fscore.component import option
from fscore.errors import ConfigError

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.population import Population
    from fscore.rng import Streams

Rows = list[dict[str, str]]
Assign = Literal["id", "random"]
MOST_BYTES = 1 << 30
"""The largest trace, unpacked, that is read."""


def load(path: str) -> Any:
    """Return the JSON document of a file, or the rows of a CSV file with a header; `.gz` is unpacked.

    Raises:
        ConfigError: naming the file.
    """
    file = Path(path)
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: larger than {MOST_BYTES} bytes")
    try:
        text = content.decode()
        if ".csv" in file.suffixes:
            return list(csv.DictReader(io.StringIO(text)))
        return json.loads(text)
    except (UnicodeDecodeError, RecursionError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path}: no JSON, and no CSV by its name: {error}") from error


def number(path: str, who: str, what: str, value: Any, least: float = 0.0) -> float:
    """Return a number that is at least `least` and at most MOST.

    Raises:
        ConfigError: naming the file and the place in it.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not least <= found <= MOST:
        bound = f"at most {MOST:g}" if found > MOST else f"at least {least:g}"
        raise ConfigError(
            f"{path}: client {who}: {what} must be a number of {bound}, got {value!r}"
        )
    return found


def places(
    path: str, ids: Sequence[str], assign: Assign, population: Population, streams: Streams
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return which entry of a trace each client has (clients,).

    Raises:
        ConfigError: `id`, and clients and entries are not the same.
    """
    if not ids:
        raise ConfigError(f"{path}: no entries")
    size = population.size
    if assign == "random":
        return streams.generator(f"trace {path}").integers(len(ids), size=size)
    found = np.full(size, -1, dtype=np.int64)
    for place, name in enumerate(ids):
        client = int(name) if str(name).isdecimal() else -1
        if not 0 <= client < size:
            raise ConfigError(
                f"{path}: there is no client {name!r}, ids are 0 to {size - 1}. "
                'Remedy: assign = "random" gives each client an entry at random.'
            )
        found[client] = place
    missing = np.flatnonzero(found < 0)
    if len(missing):
        raise ConfigError(
            f"{path}: no entry for client {missing[0]} ({len(missing)} are missing). "
            'Remedy: assign = "random" gives each client an entry at random.'
        )
    return found


@define(eq=False, slots=False)
class Trace(Timed):
    """Devices of a file, in the form of FedScale and FederatedScope.

    JSON: {"0": {"computation": ms per sample, "communication": kbit/s}, ...}; CSV with a header: client, computation,
    communication. The files that those systems ship are pickles: write them as JSON first.
    """

    name = "trace"
    path: str = option(doc="The .json or .csv file, or either with .gz.")
    assign: Assign = option(
        "id", doc="Entries belong to clients by id, or each client has one at random."
    )

    def bind(self, course: Course) -> None:
        """Read the file.

        Raises:
            ConfigError: naming the file and the entry.
        """
        super().bind(course)
        entries = _speeds(self.path, load(self.path))
        ids = list(entries)
        self.entry = places(self.path, ids, self.assign, course.population, course.streams)
        self.speeds = np.array([entries[name] for name in ids])

    def milliseconds(self, client: int, rng: np.random.Generator) -> float:
        return float(self.speeds[self.entry[client], 0])

    def kbits(self, client: int) -> float | None:
        return float(self.speeds[self.entry[client], 1])


def _speeds(path: str, found: Any) -> dict[str, tuple[float, float]]:
    """Return (computation, communication) by id."""
    if isinstance(found, list):
        found = by_client(path, found)
    if not isinstance(found, Mapping):
        raise ConfigError(f"{path}: expected an object of clients")
    speeds = {}
    for name, entry in found.items():
        if not isinstance(entry, Mapping):
            raise ConfigError(
                f"{path}: client {name}: expected computation and communication, got {entry!r}"
            )
        computation = number(path, name, "computation", entry.get("computation"))
        communication = number(path, name, "communication", entry.get("communication"), 1e-9)
        speeds[str(name)] = (computation, communication)
    return speeds


def by_client(path: str, rows: Sequence[Any]) -> dict[str, Any]:
    """Return rows with a field `client` by that field.

    Raises:
        ConfigError: a row has none, or two have the same.
    """
    found: dict[str, Any] = {}
    for place, row in enumerate(rows):
        name = row.get("client") if isinstance(row, Mapping) else None
        if name is None:
            raise ConfigError(f"{path}: entry {place} has no field 'client'")
        if str(name) in found:
            raise ConfigError(f"{path}: client {name} has two entries")
        found[str(name)] = row
    return found
