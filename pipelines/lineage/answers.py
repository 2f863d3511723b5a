"""The questions of jobs/trace.py, each with its answer for programs and for people."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage import catalog, past, trace, trace_text
from pipelines.lineage.catalog import DIGEST_PREFIX, Catalog
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.tracked.places import known_places
from pipelines.lineage.tracked.runs_about import known_runs
from pipelines.storage import Store, absolute_uri

logger = logging.getLogger(__name__)

#: Sources of a checkpoint in a page; a terminal shows fewer, `--json` all.
ROWS_IN_PAGE = 200


@dataclass(frozen=True)
class Question:
    """What is asked about what, and where to look. `tracking` is None: ask no tracking store.

    `shown` limits the sources that are listed of a checkpoint; None lists all.
    """

    kind: str
    of: Sequence[str]
    under: Sequence[str] = ()
    tracking: TrackingConfig | None = None
    shown: int | None = None


@dataclass(frozen=True)
class Answer:
    """`report` is what `--json` prints, `text` what a person reads; `home_of` the kinds of run, and
    the digests, that a page about it belongs to."""

    catalog: Catalog
    report: dict[str, Any]
    text: str
    home_of: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def answer(question: Question) -> Answer:
    """Raises RequestError when what is asked about is not known, or cannot be read."""
    if question.kind == "dataset" and len(question.of) == 2:
        return _difference(catalog.build((), near=question.of), *question.of)
    (first,) = question.of
    is_digest = DIGEST_PREFIX.fullmatch(first.lower()) and not Store.open(first).exists("")
    if question.kind == "dataset" and not is_digest:
        read_dataset(first)
    is_path = question.kind in ("checkpoint", "video") and not is_digest
    if is_path and not Store.open(place_of(first)).exists(""):
        raise RequestError(f"{question.kind} {first}: no such file or folder")
    tracked: set[str] = set()
    if question.tracking and not question.under:
        tracked, trouble = known_places(question.tracking)
        if trouble:
            logger.warning("%s; only what lies around %s is looked at", trouble, first)
    near = question.of if "/" in first or Path(first).exists() else ()
    known = catalog.build(question.under, tracked, near)
    if is_digest and question.kind in catalog.NAMING_FILES.values():
        entry = known.with_digest(question.kind, first)
        if entry is None:
            raise RequestError(
                f"{question.kind} {first}: nothing with such a digest is known here; give its "
                "folder, or --under FOLDER"
            )
        first = entry.uri
    found = ANSWERS[question.kind](known, first, question.shown)
    if question.tracking is None:
        return found
    runs = known_runs(question.tracking, digests_in(found.report))
    text = found.text.rstrip("\n") + "\n\n" + "\n".join(trace_text.run_lines(runs))
    return dataclasses.replace(found, report={**found.report, "runs": runs}, text=text)


def place_of(path: str) -> str:
    """The folder, where one of the files that name it was given."""
    for name in (*catalog.NAMING_FILES, "latest.json", "latest"):
        path = path.removesuffix(f"/{name}")
    return path


def _difference(known: Catalog, before: str, after: str) -> Answer:
    changes = diff(read_dataset(before), read_dataset(after))
    home = (("curate", "takedown"), (changes.after,))
    return Answer(known, dataclasses.asdict(changes), trace_text.diff_text(changes), home)


def _dataset(known: Catalog, uri: str, shown: int | None) -> Answer:
    report = past.trace_dataset(known, read_dataset(uri))
    home = (("curate", "takedown"), (report["digest"],))
    return Answer(known, report, trace_text.dataset_text(report), home)


def _source(known: Catalog, file_or_id: str, shown: int | None) -> Answer:
    ids = trace.source_ids_of(known, file_or_id)
    sources = [trace.trace_source(known, source_id) for source_id in ids]
    text = "\n".join(map(trace_text.source_text, sources))
    digests = tuple(d["digest"] for source in sources for d in source["datasets"])
    return Answer(known, {"sources": sources}, text, (("curate",), digests))


def _clip(known: Catalog, clip_id: str, shown: int | None) -> Answer:
    report = trace.trace_clip(known, clip_id)
    home = (("curate",), tuple(dataset["digest"] for dataset in report["datasets"]))
    return Answer(known, report, trace_text.clip_text(report), home)


def _checkpoint(known: Catalog, uri: str, shown: int | None) -> Answer:
    entry = past.checkpoint_entry(known, absolute_uri(place_of(uri)))
    report = past.trace_checkpoint(known, entry, shown)
    home = (("train_base", "train_refine"), (entry.digest,))
    return Answer(known, report, trace_text.checkpoint_text(report), home)


def _video(known: Catalog, path: str, shown: int | None) -> Answer:
    entry = past.video_entry(known, absolute_uri(path))
    report = past.trace_video(known, entry, shown)
    made = (entry.header.get("video") or {}).get("sha256", "")
    return Answer(known, report, trace_text.video_text(report), (("generate",), (made,)))


ANSWERS: dict[str, Callable[[Catalog, str, int | None], Answer]] = {
    "source": _source,
    "clip": _clip,
    "dataset": _dataset,
    "checkpoint": _checkpoint,
    "video": _video,
}


def digests_in(report: Any) -> set[str]:
    """Every digest that the report names as its own matter: not those of clean checkpoints."""
    return set(_digests(report))


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "digest" and isinstance(inner, str):
                yield inner
            elif name not in ("clean_checkpoints", "clips", "sources_seen", "config", "row"):
                yield from _digests(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _digests(inner)


def home_run(tracking: TrackingConfig, found: Answer) -> str | None:
    """The newest run that a page about the answer belongs to; None where there is none."""
    kinds, digests = found.home_of
    runs = [run for run in known_runs(tracking, digests) if run["kind"] in kinds]
    return str(runs[-1]["run_id"]) if runs else None
