"""The pytest plugin of fscore: the `fs_course` fixture, and contract suites whose assertions say what they compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fscore.testing.course import Run

pytest.register_assert_rewrite("fscore.testing.contracts")


@pytest.fixture
def fs_course() -> Callable[..., Run]:
    """Return `fscore.testing.fs_course`, with one intra-op thread."""
    import torch

    from fscore.testing.course import fs_course as run

    torch.set_num_threads(1)
    return run
