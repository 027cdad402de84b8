"""Noise that cannot be drawn again: every version is on disk before anybody reads it, and what was released is written down."""

import json

import pytest
from attrs import define, field
from fs_dp.accounting import Release, epsilon

from fscore import Component, hookimpl
from fscore.builtin.record.resume import codec, resumed
from fscore.builtin.record.snapshot import latest
from fscore.testing import fs_course, tiny_course

TOML = """
[plugins.dp]
[aggregator]
use = "fixed_mean"
[sampler]
use = "poisson"
clients = 0.5
[[privacy]]
use = "gaussian"
noise_multiplier = 2.0
"""


@define(eq=False)
class Reader(Component):
    """Reads each version when it is evaluated, and looks which version the newest snapshot holds."""

    name = "reader"
    pairs: list = field(factory=list, init=False)

    @hookimpl
    def fscore_evaluated(self, course, version):
        data, _, _ = latest(course.record.snapshots, codec(course))
        self.pairs.append((version, data["book"]["version"]))


def test_a_version_is_on_disk_before_it_is_read(tmp_path):
    reader = Reader()
    fs_course(TOML, plugins=[reader], out=tmp_path / "run")
    assert reader.pairs[:3] == [(1, 1), (2, 2), (3, 3)]


def test_a_killed_course_goes_on_from_the_version_that_was_read(tmp_path):
    begun = tiny_course(TOML, out=tmp_path / "run")
    begun.run(lambda c: c.settled and c.book.version == 2)
    read = begun.bank[2]["model"].clone()
    begun.record.close()
    course, _ = resumed(tmp_path / "run")
    assert course.book.version == 2
    assert bool((course.bank[2]["model"] == read).all())
    result = course.run()
    assert result.metrics["epsilon"] == epsilon({Release(2.0, 0.5): 3}, 1e-5)


def test_the_run_directory_holds_the_ledger(tmp_path):
    result = fs_course(TOML, out=tmp_path / "run").result
    written = json.loads((tmp_path / "run" / "privacy.json").read_text())
    covered = written.pop("not_covered")
    assert written == {
        "accountant": "pld",
        "adjacency": "add_remove",
        "delta": 1e-5,
        "reproducible": False,
        "mechanisms": [{"use": "gaussian", "unit": "client", "noise_multiplier": 2.0}],
        "epsilon": {"client": result.metrics["epsilon"], "sample": 0.0},
        "columns": ["noise_multiplier", "rate", "count"],
        "everybody": {"client": [[2.0, 0.5, 3.0]]},
        "clients": {},
        "in_the_clear": {"train_loss": 3, "participation": 3, "evaluation": 3},
    }
    assert covered[-1] == "float32 rounding while updates are summed"


@pytest.mark.parametrize("use", ["dp_sgd", "local_dp", "adaptive_clipping"])
def test_every_mechanism_draws_secure_noise(use):
    toml = TOML.replace("gaussian", use)
    digests = {fs_course(toml).result.digest for _ in range(2)}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (
            "reproducible = true",
            "plugins.dp.reproducible: the noise follows from course.seed, and protects against nobody who knows it. "
            "Remedy: remove the line, outside of simulations.",
        ),
        (
            'accountant = "gdp_approximate"',
            "plugins.dp.accountant: 'gdp_approximate' reports less than the true epsilon. Remedy: accountant = 'pld'.",
        ),
    ],
)
def test_what_weakens_a_guarantee_is_said(options, advice):
    course = tiny_course(TOML.replace("[plugins.dp]", f"[plugins.dp]\n{options}"))
    (plugin,) = [p for p in course.host.plugins if p.name == "dp"]
    assert list(plugin.advise(course)) == [advice]
