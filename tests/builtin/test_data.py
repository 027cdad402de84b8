"""Built-in data sets: what clients hold, what is held out, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from attrs import define
from builtin_helpers import TinyCourse, bound
from sklearn.datasets import load_digits

from fscore.builtin.data import PooledDataset, digits
from fscore.builtin.data.digits import Digits
from fscore.builtin.data.npz import Npz
from fscore.builtin.data.partitions import Iid, Natural
from fscore.builtin.data.synthetic import Synthetic
from fscore.errors import ConfigError, DataError
from fscore.rng import Streams

PARTS = ("train", "val", "test")


@define(eq=False)
class Given(PooledDataset):
    """Arrays of the test."""

    pool: object = None

    def arrays(self):
        return self.pool


def given(x, y, natural=None, **options):
    data = Given(**{"unseen_clients": 0, **options})
    data.pool = (np.asarray(x), np.asarray(y), natural)
    return bound(data)


def numbered(samples=20, clients=4, **options):
    """Every x is its sample's number, so that samples can be told apart."""
    x = np.arange(samples, dtype=np.float32)[:, None]
    return given(x, np.zeros(samples, dtype=np.int64), np.arange(samples) % clients, **options)


def held(data, client):
    return {part: sorted(data.client(client, part).x[:, 0].tolist()) for part in PARTS}


# ------------------------------------------------------------------------------------------------ pooled


def test_the_parts_of_a_client_are_disjoint_and_complete():
    parts = held(numbered(val=0.2, test=0.4), 1)
    assert {part: len(xs) for part, xs in parts.items()} == {"train": 2, "val": 1, "test": 2}
    assert sorted(x for xs in parts.values() for x in xs) == [1, 5, 9, 13, 17]


def test_the_split_does_not_depend_on_what_was_asked_before():
    one, other = numbered(), numbered()
    other.client(3, "test")
    other.client(0, "val")
    assert held(one, 0) == held(other, 0)


def test_another_seed_holds_out_other_samples():
    def of(seed):
        data = numbered(samples=400)
        data.bind(TinyCourse(Streams(seed)))
        return held(data, 0)

    assert of(1) == of(1)
    assert of(1) != of(2)


def test_a_client_with_a_single_sample_trains_on_it():
    data = given([[1.0]], [0], np.zeros(1, dtype=np.int64), test=0.9)
    assert held(data, 0) == {"train": [1.0], "val": [], "test": []}


def test_samples_counts_the_training_part_without_loading_it():
    data = numbered(samples=20, clients=4)
    assert [data.samples(c) for c in range(4)] == [len(data.client(c, "train").y) for c in range(4)]


def test_types_are_float32_and_int64():
    samples = given(
        np.zeros((4, 2)), np.zeros(4, dtype=np.int8), np.zeros(4, dtype=np.int64)
    ).client(0, "train")
    assert (samples.x.dtype, samples.y.dtype) == (torch.float32, torch.int64)


def test_writing_into_a_batch_does_not_change_the_data():
    data = numbered()
    data.client(0, "train").x.zero_()
    assert held(data, 0) == held(numbered(), 0)


def test_unseen_clients_are_a_share_or_a_number():
    assert len(numbered(clients=10, unseen_clients=0.3).unseen()) == 3
    assert len(numbered(clients=10, unseen_clients=2).unseen()) == 2


def test_classes_of_a_regression_are_none():
    assert given([[1.0]], [0.5], np.zeros(1, dtype=np.int64)).classes() is None


def test_the_vocabulary_counts_tokens_of_x_and_y():
    assert given([[1, 9]], [[9, 2]], np.zeros(1, dtype=np.int64)).classes() == 10


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        ([[1.0], [np.nan]], [0, 1], "data: client 1 has NaN in x"),
        ([[1.0], [np.inf]], [0, 1], "data: client 1 has infinite values in x"),
        ([[1.0], [2.0]], [0.0, np.nan], "data: client 1 has NaN in y"),
        ([[1.0], [2.0]], [0, -1], "data: client 1 has a negative class in y"),
    ],
)
def test_bad_values_are_refused_when_their_client_is_first_used(x, y, text):
    data = given(x, y, np.array([0, 1]))
    data.client(0, "train")
    with pytest.raises(DataError) as error:
        data.client(1, "test")
    assert str(error.value) == text


def test_infinities_of_both_signs_are_not_called_nan():
    with pytest.raises(DataError) as error:
        given([[np.inf], [-np.inf]], [0, 0], np.zeros(2, dtype=np.int64)).client(0, "train")
    assert str(error.value) == "data: client 0 has infinite values in x"


