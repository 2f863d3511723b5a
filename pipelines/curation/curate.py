"""The curation graph, top to bottom: footage in, dataset out.

    ingest ── watch ── caption ── score ──┐          Ray Data; a commit per source and stage
                                          ├─ select  verdicts, duplicates, tiers: here, pure
    cut ─────────────────────────────────┤          Ray Data; only what is kept is cut
    write shards ────────────────────────┘          Ray Data; one shard, one task
    publish: tables, report, dataset.json last

Rows between stages hold ids and places, never frames. This is the only place that says where the
work runs and with what resources; what is done to one source is in `tasks.py`, what is decided of
one clip in the judges.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipelines.cluster import connect
from pipelines.curation.committed import Row, Work, cuts_of, judged_clips, samples_of, watched
from pipelines.curation.duplicates import drop_duplicates
from pipelines.curation.figures import Figures
from pipelines.curation.ingest import Footage, Found, collapse
from pipelines.curation.prepared import Prepared, work_of
from pipelines.curation.publish import (
    REPORT_FILE,
    dataset_manifest,
    publish_dataset,
    refuse_complete,
)
from pipelines.curation.report import render_report
from pipelines.curation.report_facts import ReportFacts, TimedRow, reasons_of
from pipelines.curation.resources import ResourcePlan, plan_resources
from pipelines.curation.shards import PlannedShard, Sample, manifest_of, plan_shards
from pipelines.curation.tasks import (
    CaptionClips,
    ScoreClips,
    cut_source,
    identify_file,
    watch_source_once,
    write_planned_shard,
)
from pipelines.curation.tiers import assign_tiers
from pipelines.curation.verdicts import STAGES, drawn_limits
from pipelines.curation.worker_errors import plain_errors
from pipelines.curation.writer_lock import writer_lock
from pipelines.job import say
from pipelines.progress import Progress
from pipelines.records import Clip, Shard, Source, from_row, to_row
from pipelines.storage import Store

MAX_BLOCKS = 2000  # Ray Data blocks: a source each until there are very many
READ_THREADS = 8

#: A worker process is replaced after so many files: what decoders leak stays bounded. (It also
#: keeps Ray from fusing the watch tasks into the few actors below them, which would do all work.)
FILES_PER_WORKER = 256


@dataclass(frozen=True)
class Curated:
    """What was made."""

    dataset: str
    manifest: dict[str, Any]
    seconds: float

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.manifest["counts"])

    @property
    def report(self) -> str:
        return f"{self.dataset}/{REPORT_FILE}"

    def local_report(self) -> AbstractContextManager[Path]:
        return Store(self.dataset).as_local_file(REPORT_FILE)

    def metrics(self) -> dict[str, float]:
        """Counts by name: sources, clips, kept, dropped, reasons/..., tiers/..., seconds."""
        found = {"seconds": self.seconds}
        for name, value in self.counts.items():
            if isinstance(value, dict):
                found |= {f"{name}/{key}": float(n) for key, n in value.items()}
            else:
                found[name] = float(value)
        return found


def curate(prepared: Prepared) -> Curated:
    """Curates the footage into the dataset, going on from whatever is committed there.

    Raises RequestError when the cluster or the place cannot do it, before any work is done.
    """
    import ray

    started_s = time.monotonic()
    config, store = prepared.config, prepared.store
    store.check_writable()
    with connect(config.cluster), writer_lock(store), plain_errors():
        plan = plan_resources(config.resources, ray.cluster_resources())
        refuse_complete(store)
        store.remove_temporaries()
        graph = Graph(work_of(config, store), plan)
        footage = graph.ingest(prepared.files)
        sources = graph.watch_and_describe(footage)
        clips = graph.select_and_cut(footage)
        clips, shards = graph.write_shards(clips)
        manifest = graph.publish(sources, clips, shards)
    curated = Curated(store.uri, manifest, time.monotonic() - started_s)
    say_result(curated, clips)
    return curated


@dataclass
class Graph:
    """The stages of one run, with the time each took."""

    work: Work
    plan: ResourcePlan
    times: list[TimedRow] = field(default_factory=list)
    slowest: list[TimedRow] = field(default_factory=list)

    # --- the stages ----------------------------------------------------------------------

    def ingest(self, files: Sequence[Found]) -> list[Footage]:
        """Every file gets its row; files of the same bytes become one source."""
        rows = [
            {"number": i, "found": {**dataclasses.asdict(f), "path": os.fsencode(f.path)}}
            for i, f in enumerate(files)
        ]
        pairs: list[tuple[Found, Source]] = []
        with self._timed("ingest", f"{len(files)} files"), _progress(files, "reading") as bar:
            graph = _dataset_of(rows).map(identify_file, num_cpus=self.plan.watch_cpus)
            for row in graph.iter_rows():
                source = from_row(Source, json.loads(row["source"]))
                pairs.append((files[row["number"]], source))
                bar.advance()
        return collapse(pairs)

    def watch_and_describe(self, footage: Sequence[Footage]) -> list[Source]:
        """Watch, caption and score stream into one another, a source at a time, largest first."""
        media = sorted(_readable(footage), key=lambda f: (-f.source.size_bytes, f.source.source_id))
        rows = [{"source": json.dumps(to_row(f.source)), "paths": _paths(f)} for f in media]
        figures = Figures()
        title = "watch, caption, score"
        with self._timed(title, "") as note, _progress(media, "watching") as bar:
            for row in self._described(rows).iter_rows() if rows else ():
                figures.add(row)
                bar.advance(**figures.shown())
            note(figures.sentence())
        self.slowest = figures.slowest()
        seen = {f.source.source_id: watched(self.work, f.source.source_id)[0] for f in media}
        return [_as_now(seen.get(f.source.source_id, f.source), f.source) for f in footage]

    def _described(self, rows: list[Row]) -> Any:
        plan = self.plan
        watch: dict[str, Any] = {"num_cpus": plan.watch_cpus, "max_calls": FILES_PER_WORKER}
        model: dict[str, Any] = {
            "fn_constructor_args": (self.work,),
            "num_cpus": plan.actor_cpus,
            "num_gpus": plan.actor_gpus,
        }
        return (
            _dataset_of(rows)
            .map(watch_source_once, fn_kwargs={"work": self.work}, **watch)
            .map(CaptionClips, compute=_pool(plan.caption_actors), **model)
            .map(ScoreClips, compute=_pool(plan.score_actors), **model)
        )

    def select_and_cut(self, footage: Sequence[Footage]) -> list[Clip]:
        """Verdicts and tiers, and a cut of every clip that is kept.

        A clip that cannot be cut is dropped, and the choice is made again without it: its
        duplicate may now be the best copy.
        """
        config = self.work.config
        places = {f.source.source_id: _paths(f) for f in _readable(footage)}
        with self._timed("judge", "verdicts, duplicates, tiers"):
            judged = self._judged([f.source for f in _readable(footage)])
        with self._timed("cut", "frame-exact, kept clips only") as note:
            while True:
                cuts = {c: row for s in places for c, row in cuts_of(self.work, s).items()}
                clips = [_dropped_if_uncut(c, cuts) for c in judged]
                clips = assign_tiers(drop_duplicates(clips, config.duplicates), config.tiers)
                missing = [c for c in clips if c.verdict == "kept" and c.clip_id not in cuts]
                if not missing:
                    break
                self._cut(missing, places)
            note(f"{sum(c.verdict == 'kept' for c in clips)} clips, re-encoded")
        return [
            dataclasses.replace(c, content_sha256=cuts[c.clip_id]["sha256"])
            if c.verdict == "kept"
            else c
            for c in clips
        ]

    def _judged(self, sources: Sequence[Source]) -> list[Clip]:
        with ThreadPoolExecutor(READ_THREADS) as pool:
            found = pool.map(lambda source: judged_clips(self.work, source), sources)
            clips = [clip for clips in found for clip in clips]
        return sorted(clips, key=lambda c: (c.source_id, c.shot_index))

    def _cut(self, missing: Sequence[Clip], places: dict[str, list[bytes]]) -> None:
        wanted: dict[str, list[str]] = {}
        for clip in missing:
            wanted.setdefault(clip.source_id, []).append(clip.clip_id)
        rows = [{"source_id": s, "paths": places[s], "clip_ids": ids} for s, ids in wanted.items()]
        graph = _dataset_of(rows).map(
            cut_source, fn_kwargs={"work": self.work}, num_cpus=self.plan.watch_cpus
        )
        with Progress(len(missing), "clips", "cutting") as bar:
            for row in graph.iter_rows():
                bar.advance(row["cut"])

    def write_shards(self, clips: Sequence[Clip]) -> tuple[list[Clip], list[Shard]]:
        """The clips with their places, and the index; one task writes one shard."""
        sizes = {
            c: row["size_bytes"]
            for s in {clip.source_id for clip in clips}
            for c, row in cuts_of(self.work, s).items()
        }
        samples = [Sample(c, sizes[c.clip_id]) for c in clips if c.verdict == "kept"]
        planned = plan_shards(samples, self.work.config.shards)
        with self._timed("write shards", f"{len(planned)} shards"):
            shards = self._write(planned)
        placed = {s.clip.clip_id: s.clip for shard in planned for s in shard.samples}
        return [placed.get(c.clip_id, c) for c in clips], shards

    def _write(self, planned: Sequence[PlannedShard]) -> list[Shard]:
        if not planned:
            return []
        rows = [
            {
                "name": shard.name,
                "manifest": manifest_of(shard),
                "clips": [_clip_json(sample.clip) for sample in shard.samples],
            }
            for shard in planned
        ]
        graph = _dataset_of(rows).map(
            write_planned_shard, fn_kwargs={"work": self.work}, num_cpus=self.plan.watch_cpus
        )
        with Progress(len(rows), "shards", "writing") as bar:
            found = []
            for row in graph.iter_rows():
                found.append(from_row(Shard, row))
                bar.advance()
        return sorted(found, key=lambda s: s.shard)

    def publish(
        self, sources: Sequence[Source], clips: Sequence[Clip], shards: Sequence[Shard]
    ) -> dict[str, Any]:
        config = self.work.config
        ordered = sorted(sources, key=lambda s: (s.source_id, s.uris))
        manifest = dataset_manifest(config, ordered, clips, shards)
        frames = lru_cache(maxsize=8)(lambda source_id: samples_of(self.work, source_id))
        report = render_report(
            ReportFacts(
                digest=manifest["digest"],
                config=manifest["config"],
                config_hash=manifest["config_hash"],
                sources=ordered,
                clips=clips,
                num_shards=len(shards),
                shard_bytes=sum(s.bytes for s in shards),
                stages=STAGES,
                limits=drawn_limits(config),
                stage_times=self.times,
                slowest=self.slowest,
                frames_of=lambda clip: frames(clip.source_id).get(clip.clip_id, []),
                media_of=lambda clip: self.work.store.read_bytes(self.work.cut_path(clip)),
            )
        )
        publish_dataset(self.work.store, config, ordered, clips, shards, manifest, report)
        return manifest

    @contextmanager
    def _timed(self, title: str, note: str) -> Iterator[Callable[[str], None]]:
        """Times a stage; the function it gives replaces the note."""
        started_s, notes = time.monotonic(), [note]
        yield notes.append
        self.times.append(TimedRow(title, time.monotonic() - started_s, notes[-1]))


# --- Ray Data --------------------------------------------------------------------------------


def _dataset_of(rows: list[Row]) -> Any:
    """A dataset with a block, and so a task, for each row (until there are very many)."""
    import ray.data

    return ray.data.from_items(rows, override_num_blocks=max(1, min(len(rows), MAX_BLOCKS)))


def _pool(size: int) -> Any:
    import ray.data

    return ray.data.ActorPoolStrategy(size=size)


# --- small things ----------------------------------------------------------------------------


def _dropped_if_uncut(clip: Clip, cuts: dict[str, Row]) -> Clip:
    failed = cuts.get(clip.clip_id, {}).get("failed")
    return clip.dropped("cuts", "cut_failed") if failed else clip


def _as_now(seen: Source, now: Source) -> Source:
    """What was seen of a source, maybe by an earlier run, with its names and rights of today."""
    return dataclasses.replace(seen, uris=now.uris, license=now.license, consent=now.consent)


def _readable(footage: Sequence[Footage]) -> list[Footage]:
    return [f for f in footage if f.source.status == "ok"]


def _paths(footage: Footage) -> list[bytes]:
    """The file that was read, then its other copies (a caption may lie beside one of them)."""
    others = (f.path for f in footage.found if f.path != footage.path)
    return [os.fsencode(path) for path in (footage.path, *others)]


def _clip_json(clip: Clip) -> str:
    return json.dumps(to_row(dataclasses.replace(clip, embedding=None)))


def _progress(items: Sequence[Any], description: str) -> Progress:
    return Progress(len(items), "files", description)


def say_result(curated: Curated, clips: Sequence[Clip]) -> None:
    """What a person must not overlook."""
    counts = curated.counts
    if counts["kept"] == 0:
        why = ", ".join(f"{reason} {n}" for reason, n in reasons_of(clips))
        files = ", ".join(f"{reason} {n}" for reason, n in counts["source_reasons"].items())
        say(f"NOTHING WAS KEPT of {counts['clips']} clips from {counts['sources']} files.")
        say(f"  clips dropped: {why or 'none found'}; files failed: {files or 'none'}")
        say(f"  look at {curated.dataset}/report.html, then lower the threshold that is to blame")
