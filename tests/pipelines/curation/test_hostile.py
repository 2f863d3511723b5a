"""Any byte sequence may lie in the footage folder: it gets a row with a reason, soon, and nothing
else is touched by it."""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipelines.curation.ingest import ingest
from pipelines.curation.watch import WatchConfig, Watched, watch_source
from pipelines.sandbox.calls import SandboxConfig
from tests.pipelines.pictures import ffmpeg, film, moving_square, numbered

#: What a file of this test may take, whatever is in it.
LIMITS = SandboxConfig(wall_s=20.0, wall_s_per_mib=1.0, memory_mib=600)
CONFIG = WatchConfig(sandbox=LIMITS)


def watched(folder: Path, caplog: pytest.LogCaptureFixture | None = None) -> dict[str, Watched]:
    found = {}
    for footage in ingest(str(folder)):
        started_s = time.monotonic()
        found[footage.source.uris[0]] = watch_source(footage.source, footage.path, CONFIG)
        assert time.monotonic() - started_s < LIMITS.wall_s + 10, footage.source.uris
    if caplog is not None:  # a fault of ours is logged as an error; a bad file is not
        assert [r.message for r in caplog.records if r.levelname == "ERROR"] == []
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sound films by container, two shots each."""
    folder = tmp_path_factory.mktemp("whole")
    frames = moving_square(1, 30) + moving_square(2, 30)
    given = film(folder / "film.mp4", frames, options={"g": "15"})
    made = {"mp4": given.read_bytes()}
    for suffix in ("mkv", "ts", "mov", "flv"):
        ffmpeg("-i", given, "-c", "copy", folder / f"film.{suffix}")
        made[suffix] = (folder / f"film.{suffix}").read_bytes()
    ffmpeg("-i", given, "-c:v", "mpeg4", folder / "film.avi")
    made["avi"] = (folder / "film.avi").read_bytes()
    ffmpeg("-i", given, "-c:v", "libvpx-vp9", "-cpu-used", "8", folder / "film.webm")
    made["webm"] = (folder / "film.webm").read_bytes()
    return made


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "webm"])
def test_truncated_at_every_tenth(
    whole: dict[str, bytes],
    suffix: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = whole[suffix]
    for tenth in range(1, 11):
        (tmp_path / f"{tenth:02d}.{suffix}").write_bytes(data[: len(data) * tenth // 10])
    seen = watched(tmp_path, caplog)
    assert len(seen) == 10
    assert seen[f"10.{suffix}"].source.num_frames == 60
    for name, result in seen.items():
        if result.source.status == "ok":  # a container without a length may just end there
            assert name.startswith("10") or suffix == "ts", name
        else:
            assert result.source.reason in ("truncated", "broken", "not_media"), name
            assert result.clips == []


def test_no_mutation_of_a_real_file_is_our_fault(
    whole: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(20260)
    for number in range(150):
        suffix, data = list(whole.items())[number % len(whole)]
        (tmp_path / f"{number:03d}.{suffix}").write_bytes(_mutated(data, rng))
    seen = watched(tmp_path, caplog)
    assert len(seen) == 150
    for result in seen.values():
        assert (result.source.status == "ok") == (result.source.reason is None)
        assert bool(result.clips) == (result.source.status == "ok")


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Bits flipped, a piece doubled, dropped or zeroed, or lengths made huge; often near the head,
    where the container's boxes are."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        near_head = rng.random() < 0.5
        at = int(rng.integers(min(len(out), 2000) if near_head else len(out)))
        length = int(rng.integers(1, 200))
        kind = int(rng.integers(5))
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at : at + length] = rng.bytes(length)
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        else:
            out[at : at + 4] = b"\x7f\xff\xff\xff"
    return bytes(out)


def test_strange_films(
    whole: dict[str, bytes], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, make in STRANGE.items():
        make(tmp_path / name, whole)
    seen = {uri: (w.source.status, w.source.reason) for uri, w in watched(tmp_path, caplog).items()}
    assert set(seen) == set(STRANGE)
    ok, reasons = {}, {}
    for name, (status, reason) in seen.items():
        (ok if status == "ok" else reasons)[name] = reason
    assert set(ok) == {"good.mp4", "still.mp4", "one.mp4", "film.txt.mp4", "slow.mkv", "back.mkv"}
    assert reasons == {
        "sound.mp4": "no_video_stream",
        "cover.mp3": "no_video_stream",
        "streams.mkv": "broken",
        "bomb.png": "too_large",
        "bomb.mkv": reasons["bomb.mkv"],
        "script.mp4": "not_media",
        "playlist.mp4": "not_media",
        "subtitles.mp4": reasons["subtitles.mp4"],
        "archive.mp4": "not_media",
    }
    assert reasons["bomb.mkv"] in ("too_large", "broken", "not_media")
    assert reasons["subtitles.mp4"] in ("no_video_stream", "not_media", "broken")


Make = Callable[[Path, dict[str, bytes]], object]


def _png_bomb(path: Path, _: dict[str, bytes]) -> None:
    """60000 x 60000 pixels in 440 KB."""
    side = 60_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side // 8 + 1) * side), 9)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def _many_streams(path: Path, whole: dict[str, bytes]) -> None:
    given = path.with_name("given.mp4")
    given.write_bytes(whole["mp4"])
    ffmpeg("-i", given, *(["-map", "0:v"] * 200), "-c", "copy", path)
    given.unlink()


def _made_by_ffmpeg(*arguments: str) -> Make:
    def make(path: Path, _: dict[str, bytes]) -> None:
        ffmpeg(*arguments, path)

    return make


def _back_in_time(path: Path, whole: dict[str, bytes]) -> None:
    """Two films behind one another, the second's times beginning again at zero."""
    path.write_bytes(whole["mkv"] + whole["mkv"])


