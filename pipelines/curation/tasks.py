"""What one worker does with one source: watch it, caption its clips, score them, cut them.

Each task takes a small row (ids and places, never frames), does its work, commits the result for
the source as one file, and passes on a small row of counts. What is committed is not done again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import metrics
from pipelines.curation.captioners import CaptionerFailed, open_captioner, sidecar_caption
from pipelines.curation.committed import (
    CUTS_SCHEMA,
    commit_captions,
    commit_watched,
    cuts_of,
    samples_of,
    scores_table,
    settled,
    table_of,
    watched,
    watched_table,
)
from pipelines.curation.config import CurateConfig
from pipelines.curation.film_parts import joined_film, seconds_in_parts
from pipelines.curation.footage_at_hand import at_hand, copies_of
from pipelines.curation.ingest import Found, identify
from pipelines.curation.pending import uncaptioned, unscored
from pipelines.curation.places import bytes_at
from pipelines.curation.shard_plan import clips_of_shard
from pipelines.curation.shards import is_published, write_shard
from pipelines.curation.work import Row, Work
from pipelines.media.errors import MediaError
from pipelines.records import Clip, Shard, Source, from_row, to_row

if TYPE_CHECKING:
    from pipelines.curation.watch import Watched


def identify_file(row: Row, config: CurateConfig) -> Row:
    """One footage file as a source, by the hash of its bytes, with what is stated of it."""
    found = Found(**{**row["found"], "path": os.fsdecode(row["found"]["path"])})
    source = identify(found, config.limits, config.watch.sandbox, copies_of(config))
    return {"number": row["number"], "source": json.dumps(to_row(source))}


def watch_source_once(row: Row, work: Work) -> Row:
    """Decodes one file and commits what was seen. Bad media gives a row, never an exception."""
    source = from_row(Source, json.loads(row["source"]))
    new = not settled(work, source.source_id)
    if new:
        started_s = time.monotonic()
        seen = joined_film(work, source)
        seconds = seconds_in_parts(work, source) if seen else 0.0
        seen = seen or _watched_alive(source, paths_of(row)[0], work)
        seconds += time.monotonic() - started_s
        table = watched_table(seen.source, seen.clips, seen.samples, seconds, work.run_id)
        commit_watched(work, seen.source, table)
    return {**row, **figures_of(work, source, watched_now=new)}


def _watched_alive(source: Source, path: str, work: Work) -> Watched:
    """Tries again when the decoder, or this worker, was killed: one that dies every time gives up,
    and one kill from outside changes nothing."""
    from pipelines.curation.watch import Watched, failed, watch_source

    while work.attempts.begin("watch", source.source_id):
        try:
            with at_hand(work.config, source, path) as local:
                seen = watch_source(source, local, work.config.watch)
        except MediaError as error:
            return Watched(failed(source, error.reason))
        if seen.source.reason != "decoder_died":
            return seen
    return Watched(failed(source, "decoder_died"))


def figures_of(work: Work, source: Source, watched_now: bool) -> Row:
    """What the progress line and the report say of a watched source."""
    seen, clips, seconds = watched(work, source.source_id)
    return {
        "name": source.uris[0],
        "clips": len(clips),
        "footage_s": seen.duration_s or 0.0 if seen.status == "ok" else 0.0,
        "watched_now": watched_now,
        "watch_seconds": seconds if watched_now else 0.0,
    }


def paths_of(row: Row) -> list[str]:
    """Where the source's bytes can be read, any bytes a file system allows in a name."""
    return [os.fsdecode(path) for path in row["paths"]]


# --- models ----------------------------------------------------------------------------------


