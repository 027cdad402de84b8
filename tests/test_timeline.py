"""The reporter `timeline`, and the pictures that are drawn of what it writes."""

import json
import re
import xml.etree.ElementTree as ET

import pytest
from click.testing import CliRunner

from fscore.builtin.record.resume import codec
from fscore.cli.compare_command import command as compare
from fscore.cli.compare_command import distribution, quantile
from fscore.cli.pictures import Chart, Line, Scale
from fscore.cli.timeline_command import DOWN, ENDS, bars, read_trace
from fscore.cli.timeline_command import command as timeline
from fscore.errors import ConfigError, SnapshotError
from fscore.testing import fs_course
from fscore.testing.course import tiny_course

TEXT = (
    '[data]\nuse = "synthetic"\nclients = 30\nfeatures = 4\nnum_classes = 3\nmin_samples = 10\nmax_samples = 10\n'
    'unseen_clients = 0\n[devices]\nuse = "lognormal"\nsigma = 1.0\nbandwidth = 50.0\n[trigger]\nuse = "goal_achieved"\n'
    'goal = 2\n[protocol]\nbroadcast = "after_receiving"\nconcurrency = 5\nstaleness_limit = 2\n'
    '[[faults]]\nuse = "drop"\nrate = 0.2\n[[reporter]]\nuse = "timeline"\n'
)
CHANGES = {"course.until.versions": 10}


@pytest.fixture
def run(tmp_path):
    return fs_course(TEXT, out=tmp_path / "run", changes=CHANGES)


def test_every_task_has_one_line_and_ends_as_the_books_say(run):
    spans, tasks = read_trace(run.result.run_dir), run.result.tasks
    assert sorted(s["task"] for s in spans) == list(range(tasks["issued"]))
    ends = [s["end"] for s in spans]
    assert (ends.count("used"), ends.count("failed")) == (tasks["used"], tasks["failed"])
    others = tasks["unused"] + tasks["expired"] + tasks["aborted"]
    assert ends.count("wasted") + ends.count("aborted") == others > 0


def test_a_task_that_is_given_up_before_its_model_is_there_has_a_line_too(tmp_path):
    slow = TEXT.replace("bandwidth = 50.0", "bandwidth = 2.0\nbandwidth_sigma = 2.0")
    result = fs_course(slow, out=tmp_path / "run", changes=CHANGES).result
    spans = read_trace(result.run_dir)
    assert sorted(s["task"] for s in spans) == list(range(result.tasks["issued"]))
    assert any("received" not in s and s["end"] == "aborted" for s in spans)


def test_an_update_that_fails_when_it_is_opened_is_no_wasted_one(tmp_path):
    text = TEXT + '[[faults]]\nuse = "corrupt"\nhow = "nan"\nrate = 0.3\n'
    changes = {**CHANGES, "course.patience": 20}
    result = fs_course(text, out=tmp_path / "run", changes=changes).result
    spans = read_trace(result.run_dir)
    assert [s["end"] for s in spans].count("failed") == result.tasks["failed"]
    opened = [s for s in spans if s.get("why") == "its update failed"]
    assert opened
    assert all("arrived" in s for s in opened)


def test_what_failed_at_once_is_seen():
    span = {"task": 1, "client": 2, "version": 0, "issued": 0.0, "received": 2.0, "at": 2.0}
    *_, last = bars({**span, "end": "failed"}, 0, Scale(0.0, 10.0, 0, 100))
    assert 'x="20.0"' in last
    assert 'width="2.0"' in last


def test_times_of_a_task_ascend_and_are_those_of_the_formula(run):
    site = run.course.site
    down, up = (nbytes * 8 / 1000 for nbytes in (site.download.nbytes, site.upload.nbytes))
    for span in read_trace(run.result.run_dir):
        names = ("issued", "received", "computed", "arrived", "at")
        times = [span[name] for name in names if name in span]
        assert times == sorted(times)
        if span["end"] == "used":
            kbits = run.course.devices.inner.kbits(span["client"])
            assert span["received"] - span["issued"] == pytest.approx(down / kbits)
            assert span["arrived"] - span["computed"] == pytest.approx(up / kbits)


def test_the_reporter_changes_no_result(run):
    assert (
        fs_course(TEXT.partition("[[reporter]]")[0], changes=CHANGES).result.digest
        == run.result.digest
    )


