"""Faults: each does what it says, repeats, and leaves the books balanced."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli
import torch

from fscore import load
from fscore.builtin.devices import Constant
from fscore.builtin.faults import Crash, Delay, Drop, Duplicate, SlowLink, flipped
from fscore.builtin.record.directory import RunDirectory
from fscore.errors import ConfigError, CourseError
from fscore.events import Message
from fscore.kinds.population import Population
from fscore.rng import Streams
from fscore.tasks import SERVER, Task
from fscore.testing import fs_course

EQUAL = (
    '[data]\nuse = "synthetic"\nclients = 40\nfeatures = 4\nnum_classes = 3\nmin_samples = 10\nmax_samples = 10\n'
    "unseen_clients = 0\n[evaluation]\nevery = 0\n"
)
LONG = {"course.until.versions": 50}


class Bound:
    """The part of a course that faults ask for."""

    def __init__(self, *faults, size=10_000):
        self.streams, self.population, self.faults = (
            Streams(3),
            Population(size, frozenset(), lambda ids, _: [True] * len(ids)),
            list(faults),
        )


def struck(fault, devices=None):
    fault.bind(Bound(fault))
    return fault.around(devices or Constant(bandwidth=8.0))


def up(client=1):
    return Message(client, SERVER)


def course(text, **options):
    return fs_course(EQUAL + text, **options)


# ------------------------------------------------------------------------ one by one


def test_drop_loses_the_share_of_tasks_asked_for_when_they_would_have_ended():
    devices = struck(Drop(rate=0.2))
    found = [devices.leaves(Task(i, i % 50, 0), 1.0, 5.0, None) for i in range(5000)]
    lost = [at for at in found if at is not None]
    assert len(lost) / 5000 == pytest.approx(0.2, abs=0.02)
    assert set(lost) == {(5.0, "its client dropped out")}


def test_a_fault_strikes_only_in_its_spans():
    devices = struck(Drop(rate=1.0, during=[[0.0, 2.0], [4.0, 5.0]]))
    times = (1.0, 2.0, 3.0, 4.5, 5.0)
    hit = [devices.leaves(Task(0, 0, 0), t, t + 1, None) is not None for t in times]
    assert hit == [True, False, False, True, False]


def test_a_fault_strikes_only_its_clients():
    devices = struck(Drop(rate=1.0, clients=[3, 5]))
    assert [c for c in range(8) if devices.leaves(Task(c, c, 0), 0.0, 1.0, None)] == [3, 5]


def test_a_share_of_the_clients_is_the_same_for_the_whole_course():
    devices = struck(Drop(rate=1.0, clients=0.3))
    hit = np.array(
        [[bool(devices.leaves(Task(t, c, 0), 0.0, 1.0, None)) for c in range(2000)] for t in (0, 1)]
    )
    assert (hit[0] == hit[1]).all()
    assert hit.mean() == pytest.approx(0.3, abs=0.03)


def test_two_faults_of_a_kind_have_streams_of_their_own():
    faults = [Drop(rate=0.5), Drop(rate=0.5)]
    for fault in faults:
        fault.bind(Bound(*faults))
    hit = [[f.strikes_task(Task(i, i, 0), 0.0) for i in range(400)] for f in faults]
    assert np.mean(np.array(hit[0]) == np.array(hit[1])) == pytest.approx(0.5, abs=0.08)


def test_delay_adds_seconds():
    assert struck(Delay(rate=1.0, seconds=2.5)).deliver(up(), 1000, 1.0, None) == [1.0 + 1.0 + 2.5]


def test_duplicate_delivers_twice():
    assert struck(Duplicate(rate=1.0, seconds=0.5)).deliver(up(), 1000, 1.0, None) == [2.0, 2.5]


def test_slow_link_stretches_transfers():
    devices = struck(SlowLink(factor=4.0, clients=[1]))
    assert [list(devices.deliver(up(c), 1000, 1.0, None)) for c in (1, 2)] == [[5.0], [2.0]]


def test_messages_are_struck_at_the_rate_asked_for():
    devices = struck(Delay(rate=0.3, seconds=1.0))
    late = [devices.deliver(up(c), 0, float(t), None)[0] > t for c in range(50) for t in range(60)]
    assert np.mean(late) == pytest.approx(0.3, abs=0.03)


def test_crashes_are_exponential_and_last_for_the_downtime():
    fault = Crash(uptime=100.0, downtime=10.0)
    devices = struck(fault)
    gaps, now = [], 0.0
    for client in range(300):
        now = 0.0
        for _ in range(5):
            crash = fault.crash(client, now)
            gaps.append(crash - now)
            assert list(devices.online([client], crash + 9.9)) == [False]
            assert devices.leaves(Task(0, client, 0), crash - 0.01, crash + 1, None) == (
                crash,
                "its client crashed",
            )
            now = crash + 10.0
    assert np.mean(gaps) == pytest.approx(100.0, rel=0.07)
    assert np.std(gaps) == pytest.approx(100.0, rel=0.1)


def test_crashes_at_given_times():
    devices = struck(Crash(at=[5.0, 50.0], downtime=10.0))
    assert [next(iter(devices.online([0], t))) for t in (4.0, 5.0, 14.9, 15.0, 55.0, 60.0)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip
    assert devices.leaves(Task(0, 0, 0), 3.0, 6.0, None) == (5.0, "its client crashed")
    assert devices.leaves(Task(0, 0, 0), 15.0, 49.0, None) is None


def test_crashes_of_a_span_begin_with_it_however_far_away_it_is():
    fault = Crash(uptime=1e-3, downtime=1e-3, during=[[1e9, 1e9 + 5e-3], [2e9, 2e9 + 5e-3]])
    struck(fault)
    assert 1e9 <= fault.crash(0, 3.0) < 1e9 + 5e-3 or fault.crash(0, 3.0) >= 2e9
    assert fault.crash(0, 2.5e9) == float("inf")


def test_crashes_of_a_span_are_as_often_as_without_it():
    fault = Crash(uptime=100.0, downtime=10.0, during=[[40.0, 60.0], [50.0, 1e5]])
    struck(fault)
    found, now = [], 0.0
    while (crash := fault.crash(7, now)) < 1e5:
        found.append(crash)
        now = crash + 10.0
    assert min(found) >= 40.0
    assert len(found) == pytest.approx((1e5 - 40.0) / 110.0, rel=0.1)


def test_crashes_that_are_too_many_to_look_through_end_the_course():
    fault = Crash(uptime=1e-6, downtime=1e-6)
    struck(fault)
    with pytest.raises(CourseError) as caught:
        fault.crash(0, 1e6)
    assert re.fullmatch(
        r"faults\.0: crashes: more than 100000 of one client by 0\.2\d* s of virtual time\. "
        r"Remedy: make them longer and rarer\.",
        str(caught.value),
    )


def test_a_crash_does_not_depend_on_what_was_asked_before():
    one, other = Crash(uptime=10.0, downtime=1.0), Crash(uptime=10.0, downtime=1.0)
    struck(one), struck(other)
    times = [500.0, 3.0, 77.0, 0.0]
    assert [one.crash(4, t) for t in times] == [other.crash(4, t) for t in reversed(times)][::-1]


def test_flipping_changes_so_many_bits_and_not_the_given_tensor():
    values = torch.arange(20.0)
    found = flipped(values, 5, np.random.default_rng(0))
    changed = (found.view(torch.uint8) ^ values.view(torch.uint8)).tolist()
    assert sum(int(byte).bit_count() for byte in changed) == 5
    assert values.tolist() == list(range(20))


def test_no_more_bits_are_flipped_than_there_are():
    values = torch.arange(3, dtype=torch.uint8)
    found = flipped(values, 10**12, np.random.default_rng(0))
    assert found.tolist() == [255, 254, 253]


def test_flipping_a_number_without_dimensions_changes_it():
    assert flipped(torch.tensor(1, dtype=torch.uint8), 8, np.random.default_rng(0)) == 254


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.uint8, torch.float16])
def test_flipping_keeps_shape_and_type(dtype):
    found = flipped(torch.zeros(3, 4, dtype=dtype), 1, np.random.default_rng(0))
    assert (found.shape, found.dtype) == ((3, 4), dtype)


# ------------------------------------------------------------------------ in a course


def test_a_fault_that_never_strikes_changes_nothing():
    text = '[[faults]]\nuse = "drop"\nrate = 0.0\n[[faults]]\nuse = "duplicate"\nrate = 0.0\n[[faults]]\nuse = "corrupt"\nrate = 0.0\n'
    assert course(text).result.digest == course("").result.digest


def test_drop_outs_are_counted_and_named():
    run = course('[[faults]]\nuse = "drop"\nrate = 0.2\n', changes=LONG)
    assert run.result.tasks["failed"] / run.result.tasks["issued"] == pytest.approx(0.2, abs=0.08)
    failed = [call for call in run.calls if call.startswith("task_failed")]
    assert len(failed) == run.result.tasks["failed"]
    assert all(call.endswith(": its client dropped out") for call in failed)


def test_when_everybody_drops_out_the_course_fails_by_name():
    result = course('[[faults]]\nuse = "drop"\nrate = 1.0\n').result
    assert (result.status, result.reason) == (
        "failed",
        "trigger 'all_received' does not fire: 0 results wait and no task is in flight; "
        "the first failure: client 12: its client dropped out",
    )


def test_duplicates_use_no_update_twice_and_change_no_model():
    run = course('[[faults]]\nuse = "duplicate"\nrate = 1.0\nseconds = 0.0\n', changes=LONG)
    plain = course("", changes=LONG)
    assert run.result.digest == plain.result.digest
    assert run.result.tasks == plain.result.tasks


def test_corrupted_updates_that_are_no_numbers_fail_their_tasks():
    run = course('[[faults]]\nuse = "corrupt"\nrate = 0.5\nhow = "nan"\n', changes=LONG)
    assert run.result.versions == 50
    assert run.result.tasks["failed"] / run.result.tasks["issued"] == pytest.approx(0.5, abs=0.1)


def test_flipped_bits_reach_the_model():
    text = '[[faults]]\nuse = "corrupt"\nrate = 1.0\nbits = 1\n'
    assert course(text).result.digest != course("").result.digest


def test_a_slow_link_slows_the_course_down_and_changes_no_model():
    slow = course(
        '[devices]\nbandwidth = 10.0\n[[faults]]\nuse = "slow_link"\nfactor = 3.0\n'
    ).result
    plain = course("[devices]\nbandwidth = 10.0\n").result
    assert slow.digest == plain.digest
    compute = 3 * 3 * 8 / 1000  # three versions, three passes, eight samples, a millisecond
    assert slow.virtual_time - compute == pytest.approx(3 * (plain.virtual_time - compute))


def test_crashed_clients_come_back():
    run = course('[[faults]]\nuse = "crash"\nat = [0.01]\ndowntime = 5.0\n')
    assert run.result.status == "complete"
    assert run.result.virtual_time > 5.0
    assert run.result.tasks["failed"] == 4


def test_a_killed_course_without_a_run_directory_fails():
    result = course('[[faults]]\nuse = "kill"\nevents = [7]\n').result
    assert (result.status, result.reason) == ("failed", "killed at event 7")


def test_a_killed_server_resumes_to_the_same_bits_and_does_not_die_again(tmp_path):
    file, out = tmp_path / "course.toml", tmp_path / "run"
    text = (
        f'[course]\nname = "killed"\nuntil = {{ versions = 4 }}\n{EQUAL}[model]\nuse = "softmax"\n'
    )
    text += "[sampler]\nclients = 4\n[record]\nsnapshot_seconds = 0\n"
    file.write_text(text + '[[faults]]\nuse = "kill"\nevents = [40]\n')
    fscore = str(Path(sys.executable).with_name("fscore"))
    commands = [[fscore, "run", str(file), "--out", str(out)], [fscore, "resume", str(out)]]
    codes = [subprocess.run(c, capture_output=True, check=False).returncode for c in commands]
    assert codes == [137, 0]
    assert [path.name for path in out.glob("killed-*")] == ["killed-40"]
    assert RunDirectory(out).read_result()["digest"] == load(tomli.loads(text)).run().digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('use = "drop"\nrate = 1.5', "faults.0.rate: must be between 0 and 1, got 1.5"),
        ('use = "drop"\nrate = nan', "faults.0.rate: must be between 0 and 1, got nan"),
        (
            'use = "delay"\nrate = 0.1\nseconds = -1.0',
            "faults.0.seconds: must be at least 0, got -1.0",
        ),
        (
            'use = "drop"\nrate = 0.1\nclients = 2.0',
            "faults.0.clients: a share must be between 0 and 1, got 2.0",
        ),
        (
            'use = "drop"\nrate = 0.1\nclients = [40]',
            "faults.0.clients: there is no client 40, ids are 0 to 39",
        ),
        (
            'use = "drop"\nrate = 0.1\nduring = [[5.0, 1.0]]',
            "faults.0.during: expected spans [start, end] of virtual seconds, got [5.0, 1.0]",
        ),
        (
            'use = "crash"',
            "faults.0: 'crash' needs either uptime or at. Remedy: write one of them.",
        ),
        ('use = "crash"\nat = [-1.0]', "faults.0.at: expected virtual seconds, got [-1.0]"),
        (
            'use = "kill"\nevents = [4, 0]',
            "faults.0.events: the first event is 1, got 0",
        ),
        (
            'use = "kill"\nevents = [-3]',
            "faults.0.events: the first event is 1, got -3",
        ),
        (
            'use = "kill"\nevents = []',
            "faults.0.events: an empty list. Remedy: write the number of an event, or remove the fault.",
        ),
        (
            'use = "delay"\nrate = 0.1\nseconds = 1e308',
            "faults.0.seconds: must be between 0 and 1000000000000.0, got 1e+308",
        ),
        (
            'use = "crash"\nuptime = 1e-300\nduring = [[1.0]]',
            "faults.0.uptime: must be between 1e-09 and 1000000000000.0, got 1e-300",
        ),
        (
            'use = "crash"\nuptime = 1.0\nduring = [[1.0]]',
            "faults.0.during: expected spans [start, end] of virtual seconds, got [1.0]",
        ),
        (
            'use = "drip"\nrate = 0.1',
            "faults.0.use: no faults is called 'drip', did you mean 'drop'?",
        ),
    ],
)
def test_bad_faults_are_refused(text, problem):
    with pytest.raises(ConfigError) as caught:
        course(f"[[faults]]\n{text}\n")
    assert next(iter(caught.value.problems)).startswith(problem)
