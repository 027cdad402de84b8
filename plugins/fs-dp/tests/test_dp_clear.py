"""What is told of private data without noise: counted in every line, in the snapshot and in the run directory, or withheld."""

import json
import math

import pytest
from attrs import define, field
from fs_dp.clear import foreseen, on_clients
from fs_dp.ledger import ledger_of

import fscore
from fscore import Component, hookimpl
from fscore.errors import ConfigError
from fscore.testing import fs_course, tiny_course

TOML = """
[plugins.dp]
reproducible = true
[aggregator]
use = "fixed_mean"
[[privacy]]
use = "gaussian"
noise_multiplier = 2.0
"""
WITHHELD = TOML.replace("true", 'true\nmetrics = "withheld"')
MASKED = """
[plugins.secagg]
[[privacy]]
use = "secagg"
"""


@define(eq=False)
class Wire(Component):
    """Keeps what travelled of each client's metrics."""

    name = "wire"
    seen: list = field(factory=list, init=False)

    @hookimpl
    def fscore_update_received(self, update):
        self.seen.append(update["metrics"].tolist())


def test_every_line_says_how_much_was_told():
    result = fs_course(TOML, changes={"evaluation.every": 0}).result
    assert [line["in_the_clear"] for line in result.history] == [2, 4, 6]
    assert result.metrics["in_the_clear"] == 7


def test_a_course_that_protects_nothing_counts_nothing():
    assert "in_the_clear" not in fs_course("[plugins.dp]\n").result.metrics


@pytest.mark.parametrize("every", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "toml", [TOML, WITHHELD, TOML + MASKED, TOML + "[evaluation]\nclients = 2\n"]
)
def test_as_much_is_told_as_was_foreseen(toml, every):
    run = fs_course(toml, changes={"evaluation.every": every})
    ledger = ledger_of(run.course)
    assert foreseen(run.course, 3, withheld=ledger.metrics == "withheld") == ledger.clear


def test_the_servers_own_data_are_not_the_clients():
    assert not on_clients({"server_accuracy": 0.5})
    assert on_clients({"server_accuracy": 0.5, "unseen_test_accuracy": 0.5})


def test_the_count_goes_on_after_a_resume(tmp_path):
    begun = tiny_course(TOML, out=tmp_path / "run", changes={"record.snapshot_seconds": 0.0})
    begun.run(lambda c: c.book.version == 2 and not c._unrecorded)
    begun.record.close()
    fscore.resume(tmp_path / "run")
    told = json.loads((tmp_path / "run" / "privacy.json").read_text())["in_the_clear"]
    assert told["train_loss"] == told["participation"] == 3


@pytest.mark.parametrize("executor", ["serial", "cohort"])
@pytest.mark.parametrize("more", ["", MASKED])
def test_withheld_metrics_leave_no_client(executor, more):
    toml = WITHHELD + more + f'[executor]\nuse = "{executor}"\n'
    run = fs_course(toml)
    plain = fs_course(toml, changes={"plugins.dp.metrics": "clear"})
    assert all(math.isnan(line["train_loss"]) for line in run.result.history)
    assert "train_loss" not in ledger_of(run.course).clear
    assert run.result.digest == plain.result.digest


def test_withheld_metrics_do_not_travel():
    wire = Wire()
    fs_course(WITHHELD, plugins=[wire])
    assert wire.seen == [[0.0, 0.0]] * 12


def test_a_sampler_that_goes_by_losses_is_refused_without_them():
    with pytest.raises(ConfigError) as caught:
        tiny_course(WITHHELD + '[sampler]\nuse = "power_of_choice"\n')
    assert list(caught.value.problems) == [
        "E-COMPAT: [sampler] 'power_of_choice' needs metrics of single clients in the clear, but [plugins.dp] 'dp' takes "
        "that away. Remedy: switch one of them off."
    ]
