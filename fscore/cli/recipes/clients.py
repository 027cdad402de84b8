"""Recipes for what lies at the clients, and on the path between them and the server."""

from __future__ import annotations

from fscore.cli.recipes.recipe import Recipe

TRAINER = Recipe(
    kind="trainer",
    plural="trainers",
    suffix="Trainer",
    suites="TrainerContract",
    about="local SGD that is pulled towards the model that was received",
    tables="""\
[trainer]
use = "$name"
lr = 0.01
pull = 0.1
""",
    more="""

def test_without_a_pull_it_is_sgd():
    own = fs_course('[trainer]\\nuse = "$name"\\npull = 0.0', plugins=[${title}Plugin])

    assert own.result.digest == fs_course().result.digest
""",
    code='''\
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.trainers import SGD
from fscore.component import ge, option

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.params import Tensors


@define(eq=False, slots=False)
class ${title}Trainer(SGD):
    """SGD with a proximal term: FedProx (Li et al., MLSys 2020, section 3)."""

    name = "$name"
    pull: float = option(0.1, doc="Weight of the proximal term.", validator=ge(0), per_client=True)

    def adjust(self, gradient: Tensors, variables: Tensors, context: Context) -> Tensors:
        drift = variables["model"] - self.received(context)
        return {"model": gradient["model"] + context.options["pull"] * drift}
''',
)

MODEL = Recipe(
    kind="model",
    plural="models",
    suffix="Model",
    suites="ModelContract",
    about="one hidden layer on flattened samples",
    tables="""\
[model]
use = "$name"
width = 8
""",
    arguments="width=8",
    code='''\
from collections import OrderedDict
from typing import TYPE_CHECKING

from attrs import define

from fscore.builtin.models.headed import HeadedModel
from fscore.component import ge, option

if TYPE_CHECKING:
    import torch

    from fscore.context import Samples


@define(eq=False, slots=False)
class ${title}Model(HeadedModel):
    """One hidden layer, on flattened samples."""

    name = "$name"
    head: str = option("head", doc="Dotted name of the module whose input are the features.")
    width: int = option(16, doc="Units of the hidden layer.", validator=ge(1))

    def build(self, example: Samples, classes: int | None) -> torch.nn.Module:
        from torch import nn

        inputs = example.x[0].numel()
        outputs = example.y[0].numel() if classes is None else classes
        layers = OrderedDict[str, nn.Module](
            flatten=nn.Flatten(),
            hidden=nn.Linear(inputs, self.width),
            activation=nn.Tanh(),
            head=nn.Linear(self.width, outputs),
        )
        return nn.Sequential(layers)
''',
)

OBJECTIVE = Recipe(
    kind="objective",
    plural="objectives",
    suffix="Objective",
    suites="ObjectiveContract",
    about="cross entropy with smoothed labels",
    tables="""\
[objective]
use = "$name"
smoothing = 0.1
""",
    code='''\
from typing import TYPE_CHECKING, ClassVar

from attrs import define

from fscore.component import between, option
from fscore.kinds.objective import Objective

if TYPE_CHECKING:
    import torch


@define(eq=False, slots=False)
class ${title}Objective(Objective):
    """Cross entropy with smoothed labels (Szegedy et al., CVPR 2016, section 7)."""

    name = "$name"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "loss")
    smoothing: float = option(0.1, doc="Share of all classes alike.", validator=between(0, 1))

    def losses(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logs = outputs.log_softmax(-1)  # (samples, classes)
        right = logs.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        return -(1 - self.smoothing) * right - self.smoothing * logs.mean(-1)
''',
)

METRIC = Recipe(
    kind="metric",
    plural="metrics",
    suffix="Metric",
    suites="MetricContract",
    about="the mean probability that a classifier gives the right class",
    tables="""\
[evaluation]
metrics = ["$name"]
""",
    code='''\
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.kinds.metric import Metric

if TYPE_CHECKING:
    import torch


@define(eq=False, slots=False)
class ${title}Metric(Metric):
    """Mean probability of the right class."""

    name = "$name"

    def sums(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        import torch

        right = outputs.softmax(-1).gather(-1, y.unsqueeze(-1)).double()
        return torch.stack([right.sum(), right.new_tensor(float(right.numel()))])

    def value(self, sums: Sequence[float]) -> float:
        return sums[0] / sums[1] if sums[1] else math.nan
''',
)

DATASET = Recipe(
    kind="dataset",
    plural="datasets",
    suffix="Dataset",
    suites="DatasetContract",
    about="two clouds of points per client",
    tables="""\
[data]
use = "$name"
clients = 20
""",
    code='''\
from typing import TYPE_CHECKING

import numpy as np
from attrs import define

from fscore.component import ge, option
from fscore.context import Samples
from fscore.kinds.dataset import Dataset

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class ${title}Dataset(Dataset):
    """Two clouds of points in the plane, one per class; each client has its own samples of them."""

    name = "$name"
    clients: int = option(20, doc="Number of clients.", validator=ge(1))
    points: int = option(30, doc="Training samples of a client.", validator=ge(1))
    distance: float = option(3.0, doc="Between the clouds, which have variance 1.", validator=ge(0))

    def bind(self, course: Course) -> None:
        self.streams = course.streams

    def size(self) -> int:
        return self.clients

    def client(self, client: int, part: str) -> Samples:
        import torch

        count = self.points if part == "train" else (self.points + 3) // 4
        rng = self.streams.generator(f"$name {part}", client)
        y = rng.integers(2, size=count)
        x = rng.normal(size=(count, 2)) + self.distance * y[:, None]
        return Samples(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y))

    def samples(self, client: int) -> int:
        return self.points

    def classes(self) -> int:
        return 2
''',
)

