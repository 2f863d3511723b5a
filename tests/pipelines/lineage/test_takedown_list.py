"""Lines of a takedown's list, and what each stands for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.config import RequestError
from pipelines.lineage.manifest import Dataset, read_dataset
from pipelines.lineage.tables import Choice
from pipelines.lineage.takedown_list import read_list, resolve_targets
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past

ALPHA, BETA, GAMMA = (world.source_id(name) for name in SOURCES)


@pytest.fixture
def dataset(past: Past) -> Dataset:
    """Alpha is CC-BY-NC with consent, beta says nothing, gamma is CC0 and refuses."""
    opened = read_dataset(past.dataset["uri"])
    rights = {
        ALPHA: ("CC-BY-NC-4.0", "yes"),
        BETA: (None, None),
        GAMMA: ("CC0-1.0", "no (c2pa.ai_training: notAllowed)"),
    }
    sources = opened.sources.to_pylist()
    rows = [{**row, **dict(zip(("license", "consent"), rights[row["source_id"]], strict=True))}
            for row in sources]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=opened.sources.schema)
    opened.store.write_table("sources.parquet", table)
    return read_dataset(opened.uri)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("license: CC-BY-NC*", {ALPHA}),
        ("license:cc-by-nc-4.0", {ALPHA}),
        ("license: CC*", {ALPHA, GAMMA}),
        ("license: not stated", {BETA}),
        ("consent: no*", {GAMMA}),
        ("consent: not stated", {BETA}),
        ("alpha.mp4", {ALPHA}),
        ("/footage/beta film.mp4", {BETA}),
        ("footage/gamma.mp4", {GAMMA}),
        ("./alpha.mp4", {ALPHA}),
        ("Licence: CC-BY-NC*", {ALPHA}),
        ("license: Not stated", {BETA}),
        (ALPHA.upper(), {ALPHA}),
    ],
)
def test_rights_and_names_stand_for_sources(
    dataset: Dataset, line: str, expected: set[str]
) -> None:
    assert resolve_targets(dataset, [line]) == Choice(source_ids=frozenset(expected))


def test_a_list_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbf# from a spreadsheet\r\nalpha.mp4\r\n")
    assert read_list(str(listed)) == ["alpha.mp4"]


def test_a_list_of_everything_is_one_choice(dataset: Dataset, past: Past) -> None:
    clip = past.clips_of("beta film.mp4")[0].clip_id
    found = resolve_targets(dataset, [clip, GAMMA, "alpha.mp4", clip, "license: CC-BY-NC*"])
    assert found == Choice(frozenset({ALPHA, GAMMA}), frozenset({clip}))


@pytest.mark.parametrize("line", ["license: MIT", "consent: maybe", "f" * 32, "a' OR 1=1 --", "%"])
def test_a_line_that_fits_nothing_stops_everything(dataset: Dataset, line: str) -> None:
    with pytest.raises(RequestError, match="--list") as refused:
        resolve_targets(dataset, ["alpha.mp4", line])
    assert repr(line) in str(refused.value)
