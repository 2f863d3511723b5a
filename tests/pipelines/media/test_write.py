from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipelines.media import (
    MediaError,
    opened_pictures,
    probe,
    read_clip_frames,
    set_rotation,
    write_image,
    write_video,
)
from pipelines.media.write import exact_fps
from tests.pipelines.pictures import film, moving_square, numbered

CODECS = [
    ("libx264", ".mp4"),
    ("libx264", ".mkv"),
    ("libx265", ".mp4"),
    ("libvpx-vp9", ".webm"),
    ("libsvtav1", ".mp4"),
    ("mpeg4", ".avi"),
    ("mjpeg", ".mov"),
    ("prores_ks", ".mov"),
    ("ffv1", ".mkv"),
]


@pytest.mark.parametrize(("codec", "suffix"), CODECS)
def test_equal_frames_give_equal_bytes_and_come_back(
    codec: str, suffix: str, tmp_path: Path
) -> None:
    frames = moving_square(1, 12)
    one = film(tmp_path / f"one{suffix}", frames, codec=codec)
    two = film(tmp_path / f"two{suffix}", frames, codec=codec)
    assert one.read_bytes() == two.read_bytes()
    back = read_clip_frames(one, fps=25, width_px=160, height_px=90)
    assert back.shape == (12, 90, 160, 3)
    assert np.abs(back.astype(int) - np.stack(frames)).mean() < 6


def test_x264_gives_one_file_however_often_it_is_asked(tmp_path: Path) -> None:
    """Its fast float code gave 11 files in 40 runs on pictures of this size."""
    frames = moving_square(3, 16, 320, 180)
    made = {film(tmp_path / "again.mp4", frames).read_bytes() for _ in range(12)}
    assert len(made) == 1


def test_a_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    pts = [0, 40, 120, 160, 280, 320]
    path = tmp_path / "vfr.mp4"
    write_video(path, numbered(6), fps=25, frame_pts=pts, time_base=Fraction(1, 1000))
    with opened_pictures(path) as stream:
        times_s = [timed.time_s for timed in stream.pictures()]
    assert times_s == pytest.approx([p / 1000 for p in pts], abs=1e-4)


@pytest.mark.parametrize("rotation_deg", [90, 180, 270])
def test_a_player_turns_the_picture_clockwise(rotation_deg: int, tmp_path: Path) -> None:
    frames = moving_square(2, 4)
    path = film(tmp_path / "turned.mp4", frames, rotation_deg=rotation_deg)
    info = probe(path)
    assert info.rotation_deg == rotation_deg
    shown = np.rot90(frames[0], -rotation_deg // 90)
    assert (info.height_px, info.width_px) == shown.shape[:2]
    back = read_clip_frames(path, fps=25, width_px=info.width_px, height_px=info.height_px)
    assert np.abs(back[0].astype(int) - shown).mean() < 6


def test_rotation_can_be_set_without_coding_again(tmp_path: Path) -> None:
    path = film(tmp_path / "upright.mp4", numbered(4))
    set_rotation(path, tmp_path / "turned.mp4", 90)
    info = probe(tmp_path / "turned.mp4")
    assert (info.rotation_deg, info.width_px, info.height_px) == (90, 48, 64)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"codec": "mpeg7"}, "codec 'mpeg7'"),
        ({"fps": 0}, "fps is 0"),
        ({"frame_pts": [0, 1]}, "go together"),
        ({"frame_pts": [0, 0], "time_base": Fraction(1, 10)}, "rise strictly"),
        ({"frame_pts": [0, 1], "time_base": Fraction(1, 10)}, "more frames than"),
        ({"codec": "mpeg4", "frame_pts": [0, 1, 2], "time_base": Fraction(1, 90000)}, "1/65535"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(
    changes: dict, says: str, tmp_path: Path
) -> None:
    path = tmp_path / "no.mp4"
    with pytest.raises(ValueError, match=says):
        write_video(path, numbered(3), **{"fps": 25, **changes})
    assert not path.exists()


def test_sizes_and_frames_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "no.mp4"
    with pytest.raises(ValueError, match="make it even"):
        write_video(path, numbered(3, 63, 48), fps=25)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], fps=25)
    with pytest.raises(ValueError, match="frame 1"):
        write_video(path, [*numbered(1), *numbered(1, 32, 48)], fps=25)
    with pytest.raises(ValueError, match="suffix"):
        write_video(tmp_path / "no.txt", numbered(3), fps=25)
    assert not path.exists()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_pictures(suffix: str, tmp_path: Path) -> None:
    (image,) = numbered(1)
    path = tmp_path / f"still{suffix}"
    write_image(path, image)
    info = probe(path)
    assert (info.kind, info.width_px, info.height_px, info.num_frames) == ("image", 64, 48, 1)
    back = read_clip_frames(path, fps=8, width_px=64, height_px=48)
    assert np.abs(back[0].astype(int) - image).mean() < 6


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (25, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (12.5, Fraction(25, 2)),
        (Fraction(7, 3), Fraction(7, 3)),
    ],
)
def test_rates_become_exact(given: float, exact: Fraction) -> None:
    assert exact_fps(given) == exact


def test_reason_codes_are_checked() -> None:
    with pytest.raises(ValueError, match="reason code"):
        MediaError("made_up")
