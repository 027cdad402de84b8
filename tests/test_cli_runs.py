"""The command line: interruptions, what is muted, damaged run directories, and what `options` and `check` print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tomli

from fscore.cli import main
from fscore.kinds import KINDS

COURSE = """
[course]
name = "long"
seed = 3
until = { versions = 80 }
[data]
use = "synthetic"
clients = 10
min_samples = 5
max_samples = 20
[model]
use = "softmax"
[sampler]
clients = 4
[executor]
use = "serial"
[record]
snapshot_seconds = 0
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "course.toml"
    path.write_text(COURSE)
    return path


def fscore(*words):
    """Run a command in this process and return its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def start(*words):
    code = "from fscore.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def interrupted(file, folder, how, *words):
    """Start a course, interrupt it after some versions, and return exit code, output and errors."""
    process = start("run", file, "--out", folder, *words)
    metrics = folder / "metrics.jsonl"
    for _ in range(3000):
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= 3:
            break
        time.sleep(0.01)
    process.send_signal(how)
    out, errors = process.communicate(timeout=60)
    return process.returncode, out, errors


# ------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("executor", ["serial", "process"])
def test_an_interruption_names_the_command_that_goes_on(file, tmp_path, how, executor):
    folder = tmp_path / "run"

    code, _, errors = interrupted(file, folder, how, "--set", f"executor.use={executor}")

    assert (code, errors) == (128 + how, f"interrupted; `fscore resume {folder}` goes on\n")
    assert not (folder / "result.json").exists()
    assert fscore("resume", folder, "--quiet") == 0
    assert json.loads((folder / "result.json").read_text())["status"] == "complete"


# ------------------------------------------------------------------------ quiet


def test_quiet_mutes_this_process_and_changes_nothing_that_is_recorded(file, tmp_path, capsys):
    lines = tmp_path / "lines.jsonl"
    file.write_text(
        COURSE.replace("80", "3")
        + f'[[reporter]]\nuse = "console"\n[[reporter]]\nuse = "jsonl"\npath = "{lines}"\n'
    )

    assert fscore("run", file, "--quiet", "--out", tmp_path / "quiet") == 0
    assert capsys.readouterr().out == ""
    assert len(lines.read_text().splitlines()) == 3
    course = json.loads((tmp_path / "quiet" / "run.json").read_text())["course"]
    assert [reporter["use"] for reporter in course["reporter"]] == ["console", "jsonl"]


def test_a_quiet_run_that_is_resumed_reports_again(file, tmp_path, capsys):
    folder = tmp_path / "run"
    _, out, _ = interrupted(file, folder, signal.SIGTERM, "--quiet")
    assert out == ""

    assert fscore("resume", folder) == 0
    assert "version   80" in capsys.readouterr().out


# ------------------------------------------------------------------------ damaged run directories


@pytest.fixture
def half(file, tmp_path):
    """A run that was interrupted."""
    folder = tmp_path / "run"
    interrupted(file, folder, signal.SIGTERM)
    return folder


def test_a_run_without_its_metrics_is_not_resumed(half, capsys):
    (half / "metrics.jsonl").unlink()

    assert fscore("resume", half) == 2
    errors = capsys.readouterr().err.splitlines()
    expected = f"error: {half / 'metrics.jsonl'}: it is missing, the snapshot expects "
    assert errors
    assert all(line.startswith(expected) for line in errors)
    assert not (half / "metrics.jsonl").exists()


def test_a_torn_result_is_one_line(half, capsys):
    (half / "result.json").write_text('{"status": "comp')

    assert fscore("resume", half) == 2
    assert capsys.readouterr().err == (
        f"error: {half / 'result.json'}: truncated or no valid JSON: Unterminated string starting at: line 1 "
        "column 12 (char 11). Remedy: remove it, and the run goes on.\n"
    )
    (half / "result.json").unlink()
    assert fscore("resume", half, "--quiet") == 0


def test_a_folder_in_the_place_of_the_result_is_one_line(half, capsys):
    (half / "result.json").mkdir()

    assert fscore("resume", half) == 2
    assert capsys.readouterr().err == (
        f"error: {half / 'result.json'}: cannot read: Is a directory. Remedy: remove it, and the run goes on.\n"
    )


# ------------------------------------------------------------------------ check and options


def test_check_says_why_auto_chose_its_executor(file, capsys):
    assert fscore("check", file, "--set", "executor.use=auto") == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("executor: ")]
    assert line.startswith("executor: cohort, ")

    many = (
        "--set",
        "executor.use=auto",
        "--set",
        "model.use=mlp",
        "--set",
        "model.hidden=[4000, 4000]",
    )
    assert fscore("check", file, *many) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("executor: ")]
    assert "one client at a time is faster from 2e+06" in line


def test_check_names_an_executor_that_was_chosen_in_the_file(file, capsys):
    assert fscore("check", file) == 0
    assert "\nexecutor: serial\n" in capsys.readouterr().out


def printed(capsys, name):
    assert fscore("options", name) == 0
    return capsys.readouterr().out


def test_options_prints_the_tables_of_a_course(capsys):
    assert printed(capsys, "record") == (
        "# `[record]`: what the run directory keeps.\n"
        "[record]\n"
        "# Real seconds between snapshots at least; 0: after every version.\n"
        "snapshot_seconds = 10.0\n"
        "# Snapshots kept.\n"
        "snapshots = 2\n"
    )


def test_options_prints_tables_inside_a_table_by_dotted_keys(capsys):
    assert "# Versions to make.\n# until.versions =\n" in printed(capsys, "course")


@pytest.mark.parametrize("name", ["course", "record", "override"])
def test_what_options_prints_of_a_table_is_toml(capsys, name):
    assert name in tomli.loads(printed(capsys, name))


def test_options_lists_the_components_of_a_kind(capsys):
    by_table, by_plural = printed(capsys, "stores"), printed(capsys, "store")
    assert by_table == by_plural
    assert by_table.splitlines()[0] == (
        "[store]  use = one of these; `fscore options NAME` prints its options"
    )
    assert [line.split()[0] for line in by_table.splitlines()[1:]] == ["disk", "memory", "none"]


@pytest.mark.parametrize("kind", [kind.plural for kind in KINDS])
def test_every_kind_is_listed(capsys, kind):
    assert printed(capsys, kind)


def test_an_unknown_name_gets_the_nearest(capsys):
    assert fscore("options", "samplr") == 2
    assert capsys.readouterr().err == (
        "error: samplr: no component, plugin, table or kind has this name, did you mean 'sampler'?\n"
    )
