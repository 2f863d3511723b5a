"""Very many tiny sources, as if watched, captioned, scored and cut: nothing is decoded.

What workers would have found is made up and committed through the code that they commit with, so
that a driver which comes after them finds everything done and has only its own work to do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.curation.committed import (
    CUTS_SCHEMA,
    SourceCommits,
    commit_captions,
    commit_watched,
    scores_table,
    table_of,
    watched_table,
)
from pipelines.curation.config import CurateConfig, demo
from pipelines.curation.judged_parts import write_part
from pipelines.curation.prepared import work_of
from pipelines.curation.shards import ShardsConfig
from pipelines.curation.work import Row, Work
from pipelines.records import Clip, Source, clip_id_of, from_row, source_id_of
from pipelines.storage import Store

FILES_IN_FOLDER = 1000
CLIPS_OF_SOURCE = 1
EMBEDDING = 512
COPIES = 0.1  # share of the sources whose first clip is a worse copy of another's
STANDING, MOVING = 64, 256
WORDS = ("red", "blue", "small", "large", "slow", "quick", "bright", "dark", "round", "square")


def config_of(folder: Path) -> CurateConfig:
    given = {"footage": f"{folder}/footage", "dataset": f"{folder}/set", "shards": ShardsConfig()}
    return dataclasses.replace(demo(), **given)  # type: ignore[arg-type]


def write_footage(folder: Path, count: int) -> None:
    """Files of a few different bytes each."""
    for number in range(count):
        path = file_of(folder, number)
        if number % FILES_IN_FOLDER == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content_of(number))


def file_of(folder: Path, number: int) -> Path:
    return folder / "footage" / f"{number // FILES_IN_FOLDER:05d}" / f"film-{number:08d}.mp4"


def content_of(number: int) -> bytes:
    return b"a film of no pictures, number %d" % number


def commit_all(folder: Path, count: int, processes: int = 2) -> None:
    """Every stage's commit of every source."""
    runs = [range(first, min(first + 500, count)) for first in range(0, count, 500)]
    with ProcessPoolExecutor(processes) as pool:
        for _ in pool.map(partial(_commit_some, folder), runs):
            pass


def _commit_some(folder: Path, numbers: range) -> None:
    os.fsync = lambda _: None  # in this process: what is made up need not survive
    config = config_of(folder)
    work = work_of(config, Store.open(config.dataset))
    for number in numbers:
        commit_source(work, number)


def commit_source(work: Work, number: int) -> None:
    source, clips, said = made_up(number)
    commit_watched(work, source, watched_table(source, clips, {}, 1.0, work.run_id))
    commit_captions(work, source.source_id, {c.clip_id: said[c.clip_id]["text"] for c in clips})
    work.log("scores").add(source.source_id, scores_table(said.values()))
    cuts = list(cuts_of_clips(clips))
    for clip in clips:
        work.scratch.write_bytes(work.cut_path(clip), media_of(clip))
    work.log("cuts").write(source.source_id, table_of(cuts, CUTS_SCHEMA))


