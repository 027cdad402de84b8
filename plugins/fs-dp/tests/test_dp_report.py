"""`fscore privacy`: the guarantee before the course runs."""

from html import unescape
from pathlib import Path

import pytest
from click.testing import CliRunner
from fs_dp.accounting import Release, epsilon
from fs_dp.report import points, report

from fscore.cli import cli
from fscore.errors import ConfigError
from fscore.testing import tiny_course

EXAMPLES = Path(__file__).parents[3] / "examples" / "dp"
POISSON = """
[plugins.dp]
reproducible = true
budget = 3.0
[aggregator]
use = "fixed_mean"
[sampler]
use = "poisson"
clients = 0.5
[[privacy]]
use = "gaussian"
noise_multiplier = 2.0
"""


def test_the_report_says_what_is_guaranteed_and_what_is_not():
    values = [epsilon({Release(2.0, 0.5): v}, 1e-5) for v in (1, 2, 3, 4)]
    bars = ["#" * -(-int(1e6 * 40 * v / values[-1]) // 10**6) for v in values]
    beyond = ["  beyond the budget" if v > 3 else "" for v in values]
    rows = [
        f"  {i + 1:>7}  {v:>9.4f}  {b}{o}"
        for i, (v, b, o) in enumerate(zip(values, bars, beyond, strict=True))
    ]
    assert list(report(tiny_course(POISSON), 4)) == [
        "course 'tiny', 4 versions, delta 1e-05",
        "",
        "[[privacy]] 'gaussian': every version of the model may be published; the server is trusted with clipped updates",
        "  unit        one client",
        "  adjacency   two courses are neighbours if one client is added or removed",
        "  sampling    Poisson: each client with probability 0.5 per version, by itself and in secret",
        "  noise       multiplier 2, pseudorandom from the course's seed: it protects against nobody who knows the seed",
        "  accountant  pld",
        "  budget      epsilon 3, which ends the course",
        "",
        "  version    epsilon",
        *rows,
        "",
        "told without noise and charged to nobody, counted as in_the_clear in every line:",
        "  * train_loss, of the clients of a version: 4 times",
        "  * participation, how many clients made a version (updates, bytes): 4 times",
        "  * evaluation, of a model on clients' data: 4 times",
        "",
        "not covered:",
        "  * each client's sum of losses and number of samples, which travel in the clear. "
        "Remedy: plugins.dp.metrics = 'withheld'",
        "  * what is chosen by train_loss or evaluations: early stopping, the best version, [tune]",
        "  * who takes part, when, and who failed",
        "  * the course's seed: who knows it knows who was sampled, and amplification is lost",
        "  * other courses on the same data: another run of this file, a fork of this run",
        "  * float32 rounding while updates are summed",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"plugins.dp.reproducible": False}, "  noise       multiplier 2, exact, on a grid, from the system's generator"),
        ({"plugins.dp.adjacency": "replace_one", "plugins.dp.budget": 9.0},
         "  adjacency   two courses are neighbours if one client is replaced by another"),
        ({"plugins.dp.amplification": False},
         "  sampling    none is relied on: a client that takes part in every version"),
        ({"plugins.dp.amplification": False},
         "              who takes part is public and stays: the updates of a client that is removed count as zero"),
        ({"plugins.dp.metrics": "withheld"},
         "  * participation, how many clients made a version (updates, bytes): 4 times"),
    ],
)  # fmt: skip
def test_the_report_follows_the_options(change, line):
    assert line in list(report(tiny_course(POISSON, changes=change), 4))


def test_draws_that_are_drawn_again_are_not_covered():
    toml = POISSON + '[[faults]]\nuse = "drop"\nrate = 0.1\n'
    line = "  * draws of which nobody came back: they are drawn again, which amplification does not cover"
    assert line in list(report(tiny_course(toml)))
    assert line not in list(report(tiny_course(toml, changes={"plugins.dp.amplification": False})))


def test_a_long_course_has_a_short_table():
    rows = [r for r in report(tiny_course(POISSON), 60) if "#" in r]
    assert len(rows) == 20
    assert rows[0].split()[0] == "1"
    assert rows[-1].split()[0] == "60"


def test_both_units_are_reported_apart():
    toml = POISSON + '[[privacy]]\nuse = "dp_sgd"\nnoise_multiplier = 9.0\n'
    lines = list(report(tiny_course(toml, changes={"plugins.dp.budget": 9.0})))
    assert [line for line in lines if line.startswith("  unit")] == [
        "  unit        one client",
        "  unit        one sample",
    ]
    assert "  * both units together: each epsilon holds for its own unit alone" in lines


def test_the_command_prints_the_report_of_an_example():
    done = CliRunner().invoke(cli, ["privacy", str(EXAMPLES / "dp_fedavg.toml"), "--versions", "2"])
    assert done.exit_code == 0
    assert done.output.startswith("course 'dp_fedavg', 2 versions, delta 0.01\n")


def test_the_chart_is_one_page_that_fetches_nothing(tmp_path):
    changes = {"plugins.dp.budget": 3.0}
    given = [f"--set={key}={value}" for key, value in changes.items()]
    file, page = tmp_path / "course.toml", tmp_path / "plot.html"
    file.write_text((EXAMPLES / "dp_fedavg.toml").read_text())
    done = CliRunner().invoke(
        cli, ["privacy", str(file), "--versions", "3", "--plot", str(page), *given]
    )
    assert done.exit_code == 0, done.output
    written = page.read_text()
    assert written.count("<svg ") == 1
    assert written.count("<path") > 2
    assert ">budget</text>" in written
    assert "src=" not in written
    assert done.output.splitlines()[2].split(":")[0] in unescape(written)


def test_a_chart_has_a_point_for_each_row_of_the_table():
    course = tiny_course(POISSON)
    values = [epsilon({Release(2.0, 0.5): v}, 1e-5) for v in (1, 2, 3)]
    assert points(course.privacy[0], 3) == list(zip((1, 2, 3), values, strict=True))


def test_a_chart_that_cannot_be_written_is_one_line(tmp_path):
    missing = tmp_path / "no" / "plot.html"
    done = CliRunner().invoke(
        cli, ["privacy", str(EXAMPLES / "dp_local.toml"), "--versions", "1", "--plot", str(missing)]
    )
    assert str(done.exception) == f"{missing}: No such file or directory"


def test_a_course_without_a_mechanism_is_refused():
    with pytest.raises(ConfigError) as caught:
        list(report(tiny_course()))
    assert str(caught.value) == (
        "privacy: no mechanism of differential privacy in this course. "
        "Remedy: [plugins.dp] and [[privacy]] use = 'gaussian'"
    )


def test_a_course_of_unknown_length_is_refused():
    course = tiny_course(POISSON, changes={"course.until": {"client_updates": 20}})
    with pytest.raises(ConfigError) as caught:
        list(report(course))
    assert str(caught.value) == (
        "course.until: the number of versions is not known. Remedy: fscore privacy FILE --versions N"
    )
