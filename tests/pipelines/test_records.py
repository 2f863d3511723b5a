"""Rows: the columns of the contract, round trips, identity from content."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import records
from pipelines.records import Clip, Shard, Source, clip_id_of, from_table, to_table

CLIP_COLUMNS = {
    *("clip_id", "source_id", "kind", "shot_index", "start_frame", "end_frame", "start_s"),
    *("end_s", "fps", "width_px", "height_px", "crop_x_px", "crop_y_px", "crop_w_px"),
    *("crop_h_px", "motion", "motion_dx", "motion_dy", "sharpness", "text_area", "aesthetic"),
    *("subject_area", "single_shot", "temporal_consistency", "phash", "duplicate_of", "caption"),
    *("short_caption", "captioner", "clip_score", "embedding", "verdict", "reason_stage"),
    *("reason", "tiers", "shard", "key", "content_sha256"),
}
SOURCE_COLUMNS = [
    *("source_id", "uris", "size_bytes", "container", "codec", "width_px", "height_px"),
    *("rotation_deg", "fps", "duration_s", "num_frames", "license", "consent", "status"),
    "reason",
]


def a_clip(**changes: object) -> Clip:
    clip = Clip("c", "s", "video", 0, 0, 10, 0.0, 0.4, 25.0, 320, 180, 0, 0, 320, 180)
    return dataclasses.replace(clip, **changes)  # type: ignore[arg-type]


def test_the_contract_s_columns_are_there() -> None:
    assert set(records.CLIP_SCHEMA.names) >= CLIP_COLUMNS
    assert records.SOURCE_SCHEMA.names == SOURCE_COLUMNS
    assert records.SHARD_SCHEMA.names == ["shard", "samples", "bytes", "sha256"]


@pytest.mark.parametrize("kind", [Source, Clip, Shard])
def test_a_record_has_exactly_its_schema_s_columns(kind: type) -> None:
    assert [f.name for f in dataclasses.fields(kind)] == records.SCHEMA_OF[kind].names


def test_rows_round_trip_and_what_was_not_computed_stays_null() -> None:
    clip = a_clip(embedding=[0.5, -0.25], tiers=["base"], motion=0.5)
    (back,) = from_table(Clip, to_table(Clip, [clip]))
    assert back == clip
    assert back.clip_score is None and back.aesthetic is None


def test_the_first_reason_stands() -> None:
    clip = a_clip().dropped("motion", "too_still").dropped("quality", "black")
    assert (clip.verdict, clip.reason_stage, clip.reason) == ("dropped", "motion", "too_still")


@given(
    st.tuples(
        st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(0), st.integers(0)
    ),
    st.tuples(
        st.text("0123456789abcdef", min_size=32, max_size=32), st.integers(0), st.integers(0)
    ),
)
def test_clip_ids_are_equal_only_for_equal_spans(a: tuple, b: tuple) -> None:
    assert (clip_id_of(*a) == clip_id_of(*b)) == (a == b)
    assert len(clip_id_of(*a)) == 32


def test_embeddings_are_stored_as_half_floats() -> None:
    table = to_table(Clip, [a_clip(embedding=list(np.ones(4)))])
    assert str(table.schema.field("embedding").type) == "list<item: halffloat>"
