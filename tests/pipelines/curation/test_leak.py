"""A wrong cut is found, a right one is not accused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.curation.leak import Leak, is_chosen, measure_leak
from pipelines.media import (
    Coding,
    Crop,
    CutOrder,
    CutResult,
    FrameSpan,
    Method,
    cut_clips,
    opened_pictures,
    write_video,
)
from pipelines.records import clip_id_of
from tests.pipelines.pictures import film, real_clip, scenery


def times_of(source: Path) -> list[float]:
    with opened_pictures(source) as stream:
        return [timed.time_s for timed in stream.pictures()] + [stream.end_s]


def order_of(source: Path, out: Path, span: tuple[int, int], crop: Crop | None = None) -> CutOrder:
    times_s, (start, end) = times_of(source), span
    return CutOrder(out, FrameSpan(start, end, times_s[start], times_s[end]), crop)


def leak_of(
    source: Path,
    out: Path,
    meant: tuple[int, int],
    done: tuple[int, int],
    method: Method = "smart",
    crf: int = 18,
) -> Leak:
    (result,) = cut_clips(source, [order_of(source, out, done)], method, Coding(crf))
    assert isinstance(result, CutResult)
    return measure_leak(source, order_of(source, out, meant))


SHOTS = [(0, 30), (30, 76), (76, 137), (242, 250)]


@pytest.mark.parametrize("shot", [*SHOTS, (31, 100), (5, 29), (100, 101)])
@pytest.mark.parametrize("method", ["smart", "encode"])
def test_a_right_cut_does_not_leak(shot: tuple[int, int], method: Method, tmp_path: Path) -> None:
    found = leak_of(real_clip("bikes.mp4"), tmp_path / "clip.mp4", shot, shot, method)
    assert found.is_clean and found == Leak(0, 0)


@pytest.mark.parametrize("shot", SHOTS[1:3])
@pytest.mark.parametrize("shift", [-3, -1, 1, 3])
@pytest.mark.parametrize("method", ["smart", "encode"])
def test_a_shifted_cut_leaks_as_many_frames(
    shot: tuple[int, int], shift: int, method: Method, tmp_path: Path
) -> None:
    shifted = (shot[0] + shift, shot[1] + shift)
    found = leak_of(real_clip("bikes.mp4"), tmp_path / "clip.mp4", shot, shifted, method)
    assert not found.is_clean and found.leak_frames == abs(shift) and found.lost_frames > 0


def test_frames_too_many_leak_and_frames_too_few_are_lost(tmp_path: Path) -> None:
    source, out = real_clip("bikes.mp4"), tmp_path / "clip.mp4"
    assert leak_of(source, out, (30, 76), (30, 78)) == Leak(2, 0)
    assert leak_of(source, out, (30, 76), (30, 74)) == Leak(0, 2)


def test_coarse_coding_is_no_leak(tmp_path: Path) -> None:
    source, out = real_clip("bikes.mp4"), tmp_path / "clip.mp4"
    assert leak_of(source, out, (76, 137), (76, 137), "encode", crf=40) == Leak(0, 0)


def test_frames_that_do_not_differ_are_nobodys_leak(tmp_path: Path) -> None:
    source = film(tmp_path / "still.mp4", [scenery(1)] * 40)
    assert leak_of(source, tmp_path / "clip.mp4", (10, 30), (12, 32)) == Leak(0, 0)


def test_the_picture_inside_the_borders_is_compared(tmp_path: Path) -> None:
    source, out, crop = real_clip("bikes.mp4"), tmp_path / "clip.mp4", Crop(41, 21, 501, 203)
    (result,) = cut_clips(source, [order_of(source, out, (30, 76), crop)])
    assert isinstance(result, CutResult) and result.method == "encoded"
    assert measure_leak(source, order_of(source, out, (30, 76), crop)) == Leak(0, 0)
    assert measure_leak(source, order_of(source, out, (31, 77), crop)).leak_frames == 1


@pytest.mark.parametrize("rotation_deg", [0, 90])
def test_pictures_are_compared_upright(rotation_deg: int, tmp_path: Path) -> None:
    views = [scenery(n // 20, 160, 90) for n in range(60)]
    source = tmp_path / "turned.mp4"
    write_video(source, views, fps=25, rotation_deg=rotation_deg)
    assert leak_of(source, tmp_path / "a.mp4", (20, 40), (20, 40)) == Leak(0, 0)
    assert leak_of(source, tmp_path / "a.mp4", (20, 40), (19, 39)).leak_frames == 1


def test_the_chosen_share_is_of_the_size_asked_for() -> None:
    ids = [clip_id_of("f" * 32, n, n + 9) for n in range(2000)]
    assert all(is_chosen(i, 1.0) for i in ids) and not any(is_chosen(i, 0.0) for i in ids)
    chosen = {i for i in ids if is_chosen(i, 0.05)}
    assert 60 <= len(chosen) <= 140
    assert chosen <= {i for i in ids if is_chosen(i, 0.1)}
