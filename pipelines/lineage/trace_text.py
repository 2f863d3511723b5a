"""The answers of trace.py and past.py as tables that fit a terminal."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from typing import Any

from pipelines.lineage.difference import Difference
from pipelines.lineage.trace import last_clean_steps

Lines = list[str]
ROWS_SHOWN = 40
GAP = "  "
NARROWEST = 9  # a column is not made narrower than this
WHOLE = frozenset({"where", "training", "run", "uri", "outcome", "clip"})


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    width: int | None = None,
    of: int | None = None,
) -> Lines:
    """Left-aligned columns under their names, as wide as the terminal: the widest are shortened.

    Columns of WHOLE are not: they are there to be copied, and may go past the edge. `of`: how many
    rows there are in all, when not all are given.
    """
    texts = [[_text(value) for value in row] for row in rows]
    hidden = (of or len(texts)) - ROWS_SHOWN
    texts = [list(columns), *texts[:ROWS_SHOWN]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    limit = (width or shutil.get_terminal_size((110, 24)).columns) - len(GAP)
    if columns[-1] in WHOLE:  # past the edge rather than at the cost of the others
        limit += widths[-1]
    widths = fitted(widths, [name in WHOLE for name in columns], limit - len(GAP) * len(columns))
    lines = []
    for row in texts:
        cells = [shortened(text, w).ljust(w) for text, w in zip(row, widths, strict=True)]
        lines.append("  " + GAP.join(cells).rstrip())
    if hidden > 0:
        lines.append(f"  … and {hidden} more (--json lists all)")
    return lines


def fitted(widths: Sequence[int], is_whole: Sequence[bool], limit: int) -> list[int]:
    """The widths with the widest made narrower until their sum is at most `limit`, or none that may
    be is wider than NARROWEST."""
    fitting = list(widths)
    while sum(fitting) > limit:
        shrinkable = [i for i, w in enumerate(fitting) if w > NARROWEST and not is_whole[i]]
        if not shrinkable:
            break
        fitting[max(shrinkable, key=lambda i: fitting[i])] -= 1
    return fitting


def shortened(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value)) or "-"
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())


def _section(title: str, lines: Lines) -> Lines:
    return [title, *lines, ""]


def source_text(report: dict[str, Any]) -> str:
    lines: Lines = [f"source {report['source_id']}", ""]
    for dataset in report["datasets"]:
        source, clips = dataset["source"], dataset["clips"]
        kept = sum(clip["verdict"] == "kept" for clip in clips)
        shards = len({clip["shard"] for clip in clips if clip["shard"]})
        status = source["status"] + (f": {source['reason']}" if source["reason"] else "")
        title = (
            f"dataset {dataset['uri']} ({dataset['digest'][:12]})\n"
            f"  files: {_text(source['uris'])}\n"
            f"  {status}; licence {source['license'] or 'not stated'}; "
            f"{len(clips)} clips, {kept} kept in {shards} shards"
        )
        lines += _section(title, _clip_rows(clips, _seen_by(report["checkpoints"])))
    return "\n".join(lines + _used_text(report))


def _seen_by(checkpoints: list[dict[str, Any]]) -> dict[str, str]:
    """By clip, how often each training saw it and from which step on: its newest checkpoint's."""
    newest = {row["uri"].rpartition("/")[0]: row for row in checkpoints}  # they come by step
    seen: dict[str, list[str]] = {}
    for row in newest.values():
        for clip in row["clips"]:
            words = f"{row['stage']} {clip['times']}x from {clip['first_step']}"
            seen.setdefault(clip["clip_id"], []).append(words)
    return {clip_id: ", ".join(words) for clip_id, words in seen.items()}