def judge_made_up(row: Row, work: Work) -> Row:
    """As judge_part, of sources that nothing was committed of: what would be is made up, judged,
    and written as a part. Their cuts are laid where they would lie."""
    clips: list[Clip] = []
    cuts: dict[str, Row] = {}
    sources = [from_row(Source, json.loads(text)) for text in row["sources"]]
    for now in sources:
        _, measured, said = made_up(number_of(now))
        captions = {clip_id: scores["text"] for clip_id, scores in said.items()}
        scores = {(clip_id, scores["text"]): scores for clip_id, scores in said.items()}
        clips += SourceCommits(now, measured, captions, scores).judged(work)
        cuts |= {cut["clip_id"]: cut for cut in cuts_of_clips(measured)}
        for clip in measured:
            path = Path(work.scratch.path(work.cut_path(clip)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(media_of(clip))
    write_part(work, row["part"], sources, clips, cuts)
    return {"part": row["part"], "written": True, "undone": [], "clips": len(clips)}


def number_of(source: Source) -> int:
    return int(Path(source.uris[0]).stem.partition("-")[2])


def made_up(number: int) -> tuple[Source, list[Clip], dict[str, dict[str, Any]]]:
    """A source, its clips as measured, and the score rows by clip id."""
    content = content_of(number)
    source_id = source_id_of(hashlib.sha256(content).hexdigest())
    source = Source(
        source_id, [], len(content), "mp4", "h264", 1280, 720, 0, 25.0, 8.0, 100 * CLIPS_OF_SOURCE
    )
    clips, said = [], {}
    for shot, clip in enumerate(_clips_of(source, number)):
        clips.append(clip)
        rng = np.random.default_rng([2, number, shot])
        said[clip.clip_id] = {
            "clip_id": clip.clip_id,
            "text": " ".join(rng.choice(WORDS, 8)),
            "clip_score": float(rng.uniform(0.1, 0.4)),
            "temporal_consistency": float(rng.uniform(0.9, 1.0)),
            "aesthetic": float(rng.uniform(3, 7)),
            "embedding": unit(np.random.default_rng([3, *_seed_of(number, shot)])),
            "subject_area": float(rng.uniform(0, 1)),
            "nsfw": None,
        }
    return source, clips, said


def _clips_of(source: Source, number: int) -> Iterator[Clip]:
    for shot in range(CLIPS_OF_SOURCE):
        rng = np.random.default_rng([1, number, shot])
        start, end = 100 * shot, 100 * (shot + 1)
        yield Clip(
            clip_id=clip_id_of(source.source_id, start, end), source_id=source.source_id,
            kind="video", shot_index=shot, start_frame=start, end_frame=end, start_s=start / 25,
            end_s=end / 25, fps=25.0, width_px=1280, height_px=720, crop_x_px=0, crop_y_px=0,
            crop_w_px=1280, crop_h_px=720, motion=float(rng.uniform(0, 0.4)), motion_dx=0.0,
            motion_dy=0.0, sharpness=float(rng.uniform(0.2, 1)), brightness=120.0, contrast=120.0,
            flashes=0.0, text_area=0.0, single_shot=1.0,
            phash=fingerprint_of(np.random.default_rng([4, *_seed_of(number, shot)])),
        )  # fmt: skip


def _seed_of(number: int, shot: int) -> tuple[int, int]:
    """What the clip shows: the first of every tenth source shows what another one's does."""
    is_copy = shot == 0 and number % round(1 / COPIES) == 9
    return (number // 2 if is_copy else number, shot)


def unit(rng: np.random.Generator) -> np.ndarray:
    vector = rng.standard_normal(EMBEDDING, dtype=np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def fingerprint_of(rng: np.random.Generator) -> str:
    """Like `phash.clip_hash`: a usual colour, then digits with the spectrum of pictures."""
    size = STANDING + MOVING
    fading = 1 / np.sqrt(1 + np.arange(size) % 32)
    values = rng.standard_normal(size) * fading
    values *= 7 / 3 / np.sqrt((values**2).mean())
    digits = np.clip(np.round(values), -7, 7).astype(int) + 8
    colour = rng.integers(64, 192, 2)
    return "".join(f"{c:02x}" for c in colour) + "".join("0123456789abcdef"[d] for d in digits)


def media_of(clip: Clip) -> bytes:
    return clip.clip_id.encode()


def cuts_of_clips(clips: list[Clip]) -> Iterator[dict[str, Any]]:
    for clip in clips:
        media = media_of(clip)
        yield {
            "clip_id": clip.clip_id,
            "size_bytes": len(media),
            "sha256": hashlib.sha256(media).hexdigest(),
            "failed": None,
            "method": "copied",
            "leak_frames": None,
            "lost_frames": None,
            "cut_again": False,
        }
