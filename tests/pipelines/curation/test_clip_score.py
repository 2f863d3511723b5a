from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation.clip_score import (
    ClipScoreConfig,
    in_batches,
    judge,
    sample_frames,
    score_clip,
    unit_rows,
)
from tests.pipelines.curation.clips_of import a_clip


def test_scores_are_means_of_cosines() -> None:
    frames_FD = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = score_clip(frames_FD, np.array([0.0, 1.0]))
    assert found.clip_score == pytest.approx(2 / 3, abs=1e-5)
    assert found.temporal_consistency == pytest.approx(0.5)
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-3)
    assert found.embedding == pytest.approx([0.4472, 0.8944], abs=1e-3)


def test_what_cannot_be_measured_is_null() -> None:
    found = score_clip(np.array([[1.0, 0.0]]), None)
    assert (found.clip_score, found.temporal_consistency, found.aesthetic) == (None, None, None)


@given(st.integers(0, 50), st.integers(1, 9))
def test_batches_have_one_size_and_miss_nothing(count: int, size: int) -> None:
    batches = in_batches(count, size)
    assert all(len(batch) == size for batch in batches)
    assert sorted({i for batch in batches for i in batch}) == list(range(count))


@given(st.integers(1, 40), st.integers(1, 8))
def test_frames_are_spread_from_first_to_last(count: int, wanted: int) -> None:
    found = list(sample_frames(count, wanted))
    assert len(found) == len(set(found)) == min(count, wanted)
    assert found[0] == 0 and (wanted == 1 or found[-1] == count - 1)


@pytest.mark.parametrize(
    ("scores", "config", "reason"),
    [
        ({"clip_score": 0.1}, ClipScoreConfig(), None),
        ({"clip_score": 0.1}, ClipScoreConfig(min_score=0.2), "low_clip_score"),
        ({"clip_score": None}, ClipScoreConfig(min_score=0.2), None),
        ({"temporal_consistency": 0.5}, ClipScoreConfig(min_consistency=0.6), "not_single_shot"),
    ],
)
def test_only_a_threshold_that_is_set_drops(
    scores: dict[str, Any], config: ClipScoreConfig, reason: str | None
) -> None:
    assert judge(a_clip(**scores), config).reason == reason


def test_rows_of_no_length_stay_zero() -> None:
    assert unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]
