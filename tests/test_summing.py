"""Long sums, block by block, are the sums of `add_` up to rounding, and take no memory beside the sum and a block."""

import subprocess
import sys

import pytest
import torch
from attrs import evolve

from fscore.builtin.executors.summing import BLOCK, Later, Together, add_difference, add_up
from fscore.folding import checked, finite, fold
from fscore.params import Group
from fscore.tasks import Output

SIZES = [1, 7, BLOCK, 2 * BLOCK, 2 * BLOCK + 1, 3 * BLOCK + 4097]
FACTORS = [0.25, -1.5, 1.0, 0.0, 3.7, 1e-3, 2.0, 11.0, 0.1]


def vectors(size, count, dtype=torch.float32):
    generator = torch.Generator().manual_seed(size)
    return [torch.randn(size, generator=generator).mul(100).to(dtype) for _ in range(count)]


def one_after_another(values, factors):
    total = torch.zeros_like(values[0])
    for value, factor in zip(values, factors, strict=True):
        total.add_(value, alpha=factor)
    return total


def assert_rounded_alike(total, other, values, factors):
    """Two sums of the same terms in the same order, each rounded at most twice a term."""
    terms = sum(abs(f) * v.double().abs() for v, f in zip(values, factors, strict=True))
    bound = 4 * len(values) * torch.finfo(total.dtype).eps * terms
    assert bool(((total.double() - other.double()).abs() <= bound).all())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_blocks_give_the_sum_of_one_after_another(size, dtype):
    values = vectors(size, len(FACTORS), dtype)
    total = torch.zeros(size, dtype=dtype)
    add_up([(total, v, f) for v, f in zip(values, FACTORS, strict=True)])
    assert_rounded_alike(total, one_after_another(values, FACTORS), values, FACTORS)


def test_whole_numbers_are_added_exactly():
    values = [torch.full((3 * BLOCK,), 2**40 + i) for i in range(3)]
    total = torch.zeros(3 * BLOCK, dtype=torch.int64)
    add_up([(total, v, 1) for v in values])
    assert total.unique().tolist() == [3 * 2**40 + 3]


def test_totals_of_unequal_lengths_and_shapes_do_not_mix():
    long, short, wide = torch.zeros(5 * BLOCK), torch.zeros(3), torch.zeros(3, BLOCK)
    ones = [torch.ones_like(t) for t in (long, short, wide)]
    terms = [(t, v, f) for t, v, f in zip((long, short, wide), ones, (1.0, 2.0, 3.0), strict=True)]
    add_up(terms + terms)
    assert [t.unique().tolist() for t in (long, short, wide)] == [[2.0], [4.0], [6.0]]


def test_a_row_of_a_later_sum_is_a_later_sum():
    bank = torch.zeros(3, 2)
    with Together({"bank": bank}) as later:
        later["bank"][1].add_(torch.ones(2), alpha=2.0)
        assert isinstance(later["bank"][1], Later)
        assert bank.eq(0).all()
    assert bank.tolist() == [[0, 0], [2, 2], [0, 0]]


def test_nothing_is_added_where_a_batch_breaks_off():
    total = torch.zeros(2)

    def break_off():
        with Together({"model": total}) as later:
            later["model"].add_(torch.ones(2), alpha=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        break_off()
    assert total.eq(0).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_difference_is_added_as_if_it_was_taken_first(size):
    new, old, total = vectors(size, 3)
    expected = total.clone().add_(new - old, alpha=0.3)
    add_difference(total, new, old, 0.3)
    assert torch.equal(total, expected)


def test_a_difference_of_another_shape_fails_before_anything_is_added():
    total = torch.zeros(2 * BLOCK)
    with pytest.raises(RuntimeError):
        add_difference(total, torch.ones(2 * BLOCK + 1), torch.ones(2 * BLOCK + 1), 1.0)
    assert total.eq(0).all()


def test_a_total_that_is_not_laid_out_in_order_is_refused_and_not_lost():
    total, value = torch.zeros(4, BLOCK).t(), torch.ones(BLOCK, 4)
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        add_up([(total, value, 1.0)])
    with pytest.raises(RuntimeError, match="view size is not compatible"):
        add_difference(total, value, value, 1.0)


# ---------------------------------------------------------------------------- fold


LAYOUT = {
    "model": Group((2 * BLOCK + 5,)),
    "count": Group((3,), reduce="sum"),
    "bank": Group((2,), at="place", rows=3),
    "place": Group((), "int64", "sum", public=True),
    "weight": Group((), "float64", "sum", public=True),
}


def outputs_of(count):
    models = vectors(2 * BLOCK + 5, count)
    outputs = []
    for i, model in enumerate(models):
        weight = torch.tensor(1.0 + i, dtype=torch.float64)
        values = {"model": model, "count": torch.full((3,), float(i)), "bank": torch.ones(2)}
        outputs.append(Output(i, {**values, "place": torch.tensor(i % 4), "weight": weight}))
    return outputs


def test_a_fold_is_the_obvious_sum():
    outputs = outputs_of(6)
    outputs[1] = Output(1, error="it broke")
    done = fold(outputs, FACTORS[:6], LAYOUT)
    good = [0, 2, 4, 5]  # 1 broke, 3 names row 3 of 3
    assert [i for i, o in enumerate(done.outputs) if not o.error] == good
    assert done.outputs[1].error == "it broke"
    assert done.outputs[3].error == "'place' names no row of 3"
    weights = {i: FACTORS[i] * (1 + i) for i in good}
    model = sum(weights[i] * outputs[i].values["model"].double() for i in good)
    torch.testing.assert_close(done.sums["model"].double(), model, rtol=1e-5, atol=1e-3)
    assert done.sums["count"].tolist() == [float(sum(good))] * 3
    bank = [weights[0] + weights[4], weights[5], weights[2]]
    torch.testing.assert_close(done.sums["bank"], torch.tensor(bank).view(3, 1).expand(3, 2))
    assert set(done.outputs[0].values) == {"place", "weight"}


def test_a_fold_gives_the_same_bits_whatever_else_is_in_memory():
    first, second = (fold(outputs_of(5), FACTORS[:5], LAYOUT).sums for _ in range(2))
    shifted = [
        evolve(o, values={**o.values, "model": torch.cat([torch.ones(1), o.values["model"]])[1:]})
        for o in outputs_of(5)
    ]  # of other alignment
    third = fold(shifted, FACTORS[:5], LAYOUT).sums
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert all(torch.equal(first[n], third[n]) for n in first)


MEMORY = """
import resource, torch
from fscore.folding import fold
from fscore.params import Group
from fscore.tasks import Output
torch.set_num_threads(1)
size = 4_000_000
outputs = [Output(i, {"model": torch.ones(size)}) for i in range(8)]
fold([Output(0, {"model": torch.ones(300_000)})] * 2, [1.0] * 2, {"model": Group((300_000,))})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
done = fold(outputs, [1.0] * 8, {"model": Group((size,))})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / (4 * size))
"""


def test_a_fold_takes_the_memory_of_its_sum():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 1.5


# ---------------------------------------------------------------------------- what is finite


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0], True),
        ([3e38, 3e38], True),  # their sum is not finite, and they are
        ([float("inf"), 1.0], False),
        ([float("inf"), float("-inf")], False),
        ([float("nan"), 0.0], False),
        ([], True),
    ],
)
def test_finite(values, expected):
    assert finite([torch.tensor(values), torch.tensor([2**60])]) == expected
    error = "" if expected else "the update is not finite"
    assert checked(Output(0, {"model": torch.tensor(values)})).error == error
