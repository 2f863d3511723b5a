"""Dataset -> latents, pack by pack on actors that hold the frozen networks (Ray Data).

A pack is one task and one commit, so an interrupted encode goes on where it was; `latents.json` is
written last. Only small summaries travel through Ray.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from typing import Any

import numpy as np

from pipelines import metrics
from pipelines.config import RequestError, config_hash, from_plain, to_plain
from pipelines.job import JobEnded, is_disk_full
from pipelines.lineage.tracking import Tracker, job_identity
from pipelines.progress import Progress
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
from pipelines.training.config import EncodeConfig
from pipelines.training.latents.clip_encoder import ClipEncoder, ClipUnreadable
from pipelines.training.latents.encode_plan import EncodeRequest, refuse_complete
from pipelines.training.latents.on_disk import (
    SCHEMA_VERSION,
    LatentsHeader,
    PackCommit,
    committed_pack,
    latents_digest,
    publish,
    remove_leftovers,
)
from pipelines.training.latents.pack_encoder import PackEncoder, PackTask
from pipelines.training.latents.recipe import Recipe, recipe_of
from pipelines.training.latents.reuse import Former, FormerFeatures, Takeover

THREADS_PER_ACTOR = 2  # fixed: float sums depend on it, and packs must not differ by machine
MOST_BLOCKS = 4096  # of Ray Data: a block is what one call of an actor works on


class EncodeActor:
    """Ray Data's callable class: one pack task in, one summary row out.

    What is wrong with the data comes back as a row too: an exception would be retried.
    """

    def __init__(self, plain_config: dict[str, Any], formers: list[Former]) -> None:
        import torch

        torch.set_num_threads(THREADS_PER_ACTOR)
        self.config = from_plain(EncodeConfig, plain_config)
        self.latents = Store.open(self.config.latents)
        self.formers = formers
        self.packs: PackEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"summary": [self._encode(text) for text in batch["task"].tolist()]}

    def _encode(self, text: str) -> str:
        try:
            self.packs = self.packs or self._open()
            made = self.packs.write(self.latents, task_from_json(text))
        except RequestError as error:
            return json.dumps({"wrong_request": str(error)})
        except ClipUnreadable as error:
            return json.dumps({"unreadable": str(error)})
        except OSError as error:
            if not is_disk_full(error):
                raise
            return json.dumps({"disk_full": str(error.filename or self.config.latents)})
        except JobEnded as error:  # the store is out of reach
            return json.dumps({"ended": str(error)})
        encoder = self.packs.encoder
        return json.dumps(
            {
                "pack": made.commit.pack.pack,
                "key": made.commit.key,
                "clips": made.commit.pack.clips,
                "reused": made.reused,
                "encoders": encoder.names,
                "latent_shape": encoder.latent_shape,
                "text_shape": encoder.text_shape,
            }
        )

    def _open(self) -> PackEncoder:
        config, recipe = self.config, recipe_of(self.config)
        encoder = ClipEncoder(config.encoders, recipe)
        digests = {role: named["digest"] for role, named in encoder.names.items()}
        former = FormerFeatures(self.formers, recipe, digests)
        return PackEncoder(encoder, config.dataset, former, config.workers.decoders)


def encode(request: EncodeRequest) -> dict[str, Any]:
    """Encodes what is neither committed nor to be had from former latents, and publishes. Needs
    Ray to be up.

    Raises RequestError (a damaged shard, weights not to be had, another job at work there) and
    ClipUnreadable.
    """
    store = Store(request.config.latents)
    with writer_lock(store, "--latents"):
        refuse_complete(store)  # by a job that was at work until now
        return _encode(request)


def _encode(request: EncodeRequest) -> dict[str, Any]:
    config, started_s = request.config, time.monotonic()
    tracker = Tracker.open(config.tracking)
    tags = {"dataset.digest": request.dataset["digest"], "dataset.uri": request.dataset["uri"]}
    params = {**to_plain(config), "stage": config.stage}
    identity = job_identity(config.latents, config, request.dataset["digest"])
    with tracker.run("encode", f"encode {config.stage}", params, tags, identity=identity) as run:
        run.log_input_dataset(
            "dataset", request.dataset["uri"], request.dataset["digest"], "encoding"
        )
        summaries = _run_on_actors(request)
        header = _publish(request, summaries)
        run.set_tags({"latents.digest": header.digest, "latents.uri": config.latents})
        run.log_input_dataset("latents", config.latents, header.digest, "output")
        seconds = round(time.monotonic() - started_s, 1)
        reused = sum(summary["reused"] for summary in summaries)
        counts = {"clips": header.clips, "reused": reused, "frames": header.frames}
        run.log_metrics({**counts, "seconds": seconds}, step=0)
        return {
            "latents": config.latents,
            "digest": header.digest,
            **counts,
            "packs": len(summaries),
            "run_id": run.run_id,
            "seconds": seconds,
        }


def task_from_json(text: str) -> PackTask:
    plain = json.loads(text)
    return PackTask(**{**plain, "takeover": Takeover(**plain["takeover"])})


def _run_on_actors(request: EncodeRequest) -> list[dict[str, Any]]:
    import ray

    workers = request.config.workers
    cores = int(ray.cluster_resources().get("CPU", 1))
    # One core stays free: actors that take them all starve the tasks that feed them (ray#44687).
    actors = min(workers.actors or max(1, cores - 1), len(request.tasks))
    items = [{"task": json.dumps(dataclasses.asdict(task))} for task in request.tasks]
    rows = ray.data.from_items(items, override_num_blocks=min(len(items), MOST_BLOCKS)).map_batches(
        EncodeActor,
        fn_constructor_args=(to_plain(request.config), request.former.formers),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1 if cores > 1 else 0.5,
        num_gpus=workers.gpus or None,
    )
    summaries, reused = [], 0
    with Progress(request.num_clips, "clips", f"encoding ({request.config.stage})") as progress:
        for row in rows.iter_rows():
            summary = json.loads(row["summary"])
            _raise_if_failed(summary)
            summaries.append(summary)
            reused += summary["reused"]
            metrics.tell_pack(request.config.stage, summary["clips"], summary["reused"])
            progress.advance(summary["clips"], reused=reused)
    return summaries


def _raise_if_failed(summary: dict[str, Any]) -> None:
    if message := summary.get("wrong_request"):
        raise RequestError(message)
    if message := summary.get("unreadable"):
        raise ClipUnreadable(message)
    if place := summary.get("disk_full"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
    if message := summary.get("ended"):
        raise JobEnded(message)


def _publish(request: EncodeRequest, summaries: list[dict[str, Any]]) -> LatentsHeader:
    store = Store(request.config.latents)
    found = (committed_pack(store, summary["pack"], summary["key"]) for summary in summaries)
    commits = [commit for commit in found if commit is not None]
    if len(commits) != len(summaries):
        raise RequestError(
            f"--latents {store.uri}: packs were removed while they were made; run it again"
        )
    first = summaries[0]
    header = header_of(
        request.recipe,
        request.dataset,
        digest=latents_digest(
            [commit.pack for commit in commits], first["encoders"], request.dataset["digest"]
        ),
        encoders=first["encoders"],
        shapes=(first["latent_shape"], first["text_shape"]),
        counts=_counts(commits),
        settings=settings_of(request.config),
    )
    publish(store, header, commits)
    remove_leftovers(store)
    return header


def _counts(commits: list[PackCommit]) -> tuple[int, int]:
    """(clips, frames)"""
    frames = sum(row["num_frames"] for commit in commits for row in commit.rows)
    return sum(commit.pack.clips for commit in commits), frames


def settings_of(config: EncodeConfig) -> dict[str, Any]:
    """What of the configuration decides the latents."""
    names = ("stage", "latent", "pack_clips", "sizes", "encoders")
    return {name: getattr(config, name) for name in names}


def header_of(
    recipe: Recipe,
    dataset: dict[str, str],
    *,
    digest: str,
    encoders: dict[str, dict[str, str]],
    shapes: tuple[Any, Any],
    counts: tuple[int, int],
    settings: dict[str, Any],
) -> LatentsHeader:
    """`shapes`: of a frame's latents and of a text's features; `counts`: clips and frames."""
    return LatentsHeader(
        SCHEMA_VERSION,
        digest,
        recipe.stage,
        dataset,
        encoders,
        recipe.width_px,
        recipe.height_px,
        recipe.fps,
        tuple(shapes[0]),
        tuple(shapes[1]),
        clips=counts[0],
        frames=counts[1],
        config=to_plain(settings),
        config_hash=config_hash(settings),
        recipe=to_plain(recipe),
    )