def _clip_rows(clips: list[dict[str, Any]], seen: dict[str, str]) -> Lines:
    columns = ("clip", "seconds", "verdict", "why", "seen, from step", "shard", "caption")
    ordered = sorted(clips, key=lambda c: c["shot_index"])
    rows = [
        (
            clip["clip_id"][:12],
            f"{clip['start_s'] or 0:.2f}-{clip['end_s'] or 0:.2f}",
            clip["verdict"],
            f"{clip['reason_stage']}: {clip['reason']}" if clip["reason"] else "",
            seen.get(clip["clip_id"]),
            clip["shard"],
            clip["caption"],
        )
        for clip in ordered
    ]
    return table(columns, rows) if rows else []


def clip_text(report: dict[str, Any]) -> str:
    lines: Lines = [f"clip {report['clip_id']}", ""]
    for dataset in report["datasets"]:
        title = (
            f"dataset {dataset['uri']} ({dataset['digest'][:12]})\n"
            f"  files: {_text(dataset['uris'])}"
        )
        lines += _section(title, decision_rows(dataset["decisions"]))
        width = max(map(len, dataset["row"]))
        row = [f"  {k.ljust(width)}  {_text(v)}" for k, v in dataset["row"].items()]
        lines += _section("its row", row)
    return "\n".join(lines + _used_text(report))


def decision_rows(decisions: list[dict[str, Any]]) -> Lines:
    """Every judgement with its score and limits; none for a dataset that does not list them."""
    names = ("outcome", "stage", "title", "value", "at_least", "at_most", "unit")
    rows = [[decision[name] for name in names] for decision in decisions]
    columns = ("outcome", "stage", "decision", "value", "at least", "at most", "unit")
    return table(columns, rows) if rows else []


def _used_text(report: dict[str, Any]) -> Lines:
    lines: Lines = []
    latents = [
        (row["stage"], len(row["clips"]), row["digest"][:12], row["uri"])
        for row in report["latents"]
    ]
    if latents:
        lines += _section("latents", table(("stage", "clips", "digest", "where"), latents))
    return lines + who_saw_lines(report)


def who_saw_lines(report: dict[str, Any]) -> Lines:
    lines: Lines = []
    saw = [
        (
            row["stage"],
            row["step"],
            row["clips_seen"],
            row["first_step"],
            row["times"],
            "yes" if row["through_base"] else "no",
            row["uri"],
        )
        for row in report["checkpoints"]
    ]
    columns = ("stage", "step", "clips", "first step", "times", "through its base", "where")
    looked_at = len(saw) + len(report["clean_checkpoints"]) + len(report["unknown_checkpoints"])
    none = [f"  none of the {looked_at} checkpoints that were found"]
    lines += _section("checkpoints that saw it", table(columns, saw) if saw else none)
    if report["unknown_checkpoints"]:
        unknown = [(c["stage"], c["step"], c["why"]) for c in report["unknown_checkpoints"]]
        title = "checkpoints of which nobody can tell: their ledger cannot be read"
        lines += _section(title, table(("stage", "step", "where"), unknown))
    clean = last_clean_steps(report["checkpoints"], report["clean_checkpoints"])
    if clean:
        rows = [("none" if step is None else step, folder) for folder, step in clean.items()]
        lines += _section("last clean checkpoint", table(("step", "training"), rows))
    videos = [(len(video["copies"]), video["uri"]) for video in report["videos"]]
    if videos:
        shown = table(("copies", "where"), videos)
        lines += _section("videos made by those checkpoints", shown)
    return lines


def run_lines(runs: list[dict[str, Any]]) -> Lines:
    """The tracked runs that an answer is about."""
    rows = [(run["kind"] or "-", run["name"], run["status"], run["run_id"]) for run in runs]
    return _section("runs", table(("kind", "name", "status", "run"), rows))


def checkpoint_text(report: dict[str, Any]) -> str:
    lines: Lines = []
    for stage in report["stages"]:
        lines += _stage_text(stage)
    if lost := report["base_not_found"]:
        lines.append(f"base checkpoint {lost.get('digest')} ({lost.get('uri')}): not found here")
    return "\n".join(lines)