def test_a_resumed_run_has_each_line_once(run, tmp_path):
    course = tiny_course(TEXT, out=tmp_path / "other", changes=CHANGES)
    coder = codec(course)
    course.run(lambda c: c.book.version == 4)
    saved = coder.encode(course.dump())
    course.run(lambda c: c.book.version == 7)
    course.load(coder.decode(*saved))
    result = course.run()
    assert (result.run_dir / "trace.jsonl").read_bytes() == (
        run.result.run_dir / "trace.jsonl"
    ).read_bytes()


def test_a_trace_that_lost_its_end_is_refused_on_resume(tmp_path):
    course = tiny_course(TEXT, out=tmp_path / "run", changes=CHANGES)
    course.run(lambda c: c.book.version == 4)
    path = tmp_path / "run" / "trace.jsonl"
    size = path.stat().st_size
    path.write_bytes(b"")
    with pytest.raises(SnapshotError) as caught:
        course.run()
    assert str(caught.value) == f"{path}: has 0 bytes, the snapshot expects {size}"


def test_another_protocol_is_refused():
    from test_gossip import GossipPlugin

    with pytest.raises(ConfigError) as caught:
        fs_course(
            '[protocol]\nuse = "gossip"\n[[reporter]]\nuse = "timeline"\n[sampler]\nuse = "uniform"',
            plugins=[GossipPlugin],
        )
    assert any(
        "'timeline' draws courses of the protocol 'rounds', not 'gossip'" in p
        for p in caught.value.problems
    )


# ------------------------------------------------------------------------ pictures


def drawings(path):
    """Return the SVG elements of a page, parsed; nothing of it is fetched from elsewhere."""
    text = path.read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(|<script", text)
    return [ET.fromstring(found) for found in re.findall(r"<svg.*?</svg>", text, re.S)]  # noqa: S314 - our own


def invoke(command, *words):
    return CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)


def test_timeline_draws_every_piece_of_every_task(run):
    folder = run.result.run_dir
    outcome = invoke(timeline, folder, "--clients", 99)
    assert (
        outcome.output
        == f"{folder / 'timeline.html'}: {run.result.tasks['issued']} tasks, 10 versions\n"
    )
    (drawing,) = drawings(folder / "timeline.html")
    titles = [title.text for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
    drawn = {int(re.match(r"task (\d+) ", title)[1]) for title in titles}
    longer = {s["task"] for s in read_trace(folder) if s["at"] > s["issued"]}
    assert drawn == longer
    assert any("its client dropped out" in title for title in titles)


def test_timeline_draws_the_busiest_clients_up_to_a_time(run, tmp_path):
    folder, out = run.result.run_dir, tmp_path / "t.html"
    invoke(timeline, folder, "--clients", 3, "--until", 0.1, "--out", out)
    (drawing,) = drawings(out)
    texts = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert len([text for text in texts if text.isdigit()]) <= 3


def test_a_piece_in_which_a_task_ended_has_the_colour_of_its_end():
    span = {"task": 1, "client": 2, "version": 0, "issued": 0.0, "received": 2.0, "at": 5.0}
    scale = Scale(0.0, 10.0, 0, 100)
    for end in ("failed", "aborted"):
        pieces = list(bars({**span, "end": end}, 0, scale))
        assert [re.search(r'fill="(.*?)"', p)[1] for p in pieces] == [DOWN, ENDS[end][0]]
    assert len({colour for colour, _ in ENDS.values()}) == len(ENDS)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--until", "nan"), "--until: expected virtual seconds above 0, got nan"),
        (("--until", "-1"), "--until: expected virtual seconds above 0, got -1.0"),
        (("--until", "inf"), "--until: expected virtual seconds above 0, got inf"),
    ],
)
def test_a_span_that_cannot_be_drawn_is_refused(run, words, problem):
    with pytest.raises(ConfigError) as caught:
        invoke(timeline, run.result.run_dir, *words)
    assert str(caught.value) == problem


@pytest.mark.parametrize("words", [("--clients", 0), ("--width", 10)])
def test_an_empty_drawing_is_refused(run, words):
    outcome = invoke(timeline, run.result.run_dir, *words)
    assert outcome.exit_code == 2
    assert f"Invalid value for '{words[0]}'" in outcome.output


