"""The first half of the graph: every file gets a row, and every source is watched and described."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipelines.curation.committed import Row, watched
from pipelines.curation.figures import Figures
from pipelines.curation.film_parts import is_long, part_rows, watch_part_once
from pipelines.curation.graph_run import (
    READ_THREADS,
    GraphRun,
    paths_of_footage,
    readable,
)
from pipelines.curation.ingest import Footage, Found, collapse
from pipelines.curation.pending import described
from pipelines.curation.prepared import Prepared
from pipelines.curation.rights.footage import admitted, rights_line, under_table
from pipelines.curation.rights.table import unmatched_in_words
from pipelines.curation.tasks import (
    CaptionClips,
    ScoreClips,
    figures_of,
    identify_file,
    watch_source_once,
)
from pipelines.curation.workers import dataset_of, pool
from pipelines.job import say
from pipelines.progress import Progress
from pipelines.records import Source, from_row, to_row

#: A worker process is replaced after so many files: what decoders leak stays bounded. (It also
#: keeps Ray from fusing the watch tasks into the few actors below them, which would do all work.)
FILES_PER_WORKER = 256


def ingest(run: GraphRun, prepared: Prepared) -> list[Footage]:
    """Every file gets its row; files of the same bytes become one source. What is refused for its
    rights, or was taken down whole, fails here, before anything of it is watched."""
    files, config = prepared.files, run.work.config
    rows = [
        {"number": i, "found": {**dataclasses.asdict(f), "path": os.fsencode(f.path)}}
        for i, f in enumerate(files)
    ]
    pairs: list[tuple[Found, Source]] = []
    with run.timed("ingest", f"{len(files)} files"), _progress(files, "reading") as bar:
        for row in run.workers.each(identify_file, rows, light=True, config=config):
            source = from_row(Source, json.loads(row["source"]))
            pairs.append((files[row["number"]], source))
            bar.advance()
    pairs = under_table(pairs, prepared.rights, config.limits)
    unmatched = prepared.rights.unmatched((f.uri, s.source_id) for f, s in pairs)
    footage = admitted(collapse(pairs, config.limits), config.limits, prepared.taken_down.in_force)
    for line in (unmatched_in_words(prepared.rights, unmatched), rights_line(footage)):
        if line:
            say(line)
    return footage


def watch_and_describe(run: GraphRun, footage: Sequence[Footage]) -> list[Source]:
    """Watch, caption and score stream into one another, a source at a time, largest first.

    Sources of which nothing is left to do take no part.
    """
    media = sorted(readable(footage), key=lambda f: (-f.source.size_bytes, f.source.source_id))
    figures = Figures()
    title = "watch, caption, score"
    with run.timed(title, "") as note, _progress(media, "watching") as bar:
        rows: list[Row] = []
        for footage_of_one, before in zip(media, _done_before(run, media), strict=True):
            if before is None:
                source = json.dumps(to_row(footage_of_one.source))
                rows.append({"source": source, "paths": paths_of_footage(footage_of_one)})
            else:
                figures.add(before)
                bar.advance(**figures.shown())
        _watch_parts(run, rows)
        for row in _described(run, rows).iter_rows() if rows else ():
            figures.add(row)
            bar.advance(**figures.shown())
        note(figures.sentence())
    run.slowest = figures.slowest()
    run.done.update(figures.done)
    seen = {f.source.source_id: watched(run.work, f.source.source_id)[0] for f in media}
    return [_as_now(seen.get(f.source.source_id, f.source), f.source) for f in footage]


def _done_before(run: GraphRun, media: Sequence[Footage]) -> list[Row | None]:
    """What is known of each source that earlier runs have finished; None of the others."""

    def known(footage: Footage) -> Row | None:
        if not described(run.work, footage.source):
            return None
        return figures_of(run.work, footage.source, watched_now=False)

    with ThreadPoolExecutor(READ_THREADS) as threads:
        return list(threads.map(known, media))


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


def _as_now(seen: Source, now: Source) -> Source:
    """What was seen of a source, maybe by an earlier run, with its names and rights of today."""
    return dataclasses.replace(seen, uris=now.uris, license=now.license, consent=now.consent)


def _progress(items: Sequence[Any], description: str) -> Progress:
    return Progress(len(items), "files", description)
