"""Built-in reporters: a live console, JSON lines, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define

from fscore.builtin.record.files import append_line, write_file
from fscore.component import ge, option
from fscore.kinds.reporter import Reporter

if TYPE_CHECKING:
    from fscore.course import Course
    from fscore.result import Result


@define(eq=False, slots=False)
class Console(Reporter):
    """The executor that `auto` chose, a live line on a terminal, plain lines elsewhere, and a final table."""

    name = "console"
    every: int = option(1, doc="Versions between plain lines.", validator=ge(1))

    def started(self, course: Course) -> None:
        from rich.console import Console as Rich
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.rich = Rich()
        self.progress: Progress | None = None
        if course.executor.reason:
            said = f"executor: {course.executor.reason}"
            self.rich.print(said, highlight=False, markup=False, soft_wrap=True)
        if self.rich.is_terminal:
            self.progress = Progress(
                TextColumn("{task.fields[course]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[news]}"),
                console=self.rich,
            )
            self.progress.start()
            total = course.config.course.until.versions
            self.bar = self.progress.add_task(
                "versions", total=total, course=course.config.course.name, news="",
                completed=course.book.version,
            )  # fmt: skip

    def reported(self, line: Mapping[str, Any]) -> None:
        news = "  ".join(f"{k} {line[k]:.4f}" for k in ("train_loss", "val_accuracy", "test_accuracy", "test_loss")
                         if isinstance(line.get(k), float))  # fmt: skip
        if self.progress:
            self.progress.update(self.bar, completed=line["version"], news=news)
        elif line["version"] % self.every == 0:
            self.rich.print(
                f"version {line['version']:>4}  virtual time {line['virtual_time']:.2f} s  {news}",
                highlight=False,
                soft_wrap=True,
            )

    def ended(self, result: Result) -> None:
        if self.progress:
            self.progress.stop()
        from fscore.cli.show import result_table

        self.rich.print(result_table(result))


@define(eq=False, slots=False)
class FileReporter(Reporter):
    """A reporter that writes a file of its own, begun anew from the course's lines when a run begins or is resumed."""

    path: str = option(doc="File that is written.")

    def check(self, course: Course) -> Iterable[str]:
        """Refuse a path that cannot be that of a file."""
        path = Path(self.path)
        if not self.path or path.is_dir() or not path.parent.is_dir():
            yield f"reporter.path: '{self.path}' cannot be written: expected a file in a folder that exists"


@define(eq=False, slots=False)
class JSONLines(FileReporter):
    """One JSON object a line, as in metrics.jsonl, in a file of your choice."""

    name = "jsonl"

    def started(self, course: Course) -> None:
        from fscore.builtin.record.directory import as_line

        lines = [as_line(line) + b"\n" for line in course.reporting.history]
        write_file(Path(self.path), b"".join(lines))

    def reported(self, line: Mapping[str, Any]) -> None:
        from fscore.builtin.record.directory import as_line

        append_line(Path(self.path), as_line(line))


@define(eq=False, slots=False)
class CSV(FileReporter):
    """One row a version; the columns are all that occur in a line."""

    name = "csv"

    def started(self, course: Course) -> None:
        self.rows: list[Mapping[str, Any]] = list(course.reporting.history)

    def reported(self, line: Mapping[str, Any]) -> None:
        self.rows.append(line)
        columns = dict.fromkeys(name for row in self.rows for name in row)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(columns))
        writer.writeheader()
        writer.writerows(self.rows)
        write_file(Path(self.path), text.getvalue().encode())
