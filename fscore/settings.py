"""The tables of the course file that belong to no component: course, record."""

from __future__ import annotations

from attrs import define

from fscore.component import ge, gt, option


@define(eq=False, slots=False)
class Settings:
    """A table of plain options."""


@define(eq=False, slots=False)
class Until(Settings):
    """When the course is over: as soon as one of the bounds is reached."""

    versions: int | None = option(None, doc="Versions to make.", validator=ge(1))
    virtual_time: float | None = option(None, doc="Virtual seconds.", validator=gt(0))
    client_updates: int | None = option(None, doc="Updates used in aggregates.", validator=ge(1))


@define(eq=False, slots=False)
class CourseSettings(Settings):
    """`[course]`: name, seed, end."""

    name: str = option("course", doc="Name of the course, used for its run directory.")
    seed: int = option(
        0, doc="The one seed that every random stream follows from.", validator=ge(0)
    )
    until: Until = option(factory=Until, doc="{ versions = 50 }, or virtual_time, client_updates.")
    patience: int = option(
        3, doc="Failed cohorts, or starved attempts, in a row that end the course.", validator=ge(1)
    )


@define(eq=False, slots=False)
class RecordSettings(Settings):
    """`[record]`: what the run directory keeps."""

    snapshot_seconds: float = option(
        10.0,
        doc="Real seconds between snapshots at least; 0: after every version.",
        validator=ge(0),
    )
    snapshots: int = option(2, doc="Snapshots kept.", validator=ge(2))


SETTINGS: dict[str, type[Settings]] = {
    "course": CourseSettings,
    "record": RecordSettings,
}
