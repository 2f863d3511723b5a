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
from functools import cached_property
from pathlib import Path
from typing import Any

from pipelines.curation.captioners import CaptionerFailed, open_captioner, sidecar_caption
from pipelines.curation.commit_log import WORK_FOLDER
from pipelines.curation.committed import (
    CAPTIONS_SCHEMA,
    CUTS_SCHEMA,
    Row,
    Work,
    cuts_of,
    passed_clips,
    raw_captions,
    samples_of,
    scores_of,
    scores_table,
    settled,
    still_caption,
    table_of,
    watched,
    watched_table,
)
from pipelines.curation.ingest import Found, identify
from pipelines.curation.shards import extension_of, is_published, write_shard
from pipelines.records import Clip, Shard, Source, from_row, to_row


def identify_file(row: Row) -> Row:
    """One footage file as a source, by the hash of its bytes."""
    found = Found(**{**row["found"], "path": os.fsdecode(row["found"]["path"])})
    return {"number": row["number"], "source": json.dumps(to_row(identify(found)))}


def watch_source_once(row: Row, work: Work) -> Row:
    """Decodes one file and commits what was seen. Bad media gives a row, never an exception."""
    from pipelines.curation.watch import watch_source

    source = from_row(Source, json.loads(row["source"]))
    log = work.log("watch")
    new = not settled(work, source.source_id)
    if new:
        started_s = time.monotonic()
        if work.attempts.begin("watch", source.source_id):
            seen = watch_source(source, paths_of(row)[0], work.config.watch)
            source, clips, samples = seen.source, seen.clips, seen.samples
        else:
            source = dataclasses.replace(source, status="failed", reason="decoder_died")
            clips, samples = [], {}
        seconds = time.monotonic() - started_s
        log.write(source.source_id, watched_table(source, clips, samples, seconds, work.run_id))
    source, clips, seconds = watched(work, source.source_id)
    footage_s = source.duration_s or 0.0 if source.status == "ok" else 0.0
    return {
        **row,
        "name": source.uris[0],
        "clips": len(clips),
        "footage_s": footage_s,
        "watched_now": new,
        "watch_seconds": seconds if new else 0.0,
    }


def paths_of(row: Row) -> list[str]:
    """Where the source's bytes can be read, any bytes a file system allows in a name."""
    return [os.fsdecode(path) for path in row["paths"]]


# --- models ----------------------------------------------------------------------------------


class CaptionClips:
    """An actor: captions every clip of a source that has passed the judges so far."""

    def __init__(self, work: Work) -> None:
        self._work = work
        use_one_thread()

    @cached_property
    def _captioner(self) -> Any:
        return open_captioner(self._work.config.captions)

    def __call__(self, row: Row) -> Row:
        work, started_s = self._work, time.monotonic()
        source = from_row(Source, json.loads(row["source"]))
        passed = passed_clips(work, source)
        from_files = work.config.captions.backend == "sidecar"
        done = {} if from_files else raw_captions(work, source.source_id)
        missing = [c for c in passed if c.clip_id not in done]
        if missing:
            _begin(work, "captions", source)
            if from_files:
                texts = [sidecar_caption(paths_of(row))] * len(missing)
            else:
                samples = samples_of(work, source.source_id)
                texts = self._captioner.caption([samples[c.clip_id] for c in missing])
            done |= {c.clip_id: text for c, text in zip(missing, texts, strict=True)}
            rows = ({"clip_id": k, "raw_caption": v} for k, v in done.items())
            work.log("captions").write(source.source_id, table_of(rows, CAPTIONS_SCHEMA))
        return {**row, "captioned": len(missing), "caption_seconds": time.monotonic() - started_s}


class ScoreClips:
    """An actor: scores every captioned clip of a source."""

    def __init__(self, work: Work) -> None:
        self._work = work
        use_one_thread()

    @cached_property
    def _scorer(self) -> Any:
        from pipelines.curation.scorer import ClipScorer

        return ClipScorer(self._work.config.clip_score)

    def __call__(self, row: Row) -> Row:
        work, started_s = self._work, time.monotonic()
        source = from_row(Source, json.loads(row["source"]))
        done, captions = scores_of(work, source.source_id), raw_captions(work, source.source_id)
        passed = [c.clip_id for c in passed_clips(work, source) if c.clip_id in captions]
        texts = {clip_id: still_caption(work, captions[clip_id]) for clip_id in passed}
        missing = {
            clip_id: text
            for clip_id, text in texts.items()
            if text and (clip_id not in done or done[clip_id]["text"] != text)
        }
        if missing:
            _begin(work, "scores", source)
            samples = samples_of(work, source.source_id)
            found = self._scorer.score([samples[c] for c in missing], list(missing.values()))
            for (clip_id, text), scores in zip(missing.items(), found, strict=True):
                done[clip_id] = {"clip_id": clip_id, "text": text, **dataclasses.asdict(scores)}
            work.log("scores").write(source.source_id, scores_table(done.values()))
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
    """Cuts the wanted clips of one source and commits what came of each."""
    started_s = time.monotonic()
    source_id, wanted = row["source_id"], set(row["clip_ids"])
    done = cuts_of(work, source_id)
    _, clips, _ = watched(work, source_id)
    missing = [c for c in clips if c.clip_id in wanted and c.clip_id not in done]
    if missing:
        give_up = not work.attempts.begin("cuts", source_id)
        for clip in missing:
            done[clip.clip_id] = cut_row(work, clip, Path(paths_of(row)[0]), give_up)
        work.log("cuts").write(source_id, table_of(done.values(), CUTS_SCHEMA))
    return {
        "source_id": source_id,
        "cut": len(missing),
        "cut_seconds": time.monotonic() - started_s,
    }


def cut_row(work: Work, clip: Clip, path: Path, give_up: bool) -> Row:
    from pipelines.curation.cuts import cut_to
    from pipelines.media.errors import MediaError

    row: Row = {"clip_id": clip.clip_id, "size_bytes": None, "sha256": None, "failed": None}
    if give_up:
        return {**row, "failed": "decoder_died"}
    with tempfile.TemporaryDirectory(prefix="i2vgen-cut-") as folder:
        out = Path(folder) / f"clip.{extension_of(clip)}"
        try:
            cut = cut_to(path, out, clip, work.config.cuts)
        except MediaError as error:
            return {**row, "failed": str(error)}
        work.store.write_bytes(work.cut_path(clip), out.read_bytes())
        return {**row, "size_bytes": cut.size_bytes, "sha256": cut.sha256}


def write_planned_shard(row: Row, work: Work) -> Row:
    """Writes one shard of the plan, unless it already lies there with the right bytes."""
    record = f"{WORK_FOLDER}/shards/{row['manifest']}.json"
    if work.store.exists(record):
        shard = Shard(**work.store.read_json(record))
        if is_published(work.store, shard):
            return to_row(shard)
    clips = [from_row(Clip, json.loads(text)) for text in row["clips"]]
    shard = write_shard(
        work.store, row["name"], clips, lambda clip: work.store.read_bytes(work.cut_path(clip))
    )
    work.store.write_json(record, to_row(shard))
    return to_row(shard)
