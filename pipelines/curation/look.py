"""The first half of the graph: every file gets a row, and every source is watched and described."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

from pipelines.curation.clip_ids import IdSet
from pipelines.curation.collapse import Footage, collapse, packed
from pipelines.curation.figures import Figures
from pipelines.curation.film_parts import is_long, part_rows, watch_part_once
from pipelines.curation.found import Found
from pipelines.curation.graph_run import GraphRun, is_readable, paths_of_footage
from pipelines.curation.judged_parts import JUDGED_FOLDER, judge_part
from pipelines.curation.parts import Parts
from pipelines.curation.prepared import Prepared
from pipelines.curation.rights.footage import admitted, rights_line, under_table
from pipelines.curation.rights.table import unmatched_in_words
from pipelines.curation.tasks import (
    CaptionClips,
    ScoreClips,
    identify_file,
    watch_source_once,
)
from pipelines.curation.work import Row
from pipelines.curation.workers import dataset_of, pool, windows
from pipelines.job import say
from pipelines.progress import Progress
from pipelines.records import Source, from_row, to_row

#: A worker process is replaced after so many files: what decoders leak stays bounded. (It also
#: keeps Ray from fusing the watch tasks into the few actors below them, which would do all work.)
FILES_PER_WORKER = 256


def ingest(run: GraphRun, prepared: Prepared) -> Sequence[Footage]:
    """Every file gets its row; files of the same bytes become one source, in order of their ids.
    What is refused for its rights, or was taken down whole, fails here, before anything of it is
    watched."""
    files, table, limits = prepared.files, prepared.rights, run.work.config.limits
    with run.timed("ingest", f"{len(files)} files"):
        of_table = under_table(_identified(run, files), table, limits)
        in_force = prepared.taken_down.in_force
        footage = packed(admitted(collapse(of_table, limits), limits, in_force))
    names = ((uri, f.source.source_id) for f in footage for uri in f.source.uris)
    for line in (unmatched_in_words(table, table.unmatched(names)), rights_line(footage)):
        if line:
            say(line)
    return footage


def _identified(run: GraphRun, files: Sequence[Found]) -> Iterator[tuple[Found, Source]]:
    rows = (
        {"number": i, "found": {**dataclasses.asdict(f), "path": os.fsencode(f.path)}}
        for i, f in enumerate(files)
    )
    with Progress(len(files), "files", "reading") as bar:
        for row in run.workers.each(identify_file, rows, light=True, config=run.work.config):
            yield files[row["number"]], from_row(Source, json.loads(row["source"]))
            bar.advance()


def watch_and_describe(run: GraphRun, footage: Sequence[Footage]) -> Parts:
    """Watch, caption and score stream into one another, a source at a time, largest first.

    Sources of which nothing is left to do take no part: where a whole part is done, it is judged.
    """
    parts = Parts(footage)
    run.work.scratch.remove(JUDGED_FOLDER)  # an interrupted run's
    figures = Figures()
    title = "watch, caption, score"
    # -1: there is nothing to watch.
    sizes = (f.source.size_bytes if is_readable(f) else -1 for f in footage)
    bytes_N = np.fromiter(sizes, np.int64, len(footage))
    media = int((bytes_N >= 0).sum())
    with run.timed(title, "") as note, Progress(media, "files", "watching") as bar:
        is_todo_N = (bytes_N >= 0) & ~_done_before(run, parts, figures, bar)
        (todo,) = np.nonzero(is_todo_N)
        largest_first = todo[np.argsort(-bytes_N[todo], kind="stable")]
        for rows in windows(_row(footage[number]) for number in map(int, largest_first)):
            _watch_parts(run, rows)
            for row in _described(run, rows).iter_rows():
                figures.add(row)
                bar.advance(**figures.shown())
        note(figures.sentence())
    run.slowest = figures.slowest()
    run.done.update(figures.done)
    return parts


def _row(footage: Footage) -> Row:
    return {"source": json.dumps(to_row(footage.source)), "paths": paths_of_footage(footage)}


def _done_before(run: GraphRun, parts: Parts, figures: Figures, bar: Progress) -> np.ndarray:
    """Of which sources earlier runs left nothing to do."""
    is_done_N = np.zeros(len(parts.footage), bool)
    if run.work.texts_beside:  # they may say something else today
        return is_done_N
    logs = (run.work.log(stage) for stage in ("watch", "failures"))
    seen = IdSet(chain.from_iterable(log.committed() for log in logs))
    rows = (
        parts.row(name, seen)
        for name in (parts.names if seen else ())
        if any(f.source.source_id in seen for f in parts.footage_of(name))
    )
    for row in run.workers.each(judge_part, rows, light=True, work=run.work):
        if row["written"]:
            parts.written.add(row["part"])
        undone, of_part = set(row["undone"]), parts.footage_of(row["part"])
        done = [is_readable(f) and f.source.source_id not in undone for f in of_part]
        first = parts.first_of(row["part"])
        is_done_N[first : first + len(done)] = done
        figures.add_reused(sum(done), row["clips"], row["footage_s"])
        bar.advance(sum(done), **figures.shown())
    return is_done_N


def _watch_parts(run: GraphRun, rows: Sequence[Row]) -> None:
    """Long films first, in parts, so that no worker sits alone with one at the end."""
    long = [r for r in rows if is_long(from_row(Source, json.loads(r["source"])), run.work)]
    if not long:
        return
    watch: dict[str, Any] = {
        "fn_kwargs": {"work": run.work},
        "num_cpus": run.workers.plan.watch_cpus,
    }
    parts = list(dataset_of(long).flat_map(part_rows, **watch).iter_rows())
    if parts:
        graph = dataset_of(parts).map(watch_part_once, max_calls=FILES_PER_WORKER, **watch)
        with Progress(len(parts), "parts", "watching long films") as bar:
            for _ in graph.iter_rows():
                bar.advance()


def _described(run: GraphRun, rows: list[Row]) -> Any:
    plan = run.workers.plan
    watch: dict[str, Any] = {"num_cpus": plan.watch_cpus, "max_calls": FILES_PER_WORKER}
    model: dict[str, Any] = {
        "fn_constructor_args": (run.work,),
        "num_cpus": plan.actor_cpus,
        "num_gpus": plan.actor_gpus,
    }
    return (
        dataset_of(rows)
        .map(watch_source_once, fn_kwargs={"work": run.work}, **watch)
        .map(CaptionClips, compute=pool(plan.caption_actors), **model)
        .map(ScoreClips, compute=pool(plan.score_actors), **model)
    )
