"""Every search in examples/tune ends, and its best file gives the digest of its best trial."""

from pathlib import Path

import pytest

import fscore
from fscore.builtin.tables import read
from fscore.builtin.tuning.search import Tuning

EXAMPLES = sorted(Path(__file__).parents[3].glob("examples/tune/*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_search_of_an_example_ends_in_a_file_that_runs(path, tmp_path):
    tuning = Tuning({**read(path), "executor": {"use": "serial"}}, tmp_path)
    list(tuning.run())
    tuning.write()
    best = tuning.best()
    result = fscore.load(tmp_path / "best.toml", {"reporter": []}).run()
    assert result.versions == best.trial.versions
    if not tuning.remark.startswith("privacy: all trials ran on the proxy data"):
        assert result.digest == best.outcome.digest
