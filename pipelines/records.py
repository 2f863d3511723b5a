"""The rows that flow: a Source per input file, a Clip per shot, a Shard per tar.

These columns are a contract (design.md, "Dataset"): readers outside this project rely on them.
A score that was not computed is None, never 0. Identity comes from content, never from a path.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

SCHEMA_VERSION = 1
TIERS = ("base", "high_res", "premium")

REASONS: dict[str, str] = {
    # stage "ingest": a file that gives no clip
    "sidecar": "text that accompanies a film (captions, licence, ground truth)",
    "not_media": "not a video or an image",
    "not_regular_file": "a folder, pipe, device, socket or link out of the footage",
    "unreadable": "the file could not be opened",
    "empty": "the file has no bytes",
    "no_video_stream": "sound or data only",
    "broken": "the file could not be decoded",
    "truncated": "fewer frames than the file says it has",
    "too_large": "picture larger than the limit",
    "interlaced": "half pictures woven together: deinterlace it first",
    "hdr": "high dynamic range (PQ or HLG): bring it to standard range first",
    "timed_out": "decoding passed its time limit",
    "out_of_memory": "decoding passed its memory limit",
    "decoder_died": "the decoding process was killed",
    "changed_while_read": "the file changed while it was being read",
    "licence_refused": "the licence or consent policy refuses it",
    # stages that judge a clip
    "too_short": "shorter than the minimum duration",
    "too_long": "longer than the maximum duration",
    "too_small": "fewer pixels than the minimum resolution",
    "not_single_shot": "a second method found a cut or transition inside",
    "too_still": "less motion than the minimum",
    "too_shaky": "more motion than the maximum",
    "black": "black or near-black picture",
    "flat": "one flat colour",
    "blurred": "less sharp than the minimum",
    "flashes": "brightness jumps as in a flash",
    "overlay_text": "too much of the picture is overlay text",
    "duplicate": "a better copy of the same clip is kept",
    "caption_empty": "the caption has no usable words",
    "caption_refused": "the captioner declined to describe it",
    "caption_short": "the caption has fewer words than the minimum",
    "caption_repeats": "the caption repeats itself",
    "caption_language": "the caption is in another script or language",
    "nsfw": "a detector found nudity",
    "low_clip_score": "picture and caption do not match",
    "cut_failed": "the clip could not be cut from its source",
    # stage "takedown": on request, after a curation; in every later one before anything else
    "taken_down": "removed on request, and kept out since",
}


def source_id_of(content_sha256: str) -> str:
    """First 32 hex digits of the sha256 of the file's bytes."""
    return content_sha256[:32]


