"""Traces of devices and of availability: what is read, and what is refused."""

import gzip
import json
import math
import re

import numpy as np
import pytest

from fscore.builtin.devices import AvailabilityTrace, Trace
from fscore.errors import ConfigError
from fscore.kinds.population import Population
from fscore.rng import Streams
from fscore.testing import fs_course

FAST, SLOW = (
    {"computation": 1.0, "communication": 1000.0},
    {"computation": 9.0, "communication": 10},
)


class Bound:
    """The part of a course that traces ask for."""

    def __init__(self, size):
        self.streams = Streams(3)
        self.population = Population(size, frozenset(), lambda ids, _: [True] * len(ids))


def write(path, content):
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return str(path)


def bound(component, size=2):
    component.bind(Bound(size))
    return component


def refused(component, size=2):
    with pytest.raises(ConfigError) as caught:
        bound(component, size)
    return str(caught.value)


# ------------------------------------------------------------------------ devices


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", {"0": FAST, "1": SLOW}),
        ("t.json.gz", {"0": FAST, "1": SLOW}),
        ("t.csv", "client,computation,communication\n1,9,10\n0,1,1000\n"),
    ],
)
def test_speeds_are_those_of_the_file(tmp_path, name, content):
    devices = bound(Trace(path=write(tmp_path / name, content)))
    assert [devices.seconds(c, 100.0, 0.0, None) for c in (0, 1)] == [0.3, 2.7]
    assert [devices.kbits(c) for c in (0, 1)] == [1000.0, 10.0]


def test_a_response_takes_download_three_passes_and_upload(tmp_path):
    path = write(tmp_path / "t.json", {str(i): FAST for i in range(8)})
    text = f'[devices]\nuse = "trace"\npath = "{path}"\n'
    run = fs_course(text + "[data]\nmin_samples = 10\nmax_samples = 10\n")
    site = run.course.site
    transfers = (site.download.nbytes + site.upload.nbytes) * 8 / 1000 / 1000.0
    assert run.result.virtual_time == pytest.approx(3 * (transfers + 3 * 8 * 1.0 / 1000))


def test_random_assignment_gives_each_client_an_entry(tmp_path):
    path = write(tmp_path / "t.json", {"a": FAST, "b": SLOW})
    devices = bound(Trace(path=path, assign="random"), 1000)
    speeds = np.array([devices.seconds(c, 1000 / 3, 0.0, None) for c in range(1000)])
    assert set(speeds) == {1.0, 9.0}
    assert np.mean(speeds == 9.0) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"0": FAST}, "no entry for client 1 (1 are missing). Remedy: assign = \"random\" gives each client an entry at random."),
        ({"0": FAST, "1": FAST, "7": FAST}, "there is no client '7', ids are 0 to 1. Remedy: assign = \"random\" gives each client an entry at random."),
        ({"0": FAST, "1": {**FAST, "computation": -1}}, "client 1: computation must be a number of at least 0, got -1"),
        ('{"0": {"computation": NaN, "communication": 1}}', "client 0: computation must be a number of at least 0, got nan"),
        ({"0": {"computation": 1}}, "client 0: communication must be a number of at least 1e-09, got None"),
        ({"0": {"computation": 1e300, "communication": 1}}, "client 0: computation must be a number of at most 1e+12, got 1e+300"),
        ({"0": 5}, "client 0: expected computation and communication, got 5"),
        ({}, "no entries"),
        ("5", "expected an object of clients"),
        ("{", "no JSON, and no CSV by its name: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)  # fmt: skip
def test_bad_device_traces_are_refused(tmp_path, content, problem):
    path = write(tmp_path / "t.json", content)
    assert refused(Trace(path=path)) == f"{path}: {problem}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("client,computation,communication\n0,1,1\n0,1,1\n", "client 0 has two entries"),
        ("id,computation\n0,1\n", "entry 0 has no field 'client'"),
        (
            "client,computation,communication\n0,x,1\n",
            "client 0: computation must be a number of at least 0, got 'x'",
        ),
    ],
)
def test_bad_csv_is_refused(tmp_path, content, problem):
    path = write(tmp_path / "t.csv", content)
    assert refused(Trace(path=path)) == f"{path}: {problem}"


