"""The Python interface: as short as the command line.

result = fscore.load("course.toml", {"trainer.lr": 0.05}).run()
result.metrics["test_accuracy"]
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.record.directory import RunDirectory
from fscore.builtin.tables import put, read
from fscore.component import Component
from fscore.config import Config, Tables, resolve
from fscore.context import Samples
from fscore.errors import ConfigError
from fscore.result import Result

if TYPE_CHECKING:
    import torch

    from fscore.course import Course


@define(eq=False)
class Loaded:
    """A course file that was read and found good; `run` makes a fresh course of it each time."""

    tables: Tables
    plugins: Sequence[type[Component] | Component]
    given: Mapping[str, Component]

    def config(self) -> Config:
        """Return a freshly resolved configuration."""
        return resolve(copy.deepcopy(self.tables), plugins=self.plugins, given=self.given)

    def course(self, out: Path | str | None = None) -> Course:
        """Assemble the course, with a run directory where `out` names one."""
        import torch

        from fscore.builtin.record.resume import describe
        from fscore.course import Course

        torch.set_num_threads(1)
        config = self.config()
        record = RunDirectory.create(Path(out), config.course.name) if out is not None else None
        course = Course(config, record)
        if record:
            record.write_run(describe(course))
        return course

    def run(self, out: Path | str | None = None) -> Result:
        """Run the course to its end and return its result.

        Args:
            out: folder for everything that the run writes; None: nothing is written.
        """
        result = self.course(out).run()
        if result is None:
            raise RuntimeError("a run without a stopping point ended without a result")
        return result


def load(
    course: Path | str | Tables,
    changes: Mapping[str, Any] | None = None,
    *,
    plugins: Sequence[type[Component] | Component] = (),
    model: Component | torch.nn.Module | None = None,
    data: Component | Sequence[tuple[Samples, Samples]] | None = None,
) -> Loaded:
    """Read a course.

    Args:
        course: a TOML file, or its tables.
        changes: options by dotted key that replace those of the file.
        plugins: plugin classes of this process, switched on.
        model: your own module, in place of `[model]`.
        data: your own clients as (training samples, test samples) each, in place of `[data]`.

    Raises:
        ConfigError: every problem of the file at once.
    """
    from fscore.builtin.given import GivenData, GivenModel

    tables = copy.deepcopy(course) if isinstance(course, dict) else read(Path(course))
    for key, value in (changes or {}).items():
        put(tables, key, value)
    _objects_fit(plugins, model, data)
    given: dict[str, Component] = {}
    if model is not None:
        given["model"] = model if isinstance(model, Component) else GivenModel.of(model)
    if data is not None:
        given["data"] = data if isinstance(data, Component) else GivenData.of(data)
    loaded = Loaded(tables, plugins, given)
    loaded.config()
    return loaded


def _objects_fit(plugins: Sequence[Any], model: Any, data: Any) -> None:
    """Refuse objects of the wrong kind before anything is made of them."""
    import torch

    lines = [
        f"plugins: expected plugin classes or objects, got {plugin!r}"
        for plugin in plugins
        if not isinstance(plugin, Component)
        and not (isinstance(plugin, type) and issubclass(plugin, Component))
    ]
    if model is not None and not isinstance(model, Component | torch.nn.Module):
        lines.append(f"model: expected a torch.nn.Module, got {model!r}")
    pairs = [] if data is None or isinstance(data, Component) else list(data)
    for place, pair in enumerate(pairs):
        whole = isinstance(pair, tuple | list) and len(pair) == 2
        if not whole or not all(isinstance(part, Samples) for part in pair):
            lines.append(
                f"data: client {place}: expected a pair of fscore.context.Samples, for training and test"
            )
        else:
            lines += [problem for part in pair if (problem := _samples_fit(place, part))][:1]
        if lines:
            break
    if data is not None and not isinstance(data, Component) and not pairs:
        lines.append("data: expected at least one client")
    if lines:
        raise ConfigError(lines)


def _samples_fit(client: int, samples: Samples) -> str:
    """Return what is wrong with samples that were handed over; empty: nothing."""
    import torch

    x, y = samples[:2]
    if not all(isinstance(values, torch.Tensor) and values.ndim for values in (x, y)):
        return (
            f"data: client {client}: expected tensors x (samples, ...) and y (samples, ...), "
            f"got {_described(x)} and {_described(y)}"
        )
    if len(x) != len(y):
        return f"data: client {client}: x has {len(x)} samples, y has {len(y)}"
    return ""


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + ("" if shape is None else f" {tuple(shape)}")


def resume(
    run_dir: Path | str,
    *,
    plugins: Sequence[type[Component] | Component] = (),
    given: Mapping[str, Component] | None = None,
) -> Result:
    """Go on with a run that was interrupted, from its newest whole snapshot.

    Raises:
        SnapshotError: the directory holds no run, or no snapshot of it is whole.
    """
    import torch

    from fscore.builtin.record.resume import resumed

    torch.set_num_threads(1)

    course, _ = resumed(Path(run_dir), plugins=plugins, given=given)
    result = course.run()
    if result is None:
        raise RuntimeError("a resumed run ended without a result")
    return result
