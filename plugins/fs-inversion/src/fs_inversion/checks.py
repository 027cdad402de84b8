"""What an attack refuses before the course runs: one line per problem, dotted key first, with a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fs_inversion.attacks import Inversion
    from fscore.course import Course

ASKED = 10_000
"""Clients whose number of samples is looked at."""


def data(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse what are no images with classes, and an empty range of pixels."""
    example = course.example
    if course.objective.name != "classification" or not attack.known.classes:
        yield (
            f"{attack.key}.use: '{attack.name}' reconstructs classified samples, but the objective is "
            f"'{course.objective.name}'. Remedy: remove the attack, or use objective 'classification'."
        )
    if not example.x.is_floating_point():
        yield (
            f"{attack.key}.use: '{attack.name}' reconstructs pixels, but the samples are {example.x.dtype}. "
            "Remedy: remove the attack."
        )
    if attack.low >= attack.high:
        yield f"{attack.key}.high: must be above low, {attack.low!r}, got {attack.high!r}"


def versions(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse versions that are never made into another one."""
    last = course.config.course.until.versions
    wrong = [v for v in attack.versions if v < 0 or (last is not None and v >= last)]
    if wrong or not attack.versions:
        found = f"there is no update of version {wrong[0]}" if wrong else "none is named"
        until = "" if last is None else f" to {last - 1}"
        yield f"{attack.key}.versions: {found}. Remedy: name some from 0{until or ' on'}."


def adversary(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse what the course does not show to this adversary."""
    trainer = course.trainer
    kept = [name for name in ("private", "frozen") if getattr(trainer, name, None)]
    for name in kept:
        yield (
            f"{attack.key}.use: '{attack.name}' needs the whole model, but trainer.{name} keeps a part of it at the "
            f"client. Remedy: remove trainer.{name}."
        )
    if not kept and not _whole(course):
        yield (
            f"{attack.key}.use: '{attack.name}' needs the whole model on its way down and up, but trainer "
            f"'{trainer.name}' sends something else. Remedy: remove the attack, or choose another trainer, like 'sgd'."
        )
    if not getattr(trainer, "lr", None):
        yield f"{attack.key}.use: an update of trainer.lr = 0 shows nothing. Remedy: raise trainer.lr."
    if attack.adversary == "released":
        yield from _released(attack, course)
    if attack.adversary == "observer":
        yield from _hidden(attack, course)


def _whole(course: Course) -> bool:
    """Return whether each client receives one whole model, and sends how that changed."""
    trainer, size = course.trainer, course.space.size
    sent, update = (
        layout.get("model")
        for layout in (trainer.downloads(course.space), trainer.groups(course.space))
    )
    return (
        sent is not None
        and update is not None
        and sent.shape == update.shape == (size,)
        and not update.at
        and trainer.parts(course.space)["shared"] == course.space.whole
    )


def _released(attack: Inversion, course: Course) -> Iterable[str]:
    optimizer: Any = course.server_optimizer
    if optimizer.name != "sgd" or optimizer.momentum:
        yield (
            f"{attack.key}.adversary: 'released' reads the step between two versions, which server_optimizer "
            f"'{optimizer.name}' changes. Remedy: use 'sgd' without momentum, or adversary 'server'."
        )


def _hidden(attack: Inversion, course: Course) -> Iterable[str]:
    if "individual_updates" in course.removed:
        yield (
            f"{attack.key}.adversary: single updates are hidden on the wire, which shows an observer nothing. "
            "Remedy: adversary = 'server', which attacks their sum."
        )


def wire(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse a wire form that is not the update itself, for an observer; asked when the course is assembled."""
    group = course.site.upload.wire.get("model")
    if attack.adversary != "observer":
        return
    if group is None or group.shape != (course.space.size,) or "float" not in group.dtype:
        form = "no group 'model'" if group is None else f"'model' as {group.dtype} {group.shape}"
        yield (
            f"{attack.key}.adversary: the wire carries {form}, which an observer does not read. "
            "Remedy: adversary = 'server', which decodes it."
        )


def amount(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse updates of more images than the attack reconstructs, and of a number that it cannot know."""
    stated = course.aggregator.weighting == "samples" and "public_weights" not in course.removed
    if attack.images is None and not stated:
        yield (
            f"{attack.key}.images: no client states how many samples it has in this course. "
            "Remedy: say how many the adversary takes a client to have."
        )
    hidden = attack.adversary == "released" or "individual_updates" in course.removed
    if hidden or attack.images is not None:
        return
    population = course.population
    clients = (c for c in range(min(population.size, ASKED)) if c not in population.unseen)
    held = {c: attack.training.images(course.dataset.samples(c)) for c in clients}
    client = max(held, key=lambda c: held[c])
    if held[client] > attack.max_images:
        yield (
            f"{attack.key}.max_images: '{attack.name}' reconstructs at most {attack.max_images} images of an update, but one "
            f"of client {client} holds {held[client]}. Remedy: raise max_images, or give the clients fewer samples."
        )


def head(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse label recovery from a last layer that is not there."""
    from fs_inversion.labels import head_names

    if attack.labels == "joint":  # type: ignore[attr-defined]
        return
    try:
        _, bias = head_names(attack.known)
    except ValueError as error:
        yield f'{attack.key}.labels: {error}. Remedy: labels = "joint".'
        return
    if attack.labels == "counts" and not bias:  # type: ignore[attr-defined]
        yield f"{attack.key}.labels: 'counts' needs a last layer with a bias. Remedy: labels = \"smallest\"."


def first_layer(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse models without a fully connected layer that sees the image."""
    from fs_inversion.analytic import first_layer as find

    try:
        find(attack.known)
    except ValueError as error:
        yield f"{attack.key}.use: '{attack.name}' cannot read this model: {error}. Remedy: use model 'mlp' or 'softmax', or another attack."  # fmt: skip


def imprintable(attack: Inversion, course: Course) -> Iterable[str]:
    """Refuse models that cannot carry an imprint."""
    from fs_inversion.imprint import imprintable as find

    try:
        find(attack.known)
    except ValueError as error:
        yield f"{attack.key}.use: '{attack.name}' cannot be planted: {error}. Remedy: use model 'imprinted', or 'mlp' with activation 'relu'."  # fmt: skip
