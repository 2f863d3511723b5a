"""The report's contact sheets, players and timelines."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipelines.curation.report_facts import ReportFacts, count_kept, name_of, reasons_of
from pipelines.curation.report_rows import ReportRows
from pipelines.records import REASONS, Clip

KEPT_SHOWN, DROPPED_SHOWN_EACH = 48, 12
PLAYERS_SHOWN, PLAYER_MAX_BYTES, PLAYERS_MAX_BYTES = 6, 1 << 20, 4 << 20
PLAYERS_TRIED = 60  # of very large ones the page does without
FRAME_WIDTH_PX, FRAMES_IN_STRIP = 168, 3


@dataclass(frozen=True)
class Shot:
    title: str
    detail: str
    tags: Sequence[str]
    kept: bool
    frames: Sequence[str] = ()
    media: str = ""


@dataclass(frozen=True)
class Sheet:
    title: str
    note: str
    shots: Sequence[Shot] = field(default_factory=tuple)


def timelines(rows: ReportRows, count: int) -> list[dict[str, Any]]:
    """The first films by name."""
    lines = []
    for source, found in rows.first_films(count):
        whole_s = sum(c.duration_s for c in found)
        kept = sum(c.verdict == "kept" for c in found)
        lines.append(
            {
                "name": name_of(source),
                "path": ", ".join(source.uris),
                "figure": f"{kept} of {len(found)}",
                "shots": [
                    {
                        "kept": c.verdict == "kept",
                        "weight": max(c.duration_s / whole_s, 1e-4),
                        "label": f"{_span(c)} {_verdict(c)}",
                    }
                    for c in found
                ],
            }
        )
    return lines


def kept_sheet(facts: ReportFacts) -> Sheet:
    chosen = facts.rows.some_kept(KEPT_SHOWN)
    names = facts.rows.names(c.source_id for c in chosen)
    shots = [_shot(facts, c, names, c.tiers, c.caption or "") for c in chosen]
    return Sheet("Kept", _some(len(chosen), count_kept(facts.rows)), shots)


def dropped_sheets(facts: ReportFacts) -> list[Sheet]:
    sheets = []
    for reason, count in reasons_of(facts.rows.shares):
        chosen = facts.rows.some_dropped(reason, DROPPED_SHOWN_EACH)
        names = facts.rows.names(c.source_id for c in chosen)
        shots = [_shot(facts, c, names, [reason], c.caption or "") for c in chosen]
        sheets.append(Sheet(REASONS.get(reason, reason), _some(len(chosen), count), shots))
    return sheets


def _some(shown: int, whole: int) -> str:
    return f"{shown} of {whole}" if shown < whole else f"all {whole}"


def _shot(
    facts: ReportFacts, clip: Clip, names: Mapping[str, str], tags: Sequence[str], title: str
) -> Shot:
    frames = list(facts.frames_of(clip))
    wanted = min(FRAMES_IN_STRIP, len(frames)) if clip.kind == "video" else min(1, len(frames))
    strip = [frames[round((i + 0.5) * len(frames) / wanted - 0.5)] for i in range(wanted)]
    small = [base64.b64encode(_thumbnail(frame)).decode() for frame in strip]
    return Shot(title, _detail(clip, names), tags, clip.verdict == "kept", small)


def _thumbnail(jpeg: bytes) -> bytes:
    from PIL import Image

    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    picture.thumbnail((FRAME_WIDTH_PX, FRAME_WIDTH_PX))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=72, optimize=True)
    return buffer.getvalue()


def players_of(facts: ReportFacts) -> list[dict[str, Any]]:
    """A few clips, the best tiers first, small enough that the page stays light."""
    ranked = facts.rows.best_videos(PLAYERS_TRIED)
    names = facts.rows.names(c.source_id for c in ranked)
    players: list[dict[str, Any]] = []
    room_bytes = PLAYERS_MAX_BYTES
    for clip in ranked:
        if len(players) == PLAYERS_SHOWN:
            break
        media = facts.media_of(clip)
        if len(media) <= min(PLAYER_MAX_BYTES, room_bytes):
            room_bytes -= len(media)
            players.append(
                {
                    "media": base64.b64encode(media).decode(),
                    "tags": clip.tiers,
                    "title": clip.caption or "",
                    "detail": _detail(clip, names),
                }
            )
    return players


def _detail(clip: Clip, names: Mapping[str, str]) -> str:
    place = f"{names.get(clip.source_id, '')} {_span(clip)}"
    size = f"{clip.crop_w_px}x{clip.crop_h_px}"
    scores = [("motion", clip.motion), ("score", clip.clip_score)]
    shown = [f"{name} {value:.2f}" for name, value in scores if value is not None]
    return ", ".join([place, size, *shown])


def _verdict(clip: Clip) -> str:
    return clip.caption or "kept" if clip.verdict == "kept" else f"dropped: {clip.reason}"


def _span(clip: Clip) -> str:
    if clip.kind != "video":
        return "(picture)"
    return f"{_clock(clip.start_s)}–{_clock(clip.end_s)}"


def _clock(seconds: float) -> str:
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}"
