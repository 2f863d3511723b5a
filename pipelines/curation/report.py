"""report.html: what curation did, on one page that needs nothing but itself.

The page is a view of the rows: every number on it is counted from sources and clips. Strings
that came with the footage (file names, captions) are escaped by the template, and a content
policy in the page forbids it to load or run anything.
"""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipelines.config import to_plain
from pipelines.curation.report_charts import Histogram, histogram
from pipelines.curation.shards import shuffle_key
from pipelines.progress import in_words
from pipelines.records import REASONS, Clip, Source

PAGE_FOLDER = Path(__file__).parent / "report_page"
KEPT_SHOWN, DROPPED_SHOWN_EACH, TIMELINES_SHOWN, SLOWEST_SHOWN, FILES_NAMED = 48, 12, 60, 8, 6
PLAYERS_SHOWN, PLAYER_MAX_BYTES, PLAYERS_MAX_BYTES = 6, 1 << 20, 4 << 20
FRAME_WIDTH_PX, FRAMES_IN_STRIP = 168, 3

#: Column, title, unit of every score that is drawn.
SCORES = (
    ("duration_s", "Duration", "s"),
    ("crop_h_px", "Height inside borders", "px"),
    ("motion", "Motion", "frame widths/s"),
    ("single_shot", "Single shot", "score"),
    ("sharpness", "Sharpness", "steepness of edges"),
    ("brightness", "Brightness", "levels of 255"),
    ("contrast", "Contrast", "levels of 255"),
    ("flashes", "Flashes", "per second"),
    ("text_area", "Overlay text", "share of the picture"),
    ("clip_score", "Caption matches picture", "cosine"),
    ("temporal_consistency", "Steadiness over time", "cosine"),
    ("aesthetic", "Aesthetic score", ""),
    ("subject_area", "Subject", "share of the picture"),
)


@dataclass(frozen=True)
class TimedRow:
    """A line of a table of times."""

    title: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class ReportFacts:
    """Everything the page shows. `frames_of` and `media_of` give JPEG frames and cut media."""

    digest: str
    config: Any
    config_hash: str
    sources: Sequence[Source]
    clips: Sequence[Clip]
    num_shards: int
    shard_bytes: int
    stages: Sequence[tuple[str, str]]
    limits: Mapping[str, Sequence[float]]
    stage_times: Sequence[TimedRow]
    slowest: Sequence[TimedRow]
    frames_of: Callable[[Clip], Sequence[bytes]]
    media_of: Callable[[Clip], bytes]


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


def render_report(facts: ReportFacts) -> str:
    """The whole page as HTML text."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((PAGE_FOLDER / "style.css").read_text())
    return environment.get_template("page.html.j2").render(page=page_of(facts), style=style)


def page_of(facts: ReportFacts) -> dict[str, Any]:
    """The template's values."""
    names = {s.source_id: _name_of(s) for s in facts.sources}
    kept = [c for c in facts.clips if c.verdict == "kept"]
    timelines = _timelines(facts)
    return {
        "headline": _headline(kept, facts.sources),
        "digest": facts.digest,
        "config_hash": facts.config_hash,
        "tiles": _tiles(facts, kept),
        "warning": _warning(facts, kept),
        "funnel": _funnel(facts),
        "players": _players(facts, kept, names),
        "timelines": timelines[:TIMELINES_SHOWN],
        "timelines_left_out": max(len(timelines) - TIMELINES_SHOWN, 0),
        "histograms": _histograms(facts),
        "kept_sheet": _kept_sheet(facts, kept, names),
        "dropped_sheets": _dropped_sheets(facts, names),
        "failed_files": _failed_files(facts.sources),
        "stage_times": [_timed(row) for row in facts.stage_times],
        "slowest": [_timed(row) for row in facts.slowest[:SLOWEST_SHOWN]],
        "config_text": yaml.safe_dump(to_plain(facts.config), sort_keys=False),
    }


# --- numbers ---------------------------------------------------------------------------------


def reasons_of(clips: Iterable[Clip]) -> list[tuple[str, int]]:
    """(reason, clips) of the dropped, most frequent first."""
    counts = Counter(c.reason or "unknown" for c in clips if c.verdict == "dropped")
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def duration_in_words(seconds: float) -> str:
    """`4.2 s` below ten seconds, else as progress lines say it."""
    return f"{seconds:.1f} s" if seconds < 10 else in_words(seconds)


def _headline(kept: Sequence[Clip], sources: Sequence[Source]) -> str:
    media = sum(s.status == "ok" for s in sources)
    return f"{len(kept)} clips kept from {media} {'file' if media == 1 else 'files'}"


def _tiles(facts: ReportFacts, kept: Sequence[Clip]) -> list[dict[str, Any]]:
    footage_s = sum(s.duration_s or 0.0 for s in facts.sources if s.status == "ok")
    kept_s = sum(c.duration_s for c in kept if c.kind == "video")
    failed = sum(s.status != "ok" for s in facts.sources)
    tiers = Counter(tier for c in kept for tier in c.tiers)
    values = [
        (duration_in_words(footage_s), "of footage", False),
        (f"{len(facts.clips)}", "shots and pictures found", False),
        (f"{len(kept)}", f"kept, {duration_in_words(kept_s)}", True),
        (f"{tiers['high_res']}", "high resolution", False),
        (f"{tiers['premium']}", "premium", False),
        (f"{failed}", "files without a clip", False),
        (f"{facts.num_shards}", f"shards, {_size_in_words(facts.shard_bytes)}", False),
    ]
    return [{"value": v, "label": label, "strong": strong} for v, label, strong in values]


