"""A minute of what `python -m tests.fuzz.media` and `tests.fuzz.readers` do for longer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fuzz.corpus import media_corpus
from tests.fuzz.media import fuzz_media
from tests.fuzz.mutations import CHANGES, mutated
from tests.fuzz.readers import fuzz_readers, readers

SEED = 20_26


def test_every_change_changes_and_is_repeatable() -> None:
    whole = b"\0\0\0\x18ftypisom\0\0\0\x08moov" + bytes(range(256)) * 20
    other = b"other" * 1000
    for change in CHANGES:
        changed = 0
        for number in range(20):
            out = bytearray(whole)
            change(out, [other], np.random.default_rng(number))
            changed += out != whole
        assert changed, change
    same = [mutated(whole, [other], np.random.default_rng(4)) for _ in range(2)]
    assert same[0] == same[1]


def test_mutated_media_always_gets_a_row(tmp_path: Path) -> None:
    corpus = media_corpus(tmp_path, with_world=False)
    whole = fuzz_media(corpus, len(corpus), SEED, 60, change=lambda data, others, rng: data)
    assert whole.faults == [] and whole.outcomes == {"ok": len(corpus)}
    found = fuzz_media(corpus, 300, SEED, 40)
    assert found.faults == []
    assert sum(found.outcomes.values()) > 50
    assert {"ok", "broken", "truncated"} <= set(found.outcomes)


def test_mutated_tables_and_weights_raise_what_they_say(tmp_path: Path) -> None:
    for reader in readers(tmp_path):
        path = tmp_path / "whole" / reader.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(reader.whole)
        assert reader.read(path) is not None
    found = fuzz_readers(600, SEED, 30)
    assert found["faults"] == []
    assert len(found["outcomes"]) == len(readers(tmp_path))
