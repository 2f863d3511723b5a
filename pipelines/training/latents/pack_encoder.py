"""One task: the clips of one pack, taken over or encoded, written and committed.

While the networks work on one clip, the next ones are read and decoded in threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.config import config_hash, to_plain
from pipelines.storage import Store
from pipelines.training.latents.clip_encoder import ClipEncoder, ClipFeatures
from pipelines.training.latents.on_disk import PackCommit, committed_pack, write_pack
from pipelines.training.latents.reuse import FormerFeatures, Takeover
from pipelines.training.latents.shard_members import ShardMembers, Shards

ROW_COLUMNS = ("clip_id", "source_id", "kind", "caption", "short_caption", "tiers", "license",
               "content_sha256")  # fmt: skip


@dataclass(frozen=True)
class PackTask:
    """A pack to be made: clips of one shard (rows of clips.parquet), and what is there of them."""

    shard: str
    shard_sha256: str
    pack: str
    clips: list[dict[str, Any]]
    takeover: Takeover = field(default_factory=Takeover)


@dataclass(frozen=True)
class PackMade:
    """The commit, and how many of its clips this run did not have to encode."""

    commit: PackCommit
    reused: int


class PackEncoder:
    """The networks, the dataset's shards and the former features of one process."""

    def __init__(
        self, encoder: ClipEncoder, dataset: str, former: FormerFeatures, decoders: int = 1
    ) -> None:
        self.encoder, self.former, self.decoders = encoder, former, decoders
        self.shards = Shards(dataset)

    def write(self, latents: Store, task: PackTask) -> PackMade:
        """Writes and commits the pack, or returns the commit that is there already.

        Raises RequestError when the shard or a clip is not what the dataset names, ClipUnreadable.
        """
        key = self._key(task)
        if done := committed_pack(latents, task.pack, key):
            return PackMade(done, len(task.clips))
        arrays, rows, reused = self.build(task)
        commit = write_pack(latents, task.pack, key, arrays, rows, self._made_with())
        return PackMade(commit, reused)

    def build(self, task: PackTask) -> tuple[dict[str, np.ndarray], list[dict[str, Any]], int]:
        """The pack's arrays (see latents.py), its index rows, and how many clips were taken over.

        Raises as `write`.
        """
        features: dict[str, ClipFeatures] = {}
        for clip in task.clips:
            if (taken := self.former.clip(task.takeover, clip["clip_id"])) is not None:
                features[clip["clip_id"]] = taken
        reused = len(features)
        if new := [clip for clip in task.clips if clip["clip_id"] not in features]:
            members = self.shards.members(task.shard, task.shard_sha256)
            for decoded, frames_FHWC in self._decoded(members, new):
                features[decoded["clip_id"]] = self.encoder.features(decoded, frames_FHWC)
        of_clips = [features[clip["clip_id"]] for clip in task.clips]
        texts = _row_of_text(clip["caption"] for clip in task.clips)
        short_texts = _row_of_text(clip["short_caption"] for clip in task.clips)
        arrays = {
            **stacked(of_clips),
            "text_KLD": self._encode_texts(task, texts),
            "short_text_KLD": self._encode_texts(task, short_texts),
        }
        frames = [len(one) for one in of_clips]
        return arrays, index_rows(task, frames, self.encoder.recipe.fps), reused

    def close(self) -> None:
        self.shards.close()
        self.former.close()

    def _decoded(
        self, members: ShardMembers, clips: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], np.ndarray]]:
        """Each clip with its frames, in order, `decoders` clips decoded ahead."""

        def decode(clip: Mapping[str, Any]) -> np.ndarray:
            return self.encoder.decode(clip, members.read(clip))

        threads = ThreadPoolExecutor(self.decoders, thread_name_prefix="decode")
        try:
            waiting: deque[Any] = deque()
            for clip in clips:
                waiting.append((clip, threads.submit(decode, clip)))
                if len(waiting) > self.decoders:
                    ready, frames = waiting.popleft()
                    yield ready, frames.result()
            while waiting:
                ready, frames = waiting.popleft()
                yield ready, frames.result()
        finally:
            threads.shutdown(cancel_futures=True)

    def _encode_texts(self, task: PackTask, texts: Iterable[str]) -> np.ndarray:
        """(K, L, D) float16, in the order given."""
        found = ((text, self.former.text(task.takeover, text)) for text in texts)
        return np.stack(
            [self.encoder.text(text) if taken is None else taken for text, taken in found]
        )

    def _made_with(self) -> dict[str, Any]:
        digests = {role: named["digest"] for role, named in self.encoder.names.items()}
        return {"recipe": to_plain(self.encoder.recipe), "digests": digests}

    def _key(self, task: PackTask) -> str:
        """Hashes everything that decides the pack's bytes and rows."""
        return config_hash([self._made_with(), task.shard_sha256, to_plain(task.clips)])


def stacked(features: Sequence[ClipFeatures]) -> dict[str, np.ndarray]:
    """The frames of all clips one after another, by the name of their array."""
    stds = [f.latents_std_FCHW for f in features if f.latents_std_FCHW is not None]
    embeddings = [f.image_embeddings_FD for f in features if f.image_embeddings_FD is not None]
    arrays = {"latents_NCHW": np.concatenate([f.latents_FCHW for f in features])}
    if stds:
        arrays["latents_std_NCHW"] = np.concatenate(stds)
    if embeddings:
        arrays["image_embeddings_ND"] = np.concatenate(embeddings)
    return arrays


def index_rows(task: PackTask, frames: Sequence[int], fps: int) -> list[dict[str, Any]]:
    """The pack's rows of index.parquet; clip i has `frames[i]` frames."""
    text_rows = _row_of_text(clip["caption"] for clip in task.clips)
    short_text_rows = _row_of_text(clip["short_caption"] for clip in task.clips)
    rows, first_row = [], 0
    for clip, num_frames in zip(task.clips, frames, strict=True):
        rows.append(
            {
                **{name: clip[name] for name in ROW_COLUMNS},
                "pack": task.pack,
                "first_row": first_row,
                "num_frames": num_frames,
                "fps": float(fps),
                "text_row": text_rows[clip["caption"] or ""],
                "short_text_row": short_text_rows[clip["short_caption"] or ""],
            }
        )
        first_row += num_frames
    return rows


def _row_of_text(captions: Iterable[str | None]) -> dict[str, int]:
    """Each text once; the empty one first, for condition dropout and guidance."""
    texts = dict.fromkeys(["", *(caption or "" for caption in captions)])
    return {text: row for row, text in enumerate(texts)}
