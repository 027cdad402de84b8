"""The attacks of the course file: what they have in common, and those that search for images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attrs import define

from fs_inversion import checks
from fscore.component import finite, ge, option, state
from fscore.kinds.attack import Attack

if TYPE_CHECKING:
    import torch

    from fs_inversion.known import Known, Target
    from fs_inversion.search import LBFGS, Adam, Found
    from fscore.context import Samples
    from fscore.course import Course


@define(eq=False, slots=False)
class Inversion(Attack):
    """Reconstructs images of chosen versions' updates; a subclass says how, in `reconstruct`.

    It is given what its adversary may see and nothing else. Its claims are scored by the kernel's scorer, with the clients'
    training images; pictures, JSON and a paragraph go into the folder `inversion` of the run.
    """

    adversary: Literal["server", "observer", "released"] = option(
        "server", doc="Who attacks: the curious server, an observer of the wire, or who sees released models only."
    )  # fmt: skip
    versions: list[int] = option(factory=lambda: [0], doc="Versions whose updates are attacked.")
    targets: int = option(
        1, doc="Updates of a cohort that are attacked, the first in its order.", validator=ge(1)
    )
    images: int | None = option(
        None, doc="Samples that the adversary takes a client to have; default: as the client's weight says.",
        validator=ge(1),
    )  # fmt: skip
    max_images: int = option(
        8, doc="Images that are reconstructed of one target at most.", validator=ge(1)
    )
    low: float = option(0.0, doc="Lowest value of a pixel.", validator=finite())
    high: float = option(1.0, doc="Highest value of a pixel.", validator=finite())
    threshold: float = option(
        30.0, doc="PSNR in dB from which on an image counts as recovered.", validator=finite()
    )
    released: dict[str, Any] = state(dict)

    recovers_labels: ClassVar[bool] = True

    @property
    def sees(self) -> frozenset[str]:  # type: ignore[override]
        """What the adversary is shown."""
        from fs_inversion.views import SEES

        return SEES[self.adversary]

    @property
    def plays(self) -> str:
        """The adversary, as reports name it."""
        return self.adversary

    def bind(self, course: Course) -> None:
        """Copy the public model; remember the public facts of the course and where reports go."""
        from fs_inversion.known import Known, Training

        self.training = Training.of(course.trainer)
        self.key = next((t for t, c in course.components.items() if c is self), "attack")
        self.record, self.streams, self.initial = course.record, course.streams, course.initial
        self.server_lr = float(getattr(course.server_optimizer, "lr", 1.0))
        parts = course.trainer.parts(course.space)
        self.known: Known = Known.of(
            course.module,
            course.space,
            tuple(course.example.x.shape[1:]),
            course.dataset.classes() or 0,
            hidden=(*parts["private"], *parts.get("frozen", ())),
            low=self.low,
            high=self.high,
        )

    def check(self, course: Course) -> Iterable[str]:
        """Refuse courses that the attack cannot read, before they run."""
        yield from checks.data(self, course)
        yield from checks.versions(self, course)
        yield from checks.adversary(self, course)
        yield from checks.amount(self, course)

    def observe(self, view: Mapping[str, Any]) -> Mapping[str, Any]:
        before = self.released.get("model", self.initial)
        if "released" in view:
            self.released = {"model": view["released"]["model"].clone()}
        version = view["version"]
        if version not in self.versions:
            return {}
        guesses = [self._guess(target, version) for target in self.targets_of(view, before)]
        return {"version": version, "guesses": guesses}

    def targets_of(self, view: Mapping[str, Any], before: torch.Tensor) -> list[Target]:
        """Return what is inverted of a cohort."""
        from fs_inversion.views import targets

        return targets(
            view,
            self.adversary,
            self.training,
            most=self.targets,
            images=self.images,
            before=before,
            server_lr=self.server_lr,
        )

    def _guess(self, target: Target, version: int) -> dict[str, Any]:
        from torch import Generator

        rng = self.streams.generator(self.key, version, *target.clients)
        generator = Generator().manual_seed(int(rng.integers(2**62)))
        found = self.reconstruct(target.limited(self.max_images), generator)
        return {
            "clients": list(target.clients),
            "images": target.images,
            "x": found.x,
            "y": found.y.tolist() if self.recovers_labels else [],
        }

    def reconstruct(self, target: Target, generator: torch.Generator) -> Found:
        """Return the images (images, *shape) and classes (images,) that an update is made of."""
        raise NotImplementedError

    def score(self, claims: Mapping[str, Any], truth: Mapping[int, Samples]) -> Mapping[str, float]:
        from fs_inversion.report import metrics_of, write
        from fs_inversion.scoring import scored

        results = [scored(guess, truth, self.low, self.high) for guess in claims["guesses"]]
        if self.record is not None:
            folder = self.record.folder("inversion")
            stem = f"{self.key.replace('.', '-')}-{self.name}-version-{claims['version']}"
            head = {"attack": self.name, "adversary": self.plays, "version": claims["version"]}
            write(folder, stem, head, results, self.threshold)
        values = metrics_of(results, self.threshold)
        return {f"{self.plays}_{name}": value for name, value in values.items()}


@define(eq=False, slots=False)
class Search(Inversion):
    """Searches for images whose gradient, or whose unrolled local steps, give the update that was seen."""

    labels: Literal["joint", "negative", "counts", "smallest", "idlg"] = option(
        "negative", doc="How classes are recovered: searched for jointly, or from the last layer's gradient."
    )  # fmt: skip
    matching: Literal["euclidean", "cosine", "l1"] = option(
        "euclidean", doc="Distance of two gradients."
    )
    start: Literal["normal", "uniform", "grey", "patterned"] = option(
        "normal", doc="Where the search begins."
    )
    restarts: int = option(
        1, doc="Searches, of which the one with the smallest objective counts.", validator=ge(1)
    )
    iterations: int = option(100, doc="Iterations of a search.", validator=ge(1))
    tv: float = option(0.0, doc="Weight of total variation in the objective.", validator=ge(0))
    l2: float = option(0.0, doc="Weight of the mean square of the pixels.", validator=ge(0))
    augmentation: Literal["none", "noise", "shift", "flip"] = option(
        "none", doc="Change of the images before their gradient is taken."
    )
    ignore_zeros: bool = option(
        False, doc="Compare only values that are not zero in the update: an answer to pruning and Soteria."
    )  # fmt: skip

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from checks.head(self, course)

    def reconstruct(self, target: Target, generator: torch.Generator) -> Found:
        from fs_inversion.augment import AUGMENTATIONS
        from fs_inversion.matching import MATCHINGS
        from fs_inversion.search import Objective, search
        from fs_inversion.starts import STARTS

        objective = Objective(
            self.known,
            target,
            MATCHINGS[self.matching],
            self.tv,
            self.l2,
            AUGMENTATIONS[self.augmentation],
            self.ignore_zeros,
        )
        return search(
            objective,
            self.optimiser(),
            self._classes(target, generator),
            generator,
            start=STARTS[self.start],
            restarts=self.restarts,
        )

    def optimiser(self) -> LBFGS | Adam:
        """Return what moves the guess."""
        from fs_inversion.search import LBFGS

        return LBFGS(self.iterations)

    def _classes(self, target: Target, generator: torch.Generator) -> torch.Tensor | None:
        from fs_inversion.labels import recover

        if self.labels == "joint":
            return None
        return recover(self.known, target, self.labels, generator)


@define(eq=False, slots=False)
class DLG(Search):
    """Deep leakage from gradients (Zhu et al., NeurIPS 2019, algorithm 1): images and labels jointly, by L-BFGS."""

    name = "dlg"
    labels: Literal["joint", "negative", "counts", "smallest", "idlg"] = option(
        "joint", doc="How classes are recovered: searched for jointly, or from the last layer's gradient."
    )  # fmt: skip


@define(eq=False, slots=False)
class IDLG(Search):
    """Improved DLG (Zhao et al., arXiv 2001.02610, 2020): labels are read first, then images are searched for.

    For one image the rule `negative` is that of the paper; for several it goes on as Wainakh et al. (PoPETs 2022).
    """

    name = "idlg"


@define(eq=False, slots=False)
class InvertingGradients(Search):
    """Inverting gradients (Geiping et al., NeurIPS 2020): cosine similarity and total variation, by signed Adam."""

    name = "inverting_gradients"
    matching: Literal["euclidean", "cosine", "l1"] = option(
        "cosine", doc="Distance of two gradients."
    )
    start: Literal["normal", "uniform", "grey", "patterned"] = option(
        "uniform", doc="Where the search begins."
    )
    restarts: int = option(
        3, doc="Searches, of which the one with the smallest objective counts.", validator=ge(1)
    )
    iterations: int = option(2000, doc="Iterations of a search.", validator=ge(1))
    tv: float = option(0.01, doc="Weight of total variation in the objective.", validator=ge(0))
    lr: float = option(0.1, doc="Step, in units of the range of the data.", validator=ge(0))
    signed: bool = option(True, doc="Adam sees the signs of the gradient only.")

    def optimiser(self) -> LBFGS | Adam:
        from fs_inversion.search import Adam

        step = self.lr * (self.high - self.low)
        return Adam(self.iterations, step, self.signed, self.low, self.high)
