"""The recorded decisions against the judges themselves."""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import curation
from pipelines.config import leaf_fields
from pipelines.curation.config import PRESETS, CurateConfig, demo
from pipelines.curation.decisions import decisions_of
from pipelines.curation.verdicts import STAGES, TAKEN_DOWN, judge_measured, judge_scored
from pipelines.decisions import failure, measured, outcomes
from pipelines.records import REASONS, Clip, to_row
from tests.pipelines.curation.clips_of import a_clip

ROOM = Path(curation.__file__).parent
STRICT = dataclasses.replace(
    demo(),
    limits=dataclasses.replace(demo().limits, max_duration_s=3.0),
    clip_score=dataclasses.replace(demo().clip_score, min_score=0.2, min_consistency=0.8),
)


def entries(config: CurateConfig) -> list[dict[str, Any]]:
    """As a reader of dataset.json has them."""
    return json.loads(json.dumps([dataclasses.asdict(d) for d in decisions_of(config)]))


def reasons_in(code: ast.AST) -> set[str]:
    return {str(n.value) for n in ast.walk(code) if isinstance(n, ast.Constant)} & set(REASONS)


def given_reasons() -> Iterator[tuple[str, str]]:
    """(stage, reason) of every `.dropped(...)` in the room, read from the code."""
    for path in sorted(ROOM.glob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for call in ast.walk(function):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                    continue
                if call.func.attr == "dropped" and len(call.args) == 2:
                    stage, reason = call.args
                    assert isinstance(stage, ast.Constant)
                    # Where it is a variable, whatever the function may have put into it.
                    said_in = function if isinstance(reason, ast.Name) else reason
                    yield from ((str(stage.value), name) for name in reasons_in(said_in))
    yield TAKEN_DOWN


@pytest.mark.parametrize("preset", PRESETS)
def test_every_reason_that_a_judge_can_give_is_in_one_entry(preset: str) -> None:
    found = [(e["stage"], r) for e in entries(PRESETS[preset]()) for r in e["reasons"]]
    given = set(given_reasons())
    assert len(found) == len(set(found)) and set(found) == given
    assert {r for _, r in found} <= set(REASONS)


def test_entries_come_in_the_order_of_the_stages_and_name_real_settings() -> None:
    order = [TAKEN_DOWN[0], *(stage for stage, _ in STAGES)]
    stages = [e["stage"] for e in entries(demo())]
    assert stages == sorted(stages, key=order.index) and set(stages) == set(order)
    known = {name for name, _, _ in leaf_fields(CurateConfig)}
    for entry in entries(demo()):
        for limit in (entry, *entry["also"]):
            assert set(limit["setting"].split(", ")) <= known
            assert limit["column"] in {*Clip.__dataclass_fields__, *NUMBERS_OF_ROWS}


NUMBERS_OF_ROWS = ("duration_s", "short_side_px", "long_side_px")


def near(*limits: float) -> st.SearchStrategy[float]:
    """On a limit, just beside it, or anywhere."""
    beside = [limit + step for limit in limits for step in (-1e-3, 0.0, 1e-3)]
    return st.one_of(st.sampled_from(beside), st.floats(0, 2 * max(limits)))


measurements = st.fixed_dictionaries(
    {
        "end_frame": st.integers(20, 80),
        "crop_w_px": st.sampled_from((100, 119, 120, 199, 200, 400)),
        "crop_h_px": st.sampled_from((100, 119, 120, 199, 200, 400)),
        "single_shot": st.none() | near(0.8),
        "motion": st.none() | near(0.0002, 0.45),
        "brightness": st.none() | near(10, 40),
        "contrast": near(8, 32),
        "flashes": st.none() | near(0.5),
        "sharpness": st.none() | near(0.24),
        "text_area": st.none() | near(0.04),
        "nsfw": st.none() | near(0.5),
        "clip_score": st.none() | near(0.2),
        "temporal_consistency": st.none() | near(0.8),
    }
)


@given(measurements)
def test_the_numbers_alone_give_the_verdict_of_the_judges(values: dict[str, Any]) -> None:
    if values["brightness"] is None:  # both are of one look at the picture
        values["contrast"] = None
    clip = judge_scored(judge_measured(a_clip(**values), STRICT), STRICT)
    row = to_row(clip)
    failed = ((e["stage"], failure(e, row)) for e in entries(STRICT))
    first = next(((stage, reason) for stage, reason in failed if reason), (None, None))
    assert first == (clip.reason_stage, clip.reason)


def test_each_entry_of_a_clip_passed_failed_or_was_not_reached() -> None:
    row = to_row(a_clip(motion=0.1).dropped("quality", "flat"))
    found = {
        e["title"]: o for e, o in zip(entries(demo()), outcomes(entries(demo()), row), strict=True)
    }
    assert found["Not one flat colour"] == "failed"
    assert found["Moves, but not too much"] == "passed"
    assert found["One shot only"] == found["Not black"] == "not measured"
    assert found["Sharp"] == found["No better copy"] == "not reached"
    kept = outcomes(entries(demo()), to_row(a_clip(single_shot=1.0)))
    assert set(kept) == {"passed", "not measured"}


def test_what_is_measured_is_read_from_the_row() -> None:
    row = to_row(a_clip(crop_w_px=90, crop_h_px=160))
    values = {n: measured({"column": n}, row) for n in NUMBERS_OF_ROWS}
    assert values == {"duration_s": 2.0, "short_side_px": 90, "long_side_px": 160}
    assert measured({"column": "duration_s"}, {**row, "kind": "image"}) is None
    assert measured({"column": "of a later version"}, row) is None
