"""Why a clip was kept or dropped, as its dataset recorded it: what was measured, against what.

`dataset.json` holds under `decisions` an entry for every quantity that curation judged, in the
order in which a clip meets them. With the clip's row they explain its verdict to a reader that
knows nothing of the judges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["passed", "failed", "not measured", "not reached"]
_SLACK = {"duration_s": 1e-6}


@dataclass(frozen=True)
class Limit:
    """A column of clips.parquet, or a name of EXPRESSIONS, and where it must lie (None: anywhere).

    `setting` names the fields of the configuration that it was taken from.
    """

    column: str
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    setting: str = ""


@dataclass(frozen=True)
class Decision:
    """One judged quantity. `reasons` are what a clip that fails is dropped for: one code, or that
    of being below and that of being above.

    `rule` says in words what no number says. A clip fails by `also` as well as by the limit
    itself: by `any` of them, or only by `all`.
    """

    stage: str
    title: str
    column: str
    reasons: tuple[str, ...]
    at_least: float | None = None
    at_most: float | None = None
    unit: str = ""
    setting: str = ""
    rule: str = ""
    also: tuple[Limit, ...] = ()
    fails: Literal["any", "all"] = "any"


def _duration_s(row: Mapping[str, Any]) -> float | None:
    return row["end_s"] - row["start_s"] if row["kind"] == "video" else None


#: What is judged but is no column, from the row of a clip.
EXPRESSIONS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "duration_s": _duration_s,
    "short_side_px": lambda row: min(row["crop_w_px"], row["crop_h_px"]),
    "long_side_px": lambda row: max(row["crop_w_px"], row["crop_h_px"]),
}


def measured(limit: Mapping[str, Any], row: Mapping[str, Any]) -> Any:
    """The value that an entry, or a part of its `also`, is about; None where there is none."""
    expression = EXPRESSIONS.get(limit["column"])
    return expression(row) if expression else row.get(limit["column"])


def failure(decision: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """The reason for which the numbers alone would drop the clip; None where they would not."""
    sides = [_side(limit, row) for limit in (decision, *decision.get("also", ()))]
    found = all(sides) if decision.get("fails") == "all" else any(sides)
    if not found:
        return None
    above = "above" in sides and decision["at_least"] is not None
    return str(decision["reasons"][-1 if above else 0])


def outcomes(decisions: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> list[Outcome]:
    """What became of the clip at each entry, by its verdict: it failed at one, or at none."""
    dropped_at = (row["reason_stage"], row["reason"]) if row["verdict"] == "dropped" else None
    found: list[Outcome] = []
    over = False
    for decision in decisions:
        fails = dropped_at is not None and dropped_at[0] == decision["stage"]
        fails = fails and dropped_at is not None and dropped_at[1] in decision["reasons"]
        if over or fails:
            found.append("failed" if fails else "not reached")
        else:
            found.append("not measured" if _is_unknown(decision, row) else "passed")
        over = over or fails
    return found


def _is_unknown(decision: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    has_limit = decision["at_least"] is not None or decision["at_most"] is not None
    return has_limit and measured(decision, row) is None


def _side(limit: Mapping[str, Any], row: Mapping[str, Any]) -> Literal["below", "above", ""]:
    value, slack = measured(limit, row), _SLACK.get(limit["column"], 0.0)
    if not isinstance(value, (int, float)):
        return ""
    if limit["at_least"] is not None and value < limit["at_least"] - slack:
        return "below"
    if limit["at_most"] is not None and value > limit["at_most"] + slack:
        return "above"
    return ""
