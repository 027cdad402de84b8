"""What holds for every rule: order, translation, no attackers, extremes, and what is refused."""

from __future__ import annotations

import pytest
import torch
from fs_robust.centres import CentredClipping, GeometricMedian
from fs_robust.coordinates import TrimmedMean
from fs_robust.dnc import DnC
from fs_robust.krum import Bulyan, Krum, MultiKrum
from fs_robust.norm_bound import NormBound
from hypothesis import given, settings
from hypothesis import strategies as st

from fscore.errors import CourseError

TRANSLATING = {
    "trimmed_mean": lambda f=2: TrimmedMean(byzantine=f),
    "krum": lambda f=2: Krum(byzantine=f),
    "multi_krum": lambda f=2: MultiKrum(byzantine=f),
    "bulyan": lambda f=2: Bulyan(byzantine=f),
    "geometric_median": lambda f=2: GeometricMedian(byzantine=f),
    "dnc": lambda f=2: DnC(byzantine=f),
}
"""Rules without a point of their own."""
RULES = TRANSLATING | {
    "centred_clipping": lambda f=2: CentredClipping(
        byzantine=f, clip_norm=3.0, iterations=20, begin="zero"
    ),
    "norm_bound": lambda f=2: NormBound(byzantine=f, clip_norm=3.0),
}
every_rule = pytest.mark.parametrize("make", RULES.values(), ids=RULES)


def some(clients, values, seed=0):
    return torch.randn(clients, values, generator=torch.Generator().manual_seed(seed))


def reduced(rule, rows):
    return rule.reduce(rows.clone(), torch.ones(len(rows), dtype=torch.float64))


@every_rule
@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(11)), seed=st.integers(0, 1000))
def test_the_order_of_clients_does_not_matter(make, order, seed):
    rows = some(11, 8, seed)

    torch.testing.assert_close(
        reduced(make(), rows[list(order)]), reduced(make(), rows), atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("make", TRANSLATING.values(), ids=TRANSLATING)
def test_moving_all_updates_moves_the_result(make):
    rows, shift = some(11, 8), 10 * some(1, 8, seed=1)

    torch.testing.assert_close(
        reduced(make(), rows + shift), reduced(make(), rows) + shift[0], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["trimmed_mean", "multi_krum", "bulyan", "dnc"])
def test_without_byzantine_clients_it_is_the_mean(name):
    rows = some(6, 8)

    torch.testing.assert_close(reduced(RULES[name](0), rows), rows.mean(0))


def test_clipping_that_clips_nothing_is_the_mean():
    rows = some(6, 8)

    torch.testing.assert_close(reduced(CentredClipping(clip_norm=1e6), rows), rows.mean(0))
    torch.testing.assert_close(reduced(NormBound(clip_norm=1e6), rows), rows.mean(0))


@pytest.mark.parametrize("signs", [(1, 1), (1, -1)], ids=["together", "apart"])
@pytest.mark.parametrize(
    "before", [[], ["nnm"], ["bucketing", "nnm"], ["nnm", "bucketing"]], ids=str
)
@every_rule
def test_two_updates_of_1e30_do_not_matter(make, before, signs):
    """Twenty honest updates of norm 4.5 beside two of 1e30: the result stays among the honest ones."""
    if make().name == "bulyan" and "bucketing" in before:
        pytest.skip("Bulyan needs 4 f + 3 buckets")
    honest = some(20, 2000) / 10
    huge = torch.stack([torch.full((2000,), sign * 1e30) for sign in signs])
    rule = make()
    rule.before = before

    found = reduced(rule, torch.cat([huge, honest]))

    assert torch.isfinite(found).all()
    assert float(torch.linalg.vector_norm(found)) <= 10.0


def test_the_geometric_median_stands_nearly_half_of_the_updates_at_1e30():
    rows = some(21, 50)
    rows[:10] = 1e30

    assert float(torch.linalg.vector_norm(reduced(GeometricMedian(), rows))) <= 100.0


@every_rule
def test_updates_near_the_largest_float_give_no_nan(make):
    rows = some(11, 50)
    rows[:2] = 3e38
    rows[1] *= -1

    assert torch.isfinite(reduced(make(), rows)).all()


@every_rule
def test_tiny_differences_beside_large_updates_are_kept(make):
    """Updates of norm 50 that differ by 1e-5: in float32, without a centre, their distances would drown."""
    if make().name in ("centred_clipping", "norm_bound"):
        pytest.skip("a bound on the norm measures from a point of its own")
    base = some(1, 100_000) / 6
    rows = base + 1e-5 * some(11, 100_000, seed=1)
    rows[:2] += 3e-4

    off = reduced(make(), rows) - base[0]

    assert abs(float(off.mean())) < 6e-5


def test_weights_that_clients_state_do_not_count():
    rows = some(7, 5)
    heavy = torch.tensor([1e9, 1, 1, 1, 1, 1, 1], dtype=torch.float64)
    for make in RULES.values():
        if make().name == "bulyan":
            continue
        assert torch.equal(make().reduce(rows.clone(), heavy), reduced(make(), rows))


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (TrimmedMean(byzantine=2), 5),
        (Krum(byzantine=2), 7),
        (Bulyan(byzantine=2), 11),
        (DnC(byzantine=2, repetitions=3), 7),
        (Krum(byzantine=2, before=["bucketing"]), 13),
        (Krum(byzantine=0), 1),
        (NormBound(clip_norm=1.0), 1),
        (Krum(byzantine=10**12), 2 * 10**12 + 3),
        (NormBound(clip_norm=1.0, before=["bucketing"], bucket_size=10**12), 1),
        (TrimmedMean(byzantine=1, before=["bucketing", "bucketing"], bucket_size=3), 19),
    ],
)
def test_the_fewest_updates_that_can_be_reduced(rule, least):
    assert rule.least == least


@pytest.mark.parametrize("clients", range(1, 40))
@pytest.mark.parametrize(("f", "size"), [(1, 2), (2, 3), (3, 1)])
def test_what_is_least_is_the_first_number_that_leaves_enough_buckets(clients, f, size):
    rule = TrimmedMean(byzantine=f, before=["bucketing"], bucket_size=size)

    enough = -(-clients // size) >= 2 * f + 1

    assert (clients >= rule.least) is enough


def test_of_a_share_the_fewest_are_those_from_which_on_all_numbers_are_enough():
    """With a quarter of 6 Krum stands 1 of 6 and of 5; 1 of 4 is too many for it, though none of 3 is not."""
    rule = Krum(byzantine=0.25)
    rule.expected = 6

    assert [rule.stands(n) for n in (6, 5, 4, 3)] == [True, True, False, True]
    assert rule.least == 5


def test_a_share_follows_the_number_of_updates():
    assert [Krum(byzantine=0.2).faults(n) for n in (4, 5, 9, 10, 15)] == [0, 1, 1, 2, 3]


def test_too_few_updates_fail_the_course():
    with pytest.raises(CourseError) as error:
        reduced(Krum(byzantine=2), some(6, 3))

    assert str(error.value) == (
        "aggregator 'krum': a version is made of 6 updates, but f = 2 needs 7. "
        "Remedy: lower aggregator.byzantine or raise protocol.min_results."
    )
