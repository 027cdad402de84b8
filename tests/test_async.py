"""Invariants of asynchronous and heterogeneous courses; one set of handlers runs them all."""

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.builtin.record.resume import codec
from fscore.builtin.rounds import Computed
from fscore.component import Component
from fscore.events import Event
from fscore.hookspecs import hookimpl
from fscore.participant import Participant, handles
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

EQUAL = '[data]\nuse = "synthetic"\nclients = 60\nfeatures = 4\nnum_classes = 3\nmin_samples = 10\nmax_samples = 10\nunseen_clients = 0\n'
SLOW = '[devices]\nuse = "lognormal"\nsigma = 1.2\njitter = 0.5\nbandwidth = 100.0\n'
NO_EVALUATION = "[evaluation]\nevery = 0\n"
TWICE = '[[faults]]\nuse = "duplicate"\nrate = 0.5\n'
BUDGET = '[trigger]\nuse = "time_up"\nbudget = 0.1\nif_empty = "resample"\n'
CRASHES = '[[faults]]\nuse = "crash"\nuptime = 0.5\ndowntime = 0.1\n'
LATE = '[[faults]]\nuse = "delay"\nrate = 0.3\nseconds = 0.2\n'
OFFLINE = (
    '[devices]\nuse = "lognormal"\navailability = { use = "sessions", length = 0.1, length_sigma = 0.5, '
    "gap_sigma = 0.5, share_alpha = 5.0, share_beta = 5.0 }\n"
)
PAUSING = OFFLINE + 'if_offline = "pause"\n'
TIERS = (
    '[sampler]\nuse = "tiers"\ntiers = 3\nclients = 2\nretier = 4\n[trigger]\nuse = "per_tier"\n'
)
DROPS = '[[faults]]\nuse = "drop"\nrate = 0.2\n'
PRIVATE = '[model]\nuse = "mlp"\nhidden = [3]\n[trainer]\nprivate = ["linear"]\n'


def buffered(goal, broadcast="after_aggregating", **options):
    lines = [
        f'[trigger]\nuse = "goal_achieved"\ngoal = {goal}\n[protocol]\nbroadcast = "{broadcast}"'
    ]
    return "\n".join([*lines, *(f"{key} = {value}" for key, value in options.items())]) + "\n"


def ends(tasks):
    return sum(tasks[how] for how in ("used", "unused", "failed", "expired", "aborted"))


# ------------------------------------------------------------------------ degenerate equivalences


@pytest.mark.parametrize("aggregator", ["mean", "staleness"])
def test_fedbuff_with_goal_equal_to_concurrency_and_equal_latencies_is_fedavg(aggregator):
    text = EQUAL + f'[aggregator]\nuse = "{aggregator}"\n'
    assert fs_course(text + buffered(4)).result.digest == fs_course(EQUAL).result.digest


def test_fedbuff_with_a_smaller_goal_is_not():
    assert fs_course(EQUAL + buffered(3)).result.digest != fs_course(EQUAL).result.digest


@pytest.mark.parametrize("devices", ["", SLOW])
def test_over_selection_of_one_is_synchronous(devices):
    over = fs_course(
        devices + buffered("1.0", staleness_limit=0), changes={"sampler.over_selection": 1.0}
    ).result
    plain = fs_course(devices).result
    assert (over.digest, over.virtual_time) == (plain.digest, plain.virtual_time)


@pytest.mark.parametrize("trigger", ["time_up", "goal_or_deadline"])
def test_a_budget_above_the_largest_latency_gives_the_synchronous_model(trigger):
    timed = fs_course(SLOW + f'[trigger]\nuse = "{trigger}"\nbudget = 1e4\n').result
    assert timed.digest == fs_course(SLOW).result.digest


def test_one_tier_is_synchronous():
    text = SLOW + '[sampler]\nuse = "tiers"\ntiers = 1\nclients = 6\n'
    tiers = fs_course(text + '[trigger]\nuse = "per_tier"\n').result
    plain = fs_course(SLOW + '[sampler]\nuse = "all"\n').result
    assert (tiers.digest, tiers.virtual_time) == (plain.digest, plain.virtual_time)


def test_power_zero_samples_as_if_durations_did_not_matter():
    text = '[sampler]\nuse = "responsiveness"\nclients = 4\npower = 0.0\n'
    assert fs_course(SLOW + text).result.digest == fs_course(text).result.digest


# ------------------------------------------------------------------------ staleness