class CaptionClips:
    """An actor: captions every clip of a source that has passed the judges so far."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @cached_property
    def _captioner(self) -> Any:
        use_one_thread()
        return open_captioner(self._work.config.captions)

    def __call__(self, row: Row) -> Row:
        work, started_s = self._work, time.monotonic()
        source = from_row(Source, json.loads(row["source"]))
        missing = uncaptioned(work, source)
        if missing:
            _begin(work, "captions", source)
            if work.texts_beside:
                texts = [sidecar_caption(paths_of(row))] * len(missing)
            else:
                samples = samples_of(work, source.source_id)
                texts = self._captioner.caption([samples[c.clip_id] for c in missing])
            said = {c.clip_id: text for c, text in zip(missing, texts, strict=True)}
            commit_captions(work, source.source_id, said)
        return {**row, "captioned": len(missing), "caption_seconds": time.monotonic() - started_s}


class ScoreClips:
    """An actor: scores every captioned clip of a source."""

    def __init__(self, work: Work) -> None:
        self._work = work

    @cached_property
    def _scorer(self) -> Any:
        from pipelines.curation.scorer import ClipScorer

        use_one_thread()
        return ClipScorer(self._work.config.clip_score, self._work.config.nsfw)

    def __call__(self, row: Row) -> Row:
        work, started_s = self._work, time.monotonic()
        source = from_row(Source, json.loads(row["source"]))
        missing = unscored(work, source)
        if missing:
            _begin(work, "scores", source)
            samples = samples_of(work, source.source_id)
            found = self._scorer.score([samples[c] for c in missing], list(missing.values()))
            rows = (
                {"clip_id": clip_id, "text": text, **dataclasses.asdict(scores)}
                for (clip_id, text), scores in zip(missing.items(), found, strict=True)
            )
            work.log("scores").add(source.source_id, scores_table(rows))
        return {**row, "scored": len(missing), "score_seconds": time.monotonic() - started_s}


def _begin(work: Work, stage: str, source: Source) -> None:
    """A model that dies again and again is a fault of the set-up, not of the clip: stop."""
    if not work.attempts.begin(stage, source.source_id):
        raise CaptionerFailed(
            f"{stage}: the worker died {work.attempts.limit} times on {source.uris[0]}; "
            "lower captions.clips_per_batch or clip_score.frames_per_batch if memory is short"
        )


def use_one_thread() -> None:
    """Sums of floats depend on how many threads share them; on a CPU every worker takes one."""
    import torch

    torch.set_num_threads(1)


# --- cut and write ---------------------------------------------------------------------------


def cut_source(row: Row, work: Work) -> Row:
    """Cuts the wanted clips of one source, or takes the same cuts out of earlier datasets, and
    commits what came of each. `numbers`: by which the driver knows the clips."""
    started_s = time.monotonic()
    source_id, wanted = row["source_id"], set(row["clip_ids"])
    places = json.loads(row["places"])
    done = cuts_of(work, source_id)
    source, clips, _ = watched(work, source_id)
    missing = [c for c in clips if c.clip_id in wanted and c.clip_id not in done]
    taken = {c.clip_id: r for c in missing if (r := taken_row(work, c, places.get(c.clip_id)))}
    done |= taken
    uncut = [c for c in missing if c.clip_id not in taken]
    if uncut:
        give_up = not work.attempts.begin("cuts", source_id)
        for cut in cut_rows(work, source, uncut, paths_of(row)[0], give_up):
            done[cut["clip_id"]] = cut
    if missing:
        work.log("cuts").write(source_id, table_of(done.values(), CUTS_SCHEMA))
    seconds = time.monotonic() - started_s
    metrics.tell_stage("cut", seconds)
    return {
        **{name: row[name] for name in ("source_id", "clip_ids", "numbers")},
        "cut": len(uncut),
        "taken": len(taken),
        "cut_seconds": seconds,
        "cuts": json.dumps([done[c.clip_id] for c in clips if c.clip_id in wanted]),
    }


def taken_row(work: Work, clip: Clip, place: Row | None) -> Row | None:
    """The cut as another dataset holds it; None when it must be made."""
    data = bytes_at(place) if place else None
    if place is None or data is None:
        return None
    work.scratch.write_bytes(work.cut_path(clip), data)
    return {name: place[name] for name in CUTS_SCHEMA.names}


def cut_rows(
    work: Work, source: Source, clips: Sequence[Clip], path: str, give_up: bool
) -> Iterator[Row]:
    """Cuts the clips of one file, stores each, and says what came of it."""
    from pipelines.curation.cuts import Cut, cut_all
    from pipelines.media import CutFailure

    with tempfile.TemporaryDirectory(prefix="i2vgen-cut-") as folder:
        if give_up:
            failure = CutFailure("decoder_died")
            yield from (Cut(clip, Path(folder), failure=failure).row() for clip in clips)
            return
        try:
            with at_hand(work.config, source, path) as local:
                for cut in cut_all(Path(local), Path(folder), clips, work.config.cuts):
                    if cut.result is not None:
                        work.scratch.write_bytes(work.cut_path(cut.clip), cut.path.read_bytes())
                        cut.path.unlink()
                    yield cut.row()
        except MediaError as error:
            failure = CutFailure(error.reason, error.detail)
            yield from (Cut(clip, Path(folder), failure=failure).row() for clip in clips)


def write_planned_shard(row: Row, work: Work) -> Row:
    """Writes one shard of the plan, unless it already lies there with the right bytes."""
    record = f"shards/{row['manifest']}.json"
    if work.scratch.exists(record):
        shard = Shard(**work.scratch.read_json(record))
        if is_published(work.store, shard):
            return to_row(shard)
    clips = clips_of_shard(row, work)
    shard = write_shard(
        work.store, row["name"], clips, lambda clip: work.scratch.read_bytes(work.cut_path(clip))
    )
    work.scratch.write_json(record, to_row(shard))
    return to_row(shard)