def test_a_missing_file_is_named():
    assert refused(Trace(path="no/such.json")) == "no/such.json: No such file or directory"


def test_a_file_that_is_no_gzip_is_named(tmp_path):
    path = tmp_path / "t.json.gz"
    path.write_bytes(b"plain")
    assert refused(Trace(path=str(path))) == f"{path}: Not a gzipped file (b'pl')"


# ------------------------------------------------------------------------ availability

INTERVALS = {"0": [[10, 20], [50, 60]], "1": [[0, 100]]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", INTERVALS),
        (
            "t.json",
            [{"client": 0, "ready": INTERVALS["0"]}, {"client": 1, "ready": INTERVALS["1"]}],
        ),
        (
            "t.json",
            {
                "0": {"active": [10, 50], "inactive": [20, 60], "finish_time": 100},
                "1": {"active": [0], "inactive": [100], "finish_time": 100},
            },
        ),
        ("t.csv", "client,start,end\n0,10,20\n1,0,100\n0,50,60\n"),
    ],
)
def test_sessions_are_those_of_the_file_repeated(tmp_path, name, content):
    available = bound(AvailabilityTrace(path=write(tmp_path / name, content)))
    found = [available.session(0, t) for t in (0.0, 10.0, 20.0, 60.0, 115.0, 1e6 + 55)]
    assert found == [(10, 20), (10, 20), (50, 60), (110, 120), (110, 120), (1e6 + 50, 1e6 + 60)]
    assert available.session(1, 1234.5) == (-math.inf, math.inf)


def test_a_session_goes_on_over_the_end_of_the_period(tmp_path):
    path = write(tmp_path / "t.json", {"0": [[0, 5], [90, 100]]})
    available = bound(AvailabilityTrace(path=path), 1)
    assert available.session(0, 95.0) == (90, 105)


def test_intervals_that_touch_are_one_session(tmp_path):
    path = write(tmp_path / "t.json", {"0": [[10, 20], [20, 30], [40, 50]]})
    assert bound(AvailabilityTrace(path=path), 1).session(0, 15.0) == (10, 30)


def test_a_client_without_intervals_is_never_online(tmp_path):
    path = write(tmp_path / "t.json", {"0": [], "1": [[0, 5]]})
    assert bound(AvailabilityTrace(path=path)).session(0, 3.0) == (math.inf, math.inf)


def test_with_a_start_of_day_hours_keep_their_place(tmp_path):
    entry = {"client": 0, "ready": [[0, 3600]], "start_of_day": 7200, "length": 100_000}
    available = bound(AvailabilityTrace(path=write(tmp_path / "t.json", [entry])), 1)
    assert available.session(0, 0.0) == (7200, 10_800)
    assert available.session(0, 20_000.0) == (2 * 86_400 + 7200, 2 * 86_400 + 10_800)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {"0": [[5, 9], [1, 3]]},
            "client 0: interval 1 begins at 1, before the one before it ends at 9",
        ),
        (
            {"0": [[1, 5], [4, 8]]},
            "client 0: interval 1 begins at 4, before the one before it ends at 5",
        ),
        ({"0": [[5, 5]]}, "client 0: interval 0 ends at 5, before it begins at 5"),
        ({"0": [[-1, 5]]}, "client 0: interval 0 must be a number of at least 0, got -1"),
        ('{"0": [[NaN, 5]]}', "client 0: interval 0 must be a number of at least 0, got nan"),
        ({"0": [[1, 2, 3]]}, "client 0: interval 0: expected [start, end], got [1, 2, 3]"),
        ({"0": 7}, "client 0: expected a list of intervals, got 7"),
        (
            {"0": {"active": [1, 2], "inactive": []}},
            "client 0: 2 times in 'active', 0 in 'inactive'",
        ),
        ({"0": {"length": 5}}, "client 0: expected 'ready', or 'active' and 'inactive'"),
        (
            {"0": {"ready": [[1, 9]], "length": 5}},
            "client 0: interval 0 ends at 9, after the period 5",
        ),
        (7, "expected an object of clients, or a list of them"),
    ],
)
def test_bad_availability_traces_are_refused(tmp_path, content, problem):
    path = write(tmp_path / "t.json", content)
    assert refused(AvailabilityTrace(path=path), 1) == f"{path}: {problem}"


