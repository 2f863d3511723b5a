"""What is true of a generated file, as a value and as the JSON beside it.

`film-0003.mp4` has `film-0003.truth.json`; the folder has `world.truth.json`, which names every
file. Frames are counted from 0 in the order the encoded file shows them; spans are half open.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, to_plain

TRUTH_VERSION = 1
TRUTH_SUFFIX = ".truth.json"
MANIFEST_NAME = "world.truth.json"


@dataclass(frozen=True)
class Box:
    """A rectangle in displayed pixels, origin at the top left."""

    x: int
    y: int
    w: int
    h: int

    @property
    def area_px(self) -> int:
        return self.w * self.h


@dataclass(frozen=True)
class Overlay:
    """Graphics laid over the picture: `kind` is caption_bar, title or watermark.

    `box` is everything it covers (the bar), `text_box` the words alone; `share` is the words'
    part of the whole frame, in [0, 1].
    """

    kind: str
    text: str
    box: Box
    text_box: Box
    share: float


@dataclass(frozen=True)
class GradualSpan:
    """Frames [start, end) that show two shots, or black between them: fade, dissolve or wipe."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class ShotRef:
    """A shot of another file; `shot` is its index there."""

    file: str
    shot: int


@dataclass(frozen=True)
class ShotTruth:
    """Frames [start, end) show this shot alone; a gradual transition lies between two shots.

    `must_drop` is a code of pipelines.records.REASONS, or None for a shot worth keeping.
    `scene` holds the fields of pipelines.world.scenes.Scene, or is None where nothing is shown.
    """

    index: int
    start: int
    end: int
    kind: str
    scene: Mapping[str, Any] | None
    caption: str | None
    still_caption: str | None
    short_caption: str | None
    crop: Box
    overlays: tuple[Overlay, ...] = ()
    must_drop: str | None = None
    duplicate_of: ShotRef | None = None

    @property
    def num_frames(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class EncodingTruth:
    """How the file is coded. `width_px` x `height_px` is the picture as displayed."""

    codec: str
    container: str
    pix_fmt: str
    width_px: int
    height_px: int
    rotation_deg: int
    fps: float
    variable_frame_rate: bool
    num_frames: int
    duration_s: float


@dataclass(frozen=True)
class DuplicateOf:
    """The file this one repeats; `how` is exact (same bytes) or reencoded (same pictures)."""

    file: str
    how: str


@dataclass(frozen=True)
class FilmTruth:
    """All there is to know of one film, or of one still image (one shot of one frame)."""

    file: str
    kind: str
    origin: str
    encoding: EncodingTruth
    shots: tuple[ShotTruth, ...]
    cuts: tuple[int, ...] = ()
    gradual: tuple[GradualSpan, ...] = ()
    flash_frames: tuple[int, ...] = ()
    duplicate_of: DuplicateOf | None = None

    @property
    def kept_shots(self) -> tuple[ShotTruth, ...]:
        """The shots worth keeping; none of a real clip, whose worth nobody has judged."""
        if self.origin != "generated":
            return ()
        return tuple(s for s in self.shots if s.must_drop is None)


@dataclass(frozen=True)
class WorldFile:
    """One file of a world: kind is film, still, real or broken; paths are relative to its root.

    `reasons` are the codes that a broken file may be refused with; empty for files that must be
    read whole.
    """

    path: str
    kind: str
    truth: str | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class WorldManifest:
    """Every file of a generated world, and the request that made it."""

    folder: str
    seed: int
    preset: str
    num_films: int
    real_clips: bool
    broken: bool
    files: tuple[WorldFile, ...] = ()

    def of_kind(self, *kinds: str) -> tuple[WorldFile, ...]:
        return tuple(f for f in self.files if f.kind in kinds)

    def path_of(self, file: WorldFile) -> Path:
        return Path(self.folder) / file.path

    def truth_of(self, file: WorldFile) -> FilmTruth:
        """Raises ValueError for a file that has none."""
        if file.truth is None:
            raise ValueError(f"{file.path} has no ground truth")
        return read_truth(Path(self.folder) / file.truth)

    def truths(self, *kinds: str) -> tuple[FilmTruth, ...]:
        """The truth of every file of these kinds that has one."""
        return tuple(self.truth_of(f) for f in self.of_kind(*kinds) if f.truth)


def truth_path(media_path: Path) -> Path:
    """`film-0003.mp4` -> `film-0003.truth.json`."""
    return media_path.with_name(media_path.stem + TRUTH_SUFFIX)


def write_truth(media_path: Path, truth: FilmTruth) -> Path:
    path = truth_path(media_path)
    _write_json(path, truth)
    return path


def read_truth(path: Path) -> FilmTruth:
    plain = _read_json(path)
    return FilmTruth(
        **{
            **plain,
            "encoding": EncodingTruth(**plain["encoding"]),
            "shots": tuple(_shot(s) for s in plain["shots"]),
            "cuts": tuple(plain["cuts"]),
            "gradual": tuple(GradualSpan(**g) for g in plain["gradual"]),
            "flash_frames": tuple(plain["flash_frames"]),
            "duplicate_of": _optional(DuplicateOf, plain["duplicate_of"]),
        }
    )


def write_manifest(manifest: WorldManifest) -> None:
    """The folder itself is left out of the file, so that equal worlds are equal bytes anywhere."""
    _write_json(Path(manifest.folder) / MANIFEST_NAME, dataclasses.replace(manifest, folder=""))


def read_manifest(folder: Path) -> WorldManifest:
    """Raises RequestError when the folder holds no world."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise RequestError(f"{folder}: no {MANIFEST_NAME}; write a world with pipelines.footage")
    plain = _read_json(path)
    files = tuple(WorldFile(**{**f, "reasons": tuple(f["reasons"])}) for f in plain["files"])
    return WorldManifest(**{**plain, "folder": str(folder), "files": files})


def _shot(plain: Mapping[str, Any]) -> ShotTruth:
    overlays = tuple(
        Overlay(**{**o, "box": Box(**o["box"]), "text_box": Box(**o["text_box"])})
        for o in plain["overlays"]
    )
    return ShotTruth(
        **{
            **plain,
            "crop": Box(**plain["crop"]),
            "overlays": overlays,
            "duplicate_of": _optional(ShotRef, plain["duplicate_of"]),
        }
    )


def _optional(kind: Any, plain: Mapping[str, Any] | None) -> Any:
    return None if plain is None else kind(**plain)


def _read_json(path: Path) -> Any:
    plain = json.loads(path.read_text(encoding="utf-8"))
    if plain.pop("truth_version", None) != TRUTH_VERSION:
        raise RequestError(f"{path}: written by another version of the world; write it again")
    return plain


def _write_json(path: Path, value: Any) -> None:
    plain = {"truth_version": TRUTH_VERSION, **to_plain(value)}
    text = json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