def test_large_finite_values_are_fine():
    data = given(np.full((4, 1), 3e38), np.zeros(4, dtype=np.int64), np.zeros(4, dtype=np.int64))
    assert len(data.client(0, "train").y) == 3


def test_a_client_without_samples_is_named():
    @define(eq=False)
    class Lopsided(Natural):
        def split(self, y, natural, rng):
            return [np.arange(len(y)), np.empty(0, dtype=np.int64)]

    data = given([[1.0]], [0], partition=Lopsided())
    with pytest.raises(DataError) as error:
        data.client(1, "train")
    assert str(error.value) == "data: client 1 has no training samples"
    assert len(data.client(1, "test").y) == 0


def test_an_unknown_part_is_refused_with_the_nearest_one():
    with pytest.raises(DataError) as error:
        numbered().client(0, "tets")
    assert str(error.value) == (
        "data: unknown part 'tets', expected 'train', 'val' or 'test', did you mean 'test'?"
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"val": 0.5, "test": 0.5}, "data.test: val and test together must be below 1, got 1.0"),
        (
            {"unseen_clients": 4},
            "data.unseen_clients: 4 of 4 clients are unseen, nobody trains. Remedy: lower data.unseen_clients.",
        ),
        (
            {"unseen_clients": 2.0},
            "data.unseen_clients: a share must be below 1, got 2.0. "
            "Remedy: write a number of clients without a decimal point.",
        ),
    ],
)
def test_holding_out_everything_is_refused(options, text):
    data = numbered(**options)
    assert list(data.check(TinyCourse())) == [text]


# ------------------------------------------------------------------------------------------------ digits


def test_digits_has_14_writers_of_the_published_sizes():
    data = bound(Digits(val=0.0, test=0.0, unseen_clients=0))
    sizes = [len(data.client(c, "train").y) for c in range(data.size())]
    assert sizes == [130, 126, 130, 130, 130, 130, 130, 123, 128, 130, 128, 130, 122, 130]


def test_digits_pixels_lie_between_0_and_1():
    x = bound(Digits()).client(0, "train").x
    assert (x.shape[1:], x.dtype) == ((64,), torch.float32)
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)


def test_digits_as_images():
    flat, image = bound(Digits()), bound(Digits(image=True))
    assert image.client(3, "train").x.shape[1:] == (1, 8, 8)
    assert torch.equal(image.client(3, "train").x.flatten(1), flat.client(3, "train").x)


def test_a_fifth_of_the_writers_is_unseen_by_default():
    assert len(bound(Digits()).unseen()) == 3


# ------------------------------------------------------------------------------------------------ synthetic


def test_synthetic_clients_are_functions_of_their_id():
    one, other = bound(Synthetic()), bound(Synthetic())
    other.client(5, "train")
    assert torch.equal(one.client(9, "test").x, other.client(9, "test").x)


def test_synthetic_counts_without_generating():
    data = bound(Synthetic(val=0.1))
    assert [data.samples(c) for c in range(5)] == [len(data.client(c, "train").y) for c in range(5)]


def test_a_synthetic_population_of_a_million_costs_nothing():
    data = bound(Synthetic(clients=1_000_000))
    assert data.unseen() == range(800_000, 1_000_000)
    assert data.client(999_999, "train").x.shape[1] == 60


def test_synthetic_sizes_are_lognormal_plus_50():
    data = bound(Synthetic(clients=4000))
    logs = np.log(np.array([data.total(c) for c in range(4000)]) - 50 + 0.5)
    assert np.median(logs) == pytest.approx(4.0, abs=0.15)
    assert np.std(logs) == pytest.approx(2.0, abs=0.1)


def test_synthetic_sizes_obey_their_bounds():
    data = bound(Synthetic(clients=200, min_samples=5, max_samples=40))
    totals = [data.total(c) for c in range(200)]
    assert min(totals) >= 5
    assert max(totals) == 40


def test_synthetic_inputs_have_the_variances_of_the_paper():
    data = bound(Synthetic(min_samples=20_000, log_sigma=0.0, test=0.0))
    variances = data.client(0, "train").x.var(dim=0).numpy()
    assert variances == pytest.approx(np.arange(1, 61) ** -1.2, rel=0.1)


def test_beta_moves_the_inputs_of_clients_apart():
    def spread(beta):
        data = bound(Synthetic(beta=beta, clients=60, max_samples=60))
        return np.std([data.client(c, "train").x.mean().item() for c in range(60)])

    assert spread(9.0) > 4 * spread(0.0)