_TESTSRC = ("-f", "lavfi", "-i", "testsrc=size=64x48:rate=10:duration=2")
_TONE = ("-f", "lavfi", "-i", "sine=duration=1")

STRANGE: dict[str, Make] = {
    "good.mp4": lambda path, whole: path.write_bytes(whole["mp4"]),
    "film.txt.mp4": lambda path, whole: path.write_bytes(whole["ts"]),
    "one.mp4": lambda path, _: film(path, numbered(1)),
    "still.mp4": lambda path, _: film(path, [numbered(1)[0]] * 40),
    "sound.mp4": _made_by_ffmpeg(*_TONE),
    "cover.mp3": _made_by_ffmpeg(*_TONE, *_TESTSRC, "-frames:v", "1", "-map", "0", "-map", "1"),
    "slow.mkv": _made_by_ffmpeg(*_TESTSRC, "-r", "1/1000", "-frames:v", "2"),
    "back.mkv": _back_in_time,
    "streams.mkv": _many_streams,
    "bomb.png": _png_bomb,
    "bomb.mkv": _made_by_ffmpeg(
        *("-f", "lavfi", "-i", "color=size=9000x9000:rate=1:duration=1"),
        *("-c:v", "png", "-pix_fmt", "gray"),
    ),
    "script.mp4": lambda path, _: path.write_text("ffconcat version 1.0\nfile 'good.mp4'\n"),
    "playlist.mp4": lambda path, _: path.write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    ),
    "subtitles.mp4": lambda path, _: path.write_text("1\n00:00:00,000 --> 00:00:09,000\nhello\n"),
    "archive.mp4": lambda path, _: path.write_bytes(b"PK\x03\x04" + bytes(3000)),
}


def test_entries_that_are_no_files(whole: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(whole["mp4"])
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.mp4" / "inside.mp4").write_bytes(whole["mov"])
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "round.mp4").symlink_to("about.mp4")
    (tmp_path / "about.mp4").symlink_to("round.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    (tmp_path / "outside.mp4").symlink_to("/etc/passwd")
    (tmp_path / "above").symlink_to("..")
    seen = {uri: (w.source.status, w.source.reason) for uri, w in watched(tmp_path).items()}
    ok = {uri for uri, (status, _) in seen.items() if status == "ok"}
    assert ok == {"good.mp4", "folder.mp4/inside.mp4"}
    refused = {"pipe", "device", "round", "about", "gone", "outside"}
    assert {uri for uri in seen if uri not in ok} == {f"{name}.mp4" for name in refused} | {"above"}
    assert {reason for uri, (_, reason) in seen.items() if uri not in ok} == {"not_regular_file"}


NAMES = [
    "a b.mp4",
    "new\nline.mp4",
    "-rf.mp4",
    "http:x.mp4",
    "🎬.mp4",
    b"\xff\xfe.mp4",
    "'\";$(x).mp4",
]


def test_any_name_is_only_a_name(whole: dict[str, bytes], tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
        with open(path, "wb") as file:
            file.write(whole["mp4"] + bytes([number]))
    seen = watched(tmp_path)
    assert len(seen) == len(NAMES)
    assert {w.source.status for w in seen.values()} == {"ok"}
    assert all("\n" not in uri for uri in seen)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """No test of this module may leave a child that still decodes."""
    yield
    from pipelines.sandbox import calls as sandbox

    child = sandbox.run_limited(LIMITS.limits(0), os.getpid)
    assert isinstance(child, int)
