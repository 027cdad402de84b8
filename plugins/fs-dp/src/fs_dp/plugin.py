"""The hooks of the plugin `dp`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define

from fs_dp.ledger import Ledger
from fscore import hookimpl

if TYPE_CHECKING:
    from fscore.component import Component
    from fscore.course import Course
    from fscore.tasks import Task


@define(eq=False, slots=False)
class DPPlugin(Ledger):
    """Differential privacy; `[plugins.dp]` holds the options of the course's privacy ledger."""

    name = "dp"

    @hookimpl
    def fscore_register_privacy_mechanisms(self) -> list[Any]:
        from fs_dp.central import AdaptiveClipping, Gaussian
        from fs_dp.local_dp import LocalDP, NbAFL
        from fs_dp.sgd import DPSGD

        return [Gaussian, AdaptiveClipping, DPSGD, LocalDP, NbAFL]

    @hookimpl
    def fscore_register_aggregators(self) -> list[Any]:
        from fs_dp.aggregator import FixedMean

        return [FixedMean]

    @hookimpl
    def fscore_add_commands(self) -> list[Any]:
        from fs_dp.command import command

        return [command]

    @hookimpl(wrapper=True)
    def fscore_make_component(self, table: str) -> Generator[None, Component, Component]:
        made = yield
        if table == "sampler":
            from fs_dp.guards import Admitting, extended

            return extended(made, Admitting, ledger=self)
        return made

    @hookimpl
    def fscore_version_started(self, course: Course, tasks: Sequence[Task]) -> None:
        """Charge what clients release themselves, before they do."""
        self.charge_issued(course, tasks)

    @hookimpl
    def fscore_version_ended(self, course: Course) -> None:
        """Count what the line of this version tells without noise."""
        from fs_dp.clear import with_each_version

        self.tell(*with_each_version(course, withheld=self.metrics == "withheld"))

    @hookimpl
    def fscore_evaluated(self, metrics: Mapping[str, float]) -> None:
        """Count an evaluation on clients' data."""
        from fs_dp.clear import on_clients

        if on_clients(metrics):
            self.tell("evaluation")

    @hookimpl
    def fscore_course_ended(self, course: Course) -> None:
        """Write what was released to the run directory."""
        from fs_dp.report import write_statement

        write_statement(course)

    @hookimpl
    def fscore_course_failed(self, course: Course) -> None:
        """Write what was released to the run directory, though the course failed."""
        from fs_dp.report import write_statement

        write_statement(course)
