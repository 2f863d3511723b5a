"""report.html: what curation did, on one page that needs nothing but itself.

The page is a view of the rows: every number on it is counted from sources and clips, where they
lie. Strings that came with the footage (file names, captions) are escaped by the template, and a
content policy in the page forbids it to load or run anything.
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
    count_kept,
    cuts_in_words,
    duration_in_words,
    reasons_of,
)
from pipelines.curation.report_pictures import (
    dropped_sheets,
    kept_sheet,
    players_of,
    timelines,
)
from pipelines.curation.report_rows import ReportRows, Share
from pipelines.curation.rights.counts import license_table
from pipelines.curation.rights.stated import NOT_STATED
from pipelines.records import REASONS

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
    lines = timelines(facts.rows, TIMELINES_SHOWN)
    return {
        "headline": _headline(facts),
        "digest": facts.digest,
        "config_hash": facts.config_hash,
        "tiles": _tiles(facts),
        "warning": _warning(facts),
        "funnel": _funnel(facts),
        "cuts": cuts_in_words(facts.cut_counts),
        "players": players_of(facts),
        "timelines": lines,
        "timelines_left_out": facts.rows.count_films() - len(lines),
        "histograms": _histograms(facts),
        "kept_sheet": kept_sheet(facts),
        "dropped_sheets": dropped_sheets(facts),
        "licenses": _licenses(facts.rows),
        "failed_files": _failed_files(facts.rows),
        "stage_times": [_timed(row) for row in facts.stage_times],
        "slowest": [_timed(row) for row in facts.slowest[:SLOWEST_SHOWN]],
        "config_text": yaml.safe_dump(to_plain(facts.config), sort_keys=False),
    }


# --- numbers ---------------------------------------------------------------------------------


def _headline(facts: ReportFacts) -> str:
    media = sum(f.files for f in facts.rows.files if f.status == "ok")
    return f"{count_kept(facts.rows)} clips kept from {media} {'file' if media == 1 else 'files'}"


def _tiles(facts: ReportFacts) -> list[dict[str, Any]]:
    shares, files = facts.rows.shares, facts.rows.files
    footage_s = sum(f.seconds for f in files if f.status == "ok")
    kept_s = sum(s.seconds for s in shares if s.verdict == "kept" and s.kind == "video")
    refused = sum(f.files for f in files if f.status != "ok" and f.reason != "sidecar")
    tiers = facts.rows.tiers()
    values = [
        (duration_in_words(footage_s), "of footage", False),
        (f"{sum(s.clips for s in shares)}", "shots and pictures found", False),
        (f"{count_kept(facts.rows)}", f"kept, {duration_in_words(kept_s)}", True),
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


def _warning(facts: ReportFacts) -> str:
    if count_kept(facts.rows):
        return ""
    why = ", ".join(f"{reason} {count}" for reason, count in reasons_of(facts.rows.shares))
    return f"Nothing was kept. Reasons: {why or 'no clip was found in any file'}."


def _funnel(facts: ReportFacts) -> list[dict[str, Any]]:
    shares = facts.rows.shares
    lost: dict[str, list[Share]] = defaultdict(list)
    for share in shares:
        if share.verdict == "dropped":
            lost[share.stage].append(share)
    left, left_s = sum(s.clips for s in shares), sum(s.seconds for s in shares)
    total = max(left, 1)
    steps = [_step("Found", left, left_s, [], total)]
    last = [(stage, stage) for stage in sorted(lost.keys() - {name for name, _ in facts.stages})]
    for stage, title in (*facts.stages, *last):
        gone = lost.get(stage, [])
        left, left_s = left - sum(s.clips for s in gone), left_s - sum(s.seconds for s in gone)
        steps.append(_step(title, left, left_s, gone, total))
    return steps


def _step(
    title: str, left: int, left_s: float, lost: Sequence[Share], total: int
) -> dict[str, Any]:
    reasons = ", ".join(f"{reason} {count}" for reason, count in reasons_of(lost))
    gone = sum(share.clips for share in lost)
    return {
        "title": title,
        "clips": left,
        "duration": duration_in_words(max(left_s, 0.0)),
        "gone": gone,
        "left_percent": 100 * left / total,
        "gone_percent": 100 * gone / total,
        "gone_text": f"−{gone}: {reasons}" if gone else "",
    }


def _histograms(facts: ReportFacts) -> list[Histogram]:
    charts = (
        histogram(title, unit, *facts.rows.values(column), facts.limits.get(column, ()))
        for column, title, unit in SCORES
    )
    return [chart for chart in charts if chart is not None]


def _licenses(rows: ReportRows) -> list[dict[str, Any]]:
    """Empty where nobody stated a licence and none was refused: there is nothing to tell apart."""
    watched: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for files in rows.files:
        name = files.license or NOT_STATED
        if files.status == "ok":
            watched[name] += files.files
        if files.reason == "licence_refused":
            refused[name] += files.files
    kept = {row["license"] or NOT_STATED: row for row in rows.kept_by_license()}
    found = license_table(
        watched,
        refused,
        {name: row["clips"] for name, row in kept.items()},
        {name: row["seconds"] for name, row in kept.items()},
    )
    if all(row.license == NOT_STATED and not row.refused for row in found):
        return []
    return [{**vars(row), "kept": duration_in_words(row.kept_s)} for row in found]


def _failed_files(rows: ReportRows) -> list[dict[str, Any]]:
    return [
        {
            "reason": row["reason"],
            "meaning": REASONS.get(row["reason"], row["reason"]),
            "count": row["files"],
            "files": ", ".join(row["names"])
            + (f" and {row['files'] - FILES_NAMED} more" if row["files"] > FILES_NAMED else ""),
        }
        for row in rows.failed_files(FILES_NAMED)
    ]


def _timed(row: TimedRow) -> dict[str, str]:
    return {"title": row.title, "seconds": f"{row.seconds:.1f}", "note": row.note}
