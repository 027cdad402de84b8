"""Recipes for machines: devices, availability, faults, executors, stores."""

from __future__ import annotations

from fscore.cli.recipes.recipe import Recipe

DEVICES = Recipe(
    kind="devices",
    plural="devices",
    suffix="Devices",
    suites="DevicesContract",
    about="clients of even ids are fast, the others slow",
    tables="""\
[devices]
use = "$name"
slow = 4.0
""",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import ge, gt, option
from fscore.kinds.devices import Devices

if TYPE_CHECKING:
    import numpy as np

    from fscore.events import Message


@define(eq=False, slots=False)
class ${title}Devices(Devices):
    """Clients of odd ids take longer to compute; all have the same link."""

    name = "$name"
    pace: float = option(0.01, doc="Seconds per sample gradient.", validator=ge(0))
    slow: float = option(4.0, doc="How many times as long odd ids take.", validator=ge(1))
    bandwidth: float = option(1e6, doc="Bytes per second.", validator=gt(0))

    def seconds(self, client: int, work: float, now: float, rng: np.random.Generator) -> float:
        return work * self.pace * (self.slow if client % 2 else 1.0)

    def deliver(
        self, message: Message, nbytes: int, now: float, rng: np.random.Generator
    ) -> Sequence[float]:
        return (now + nbytes / self.bandwidth,)
''',
)

AVAILABILITY = Recipe(
    kind="availability",
    plural="availabilities",
    suffix="Availability",
    suites="AvailabilityContract",
    about="clients are online in turns",
    tables="""\
[devices]
use = "constant"
if_offline = "pause"
availability = { use = "$name" }
""",
    code='''\
import math

from attrs import define

from fscore.component import between, gt, option
from fscore.kinds.availability import Availability


@define(eq=False, slots=False)
class ${title}Availability(Availability):
    """Each client is online for a share of every period, which begins later for larger ids."""

    name = "$name"
    period: float = option(64.0, doc="Seconds.", validator=gt(0))
    share: float = option(0.75, doc="Share of the period online.", validator=between(0.1, 0.9))

    def session(self, client: int, now: float) -> tuple[float, float]:
        shift = client * 7.0 % self.period
        length = self.share * self.period
        begin = math.floor((now - shift) / self.period) * self.period + shift
        if now >= begin + length:
            begin += self.period
        return begin, begin + length
''',
)

FAULT = Recipe(
    kind="fault",
    plural="faults",
    suffix="Fault",
    suites="FaultContract",
    about="some messages arrive late",
    tables="""\
[[faults]]
use = "$name"
rate = 0.3
late = 5.0
""",
    arguments="rate=0.3",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.faults.base import RandomFault
from fscore.component import ge, option

if TYPE_CHECKING:
    from fscore.events import Message


@define(eq=False, slots=False)
class ${title}Fault(RandomFault):
    """Messages arrive late, each with the probability `rate`."""

    name = "$name"
    late: float = option(5.0, doc="Virtual seconds.", validator=ge(0))

    def deliver(self, arrivals: Sequence[float], message: Message, now: float) -> Sequence[float]:
        if not self.strikes_message(message, now):
            return arrivals
        return [at + self.late for at in arrivals]
''',
)

EXECUTOR = Recipe(
    kind="executor",
    plural="executors",
    suffix="Executor",
    suites="ExecutorContract",
    about="one client at a time, the last batch first",
    tables="""\
[executor]
use = "$name"
""",
    code='''\
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.executors.base import OneByOne

if TYPE_CHECKING:
    from fscore.site import Site
    from fscore.tasks import Batch, BatchOutput


@define(eq=False, slots=False)
class ${title}Executor(OneByOne):
    """Computes batches in the reverse order, which changes no bit."""

    name = "$name"

    def start(self, site: Site) -> None:
        self.lane = self.lane_of(site)

    def compute(self, batches: Sequence[Batch]) -> Iterator[BatchOutput]:
        done = [self.lane.batch(batch) for batch in reversed(batches)]
        return reversed(done)
''',
)

STORE = Recipe(
    kind="store",
    plural="stores",
    suffix="Store",
    suites="StoreContract",
    about="rows of clients in a dictionary",
    tables="""\
[store]
use = "$name"
""",
    code='''\
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field

from fscore.builtin.stores.checked import CheckedStore
from fscore.errors import SnapshotError

if TYPE_CHECKING:
    from pathlib import Path

    from fscore.params import Layout, Tensors


@define(eq=False, slots=False)
class ${title}Store(CheckedStore):
    """Rows in a dictionary."""

    name = "$name"
    rows: dict[int, Tensors] = field(factory=dict, init=False)

    def open(self, layout: Layout, first: Tensors, folder: Path | None = None) -> None:
        super().open(layout, first)
        self.rows = {}

    def clients(self) -> list[int]:
        return sorted(self.rows)

    def read(self, client: int) -> Tensors | None:
        row = self.rows.get(client)
        return None if row is None else {n: v.clone() for n, v in row.items()}

    def write(self, client: int, row: Tensors) -> None:
        self.rows[client] = {n: v.clone() for n, v in row.items()}

    def mark(self) -> dict[str, Any]:
        return {"rows": dict(self.rows)}

    def restore(self, mark: Mapping[str, Any]) -> None:
        shapes = {name: tuple(group.shape) for name, group in self.layout.items()}
        for row in mark["rows"].values():
            if {name: tuple(value.shape) for name, value in row.items()} != shapes:
                raise SnapshotError("client rows: they do not fit the layout of this course")
        self.rows = dict(mark["rows"])
''',
)

RECIPES = (DEVICES, AVAILABILITY, FAULT, EXECUTOR, STORE)
