"""A verdict follows from numbers alone: their sign, their size, and their error bar."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.findings import (
    FINDINGS,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    TARGETS,
    UNDECIDED,
    Finding,
    check_findings,
    judge,
    judge_target,
    over_clips,
    verdict,
)
from pipelines.evaluation.measure import MEASURES

MORE = Finding("more", "a topic", "a claims more", ("a", "m"), ("b", "m"), True)
KEPT = replace(MORE, worse=("a", "m"), more=False, kept_within=0.1)


def rows(values: list[float], seeds: int = 1, measure: str = "m") -> list[dict[str, Any]]:
    return [
        {"clip_id": f"c{clip}", "seed": seed, "measures": {measure: value}}
        for clip, value in enumerate(values)
        for seed in range(seeds)
    ]


@given(st.floats(-10, 10), st.floats(0, 5))
def test_a_verdict_needs_more_than_two_errors_and_the_right_sign(
    difference: float, error: float
) -> None:
    said, mirrored = (verdict(f, difference, error) for f in (MORE, replace(MORE, more=False)))
    if abs(difference) <= 2 * error or difference == 0:
        assert said == mirrored == UNDECIDED
    else:
        assert (said == REPRODUCED) == (difference > 0)
        assert {said, mirrored} == {REPRODUCED, NOT_REPRODUCED}


def test_what_should_stay_is_judged_by_its_limit() -> None:
    assert verdict(KEPT, 0.05, 0.02) == REPRODUCED
    assert verdict(KEPT, -0.09, 0.02) == UNDECIDED
    assert verdict(KEPT, -0.2, 0.02) == NOT_REPRODUCED


def test_pairs_are_of_the_same_clip_and_seed_and_what_is_alone_is_left_out() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 10, 20)  # clips differ by far more than the variants do
    better, worse = rows((hard + 0.1).tolist(), 2), rows(hard.tolist(), 2)
    entry = judge(MORE, {"a": [*better, *rows([99.0] * 21, 1)[-1:]], "b": worse})
    assert entry["clips"] == 20 and entry["videos"] == 40
    assert entry["difference"] == pytest.approx(0.1)
    assert entry["verdict"] == REPRODUCED
    assert judge(MORE, {"a": better})["verdict"] == NOT_RUN


def test_seeds_of_one_clip_do_not_make_the_error_smaller() -> None:
    once = {("a", 0): 1.0, ("b", 0): 3.0}
    often = {(clip, seed): value for (clip, _), value in once.items() for seed in range(9)}
    assert over_clips(once) == over_clips(often) == (2.0, 1.0, 2)
    assert over_clips({("a", 0): 1.0})[1] == math.inf


def test_distances_are_compared_by_size() -> None:
    by_size = replace(MORE, more=False, size=True)
    record = {"a": rows([0.1, -0.1, 0.12, -0.09]), "b": rows([-0.5, 0.5, -0.6, 0.5])}
    assert judge(by_size, record)["verdict"] == REPRODUCED
    assert judge(replace(by_size, size=False), record)["verdict"] == UNDECIDED


def test_every_finding_compares_measures_that_there_are() -> None:
    assert len({finding.name for finding in FINDINGS}) == len(FINDINGS)
    sides = [side for finding in FINDINGS for side in (finding.better, finding.worse)]
    sides += [target.side for target in TARGETS]
    assert {measure for _, measure in sides} <= set(MEASURES)


def a_record() -> dict[str, Any]:
    measures = {measure for f in FINDINGS for _, measure in (f.better, f.worse)}
    measures |= {target.side[1] for target in TARGETS}
    variants = {side[0] for f in FINDINGS for side in (f.better, f.worse)}
    rng = np.random.default_rng(1)
    videos = {
        name: [
            {"clip_id": f"c{i}", "seed": 0, "measures": {m: rng.random() for m in measures}}
            for i in range(6)
        ]
        for name in variants
    }
    return {
        "findings": [judge(finding, videos) for finding in FINDINGS],
        "targets": [judge_target(target, videos) for target in TARGETS],
    }


def test_a_record_is_checked_against_its_own_numbers() -> None:
    check_findings(a_record())
    lacking = a_record()
    del lacking["findings"][3]
    with pytest.raises(ValueError, match=FINDINGS[3].name):
        check_findings(lacking)
    boasting = a_record()
    entry = next(e for e in boasting["findings"] if e["verdict"] != REPRODUCED)
    entry["verdict"] = REPRODUCED
    with pytest.raises(ValueError, match=entry["name"]):
        check_findings(boasting)
    reached = a_record()
    reached["targets"][2]["verdict"] = "reached"
    with pytest.raises(ValueError, match="first_frame"):
        check_findings(reached)
