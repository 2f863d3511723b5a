"""Decisions over a clip are read from what the dataset was curated with."""

from __future__ import annotations

from typing import Any

from pipelines.lineage import trace_text
from pipelines.lineage.decisions import decisions_of


def demand(stage: str, column: str, reasons: list[str], **more: Any) -> dict[str, Any]:
    limits = {"at_least": None, "at_most": None, "unit": "", "setting": "", "rule": "", "also": []}
    return {"stage": stage, "title": stage, "column": column, "reasons": reasons} | limits | more


MANIFEST = {
    "decisions": [
        demand("limits", "duration_s", ["too_short", "too_long"], at_least=2.0, at_most=120.0),
        demand("motion", "motion", ["too_still"], at_least=0.1, unit="widths/s"),
        demand("duplicates", "duplicate_of", ["duplicate"]),
    ]
}
ROW: dict[str, Any] = {
    "kind": "video", "start_s": 1.0, "end_s": 4.5, "motion": 0.05, "duplicate_of": None,
    "verdict": "dropped", "reason_stage": "motion", "reason": "too_still",
}  # fmt: skip


def test_each_decision_has_its_score_its_limits_and_what_came_of_it() -> None:
    long, moves, copy = decisions_of(MANIFEST, ROW)
    assert (long["value"], long["at_least"], long["at_most"], long["passed"]) == (3.5, 2, 120, True)
    assert (moves["value"], moves["passed"]) == (0.05, False)
    assert (copy["outcome"], copy["passed"]) == ("not reached", None)


def test_a_reason_drops_even_where_there_is_no_number() -> None:
    row = {**ROW, "reason_stage": "duplicates", "reason": "duplicate", "duplicate_of": "a" * 32}
    assert [d["passed"] for d in decisions_of(MANIFEST, row)] == [True, True, False]


def test_what_was_not_measured_is_not_judged() -> None:
    row = {**ROW, "verdict": "kept", "reason_stage": None, "reason": None, "motion": None}
    assert [d["passed"] for d in decisions_of(MANIFEST, row)] == [True, None, True]


def test_a_dataset_that_lists_no_decisions_has_none() -> None:
    assert decisions_of({}, ROW) == []


def test_a_person_reads_them_as_a_table() -> None:
    lines = "\n".join(trace_text.decision_rows(decisions_of(MANIFEST, ROW)))
    assert "widths/s" in lines and "failed" in lines and "not reached" in lines
