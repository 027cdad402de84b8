"""What the kernel gives attackers: honest updates to craft from, views by threat model, probes; and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attrs import define, field

from fscore.component import Component, option
from fscore.context import Samples
from fscore.errors import ConfigError, PluginError
from fscore.hookspecs import hookimpl
from fscore.kinds.attack import Attack
from fscore.paths import Stage, elementwise
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

ALL = '[sampler]\nuse = "all"\n[aggregator]\nweighting = "uniform"\n'
ONE = ALL + "[course.until]\nversions = 1\n"


@define(eq=False)
class Crafty(Attack):
    """Clients 0 and 1 send minus the mean of what they see."""

    name = "crafty"
    knowledge: str = option("controlled", doc="Whose updates it sees.")
    scale: float = option(-1.0, doc="Times the mean of what it sees.")
    seen: list[Any] = field(factory=list, init=False)

    @property
    def colludes(self):
        return self.knowledge

    def controls(self, population, rng):
        return frozenset({0, 1})

    def craft(self, honest, mine, cohort, rng):
        self.seen.append((honest.clone(), list(mine), [t.client for t in cohort.tasks]))
        return self.scale * honest.mean(0).expand(len(mine), -1)


@define(eq=False)
class Watcher(Attack):
    name = "watcher"
    sees = frozenset({"wire", "update", "sum", "sent", "settings", "released"})
    views: list[Any] = field(factory=list, init=False)

    def observe(self, view):
        self.views.append(view)
        return {"version": view["version"]}

    def score(self, claims, truth):
        return {"clients": float(len(truth)), "at": float(claims["version"])}


@define(eq=False)
class Prober(Attack):
    name = "prober"

    def probe(self, data):
        return Samples(data.x[:1] * 0, data.y[:1] * 0)


@define(eq=False)
class Attacks(Component):
    name = "attacks"

    @hookimpl
    def fscore_register_attacks(self):
        return [Crafty, Watcher, Prober]


def course(toml):
    return fs_course(toml, plugins=[Attacks])


def moved(run):
    """Return how the first version moved the model."""
    return run.result.model["model"] - run.course.initial


def test_an_omniscient_attack_sees_what_everybody_would_have_sent():
    run = course(ONE + '[[attack]]\nuse = "crafty"\nknowledge = "all"\n')
    honest, mine, clients = run.course.attacks[0].seen[0]
    plain = fs_course(ONE)
    assert (mine, clients) == ([0, 1], [0, 1, 2, 3, 4, 5])
    assert torch.allclose(honest.mean(0), moved(plain), atol=1e-6)


def test_colluders_see_their_own_updates_only():
    run = course(ONE + '[[attack]]\nuse = "crafty"\n')
    honest, mine, _ = run.course.attacks[0].seen[0]
    assert (len(honest), mine) == (2, [0, 1])


def test_what_they_craft_is_what_the_server_sums():
    run = course(ONE + '[[attack]]\nuse = "crafty"\nknowledge = "all"\n')
    honest, _, _ = run.course.attacks[0].seen[0]
    sent = torch.cat([-honest.mean(0).expand(2, -1), honest[2:]])
    assert torch.allclose(moved(run), sent.mean(0), atol=1e-6)


def test_an_attack_that_sends_what_it_would_have_sent_changes_nothing():
    @define(eq=False)
    class Honest(Crafty):
        name = "honest"

        def craft(self, honest, mine, cohort, rng):
            return honest[mine]

    @define(eq=False)
    class Plugin(Component):
        name = "honest"

        @hookimpl
        def fscore_register_attacks(self):
            return [Honest]

    run = fs_course(ALL + '[[attack]]\nuse = "honest"\n', plugins=[Plugin])
    assert run.result.digest == fs_course(ALL).result.digest


def test_crafted_updates_obey_the_later_stages():
    toml = (
        '[[attack]]\nuse = "crafty"\nscale = -1000.0\n[[privacy]]\nuse = "clip"\nclip_norm = 0.01\n'
    )
    assert float(moved(course(ONE + toml)).norm()) <= 0.01 + 1e-6


def test_crafted_updates_that_are_not_finite_fail_and_are_named():
    run = course(ONE + '[[attack]]\nuse = "crafty"\nscale = nan\n')
    assert (run.result.status, run.result.tasks["failed"]) == ("complete", 2)


def test_colluders_give_the_same_bits_with_workers():
    toml = ALL + '[[attack]]\nuse = "crafty"\nknowledge = "all"\n[executor]\nchunk = 2\n'
    serial = course(toml + 'use = "serial"\n').result.digest
    assert course(toml + 'use = "process"\nworkers = 2\n').result.digest == serial


def test_a_view_holds_what_the_threat_model_names_and_no_more():
    run = course(ONE + '[[attack]]\nuse = "watcher"\n')
    (view,) = run.course.attacks[0].views
    assert set(view) == {*Watcher.sees, "total", "version", "cohort"}


def test_the_views_agree_with_each_other():
    run = course(ONE + '[[attack]]\nuse = "watcher"\n')
    (view,) = run.course.attacks[0].views
    summed = sum(u["model"] for u in view["update"].values())
    assert torch.allclose(summed, view["sum"]["model"], atol=1e-5)
    assert torch.allclose(view["sum"]["model"] / view["total"], moved(run), atol=1e-6)
    assert torch.equal(view["sent"][0]["model"], run.course.initial)
    assert view["settings"][0]["lr"] == run.course.trainer.lr


def test_watching_changes_nothing():
    watched = course(ALL + '[[attack]]\nuse = "watcher"\n').result
    assert watched.digest == fs_course(ALL).result.digest


def test_scores_stand_in_the_lines_of_metrics():
    run = course(ONE + '[[attack]]\nuse = "watcher"\n')
    line = run.result.history[-1]
    assert (line["watcher_clients"], line["watcher_at"]) == (6.0, 0.0)


def test_probes_are_evaluated_and_reported_under_the_attacks_name():
    run = course(ONE + '[[attack]]\nuse = "prober"\n')
    module = run.course.module
    run.course.space.bind(module, run.result.model["model"].clone())
    logits = module(torch.zeros_like(run.course.example.x[:1]))
    assert run.result.metrics["prober_accuracy"] == float(logits.argmax() == 0)


def test_an_attack_that_colludes_and_crafts_nothing_says_so():
    @define(eq=False)
    class Idle(Attack):
        name = "idle"
        colludes = "all"

        def controls(self, population, rng):
            return frozenset({0})

    @define(eq=False)
    class Plugin(Component):
        name = "idle"

        @hookimpl
        def fscore_register_attacks(self):
            return [Idle]

    with pytest.raises(NotImplementedError) as caught:
        fs_course(ALL + '[[attack]]\nuse = "idle"\n', plugins=[Plugin])
    assert str(caught.value) == "attack 'idle' does not craft updates"


def test_colluders_with_client_state_are_refused():
    toml = (
        ALL + '[[attack]]\nuse = "crafty"\n[trainer]\nprivate = ["hidden0"]\n[model]\nuse = "mlp"\n'
    )
    with pytest.raises(ConfigError) as caught:
        tiny_course(toml, plugins=[Attacks])
    assert str(caught.value) == (
        "attack.0: 'crafty' crafts a cohort's updates together, but clients here keep state, and are computed one by one. "
        "Remedy: switch one of them off."
    )


# ------------------------------------------------------------------------------------------------ edges


class Negate(Stage):
    name = "negate"
    rank = 35

    def layout(self, before):
        self.before = before
        return before

    def apply(self, values, context):
        return elementwise(self.before, values, lambda v: -v), {}


@define(eq=False)
class Nobody(Attack):
    """Has a stage of its own, and controls nobody."""

    name = "nobody"

    def stages(self):
        return (Negate(),)


@define(eq=False)
class Dreamer(Attack):
    name = "dreamer"
    sees = frozenset({"wires"})


@define(eq=False)
class Short(Crafty):
    name = "short"

    def craft(self, honest, mine, cohort, rng):
        return honest[mine][:, :3]


@define(eq=False)
class Edges(Component):
    name = "edges"

    @hookimpl
    def fscore_register_attacks(self):
        return [Nobody, Dreamer, Short]


def test_an_attack_that_controls_nobody_changes_nothing():
    run = fs_course(ALL + '[[attack]]\nuse = "nobody"\n', plugins=[Edges])
    assert run.result.digest == fs_course(ALL).result.digest


def test_a_view_that_does_not_exist_is_refused_before_the_run():
    with pytest.raises(ConfigError) as caught:
        tiny_course(ALL + '[[attack]]\nuse = "dreamer"\n', plugins=[Edges])
    assert str(caught.value) == (
        "attack.0: 'dreamer' sees 'wires', which is no view, did you mean 'wire'?"
    )


def test_crafted_updates_of_another_shape_are_refused():
    with pytest.raises(PluginError) as caught:
        fs_course(ALL + '[[attack]]\nuse = "short"\n', plugins=[Edges])
    assert str(caught.value) == "attack 'short': craft() gave shape (2, 3), expected (2, 15)"
