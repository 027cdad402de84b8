"""DP-SGD inside clients: against a slow version, across modes and executors, ledgers of single clients."""

import pytest
import torch
from fs_dp.accounting import Release, epsilon, undominated
from fs_dp.ledger import ledger_of
from fs_dp.sgd import DPSGD
from opacus.accountants import RDPAccountant
from scipy import stats

import fscore
from fscore.builtin.executors.cohort import CohortExecutor
from fscore.context import Samples
from fscore.errors import ConfigError, CourseError
from fscore.tasks import Batch, Task
from fscore.testing import fs_course, tiny_course

TOML = """
[plugins.dp]
reproducible = true
[trainer]
batch_size = 4
epochs = 2
[[privacy]]
use = "dp_sgd"
noise_multiplier = 1.0
clip_norm = 0.5
"""
CNN = """
[data]
use = "digits"
image = true
[model]
use = "cnn"
"""


def run(toml=TOML, changes=None, **more):
    return fs_course(toml, changes=changes, **more)


def gradient_of(mode, samples, noise=1e-9, model="softmax"):
    """Return what the trainer makes of one batch, and the model's flat parameters."""
    changes = {"privacy.0.mode": mode, "privacy.0.noise_multiplier": noise, "model.use": model}
    course = tiny_course(TOML, changes=changes)
    course.executor.start(course.site)
    lane = course.executor.lane
    context = lane._context(course.opener.job(Task(0, 0, 0)))
    variables = lane._load(course.trainer.start(context))
    lane._enter(course.trainer.phases(context)[0], context)
    data = Samples(context.data.x[:samples], context.data.y[:samples])
    with torch.no_grad():
        made = course.trainer.gradient(course.trainer.loss, variables, data, context)
    return made["model"], course, data


def slow(course, data, clip_norm=0.5, batch_size=4):
    """Clip each sample's gradient by itself, by hand."""
    total = torch.zeros(course.space.size)
    for x, y in zip(data.x, data.y, strict=True):
        flat = course.initial.clone().requires_grad_()
        output = torch.func.functional_call(course.module, course.space.views(flat), (x[None],))
        course.objective.losses(output, y[None]).sum().backward()
        total += flat.grad * min(1.0, clip_norm / float(flat.grad.norm()))
    return total / batch_size


