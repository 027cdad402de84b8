from __future__ import annotations

import pytest
import torch
from fs_contrib.plugin import ContribPlugin
from fs_contrib.swa import SWA

from fscore.errors import ConfigError
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

COURSE = """
course = {{ until = {{ versions = {versions} }} }}
[server_optimizer]
use = "{use}"
"""


def trajectory(versions: int) -> list[torch.Tensor]:
    """The model (P,) of plain FedAvg after 1, 2, ... versions."""
    runs = [fs_course(COURSE.format(versions=v, use="sgd")) for v in range(1, versions + 1)]
    return [run.result.model["model"] for run in runs]


def swa(versions: int, options: str) -> torch.Tensor:
    toml = COURSE.format(versions=versions, use="swa") + options
    return fs_course(toml, plugins=[ContribPlugin]).result.model["model"]


def test_the_last_version_is_the_mean_of_the_versions_from_start_on():
    expected = torch.stack(trajectory(5)[1:]).double().mean(0)

    actual = swa(5, "start = 2")

    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)


def test_only_every_second_version_enters():
    expected = torch.stack(trajectory(6)[1::2]).double().mean(0)

    actual = swa(6, "start = 2\nevery = 2")

    torch.testing.assert_close(actual.double(), expected, rtol=0, atol=1e-6)


def test_a_last_version_between_two_that_enter_is_the_average_too():
    first, _, third, _ = trajectory(4)

    actual = swa(4, "start = 1\nevery = 2")

    torch.testing.assert_close(actual, (first + third) / 2, rtol=0, atol=1e-6)


def test_an_average_of_the_last_version_alone_is_fedavg():
    assert torch.equal(swa(4, "start = 4"), trajectory(4)[-1])


def test_versions_before_the_last_are_those_of_sgd():
    plain = fs_course(COURSE.format(versions=4, use="sgd"))
    averaged = fs_course(
        COURSE.format(versions=4, use="swa") + "start = 1", plugins=[ContribPlugin]
    )

    def losses(run):
        return [line["train_loss"] for line in run.result.history]

    assert losses(averaged) == losses(plain)


def test_a_course_that_goes_on_from_a_snapshot_ends_with_the_same_average():
    toml = COURSE.format(versions=5, use="swa") + "start = 2"
    paused, resumed = (tiny_course(toml, plugins=[ContribPlugin]) for _ in range(2))
    paused.run(lambda course: course.settled and course.book.version == 3)

    resumed.load(paused.dump())

    assert torch.equal(resumed.run().model["model"], swa(5, "start = 2"))


def test_old_versions_stay_as_they_are():
    optimizer = SWA(start=1)
    optimizer.last = 2
    old = {"model": torch.tensor([1.0, 2.0])}

    optimizer.step(old, {"model": torch.tensor([1.0, 1.0])})

    assert old["model"].tolist() == [1.0, 2.0]


def test_a_start_after_the_last_version_is_refused():
    with pytest.raises(ConfigError) as error:
        swa(3, "start = 4")

    assert str(error.value) == (
        "server_optimizer.start: version 4 is after the last, 3. Remedy: lower it."
    )


def test_a_course_whose_last_version_is_not_known_is_refused():
    toml = """
    course = { until = { versions = 3, virtual_time = 60.0 } }
    server_optimizer = { use = "swa", start = 1 }
    """

    with pytest.raises(ConfigError) as error:
        fs_course(toml, plugins=[ContribPlugin])

    assert str(error.value) == (
        "course.until: 'swa' makes the last version the average, so that it must be known. "
        "Remedy: set until = { versions = N } alone."
    )
