"""The second half of the graph: what is kept is chosen, cut, and written to shards."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.curation.committed import Row, cuts_of, finished_clips
from pipelines.curation.duplicates import drop_duplicates
from pipelines.curation.graph_run import (
    READ_THREADS,
    GraphRun,
    paths_of_footage,
    readable,
)
from pipelines.curation.ingest import Footage
from pipelines.curation.places import find_places, remember_places
from pipelines.curation.shards import (
    PlannedShard,
    Sample,
    manifest_of,
    offsets_of,
    plan_shards,
)
from pipelines.curation.tasks import cut_source, write_planned_shard
from pipelines.curation.tiers import assign_tiers
from pipelines.curation.verdicts import is_taken_down, shadows_of
from pipelines.progress import Progress
from pipelines.records import Clip, Shard, Source, from_row, to_row


def select_and_cut(run: GraphRun, footage: Sequence[Footage]) -> list[Clip]:
    """Verdicts and tiers, and a cut of every clip that is kept.

    A clip that cannot be cut is dropped, and the choice is made again without it: its
    duplicate may now be the best copy.
    """
    config = run.work.config
    paths = {f.source.source_id: paths_of_footage(f) for f in readable(footage)}
    with run.timed("judge", "verdicts, duplicates, tiers"):
        judged = _judged(run, [f.source for f in readable(footage)])
        shadows = shadows_of(judged, config)
    with run.timed("cut", "frame-exact, kept clips only") as note:
        while True:
            cuts = {c: row for s in paths for c, row in cuts_of(run.work, s).items()}
            clips = [_dropped_if_uncut(c, cuts) for c in judged]
            clips = assign_tiers(drop_duplicates(clips, config.duplicates, shadows), config.tiers)
            missing = [c for c in clips if c.verdict == "kept" and c.clip_id not in cuts]
            if not missing:
                break
            _cut(run, missing, paths)
        note(f"{run.done['cut']} clips cut, {run.done['taken']} taken from earlier datasets")
    return [_as_published(c, cuts) for c in clips]


def _as_published(clip: Clip, cuts: dict[str, Row]) -> Clip:
    """What is kept, with the hash of its cut; what was taken down, without what its pictures gave
    (the hash has done its work: copies are found)."""
    if clip.verdict == "kept":
        return dataclasses.replace(clip, content_sha256=cuts[clip.clip_id]["sha256"])
    if is_taken_down(clip):
        return dataclasses.replace(clip, phash=None, duplicate_of=None)
    return clip


def _judged(run: GraphRun, sources: Sequence[Source]) -> list[Clip]:
    with ThreadPoolExecutor(READ_THREADS) as threads:
        found = threads.map(lambda source: finished_clips(run.work, source), sources)
        clips = [clip for clips in found for clip in clips]
    return sorted(clips, key=lambda c: (c.source_id, c.shot_index))


def _cut(run: GraphRun, missing: Sequence[Clip], paths: dict[str, list[bytes]]) -> None:
    wanted: dict[str, list[str]] = {}
    for clip in missing:
        wanted.setdefault(clip.source_id, []).append(clip.clip_id)
    places = find_places(run.work, [c.clip_id for c in missing])
    rows = [
        {
            "source_id": source_id,
            "paths": paths[source_id],
            "clip_ids": ids,
            "places": json.dumps({i: places[i] for i in ids if i in places}),
        }
        for source_id, ids in wanted.items()
    ]
    copies = all(c.clip_id in places for c in missing)
    with Progress(len(missing), "clips", "cutting") as bar:
        for row in run.workers.each(cut_source, rows, light=copies, work=run.work):
            run.done.update({name: row[name] for name in ("cut", "taken")})
            bar.advance(row["cut"] + row["taken"])


def write_shards(run: GraphRun, clips: Sequence[Clip]) -> tuple[list[Clip], list[Shard]]:
    """The clips with their places, and the index; one task writes one shard."""
    sources = {clip.source_id for clip in clips}
    cuts = {c: row for s in sources for c, row in cuts_of(run.work, s).items()}
    samples = [Sample(c, cuts[c.clip_id]["size_bytes"]) for c in clips if c.verdict == "kept"]
    planned = plan_shards(samples, run.work.config.shards)
    with run.timed("write shards", f"{len(planned)} shards"):
        shards = _write(run, planned)
    placed = {s.clip.clip_id: s.clip for shard in planned for s in shard.samples}
    clips = [placed.get(c.clip_id, c) for c in clips]
    offsets = {c: at for shard in planned for c, at in offsets_of(shard).items()}
    remember_places(run.work, clips, offsets, cuts)
    return clips, shards


def cuts_of_kept(run: GraphRun, clips: Sequence[Clip]) -> list[Row]:
    """What is committed of the kept clips' cuts."""
    kept = [c for c in clips if c.verdict == "kept"]
    sources = sorted({c.source_id for c in kept})
    cuts = {c: row for s in sources for c, row in cuts_of(run.work, s).items()}
    return [cuts[c.clip_id] for c in kept]


def _write(run: GraphRun, planned: Sequence[PlannedShard]) -> list[Shard]:
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
    with Progress(len(rows), "shards", "writing") as bar:
        found = []
        for row in run.workers.each(write_planned_shard, rows, light=True, work=run.work):
            found.append(from_row(Shard, row))
            bar.advance()
    return sorted(found, key=lambda s: s.shard)


def _dropped_if_uncut(clip: Clip, cuts: dict[str, Row]) -> Clip:
    failed = cuts.get(clip.clip_id, {}).get("failed")
    return clip.dropped("cuts", "cut_failed") if failed else clip


def _clip_json(clip: Clip) -> str:
    return json.dumps(to_row(dataclasses.replace(clip, embedding=None)))
