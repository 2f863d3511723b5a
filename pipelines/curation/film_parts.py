"""Long films, watched a part at a time by as many workers as there are.

Before the watch stage, films of `resources.part_min_mib` and more are looked through for keyframes
and each part is a task of its own; its rows lie in the dataset's scratch until the watch stage,
which finds all parts of a film there, joins them instead of decoding it. Whatever goes wrong with
a part is forgotten: the watch stage then decodes the film whole and says what is wrong with it.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from pipelines.curation.commit_log import CommitLog
from pipelines.curation.committed import SAMPLES, seconds_of, settled, source_of, watched_table
from pipelines.curation.footage_at_hand import at_hand
from pipelines.curation.work import Row, Work
from pipelines.media.errors import MediaError
from pipelines.records import CLIP_SCHEMA, Clip, Source, from_row, from_table

PART_KEY = b"part"


def is_long(source: Source, work: Work) -> bool:
    """Whether a file is large enough to be worth looking for parts in it."""
    config = work.config.resources
    return source.status == "ok" and source.size_bytes >= config.part_min_mib << 20


def part_rows(row: Row, work: Work) -> list[Row]:
    """A row for each part of the film; none when it is to be watched whole."""
    from pipelines.curation.film import parts_between
    from pipelines.curation.watch import entries_of_film

    source = from_row(Source, json.loads(row["source"]))
    if settled(work, source.source_id):
        return []
    part_s = work.config.resources.part_s
    try:
        with at_hand(work.config, source, _path_of(row)) as path:
            entries = entries_of_film(source, path, part_s, work.config.watch)
    except MediaError:
        return []
    count = len(parts_between(entries))
    if count < 2:
        return []
    bounds = [(e.frame, e.pts, e.time_s, e.film_start_pts) for e in entries]
    work.scratch.write_json(_plan_path(work, source), {"parts": count, "entries": bounds})
    return [{**row, "part": number} for number in range(count)]


def watch_part_once(row: Row, work: Work) -> Row:
    """Watches one part and commits it, unless it is there. Says nothing of what goes wrong."""
    from pipelines.curation.film import parts_between
    from pipelines.curation.watch import watch_part

    source = from_row(Source, json.loads(row["source"]))
    number, log = row["part"], _log(work)
    name = _part_name(source, number)
    if not log.has(name) and work.attempts.begin("part", name):
        started_s = time.monotonic()
        part = parts_between(_planned(work, source))[number]
        try:
            with at_hand(work.config, source, _path_of(row)) as path:
                seen = watch_part(source, path, part, work.config.watch)
        except MediaError:
            seen = None
        if seen is not None:
            seconds = time.monotonic() - started_s
            table = watched_table(seen.source, seen.clips, seen.samples, seconds, work.run_id)
            place = {"start": seen.start, "end": seen.end, "end_s": seen.end_s}
            said = {PART_KEY: json.dumps({**place, "is_last": seen.is_last})}
            log.write(name, table.replace_schema_metadata({**table.schema.metadata, **said}))
    return {"source_id": source.source_id, "part": number}


def joined_film(work: Work, source: Source) -> Any:
    """The film as its parts saw it (watch.Watched), or None when they did not see all of it."""
    from pipelines.curation.film import finished, join_parts
    from pipelines.curation.watch import Watched

    if not is_long(source, work) or not work.scratch.exists(_plan_path(work, source)):
        return None
    count = work.scratch.read_json(_plan_path(work, source))["parts"]
    parts = [_part_seen(work, source, number) for number in range(count)]
    if any(part is None for part in parts):
        return None
    joined = join_parts(source, parts)
    return None if joined is None else Watched(*finished(joined), joined.samples)


def seconds_in_parts(work: Work, source: Source) -> float:
    """Worker seconds that the parts took."""
    count = work.scratch.read_json(_plan_path(work, source))["parts"]
    tables = (_log(work).read(_part_name(source, n), ["clip_id"]) for n in range(count))
    return sum(seconds_of(table) for table in tables if table is not None)


def _part_seen(work: Work, source: Source, number: int) -> Any:
    from pipelines.curation.film import PartSeen

    table = _log(work).read(_part_name(source, number), [*CLIP_SCHEMA.names, SAMPLES.name])
    if table is None:
        return None
    clips = from_table(Clip, table.select(CLIP_SCHEMA.names))
    samples = zip((c.clip_id for c in clips), table[SAMPLES.name].to_pylist(), strict=True)
    place = json.loads(table.schema.metadata[PART_KEY])
    return PartSeen(source_of(table), clips=clips, samples=dict(samples), **place)


def _planned(work: Work, source: Source) -> list[Any]:
    from pipelines.media import Entry

    return [Entry(*e) for e in work.scratch.read_json(_plan_path(work, source))["entries"]]


def _log(work: Work) -> CommitLog:
    return CommitLog(work.scratch, "parts", work.keys["watch"])


def _plan_path(work: Work, source: Source) -> str:
    return f"{_log(work).folder}/{source.source_id}.json"


def _part_name(source: Source, number: int) -> str:
    return f"{source.source_id}-{number}"


def _path_of(row: Row) -> str:
    return os.fsdecode(row["paths"][0])
