"""Device models against their formulas."""

import math

import numpy as np
import pytest
from attrs import define
from builtin_helpers import bound, everybody

from fscore.builtin.devices import Constant, Exponential, HalfNormal, LogNormal, Phones, Sessions
from fscore.builtin.draws import normal
from fscore.events import Message
from fscore.kinds.availability import Availability
from fscore.rng import Streams
from fscore.tasks import SERVER, Task

UP, DOWN = Message(3, SERVER), Message(SERVER, 3)
TASK = Task(1, 1, 0)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_computing_takes_three_passes():
    assert Constant(compute=2.0).seconds(0, 50.0, 0.0, rng()) == 3 * 50 * 2 / 1000


@pytest.mark.parametrize("message", [UP, DOWN])
def test_a_message_takes_latency_and_its_bits(message):
    devices = Constant(bandwidth=800.0, latency=0.5)
    assert devices.deliver(message, 100_000, 10.0, rng()) == (10.0 + 0.5 + 1.0,)


def test_without_a_bandwidth_transfers_take_no_time():
    assert Constant().deliver(UP, 10**9, 10.0, rng()) == (10.0,)


def test_a_clients_speed_is_its_own_for_the_whole_course():
    devices, other = bound(LogNormal()), bound(LogNormal())
    other.seconds(5, 1.0, 0.0, rng(1))
    assert devices.seconds(3, 10.0, 0.0, rng(2)) == other.seconds(3, 10.0, 0.0, rng(3))
    assert devices.seconds(3, 10.0, 0.0, rng()) != devices.seconds(4, 10.0, 0.0, rng())


def test_speeds_have_the_median_and_spread_asked_for():
    devices = bound(LogNormal(compute=4.0, sigma=0.7))
    logs = np.log([devices.seconds(c, 1000 / 3, 0.0, rng()) for c in range(4000)])
    assert np.median(logs) == pytest.approx(math.log(4.0), abs=0.05)
    assert np.std(logs) == pytest.approx(0.7, rel=0.05)


def test_jitter_differs_from_task_to_task():
    devices = bound(LogNormal(sigma=0.0, jitter=0.5))
    logs = np.log([devices.seconds(0, 1000 / 3, 0.0, rng(seed)) for seed in range(2000)])
    assert np.std(logs) == pytest.approx(0.5, rel=0.08)


def test_both_directions_of_a_client_have_its_own_bandwidth():
    devices = bound(LogNormal(bandwidth=1000.0))
    assert devices.deliver(UP, 5000, 0.0, rng()) == devices.deliver(DOWN, 5000, 0.0, rng())
    assert devices.deliver(UP, 5000, 0.0, rng()) != devices.deliver(
        Message(4, SERVER), 5000, 0.0, rng()
    )


def test_bandwidths_have_the_median_and_spread_asked_for():
    devices = bound(LogNormal(bandwidth=1000.0, bandwidth_sigma=1.1))
    times = [devices.deliver(Message(c, SERVER), 125, 0.0, rng())[0] for c in range(4000)]
    assert np.median(np.log(times)) == pytest.approx(math.log(0.001), abs=0.08)
    assert np.std(np.log(times)) == pytest.approx(1.1, rel=0.05)


def test_everybody_is_online():
    assert list(Constant().online([1, 2], 0.0)) == [True, True]


@pytest.mark.parametrize("kind", [Constant, LogNormal])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_times_that_are_no_times_are_refused(kind, value):
    with pytest.raises(ValueError, match=r"must be (at least 0|finite), got"):
        kind(compute=value)


# ------------------------------------------------------------------------ more distributions


def test_the_slowest_of_many_exponential_tasks_takes_the_harmonic_number_in_the_mean():
    devices = Exponential(compute=1000 / 3)
    slowest = [
        max(devices.seconds(c, 1.0, 0.0, rng(1000 * turn + c)) for c in range(20))
        for turn in range(400)
    ]
    assert np.mean(slowest) == pytest.approx(sum(1 / i for i in range(1, 21)), rel=0.06)


def test_half_normal_tasks_have_the_mean_of_the_formula():
    seconds = [HalfNormal(compute=1000 / 3).seconds(0, 1.0, 0.0, rng(s)) for s in range(4000)]
    assert np.mean(seconds) == pytest.approx(math.sqrt(2 / math.pi), rel=0.04)


def test_phones_have_the_measured_quantiles():
    devices = bound(Phones())
    latency = [devices.seconds(c, 1000.0, 0.0, rng()) for c in range(6000)]
    assert np.quantile(latency, [0.1, 0.5, 0.9]) == pytest.approx([69, 172, 476], rel=0.1)
    kbits = np.array([devices.kbits(c) for c in range(6000)])
    assert np.median(kbits) == pytest.approx(6070, rel=0.05)
    assert np.mean(kbits < 3000) == pytest.approx(0.26, abs=0.02)


# ------------------------------------------------------------------------ offline


@define(eq=False)
class Shifts(Availability):
    """Online from 0 to 10 and from 20 to 30."""

    name = "shifts"

    def session(self, client, now):
        return next(
            ((a, b) for a, b in ((0.0, 10.0), (20.0, 30.0)) if now < b), (math.inf, math.inf)
        )


