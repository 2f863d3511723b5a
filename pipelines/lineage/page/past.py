"""The words and tables of a trace page about a checkpoint, a video, a dataset, or two datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.lineage.page.graph import counts_in_words, file_name, source_name
from pipelines.lineage.page.tables import (
    STRIPS_SHOWN,
    Cell,
    Columns,
    Fact,
    Strip,
    Strips,
    Table,
    meaning_of,
    row,
    strip_of,
    table_of,
)

Report = Mapping[str, Any]
LEGEND = (("kept", "learned from"),)
NAMED_ABOVE = ("prompt", "short_prompt", "seed")


# --- in words --------------------------------------------------------------------------------


def headline(report: Report) -> str:
    if "before" in report:
        counts = [f"{len(report[name]):,} {name}" for name in ("added", "removed", "changed")]
        return f"Between the two versions: {', '.join(counts)} clips."
    if "parent_digest" in report:
        return _dataset_headline(report)
    if "made_with" in report:
        return _video_headline(report)
    return _checkpoint_headline(report)


def _checkpoint_headline(report: Report) -> str:
    first, *bases = report["stages"]
    said = f"The {first['stage']} checkpoint at step {first['step']:,} {_learned(first)}"
    if bases:
        grown = [f"the {b['stage']} one at step {b['step']:,}, which {_learned(b)}" for b in bases]
        said += f"; it grew from {', from '.join(grown)}"
    if report["base_not_found"]:
        said += "; the base it grew from was not found"
    return said + "."


def _learned(stage: Report) -> str:
    clips = counts_in_words({"clips": stage["clips_seen"]})
    sources = counts_in_words({"sources": sources_seen(stage)})
    return f"learned from {clips} of {sources}, {_times(stage['samples_seen'])}"


def sources_seen(stage: Report) -> int:
    """A report may list only the sources that were seen most."""
    return int(stage.get("sources_seen", len(stage["sources"])))


def _times(count: int) -> str:
    return counts_in_words({"times": count})


def _video_headline(report: Report) -> str:
    stages = {stage["digest"]: stage for stage in report["stages"]}
    made = []
    for role, reference in report["checkpoints"].items():
        stage = stages.get(reference["digest"])
        where = f"step {stage['step']:,}" if stage else "which was not found"
        made.append(f"the {role} checkpoint ({where})")
    return f"{file_name(report['uri'])} was made by {' and '.join(made)}."


def _dataset_headline(report: Report) -> str:
    found = counts_in_words({"clips": report["clips"]})
    sources = counts_in_words({"sources": report["sources"]})
    said = f"{file_name(report['uri'])} keeps {report['kept']:,} of {found} from {sources}"
    number = len(report["checkpoints"])
    learned = counts_in_words({"checkpoints": number}) if number else "no checkpoint"
    return f"{said}; {learned} learned from it."


def facts(report: Report) -> list[Fact]:
    if "before" in report:
        return [
            Fact("before", report["before"][:12]),
            Fact("after", report["after"][:12]),
            *(Fact(name, f"{len(report[name]):,}") for name in ("added", "removed", "changed")),
        ]
    if "parent_digest" in report:
        return [
            Fact("kept", f"{report['kept']:,}", strong=True),
            Fact("dropped", f"{report['dropped']:,}"),
            Fact("sources", f"{report['sources']:,}"),
            Fact("taken down", f"{report['taken_down']:,}"),
            Fact("checkpoints learned from it", f"{len(report['checkpoints']):,}"),
        ]
    licenses = {name for stage in report["stages"] for name in stage["licenses"]}
    counted = [
        Fact(f"sources, {stage['stage']}", f"{sources_seen(stage):,}", strong=True)
        for stage in report["stages"]
    ]
    samples = [
        Fact(f"samples seen, {stage['stage']}", f"{stage['samples_seen']:,}")
        for stage in report["stages"]
    ]
    return [
        *counted,
        *samples,
        Fact("licences", ", ".join(sorted(licenses)) or "–"),
    ]


def prompt(report: Report) -> list[Fact]:
    """What a video was asked for; [] for anything else."""
    made_with = report.get("made_with") or {}
    names = {"prompt": "Prompt", "short_prompt": "Short prompt", "seed": "Seed"}
    return [Fact(names[n], str(made_with[n])) for n in NAMED_ABOVE if made_with.get(n) is not None]


# --- tables ----------------------------------------------------------------------------------


def strips(report: Report) -> Strips | None:
    """Which parts of each source were learned from: the most seen sources first."""
    spans: dict[str, dict[tuple[float, float], str]] = {}
    named: dict[str, tuple[str, str, float]] = {}
    for stage in report.get("stages", []):
        for source in stage["sources"]:
            if not source["spans_s"]:
                continue
            name = source_name(source["uris"], source["source_id"])
            length = float(source.get("duration_s") or 0.0)
            named.setdefault(source["source_id"], (name, str(source["uris"]), length))
            of_source = spans.setdefault(source["source_id"], {})
            for start, end in source["spans_s"]:
                said = of_source.get((start, end))
                of_source[start, end] = f"{said}, {stage['stage']}" if said else stage["stage"]
    drawn: list[Strip] = []
    for source_id, (name, path, length) in list(named.items())[:STRIPS_SHOWN]:
        found = [
            (start, end, "kept", f"{start:.2f} to {end:.2f} s: {said}", "")
            for (start, end), said in sorted(spans[source_id].items())
            if end > start
        ]
        if found:
            drawn.append(strip_of(name, path, found, length))
    if not drawn:
        return None
    lead = "Parts of each source that were seen, the most seen source first."
    most = max((sources_seen(stage) for stage in report["stages"]), default=0)
    return Strips(lead, LEGEND, tuple(drawn), max(len(named), most) > STRIPS_SHOWN)


def tables(report: Report) -> list[Table]:
    if "before" in report:
        return _difference(report)
    if "parent_digest" in report:
        return _dataset(report)
    made = [_settings(report)] if "made_with" in report else []
    return [*made, _checkpoints(report), _licenses(report), _sources(report), *_from(report)]


def _settings(report: Report) -> Table:
    made_with = {k: v for k, v in sorted(report["made_with"].items()) if k not in NAMED_ABOVE}
    rows = [
        row(name, json.dumps(value, sort_keys=True) if isinstance(value, dict) else value)
        for name, value in made_with.items()
    ]
    columns: Columns = (("setting", "mono"), ("value", "path"))
    return table_of("videos", "How the video was made", columns, rows, report["uri"])


def _checkpoints(report: Report) -> Table:
    columns: Columns = (
        ("stage", "text"), ("step", "num"), ("clips seen", "num"), ("samples seen", "num"),
        ("claimed", "num"), ("steps counted", "text"), ("digest", "mono"), ("where", "path"),
    )  # fmt: skip
    rows = [
        row(s["stage"], s["step"], s["clips_seen"], s["samples_seen"], s["samples_claimed"],
            ", ".join(map(str, s["history"])) + ("" if s["history_complete"] else " and earlier "
            "ones, not found"), s["digest"][:12], s["uri"])
        for s in report["stages"]
    ]  # fmt: skip
    known = {stage["digest"] for stage in report["stages"]}
    named: dict[str, Any] = {"base": report.get("base_not_found"), **report.get("checkpoints", {})}
    for role, reference in named.items():
        if reference and reference["digest"] not in known:
            where = f"not found here ({reference.get('uri') or 'place unknown'})"
            rows.append(row(role, None, None, None, None, None, reference["digest"][:12], where))
    lead = "Samples seen are summed over the training's ledgers; claimed is what it says itself."
    return table_of("checkpoints", "Checkpoints", columns, rows, lead)


def _licenses(report: Report) -> Table:
    rows = [
        row(name, count, stage["stage"])
        for stage in report["stages"]
        for name, count in sorted(stage["licenses"].items())
    ]
    columns: Columns = (("licence", "text"), ("sources", "num"), ("stage", "text"))
    return table_of("licenses", "Licences", columns, rows)


def _sources(report: Report) -> Table:
    columns: Columns = (("file", "path"), ("stage", "text"), ("clips", "num"), ("times", "num"),
               ("first step", "num"), ("licence", "text"), ("consent", "text"),
               ("seconds", "path"), ("source", "mono"))  # fmt: skip
    rows = [
        row(Cell(source_name(s["uris"], s["source_id"])), stage["stage"], s["clips"], s["times"],
            s["first_step"], s["license"] or "not stated", s["consent"], _spans(s["spans_s"]),
            s["source_id"][:12])
        for stage in report["stages"]
        for s in stage["sources"]
    ]  # fmt: skip
    seen = sum(sources_seen(stage) for stage in report["stages"])
    return table_of("sources", "Sources it learned from", columns, rows, of=seen)


def _spans(spans_s: list[list[float]] | None) -> str:
    shown = [
        f"{start:.1f}–{end:.1f}" if end > start else "picture" for start, end in (spans_s or [])[:4]
    ]
    more = len(spans_s or []) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more > 0 else "") or "–"


def _from(report: Report) -> Iterator[Table]:
    columns: Columns = (("stage", "text"), ("digest", "mono"), ("where", "path"))
    for name, title in (("dataset", "Datasets"), ("latents", "Latents")):
        rows = []
        for stage in report["stages"]:
            reference = stage[name] or {}
            uri = str(reference.get("uri") or "–")
            if name == "dataset":
                uri = stage["dataset_found"] or f"{uri} (not found: files are not named)"
            rows.append(row(stage["stage"], reference.get("digest"), uri))
        anchor = "datasets" if name == "dataset" else "latents"
        yield table_of(anchor, title, columns, rows)


def _dataset(report: Report) -> list[Table]:
    counted: Columns = (("name", "text"), ("clips", "num"))
    reasons = [row(meaning_of(n), c) for n, c in _most_first(report["reasons"])]
    licenses = [row(*pair) for pair in _most_first(report["licenses"])]
    made = [
        table_of(
            "datasets",
            "The dataset",
            (("where", "path"), ("digest", "mono"), ("made from", "mono")),
            [row(report["uri"], report["digest"], report["parent_digest"])],
        ),
        table_of("clips", "Why clips were dropped", counted, reasons),
        table_of("tiers", "Tiers", counted, [row(*p) for p in _most_first(report["tiers"])]),
        table_of("licenses", "Licences", counted, licenses),
    ]
    columns: Columns = (("stage", "text"), ("digest", "mono"), ("where", "path"))
    latents = [row(r["stage"], r["digest"], r["uri"]) for r in report["latents"]]
    made.append(table_of("latents", "Latents made from it", columns, latents))
    steps: Columns = (("stage", "text"), ("step", "num"), ("digest", "mono"), ("where", "path"))
    rows = [row(r["stage"], r["step"], r["digest"], r["uri"]) for r in report["checkpoints"]]
    made.append(table_of("checkpoints", "Checkpoints that learned from it", steps, rows))
    return made


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))


def _difference(report: Report) -> list[Table]:
    columns: Columns = (("clip", "mono"), ("source", "mono"), ("why", "text"))
    return [
        table_of(
            "clips" if name == "removed" else name,
            f"{name.capitalize()}: {len(report[name]):,}",
            columns,
            [
                row(r["clip_id"], r["source_id"], r["why"], anchor=f"clip-{r['clip_id']}")
                for r in report[name]
            ],
        )
        for name in ("removed", "added", "changed")
    ]