@pytest.mark.parametrize("model", ["softmax", "mlp"])
@pytest.mark.parametrize("mode", ["hooks", "ghost", "vectorised"])
def test_the_gradient_is_that_of_a_slow_version(mode, model):
    made, course, data = gradient_of(mode, 3, model=model)
    torch.testing.assert_close(made, slow(course, data), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("mode", ["hooks", "ghost", "vectorised"])
def test_an_empty_batch_is_noise_alone(mode):
    made, _, _ = gradient_of(mode, 0, noise=1.0, model="mlp")
    squares = float((made.double() / (0.5 / 4)).square().sum())
    assert 1e-3 < stats.chi2.cdf(squares, len(made)) < 1 - 1e-3


def test_one_sample_moves_the_gradient_by_no_more_than_its_share():
    whole, _, _ = gradient_of("hooks", 4)
    less, _, _ = gradient_of("hooks", 3)
    assert float((whole - less).norm()) <= 0.5 / 4 * (1 + 1e-5)


def model_of(toml=TOML, given=None, **changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return run(toml, changes, given=given).result.model["model"]


def test_all_modes_make_the_same_model():
    first = model_of(privacy__0__mode="hooks")
    for mode in ("ghost", "vectorised", "auto"):
        torch.testing.assert_close(model_of(privacy__0__mode=mode), first, atol=1e-5, rtol=0)


def test_all_modes_make_the_same_model_of_a_cnn():
    def of(mode):
        return model_of(
            TOML + CNN, privacy__0__mode=mode, course__until__versions=1, sampler__clients=2
        )

    first = of("hooks")
    for mode in ("ghost", "vectorised"):
        torch.testing.assert_close(of(mode), first, atol=1e-4, rtol=0)


OVERRIDE = TOML + "[[override]]\nclients = [1, 2]\ntrainer.batch_size = 3\n"


@pytest.mark.parametrize("toml", [TOML, OVERRIDE])
def test_the_cohort_executor_makes_the_same_model(toml):
    cohort = model_of(toml, given={"executor": CohortExecutor(chunk=4)})
    torch.testing.assert_close(cohort, model_of(toml), atol=1e-5, rtol=0)


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_opacus_hooks_are_refused_where_many_clients_are_trained_at_once(mode):
    toml = TOML + f'mode = "{mode}"\n[executor]\nuse = "cohort"\n'
    text = (
        f"privacy.0.mode: '{mode}' serves one client at a time, but the executor trains many at once. "
        "Remedy: mode = 'vectorised', or executor.use = 'serial'."
    )
    with pytest.raises(ConfigError) as caught:
        tiny_course(toml)
    assert list(caught.value.problems) == [text]
    with pytest.raises(CourseError) as late:
        tiny_course(TOML + f'mode = "{mode}"\n').privacy[0].gradients(lifted=True, several=False)
    assert str(late.value) == text


def test_processes_make_the_same_bits():
    digests = [run(changes={"executor.use": use}).result.digest for use in ("serial", "process")]
    assert digests[0] == digests[1]


def test_batches_are_poisson_samples():
    course = tiny_course(TOML)
    course.executor.start(course.site)
    sizes, hits, steps, samples = [], torch.zeros(0), 0, 0
    for number in range(300):
        context = course.executor.lane._context(course.opener.job(Task(number, 0, 0)))
        order = course.trainer.batches(context)
        sizes += order.sizes
        samples, steps = context.samples, steps + len(order.sizes)
        counts = torch.bincount(order.index, minlength=samples)
        hits = counts if not len(hits) else hits + counts
    rate = 4 / samples
    pvalues = [stats.binomtest(int(h), steps, rate).pvalue for h in hits]
    assert min(pvalues) > 1e-4
    assert 0 in sizes
    variance = torch.tensor(sizes, dtype=torch.float64).var()
    assert float(variance) == pytest.approx(samples * rate * (1 - rate), rel=0.2)


# ---------------------------------------------------------------------------- ledgers of clients


def test_a_client_is_charged_the_steps_of_its_tasks():
    made = run()
    dataset, ledger = made.course.dataset, ledger_of(made.course)
    own = ledger.own["sample"]
    assert len(own) == 6
    for client, ((z, rate, steps),) in own.items():
        samples = dataset.samples(int(client))
        batch = min(4, samples)
        assert (z, rate) == (1.0, batch / samples)
        assert steps % -(-2 * samples // batch) == 0


def test_epsilon_is_the_largest_over_clients():
    made = run()
    ledger = ledger_of(made.course)
    each = [epsilon({Release(z, q): c}, 1e-5) for ((z, q, c),) in ledger.own["sample"].values()]
    assert made.result.metrics["epsilon"] == max(each)


def test_the_ledger_agrees_with_what_opacus_counts():
    toml = TOML.replace("true", 'true\naccountant = "rdp"')
    made = run(toml)
    ((z, rate, steps),) = ledger_of(made.course).own["sample"]["0"]
    other = RDPAccountant()
    for _ in range(int(steps)):
        other.step(noise_multiplier=z, sample_rate=rate)
    assert other.history == [(1.0, rate, int(steps))]
    ours = ledger_of(made.course).of(ledger_of(made.course).spent("sample", 0))
    assert ours == pytest.approx(other.get_epsilon(1e-5), rel=1e-3)


def test_only_rows_that_nothing_exceeds_are_asked_for():
    rows = [((1.0, 0.1, 5),), ((1.0, 0.2, 5),), ((1.0, 0.1, 9),), ((1.0, 0.2, 4),)]
    assert undominated(rows) == [((1.0, 0.2, 5),), ((1.0, 0.1, 9),)]


def test_a_client_that_comes_back_goes_on_with_its_ledger(tmp_path):
    whole = run(out=tmp_path / "whole")
    begun = tiny_course(TOML, out=tmp_path / "begun", changes={"record.snapshot_seconds": 0.0})
    begun.run(lambda c: c.book.version == 2 and not c._unrecorded)
    begun.record.close()
    resumed = fscore.resume(tmp_path / "begun")
    assert resumed.metrics["epsilon"] == whole.result.metrics["epsilon"]
    assert resumed.digest == whole.result.digest


def test_a_client_takes_no_part_beyond_its_budget():
    toml = TOML.replace("true", "true\nbudget = 16.0")
    made = run(toml, {"course.until.versions": 60})
    ledger = ledger_of(made.course)
    own = {int(c): ledger.of(ledger.spent("sample", int(c))) for c in ledger.own["sample"]}
    assert max(own.values()) <= 16.0
    assert not any(ledger.able(sorted(own)))
    assert made.result.status == "complete"
    assert made.result.reason == "the privacy budget of every client is spent: epsilon 16"


def test_a_task_that_takes_more_steps_than_charged_fails_the_course():
    class Greedy(DPSGD):
        def plan(self, client, options):
            rate, steps = super().plan(client, options)
            return rate, steps - 1

    Greedy.__name__ = "DPSGD"
    made = Greedy(noise_multiplier=1.0)
    with pytest.raises(fscore.errors.PluginError) as caught:
        run(
            "[plugins.dp]\nreproducible = true\n[trainer]\nbatch_size = 4",
            given={"privacy.0": made},
        )
    assert "steps, but its ledger was charged" in str(caught.value)


def test_the_first_batch_of_an_executor_is_computed_without_a_gradient_that_is_not_finite():
    course = tiny_course(TOML)
    course.executor.start(course.site)
    job = course.opener.job(Task(0, 0, 0))
    course.site.data(0, "train").x[0] = float("nan")
    (done,) = course.executor.compute([Batch((job,), sum=False)])
    assert done.outputs[0].error == "FloatingPointError: a sample's gradient is not finite"


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_threads_do_not_share_the_model_with_hooks(mode):
    """While one thread computes, the model holds the parameters of its client."""
    toml = TOML.replace('use = "dp_sgd"', f'use = "dp_sgd"\nmode = "{mode}"') + (
        '[model]\nuse = "mlp"\nhidden = [300]\n[data]\nmin_samples = 30\nmax_samples = 40\n'
    )
    threads = {"executor.use": "thread", "executor.workers": 4, "executor.chunk": 1}
    made = run(toml, threads)
    assert made.result.digest == run(toml, {"executor.chunk": 1}).result.digest
    assert not any("task_failed" in call for call in made.calls)
