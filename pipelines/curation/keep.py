"""The second half of the graph: what is kept is chosen, cut, and written to shards."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from pipelines.curation.clip_ids import hex_ids
from pipelines.curation.graph_run import GraphRun, paths_of_footage
from pipelines.curation.judged import CUT_FAILED, UNCUT, Judged, read_judged
from pipelines.curation.judged_parts import judge_part, part_path
from pipelines.curation.parts import Parts
from pipelines.curation.places import find_places, remember_places
from pipelines.curation.selection import Selection, select
from pipelines.curation.shard_plan import ShardPlan, places_of, plan_of, shard_row
from pipelines.curation.tasks import cut_source, write_planned_shard
from pipelines.curation.work import Row
from pipelines.progress import Progress
from pipelines.records import Shard, from_row


def judge_rest(run: GraphRun, parts: Parts) -> Judged:
    """Verdicts of what is not judged yet; then the columns of every clip."""
    with run.timed("judge", "verdicts"):
        rows = (parts.row(name) for name in parts.unwritten())
        with Progress(len(parts.unwritten()), "parts", "judging") as bar:
            for _ in run.workers.each(judge_part, rows, light=True, work=run.work):
                bar.advance()
        return read_judged(run.work, parts.names)


def select_and_cut(run: GraphRun, parts: Parts, judged: Judged) -> Selection:
    """Duplicates and tiers, and a cut of every clip that is kept.

    A clip that cannot be cut is dropped, and the choice is made again without it: its
    duplicate may now be the best copy.
    """
    with run.timed("select and cut", "") as note:
        while True:
            selection = select(run.work, judged)
            kept = selection.kept
            missing = kept[judged.cut_state_N[kept] == UNCUT]
            if len(missing):
                _cut(run, parts, judged, missing)
            if not (judged.cut_state_N[missing] == CUT_FAILED).any():
                break
        note(
            f"frame-exact, kept clips only: {run.done['cut']} clips cut, {run.done['taken']} "
            "taken from earlier datasets"
        )
    return selection


def _cut(run: GraphRun, parts: Parts, judged: Judged, missing: np.ndarray) -> None:
    places = find_places(run.work, judged.ids_NB, missing)
    copies = len(places) == len(missing)
    rows = _cut_rows(run, parts, judged, missing, places)
    with Progress(len(missing), "clips", "cutting") as bar:
        for row in run.workers.each(cut_source, rows, light=copies, work=run.work):
            number_of = dict(zip(row["clip_ids"], row["numbers"], strict=True))
            for cut in json.loads(row["cuts"]):
                judged.learn_cut(number_of[cut["clip_id"]], cut)
            run.done.update({name: row[name] for name in ("cut", "taken")})
            bar.advance(row["cut"] + row["taken"])


def _cut_rows(
    run: GraphRun, parts: Parts, judged: Judged, missing: np.ndarray, places: Mapping[int, Row]
) -> Iterator[Row]:
    """What each source's task is told, part by part."""
    for part, clips in judged.rows_by_part(missing):
        name = judged.parts[part]
        column = run.work.scratch.read_table(part_path(run.work, name), ["source_id"])["source_id"]
        source_ids = column.take(clips - judged.starts[part]).to_pylist()
        wanted: dict[str, dict[str, int]] = {}
        ids = hex_ids(judged.ids_NB[clips])
        for source_id, clip_id, number in zip(source_ids, ids, clips.tolist(), strict=True):
            wanted.setdefault(source_id, {})[clip_id] = number
        footage = {f.source.source_id: f for f in parts.footage_of(name)}
        for source_id, number_of in wanted.items():
            known = {i: place for i, n in number_of.items() if (place := places.get(n))}
            yield {
                "source_id": source_id,
                "paths": paths_of_footage(footage[source_id]),
                "clip_ids": list(number_of),
                "numbers": list(number_of.values()),
                "places": json.dumps(known),
            }


def write_shards(
    run: GraphRun, judged: Judged, selection: Selection
) -> tuple[ShardPlan, list[Shard]]:
    """The places of the kept clips, and the index; one task writes one shard."""
    plan = plan_of(judged, selection, run.work.config.shards)
    rows = (shard_row(judged, selection, number, clips) for number, clips in plan.shards())
    with run.timed("write shards", f"{plan.num_shards} shards"):
        shards = _write(run, rows, plan.num_shards)
    remember_places(run.work, places_of(judged, plan))
    return plan, shards


def _write(run: GraphRun, rows: Iterable[Row], count: int) -> list[Shard]:
    with Progress(count, "shards", "writing") as bar:
        found = []
        for row in run.workers.each(write_planned_shard, rows, light=True, work=run.work):
            found.append(from_row(Shard, row))
            bar.advance()
    return sorted(found, key=lambda s: s.shard)
