import os
import zlib
from pathlib import Path

import numpy as np
import pytest

from pipelines.media import (
    MediaError,
    MediaLimits,
    opened_pictures,
    probe,
    read_clip_frames,
    write_image,
)
from tests.pipelines.pictures import film, moving_square, number_of, numbered, real_clip


def read_all(path: Path) -> int:
    """Number of frames, or the reason's MediaError."""
    with opened_pictures(path) as stream:
        return sum(1 for _ in stream.pictures())


def reason_of(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        if probe(path).kind == "video":
            read_all(path)
    return caught.value.reason


def png_claiming(width_px: int, height_px: int) -> bytes:
    """A tiny PNG that unpacks to a picture of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4)

    header = width_px.to_bytes(4, "big") + height_px.to_bytes(4, "big") + b"\x08\x00\x00\x00\x00"
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_probe_says_what_is_there() -> None:
    info = probe(real_clip("bigbuckbunny.mp4"))
    assert (info.container, info.codec, info.width_px, info.height_px) == (
        "mp4",
        "h264",
        1280,
        720,
    )
    assert (info.fps, info.num_frames, info.duration_s) == (25.0, 132, 5.28)
    stretched = probe(real_clip("carphone_pristine.mp4"))
    assert (stretched.coded_width_px, stretched.width_px) == (176, 192)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (bytes(range(256)) * 100, "not_media"),
        (b"#EXTM3U\n#EXTINF:4.0,\n/etc/passwd\n#EXT-X-ENDLIST\n", "not_media"),
        (b"ffconcat version 1.0\nfile 'film.mp4'\n", "not_media"),
        (b"http://example.org/film.mp4\n", "not_media"),
        (b"\0\0\0\x18ftypisom" + bytes(12), "broken"),
    ],
)
def test_what_is_no_video_has_a_reason(data: bytes, reason: str, tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", numbered(4))
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    assert reason_of(path) == reason


@pytest.mark.parametrize("part", range(1, 10))
def test_a_file_cut_short_is_truncated_or_broken(part: int, tmp_path: Path) -> None:
    whole = film(tmp_path / "whole.mp4", moving_square(1, 60)).read_bytes()
    path = tmp_path / "part.mp4"
    path.write_bytes(whole[: len(whole) * part // 10])
    assert reason_of(path) in ("truncated", "broken")


def test_pipes_devices_folders_and_closed_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    assert reason_of(tmp_path / "pipe.mp4") == "not_regular_file"
    assert reason_of(tmp_path / "folder.mp4") == "not_regular_file"
    assert reason_of(Path("/dev/zero")) == "not_regular_file"
    assert reason_of(tmp_path / "nothing.mp4") == "unreadable"


def test_pictures_over_the_limit_are_refused_before_decoding(tmp_path: Path) -> None:
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png_claiming(60_000, 60_000))
    assert reason_of(bomb) == "too_large"
    path = film(tmp_path / "film.mp4", numbered(4))
    with pytest.raises(MediaError) as caught:
        probe(path, MediaLimits(max_pixels=64 * 47))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("name", ["-rf.mp4", "http:x.mp4", "a b\n.mp4", "🎬.mp4", b"\xff\xfe.mp4"])
def test_any_name_can_be_read(name: str | bytes, tmp_path: Path) -> None:
    source = film(tmp_path / "film.mp4", numbered(6))
    odd = os.path.join(os.fsencode(tmp_path), name if isinstance(name, bytes) else name.encode())
    os.rename(source, odd)
    path = Path(os.fsdecode(odd))
    assert probe(path).num_frames == 6
    assert read_all(path) == 6


def test_one_frame_is_a_film_too(tmp_path: Path) -> None:
    path = film(tmp_path / "one.mp4", numbered(1))
    assert read_all(path) == 1
    assert read_clip_frames(path, fps=8, width_px=64, height_px=48).shape == (1, 48, 64, 3)


def test_times_count_from_the_first_picture() -> None:
    with opened_pictures(real_clip("bikes.mp4")) as stream:
        times_s = [timed.time_s for timed in stream.pictures()]
        assert times_s[:3] == pytest.approx([0.0, 0.04, 0.08])
        assert stream.end_s == pytest.approx(10.0)


@pytest.mark.parametrize(("fps", "expected"), [(25, 25), (8, 8), (50, 50), (5, 5)])
def test_frames_are_chosen_by_nearest_time(fps: int, expected: int, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", numbered(25))
    frames = read_clip_frames(path, fps=fps, width_px=64, height_px=48)
    assert len(frames) == expected
    for k, frame in enumerate(frames):
        assert abs(number_of(frame) - min(k / fps * 25, 24)) <= 0.51


def test_fewer_frames_bytes_and_shapes(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", numbered(25))
    few = read_clip_frames(path.read_bytes(), fps=8, width_px=32, height_px=32, max_frames=3)
    assert few.shape == (3, 32, 32, 3) and few.dtype == np.uint8


def test_the_middle_is_kept_or_all_of_it_squeezed(tmp_path: Path) -> None:
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, :20] = image[:, 60:] = 255
    write_image(tmp_path / "sides.png", image)
    middle = read_clip_frames(tmp_path / "sides.png", fps=1, width_px=20, height_px=20)
    whole = read_clip_frames(
        tmp_path / "sides.png", fps=1, width_px=20, height_px=20, centre_crop=False
    )
    assert middle.max() == 0 and whole[0, 0, 0, 0] == 255


def test_ten_bits_and_full_range_look_the_same_to_the_detectors(tmp_path: Path) -> None:
    frames = moving_square(5, 4)
    looks = []
    for codec, pix_fmt, suffix in (
        ("libx264", "yuv420p", ".mp4"),
        ("libx264", "yuv420p10le", ".mp4"),
        ("mjpeg", "yuvj420p", ".mov"),
    ):
        path = film(tmp_path / f"{pix_fmt}{suffix}", frames, codec=codec, pix_fmt=pix_fmt)
        with opened_pictures(path) as stream:
            picture = next(stream.pictures()).picture
            looks.append((picture.small(160).rgb_HWC(), picture.small(160).luma_HW()))
            rows, columns = picture.line_means()
            assert (len(rows), len(columns)) == (90, 160)
    for rgb, luma in looks:
        assert np.abs(rgb.astype(int) - frames[0]).mean() < 6
        assert np.abs(luma.astype(int) - looks[0][1]).mean() < 5
