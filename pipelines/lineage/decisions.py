"""Every decision over one clip: what was measured, what was demanded, and what came of it.

The demands are those that the dataset was curated with, as its `dataset.json` lists them; not
those of the code that asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.decisions import Outcome, measured, outcomes

PASSED: dict[Outcome, bool] = {"passed": True, "failed": False}
COPIED = ("stage", "title", "at_least", "at_most", "unit", "setting", "rule")
COPIED_OF_ALSO = ("column", "at_least", "at_most", "unit", "setting")


def decisions_of(manifest: Mapping[str, Any], row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One dict per judged quantity, in the order of judging: {stage, title, value, at_least,
    at_most, unit, setting, rule, also, outcome, passed}.

    `passed` is None where nothing was measured, or the clip had been dropped before; [] for a
    dataset that lists no decisions.
    """
    demands = list(manifest.get("decisions", ()))
    found = zip(demands, outcomes(demands, row), strict=True)
    return [_decision(demand, row, outcome) for demand, outcome in found]


def _decision(
    demand: Mapping[str, Any], row: Mapping[str, Any], outcome: Outcome
) -> dict[str, Any]:
    also = [
        {**{name: limit.get(name) for name in COPIED_OF_ALSO}, "value": measured(limit, row)}
        for limit in demand.get("also", ())
    ]
    return {
        **{name: demand.get(name) for name in COPIED},
        "value": measured(demand, row),
        "also": also,
        "outcome": outcome,
        "passed": PASSED.get(outcome),
    }
