"""Exposures over a whole training: sums over chains of ledgers, whatever the chain looks like."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.lineage import catalog
from pipelines.lineage.exposures import exposures_of
from pipelines.lineage.tables import Choice
from tests.pipelines.lineage import small_world as world

CLIPS = [f"{number:032x}" for number in range(5)]
SOURCE = "a" * 32
OTHER = "b" * 32
seen_by_one = st.dictionaries(
    st.sampled_from(CLIPS), st.tuples(st.just(SOURCE), st.integers(1, 9), st.integers(1, 4))
)


@settings(max_examples=15, deadline=None)
@given(
    ledgers=st.lists(seen_by_one, min_size=1, max_size=5), chosen=st.sets(st.sampled_from(CLIPS))
)
def test_a_checkpoint_saw_all_that_its_ancestors_saw(
    ledgers: list[dict[str, tuple[str, int, int]]], chosen: set[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        parent = None
        for number, ledger in enumerate(ledgers, start=1):
            made = world.write_checkpoint(
                Path(folder) / "base", number, ledger, dataset={"digest": "0"}, parent=parent
            )
            parent = made["digest"]
        known = catalog.build([folder])
        checkpoints = known.of("checkpoint")
        found = exposures_of(known, checkpoints, Choice(clip_ids=frozenset(chosen))).seen
        for last, checkpoint in enumerate(checkpoints):
            expected: dict[str, tuple[int, int]] = {}
            for ledger in ledgers[: last + 1]:
                for clip, (_, first, times) in ledger.items():
                    if clip in chosen:
                        before = expected.get(clip, (first, 0))
                        expected[clip] = (min(first, before[0]), before[1] + times)
            assert found[checkpoint.uri] == expected


def test_a_chain_that_bites_its_tail_ends(tmp_path: Path) -> None:
    """Headers come from outside: parents in a circle must not hang a takedown."""
    one = world.write_checkpoint(tmp_path, 1, {CLIPS[0]: (SOURCE, 1, 1)}, dataset={"digest": "0"})
    two = world.write_checkpoint(
        tmp_path, 2, {CLIPS[1]: (OTHER, 2, 1)}, dataset={"digest": "0"}, parent=one["digest"]
    )
    header = tmp_path / "step-00000001" / "checkpoint.json"
    text = header.read_text().replace(
        '"parent": null', f'"parent": {{"digest": "{two["digest"]}"}}'
    )
    header.write_text(text)
    known = catalog.build([str(tmp_path)])
    found = exposures_of(known, known.of("checkpoint"), Choice(clip_ids=frozenset(CLIPS))).seen
    assert CLIPS[0] in found[one["uri"]] and CLIPS[1] in found[two["uri"]]
