"""Media that would have its reader open something else, or take all there is: tried for real."""

from __future__ import annotations

import io
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.curation.ingest import ingest
from pipelines.curation.watch import WatchConfig, watch_source
from pipelines.sandbox.calls import SandboxConfig
from tests.pipelines.pictures import ffmpeg, film, moving_square

WATCH = WatchConfig(sandbox=SandboxConfig(wall_s=20.0, wall_s_per_mib=1.0, memory_mib=600))


def outcome(path: Path) -> str:
    """`ok`, or the reason, of the only file in the folder of `path`."""
    (footage,) = ingest(str(path.parent))
    seen = watch_source(footage.source, footage.path, WATCH).source
    return "ok" if seen.status == "ok" else str(seen.reason)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with nothing in it; beside it lies a secret film."""
    (tmp_path / "footage").mkdir()
    film(tmp_path / "secret.mp4", moving_square(1, 20))
    return tmp_path / "footage"


@pytest.fixture
def knocks() -> Iterator[tuple[int, list[bytes]]]:
    """A port on loopback, and all that came to it."""
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        done = threading.Event()

        def listen() -> None:
            while not done.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                with connection:
                    came.append(b"knock")

        thread = threading.Thread(target=listen)
        thread.start()
        yield server.getsockname()[1], came
        done.set()
        thread.join()


SCRIPTS = {
    "playlist.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{url}\n#EXT-X-ENDLIST\n",
    "playlist.ts": "#EXTM3U\n#EXTINF:4,\nconcat:{file}|{url}\n",
    "key.ts": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:4,\n{file}\n',
    "concat.mp4": "ffconcat version 1.0\nfile '{url}'\nfile '{file}'\n",
    "meta.mp4": ";FFMETADATA1\ntitle={file}\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\n",
    "manifest.mpd": '<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL></MPD>',
    "session.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
    "picture.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
    "picture.png": '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{file}">]><svg>&e;</svg>',
    "magick.jpg": "push graphic-context\nfill 'url({url})'\npop graphic-context\n",
    "captions.ass": "[Script Info]\n[Events]\nDialogue: 0,0:00:00.00,0:00:09.00,,,,,,,{file}\n",
    "list.cue": 'FILE "{file}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_under_any_name_opens_nothing(
    name: str, place: Path, knocks: tuple[int, list[bytes]]
) -> None:
    port, came = knocks
    told = {"file": place.parent / "secret.mp4", "url": f"http://127.0.0.1:{port}/x", "port": port}
    (place / name).write_text(SCRIPTS[name].format(**told))
    assert outcome(place / name) in ("not_media", "broken", "sidecar")
    assert came == []


@pytest.mark.parametrize("name", ["http:x.mp4", "concat:a|b.mp4", "film-%03d.png", "data:,x.mp4"])
def test_a_name_is_no_protocol_and_no_pattern(name: str, place: Path) -> None:
    made = place.parent / "secret.mp4" if name.endswith("mp4") else place.parent / "one.png"
    Image.new("RGB", (64, 48)).save(place.parent / "one.png")
    (place / name).write_bytes(made.read_bytes())
    assert outcome(place / name) == "ok"


def with_reference(data: bytes, target: str) -> bytes:
    """An MP4 whose samples are said to lie in another file: a `dref` that is not "in this file"."""
    at = data.index(b"dref")
    start = at - 4
    size = int.from_bytes(data[start:at], "big")
    url = target.encode() + b"\0"
    alias = struct.pack(">I4sI", 12 + len(url), b"url ", 0) + url
    box = struct.pack(">I4sII", 16 + len(alias), b"dref", 0, 1) + alias
    grown = bytearray(data[:start] + box + data[start + size :])
    for name in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = grown.index(name) - 4
        length = int.from_bytes(grown[place : place + 4], "big") + len(box) - size
        grown[place : place + 4] = length.to_bytes(4, "big")
    return bytes(grown)


def test_samples_said_to_lie_elsewhere_are_not_fetched(
    place: Path, knocks: tuple[int, list[bytes]]
) -> None:
    """The film's own bytes are then taken for the samples, or none: never the other file's."""
    port, came = knocks
    data = (place.parent / "secret.mp4").read_bytes()
    for target in (f"http://127.0.0.1:{port}/x.mp4", str(place.parent / "secret.mp4")):
        referring = with_reference(data, target)
        assert target.encode() in referring
        (place / "film.mov").write_bytes(referring.partition(b"mdat")[0] + b"mdat")
        assert outcome(place / "film.mov") != "ok"
    assert came == []


def test_subtitles_and_attachments_ride_along_unread(place: Path) -> None:
    words = place.parent / "words.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\n<font face='/etc/passwd'>x</font>\n")
    attached = ("-attach", words, "-metadata:s:t", "mimetype=application/x-truetype-font")
    given = place.parent / "secret.mp4"
    ffmpeg("-i", given, "-i", words, "-c:v", "copy", "-c:s", "srt", *attached, place / "film.mkv")
    assert outcome(place / "film.mkv") == "ok"


# --- what would take all there is --------------------------------------------------------------


def png(*chunks: tuple[bytes, bytes], side_px: int = 16) -> bytes:
    head = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side_px + 1) * side_px))
    written = [(b"IHDR", head), *chunks, (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in written
    )


ZEROS = zlib.compress(bytes(1 << 29), 9)  # half a gibibyte in half a mebibyte


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"k\0\0" + ZEROS),
        (b"iTXt", b"k\0\1\0\0\0" + ZEROS),
        (b"iCCP", b"k\0\0" + ZEROS),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_a_chunk_that_unpacks_without_end_gets_a_row(
    chunk: tuple[bytes, bytes], place: Path
) -> None:
    (place / "bomb.png").write_bytes(png(chunk))
    assert outcome(place / "bomb.png") in ("ok", "broken", "too_large", "out_of_memory")


def test_exif_without_end_gets_a_row(place: Path) -> None:
    """A directory of EXIF entries that claim gigabytes, and one that follows itself."""
    entry = struct.pack("<HHII", 0x0112, 5, 0xFFFFFFF0, 8)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 1000) + entry * 1000
    exif += struct.pack("<I", 8)
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG", exif=exif[:65000])
    (place / "exif.jpg").write_bytes(buffer.getvalue())
    assert outcome(place / "exif.jpg") in ("ok", "broken")


@pytest.mark.parametrize(
    ("name", "at", "size"),
    [
        ("big.jpg", b"\xff\xc0\x00\x11\x08", struct.pack(">HH", 65500, 65500)),
        ("big.gif", b"GIF87a", struct.pack("<HH", 65500, 65500)),
        ("big.webp", b"\x9d\x01\x2a", struct.pack("<HH", 16383, 16383)),
    ],
)
def test_a_picture_that_says_it_is_huge_is_not_decoded(
    name: str, at: bytes, size: bytes, place: Path
) -> None:
    path = place / name
    Image.new("RGB", (64, 64), "red").save(path)
    data = path.read_bytes()
    head = data.index(at if name != "big.gif" else b"GIF8") + (6 if name == "big.gif" else len(at))
    path.write_bytes(data[:head] + size + data[head + len(size) :])
    assert outcome(path) in ("too_large", "broken", "not_media", "truncated", "out_of_memory")


def test_a_film_of_very_many_tiny_frames_ends(place: Path) -> None:
    """100,000 pictures in a few megabytes: watched within its time, or given up for it."""
    second = place.parent / "second.mkv"
    tiny = ("-f", "lavfi", "-i", "color=size=16x16:rate=1000:duration=1")
    ffmpeg(*tiny, "-c:v", "mpeg4", second)
    ffmpeg("-stream_loop", "99", "-i", second, "-c", "copy", place / "tiny.mkv")
    (footage,) = ingest(str(place))
    quick = WatchConfig(sandbox=SandboxConfig(wall_s=5.0, wall_s_per_mib=0.0))
    started_s = time.monotonic()
    seen = watch_source(footage.source, footage.path, quick).source
    assert seen.reason in (None, "timed_out", "truncated", "broken")
    assert time.monotonic() - started_s < 30


def test_a_terabyte_of_nothing_is_not_read(place: Path) -> None:
    """Every file's bytes are hashed; these would take half an hour."""
    (place / "sparse.mp4").write_bytes((place.parent / "secret.mp4").read_bytes())
    os.truncate(place / "sparse.mp4", 1 << 40)
    assert outcome(place / "sparse.mp4") == "broken"


def test_hard_links_are_one_source_under_two_names(place: Path) -> None:
    (place / "a.mp4").write_bytes((place.parent / "secret.mp4").read_bytes())
    os.link(place / "a.mp4", place / "b.mp4")
    (footage,) = ingest(str(place))
    assert footage.source.uris == ["a.mp4", "b.mp4"]


def test_a_file_exchanged_after_it_was_listed_is_refused(place: Path) -> None:
    secret = (place.parent / "secret.mp4").read_bytes()
    (place / "film.mp4").write_bytes(secret[:-1] + b"x")  # other bytes, as many
    (footage,) = ingest(str(place))
    (place / "film.mp4").unlink()
    (place / "film.mp4").symlink_to(place.parent / "secret.mp4")
    seen = watch_source(footage.source, footage.path, WATCH)
    assert seen.source.status == "failed" and seen.clips == []
    assert np.array_equal(np.frombuffer(secret, np.uint8)[:4], [0, 0, 0, secret[3]])