@pytest.mark.parametrize("goal", [20, 10, 5, 1])
def test_mean_staleness_follows_littles_law(goal):
    text = EQUAL.replace("clients = 60", "clients = 400") + SLOW + NO_EVALUATION
    text += buffered(goal, "after_receiving", concurrency=20) + "[sampler]\nclients = 20\n"
    history = fs_course(text, changes={"course.until.versions": 1200 // goal}).result.history
    later = history[len(history) // 4 :]
    mean = sum(line["staleness"] for line in later) / len(later)
    assert mean == pytest.approx((20 - 1) / goal, rel=0.15)


def test_a_limit_gives_up_what_is_older_and_replaces_it():
    text = SLOW + buffered(1, "after_receiving", staleness_limit=2)
    run = fs_course(EQUAL + text, changes={"course.until.versions": 30})
    assert max(line["staleness"] for line in run.result.history) <= 2
    assert run.result.tasks["aborted"] > 0
    assert run.result.tasks["issued"] >= 30 + 4 - 1


# ------------------------------------------------------------------------ books


@define(eq=False, slots=False)
class Sent(Participant):
    """Counts the results that leave."""

    role = "client"
    left: int = 0

    @handles(Computed, rank=0)
    def count(self, event):
        self.left += self.course.book.flies(event.result.task)


@define(eq=False)
class Books(Component):
    """Notes what becomes of tasks."""

    name = "books"
    issued: list = field(factory=list)
    used: list = field(factory=list)
    failed: list = field(factory=list)
    sent: Sent = field(factory=Sent)

    def participants(self):
        return (self.sent,)

    @hookimpl
    def fscore_version_started(self, tasks):
        self.issued += [task.id for task in tasks]

    @hookimpl
    def fscore_version_ended(self, cohort):
        self.used += [task.id for task in cohort.tasks]

    @hookimpl
    def fscore_task_failed(self, task):
        self.failed.append(task.id)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    goal=st.integers(1, 4),
    broadcast=st.sampled_from(["after_aggregating", "after_receiving"]),
    limit=st.sampled_from([None, 0, 1, 5]),
    world=st.sampled_from(
        [SLOW, SLOW + DROPS, SLOW + TWICE, SLOW + CRASHES, SLOW + LATE, OFFLINE, PAUSING + CRASHES]
    ),
)
def test_every_task_resolves_once_and_bytes_add_up(seed, goal, broadcast, limit, world):
    limits = {} if limit is None else {"staleness_limit": limit}
    text = EQUAL + world + NO_EVALUATION + buffered(goal, broadcast, concurrency=4, **limits)
    books = Books()
    changes = {"course.seed": seed, "course.until.versions": 6}
    course = tiny_course(text, changes=changes, plugins=[books])
    clock, flying = [], []

    def watch(c):
        clock.append(c.loop.now)
        flying.append(c.book.in_flight)
        return False

    result = course.run(watch)
    assert result.status == "complete"
    tasks = result.tasks
    assert ends(tasks) == tasks["issued"] == len(books.issued)
    assert len(set(books.used)) == len(books.used) == tasks["used"] == 6 * goal
    assert len(set(books.failed)) == len(books.failed) == tasks["failed"]
    assert not set(books.used) & set(books.failed)
    assert clock == sorted(clock)
    assert max(flying) <= 4
    assert result.bytes == {
        "down": tasks["issued"] * course.site.download.nbytes,
        "up": books.sent.left * course.site.upload.nbytes,
    }


def test_with_drop_outs_what_is_in_flight_stays_full():
    text = EQUAL + SLOW + NO_EVALUATION + DROPS + buffered(2, "after_receiving", concurrency=20)
    course = tiny_course(text, changes={"course.until.versions": 60})
    flying = []
    course.run(lambda c: flying.append(c.book.in_flight))
    settled = flying[25:-60]
    assert max(flying) == 20
    assert sum(count >= 19 for count in settled) / len(settled) > 0.95


# ------------------------------------------------------------------------ laziness


@define(eq=False)
class Eager(Component):
    """Computes every task when it is issued."""

    name = "eager"

    @hookimpl
    def fscore_version_started(self, course, tasks):
        course.opener.compute(tasks)


ASYNCHRONOUS = (
    EQUAL + SLOW + NO_EVALUATION + buffered(2, "after_receiving", concurrency=6, staleness_limit=3)
)


@pytest.mark.parametrize("broadcast", ["after_aggregating", "after_receiving"])
def test_lazy_equals_eager_bit_for_bit(broadcast):
    text = EQUAL + SLOW + NO_EVALUATION + buffered(2, broadcast, concurrency=6, staleness_limit=1)
    changes = {"course.until.versions": 12, "executor.use": "serial"}
    lazy, eager = (fs_course(text, plugins=p, changes=changes).result for p in ([], [Eager]))
    assert lazy.digest == eager.digest
    assert (lazy.virtual_time, lazy.bytes) == (eager.virtual_time, eager.bytes)
    assert eager.tasks["computed"] == eager.tasks["issued"] > lazy.tasks["computed"]
    assert eager.tasks["saved"] == 0
    assert lazy.tasks["saved"] == lazy.tasks["issued"] - lazy.tasks["computed"]


@define(eq=False, slots=False)
class Settling(Participant):
    """Computes each stateful task as soon as its client is done."""

    role: str

    @handles(Event, rank=99)
    def settle(self, event):
        self.course.opener.settle()


@define(eq=False)
class Soon(Component):
    """The same bits, computed at once."""

    name = "soon"

    def participants(self):
        return (Settling("server"), Settling("client"))


SOON_TWICE = '[[faults]]\nuse = "duplicate"\nrate = 0.7\nseconds = 0.02\n'


@pytest.mark.parametrize("faults", [SOON_TWICE, SOON_TWICE + LATE + CRASHES + DROPS])
@pytest.mark.parametrize("trigger", [buffered(2, "after_receiving"), BUDGET], ids=["rece", "time"])
def test_rows_of_clients_do_not_depend_on_when_they_are_computed(trigger, faults):
    text = EQUAL + PRIVATE + SLOW.replace("100.0", "20.0") + NO_EVALUATION + trigger + faults
    changes = {"course.until.versions": 8, "course.patience": 20, "sampler.clients": 6}
    late, soon = (fs_course(text, plugins=p, changes=changes).result for p in ([], [Soon]))
    assert (late.digest, late.virtual_time, late.tasks, late.bytes) == (
        soon.digest,
        soon.virtual_time,
        soon.tasks,
        soon.bytes,
    )
    assert late.tasks["computed"] <= late.tasks["issued"]


def test_a_task_that_arrives_twice_is_done_once():
    text = (
        EQUAL
        + SLOW
        + NO_EVALUATION
        + '[[faults]]\nuse = "duplicate"\nrate = 1.0\nseconds = 0.001\n'
    )
    books = Books()
    result = fs_course(text, plugins=[books]).result
    assert books.sent.left == result.tasks["issued"] == 12


def test_what_nobody_used_is_counted_as_saved():
    tasks = fs_course(SLOW + buffered(2, staleness_limit=0)).result.tasks
    assert tasks["computed"] == tasks["used"] == 6
    assert tasks["saved"] == tasks["issued"] - 6 > 0


# ------------------------------------------------------------------------ determinism


@pytest.mark.parametrize(
    "text",
    [
        ASYNCHRONOUS,
        EQUAL + SLOW + NO_EVALUATION + DROPS + buffered(3),
        EQUAL + SLOW + NO_EVALUATION + TIERS,
        EQUAL
        + SLOW
        + NO_EVALUATION
        + PRIVATE
        + buffered(2, "after_receiving")
        + TWICE
        + LATE
        + CRASHES,
    ],
    ids=["after_receiving", "drops", "tiers", "private_and_faults"],
)
def test_a_snapshot_at_every_event_changes_nothing(text):
    whole = tiny_course(text).run()
    course = tiny_course(text)
    coder = codec(course)
    count = 0
    while course.run(lambda c, n=count: c.loop.delivered > n) is None:
        document, tensors = coder.encode(course.dump())
        course = tiny_course(text)
        course.load(coder.decode(document, tensors))
        count += 1
    again = course.run() if course.ending is None else None
    result = again or course.reporting.result(course.ending.reason, failed=False)
    assert count > 40
    assert (result.digest, result.virtual_time, result.tasks) == (
        whole.digest,
        whole.virtual_time,
        whole.tasks,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_results_do_not_depend_on_the_number_of_workers(workers):
    changes = {"executor.use": "process", "executor.workers": workers}
    serial, process = (
        fs_course(ASYNCHRONOUS, changes={"executor.use": "serial"}).result,
        fs_course(ASYNCHRONOUS, changes=changes).result,
    )
    assert (process.digest, process.virtual_time, process.tasks) == (
        serial.digest,
        serial.virtual_time,
        serial.tasks,
    )
