"""Every file in examples/ runs; what the README claims of the first course holds."""

from pathlib import Path

import pytest

import fscore

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.toml")), ids=lambda p: p.stem)
def test_example_runs_to_its_end(path, monkeypatch):
    monkeypatch.chdir(EXAMPLES.parent)
    result = fscore.load(path, {"reporter": []}).run()
    assert result.status == "complete"


def test_digits_reaches_093_on_held_out_samples_of_participating_writers():
    result = fscore.load(EXAMPLES / "digits.toml", {"reporter": []}).run()
    assert result.versions == 30
    assert result.metrics["test_accuracy"] >= 0.93
    assert result.metrics["unseen_test_accuracy"] > 0.8
