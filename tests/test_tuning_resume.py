"""Searches that are killed, cut, crowded out or short of room, and go on to the same lines; workers change nothing."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tuning_helpers import Deadly, TunerPlugin, lines, searched, tables

from fscore.builtin.tables import document
from fscore.builtin.tuning.search import Tuning
from fscore.errors import CourseError, SnapshotError, WriteError


def test_workers_change_nothing(tmp_path):
    for workers in (1, 2):
        searched(
            tmp_path / str(workers), {"use": "halving"}, plugins=[TunerPlugin], workers=workers
        )
    assert lines(tmp_path / "1") == lines(tmp_path / "2")


def test_a_search_that_was_stopped_goes_on_without_computing_anything_twice(tmp_path):
    searched(tmp_path / "whole", {"use": "halving"}, plugins=[TunerPlugin])
    tuning = Tuning(tables({"use": "halving"}), tmp_path / "cut", [TunerPlugin])
    run = tuning.run()
    for _ in range(3):
        next(run)
    run.close()
    with (tmp_path / "cut/trials.jsonl").open("a") as file:
        file.write('{"trial": 2, "par')
    before = (tmp_path / "cut/trials/0000/run.json").stat().st_mtime_ns
    searched(tmp_path / "cut", {"use": "halving"}, plugins=[TunerPlugin])
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert (tmp_path / "cut/trials/0000/run.json").stat().st_mtime_ns == before


def waited(holds, seconds=60):
    """Wait until something holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def running(pid):
    """Whether a process computes; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_a_killed_search_resumes_to_the_same_trials(tmp_path):
    made = tables({"use": "random", "trials": 8, "versions": 6})
    made["evaluation"]["every"] = 1
    made["record"] = {"snapshot_seconds": 0.0}
    (tmp_path / "c.toml").write_text(document(made))
    script = "import sys; from fscore.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "tune"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        [*command, "c.toml", "--out", "cut", "--workers", "2"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    noted = tmp_path / "cut/trials.jsonl"
    assert waited(lambda: noted.exists() and noted.read_bytes())
    workers = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(workers) == 2
    assert waited(lambda: not any(running(pid) for pid in workers))
    assert 1 <= len(lines(tmp_path / "cut")) < 8
    subprocess.run(
        [*command, "cut"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )
    searched(tmp_path / "whole", made["tune"], evaluation=made["evaluation"], record=made["record"])
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_another_search_in_the_same_folder_is_refused(tmp_path):
    searched(tmp_path, {"use": "grid"})
    with pytest.raises(SnapshotError) as caught:
        searched(tmp_path, {"use": "grid", "versions": 3})
    assert str(caught.value) == (
        f"{tmp_path / 'search.json'}: this folder holds another search. Remedy: name another folder."
    )


def test_a_tuner_that_asks_for_something_else_now_is_refused(tmp_path):
    searched(tmp_path, {"use": "grid"})
    path = tmp_path / "trials.jsonl"
    path.write_text(path.read_text().replace('"trainer.lr": 0.01', '"trainer.lr": 0.02'))
    with pytest.raises(SnapshotError) as caught:
        searched(tmp_path, {"use": "grid"})
    assert str(caught.value) == (
        f"{path}: trial 0 was {{'trainer.lr': 0.02}}, and the tuner asks for {{'trainer.lr': 0.01}} now. "
        "Remedy: use the versions of search.json, or begin a new search."
    )


def test_a_line_that_the_tuner_does_not_ask_for_is_refused(tmp_path):
    searched(tmp_path, {"use": "grid"})
    path = tmp_path / "trials.jsonl"
    path.write_text(
        path.read_text()
        + path.read_text().splitlines()[0].replace('"trial": 0', '"trial": 7')
        + "\n"
    )
    with pytest.raises(SnapshotError) as caught:
        searched(tmp_path, {"use": "grid"})
    assert str(caught.value) == (
        f"{path}: the tuner never asked for trial 7 at 4 versions. Remedy: use the versions of search.json, or begin a "
        "new search."
    )


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"versions": 4, "fork"', '"fork"', "line 1: 'versions' is missing or damaged. Remedy: cut the file before this line."),
        ('"clients": 6', '"clients": "6"', "line 1: 'clients' is missing or damaged. Remedy: cut the file before this line."),
        ('"total": {"versions": 4, ', '"total": {', "line 1: 'total' is missing or damaged. Remedy: cut the file before this line."),
        ('{"trial": 0', "{trial: 0", "line 1: not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ('"trial": 1', '"trial": 0', "trial 0 at 4 versions stands there twice"),
    ],
)  # fmt: skip
def test_damaged_lines_are_refused_by_name(tmp_path, old, new, text):
    searched(tmp_path, {"use": "grid"})
    path = tmp_path / "trials.jsonl"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SnapshotError) as caught:
        searched(tmp_path, {"use": "grid"})
    assert str(caught.value) == f"{path}: {text}"


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_where_lines_were_cut_trials_are_computed_again(tmp_path, kept):
    """Trials that went on since, and a fork of one of them, stand beyond what the tuner asks for."""
    batches = [[[0, 0.1, 1], [1, 0.2, 1]], [[0, 0.1, 2], [2, 0.4, 2, 1]], [[1, 0.2, 4]]]
    tune = {"use": "scripted", "batches": batches}
    searched(tmp_path, tune, plugins=[TunerPlugin])
    whole = lines(tmp_path)
    (tmp_path / "trials.jsonl").write_text("".join(f"{line}\n" for line in whole[:kept]))
    shutil.rmtree(tmp_path / "trials/0002")
    searched(tmp_path, tune, plugins=[TunerPlugin])
    assert lines(tmp_path) == whole


def test_where_lines_were_cut_a_trial_that_failed_later_has_its_early_result_again(tmp_path):
    """Weights grow by a factor of 1e11 in each version: the fourth is not finite."""
    tune = {"use": "scripted", "batches": [[[0, 1e11, 1]], [[0, 1e11, 4]]]}
    trainer = {"use": "sgd", "batch_size": 0, "weight_decay": 1.0}
    done = searched(tmp_path, tune, plugins=[TunerPlugin], trainer=trainer).finished
    assert [d.reason == "" for d in done] == [True, False]
    whole = lines(tmp_path)
    (tmp_path / "trials.jsonl").write_text("")
    searched(tmp_path, tune, plugins=[TunerPlugin], trainer=trainer)
    assert lines(tmp_path) == whole


def test_a_damaged_snapshot_is_refused_with_a_remedy_that_works(tmp_path):
    tune = {"use": "halving"}
    searched(tmp_path, tune, plugins=[TunerPlugin])
    whole = lines(tmp_path)
    (tmp_path / "trials.jsonl").write_text("".join(f"{line}\n" for line in whole[:2]))
    folder = tmp_path / "trials/0001"
    for path in folder.glob("snapshots/*/state.json"):
        path.write_text("{}")
    with pytest.raises(SnapshotError) as caught:
        searched(tmp_path, tune, plugins=[TunerPlugin])
    remedy = f". Remedy: delete {folder}; the trial is computed again."
    assert str(caught.value).endswith(remedy)
    shutil.rmtree(folder)
    searched(tmp_path, tune, plugins=[TunerPlugin])
    assert lines(tmp_path) == whole


@contextlib.contextmanager
def full_disk(size):
    """Let no file grow beyond some bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_fails_no_trial_and_the_search_goes_on_when_there_is_room(tmp_path, workers):
    tune = {"use": "random", "trials": 3}
    searched(tmp_path / "whole", tune)
    with full_disk(1500), pytest.raises(WriteError) as caught:
        searched(tmp_path / "cut", tune, workers=workers)
    assert str(caught.value).endswith("run.json: File too large")
    searched(tmp_path / "cut", tune, workers=workers)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_a_full_disk_leaves_no_half_result(tmp_path):
    tuning = searched(tmp_path, {"use": "grid"})
    with full_disk(500), pytest.raises(WriteError) as caught:
        tuning.write()
    assert str(caught.value) == f"{tmp_path / 'best.toml'}: File too large"
    assert not list(tmp_path.glob("*best.toml*"))


def test_two_searches_in_one_folder_at_once_are_refused(tmp_path):
    run = Tuning(tables({"use": "grid"}), tmp_path).run()
    next(run)
    script = "import sys; from fscore.cli import main; main(sys.argv[1:])"
    other = subprocess.run(
        [sys.executable, "-c", script, "tune", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    run.close()
    assert (other.returncode, other.stderr) == (
        2,
        f"error: {tmp_path}: another process is writing to this run\n",
    )


def test_a_worker_that_dies_ends_the_search_by_name(tmp_path):
    tuning = Tuning(tables({"use": "random"}), tmp_path, [Deadly], workers=2)
    with pytest.raises(CourseError) as caught:
        list(tuning.run())
    assert str(caught.value) == (
        "tune: a worker process died; the search can go on from its folder"
    )
