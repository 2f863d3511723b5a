import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.training.feed.clip_rows import ClipRows, keys_of_column
from pipelines.training.latents.on_disk import INDEX_SCHEMA
from pipelines.training.randomness import keys_of
from tests.pipelines.training.synthetic_latents import hex_id

hex_ids = st.text("0123456789abcdef", min_size=32, max_size=32)


def index_of(ids: list[str], tiers: list[list[str]] | None = None) -> pa.Table:
    rows = [
        {
            "clip_id": clip_id, "source_id": f"source of {clip_id}", "kind": "video",
            "pack": f"packs/pack-{9 - number % 10:05d}.safetensors", "first_row": number,
            "num_frames": number + 1, "fps": 16.0, "tiers": tiers[number] if tiers else ["base"],
            "text_row": number, "short_text_row": number,
        }
        for number, clip_id in enumerate(ids)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=INDEX_SCHEMA)


@given(ids=st.lists(hex_ids, max_size=30), cut=st.integers(0, 30))
@settings(max_examples=60, deadline=None)
def test_keys_of_a_column_are_those_of_its_ids(ids, cut):
    chunks = pa.chunked_array([ids[:cut], ids[cut:]], type=pa.string())
    assert keys_of_column(chunks).tolist() == keys_of(ids).tolist()
    assert keys_of_column(chunks.slice(1)).tolist() == keys_of(ids[1:]).tolist()


def test_ids_of_unequal_length_have_keys_too():
    ids = ["ab", "f" * 20, "0123456789abcdef"]
    assert keys_of_column(pa.chunked_array([ids])).tolist() == keys_of(ids).tolist()


def test_an_id_that_is_no_hash_is_refused():
    with pytest.raises(ValueError, match="not hexadecimal"):
        keys_of_column(pa.chunked_array([["z" * 32]]))


@given(ids=st.lists(hex_ids, min_size=1, max_size=20, unique=True))
@settings(max_examples=40, deadline=None)
def test_rows_are_in_the_order_of_ids_with_their_columns(ids):
    rows = ClipRows.of(index_of(ids))
    assert [rows.clip_id(row) for row in range(len(rows))] == sorted(ids)
    for row in range(len(rows)):
        number = ids.index(rows.clip_id(row))
        assert rows.source_id(row) == f"source of {ids[number]}"
        assert rows.num_frames[row] == number + 1
        assert rows.first_rows[row] == rows.text_rows[row] == rows.short_text_rows[row] == number
        assert rows.pack(row) == f"packs/pack-{9 - number % 10:05d}.safetensors"
    assert rows.pack_names == sorted(rows.pack_names)


def test_ids_that_begin_alike_are_sorted_by_the_rest():
    ids = ["0" * 31 + digit for digit in "b3a1"]
    rows = ClipRows.of(index_of(ids))
    assert [rows.clip_id(row) for row in range(4)] == sorted(ids)


def test_tiers():
    ids = sorted(hex_id(i) for i in range(4))
    tiers = [["base"], ["base", "premium"], [], ["premium", "high_res"]]
    rows = ClipRows.of(index_of(ids, tiers))
    assert rows.in_tier("base").tolist() == [True, True, False, False]
    assert rows.in_tier("premium").tolist() == [False, True, False, True]
    assert not rows.in_tier("nothing like it").any()
