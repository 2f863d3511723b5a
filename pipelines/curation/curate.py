"""The curation graph, top to bottom: footage in, dataset out.

    ingest ── watch ── caption ── score ──┐          Ray Data; a commit per source and stage
                                          ├─ select  verdicts, duplicates, tiers: here, pure
    cut ─────────────────────────────────┤          Ray Data; only what is kept is cut
    write shards ────────────────────────┘          Ray Data; one shard, one task
    publish: tables, report, dataset.json last

Rows between stages hold ids and places, never frames. `look.py` (down to score) and `keep.py` (from
select) say what runs with what resources, `workers.py` where; what is done to one source is in
`tasks.py`, what is decided of one clip in the judges.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pipelines.curation.commit_log import remove_stale_temporaries
from pipelines.curation.committed import samples_of
from pipelines.curation.cuts import cut_counts
from pipelines.curation.graph_run import GraphRun
from pipelines.curation.keep import cuts_of_kept, select_and_cut, write_shards
from pipelines.curation.look import ingest, watch_and_describe
from pipelines.curation.outcome import Curated, say_result
from pipelines.curation.prepared import Prepared, work_of
from pipelines.curation.publish import (
    dataset_manifest,
    publish_dataset,
    refuse_complete,
    remove_scratch,
)
from pipelines.curation.report import render_report
from pipelines.curation.report_facts import ReportFacts
from pipelines.curation.taken_down import TakenDown, check_nothing_new, remember
from pipelines.curation.verdicts import drawn_limits, is_taken_down, stages_of
from pipelines.curation.worker_errors import plain_errors
from pipelines.curation.workers import Workers
from pipelines.curation.writer_lock import writer_lock
from pipelines.records import Clip, Shard, Source


def curate(prepared: Prepared) -> Curated:
    """Curates the footage into the dataset, going on from whatever any run has committed.

    Raises RequestError when the cluster or the place cannot do it, before any work is done.
    """
    started_s = time.monotonic()
    config, store = prepared.config, prepared.store
    store.check_writable()
    with ExitStack() as until_done:
        workers = Workers(config, until_done)
        workers.check()
        until_done.enter_context(writer_lock(store))
        until_done.enter_context(plain_errors())
        refuse_complete(store)
        store.remove_temporaries()
        work = work_of(config, store)
        remove_stale_temporaries(work.shared)
        remember(work.shared, prepared.taken_down)
        run = GraphRun(work, workers)
        footage = ingest(run, prepared)
        taken_down = prepared.taken_down.of_footage(f.source.source_id for f in footage)
        run.work = replace(work, tombstones=taken_down.in_force)
        sources = watch_and_describe(run, footage)
        clips = select_and_cut(run, footage)
        clips, shards = write_shards(run, clips)
        check_nothing_new(config, store, taken_down, {s.source_id for s in sources})
        manifest = publish(run, sources, clips, shards, prepared.parent_digest, taken_down)
    seconds = time.monotonic() - started_s
    curated = Curated(store.uri, manifest, seconds, dict(run.done))
    say_result(curated, clips)
    return curated


def publish(
    run: GraphRun,
    sources: Sequence[Source],
    clips: Sequence[Clip],
    shards: Sequence[Shard],
    parent_digest: str | None,
    taken_down: TakenDown,
) -> dict[str, Any]:
    """Writes the tables and the report, then `dataset.json`, which it returns."""
    config = run.work.config
    ordered = sorted(sources, key=lambda s: (s.source_id, s.uris))
    cuts = cuts_of_kept(run, clips)
    manifest = dataset_manifest(config, ordered, clips, shards, parent_digest, cuts, taken_down)
    frames = lru_cache(maxsize=8)(lambda source_id: samples_of(run.work, source_id))
    report = render_report(
        ReportFacts(
            digest=manifest["digest"],
            config=manifest["config"],
            config_hash=manifest["config_hash"],
            sources=ordered,
            clips=clips,
            num_shards=len(shards),
            shard_bytes=sum(s.bytes for s in shards),
            cut_counts=cut_counts(cuts),
            stages=stages_of(clips),
            limits=drawn_limits(config),
            stage_times=run.times,
            slowest=run.slowest,
            frames_of=lambda clip: (
                [] if is_taken_down(clip) else frames(clip.source_id).get(clip.clip_id, [])
            ),
            media_of=lambda clip: run.work.scratch.read_bytes(run.work.cut_path(clip)),
        )
    )
    publish_dataset(run.work.store, config, ordered, clips, shards, manifest, report, taken_down)
    remove_scratch(run.work.store, run.work.shared)
    return manifest
