"""report.html: what curation did, on one page that needs nothing but itself.

The page is a view of the rows: every number on it is counted from sources and clips. Strings
that came with the footage (file names, captions) are escaped by the template, and a content
policy in the page forbids it to load or run anything.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pipelines.config import to_plain
from pipelines.curation.report_charts import Histogram, histogram
from pipelines.curation.report_facts import (
    ReportFacts,
    TimedRow,
    cuts_in_words,
    duration_in_words,
    file_name,
    name_of,
    reasons_of,
)
from pipelines.curation.report_pictures import (
    dropped_sheets,
    kept_sheet,
    players_of,
    timelines,
)
from pipelines.curation.rights.counts import license_rows
from pipelines.curation.rights.stated import NOT_STATED
from pipelines.records import REASONS, Clip, Source

PAGE_FOLDER = Path(__file__).parent / "report_page"
TIMELINES_SHOWN, SLOWEST_SHOWN, FILES_NAMED = 60, 8, 6

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
    ("nsfw", "Nudity", "score"),
)


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
    names = {s.source_id: name_of(s) for s in facts.sources}
    kept = [c for c in facts.clips if c.verdict == "kept"]
    lines = timelines(facts)
    return {
        "headline": _headline(kept, facts.sources),
        "digest": facts.digest,
        "config_hash": facts.config_hash,
        "tiles": _tiles(facts, kept),
        "warning": _warning(facts, kept),
        "funnel": _funnel(facts),
        "cuts": cuts_in_words(facts.cut_counts),
        "players": players_of(facts, kept, names),
        "timelines": lines[:TIMELINES_SHOWN],
        "timelines_left_out": max(len(lines) - TIMELINES_SHOWN, 0),
        "histograms": _histograms(facts),
        "kept_sheet": kept_sheet(facts, kept, names),
        "dropped_sheets": dropped_sheets(facts, names),
        "licenses": _licenses(facts),
        "failed_files": _failed_files(facts.sources),
        "stage_times": [_timed(row) for row in facts.stage_times],
        "slowest": [_timed(row) for row in facts.slowest[:SLOWEST_SHOWN]],
        "config_text": yaml.safe_dump(to_plain(facts.config), sort_keys=False),
    }


# --- numbers ---------------------------------------------------------------------------------


def _headline(kept: Sequence[Clip], sources: Sequence[Source]) -> str:
    media = sum(s.status == "ok" for s in sources)
    return f"{len(kept)} clips kept from {media} {'file' if media == 1 else 'files'}"


def _tiles(facts: ReportFacts, kept: Sequence[Clip]) -> list[dict[str, Any]]:
    footage_s = sum(s.duration_s or 0.0 for s in facts.sources if s.status == "ok")
    kept_s = sum(c.duration_s for c in kept if c.kind == "video")
    refused = sum(s.status != "ok" and s.reason != "sidecar" for s in facts.sources)
    tiers = Counter(tier for c in kept for tier in c.tiers)
    values = [
        (duration_in_words(footage_s), "of footage", False),
        (f"{len(facts.clips)}", "shots and pictures found", False),
        (f"{len(kept)}", f"kept, {duration_in_words(kept_s)}", True),
        (f"{tiers['high_res']}", "high resolution", False),
        (f"{tiers['premium']}", "premium", False),
        (f"{refused}", "files refused", False),
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


def _licenses(facts: ReportFacts) -> list[dict[str, Any]]:
    """Empty where nobody stated a licence and none was refused: there is nothing to tell apart."""
    rows = license_rows(facts.sources, facts.clips)
    if all(row.license == NOT_STATED and not row.refused for row in rows):
        return []
    return [{**vars(row), "kept": duration_in_words(row.kept_s)} for row in rows]


def _failed_files(sources: Sequence[Source]) -> list[dict[str, Any]]:
    files: dict[str, list[str]] = defaultdict(list)
    for source in sources:
        if source.status != "ok":
            files[source.reason or "unknown"] += [file_name(uri) for uri in source.uris]
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
