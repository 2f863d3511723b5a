import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.curation.ingest import ingest
from pipelines.curation.watch import WatchConfig, Watched, watch_source
from pipelines.media import write_image
from pipelines.sandbox.calls import SandboxConfig
from tests.pipelines.pictures import film, moving_square, numbered, real_clip

CONFIG = WatchConfig()


def watched(folder: Path, config: WatchConfig = CONFIG) -> dict[str, Watched]:
    return {
        uri: watch_source(footage.source, footage.path, config)
        for footage in ingest(str(folder))
        for uri in footage.source.uris
    }


def test_a_film_gives_its_shots_with_everything_measured(tmp_path: Path) -> None:
    frames = [f for seed in (1, 2) for f in moving_square(seed, 50, 320, 180)]
    bars = [np.pad(f, ((20, 20), (0, 0), (0, 0))) for f in frames]
    film(tmp_path / "film.mp4", bars)
    seen = watched(tmp_path)["film.mp4"]
    source = seen.source
    assert (source.status, source.num_frames, source.fps) == ("ok", 100, 25.0)
    assert (source.width_px, source.height_px, source.duration_s) == (320, 220, 4.0)
    assert [(c.start_frame, c.end_frame) for c in seen.clips] == [(0, 50), (50, 100)]
    assert [(c.start_s, c.end_s) for c in seen.clips] == [(0.0, 2.0), (2.0, 4.0)]
    for clip in seen.clips:
        assert (clip.crop_x_px, clip.crop_y_px, clip.crop_w_px, clip.crop_h_px) == (0, 20, 320, 180)
        assert clip.motion_dx is not None and clip.motion_dx == pytest.approx(25 / 320, rel=0.3)
        assert None not in (clip.sharpness, clip.brightness, clip.text_area, clip.phash)
        assert clip.single_shot is not None and clip.single_shot > 0.9
        jpegs = seen.samples[clip.clip_id]
        assert len(jpegs) == 3
        assert Image.open(io.BytesIO(jpegs[0])).size == (320, 180)


def test_a_dissolve_is_a_row_that_is_dropped(tmp_path: Path) -> None:
    one, two = moving_square(11, 60), moving_square(12, 60)
    shares = (np.arange(12) + 1) / 13
    between = [
        (x * (1 - s) + y * s).astype(np.uint8)
        for x, y, s in zip(one[48:], two[:12], shares, strict=True)
    ]
    film(tmp_path / "film.mp4", one[:48] + between + two[12:])
    clips = watched(tmp_path)["film.mp4"].clips
    assert [c.single_shot == 0 for c in clips] == [False, True, False]
    assert [c.start_frame for c in clips] == [0] + [c.end_frame for c in clips[:-1]]


def test_equal_bytes_give_equal_rows_and_samples(tmp_path: Path) -> None:
    (tmp_path / "bikes.mp4").write_bytes(real_clip("bikes.mp4").read_bytes())
    one, two = (watched(tmp_path)["bikes.mp4"] for _ in range(2))
    assert one == two
    assert [c.start_frame for c in one.clips] == [0, 30, 76, 137, 187, 242]


def test_a_still_is_one_clip(tmp_path: Path) -> None:
    (frame,) = moving_square(5, 1, 640, 360)
    write_image(tmp_path / "still.png", frame)
    seen = watched(tmp_path)["still.png"]
    (clip,) = seen.clips
    assert (clip.kind, clip.start_frame, clip.end_frame, clip.fps) == ("image", 0, 1, 0.0)
    assert clip.motion is None and clip.sharpness is not None
    assert len(seen.samples[clip.clip_id]) == 1


def test_hostile_files_get_a_reason_and_others_are_unaffected(tmp_path: Path) -> None:
    whole = film(tmp_path / "good.mp4", moving_square(6, 50)).read_bytes()
    film(tmp_path / "one frame.mp4", numbered(1))
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (tmp_path / "wrong.jpg").write_bytes(whole + b"x")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "-rf http:x \n🎬.mp4").write_bytes(whole + b"y")
    seen = watched(tmp_path)
    reasons = {uri: (w.source.status, w.source.reason, len(w.clips)) for uri, w in seen.items()}
    assert reasons == {
        "good.mp4": ("ok", None, 1),
        "one frame.mp4": ("ok", None, 1),
        "half.mp4": ("failed", "truncated", 0),
        "noise.mp4": ("failed", "not_media", 0),
        "list.mp4": ("failed", "not_media", 0),
        "wrong.jpg": ("ok", None, 1),
        "cut.png": ("failed", "broken", 0),
        "empty.mp4": ("failed", "empty", 0),
        "pipe.mp4": ("failed", "not_regular_file", 0),
        "-rf http:x \\x0a🎬.mp4": ("ok", None, 1),
    }


def test_time_and_memory_are_limited(tmp_path: Path) -> None:
    film(tmp_path / "film.mp4", moving_square(7, 200, 640, 360))
    quick = WatchConfig(sandbox=SandboxConfig(wall_s=0.02, wall_s_per_mib=0))
    assert watched(tmp_path, quick)["film.mp4"].source.reason == "timed_out"
    frame = np.zeros((5000, 5000, 3), np.uint8)
    write_image(tmp_path / "large.png", frame)
    small = WatchConfig(sandbox=SandboxConfig(memory_mib=100))
    assert watched(tmp_path, small)["large.png"].source.reason == "out_of_memory"


def test_a_file_replaced_since_it_was_listed_is_noticed(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", numbered(4))
    (footage,) = ingest(str(tmp_path))
    film(path, numbered(9))
    seen = watch_source(footage.source, footage.path, CONFIG)
    assert (seen.source.reason, seen.clips) == ("changed_while_read", [])