def _size_in_words(size_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.3g} {unit}" if size_bytes < 999.5 else f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def _warning(facts: ReportFacts, kept: Sequence[Clip]) -> str:
    if kept:
        return ""
    why = ", ".join(f"{reason} {count}" for reason, count in reasons_of(facts.clips))
    return f"Nothing was kept. Reasons: {why or 'no clip was found in any file'}."


def _funnel(facts: ReportFacts) -> list[dict[str, Any]]:
    lost: dict[str, list[Clip]] = defaultdict(list)
    for clip in facts.clips:
        if clip.verdict == "dropped":
            lost[clip.reason_stage or ""].append(clip)
    total = max(len(facts.clips), 1)
    left, left_s = len(facts.clips), sum(c.duration_s for c in facts.clips)
    steps = [_step("Found", left, left_s, [], total)]
    for stage, title in facts.stages:
        gone = lost.pop(stage, [])
        left, left_s = left - len(gone), left_s - sum(c.duration_s for c in gone)
        steps.append(_step(title, left, left_s, gone, total))
    for stage, gone in sorted(lost.items()):
        left, left_s = left - len(gone), left_s - sum(c.duration_s for c in gone)
        steps.append(_step(stage, left, left_s, gone, total))
    return steps


def _step(title: str, left: int, left_s: float, gone: Sequence[Clip], total: int) -> dict[str, Any]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in reasons_of(gone))
    return {
        "title": title,
        "clips": left,
        "duration": duration_in_words(max(left_s, 0.0)),
        "gone": len(gone),
        "left_percent": 100 * left / total,
        "gone_percent": 100 * len(gone) / total,
        "gone_text": f"−{len(gone)}: {reasons}" if gone else "",
    }


def _histograms(facts: ReportFacts) -> list[Histogram]:
    charts = []
    for column, title, unit in SCORES:
        kept: list[float] = []
        lost: list[float] = []
        for clip in facts.clips:
            value = getattr(clip, column)
            if value is not None and (clip.kind == "video" or column != "duration_s"):
                (kept if clip.verdict == "kept" else lost).append(float(value))
        chart = histogram(title, unit, kept, lost, facts.limits.get(column, ()))
        if chart is not None:
            charts.append(chart)
    return charts


def _failed_files(sources: Sequence[Source]) -> list[dict[str, Any]]:
    files: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        if source.status != "ok":
            files[source.reason or "unknown"] += [_file_name(uri) for uri in source.uris]
    return [
        {
            "reason": reason,
            "meaning": REASONS.get(reason, reason),
            "count": len(names),
            "files": ", ".join(sorted(names)[:FILES_NAMED])
            + (f" and {len(names) - FILES_NAMED} more" if len(names) > FILES_NAMED else ""),
        }
        for reason, names in sorted(files.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _timed(row: TimedRow) -> dict[str, str]:
    return {"title": row.title, "seconds": f"{row.seconds:.1f}", "note": row.note}


# --- pictures --------------------------------------------------------------------------------


def _timelines(facts: ReportFacts) -> list[dict[str, Any]]:
    shots: dict[str, list[Clip]] = defaultdict(list)
    for clip in facts.clips:
        if clip.kind == "video":
            shots[clip.source_id].append(clip)
    lines = []
    for source in sorted(facts.sources, key=lambda s: _name_of(s)):
        found = sorted(shots.get(source.source_id, []), key=lambda c: c.start_frame)
        whole_s = sum(c.duration_s for c in found)
        if whole_s <= 0:
            continue
        kept = sum(c.verdict == "kept" for c in found)
        lines.append(
            {
                "name": _name_of(source),
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


def _kept_sheet(facts: ReportFacts, kept: Sequence[Clip], names: Mapping[str, str]) -> Sheet:
    chosen = _spread(kept, KEPT_SHOWN)
    shots = [_shot(facts, c, names, c.tiers, c.caption or "") for c in chosen]
    return Sheet("Kept", _some(len(chosen), len(kept)), shots)


def _dropped_sheets(facts: ReportFacts, names: Mapping[str, str]) -> list[Sheet]:
    clips: dict[str, list[Clip]] = defaultdict(list)
    for clip in facts.clips:
        if clip.verdict == "dropped":
            clips[clip.reason or "unknown"].append(clip)
    sheets = []
    for reason, count in reasons_of(facts.clips):
        chosen = _spread(clips[reason], DROPPED_SHOWN_EACH)
        shots = [_shot(facts, c, names, [reason], c.caption or "") for c in chosen]
        sheets.append(Sheet(REASONS.get(reason, reason), _some(len(chosen), count), shots))
    return sheets


def _some(shown: int, whole: int) -> str:
    return f"{shown} of {whole}" if shown < whole else f"all {whole}"


def _spread(clips: Sequence[Clip], count: int) -> list[Clip]:
    """A random but repeatable choice, in the films' order."""
    chosen = sorted(clips, key=lambda c: shuffle_key(c.clip_id, 0))[:count]
    return sorted(chosen, key=lambda c: (c.source_id, c.start_frame))


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


def _players(
    facts: ReportFacts, kept: Sequence[Clip], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A few clips, the best tiers first, small enough that the page stays light."""
    videos = [c for c in kept if c.kind == "video"]
    ranked = sorted(videos, key=lambda c: (-len(c.tiers), shuffle_key(c.clip_id, 0)))
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


def _name_of(source: Source) -> str:
    return _file_name(source.uris[0]) if source.uris else source.source_id[:8]


def _file_name(uri: str) -> str:
    return PurePosixPath(uri).name or uri
