from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.media import (
    Crop,
    MediaError,
    cut_clip,
    opened_pictures,
    probe,
    read_clip_frames,
    read_image,
    write_image,
    write_video,
)
from tests.pipelines.pictures import film, moving_square, number_of, numbered, real_clip


def times_of(path: Path) -> list[float]:
    """Presentation times of all frames, and the end."""
    with opened_pictures(path) as stream:
        return [timed.time_s for timed in stream.pictures()] + [stream.end_s]


def cut(source: Path, out: Path, start: int, end: int, **options: object):
    times_s = times_of(source)
    return cut_clip(
        source,
        out,
        start_frame=start,
        end_frame=end,
        start_s=times_s[start],
        end_s=times_s[end],
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    [
        ("libx264", ".mp4", {"x264-params": "keyint=20:bframes=3"}),
        ("libx264", ".mkv", {"x264-params": "keyint=20:open-gop=1"}),
        ("libx265", ".mp4", {"x265-params": "keyint=20"}),
        ("libvpx-vp9", ".webm", {}),
        ("mpeg4", ".avi", {}),
        ("mjpeg", ".avi", {}),
    ],
)
def test_exactly_the_frames_asked_for(
    codec: str, suffix: str, options: dict, tmp_path: Path
) -> None:
    source = film(tmp_path / f"film{suffix}", numbered(90), codec=codec, options=options)
    for start, end in ((0, 7), (19, 41), (20, 40), (37, 38), (63, 90)):
        result = cut(source, tmp_path / "clip.mp4", start, end)
        frames = read_clip_frames(tmp_path / "clip.mp4", fps=25, width_px=64, height_px=48)
        assert [number_of(f) for f in frames] == list(range(start, end))
        assert result.num_frames == probe(tmp_path / "clip.mp4").num_frames == end - start


def test_equal_cuts_are_equal_bytes(tmp_path: Path) -> None:
    source = real_clip("bikes.mp4")
    results = [cut(source, tmp_path / f"{n}.mp4", 30, 76) for n in range(2)]
    assert results[0] == results[1]
    assert (tmp_path / "0.mp4").read_bytes() == (tmp_path / "1.mp4").read_bytes()


def test_a_variable_rate_stays_variable(tmp_path: Path) -> None:
    pts = np.cumsum([1 + (i % 3) for i in range(40)]).tolist()
    source = tmp_path / "vfr.mp4"
    write_video(source, numbered(40), fps=25, frame_pts=pts, time_base=Fraction(1, 60))
    cut(source, tmp_path / "clip.mp4", 11, 29)
    expected = [(p - pts[11]) / 60 for p in pts[11:29]]
    assert times_of(tmp_path / "clip.mp4")[:-1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("rotation_deg", [0, 90, 180, 270])
def test_the_crop_is_in_displayed_pixels(rotation_deg: int, tmp_path: Path) -> None:
    frames = moving_square(4, 6)
    source = film(tmp_path / "turned.mp4", frames, rotation_deg=rotation_deg)
    cut(source, tmp_path / "clip.mp4", 1, 5, crop=Crop(10, 20, 60, 40))
    shown = np.rot90(frames[1], -rotation_deg // 90)[20:60, 10:70]
    info = probe(tmp_path / "clip.mp4")
    assert (info.width_px, info.height_px, info.rotation_deg) == (60, 40, 0)
    back = read_clip_frames(tmp_path / "clip.mp4", fps=25, width_px=60, height_px=40)
    assert np.abs(back[0].astype(int) - shown).mean() < 8


def test_stretched_pixels_become_square(tmp_path: Path) -> None:
    result = cut(real_clip("carphone_pristine.mp4"), tmp_path / "clip.mp4", 10, 20)
    assert (result.width_px, result.height_px) == (192, 144)


def test_frames_that_are_not_there_are_a_reason_and_no_file(tmp_path: Path) -> None:
    source = film(tmp_path / "film.mp4", numbered(20))
    out = tmp_path / "clip.mp4"
    with pytest.raises(MediaError) as caught:
        cut_clip(source, out, start_frame=10, end_frame=30, start_s=0.4, end_s=1.2)
    assert caught.value.reason == "cut_failed"
    assert not out.exists()


def test_a_still_becomes_a_jpeg(tmp_path: Path) -> None:
    (image,) = numbered(1)
    write_image(tmp_path / "still.png", image)
    where: dict[str, Any] = {"start_frame": 0, "end_frame": 1, "start_s": 0.0, "end_s": 0.0}
    result = cut_clip(
        tmp_path / "still.png", tmp_path / "clip.jpg", **where, crop=Crop(4, 6, 40, 30)
    )
    back = read_image(tmp_path / "clip.jpg")
    assert back.shape == (30, 40, 3) and result.num_frames == 1
    assert np.abs(back.astype(int) - image[6:36, 4:44]).mean() < 6
