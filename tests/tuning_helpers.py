"""What the tests of searches share: a tiny course with a search."""

import copy

from fscore.builtin.tuning.search import Tuning
from fscore.testing.course import TINY


def tables(tune=None, **changes):
    made = copy.deepcopy(TINY)
    made["data"]["val"] = 0.2
    made["evaluation"] = {"every": 0}
    return {
        **made,
        **changes,
        "tune": {"versions": 4, "space": {"trainer.lr": [0.01, 0.5]}, **(tune or {})},
    }


def searched(folder, tune=None, *, plugins=(), workers=1, **changes):
    tuning = Tuning(tables(tune, **changes), folder, plugins, workers)
    list(tuning.run())
    return tuning


def lines(folder):
    return (folder / "trials.jsonl").read_text().splitlines()
