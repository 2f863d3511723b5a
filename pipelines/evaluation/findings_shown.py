"""A record of findings in words and pictures, for the notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipelines.evaluation.findings import (
    ERROR_BARS,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    UNDECIDED,
)

Entry = Mapping[str, Any]

_COLOURS = {REPRODUCED: "tab:green", NOT_REPRODUCED: "tab:red", UNDECIDED: "tab:gray"}


def sentence(entry: Entry) -> str:
    """One finding: what is claimed, what was measured, and the verdict."""
    if entry["verdict"] == NOT_RUN:
        return f"{NOT_RUN.upper()}: {entry['claim']}."
    bar = ERROR_BARS * entry["standard_error"]
    if entry["kept_within"] is not None:
        measured = (
            f"{_side(entry['better'])} is {entry['difference']:.3g} ± {bar:.2g}, "
            f"the limit {entry['kept_within']:g}"
        )
    else:
        measured = (
            f"{_side(entry['better'])} {entry['mean_better']:.4g}, "
            f"{_side(entry['worse'])} {entry['mean_worse']:.4g}, "
            f"difference {entry['difference']:.3g} ± {bar:.2g}"
        )
    return (
        f"{entry['verdict'].upper()}: {entry['claim']}. {measured} "
        f"({entry['videos']} videos of {entry['clips']} clips)."
    )


def target_sentence(entry: Entry) -> str:
    if entry["verdict"] == NOT_RUN:
        return f"{NOT_RUN.upper()}: {entry['claim']}."
    bar = ERROR_BARS * entry["standard_error"]
    return (
        f"{entry['verdict'].upper()}: {entry['claim']}: {_side(entry['side'])} "
        f"{entry['mean']:.4g} ± {bar:.2g}, wanted {entry['least']:g} ({entry['clips']} clips)."
    )


def plot_findings(entries: Sequence[Entry]) -> Any:
    """A matplotlib figure, a panel per finding: both means, and the difference's error bar at the
    first. The colour is the verdict's. Findings that were not run have none."""
    from matplotlib import pyplot

    shown = [entry for entry in entries if entry["verdict"] != NOT_RUN]
    figure, axes = pyplot.subplots(1, max(1, len(shown)), figsize=(3.4 * max(1, len(shown)), 2.8))
    for axis, entry in zip(np.atleast_1d(axes), shown, strict=False):
        _panel(axis, entry)
    if not shown:
        axes.axis("off")
    figure.tight_layout()
    return figure


def _panel(axis: Any, entry: Entry) -> None:
    colour, bar = _COLOURS[entry["verdict"]], ERROR_BARS * entry["standard_error"]
    if entry["kept_within"] is not None:
        axis.bar([_label(entry["better"])], [entry["difference"]], yerr=[bar], color=colour)
        for limit in (-entry["kept_within"], entry["kept_within"]):
            axis.axhline(limit, color="black", linestyle=":", linewidth=0.8)
    else:
        names = [_label(entry["better"]), _label(entry["worse"])]
        if names[0] == names[1]:
            names = [entry[side][1].split("_")[0] for side in ("better", "worse")]
            if names[0] not in ("refined", "bicubic"):
                names = [entry[side][1].split("_")[1] for side in ("better", "worse")]
        means = [entry["mean_better"], entry["mean_worse"]]
        axis.bar(names, means, yerr=[bar, 0], color=[colour, "lightgray"], capsize=4)
        axis.set_ylim(*_limits(means, bar))
    axis.set_title(f"{entry['better'][1].replace('_', ' ')}\n{entry['verdict']}", fontsize=8)
    axis.tick_params(labelsize=8)


def _limits(means: Sequence[float], bar: float) -> tuple[float, float]:
    """Around what is shown, from zero where zero is near."""
    low, high = min(*means, means[0] - bar), max(*means, means[0] + bar)
    room = 0.3 * (high - low) or 1.0
    low, high = low - room, high + room
    return (min(0.0, low) if low < high / 2 else low), max(0.0, high)


def _label(side: Sequence[str]) -> str:
    return side[0].replace("_", " ")


def _side(side: Sequence[str]) -> str:
    return f"{side[1].replace('_', ' ')} of {_label(side)}"
