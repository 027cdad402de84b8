"""What an attack may see of a cohort, one function per name in `Attack.sees`, and what it finds in that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fscore.folding import fold, weight_of

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.kinds.attack import Attack
    from fscore.opening import Opened
    from fscore.params import Tensors


def _wire(course: Course, opened: Opened, slots: Tensors) -> Mapping[int, Tensors]:
    pairs = zip(opened.cohort.tasks, opened.outputs, strict=True)
    return {task.client: output.wire for task, output in pairs if output.wire is not None}


def _update(course: Course, opened: Opened, slots: Tensors) -> Mapping[int, Tensors]:
    if "individual_updates" in course.removed:
        return {}
    pairs = zip(opened.cohort.tasks, opened.outputs, strict=True)
    return {
        task.client: course.site.upload.undo_sum(output.values, opened.cohort)
        for task, output in pairs
    }


def _sum(course: Course, opened: Opened, slots: Tensors) -> Tensors:
    sums = opened.sums
    if course.aggregator.individual:
        layout = course.site.upload.single
        sums = fold(opened.outputs, opened.factors, layout).sums or {}
    return course.site.upload.undo_sum(sums, opened.cohort)


def _settings(course: Course, opened: Opened, slots: Tensors) -> Mapping[int, Mapping[str, Any]]:
    known = "public_weights" not in course.removed
    return {
        task.client: {
            **course.announced(task.version),
            **course.site.options(task),
            **({"samples": weight_of(output)} if known else {}),
        }
        for task, output in zip(opened.cohort.tasks, opened.outputs, strict=True)
    }


VIEWS: dict[str, Callable[[Course, Opened, Tensors], Any]] = {
    "wire": _wire,
    "update": _update,
    "sum": _sum,
    "settings": _settings,
    "sent": lambda course, opened, _: {t.client: course.sent(t) for t in opened.cohort.tasks},
    "released": lambda _, __, slots: slots,
}


def scores(attack: Attack, course: Course, opened: Opened, slots: Tensors) -> dict[str, float]:
    """Give an attack the view that its threat model grants, and return the score of its claims by metric."""
    view = {name: VIEWS[name](course, opened, slots) for name in sorted(attack.sees)}
    if not view:
        return {}
    if "sum" in view:
        view["total"] = course.opener.total(opened, view["sum"].get("weight"))
    claims = attack.observe({**view, "version": course.book.version, "cohort": opened.cohort})
    if not claims:
        return {}
    truth = {t.client: course.site.data(t.client, "train") for t in opened.cohort.tasks}
    found = attack.score(claims, truth)
    return {f"{attack.name}_{name}": value for name, value in found.items()}
