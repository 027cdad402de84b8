"""Reporters that write files: whole lines, one for each version, whatever interrupts them."""

import contextlib
import csv
import json
import os

import pytest
from attrs import define

from fscore.builtin.record.resume import codec
from fscore.component import Component
from fscore.errors import ConfigError, WriteError
from fscore.testing import fs_course, tiny_course


def reporter(use, path):
    return f'[[reporter]]\nuse = "{use}"\npath = "{path}"\n'


def versions(use, path):
    if use == "csv":
        return [int(row["version"]) for row in csv.DictReader(path.read_text().splitlines())]
    return [json.loads(line)["version"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("use", ["jsonl", "csv"])
def test_there_is_one_line_for_each_version(use, tmp_path):
    fs_course(reporter(use, tmp_path / "lines"))
    assert versions(use, tmp_path / "lines") == [1, 2, 3]


@pytest.mark.parametrize("use", ["jsonl", "csv"])
def test_a_course_that_goes_on_from_a_snapshot_repeats_no_line(use, tmp_path):
    text = reporter(use, tmp_path / "lines")
    paused, resumed = tiny_course(text), tiny_course(text)
    paused.run(lambda c: c.settled and c.book.version == 2)
    coder = codec(paused)
    data = coder.decode(*coder.encode(paused.dump()))
    paused.run()
    resumed.load(data)
    resumed.run()
    assert versions(use, tmp_path / "lines") == [1, 2, 3]


@define(eq=False)
class Undefined(Component):
    """Has a figure that is no number."""

    name = "undefined"

    def figures(self):
        return {"undefined": float("nan")}


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    fs_course(reporter("jsonl", tmp_path / "lines"), plugins=[Undefined])
    assert json.loads((tmp_path / "lines").read_text().splitlines()[0])["undefined"] is None


@pytest.mark.parametrize("use", ["jsonl", "csv"])
@pytest.mark.parametrize("path", ["", ".", "nowhere/lines"])
def test_a_path_that_cannot_be_written_is_refused_before_the_run(use, path):
    with pytest.raises(ConfigError) as caught:
        tiny_course(reporter(use, path))
    assert str(caught.value) == (
        f"reporter.path: '{path}' cannot be written: expected a file in a folder that exists"
    )


@define(eq=False)
class Long(Component):
    """Makes each line as long as a page, nearly."""

    name = "long"

    def figures(self):
        return {f"n{i:03}": 0.25 for i in range(200)}


@pytest.mark.parametrize("use", ["jsonl", "csv"])
def test_a_full_disk_leaves_whole_lines_and_a_run_that_can_be_resumed(use, small_disk, tmp_path):
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", 0) as filler:
        while True:
            filler.write(bytes(4096))
    os.truncate(small_disk / "filler", 15 * 4096)  # one page is left: for the first line
    path = small_disk / "lines"
    with pytest.raises(WriteError) as caught:
        fs_course(reporter(use, path), plugins=[Long], out=tmp_path / "run")
    assert str(caught.value) == f"{path}: No space left on device"
    assert versions(use, path) == [1]
    assert not (tmp_path / "run" / "result.json").exists()


def test_the_console_prints_one_line_per_version_where_there_is_no_terminal(capsys):
    toml = '[[reporter]]\nuse = "console"\n[data]\nval = 0.3'
    fs_course(toml)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("version ")]
    assert len(lines) == 3
    assert all("test_loss" in line for line in lines)


def test_the_console_begins_with_what_auto_chose_and_why(capsys):
    toml = '[[reporter]]\nuse = "console"\n[executor]\nuse = "{}"'
    course = fs_course(toml.format("auto")).course
    said = capsys.readouterr().out.splitlines()[0]
    assert said == f"executor: {course.executor.reason}"
    fs_course(toml.format("serial"))
    assert capsys.readouterr().out.startswith("version ")