def test_timeline_without_a_trace_says_how_to_get_one(tmp_path):
    fs_course(out=tmp_path / "run")
    with pytest.raises(SnapshotError) as caught:
        invoke(timeline, tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run' / 'trace.jsonl'}: no such file. "
        'Remedy: add [[reporter]] use = "timeline" to the course file.'
    )


def test_a_damaged_trace_is_named(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"task": 1}\n')
    with pytest.raises(SnapshotError) as caught:
        read_trace(tmp_path)
    assert str(caught.value) == f"{path}: line 1 is no task of a timeline"


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    span = {"task": 1, "client": 2, "version": 0, "issued": 0.0, "at": 1.0, "end": "used"}
    (tmp_path / "trace.jsonl").write_text(json.dumps(span) + "\n" + json.dumps(span)[:20])
    assert read_trace(tmp_path) == [span]


def test_compare_draws_runs_beside_each_other(run, tmp_path):
    other = fs_course(out=tmp_path / "plain").result.run_dir
    out = tmp_path / "c.html"
    outcome = invoke(compare, run.result.run_dir, other, "--target", 0.0, "--out", out)
    assert outcome.output == f"{out}: run, plain\n"
    metric, times = drawings(out)
    paths = [
        [p for p in d.iter("{http://www.w3.org/2000/svg}path") if p.get("fill")]
        for d in (metric, times)
    ]
    assert [len(found) for found in paths] == [2, 2]
    assert paths[0][0].get("d").count("L") == 9
    assert paths[1][1].get("d") == ""
    assert "plain (no data)" in out.read_text()


def cells(path):
    """Return the table of a comparison, by column of each run."""
    head, *body = re.findall(r"<tr>(.*?)</tr>", path.read_text())
    names = re.findall(r"<th>(.*?)</th>", head)
    return [dict(zip(names, re.findall(r"<td>(.*?)</td>", row), strict=True)) for row in body]


@pytest.mark.parametrize(("metric", "words"), [("test_loss", ()), ("test_accuracy", ("--lower",))])
def test_of_a_loss_the_smallest_is_best_and_a_target_is_met_from_above(
    run, tmp_path, metric, words
):
    out = tmp_path / "c.html"
    history = run.result.history
    values = [line[metric] for line in history]
    target = sorted(values)[3]
    first = next(line["virtual_time"] for line in history if line[metric] <= target)
    given = ("--metric", metric, *words, "--target", target, "--out", out)
    invoke(compare, run.result.run_dir, *given)
    (row,) = cells(out)
    assert row["best"] == f"{min(values):.4g}"
    assert row[f"seconds to {target:g}"] == f"{first:.4g}"


def test_runs_of_one_name_are_told_apart_by_their_paths(run, tmp_path):
    other = fs_course(out=tmp_path / "other" / "run").result.run_dir
    out = tmp_path / "c.html"
    invoke(compare, run.result.run_dir, other, "--out", out)
    assert [row["run"] for row in cells(out)] == [str(run.result.run_dir), str(other)]


def test_compare_names_the_metrics_that_there_are(run, tmp_path):
    with pytest.raises(ConfigError) as caught:
        invoke(compare, run.result.run_dir, "--metric", "accuracy", "--out", tmp_path / "c.html")
    assert str(caught.value).startswith(
        "--metric: no run has 'accuracy' (known: bytes_down, bytes_up, "
    )


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (5, 5, [5.0])],
)
def test_ticks_are_round(low, high, ticks):
    assert Scale(low, high, 0, 100).ticks() == pytest.approx(ticks)


def test_ticks_of_a_logarithmic_axis_are_powers_of_ten():
    assert Scale(0.2, 300, 0, 100, log=True).ticks() == [1.0, 10.0, 100.0]


def test_a_scale_maps_its_ends():
    scale = Scale(1, 100, 10, 20, log=True)
    assert [scale(v) for v in (1, 10, 100)] == [10, 15, 20]


def test_a_chart_without_points_says_so():
    assert Chart("t", "x", "y", [Line("a", [])]).svg() == "<p>t: nothing to draw.</p>"


def test_a_distribution_ends_at_one_and_quantiles_are_its_values():
    assert distribution([1.0, 2.0]) == [(1.0, 0.5), (2.0, 1.0)]
    assert [quantile([1.0, 2.0, 3.0], q) for q in (0.0, 0.5, 0.99)] == [[1.0], [2.0], [3.0]]
    assert quantile([], 0.5) == []
