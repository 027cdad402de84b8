"""Each method with a degenerate setting is a simpler one; without it, it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import define
from fs_personalization.sharing import FedBN, FedPer, FedRep, LGFedAvg
from personalization_helpers import EVERYBODY, FULL, UNIFORM, model, rows, run

from fscore import Component, hookimpl

SAME = {**EVERYBODY["data"], "min_samples": 12, "max_samples": 12}


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def local(**options: Any) -> torch.Tensor:
    return rows(run("local", EVERYBODY, **options), "personal")


# ------------------------------------------------------------------------------------------ FedAvg


def test_fedprox_with_mu_0_is_fedavg():
    assert torch.equal(model(run("fedprox", mu=0.0)), model(run("sgd")))


def test_fedprox_with_mu_is_not_fedavg():
    assert not torch.equal(model(run("fedprox", mu=1.0)), model(run("sgd")))


@pytest.mark.parametrize("mu", [0.1, 7.0])
def test_fedprox_with_one_local_step_is_fedavg(mu):
    assert torch.equal(model(run("fedprox", mu=mu, **FULL)), model(run("sgd", **FULL)))


def test_ifca_with_one_cluster_is_fedavg():
    assert torch.equal(model(run("ifca", clusters=1), "models")[0], model(run("sgd")))


def test_ifca_with_three_clusters_is_not_fedavg():
    bank = model(run("ifca", clusters=3), "models")
    assert not torch.equal(bank[0], model(run("sgd")))


def test_fedem_with_one_model_is_fedavg():
    assert run("fedem", models=1).result.digest == run("sgd").result.digest


def test_fedem_with_two_models_is_not_fedavg():
    assert not torch.equal(model(run("fedem", models=2)), model(run("sgd")))


@pytest.mark.parametrize("lamda", [0.0, 2.0])
def test_the_global_model_of_ditto_is_fedavg(lamda):
    assert torch.equal(model(run("ditto", lamda=lamda)), model(run("sgd")))


def test_the_global_model_of_ditto_with_private_parts_is_fedavg_with_them():
    private = {"private": ["linear"]}
    assert torch.equal(model(run("ditto", **private)), model(run("sgd", **private)))


def test_scaffold_in_its_first_round_is_fedavg_of_uniform_weights():
    once = {**UNIFORM, "course": {"until": {"versions": 1}}}
    assert torch.equal(model(run("scaffold", once)), model(run("sgd", once)))


def test_scaffold_in_its_second_round_is_not_fedavg():
    twice = {**UNIFORM, "course": {"until": {"versions": 2}}}
    assert not torch.equal(model(run("scaffold", twice)), model(run("sgd", twice)))


def test_fednova_with_equal_steps_is_fedavg():
    same = {**EVERYBODY, "data": SAME}
    close(model(run("fednova", same)), model(run("sgd", same)))


def test_fednova_with_unequal_steps_is_not_fedavg():
    nova, plain = model(run("fednova", EVERYBODY)), model(run("sgd", EVERYBODY))
    assert (nova - plain).abs().max() > 1e-3


def test_heterofl_with_full_width_is_fedavg():
    close(model(run("heterofl")), model(run("sgd")))


def test_heterofl_with_half_width_is_not_fedavg():
    assert not torch.equal(model(run("heterofl", width=0.5)), model(run("sgd")))


def test_apfl_with_alpha_0_deploys_fedavg():
    apfl = run("apfl", alpha=0.0, adaptive=False).result
    plain = run("sgd").result
    assert torch.equal(apfl.model["model"], plain.model["model"])
    assert apfl.metrics["test_loss"] == plain.metrics["test_loss"]


def test_apfl_with_alpha_deploys_something_else():
    apfl = run("apfl", alpha=0.5, adaptive=False).result
    assert apfl.metrics["test_loss"] != run("sgd").result.metrics["test_loss"]


def test_fedala_with_weights_1_is_fedavg():
    ala, plain = run("fedala", weight_lr=0.0, **FULL).result, run("sgd", **FULL).result
    assert torch.equal(ala.model["model"], plain.model["model"])
    assert ala.metrics["test_loss"] == plain.metrics["test_loss"]


def test_fedala_that_learns_its_weights_is_not_fedavg():
    assert not torch.equal(model(run("fedala", weight_lr=1.0, **FULL)), model(run("sgd", **FULL)))


def test_pfedme_whose_local_model_follows_its_only_inner_step_is_fedavg():
    close(model(run("pfedme", inner_steps=1, lamda=4.0, eta=0.25)), model(run("sgd")))


def test_pfedme_with_more_inner_steps_is_not_fedavg():
    assert not torch.equal(
        model(run("pfedme", inner_steps=2, lamda=4.0, eta=0.25)), model(run("sgd"))
    )


def test_per_fedavg_with_alpha_0_is_fedavg_on_every_second_batch():
    pairs = run("per_fedavg", alpha=0.0, epochs=2.0, adapt_steps=0, **FULL).result
    plain = run("sgd", epochs=1.0, **FULL).result
    assert torch.equal(pairs.model["model"], plain.model["model"])
    assert pairs.metrics["test_loss"] == plain.metrics["test_loss"]


def test_per_fedavg_with_alpha_is_not_fedavg():
    pairs = model(run("per_fedavg", alpha=0.1, epochs=2.0, **FULL))
    assert not torch.equal(pairs, model(run("sgd", epochs=1.0, **FULL)))


# ------------------------------------------------------------------------------------------ local


def test_the_personal_model_of_ditto_with_lamda_0_is_local():
    ditto = rows(run("ditto", EVERYBODY, lamda=0.0, **FULL), "personal")
    assert torch.equal(ditto, local(**FULL))


def test_the_personal_model_of_ditto_with_lamda_is_not_local():
    ditto = rows(run("ditto", EVERYBODY, lamda=0.5, epochs=2, **FULL), "personal")
    assert not torch.equal(ditto, local(epochs=2, **FULL))


def test_apfl_with_alpha_1_is_local():
    apfl = run("apfl", EVERYBODY, alpha=1.0, adaptive=False)
    assert torch.equal(rows(apfl, "personal"), local())
    alone = run("local", EVERYBODY).result.metrics
    assert apfl.result.metrics["test_loss"] == alone["test_loss"]


def test_fedproto_with_lamda_0_is_local():
    proto = run("fedproto", EVERYBODY, lamda=0.0, predict_by="head")
    assert torch.equal(rows(proto, "personal"), local())
    alone = run("local", EVERYBODY).result.metrics
    assert proto.result.metrics["test_loss"] == alone["test_loss"]


def test_fedproto_with_lamda_is_not_local():
    assert not torch.equal(rows(run("fedproto", EVERYBODY, lamda=1.0), "personal"), local())


def test_fedamp_without_attention_and_pull_is_local():
    close(rows(run("fedamp", EVERYBODY, alpha=0.0, lamda=0.0), "personal"), local())


@pytest.mark.parametrize("lamda", [0.5, 5.0])
def test_fedamp_without_attention_and_with_one_local_step_is_local(lamda):
    amp = rows(run("fedamp", EVERYBODY, alpha=0.0, lamda=lamda, **FULL), "personal")
    close(amp, local(**FULL))


def test_fedamp_with_attention_is_not_local():
    amp = rows(run("fedamp", EVERYBODY, lamda=0.0), "personal")
    assert (amp - local()).abs().max() > 1e-3


def test_the_pull_of_fedamp_changes_its_models():
    free, pulled = (rows(run("fedamp", EVERYBODY, lamda=x), "personal") for x in (0.0, 5.0))
    assert (free - pulled).abs().max() > 1e-3


# ------------------------------------------------------------------------------------------ sharing


def anything(cls: type[Any], label: str) -> type[Any]:
    """A trainer whose parts may match nothing or everything, which a course file may not ask for."""

    @define(eq=False)
    class Anything(cls):  # type: ignore[misc]
        """Without the check."""

        name = label

        def check(self, course: Any) -> Any:
            return ()

    return Anything


@define(eq=False)
class AnythingPlugin(Component):
    name = "anything"

    @hookimpl
    def fscore_register_trainers(self) -> list[Any]:
        named = {"any_fedper": FedPer, "any_lg": LGFedAvg, "any_fedrep": FedRep, "any_fedbn": FedBN}
        return [anything(cls, label) for label, cls in named.items()]


def anyhow(trainer: str, more: Any = None, **options: Any) -> Any:
    return run(trainer, more, plugins=[AnythingPlugin], **options)


def test_fedper_with_an_empty_head_is_fedavg():
    assert anyhow("any_fedper", head=["nothing"]).result.digest == run("sgd").result.digest


def test_fedper_with_an_empty_base_is_local():
    alone = anyhow("any_fedper", EVERYBODY, head=["*"])
    assert torch.equal(rows(alone, "private"), local())


def test_fedper_is_neither():
    fedper = run("fedper", EVERYBODY)
    assert not torch.equal(model(fedper), model(run("sgd", EVERYBODY)))
    assert not torch.equal(rows(fedper, "private"), local()[:, -18:])


def test_fedper_is_a_private_head():
    assert run("fedper").result.digest == run("sgd", private=["linear"]).result.digest


def test_lg_fedavg_that_shares_everything_is_fedavg():
    assert anyhow("any_lg", head=["*"]).result.digest == run("sgd").result.digest


def test_lg_fedavg_is_a_private_base():
    assert run("lg_fedavg").result.digest == run("sgd", private=["hidden0"]).result.digest


def test_fedrep_with_nothing_but_a_base_is_fedavg():
    rep = anyhow("any_fedrep", head=["nothing"], head_epochs=0.0)
    assert rep.result.digest == run("sgd").result.digest


def test_fedrep_is_not_fedper():
    assert not torch.equal(model(run("fedrep")), model(run("fedper")))


def test_fedbabu_is_a_frozen_head():
    assert torch.equal(model(run("fedbabu")), model(run("sgd", frozen=["linear"])))


def test_fedbabu_is_not_fedavg():
    assert not torch.equal(model(run("fedbabu")), model(run("sgd")))


def test_fedbn_without_batch_norm_is_fedavg():
    assert anyhow("any_fedbn").result.digest == run("sgd").result.digest


def test_fedbn_keeps_batch_norm_beside_what_else_is_private():
    norm = {"model": {"use": "mlp_bn"}}
    both = run("sgd", norm, private=["linear", "*BatchNorm*"]).result
    assert run("fedbn", norm, private=["linear"]).result.digest == both.digest


def test_fedbn_with_batch_norm_is_not_fedavg():
    norm = {"model": {"use": "mlp_bn"}}
    assert not torch.equal(model(run("fedbn", norm)), model(run("sgd", norm)))
