"""What built-in models have in common: a head that is one of their modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attrs import define

from fscore.errors import nearest
from fscore.kinds.model import Model

if TYPE_CHECKING:
    from fscore.course import Course


@define(eq=False, slots=False)
class HeadedModel(Model):
    """A model whose option `head`, if it is set, names one of its modules."""

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a head that is no module of the model."""
        yield from super().check(course)
        names = [name for name, _ in course.module.named_modules() if name]
        if self.head and self.head not in names:
            yield (
                f"model.head: '{self.name}' has no module '{self.head}'{nearest(self.head, names)} "
                f"(modules: {', '.join(names) or 'none'})"
            )
