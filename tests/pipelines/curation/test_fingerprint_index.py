from __future__ import annotations

import numpy as np

from pipelines.curation.fingerprint_index import EXACT_COUNT, FingerprintIndex


def made_up(count: int, copies: int, cosine: float) -> np.ndarray:
    """Digits of `count` fingerprints; the last ones are near the first, in order."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal((count, 64))
    noise = rng.standard_normal((copies, 64))
    values[count - copies :] = values[:copies] * cosine + noise * np.sqrt(1 - cosine**2)
    return np.clip(np.round(values * 7 / 3), -7, 7).astype(np.int8)


def test_few_are_all_compared() -> None:
    index = FingerprintIndex(made_up(50, 1, 0.9), 0.9)
    assert index.near(3).tolist() == []
    for number in (4, 7, 20):
        index.add(number)
    assert index.near(3).tolist() == [4, 7, 20]


def test_of_many_what_is_alike_is_found_and_little_else() -> None:
    count, copies = 2 * EXACT_COUNT, 500
    digits = made_up(count, copies, 0.96)
    index = FingerprintIndex(digits, 0.9)
    for number in range(count - copies):
        index.add(number)
    found = [index.near(count - copies + i) for i in range(copies)]
    assert np.mean([i in near for i, near in enumerate(found)]) > 0.995
    assert np.mean([len(near) for near in found]) < 20
    assert all((np.diff(near) > 0).all() for near in found)


def test_what_was_not_added_is_not_found() -> None:
    index = FingerprintIndex(made_up(EXACT_COUNT + 1, 1, 1.0), 0.9)
    assert index.near(0).tolist() == []
    index.add(0)
    assert index.near(EXACT_COUNT).tolist() == [0]
