"""Packs -> batches: the samples of any global step, read straight from memory-mapped packs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.config import RequestError
from pipelines.training.latents import Latents
from pipelines.training.packs import PackReader
from pipelines.training.plan import ClipTable, MixtureConfig, StepPlan, held_out, usable

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sample:
    """One clip as one step sees it: `num_frames` frames from stored frame `start`, every
    `stride`-th. `row` is the clip's row in the index."""

    clip_id: str
    source_id: str
    row: int
    num_frames: int
    stride: int
    start: int
    fps: float


@dataclass(frozen=True)
class Batch:
    """The samples of one step, or one worker's share of them.

    `latents_BCFHW`, `text_BLD` and `image_embedding_BD` (the first frame's; None in refinement)
    are float32; `fps_B` float32. `share` is this worker's part of the step's samples, in [0, 1]:
    a worker that has none carries a copy of one sample at share 0, so that all workers step.
    """

    step: int
    epoch: int
    samples: tuple[Sample, ...]
    share: float
    latents_BCFHW: torch.Tensor
    text_BLD: torch.Tensor
    image_embedding_BD: torch.Tensor | None
    fps_B: torch.Tensor


class Feed:
    """The clips of one training phase, in the order the plan gives them."""

    def __init__(
        self,
        latents: Latents,
        mixture: MixtureConfig,
        *,
        seed: int,
        tier: str,
        text: str = "text",
        validation_clips: int = 0,
    ) -> None:
        """`text` names the captions trained on: "text" (long) or "short_text".

        Raises RequestError when no clip is left to train on.
        """
        self.latents, self.mixture, self.text = latents, mixture, text
        self.rows = _rows(latents.index)
        fits = usable(np.array(self.rows.num_frames), mixture, latents.header.fps)
        in_tier = [i for i, tiers in enumerate(self.rows.tiers) if tier in tiers]
        candidates = [i for i in in_tier if fits[i]]
        self.too_short = len(in_tier) - len(candidates)
        # Held out of every phase alike: chosen before the tier, from all clips there are.
        kept_back = held_out(self.rows.clip_ids, min(validation_clips, len(fits) // 10))
        self.train_rows = [i for i in candidates if self.rows.clip_ids[i] not in kept_back]
        self.validation_rows = [
            i for i in range(len(fits)) if fits[i] and self.rows.clip_ids[i] in kept_back
        ]
        if not self.train_rows:
            raise RequestError(
                f"{latents.store.uri}: no clip to train on ({len(in_tier)} clips of tier {tier}, "
                f"{self.too_short} of them shorter than mixture.frames {mixture.frames} asks for); "
                "curate more footage or change the mixture"
            )
        self.plan = StepPlan(self.rows.table(self.train_rows), mixture, latents.header.fps, seed)
        self._reader = PackReader(latents.store, latents.packs)

    def close(self) -> None:
        self._reader.close()

    def samples(self, step: int) -> tuple[int, tuple[Sample, ...]]:
        """(epoch, all samples of a step, over all workers), without reading any latents."""
        epoch, plan, span = self.plan.batch(step)
        columns = (plan.rows, plan.num_frames, plan.strides, plan.starts)
        drawn = zip(*(column[span].tolist() for column in columns), strict=True)
        samples = (self.sample(self.train_rows[row], *choice) for row, *choice in drawn)
        return epoch, tuple(samples)

    def sample(self, row: int, num_frames: int, stride: int, start: int) -> Sample:
        """The clip in index row `row`, cut as given (in stored frames)."""
        fps = self.latents.header.fps / stride
        clip_id, source_id = self.rows.clip_ids[row], self.rows.source_ids[row]
        return Sample(clip_id, source_id, row, num_frames, stride, start, fps)

    def read(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """One worker's share of a step: every `world`-th sample from `rank` on."""
        epoch, everyone = self.samples(step)
        mine = everyone[rank::world]
        share = len(mine) / len(everyone)
        return self.batch_of(mine or everyone[:1], step=step, epoch=epoch, share=share)

    def batches(self, first: int, end: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Steps first..end-1, each read while the one before it is trained on."""
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as ahead:
            upcoming = ahead.submit(self.read, first, rank, world) if first < end else None
            for step in range(first, end):
                assert upcoming is not None
                batch = upcoming.result()
                if step + 1 < end:
                    upcoming = ahead.submit(self.read, step + 1, rank, world)
                yield batch

    def batch_of(
        self, samples: tuple[Sample, ...], *, step: int, epoch: int, share: float
    ) -> Batch:
        """Reads the samples, which must be equally long. Raises DamagedPack."""
        import torch

        read = [self._read_sample(sample) for sample in samples]
        latents_BFCHW = torch.from_numpy(np.stack([r[0] for r in read])).float()
        embeddings = [r[2] for r in read if r[2] is not None]
        return Batch(
            step,
            epoch,
            samples,
            share,
            latents_BFCHW.transpose(1, 2).contiguous(),
            torch.from_numpy(np.stack([r[1] for r in read])).float(),
            torch.from_numpy(np.stack(embeddings)).float() if embeddings else None,
            torch.tensor([sample.fps for sample in samples], dtype=torch.float32),
        )

    def empty_text_LD(self) -> torch.Tensor:
        """Token features of the empty caption, for condition dropout. float32."""
        import torch

        arrays = self._reader.arrays(self.rows.packs[self.train_rows[0]])
        return torch.from_numpy(arrays[f"{self.text}_KLD"][0].astype(np.float32))

    def _read_sample(self, sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        row = sample.row
        arrays = self._reader.arrays(self.rows.packs[row])
        first = self.rows.first_rows[row] + sample.start
        end = first + (sample.num_frames - 1) * sample.stride + 1
        latents_FCHW = np.asarray(arrays["latents_NCHW"][first : end : sample.stride])
        text_row = (self.rows.text_rows if self.text == "text" else self.rows.short_text_rows)[row]
        text_LD = np.asarray(arrays[f"{self.text}_KLD"][text_row])
        embeddings = arrays.get("image_embeddings_ND")
        return latents_FCHW, text_LD, None if embeddings is None else np.asarray(embeddings[first])


@dataclass(frozen=True)
class _Rows:
    """The index as plain columns: looking into an Arrow table row by row is slow."""

    clip_ids: list[str]
    source_ids: list[str]
    packs: list[str]
    tiers: list[list[str]]
    first_rows: list[int]
    num_frames: list[int]
    text_rows: list[int]
    short_text_rows: list[int]

    def table(self, rows: list[int]) -> ClipTable:
        numbers = {name: i for i, name in enumerate(sorted(set(self.packs)))}
        return ClipTable(
            [self.clip_ids[i] for i in rows],
            [self.source_ids[i] for i in rows],
            np.array([numbers[self.packs[i]] for i in rows], dtype=np.int64),
            np.array([self.num_frames[i] for i in rows], dtype=np.int64),
        )


def _rows(index: pa.Table) -> _Rows:
    index = index.take(pc.sort_indices(index, [("clip_id", "ascending")]))
    names = ("clip_id", "source_id", "pack", "tiers", "first_row", "num_frames", "text_row")
    return _Rows(*(index[name].to_pylist() for name in (*names, "short_text_row")))
