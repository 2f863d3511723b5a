"""The curation graph, top to bottom: footage in, dataset out.

    ingest ── watch ── caption ── score     Ray Data; a commit per source and stage
    judge                                   Ray Data; a part per few hundred sources
    select                                  duplicates, tiers: here, on a few numbers of each clip
    cut                                     Ray Data; only what is kept is cut
    write shards                            Ray Data; one shard, one task
    publish: tables, report, dataset.json last

Rows between stages hold ids and places, never frames. `look.py` (down to score) and `keep.py` (from
judge) say what runs with what resources, `workers.py` where; what is done to one source is in
`tasks.py`, what is decided of one clip in the judges. What the driver holds of a clip is in
`judged.py`; whole rows stay in parts on disk (`judged_parts.py`) and are never all in memory.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pipelines import metrics
from pipelines.curation.commit_log import remove_left_overs
from pipelines.curation.committed import samples_of
from pipelines.curation.cuts import cut_counts
from pipelines.curation.footage_at_hand import copies_of
from pipelines.curation.graph_run import GraphRun
from pipelines.curation.keep import judge_rest, select_and_cut, write_shards
from pipelines.curation.look import ingest, watch_and_describe
from pipelines.curation.outcome import Curated, say_result
from pipelines.curation.prepared import Prepared, work_of
from pipelines.curation.publish import (
    dataset_manifest,
    publish_dataset,
    publish_tables,
    refuse_complete,
    remove_scratch,
)
from pipelines.curation.published import Outcome, clip_tables, source_tables
from pipelines.curation.report import render_report
from pipelines.curation.report_facts import ReportFacts
from pipelines.curation.report_rows import ReportRows
from pipelines.curation.taken_down import TakenDown, check_nothing_new, remember
from pipelines.curation.verdicts import drawn_limits, is_taken_down, stages_of
from pipelines.curation.worker_errors import plain_errors
from pipelines.curation.workers import Workers
from pipelines.records import Shard
from pipelines.storage.writer_lock import writer_lock


def curate(prepared: Prepared) -> Curated:
    """Curates the footage into the dataset, going on from whatever any run has committed.

    Raises RequestError when the cluster or the place cannot do it, before any work is done.
    """
    started_s = time.monotonic()
    config, store = prepared.config, prepared.store
    store.check_writable()
    with ExitStack() as until_done:
        until_done.callback(copies_of(config).clear)  # last, when the workers have let go
        workers = Workers(config, until_done)
        workers.check()
        until_done.enter_context(writer_lock(store))
        until_done.enter_context(plain_errors())
        refuse_complete(store)
        work = work_of(config, store)
        remove_left_overs(store, work.shared)
        remember(work.shared, prepared.taken_down)
        run = GraphRun(work, workers)
        footage = ingest(run, prepared)
        taken_down = prepared.taken_down.of_footage(f.source.source_id for f in footage)
        run.work = replace(work, tombstones=taken_down.in_force)
        parts = watch_and_describe(run, footage)
        judged = judge_rest(run, parts)
        selection = select_and_cut(run, parts, judged)
        plan, shards = write_shards(run, judged, selection)
        check_nothing_new(config, store, taken_down, (f.source.source_id for f in footage))
        outcome = Outcome.of(judged, selection, plan)
        parent = prepared.parent_digest
        manifest = publish(run, outcome, shards, len(footage), parent, taken_down)
        copies_of(config).clear()
    seconds = time.monotonic() - started_s
    curated = Curated(store.uri, manifest, seconds, dict(run.done), tuple(run.times))
    say_result(curated)
    return curated


def publish(
    run: GraphRun,
    outcome: Outcome,
    shards: Sequence[Shard],
    num_sources: int,
    parent_digest: str | None,
    taken_down: TakenDown,
) -> dict[str, Any]:
    """Writes the tables and the report, then `dataset.json`, which it returns."""
    work, config = run.work, run.work.config
    store, judged = work.store, outcome.judged
    with run.timed("publish", "tables, counts, digest"):
        sources = source_tables(work, judged.parts)
        clips = clip_tables(work, outcome)
        publish_tables(store, sources, clips, shards, taken_down, num_sources, len(judged))
        cuts = cut_counts(judged.cut_rows(outcome.selection.kept))
        manifest = dataset_manifest(store, config, cuts, parent_digest, taken_down)
    frames = lru_cache(maxsize=8)(lambda source_id: samples_of(work, source_id))
    report = render_report(
        ReportFacts(
            digest=manifest["digest"],
            config=manifest["config"],
            config_hash=manifest["config_hash"],
            rows=ReportRows.of_dataset(store.uri),
            num_shards=len(shards),
            shard_bytes=sum(s.bytes for s in shards),
            cut_counts=cuts,
            stages=stages_of(manifest["counts"]["reasons"]),
            limits=drawn_limits(config),
            stage_times=run.times,
            slowest=run.slowest,
            frames_of=lambda clip: (
                [] if is_taken_down(clip) else frames(clip.source_id).get(clip.clip_id, [])
            ),
            media_of=lambda clip: work.scratch.read_bytes(work.cut_path(clip)),
        )
    )
    publish_dataset(store, config, manifest, report)
    metrics.tell_dataset(manifest["counts"])
    remove_scratch(store, work.shared)
    return manifest