# ------------------------------------------------------------------------------------------------ npz


def npz(tmp_path, monkeypatch, options=(), **arrays):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "own.npz", **arrays)
    return Npz(path="own.npz", **{"unseen_clients": 0, "test": 0.0, **dict(options)})


def test_npz_with_clients_of_any_numbers(tmp_path, monkeypatch):
    data = bound(
        npz(
            tmp_path,
            monkeypatch,
            x=np.eye(4),
            y=np.array([0, 1, 2, 1]),
            client=np.array([70, 5, 70, 5]),
        )
    )
    assert (data.size(), data.classes()) == (2, 3)
    assert sorted(data.client(0, "train").y.tolist()) == [1, 1]


def test_npz_without_clients_needs_a_partition(tmp_path, monkeypatch):
    options = {"partition": Iid(clients=2)}
    data = bound(npz(tmp_path, monkeypatch, options, x=np.eye(4), y=np.arange(4)))
    assert [data.samples(c) for c in range(2)] == [2, 2]


def test_npz_scales_bytes_of_images(tmp_path, monkeypatch):
    x = np.full((1, 2), 255, dtype=np.uint8)
    data = bound(npz(tmp_path, monkeypatch, {"scale": 255.0}, x=x, y=[0], client=[0]))
    assert data.client(0, "train").x.tolist() == [[1.0, 1.0]]


def test_npz_whole_numbers_stay_tokens(tmp_path, monkeypatch):
    data = bound(npz(tmp_path, monkeypatch, x=[[3, 1]], y=[[1, 2]], client=[0]))
    assert data.client(0, "train").x.dtype == torch.int64


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"x": np.eye(2)}, "own.npz: no array 'y', found x"),
        (
            {"x": np.eye(3), "y": np.arange(2)},
            "own.npz: arrays of different lengths: x has 3, y has 2",
        ),
        (
            {"x": np.eye(2), "y": np.arange(2), "client": np.arange(3)},
            "own.npz: arrays of different lengths: x has 2, y has 2, client has 3",
        ),
        (
            {"x": np.array(["a", "b"]), "y": np.arange(2)},
            "own.npz: 'x' is of type <U1, expected numbers",
        ),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "own.npz: no samples"),
        (
            {"x": np.float64(1), "y": np.arange(2)},
            "own.npz: 'x' is a single number, expected one entry per sample",
        ),
        (
            {"x": np.eye(2), "y": np.arange(2), "client": np.eye(2)},
            "own.npz: 'client' must have one number per sample",
        ),
        (
            {"x": np.array([{}, {}], dtype=object), "y": np.arange(2)},
            "own.npz: 'x' holds objects, expected numbers",
        ),
    ],
)
def test_bad_npz_files_are_refused_by_name(tmp_path, monkeypatch, arrays, text):
    with pytest.raises(ConfigError) as error:
        bound(npz(tmp_path, monkeypatch, **arrays))
    assert str(error.value) == text


def test_a_class_beyond_num_classes_is_refused(tmp_path, monkeypatch):
    data = npz(tmp_path, monkeypatch, {"num_classes": 2}, x=np.eye(2), y=np.array([0, 2]))
    with pytest.raises(ConfigError) as error:
        bound(data)
    assert str(error.value) == "own.npz: 'y' has class 2, but data.num_classes is 2"


def test_a_missing_file_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        bound(Npz(path="none.npz"))
    assert str(error.value) == "none.npz: no such file"


@pytest.mark.parametrize("keep", [0, 1, 40, -30])
def test_a_truncated_file_is_named(tmp_path, monkeypatch, keep):
    data = npz(tmp_path, monkeypatch, x=np.eye(20), y=np.arange(20))
    whole = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "own.npz").write_bytes(whole[:keep])
    with pytest.raises(ConfigError) as error:
        bound(data)
    assert str(error.value) == "own.npz: not a readable .npz file"


def test_digits_are_those_of_scikit_learn():
    pixels, classes = load_digits(return_X_y=True)
    x, y, _ = Digits().arrays()
    assert np.array_equal(x, (pixels / 16).astype(np.float32))
    assert np.array_equal(y, classes)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DataError) as raised:
        Digits().arrays()
    expected = "data: scikit-learn's digits are not here. Remedy: pip install scikit-learn"
    assert str(raised.value) == expected


def test_digits_are_read_without_importing_scikit_learn():
    code = "import sys; from fscore.builtin.data.digits import Digits; Digits().arrays(); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