PARTITION = Recipe(
    kind="partition",
    plural="partitions",
    suffix="Partition",
    suites="PartitionContract",
    about="samples dealt at random, so that each client has twice as many as the one before",
    tables="""\
[data]
use = "digits"
partition = { use = "$name", clients = 5 }

[sampler]
clients = 2
""",
    arguments="clients=4",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import between, option
from fscore.errors import ConfigError
from fscore.kinds.partition import Partition

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@define(eq=False, slots=False)
class ${title}Partition(Partition):
    """Each client has twice as many samples as the one before."""

    name = "$name"
    clients: int = option(5, doc="Number of clients.", validator=between(1, 20))

    def split(
        self, y: NDArray[np.generic], natural: NDArray[np.int64] | None, rng: np.random.Generator
    ) -> Sequence[NDArray[np.int64]]:
        smallest = len(y) // (2**self.clients - 1)
        if not smallest:
            raise ConfigError(
                f"data.partition.clients: {len(y)} samples are too few for {self.clients} clients"
            )
        order = rng.permutation(len(y))
        edges = [smallest * (2**client - 1) for client in range(self.clients + 1)]
        return [order[a:b] for a, b in zip(edges, edges[1:], strict=False)]
''',
)

PRIVACY = Recipe(
    kind="privacy",
    plural="privacy_mechanisms",
    suffix="Mechanism",
    suites="PathContract, PrivacyContract",
    about="a bound on every single value of an update",
    tables="""\
[[privacy]]
use = "$name"
bound = 0.1
""",
    code='''\
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import gt, option
from fscore.kinds.privacy import PrivacyMechanism
from fscore.paths import Stage, elementwise

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.params import Layout, Tensors


class Bound(Stage):
    """Bounds every value of an update, at the client."""

    name = "bound"
    rank = 50

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def layout(self, before: Layout) -> Layout:
        self.before = before
        return before

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        bound = self.bound
        return elementwise(self.before, values, lambda v: v.clamp(-bound, bound)), {}


@define(eq=False, slots=False)
class ${title}Mechanism(PrivacyMechanism):
    """Bounds every value of an update; a guarantee needs noise as well."""

    name = "$name"
    bound: float = option(0.1, doc="Largest size of a value.", validator=gt(0))

    def stages(self) -> Iterable[Stage]:
        return (Bound(self.bound),)

    def announce(self) -> dict[str, float]:
        return {"${name}_bound": self.bound}
''',
)

COMPRESSOR = Recipe(
    kind="compressor",
    plural="compressors",
    suffix="Compressor",
    suites="CompressorContract",
    about="updates travel as 16-bit numbers",
    tables="""\
[[compressor]]
use = "$name"
""",
    more="""

def test_updates_are_half_as_large():
    own = fs_course('[[compressor]]\\nuse = "$name"', plugins=[${title}Plugin]).course
    model = 4 * own.space.size

    assert own.site.upload.nbytes == fs_course().course.site.upload.nbytes - model // 2
""",
    code='''\
from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define, evolve

from fscore.kinds.compressor import Compressor
from fscore.paths import Stage

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.params import Layout, Tensors
    from fscore.tasks import Cohort


class Halves(Stage):
    """Sends float32 groups as float16."""

    name = "halves"
    rank = 40
    lifts = True

    def layout(self, before: Layout) -> Layout:
        self.names = [n for n, g in before.items() if g.dtype == "float32" and not g.public]
        return {n: evolve(g, dtype="float16") if n in self.names else g for n, g in before.items()}

    def apply(self, values: Tensors, context: Context) -> tuple[Tensors, Tensors]:
        return {n: v.half() if n in self.names else v for n, v in values.items()}, {}

    def undo(self, values: Tensors, context: Context | Cohort) -> Tensors:
        return {n: v.float() if n in self.names else v for n, v in values.items()}


@define(eq=False, slots=False)
class ${title}Compressor(Compressor):
    """Sends updates as 16-bit numbers."""

    name = "$name"

    def stages(self) -> Iterable[Stage]:
        return (Halves(),)
''',
)

ATTACK = Recipe(
    kind="attack",
    plural="attacks",
    suffix="Attack",
    suites="PathContract, AttackContract",
    about="some clients send the opposite of what they should",
    tables="""\
[[attack]]
use = "$name"
clients = 1
""",
    arguments="clients=2",
    code='''\
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define

from fscore.component import ge, gt, option
from fscore.kinds.attack import Attack

if TYPE_CHECKING:
    import numpy as np
    import torch

    from fscore.kinds.population import Population
    from fscore.tasks import Cohort


@define(eq=False, slots=False)
class ${title}Attack(Attack):
    """Controlled clients send the negative of their honest update, enlarged."""

    name = "$name"
    colludes = "controlled"
    clients: int = option(1, doc="How many clients it controls.", validator=ge(1))
    scale: float = option(1.0, doc="Factor of what is sent.", validator=gt(0))

    def controls(self, population: Population, rng: np.random.Generator) -> frozenset[int]:
        return frozenset(population.draw(self.clients, 0.0, rng))

    def craft(
        self, honest: torch.Tensor, mine: Sequence[int], cohort: Cohort, rng: np.random.Generator
    ) -> torch.Tensor:
        return -self.scale * honest[mine]
''',
)

RECIPES = (
    TRAINER,
    MODEL,
    OBJECTIVE,
    METRIC,
    DATASET,
    PARTITION,
    PRIVACY,
    COMPRESSOR,
    ATTACK,
)
