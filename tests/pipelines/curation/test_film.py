"""A film watched in parts is the film watched whole, to the last bit."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.curation.film import (
    WHOLE,
    PartSeen,
    finished,
    join_parts,
    parts_between,
    see_part,
)
from pipelines.curation.watch import WatchConfig
from pipelines.media import MediaLimits, entries, write_video
from pipelines.records import Source
from tests.pipelines.pictures import moving_square, real_clip

SOURCE = Source("5" * 32, ["film"], size_bytes=1)
CONFIG, LIMITS = WatchConfig(), MediaLimits()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 s with cuts, a dissolve, a flash, a long shot, and keyframes a second apart."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(path, _frames(), fps=25, options={"g": "25", "preset": "ultrafast"})
    return path


def _frames() -> Iterator[np.ndarray]:
    one, two = moving_square(1, 70), moving_square(2, 70)
    yield from one[:50]
    for step in range(20):
        share = (step + 1) / 21
        yield (one[50 + step] * (1 - share) + two[step] * share).astype(np.uint8)
    yield from two[20:]
    flashed = moving_square(3, 60)
    flashed[30] = np.minimum(flashed[30].astype(int) + 120, 255).astype(np.uint8)
    yield from flashed
    for seed, length in ((4, 9), (5, 33), (6, 170), (7, 40), (8, 48)):
        yield from moving_square(seed, length)


def seen_in_parts(path: Path, every_s: float) -> list[PartSeen]:
    parts = parts_between(entries(path, every_s))
    return [see_part(SOURCE, str(path), part, LIMITS, CONFIG) for part in parts]


@pytest.mark.parametrize("every_s", [1.0, 2.5, 6.0])
def test_parts_joined_are_the_whole(film: Path, every_s: float) -> None:
    parts = seen_in_parts(film, every_s)
    assert len(parts) > 2
    whole = see_part(SOURCE, str(film), WHOLE, LIMITS, CONFIG)
    joined = join_parts(SOURCE, parts)
    assert joined == whole
    assert finished(joined) == finished(whole)  # type: ignore[arg-type]
    assert len(whole.clips) >= 9


def test_a_real_film_with_cuts_not_at_keyframes() -> None:
    path = real_clip("bikes.mp4")
    whole = see_part(SOURCE, str(path), WHOLE, LIMITS, CONFIG)
    parts = seen_in_parts(path, 2.0)
    assert len(parts) > 1
    assert join_parts(SOURCE, parts) == whole


def test_parts_that_do_not_fit_are_not_joined(film: Path) -> None:
    parts = [p for p in seen_in_parts(film, 2.5) if p.start is not None and p.end > p.start]
    assert join_parts(SOURCE, parts) is not None
    assert join_parts(SOURCE, parts[1:]) is None
    assert join_parts(SOURCE, parts[:-1]) is None
    assert join_parts(SOURCE, [parts[0], *parts[2:]]) is None
    later = dataclasses.replace(parts[1], start=(parts[1].start or 0) + 1)
    assert join_parts(SOURCE, [parts[0], later, *parts[2:]]) is None


def test_a_film_without_cuts_is_one_part(tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    write_video(path, moving_square(9, 200), fps=25, options={"g": "25"})
    parts = seen_in_parts(path, 2.0)
    assert [p.start for p in parts] == [0] + [None] * (len(parts) - 1) and len(parts) > 2
    assert join_parts(SOURCE, parts) == see_part(SOURCE, str(path), WHOLE, LIMITS, CONFIG)


def test_entries_are_keyframes_with_their_numbers(film: Path) -> None:
    found = entries(film, 2.0)
    assert found[0].frame == 0 and found[0].time_s == 0.0
    assert all(b.time_s - a.time_s >= 2.0 for a, b in itertools.pairwise(found))
    assert all(abs(entry.frame - entry.time_s * 25) < 1e-6 for entry in found)
    assert entries(film, 1000.0) == found[:1]
    assert parts_between(found[:1]) == parts_between([]) == [WHOLE]


def test_a_film_that_does_not_say_its_times_is_not_entered(tmp_path: Path) -> None:
    path = tmp_path / "film.avi"  # its packets come without presentation times
    write_video(path, moving_square(9, 60), fps=25, codec="mpeg4", options={"g": "12"})
    whole = see_part(SOURCE, str(path), WHOLE, LIMITS, CONFIG)
    joined = join_parts(SOURCE, seen_in_parts(path, 0.5))
    assert joined is None or joined == whole
