"""Which kept clip goes into which shard, and where in it, by sizes alone.

A shard's task is told where the rows of its clips lie, not the rows: it reads them itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from pipelines.curation.clip_ids import hex_ids, order_keys
from pipelines.curation.judged import Judged
from pipelines.curation.judged_parts import part_path, row_digest
from pipelines.curation.mapped import mapped, stretches, zeros
from pipelines.curation.selection import Selection
from pipelines.curation.shards import (
    TAR_BLOCK_BYTES,
    ShardsConfig,
    in_blocks,
    members_bytes,
    shard_name,
    shard_numbers,
    shuffle_key,
)
from pipelines.curation.tiers import tiers_named
from pipelines.curation.work import Row, Work
from pipelines.records import Clip, from_row

MANIFEST_HEX = 32
SHUFFLE_KEY_BYTES = 32


@dataclass(frozen=True)
class ShardPlan:
    """Kept clips in the order in which they are written, and the shard of each, rising."""

    clips_K: np.ndarray
    shard_K: np.ndarray
    #: Where each clip's media begins in its tar, and how long the media are.
    offset_K: np.ndarray

    @property
    def num_shards(self) -> int:
        return int(self.shard_K[-1]) + 1 if len(self.shard_K) else 0

    def shards(self) -> Iterator[tuple[int, np.ndarray]]:
        """(number, its clips in order) of each."""
        edges = np.searchsorted(self.shard_K, np.arange(self.num_shards + 1))
        for number in range(self.num_shards):
            yield number, self.clips_K[edges[number] : edges[number + 1]]


def plan_of(judged: Judged, selection: Selection, config: ShardsConfig) -> ShardPlan:
    """As shards.plan_shards does it for clips at hand. All of the kept must be cut."""
    clips_K = mapped(_shuffled(judged, selection.kept, config.seed))
    shard_K, offset_K = (zeros(len(clips_K), np.int64) for _ in range(2))
    sizes = chain.from_iterable(
        members_bytes(*_sizes(judged, selection, clips_K[some])).tolist()
        for some in stretches(len(clips_K))
    )
    for place, number in enumerate(shard_numbers(sizes, config)):
        shard_K[place] = number
    plan = ShardPlan(clips_K, shard_K, offset_K)
    placed = 0
    for number, clips in plan.shards():
        of_shard = _offsets(judged, clips, number, *_sizes(judged, selection, clips))
        offset_K[placed : placed + len(clips)] = of_shard
        placed += len(clips)
    return plan


def _shuffled(judged: Judged, clips: np.ndarray, seed: int) -> np.ndarray:
    """As shards.shuffle_key orders them."""
    keys_NB = zeros((len(clips), SHUFFLE_KEY_BYTES), np.uint8)
    for some in stretches(len(clips)):
        keys = b"".join(shuffle_key(i, seed) for i in hex_ids(judged.ids_NB[clips[some]]))
        keys_NB[some] = np.frombuffer(keys, np.uint8).reshape(-1, SHUFFLE_KEY_BYTES)
    order = np.lexsort(order_keys(keys_NB, np.arange(len(clips))))
    return np.asarray(clips[order])


def _sizes(
    judged: Judged, selection: Selection, clips: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bytes of the media, the caption and the row of each."""
    media, caption = judged.numbers["cut_size_bytes"], judged.numbers["caption_bytes"]
    rows = _row_bytes(judged, selection, clips)
    return media[clips], caption[clips].astype(np.int64), rows


def _row_bytes(judged: Judged, selection: Selection, clips: np.ndarray) -> np.ndarray:
    """Size of each KEY.json with the clip's tiers and its media's hash, yet without its place."""
    nothing: dict[str, Any] = {"tiers": [], "content_sha256": None}
    growth = [
        _growth(nothing, {"tiers": tiers_named(high, best), "content_sha256": "0" * 64})
        for high in (False, True)
        for best in (False, True)
    ]
    kind = 2 * selection.is_high_res_N[clips] + selection.is_premium_N[clips]
    return judged.numbers["row_bytes"][clips].astype(np.int64) + np.array(growth)[kind]


def _growth(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """By how many bytes a row gets longer as JSON."""
    return len(json.dumps(after)) - len(json.dumps(before))


def _offsets(
    judged: Judged,
    clips_S: np.ndarray,
    number: int,
    media_bytes_S: np.ndarray,
    caption_bytes_S: np.ndarray,
    row_bytes_S: np.ndarray,
) -> np.ndarray:
    """Of the media in one shard, as shards.offsets_of: members are in order of name, each in whole
    blocks after a header."""
    place = _growth({"shard": None, "key": None}, {"shard": shard_name(number), "key": "0" * 32})
    row_S = TAR_BLOCK_BYTES + in_blocks(row_bytes_S + place)
    sample_S = row_S + 2 * TAR_BLOCK_BYTES + in_blocks(media_bytes_S) + in_blocks(caption_bytes_S)
    starts_S = np.cumsum(sample_S) - sample_S
    # "jpg" < "json" < "mp4": a picture's media stand before its row, a film's behind it.
    return starts_S + TAR_BLOCK_BYTES + np.where(judged.is_video_N[clips_S], row_S, 0)


def shard_row(judged: Judged, selection: Selection, number: int, clips: np.ndarray) -> Row:
    """What the task is told that writes this shard."""
    numbers = judged.numbers
    samples = [
        {
            "part": judged.parts[part],
            "row_at": int(numbers["row_at"][clip]),
            "row_bytes": int(numbers["row_bytes"][clip]),
            "row_digest": judged.row_digest_NB[clip].tobytes().hex(),
            "tiers": tiers_named(
                bool(selection.is_high_res_N[clip]), bool(selection.is_premium_N[clip])
            ),
            "content_sha256": digest,
        }
        for clip, part, digest in zip(
            clips, judged.part_of(clips), hex_ids(judged.cut_sha256_NB[clips]), strict=True
        )
    ]
    name = shard_name(number)
    decides = hashlib.sha256(name.encode())
    for sample, digest_B in zip(samples, judged.row_digest_NB[clips], strict=True):
        said = json.dumps([sample["tiers"], sample["content_sha256"]])
        decides.update(digest_B.tobytes() + said.encode())
    manifest = decides.hexdigest()[:MANIFEST_HEX]
    return {"name": name, "manifest": manifest, "samples": json.dumps(samples)}


def places_of(judged: Judged, plan: ShardPlan) -> Iterator[Row]:
    """Where the media of each kept clip lie, with all that is known of its cut, by clip id."""
    in_order = mapped(np.lexsort(order_keys(judged.ids_NB, plan.clips_K)))
    for stretch in stretches(len(in_order)):
        some = in_order[stretch]
        for place, cut in zip(some, judged.cut_rows(plan.clips_K[some]), strict=True):
            name = shard_name(int(plan.shard_K[place]))
            yield {**cut, "shard": name, "offset": int(plan.offset_K[place])}


def clips_of_shard(row: Row, work: Work) -> list[Clip]:
    """The clips of a shard, in order, as they are written."""
    return [_clip(row["name"], sample, work) for sample in json.loads(row["samples"])]


def _clip(shard: str, sample: Row, work: Work) -> Clip:
    path = part_path(work, sample["part"], "heap")
    text = work.scratch.read_range(
        path,
        sample["row_at"],
        sample["row_bytes"],
        lambda data: row_digest(data).hex() == sample["row_digest"],
    )
    said = {**json.loads(text), **{n: sample[n] for n in ("tiers", "content_sha256")}}
    return from_row(Clip, {**said, "shard": shard, "key": said["clip_id"]})
