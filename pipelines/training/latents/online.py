"""Training straight from a small dataset: packs are encoded in memory when they are first wanted.

A pack is what `jobs/encode.py` would have written, byte for byte, so a run gives the same numbers
from a dataset as from its stored latents. Each worker encodes for itself and keeps what it made:
that is for small runs, and `MOST_CLIPS` and `MOST_BYTES` say how small.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from pipelines.config import RequestError, config_hash
from pipelines.storage import Store
from pipelines.training.config import EncodeConfig, OnlineConfig
from pipelines.training.latents.clip_encoder import ClipEncoder
from pipelines.training.latents.encode import header_of, settings_of
from pipelines.training.latents.encode_plan import checked_dataset, estimated_bytes, pack_tasks
from pipelines.training.latents.on_disk import INDEX_SCHEMA, Latents, Pack, open_latents
from pipelines.training.latents.pack_encoder import PackEncoder, PackTask, index_rows
from pipelines.training.latents.recipe import Recipe, promised_frames, recipe_of
from pipelines.training.latents.reuse import FormerFeatures

MOST_CLIPS = 2048
MOST_BYTES = 2 << 30


def is_dataset(uri: str) -> bool:
    """Whether a dataset lies there, from which latents can be had online."""
    return Store.open(uri).exists("dataset.json")


def open_stored_or_online(uri: str, stage: Literal["base", "refine"], how: OnlineConfig) -> Latents:
    """What `--latents` of a training names: stored latents, or a dataset, which is then encoded on
    the way. Raises RequestError."""
    if not is_dataset(uri):
        return open_latents(uri, stage)
    return open_latents_online(
        EncodeConfig(
            dataset=uri,
            stage=stage,
            latent=how.latent,
            encoders=how.encoders,
            sizes=how.sizes,
        )
    )


def open_latents_online(config: EncodeConfig) -> Latents:
    """The latents that `encode` would make of `config` (its `latents` and `reuse` are not used),
    made pack by pack as a feed asks for them.

    The digest is over what goes in (dataset, recipe, weights): the packs are not known yet. Raises
    RequestError when there is no dataset, it holds too much to be encoded on the way, or its clips
    do not say how long they are.
    """
    import pyarrow as pa

    dataset, recipe = Store.open(config.dataset), recipe_of(config)
    digest = checked_dataset(dataset)
    tasks = pack_tasks(dataset, recipe, config.pack_clips)
    _check_count(dataset, tasks)
    encoder = ClipEncoder(config.encoders, recipe)
    rows = {task.pack: _promised_rows(dataset, task, recipe) for task in tasks}
    all_rows = [row for of_pack in rows.values() for row in of_pack]
    frames = sum(row["num_frames"] for row in all_rows)
    _check_bytes(dataset, estimated_bytes(tasks, frames, encoder, recipe))
    digests = {role: named["digest"] for role, named in encoder.names.items()}
    header = header_of(
        recipe,
        {"uri": dataset.uri, "digest": digest},
        digest=config_hash(["online", digest, recipe, digests, config.pack_clips]),
        encoders=encoder.names,
        shapes=(encoder.latent_shape, encoder.text_shape),
        counts=(len(all_rows), frames),
        settings=settings_of(config),
    )
    former = FormerFeatures([], recipe, digests)
    packs = PackEncoder(encoder, dataset.uri, former, config.workers.decoders)
    return Latents(
        dataset,
        header,
        pa.Table.from_pylist(all_rows, schema=INDEX_SCHEMA),
        {task.pack: Pack(task.pack, len(task.clips), 0, "") for task in tasks},
        OnlinePacks(packs, {task.pack: task for task in tasks}, rows),
    )


class OnlinePacks:
    """Packs that are encoded when they are first asked for, and kept. Safe to call from several
    threads: one encodes, the others wait."""

    def __init__(
        self,
        packs: PackEncoder,
        tasks: dict[str, PackTask],
        promised: dict[str, list[dict[str, Any]]],
    ) -> None:
        """`promised`: the index rows that each pack must turn out to have."""
        self._packs, self._tasks, self._promised = packs, tasks, promised
        self._made: dict[str, dict[str, np.ndarray]] = {}
        self._lock = threading.Lock()

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Raises RequestError and ClipUnreadable, as encoding does."""
        with self._lock:
            if name not in self._made:
                arrays, rows, _ = self._packs.build(self._tasks[name])
                self._check(rows, self._promised[name])
                self._made[name] = arrays
            return self._made[name]

    def prepare(self, names: Iterable[str]) -> None:
        """Nothing is encoded ahead: training is using the processor."""

    def close(self) -> None:
        """What is made stays: the next phase's feed asks for the same packs."""

    def _check(self, rows: list[dict[str, Any]], promised: list[dict[str, Any]]) -> None:
        for row, expected in zip(rows, promised, strict=True):
            if row["num_frames"] != expected["num_frames"]:
                raise RequestError(
                    f"clip {row['clip_id']} has {row['num_frames']} frames, its times in "
                    f"clips.parquet give {expected['num_frames']}: this dataset cannot be encoded "
                    "on the way; make latents with `python jobs/encode.py`"
                )


def _promised_rows(dataset: Store, task: PackTask, recipe: Recipe) -> list[dict[str, Any]]:
    frames = []
    for clip in task.clips:
        promised = promised_frames(clip, recipe)
        if promised is None:
            raise RequestError(
                f"{dataset.uri}: clip {clip['clip_id']} has no times in clips.parquet; make "
                "latents with `python jobs/encode.py`"
            )
        frames.append(promised)
    return index_rows(task, frames, recipe.fps)


def _check_count(dataset: Store, tasks: list[PackTask]) -> None:
    clips = sum(len(task.clips) for task in tasks)
    if clips > MOST_CLIPS:
        raise RequestError(
            f"{dataset.uri}: {clips} clips are too many to be encoded on the way (most: "
            f"{MOST_CLIPS}); make latents with `python jobs/encode.py`"
        )


def _check_bytes(dataset: Store, size_bytes: int) -> None:
    if size_bytes > MOST_BYTES:
        raise RequestError(
            f"{dataset.uri}: about {size_bytes / 2**30:.1f} GiB of latents are too much to be kept "
            f"in memory (most: {MOST_BYTES / 2**30:.0f} GiB); make latents with "
            "`python jobs/encode.py`"
        )