def offline(**options):
    devices = Constant(availability=Shifts(), compute=1000 / 3, bandwidth=8.0, **options)
    return bound(devices, population=everybody(3, unseen=[0]))


def test_who_goes_offline_while_computing_loses_the_task():
    devices = offline()
    assert devices.seconds(1, 6.0, 5.0, rng()) == 6.0
    assert devices.leaves(TASK, 5.0, 11.0, rng()) == (10.0, "its client went offline")
    assert devices.leaves(TASK, 3.0, 9.0, rng()) is None


def test_who_pauses_goes_on_when_it_is_back():
    devices = offline(if_offline="pause")
    assert devices.seconds(1, 6.0, 5.0, rng()) == 16.0
    assert devices.leaves(TASK, 5.0, 21.0, rng()) is None


def test_who_pauses_and_never_comes_back_loses_the_task():
    devices = offline(if_offline="pause")
    assert devices.seconds(1, 20.0, 25.0, rng()) == math.inf
    assert devices.leaves(TASK, 25.0, math.inf, rng()) == (30.0, "its client went offline")


def test_a_transfer_is_lost_or_goes_on_later():
    assert offline().deliver(UP, 6000, 5.0, rng()) == ()
    assert offline(if_offline="pause").deliver(UP, 6000, 5.0, rng()) == (21.0,)
    assert offline().deliver(UP, 4000, 5.0, rng()) == (9.0,)


def test_a_download_that_is_cut_off_is_noticed_when_it_would_have_arrived():
    assert offline().deliver(DOWN, 6000, 5.0, rng()) == (11.0,)
    assert offline().leaves(TASK, 11.0, 12.0, rng()) == (11.0, "its client went offline")


def test_online_and_the_next_change():
    devices = offline()
    assert [list(devices.online([1], t)) for t in (5.0, 15.0, 25.0, 35.0)] == [
        [True],
        [False],
        [True],
        [False],
    ]
    assert [devices.next_change(t) for t in (15.0, 35.0)] == [20.0, None]


# ------------------------------------------------------------------------ random sessions


def sessions(**options):
    return bound(Sessions(**options))


def test_sessions_do_not_depend_on_what_was_asked_before():
    asked, other = sessions(), sessions()
    times = np.random.default_rng(0).uniform(0, 1e6, 50)
    found = [asked.session(3, t) for t in times]
    assert found == [other.session(3, t) for t in times[::-1]][::-1]


def test_a_session_holds_its_moment_or_lies_ahead_and_they_follow_one_another():
    available, now = sessions(), 0.0
    for _ in range(50):
        begin, end = available.session(5, now)
        assert now < end
        assert begin < end
        assert available.session(5, (max(begin, now) + end) / 2) == (begin, end)
        now = end


def test_clients_are_online_for_the_share_asked_for():
    available = sessions(
        length=100.0, length_sigma=0.3, gap_sigma=0.3, share_alpha=30.0, share_beta=70.0
    )
    times = np.linspace(0, 86_400, 40)
    online = [available.session(c, t)[0] <= t for c in range(100) for t in times]
    assert np.mean(online) == pytest.approx(0.3, abs=0.03)


def test_more_are_online_at_the_peak():
    available = sessions(
        length=100.0,
        length_sigma=0.1,
        gap_sigma=0.1,
        daily=0.9,
        peak=3.0,
        share_alpha=50.0,
        share_beta=450.0,
    )
    share = {
        hour: np.mean([available.session(c, hour * 3600.0)[0] <= hour * 3600 for c in range(800)])
        for hour in (3, 15)
    }
    assert share[3] > 4 * share[15]


def test_time_passes_at_the_rate_of_the_hour():
    available = sessions(daily=0.9, peak=0.0)
    assert available.after(0.0, 86_400.0) == pytest.approx(86_400.0)
    turn = 2 * math.pi / 86_400
    end = available.after(1000.0, 5000.0)
    grid = np.linspace(1000.0, end, 100_001)
    assert np.trapezoid(1 + 0.9 * np.cos(turn * grid), grid) == pytest.approx(5000.0, rel=1e-6)


def test_the_measured_session_lengths_are_the_defaults():
    available, lengths = sessions(), []
    for client in range(200):
        now = 0.0
        for _ in range(10):
            begin, end = available.session(client, now)
            lengths.append(end - begin)
            now = end
    later = np.array(lengths).reshape(200, 10)[:, 1:]
    assert np.median(np.log(later)) == pytest.approx(5.06, abs=0.2)
    assert np.std(np.log(later)) == pytest.approx(2.59, rel=0.08)


def test_a_normal_number_is_box_and_muller_of_its_stream():
    """The slow obvious way: two floats of the stream as an array."""
    streams = Streams(3)
    for client in range(200):
        radius, angle = streams.uniform("speed", client, count=2)
        expected = math.sqrt(-2.0 * math.log1p(-radius)) * math.cos(2.0 * math.pi * angle)
        assert normal(streams, "speed", client) == expected
