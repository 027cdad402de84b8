"""Attacks inside courses: what each adversary is given, and that leakage falls as it should."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from fs_inversion.attacks import IDLG
from fs_inversion.defences import noise
from fs_inversion.plugin import InversionPlugin
from fs_inversion.views import SEES

from fscore import Component, hookimpl
from fscore.kinds.privacy import PrivacyMechanism
from fscore.testing import fs_course
from fscore.testing.course import tiny_course


class Hide(PrivacyMechanism):
    """Lets the server have sums alone, as secure aggregation does."""

    name = "hide"
    removes = frozenset({"individual_updates"})


class Blur(PrivacyMechanism):
    """Adds noise to the sum at the server, as central differential privacy does."""

    name = "blur"

    def privatise(self, sums, cohort, rng):
        return {**sums, "model": sums["model"] + noise(sums["model"], 0.01, rng)}


class HidePlugin(Component):
    name = "hiding"

    @hookimpl
    def fscore_register_privacy_mechanisms(self):
        return [Hide, Blur]


PLUGINS = [InversionPlugin, HidePlugin]
HIDDEN = '[[privacy]]\nuse = "hide"\n'


def toml(
    attack: str, *, images: int = 1, cohort: int = 4, model: str = 'use = "mlp"', more: str = ""
):
    """A course of one version on digits, with so many images per client."""
    return f"""
    course = {{ until = {{ versions = 1 }} }}
    model = {{ {model} }}
    [data]
    use = "digits"
    image = true
    test = 0.0
    partition = {{ use = "iid", clients = {1797 // images} }}
    [trainer]
    batch_size = 0
    lr = 0.1
    [sampler]
    use = "uniform"
    clients = {cohort}
    [evaluation]
    every = 0
    {more}
    [[attack]]
    {attack}
    """


def scores(text: str, **changes) -> dict[str, float]:
    run = fs_course(text, plugins=PLUGINS, changes=changes)
    return {k: v for k, v in run.result.history[0].items() if "_psnr" in k or "_recovered" in k or "_labels" in k or "_images" in k}  # fmt: skip


LENET = 'use = "lenet_sigmoid"'
ANALYTIC = 'use = "analytic"\ntargets = 4\n'


def test_idlg_in_a_course_reads_digits_off_single_updates():
    found = scores(toml('use = "idlg"\ntargets = 4\nrestarts = 2', model=LENET))

    assert found["idlg_server_images"] == 4
    assert found["idlg_server_psnr_best"] > 60
    assert found["idlg_server_labels"] == 1
    assert found["idlg_server_recovered"] >= 0.75


def test_the_attack_changes_nothing_in_the_course():
    attacked = fs_course(toml(ANALYTIC), plugins=PLUGINS)
    alone = fs_course(toml(ANALYTIC).split("[[attack]]")[0], plugins=PLUGINS)

    assert attacked.result.digest == alone.result.digest


def test_the_same_course_gives_the_same_reconstructions():
    text = toml('use = "idlg"\niterations = 3', model=LENET)

    assert scores(text) == scores(text)


@pytest.mark.parametrize("adversary", ["server", "observer", "released"])
def test_an_adversary_is_given_what_its_threat_model_names_and_no_more(adversary):
    class Spy(IDLG):
        name = "spy"
        shown: frozenset[str] = frozenset()

        def observe(self, view):
            Spy.shown = frozenset(view)
            return {}

    course = tiny_course(
        toml('use = "idlg"', model=LENET),
        plugins=PLUGINS,
        given={"attack.0": Spy(adversary=adversary)},
    )
    course.run()

    allowed = SEES[adversary] | {"version", "cohort"}
    assert Spy.shown == allowed | ({"total"} if "sum" in allowed else set())


@pytest.mark.parametrize(("adversary", "name"), [("server", "update"), ("observer", "wire")])
def test_updates_are_shown_behind_the_clip(adversary, name):
    class Spy(IDLG):
        name = "spy"
        norms: tuple[float, ...] = ()

        def observe(self, view):
            Spy.norms = tuple(float(groups["model"].norm()) for groups in view[name].values())
            return {}

    clip = '[[privacy]]\nuse = "clip"\nclip_norm = 0.001\n'
    course = tiny_course(
        toml('use = "idlg"', model=LENET, more=clip),
        plugins=PLUGINS,
        given={"attack.0": Spy(adversary=adversary)},
    )
    course.run()

    assert Spy.norms == pytest.approx([0.001] * 4, rel=1e-4)


def test_a_reader_of_models_remembers_the_last_one_over_a_snapshot():
    text = toml(ANALYTIC + 'adversary = "released"\nversions = [2]', cohort=1)
    text = text.replace("versions = 1 }", "versions = 3 }", 1)
    whole = tiny_course(text, plugins=PLUGINS).run()
    paused, resumed = (tiny_course(text, plugins=PLUGINS) for _ in range(2))
    paused.run(lambda course: course.settled and course.book.version == 2)

    resumed.load(paused.dump())
    result = resumed.run()

    assert result.digest == whole.digest
    assert result.history[-1]["analytic_released_psnr"] > 100
    assert (
        result.history[-1]["analytic_released_psnr"] == whole.history[-1]["analytic_released_psnr"]
    )


def test_server_and_observer_see_the_same_where_nothing_is_encoded():
    server, observer = (scores(toml(ANALYTIC + f'adversary = "{a}"')) for a in ("server", "observer"))  # fmt: skip

    assert server["analytic_server_psnr"] == observer["analytic_observer_psnr"]


def test_the_released_model_of_one_client_shows_its_image():
    found = scores(toml(ANALYTIC + 'adversary = "released"', cohort=1))

    assert found["analytic_released_psnr"] > 100


def test_the_step_between_two_later_versions_is_read_too():
    text = toml(ANALYTIC + 'adversary = "released"\nversions = [1]', cohort=1)
    run = fs_course(
        text, plugins=PLUGINS, changes={"course.until": {"versions": 2}, "server_optimizer.lr": 0.5}
    )

    assert run.result.history[1]["analytic_released_psnr"] > 100


@pytest.mark.parametrize("executor", ["cohort", "process"])
def test_every_executor_shows_the_same(executor):
    plain, other = (scores(toml(ANALYTIC), **{"executor.use": e}) for e in ("serial", executor))

    assert other["analytic_server_psnr"] == pytest.approx(plain["analytic_server_psnr"], rel=0.1)
    assert other["analytic_server_psnr"] > 100


def test_hidden_updates_leave_the_mean_which_is_what_is_attacked():
    attack = 'use = "idlg"\niterations = 5'
    run = fs_course(toml(attack, model=LENET, more=HIDDEN), plugins=PLUGINS)

    assert run.result.history[0]["idlg_server_images"] == 4


def test_noise_of_the_server_protects_from_readers_of_the_model_not_from_the_server():
    more = '[[privacy]]\nuse = "blur"\n'
    server, released = (
        scores(toml(f'{ANALYTIC}adversary = "{a}"', cohort=1, more=more))
        for a in ("server", "released")
    )

    assert server["analytic_server_psnr"] > 100
    assert released["analytic_released_psnr"] < 20


# ---------------------------------------------------------------- leakage falls


def falls(values: list[float]) -> bool:
    """Whether no value is larger than the one before, and the last is 20 dB below the first."""
    return all(a >= b for a, b in itertools.pairwise(values)) and values[0] > values[-1] + 20


def test_leakage_falls_with_the_noise_of_the_clients():
    noises = [f'[[privacy]]\nuse = "update_noise"\nstddev = {s}\n' for s in (1e-5, 1e-4, 1e-3, 1e-2)]  # fmt: skip

    psnr = [scores(toml(ANALYTIC, more=n))["analytic_server_psnr"] for n in ["", *noises]]

    assert psnr[0] > 100
    assert falls(psnr)


def test_leakage_falls_with_the_images_of_an_update():
    psnr = [
        scores(toml(ANALYTIC + "max_images = 99", images=n))["analytic_server_psnr"]
        for n in (1, 4, 16, 64)
    ]

    assert psnr[0] > 100
    assert falls(psnr)


def test_leakage_falls_with_the_number_of_aggregated_clients():
    psnr = [
        scores(toml(ANALYTIC, cohort=n, more=HIDDEN))["analytic_server_psnr"] for n in (1, 4, 16, 64)
    ]  # fmt: skip

    assert psnr[0] > 100
    assert falls(psnr)


def test_leakage_falls_with_pruning_and_stays_under_clipping():
    prune = '[[compressor]]\nuse = "gradient_pruning"\nshare = 0.99\n'
    clip = '[[privacy]]\nuse = "clip"\nclip_norm = 0.001\n'

    plain, pruned, clipped = (
        scores(toml(ANALYTIC, more=m))["analytic_server_psnr"] for m in ("", prune, clip)
    )

    assert plain > 100
    assert pruned < 20
    assert clipped > 80


# ---------------------------------------------------------------- malicious server

IMPRINT = 'use = "imprint"\nmean = 0.305\nspread = 0.055\ntargets = 4\n'
BINS = 'use = "mlp"\nhidden = [1024]'


def test_a_malicious_server_reads_batches_of_sixteen():
    found = scores(
        toml(IMPRINT, images=16, model='use = "mlp"\n    hidden = [1024]'.replace("\n    ", ", "))
    )

    assert found["imprint_malicious_images"] >= 56
    assert found["imprint_malicious_recovered"] > 0.9


def test_it_reads_the_sum_of_hidden_updates_too():
    model = 'use = "mlp", hidden = [1024]'

    found = scores(toml(IMPRINT, images=4, model=model, more=HIDDEN))

    assert found["imprint_malicious_images"] >= 14
    assert found["imprint_malicious_recovered"] > 0.9


def test_it_plants_its_model_in_the_attacked_versions_only():
    text = toml(IMPRINT + "versions = [1]", model='use = "imprinted", base = { use = "softmax" }')
    attacked = fs_course(text, plugins=PLUGINS, changes={"course.until": {"versions": 2}})
    alone = fs_course(
        text.split("[[attack]]")[0], plugins=PLUGINS, changes={"course.until": {"versions": 2}}
    )

    first, second = attacked.result.history
    assert first["train_loss"] == alone.result.history[0]["train_loss"]
    assert "imprint_malicious_psnr" not in first
    assert second["imprint_malicious_psnr"] > 60


# ---------------------------------------------------------------- reports


def test_a_run_directory_gets_a_sheet_a_document_and_a_paragraph(tmp_path):
    fs_course(toml(ANALYTIC), plugins=PLUGINS, out=tmp_path / "run")

    folder = tmp_path / "run" / "inversion"
    assert sorted(p.name for p in folder.iterdir()) == [
        f"attack-0-analytic-version-0.{end}" for end in ("json", "md", "png")
    ]
    document = json.loads((folder / "attack-0-analytic-version-0.json").read_text())
    assert (document["attack"], document["adversary"], document["version"]) == (
        "analytic",
        "server",
        0,
    )
    assert len(document["targets"]) == 4
    assert document["metrics"]["psnr"] > 100


def test_a_course_without_a_run_directory_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    fs_course(toml(ANALYTIC), plugins=PLUGINS)

    assert list(tmp_path.iterdir()) == []


def test_soteria_keeps_the_columns_that_leak_most_at_the_client():
    more = '[[privacy]]\nuse = "soteria"\nshare = 0.5\n'
    text = toml('use = "idlg"', model='use = "softmax"', more=more)
    course = tiny_course(text.split("[[attack]]")[0], plugins=PLUGINS)
    course.executor.start(course.site)
    (task,) = course.issue([3])
    course.opener.compute([task])

    update = course.space.views(course.opener.outputs[task.id].values["model"])["linear.weight"]
    pixels = course.dataset.client(3, "train").x.flatten()

    brightest = pixels.argsort(descending=True)[:32]
    assert update[:, brightest].abs().max() == 0
    assert torch.equal(update.abs().sum(dim=0) > 0, (pixels > 0) & ~torch.isin(torch.arange(64), brightest))  # fmt: skip
