"""The words and tables of a trace page about a source or a clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.lineage.page.graph import counts_in_words, source_name, sources_in
from pipelines.lineage.page.tables import (
    STRIPS_SHOWN,
    Decision,
    Fact,
    Strip,
    Strips,
    decision_of,
    meaning_of,
    strip_of,
)

Report = Mapping[str, Any]
LEGEND = (("kept", "kept"), ("dropped", "dropped"))


def reports_in(report: Report) -> list[Report]:
    return [report] if "clip_id" in report else sources_in(report)


def clips_in(report: Report) -> list[tuple[Report, Report]]:
    """(dataset, clip row) over all datasets, in the order of the film."""
    if "clip_id" in report:
        return [(dataset, dataset["row"]) for dataset in report["datasets"]]
    return [
        (dataset, clip)
        for dataset in report["datasets"]
        for clip in sorted(dataset["clips"], key=lambda c: (c["shot_index"], c["clip_id"]))
    ]


# --- in words --------------------------------------------------------------------------------


def headline(report: Report) -> str:
    sentences = [
        _clip_headline(one) if "clip_id" in one else _source_headline(one)
        for one in reports_in(report)
    ]
    return " ".join(sentences)


def _source_headline(report: Report) -> str:
    datasets = report["datasets"]
    source = datasets[0]["source"] if datasets else {}
    name = source_name(source.get("uris"), report["source_id"])
    found = {clip["clip_id"] for _, clip in clips_in(report)}
    kept = {clip["clip_id"] for _, clip in clips_in(report) if clip["verdict"] == "kept"}
    if not found:
        reason = source.get("reason")
        return f"{name} gave no clip: {meaning_of(reason) or 'nothing was found in it'}."
    if not kept:
        return f"None of the {counts_in_words({'clips': len(found)})} of {name} was kept."
    said = f"{len(kept):,} of {counts_in_words({'clips': len(found)})} of {name} kept"
    return f"{said}; {_use(report)}"


def _clip_headline(report: Report) -> str:
    rows = [dataset["row"] for dataset in report["datasets"]]
    name = f"Clip {report['clip_id'][:12]}"
    last = rows[-1]
    if not any(r["verdict"] == "kept" for r in rows):
        reason = last["reason"]
        return f"{name} was dropped at {last['reason_stage']}: {meaning_of(reason)}."
    return f"{name} was kept; {_use(report)}"


def _use(report: Report) -> str:
    saw = report["checkpoints"]
    if not saw:
        return "no checkpoint that can be found has seen it."
    trainings = counts_in_words({"trainings": len({c["uri"].rpartition("/")[0] for c in saw})})
    videos = len(report["videos"])
    made = f" and made {counts_in_words({'videos': videos})}" if videos else ""
    return f"{counts_in_words({'checkpoints': len(saw)})} of {trainings} saw it{made}."


def facts(report: Report) -> list[Fact]:
    found, kept, shards, saw, videos, licenses = set(), set(), set(), set(), set(), set()
    for one in reports_in(report):
        for dataset, clip in clips_in(one):
            found.add(clip["clip_id"])
            licenses.add(clip["license"] or "not stated")
            if clip["verdict"] == "kept":
                kept.add(clip["clip_id"])
                shards.add((dataset["uri"], clip["shard"]))
        saw |= {c["uri"] for c in one["checkpoints"]}
        videos |= {v["uri"] for v in one["videos"]}
    return [
        Fact("clips kept", f"{len(kept):,} of {len(found):,}", strong=True),
        Fact("shards hold it", f"{len(shards):,}"),
        Fact("checkpoints saw it", f"{len(saw):,}"),
        Fact("videos made by those", f"{len(videos):,}"),
        Fact("licence", ", ".join(sorted(licenses)) or "not stated"),
    ]


# --- tables ----------------------------------------------------------------------------------


def strips(report: Report) -> Strips | None:
    drawn: list[Strip] = []
    for one in reports_in(report):
        if "clip_id" in one:
            continue
        for dataset in one["datasets"]:
            spans = [
                (
                    c["start_s"] or 0.0,
                    c["end_s"] or 0.0,
                    c["verdict"],
                    f"{c['start_s'] or 0:.2f} to {c['end_s'] or 0:.2f} s: "
                    + (c["verdict"] if not c["reason"] else f"dropped, {c['reason']}"),
                    f"clip-{c['clip_id']}",
                )
                for _, c in clips_in({"datasets": [dataset]})
                if c["kind"] == "video"
            ]
            if spans:
                source = dataset["source"]
                name = source_name(source["uris"], one["source_id"])
                length = source.get("duration_s") or 0.0
                drawn.append(strip_of(name, str(source["uris"]), spans, length))
    if not drawn:
        return None
    lead = "From start to end, in each dataset. A part leads to its row."
    return Strips(lead, LEGEND, tuple(drawn[:STRIPS_SHOWN]), len(drawn) > STRIPS_SHOWN)


def decisions(report: Report) -> list[Decision]:
    """The decisions on a clip; [] where the report has none."""
    listed = report.get("decisions")
    if listed is None:
        listed = next((d["decisions"] for d in report["datasets"] if d.get("decisions")), [])
    return [decision_of(one) for one in listed or []]
