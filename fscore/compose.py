"""The composition check: which components may meet in one course."""

from __future__ import annotations

from collections.abc import Iterable

from fscore.component import Component

FLAGS: dict[str, str] = {
    "individual_updates": "individual updates",
    "linear_reduce": "an aggregate that is a weighted sum",
    "public_weights": "weights that the server knows",
    "per_client_download": "downloads that differ by client",
    "stateful_clients": "clients that keep state",
    "plain_metrics": "metrics of single clients in the clear",
    "open_cohort": "cohorts that are not closed when they are issued",
}
"""What holds in a plain course, and how messages say it. Other flags hold only where a component provides them."""


def violations(owners: Iterable[tuple[str, Component]]) -> list[str]:
    """Return one line for every need that is not met.

    Args:
        owners: the course's components with their labels, `[aggregator]` or `[[privacy]]`.
    """
    flagged = [(label, component, component.flags()) for label, component in owners]
    removed = {f: (label, c) for label, c, (_, _, removes) in flagged for f in removes}
    provided = set(FLAGS).union(*(provides for _, _, (_, provides, _) in flagged)) - set(removed)
    lines = []
    for label, component, (needs, _, _) in flagged:
        for flag in sorted(needs - provided):
            words = FLAGS.get(flag, flag.replace("_", " "))
            start = f"E-COMPAT: {label} '{component.name}' needs {words}, but "
            if flag in removed:
                other, by = removed[flag]
                lines.append(
                    f"{start}{other} '{by.name}' takes that away. Remedy: switch one of them off."
                )
            else:
                lines.append(
                    f"{start}nothing in this course provides it. Remedy: add what provides '{flag}', "
                    f"or switch '{component.name}' off."
                )
    return lines
