"""Files that must be refused with a reason, each broken in its own way."""

from __future__ import annotations

import tempfile
import wave
from pathlib import Path

import numpy as np

from pipelines.world.draft import FilmSpec, draw_film
from pipelines.world.films import write_film
from pipelines.world.truth import WorldFile

FOLDER = "broken"

_PLAYLIST = """#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:4
#EXTINF:4.0,
../films/film-0000.mp4
#EXT-X-ENDLIST
"""


def write_broken(root: Path, seed: int) -> list[WorldFile]:
    """Writes them below `root`/broken; returns each with the reasons it may be refused with."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    whole = _whole_film(seed)
    pictures_at = _box_offset(whole, b"mdat")
    noise = np.random.default_rng([seed, 40]).bytes(50_000)
    contents = {
        "empty.mp4": (b"", ("empty",)),
        "noise.mp4": (noise, ("not_media", "broken")),
        "text.mp4": (b"It was a dark and stormy night.\n" * 40, ("not_media", "broken")),
        "playlist.mp4": (_PLAYLIST.encode(), ("not_media", "broken", "no_video_stream")),
        "header-only.mp4": (whole[: pictures_at + 8], ("truncated", "broken")),
        "half.mp4": (whole[: len(whole) // 2], ("truncated", "broken")),
        "no-index.mp4": (_without_index(whole), ("broken", "not_media", "no_video_stream")),
    }
    files = []
    for name, (data, reasons) in contents.items():
        (folder / name).write_bytes(data)
        files.append(WorldFile(f"{FOLDER}/{name}", "broken", reasons=reasons))
    _write_tone(folder / "sound-only.wav")
    sound = WorldFile(
        f"{FOLDER}/sound-only.wav", "broken", reasons=("no_video_stream", "not_media")
    )
    return [*files, sound]


def _whole_film(seed: int) -> bytes:
    """A sound .mp4 of a single shot, its index before its pictures."""
    plan = draw_film(FilmSpec((320, 180), good_shots=1), "whole", (seed, 41))
    with tempfile.TemporaryDirectory(prefix="i2vgen-") as folder:
        write_film(plan, Path(folder))
        return (Path(folder) / plan.file_name).read_bytes()


def _box_offset(mp4: bytes, kind: bytes) -> int:
    """Where the first top-level box of this kind begins. Raises ValueError when there is none."""
    at = 0
    while at + 8 <= len(mp4):
        size = int.from_bytes(mp4[at : at + 4], "big")
        if mp4[at + 4 : at + 8] == kind:
            return at
        if size < 8:
            break
        at += size
    raise ValueError(f"no {kind.decode()} box: not an mp4 with its index first")


def _without_index(mp4: bytes) -> bytes:
    """What a recorder leaves when it dies: file type and pictures, but no index to find them."""
    index_at, pictures_at = _box_offset(mp4, b"moov"), _box_offset(mp4, b"mdat")
    return mp4[:index_at] + mp4[pictures_at:]


def _write_tone(path: Path) -> None:
    """A second of a 440 Hz tone, mono, 16 bit."""
    rate_hz = 16_000
    tone = 8000 * np.sin(2 * np.pi * 440 / rate_hz * np.arange(rate_hz))
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(tone.astype("<i2").tobytes())