def course(path, intervals, **options):
    write(path, intervals)
    lines = "".join(f"{key} = {value}\n" for key, value in options.items())
    return fs_course(
        f'[devices]\nuse = "constant"\ncompute = 1000.0\n{lines}availability = {{ use = "trace", path = "{path}" }}\n'
        '[data]\nmin_samples = 10\nmax_samples = 10\n'
    ).result  # fmt: skip


def test_when_nobody_is_online_for_a_while_the_course_waits(tmp_path):
    night = {str(c): [[1000.0, 5000.0]] for c in range(8)}
    result = course(tmp_path / "t.json", night)
    assert (result.status, result.virtual_time) == ("complete", 1000.0 + 3 * 3 * 8)


def test_when_nobody_is_ever_online_the_course_fails_by_name(tmp_path):
    result = course(tmp_path / "t.json", {str(c): [] for c in range(8)})
    assert (result.status, result.reason) == (
        "failed",
        "nobody can be sampled: no client is free, and none will be",
    )


def test_when_only_unseen_clients_are_ever_online_the_course_fails_by_name(tmp_path):
    result = course(
        tmp_path / "t.json", {str(c): [[0, 10], [20, 30]] if c >= 6 else [] for c in range(8)}
    )
    assert result.reason == "nobody can be sampled: no client is free, and none will be"


def test_when_no_session_is_long_enough_the_course_fails_by_name(tmp_path):
    short = {str(c): [[0.0, 1.0], [50.0, 51.0]] for c in range(8)}
    result = course(tmp_path / "t.json", short)
    assert (result.status, result.reason) == (
        "failed",
        "trigger 'all_received' does not fire: 0 results wait and no task is in flight; "
        "the first failure: client 0: its client went offline",
    )
    assert result.tasks["failed"] == result.tasks["issued"] > 0


def test_who_pauses_needs_several_sessions(tmp_path):
    short = {str(c): [[0.0, 10.0], [50.0, 60.0]] for c in range(8)}
    result = course(tmp_path / "t.json", short, if_offline='"pause"')
    assert result.status == "complete"
    assert result.virtual_time > 3 * 50.0


def test_sessions_that_are_too_many_to_look_through_end_the_course():
    sessions = '{ use = "sessions", length = 1e-6, length_sigma = 0.0, gap_sigma = 0.0 }'
    text = f'[devices]\ncompute = 1e6\nif_offline = "pause"\navailability = {sessions}\n'
    result = fs_course(text).result
    assert result.status == "failed"
    assert re.fullmatch(
        r"devices\.availability: sessions: more than 100000 of one client by [\d.]+ s of virtual time\. "
        r"Remedy: make them longer and rarer\.",
        result.reason,
    )


def test_who_would_pause_for_ever_ends_the_course(tmp_path):
    """Also where a session is so short that adding it to the time changes nothing."""
    short = {str(c): [[0.0, 1e-9]] for c in range(8)}
    path = write(tmp_path / "t.json", short)
    text = (
        f'[devices]\ncompute = 1e6\nif_offline = "pause"\n'
        f'availability = {{ use = "trace", path = "{path}", period = 1e12 }}\n'
    )
    result = fs_course(text).result
    assert result.status == "failed"
    assert re.fullmatch(
        r"devices\.availability: client \d would need more than 100000 sessions for one task, until 1e\+12 s of "
        r"virtual time\. Remedy: longer sessions, or if_offline = 'fail'\.",
        result.reason,
    )
