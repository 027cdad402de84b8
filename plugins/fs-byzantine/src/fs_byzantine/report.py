"""What a tournament gave: tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from attrs import frozen

from fs_byzantine.tournament import CLEAN, Cell


@frozen
class Score:
    """A metric over the seeds of one pair: mean and standard deviation, NaN where a course failed or gave no finite number."""

    mean: float
    spread: float


def scores(cells: Iterable[Cell], metric: str) -> dict[tuple[str, str], Score]:
    """Return one metric by attack and defence; pairs in which no course has it are left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        if cell.status == "failed" or metric in cell.metrics:
            value = cell.metrics.get(metric)
            measured = math.nan if value is None else value
            found.setdefault((cell.attack, cell.defence), []).append(measured)
    return {
        pair: Score(float(np.mean(values)), float(np.std(values, ddof=1)) if values[1:] else 0.0)
        for pair, values in found.items()
    }


def table(found: Mapping[tuple[str, str], Score]) -> str:
    """Return attacks as rows and defences as columns, in Markdown."""
    attacks = list(dict.fromkeys(attack for attack, _ in found))
    defences = list(dict.fromkeys(defence for _, defence in found))
    cells = [["attack", *defences]]
    for attack in attacks:
        cells.append([attack, *(_cell(found.get((attack, d))) for d in defences)])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [" | ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)) for row in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _cell(score: Score | None) -> str:
    if score is None:
        return ""
    if math.isnan(score.mean):
        return "failed"
    return f"{score.mean:.3f} ± {score.spread:.3f}" if score.spread else f"{score.mean:.3f}"


def backdoors(cells: Iterable[Cell], attacks: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    """Return what each backdoor did, in Markdown; an empty text where there is none.

    Per attack and defence: the main metric, the attack's success, and that on the model of the course without attack.
    """
    lines = []
    main = scores(cells, metric)
    for label, entry in attacks.items():
        success = scores(cells, f"{entry['use']}_accuracy")
        for attack, defence in success:
            if attack != label:
                continue
            row = [label, defence, _cell(main.get((label, defence)))]
            row += [_cell(success[label, defence]), _cell(success.get((CLEAN, defence)))]
            lines.append("| " + " | ".join(row) + " |")
    if not lines:
        return ""
    head = f"| attack | defence | {metric} | attack success | attack success of a clean model |"
    return "\n".join([head, "|---|---|---|---|---|", *lines])
