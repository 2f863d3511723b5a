"""What makes picture numbers and times go wrong in other tools: edit lists, negative starts,
B-frames, variable rates; and what is refused: interlaced pictures and high dynamic range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.media import MediaError, opened_pictures, read_clip_frames
from tests.pipelines.pictures import ffmpeg, film, number_of, numbered


def times_of(path: Path) -> list[float]:
    with opened_pictures(path) as stream:
        return [timed.time_s for timed in stream.pictures()]


def numbers_of(path: Path, fps: float = 25.0) -> list[int]:
    frames = read_clip_frames(path, fps=fps, width_px=64, height_px=48)
    return [number_of(frame) for frame in frames]


@pytest.fixture
def numbered_film(tmp_path: Path) -> Path:
    """100 numbered frames with B-frames and a keyframe every 25."""
    options = {"g": "25", "bf": "3", "x264-params": "scenecut=0"}
    return film(tmp_path / "film.mp4", numbered(100), options=options)


def test_an_edit_list_hides_what_is_before_it(numbered_film: Path, tmp_path: Path) -> None:
    """Copied from 1.4 s on, a file holds pictures from 1.0 s and a list that hides ten of them."""
    cut = tmp_path / "cut.mp4"
    ffmpeg("-ss", "1.4", "-i", numbered_film, "-c", "copy", cut)
    numbers = numbers_of(cut)
    assert numbers[0] == 35 and numbers == list(range(35, 100))
    times_s = times_of(cut)
    assert times_s[0] == 0.0 and len(times_s) == 65
    assert np.allclose(np.diff(times_s), 0.04, atol=1e-3)


def test_a_negative_start_counts_from_the_first_picture(
    numbered_film: Path, tmp_path: Path
) -> None:
    early = tmp_path / "early.mkv"
    ffmpeg("-i", numbered_film, "-c", "copy", "-output_ts_offset", "-0.5", early)
    times_s = times_of(early)
    assert times_s[0] == 0.0 and len(times_s) == 100
    assert numbers_of(early) == list(range(100))


def test_a_late_start_too(numbered_film: Path, tmp_path: Path) -> None:
    late = tmp_path / "late.ts"
    ffmpeg("-i", numbered_film, "-c", "copy", "-output_ts_offset", "3600", late)
    times_s = times_of(late)
    assert times_s[0] == 0.0 and len(times_s) == 100
    assert np.allclose(np.diff(times_s), 0.04, atol=1e-3)


@pytest.mark.parametrize("flags", ["+ildct+ilme", "+ildct"])
def test_interlaced_pictures_are_refused(numbered_film: Path, tmp_path: Path, flags: str) -> None:
    woven = tmp_path / "woven.mp4"
    ffmpeg(
        *("-i", numbered_film, "-vf", "interlace=lowpass=0,scale=64:48:interl=1"),
        *("-c:v", "libx264", "-flags", flags, "-x264-params", "interlaced=1", woven),
    )
    with pytest.raises(MediaError, match="interlaced"):
        times_of(woven)


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_high_dynamic_range_is_refused(numbered_film: Path, tmp_path: Path, transfer: str) -> None:
    hdr = tmp_path / "hdr.mp4"
    ffmpeg(
        *("-i", numbered_film, "-pix_fmt", "yuv420p10le", "-c:v", "libx265"),
        *("-x265-params", f"log-level=error:colorprim=bt2020:transfer={transfer}"),
        *("-color_trc", transfer, hdr),
    )
    with pytest.raises(MediaError, match="hdr"):
        times_of(hdr)


def test_ten_bits_of_standard_range_are_read(numbered_film: Path, tmp_path: Path) -> None:
    deep = tmp_path / "deep.mp4"
    ffmpeg("-i", numbered_film, "-pix_fmt", "yuv420p10le", "-c:v", "libx264", deep)
    assert numbers_of(deep) == list(range(100))
