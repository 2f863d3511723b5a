"""The tables of a trace page about a source or a clip."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.lineage.page.future import clips_in, decisions, reports_in
from pipelines.lineage.page.tables import Cell, Columns, Row, Table, meaning_of, row, table_of
from pipelines.lineage.trace import last_clean_steps

Report = Mapping[str, Any]

#: Column of a clip, title: shown where a report says no decisions.
SCORES = (
    ("single_shot", "Single shot"),
    ("motion", "Motion, frame widths/s"),
    ("sharpness", "Sharpness"),
    ("brightness", "Brightness, levels of 255"),
    ("contrast", "Contrast, levels of 255"),
    ("flashes", "Flashes per second"),
    ("text_area", "Overlay text, share of the picture"),
    ("subject_area", "Subject, share of the picture"),
    ("aesthetic", "Aesthetic score"),
    ("temporal_consistency", "Steadiness over time, cosine"),
    ("clip_score", "Caption matches picture, cosine"),
    ("nsfw", "Nudity"),
)


def tables(report: Report) -> list[Table]:
    reports = reports_in(report)
    return [
        *_sources(reports),
        *_scores(report),
        _clips(reports),
        _datasets(reports),
        *_shards(reports),
        *_latents(reports),
        _checkpoints(reports),
        *_clean(reports),
        *_videos(reports),
    ]


def _sources(reports: list[Report]) -> Iterator[Table]:
    rows = [
        row(dataset["source"]["uris"], s["status"], meaning_of(s["reason"]),
            s["license"] or "not stated", s["consent"], s["duration_s"], one["source_id"])
        for one in reports
        if "clip_id" not in one
        for dataset in one["datasets"]
        for s in [dataset["source"]]
    ]  # fmt: skip
    columns: Columns = (("files", "path"), ("status", "text"), ("why", "text"), ("licence", "text"))
    more: Columns = (("consent", "text"), ("seconds", "num"), ("source", "mono"))
    unique = dict.fromkeys(rows)
    if unique:
        yield table_of("sources", "The source", (*columns, *more), unique)


def _scores(report: Report) -> Iterator[Table]:
    if "clip_id" not in report or decisions(report):
        return
    clip = report["datasets"][-1]["row"]
    rows = [row(title, clip[name]) for name, title in SCORES if clip.get(name) is not None]
    yield table_of("scores", "Scores", (("of", "text"), ("value", "num")), rows)


def _clips(reports: list[Report]) -> Table:
    columns: Columns = (("seconds", "num"), ("verdict", "tag"), ("why", "text"), ("tiers", "text"),
               ("shard", "mono"), ("times seen", "text"), ("first step", "num"),
               ("licence", "text"), ("caption", "path"), ("clip", "mono"))  # fmt: skip
    rows: dict[tuple[Cell, ...], Row] = {}
    anchored: set[str] = set()
    for one in reports:
        seen = _seen(one)
        for _, clip in clips_in(one):
            clip_id = clip["clip_id"]
            times, first = seen.get(clip_id, (None, None))
            why = meaning_of(clip["reason"])
            span = f"{clip['start_s'] or 0:.2f} to {clip['end_s'] or 0:.2f}"
            made = row(span, clip["verdict"], why, clip["tiers"], clip["shard"], times, first,
                       clip["license"] or "not stated", clip["caption"], clip_id[:12],
                       anchor="" if clip_id in anchored else f"clip-{clip_id}",
                       state=clip["verdict"])  # fmt: skip
            if made.cells not in rows:
                rows[made.cells] = made
                anchored.add(clip_id)
    lead = "Times seen: in the whole of each training, by its newest checkpoint."
    return table_of("clips", "Clips, kept and dropped", columns, rows.values(), lead)


def _seen(report: Report) -> dict[str, tuple[str, int]]:
    """(times by each training, first step of all) of each clip: a training's newest checkpoint
    counts what its whole training saw."""
    newest: dict[str, Any] = {}
    for checkpoint in sorted(report["checkpoints"], key=lambda c: (c["step"], c["uri"])):
        newest[checkpoint["uri"].rpartition("/")[0]] = checkpoint
    times: dict[str, dict[str, int]] = {}
    first: dict[str, int] = {}
    for checkpoint in newest.values():
        for clip in checkpoint["clips"]:
            seen = times.setdefault(clip["clip_id"], {})
            seen[checkpoint["stage"]] = max(seen.get(checkpoint["stage"], 0), clip["times"])
            before = first.get(clip["clip_id"], clip["first_step"])
            first[clip["clip_id"]] = min(before, clip["first_step"])
    return {
        clip_id: (", ".join(f"{stage} {n}" for stage, n in sorted(seen.items())), first[clip_id])
        for clip_id, seen in times.items()
    }


def _datasets(reports: list[Report]) -> Table:
    rows: dict[str, Row] = {}
    for one in reports:
        for dataset in one["datasets"]:
            clips = [clip for _, clip in clips_in({**one, "datasets": [dataset]})]
            kept = sum(clip["verdict"] == "kept" for clip in clips)
            made = row(dataset["uri"], dataset["digest"], len(clips), kept)
            rows[f"{one.get('source_id')} {dataset['uri']}"] = made
    columns: Columns = (
        ("where", "path"),
        ("digest", "mono"),
        ("clips of it", "num"),
        ("kept", "num"),
    )
    return table_of("datasets", "Datasets", columns, rows.values())


def _shards(reports: list[Report]) -> Iterator[Table]:
    held: dict[tuple[str, str], int] = {}
    for one in reports:
        for dataset, clip in clips_in(one):
            if clip["shard"]:
                place = (dataset["uri"], clip["shard"])
                held[place] = held.get(place, 0) + 1
    rows = [row(shard, count, uri) for (uri, shard), count in sorted(held.items())]
    if rows:
        columns: Columns = (("shard", "mono"), ("clips of it", "num"), ("dataset", "path"))
        yield table_of("shards", "Shards", columns, rows)


def _latents(reports: list[Report]) -> Iterator[Table]:
    rows = [
        row(latents["stage"], len(latents["clips"]), latents["digest"], latents["uri"])
        for one in reports
        for latents in one["latents"]
    ]
    if rows:
        columns: Columns = (
            ("stage", "text"),
            ("clips of it", "num"),
            ("digest", "mono"),
            ("where", "path"),
        )
        yield table_of("latents", "Latents", columns, rows)


def _checkpoints(reports: list[Report]) -> Table:
    columns: Columns = (("stage", "text"), ("step", "num"), ("clips seen", "num"), ("times", "num"),
               ("first step", "num"), ("through its base", "text"), ("digest", "mono"),
               ("where", "path"))  # fmt: skip
    rows = [
        row(c["stage"], c["step"], len(c["clips"]), sum(clip["times"] for clip in c["clips"]),
            min((clip["first_step"] for clip in c["clips"]), default=None),
            bool(c["through_base"]), c["digest"][:12], c["uri"], state="tainted")
        for one in reports
        for c in one["checkpoints"]
    ]  # fmt: skip
    lead = "Counted from the ledgers that training wrote; nothing is estimated."
    if not rows:
        lead = "No checkpoint that can be found has seen it."
    return table_of("checkpoints", "Checkpoints that saw it", columns, rows, lead)


def _clean(reports: list[Report]) -> Iterator[Table]:
    rows = [
        row("none" if step is None else step, folder)
        for one in reports
        for folder, step in last_clean_steps(one["checkpoints"], one["clean_checkpoints"]).items()
    ]
    if rows:
        lead = "Where each training could go on from, had it to be without."
        columns: Columns = (("step", "num"), ("training", "path"))
        yield table_of("clean", "Last clean checkpoint", columns, rows, lead)


def _videos(reports: list[Report]) -> Iterator[Table]:
    videos = {video["uri"]: video for one in reports for video in one["videos"]}
    rows = [row(uri, video.get("copies", [])) for uri, video in videos.items()]
    if rows:
        columns: Columns = (("where", "path"), ("copies", "path"))
        yield table_of("videos", "Videos made by those checkpoints", columns, rows)
