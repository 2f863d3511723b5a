"""Packs -> batches: the samples of any global step, read straight from memory-mapped packs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pipelines.config import RequestError
from pipelines.training.feed.clip_rows import ClipRows
from pipelines.training.feed.plan import ClipTable, MixtureConfig, StepPlan, held_out, usable
from pipelines.training.latents.on_disk import Latents, PackArrays
from pipelines.training.latents.packs import PackReader

if TYPE_CHECKING:
    import torch

READ_THREADS = 2
BATCHES_AHEAD = 3  # read while one is trained on: bounds memory
CLIPS_AHEAD = 2048  # whose packs are fetched and verified before they are wanted
BLOCKS_OPEN = 3  # of packs: the one being read, its stragglers' and the next


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
    are float32; `fps_B` float32. `latents_std_BCFHW` is there where latents were encoded with
    `--latent moments`: then `latents_BCFHW` is a mean, and mean + std * noise what to train on.
    `share` is this worker's part of the step's samples, in [0, 1]: a worker that has none carries a
    copy of one sample at share 0, so that all workers step.
    """

    step: int
    epoch: int
    samples: tuple[Sample, ...]
    share: float
    latents_BCFHW: torch.Tensor
    text_BLD: torch.Tensor
    image_embedding_BD: torch.Tensor | None
    fps_B: torch.Tensor
    latents_std_BCFHW: torch.Tensor | None = None


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
        pin: bool = False,
    ) -> None:
        """`text` names the captions trained on: "text" (long) or "short_text". `pin`: batches lie
        in page-locked memory, from which copies to a GPU run beside its work.

        Raises RequestError when no clip is left to train on.
        """
        self.latents, self.mixture, self.text, self.pin = latents, mixture, text, pin
        self.rows = ClipRows.of(latents.index)
        fits = usable(self.rows.num_frames, mixture, latents.header.fps)
        in_tier = self.rows.in_tier(tier)
        self.too_short = int((in_tier & ~fits).sum())
        # Held out of every phase alike: chosen before the tier, from all clips there are.
        kept_back = np.zeros(len(self.rows), dtype=bool)
        kept_back[held_out(self.rows.keys, min(validation_clips, len(self.rows) // 10))] = True
        self.train_rows = np.flatnonzero(in_tier & fits & ~kept_back)
        self.validation_rows: list[int] = np.flatnonzero(fits & kept_back).tolist()
        if not len(self.train_rows):
            raise RequestError(
                f"{latents.store.uri}: no clip to train on ({int(in_tier.sum())} clips of tier "
                f"{tier}, {self.too_short} of them shorter than mixture.frames {mixture.frames} "
                "asks for); curate more footage or change the mixture"
            )
        table = ClipTable(
            self.rows.keys[self.train_rows],
            self.rows.pack_numbers[self.train_rows],
            self.rows.num_frames[self.train_rows],
        )
        self.plan = StepPlan(table, mixture, latents.header.fps, seed)
        self._reader = latents.in_memory or PackReader(
            latents.store, latents.packs, most_open=BLOCKS_OPEN * mixture.packs_per_block
        )

    @property
    def packs(self) -> PackArrays:
        """Where the arrays come from."""
        return self._reader

    def close(self) -> None:
        self._reader.close()

    def samples(self, step: int) -> tuple[int, tuple[Sample, ...]]:
        """(epoch, all samples of a step, over all workers), without reading any latents."""
        epoch, plan, span = self.plan.batch(step)
        columns = (plan.rows, plan.num_frames, plan.strides, plan.starts)
        drawn = zip(*(column[span].tolist() for column in columns), strict=True)
        samples = (self.sample(int(self.train_rows[row]), *choice) for row, *choice in drawn)
        return epoch, tuple(samples)

    def sample(self, row: int, num_frames: int, stride: int, start: int) -> Sample:
        """The clip in index row `row`, cut as given (in stored frames)."""
        fps = self.latents.header.fps / stride
        rows = self.rows
        return Sample(rows.clip_id(row), rows.source_id(row), row, num_frames, stride, start, fps)

    def read(self, step: int, rank: int = 0, world: int = 1) -> Batch:
        """One worker's share of a step: every `world`-th sample from `rank` on."""
        epoch, everyone = self.samples(step)
        mine = everyone[rank::world]
        share = len(mine) / len(everyone)
        return self.batch_of(mine or everyone[:1], step=step, epoch=epoch, share=share)

    def batches(self, first: int, end: int, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Steps first..end-1, the next few read while one is trained on."""
        ahead = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="feed")
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(first, end):
                if step == first or step % self._steps_between_looks == 0:
                    self._look_ahead(step)
                waiting.append(ahead.submit(self.read, step, rank, world))
                if len(waiting) > BATCHES_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            ahead.shutdown(cancel_futures=True)

    def batch_of(
        self, samples: tuple[Sample, ...], *, step: int, epoch: int, share: float
    ) -> Batch:
        """Reads the samples, which must be equally long. Raises DamagedPack.

        Each value is touched once: widened and laid out in its place in the batch.
        """
        import torch

        packs = [self._reader.arrays(self.rows.pack(sample.row)) for sample in samples]
        text_rows = self.rows.text_rows if self.text == "text" else self.rows.short_text_rows
        means, stds, texts, embeddings = [], [], [], []
        for sample, arrays in zip(samples, packs, strict=True):
            first = int(self.rows.first_rows[sample.row]) + sample.start
            end = first + (sample.num_frames - 1) * sample.stride + 1
            frames = slice(first, end, sample.stride)
            means.append(arrays["latents_NCHW"][frames].swapaxes(0, 1))
            if (of_pack := arrays.get("latents_std_NCHW")) is not None:
                stds.append(of_pack[frames].swapaxes(0, 1))
            texts.append(arrays[f"{self.text}_KLD"][text_rows[sample.row]])
            if (of_pack := arrays.get("image_embeddings_ND")) is not None:
                embeddings.append(of_pack[first])
        return Batch(
            step,
            epoch,
            samples,
            share,
            self._joined(means),
            self._joined(texts),
            self._joined(embeddings) if embeddings else None,
            torch.tensor([sample.fps for sample in samples], dtype=torch.float32),
            self._joined(stds) if stds else None,
        )

    def empty_text_LD(self) -> torch.Tensor:
        """Token features of the empty caption, for condition dropout. float32."""
        arrays = self._reader.arrays(self.rows.pack(int(self.train_rows[0])))
        return self._joined([arrays[f"{self.text}_KLD"][0]])[0]

    def _joined(self, parts: Sequence[np.ndarray]) -> torch.Tensor:
        """float32 (B, ...) of B equal shapes, in one pass over float16 of any layout."""
        import torch

        joined = torch.empty(len(parts), *parts[0].shape, dtype=torch.float32, pin_memory=self.pin)
        for place, part in zip(joined, parts, strict=True):
            place.copy_(torch.from_numpy(part))
        return joined

    @property
    def _steps_between_looks(self) -> int:
        return max(1, CLIPS_AHEAD // (2 * self.mixture.max_clips_per_step))

    def _look_ahead(self, step: int) -> None:
        """Announces the packs of the clips that come next, to the end of the epoch."""
        _, plan, span = self.plan.batch(step)
        rows = self.train_rows[plan.rows[span.start : span.start + CLIPS_AHEAD]]
        numbers, first_use = np.unique(self.rows.pack_numbers[rows], return_index=True)
        in_order = numbers[np.argsort(first_use)].tolist()
        self._reader.prepare(self.rows.pack_names[number] for number in in_order)