def clip_id_of(source_id: str, start_frame: int, end_frame: int) -> str:
    """32 hex digits from the source and the exact half-open frame span."""
    return hashlib.sha256(f"{source_id}:{start_frame}:{end_frame}".encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Source:
    """One input file, readable or not. `width_px`/`height_px` are as displayed (rotated)."""

    source_id: str
    uris: list[str]
    size_bytes: int
    container: str | None = None
    codec: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    rotation_deg: int | None = None
    fps: float | None = None
    duration_s: float | None = None
    num_frames: int | None = None
    license: str | None = None
    consent: str | None = None
    status: str = "ok"
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Clip:
    """One shot ever found (or one still image), kept or dropped.

    Frames are 0-based in presentation order, end exclusive; the shots of a source tile it.
    `crop_*_px` is the picture inside its borders, in displayed source pixels.
    `motion` is the mean optical-flow magnitude over the shot in frame widths per second;
    `motion_dx`, `motion_dy` the mean flow of the moving part, same unit, right and down positive.
    `sharpness` is how steep the strongest edges are, about 1 for a step of one pixel;
    `brightness` and `contrast` are the mean and the spread (5th to 95th percentile) of luma, 0
    to 255; `flashes` are jumps in brightness and back, per second; `text_area`,
    `subject_area` are shares of the picture in [0, 1]; `nsfw` is how sure a detector is that it
    saw nudity, in [0, 1].
    """

    clip_id: str
    source_id: str
    kind: str
    shot_index: int
    start_frame: int
    end_frame: int
    start_s: float
    end_s: float
    fps: float
    width_px: int
    height_px: int
    crop_x_px: int
    crop_y_px: int
    crop_w_px: int
    crop_h_px: int
    motion: float | None = None
    motion_dx: float | None = None
    motion_dy: float | None = None
    sharpness: float | None = None
    brightness: float | None = None
    contrast: float | None = None
    flashes: float | None = None
    text_area: float | None = None
    aesthetic: float | None = None
    subject_area: float | None = None
    nsfw: float | None = None
    single_shot: float | None = None
    temporal_consistency: float | None = None
    phash: str | None = None
    duplicate_of: str | None = None
    caption: str | None = None
    short_caption: str | None = None
    captioner: str | None = None
    clip_score: float | None = None
    embedding: list[float] | None = None
    verdict: str = "kept"
    reason_stage: str | None = None
    reason: str | None = None
    tiers: list[str] = field(default_factory=list)
    shard: str | None = None
    key: str | None = None
    content_sha256: str | None = None
    license: str | None = None
    consent: str | None = None

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s

    def dropped(self, stage: str, reason: str) -> Clip:
        """The same clip with a verdict. The first reason stands: later stages do not replace it."""
        if self.verdict == "dropped":
            return self
        return dataclasses.replace(self, verdict="dropped", reason_stage=stage, reason=reason)


@dataclass(frozen=True)
class Shard:
    shard: str
    samples: int
    bytes: int
    sha256: str


SOURCE_SCHEMA = pa.schema(
    [
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("uris", pa.list_(pa.string()), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("rotation_deg", pa.int32()),
        ("fps", pa.float64()),
        ("duration_s", pa.float64()),
        ("num_frames", pa.int64()),
        ("license", pa.string()),
        ("consent", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        ("reason", pa.string()),
    ]
)

CLIP_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("shot_index", pa.int32(), nullable=False),
        pa.field("start_frame", pa.int64(), nullable=False),
        pa.field("end_frame", pa.int64(), nullable=False),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("fps", pa.float64()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        ("crop_x_px", pa.int32()),
        ("crop_y_px", pa.int32()),
        ("crop_w_px", pa.int32()),
        ("crop_h_px", pa.int32()),
        ("motion", pa.float32()),
        ("motion_dx", pa.float32()),
        ("motion_dy", pa.float32()),
        ("sharpness", pa.float32()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        ("flashes", pa.float32()),
        ("text_area", pa.float32()),
        ("aesthetic", pa.float32()),
        ("subject_area", pa.float32()),
        ("nsfw", pa.float32()),
        ("single_shot", pa.float32()),
        ("temporal_consistency", pa.float32()),
        ("phash", pa.string()),
        ("duplicate_of", pa.string()),
        ("caption", pa.string()),
        ("short_caption", pa.string()),
        ("captioner", pa.string()),
        ("clip_score", pa.float32()),
        ("embedding", pa.list_(pa.float16())),
        pa.field("verdict", pa.string(), nullable=False),
        ("reason_stage", pa.string()),
        ("reason", pa.string()),
        pa.field("tiers", pa.list_(pa.string()), nullable=False),
        ("shard", pa.string()),
        ("key", pa.string()),
        ("content_sha256", pa.string()),
        ("license", pa.string()),
        ("consent", pa.string()),
    ]
)

SHARD_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)

Row = TypeVar("Row", Source, Clip, Shard)
SCHEMA_OF: dict[type, pa.Schema] = {
    Source: SOURCE_SCHEMA,
    Clip: CLIP_SCHEMA,
    Shard: SHARD_SCHEMA,
}


def to_row(record: Source | Clip | Shard) -> dict[str, Any]:
    """The record as column values (shallow: lists are shared, not copied)."""
    return {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}


def from_row(kind: type[Row], row: Mapping[str, Any]) -> Row:
    return kind(**{f.name: row[f.name] for f in dataclasses.fields(kind) if f.name in row})


def to_table(kind: type[Row], records: Iterable[Row]) -> pa.Table:
    """An Arrow table in the contract's schema, in the order given."""
    import numpy as np

    rows = [to_row(r) for r in records]
    if kind is Clip:
        for row in rows:
            if row["embedding"] is not None:
                row["embedding"] = np.asarray(row["embedding"], dtype=np.float16)
    return pa.Table.from_pylist(rows, schema=SCHEMA_OF[kind])


def from_table(kind: type[Row], table: pa.Table) -> list[Row]:
    return [from_row(kind, row) for row in table.to_pylist()]
