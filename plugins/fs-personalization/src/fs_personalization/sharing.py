"""Partial sharing: which part of the model is common, which stays at the client, and what is trained when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_personalization.common import keep, matched, trains, union
from fscore.builtin.trainers import SGD
from fscore.component import ge, option
from fscore.context import Phase
from fscore.params import Ranges, intersect

if TYPE_CHECKING:
    from fscore.context import Context
    from fscore.course import Course
    from fscore.params import ParamSpace

NORMS = "*BatchNorm*"
"""Class names of batch norms, as a pattern."""
MOST = 1000
"""Clients that are looked at before a course."""


@define(eq=False, slots=False)
class FedBN(SGD):
    """FedBN (Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021, section 3).

    Batch normalisation stays at the client: weights, biases and running statistics of every module of such a class,
    whatever its name. What `private` names stays there beside it.
    """

    name = "fedbn"

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        space = course.space
        norms = space.part(kinds=[NORMS])
        if not norms:
            modules = ", ".join(space.modules())
            yield f"trainer.use: 'fedbn' keeps batch norm at the client, but the model has none (modules: {modules})"

    def advise(self, course: Course) -> Iterable[str]:
        """Say where a batch of one sample has no variance."""
        yield from super().advise(course)
        if not course.space.part(kinds=["BatchNorm1d"]) or not self.batch_size:
            return
        clients = range(min(course.population.size, MOST))
        lone = [c for c in clients if course.dataset.samples(c) % self.batch_size == 1]
        if lone:
            yield (
                f"trainer.batch_size: the last batch of {len(lone)} of {len(clients)} clients has one sample, of which batch "
                f"norm has no variance: their tasks fail (client {lone[0]}). Remedy: another batch_size."
            )

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        return keep(space, super().parts(space), space.part(kinds=[NORMS]))


@define(eq=False, slots=False)
class Split(SGD):
    """A model divided into a head and its base."""

    head: list[str] = option(
        factory=list,
        doc="Modules of the head: names or classes, as patterns; default: the model's own head.",
    )

    def bind(self, course: Course) -> None:
        super().bind(course)
        self.heads = tuple(self.head) or (course.model.head,)

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        if self.heads == ("",):
            yield (
                "trainer.head: the model does not say which module is its head. "
                'Remedy: set trainer.head = ["name"].'
            )
            return
        yield from matched(course, "trainer.head", self.heads)

    def left(self, space: ParamSpace) -> Iterable[str]:
        """Leave a head that is nothing or everything to `check`."""
        head = self.parts(space)["head"]
        return super().left(space) if head and head != space.whole else ()

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        """Return `shared`, `private`, `frozen`, and beside them `head` and `base`."""
        head = space.part(kinds=self.heads, names=self.heads)
        return {**super().parts(space), "head": head, "base": space.complement(head)}


@define(eq=False, slots=False)
class FedPer(Split):
    """FedPer (Arivazhagan et al., Federated Learning with Personalization Layers, 2019, algorithm 1).

    The base is shared, the head stays at the client, both are trained together.
    """

    name = "fedper"

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        parts = super().parts(space)
        return keep(space, parts, parts["head"])


@define(eq=False, slots=False)
class LGFedAvg(Split):
    """LG-FedAvg (Liang et al., Think Locally, Act Globally: FL with Local and Global Representations, 2020, algorithm 1).

    The representation stays at the client, the head is shared, both are trained together.
    """

    name = "lg_fedavg"

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        parts = super().parts(space)
        return keep(space, parts, parts["base"])


@define(eq=False, slots=False)
class FedRep(FedPer):
    """FedRep (Collins et al., Exploiting Shared Representations for Personalized FL, ICML 2021, algorithm 1).

    As FedPer, but the client first trains its head on the base as it is, then the base under that head. Fine-tuning
    trains the head alone.
    """

    name = "fedrep"
    head_epochs: float = option(
        1.0, doc="Epochs of the head; trainer.epochs are those of the base.", validator=ge(0)
    )

    def check(self, course: Course) -> Iterable[str]:
        yield from super().check(course)
        yield from trains(self, course, "head")

    def phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(epochs=self.head_epochs, part="head"), Phase(part="base"))

    def finetune_phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(epochs=self.finetune, part="head"),) if self.finetune else ()

    def work(self, samples: int, options: Mapping[str, Any]) -> float:
        return float(options["epochs"] + self.head_epochs) * samples


@define(eq=False, slots=False)
class FedBABU(Split):
    """FedBABU (Oh et al., FedBABU: Toward Enhanced Representation for Federated Image Classification, ICLR 2022, algorithm 1).

    Only the body is trained and shared, under a head that stays as it was drawn; the whole model is fine-tuned before a
    client uses it.
    """

    name = "fedbabu"
    finetune: float = option(
        5.0, doc="Epochs of local training before a client's evaluation.", validator=ge(0)
    )

    def parts(self, space: ParamSpace) -> Mapping[str, Ranges]:
        parts = super().parts(space)
        fixed = union(space, parts["head"], parts["frozen"])
        shared = intersect(parts["shared"], space.complement(fixed))
        body = intersect(parts["base"], space.complement(fixed))
        return {**parts, "shared": shared, "base": body}

    def phases(self, context: Context) -> Sequence[Phase]:
        return (Phase(part="base"),)
