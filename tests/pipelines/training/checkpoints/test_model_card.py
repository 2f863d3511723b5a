"""The card of a checkpoint counts what its whole training saw."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.storage import Store
from pipelines.training.checkpoints.ledger import LINEAGE_SCHEMA
from pipelines.training.checkpoints.model_card import _cell
from pipelines.training.checkpoints.seen_clips import SeenClips, seen_until

INDEX = pa.table(
    {"clip_id": ["a", "b", "c", "d"], "license": ["CC0-1.0", "CC-BY-4.0", None, "CC0-1.0"]}
)


def ledger(*clips: tuple[str, str]) -> pa.Table:
    rows = [{"clip_id": c, "source_id": s, "first_step": 1, "times": 1} for c, s in clips]
    return pa.Table.from_pylist(rows, schema=LINEAGE_SCHEMA)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Store:
    store = Store.open(str(tmp_path))
    for name, parent, seen in (
        ("step-1", None, ledger(("a", "x"), ("b", "x"))),
        ("step-2", {"checkpoint": "step-1", "digest": "0"}, ledger(("a", "x"))),
    ):
        store.write_table(f"{name}/lineage.parquet", seen)
        store.write_bytes(f"{name}/checkpoint.json", json.dumps({"parent": parent}).encode())
    return store


def test_a_clip_of_two_epochs_counts_once(checkpoints: Store) -> None:
    seen = seen_until(checkpoints, "step-2", ledger(("a", "x"), ("c", "y")), INDEX)
    assert seen == SeenClips(3, 2, {"CC-BY-4.0": 1, "CC0-1.0": 1, "not stated": 1})


def test_the_first_checkpoint_has_its_own_ledger_alone(checkpoints: Store) -> None:
    assert seen_until(checkpoints, None, ledger(("d", "z")), INDEX) == SeenClips(
        1, 1, {"CC0-1.0": 1}
    )


def test_a_lost_ledger_is_said(checkpoints: Store) -> None:
    checkpoints.remove("step-1")
    seen = seen_until(checkpoints, "step-2", ledger(("c", "y")), INDEX)
    assert (seen.clips, seen.complete) == (2, False)  # c, and a of step-2


def test_a_clip_that_the_latents_no_longer_hold_has_no_licence(checkpoints: Store) -> None:
    seen = seen_until(checkpoints, None, ledger(("gone", "z")), INDEX)
    assert seen.licenses == {"not stated": 1}


def test_a_licence_cannot_break_the_table() -> None:
    assert _cell("a|b\n<script>") == "a\\|b &lt;script>"