def _stage_text(stage: dict[str, Any]) -> Lines:
    facts = {
        "stage": f"{stage['stage']}, step {stage['step']}",
        "samples seen": f"{stage['samples_seen']} of {stage['clips_seen']} clips",
        "latents": _reference(stage["latents"]),
        "dataset": _reference(stage["dataset"])
        + ("" if stage["dataset_found"] else " (not found here: files are not named)"),
        "base": _reference(stage["base"]),
        "licences (sources)": ", ".join(f"{name}: {n}" for name, n in stage["licenses"].items()),
    }
    if not stage["history_complete"]:
        facts["history"] = f"earlier steps not found; counts cover steps {stage['history']}"
    width = max(map(len, facts))
    head = [f"  {name.ljust(width)}  {text}" for name, text in facts.items()]
    rows: list[tuple[Any, ...]] = [
        (
            source["times"],
            source["clips"],
            source["first_step"],
            source["license"] or "not stated",
            _spans(source["spans_s"]),
            source["uris"] or source["source_id"],
        )
        for source in stage["sources"]
    ]
    columns = ("times", "clips", "first step", "licence", "seconds", "source")
    title = f"checkpoint {stage['uri']} ({stage['digest'][:12]})"
    return [title, *head, *table(columns, rows, of=stage["sources_seen"]), ""]


def _spans(spans_s: list[list[float]] | None) -> str:
    shown = [f"{start:.1f}-{end:.1f}" for start, end in (spans_s or [])[:3]]
    more = len(spans_s or []) - len(shown)
    return ", ".join(shown) + (f" +{more}" if more > 0 else "") or "-"


def _reference(reference: dict[str, Any] | None) -> str:
    if not reference:
        return "-"
    return f"{reference.get('digest', '')[:12]} {reference.get('uri', '')}"


def video_text(report: dict[str, Any]) -> str:
    lines: Lines = [f"video {report['uri']}"]
    for name, value in sorted(report["made_with"].items()):
        lines.append(f"  {name}: {_text(value)}")
    for role, reference in report["checkpoints"].items():
        place = reference["uri"] or "(not found here)"
        lines.append(f"  {role} checkpoint: {reference['digest'][:12]} {place}")
    lines.append("")
    for stage in report["stages"]:
        lines += _stage_text(stage)
    return "\n".join(lines)


def dataset_text(report: dict[str, Any]) -> str:
    lines = [f"dataset {report['uri']} ({report['digest']})"]
    if report["parent_digest"]:
        gone = f"{report['taken_down']} sources or clips taken down"
        lines.append(f"  made from {report['parent_digest']}; {gone}")
    lines.append(
        f"  {report['sources']} sources, {report['clips']} clips: "
        f"{report['kept']} kept, {report['dropped']} dropped"
    )
    counts = [("tier", report["tiers"]), ("licence", report["licenses"])]
    counts.append(("reason", report["reasons"]))
    rows = [(kind, name, n) for kind, values in counts for name, n in values.items()]
    lines += ["", *table(("of", "name", "clips"), rows), ""]
    made = [("latents", row["stage"], None, row["uri"]) for row in report["latents"]]
    made += [("checkpoint", r["stage"], r["step"], r["uri"]) for r in report["checkpoints"]]
    return "\n".join(
        lines + _section("made from it", table(("what", "stage", "step", "uri"), made))
    )


def diff_text(difference: Difference) -> str:
    lines: Lines = [f"from {difference.before} to {difference.after}", ""]
    for title, rows in (
        ("added", difference.added),
        ("removed", difference.removed),
        ("changed", difference.changed),
    ):
        shown = [(row["clip_id"], row["source_id"][:12], row["why"]) for row in rows]
        found = table(("clip", "source", "why"), shown) if shown else []
        lines += _section(f"{title}: {len(rows)}", found)
    return "\n".join(lines)
