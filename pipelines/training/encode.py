"""Dataset -> latents, shard by shard on actors that hold the frozen networks (Ray Data).

Each shard becomes one pack with its own commit, so an interrupted encode goes on where it was;
`latents.json` is written last. Only small summaries travel through Ray.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import numpy as np

from pipelines.config import RequestError, config_hash, from_plain, to_plain
from pipelines.lineage.tracking import Tracker
from pipelines.progress import Progress
from pipelines.records import SHARD_SCHEMA
from pipelines.storage import Store
from pipelines.training.clip_encoder import ClipEncoder, ClipUnreadable, ShardTask
from pipelines.training.config import EncodeConfig
from pipelines.training.latents import (
    SCHEMA_VERSION,
    LatentsHeader,
    committed_pack,
    latents_digest,
    pack_name,
    publish,
    read_header,
)

TIER_OF_STAGE = {"base": "base", "refine": "high_res"}
CLIP_COLUMNS = (
    "clip_id", "source_id", "kind", "shard", "key", "caption", "short_caption", "tiers", "license",
)  # fmt: skip
THREADS_PER_ACTOR = 2  # fixed: float sums depend on it, and packs must not differ by machine


@dataclasses.dataclass(frozen=True)
class EncodeRequest:
    """A checked request: what there is to do."""

    config: EncodeConfig
    dataset: dict[str, str]
    tasks: list[ShardTask]

    @property
    def num_clips(self) -> int:
        return sum(len(task.clips) for task in self.tasks)


class EncodeActor:
    """Ray Data's callable class: one shard task in, one summary row out.

    What is wrong with the data comes back as a row too: an exception would be retried.
    """

    def __init__(self, plain_config: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(THREADS_PER_ACTOR)
        self.config = from_plain(EncodeConfig, plain_config)
        self.latents = Store.open(self.config.latents)
        self.device = "cuda" if self.config.workers.gpus else "cpu"
        self.encoder: ClipEncoder | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[str]]:
        return {"summary": [self._encode(text) for text in batch["task"].tolist()]}

    def _encode(self, text: str) -> str:
        try:
            if self.encoder is None:
                config = self.config
                self.encoder = ClipEncoder(config.encoders, config.sizes, config.stage, self.device)
            commit = self.encoder.encode_shard(self.latents, ShardTask(**json.loads(text)))
        except RequestError as error:
            return json.dumps({"wrong_request": str(error)})
        except ClipUnreadable as error:
            return json.dumps({"unreadable": str(error)})
        encoder = self.encoder
        shape = [encoder.vae.latent_channels, *self._latent_size()]
        return json.dumps(
            {
                "pack": commit.pack.pack,
                "key": commit.key,
                "encoders": encoder.names,
                "latent_shape": shape,
                "text_shape": [encoder.clip.context_length, encoder.clip.text_width],
            }
        )

    def _latent_size(self) -> list[int]:
        assert self.encoder is not None
        factor = self.encoder.vae.downsample_factor
        width_px, height_px = self.config.sizes.of(self.config.stage)
        return [-(-height_px // factor), -(-width_px // factor)]


def prepare(config: EncodeConfig) -> EncodeRequest:
    """Checks the request and lists the shards. Raises RequestError."""
    latents, dataset = Store.open(config.latents), Store.open(config.dataset)
    if done := read_header(latents):
        raise RequestError(
            f"--latents {config.latents}: already complete ({done.clips} clips, digest "
            f"{done.digest}); give another folder to encode again"
        )
    if not dataset.exists("dataset.json"):
        raise RequestError(
            f"--dataset {config.dataset}: no dataset.json there; "
            "make a dataset with `python jobs/curate.py`"
        )
    latents.check_writable()
    digest = str(dataset.read_json("dataset.json")["digest"])
    config = dataclasses.replace(config, latents=latents.uri, dataset=dataset.uri)
    tasks = _shard_tasks(dataset, config.stage)
    if not tasks:
        raise RequestError(
            f"--dataset {config.dataset}: no kept clip of tier {TIER_OF_STAGE[config.stage]}; "
            "curate more footage, or lower what the tier asks for"
        )
    return EncodeRequest(config, {"uri": dataset.uri, "digest": digest}, tasks)


def encode(request: EncodeRequest) -> dict[str, Any]:
    """Encodes what is not committed yet and publishes. Needs Ray to be up.

    Raises RequestError (a damaged shard, weights not to be had) and ClipUnreadable.
    """
    config, started_s = request.config, time.monotonic()
    tracker = Tracker.open(config.tracking)
    tags = {"dataset.digest": request.dataset["digest"], "dataset.uri": request.dataset["uri"]}
    params = {**to_plain(config), "stage": config.stage}
    with tracker.run("encode", f"encode {config.stage}", params, tags) as run:
        run.log_input_dataset(
            "dataset", request.dataset["uri"], request.dataset["digest"], "encoding"
        )
        summaries = _run_on_actors(request)
        header = _publish(request, summaries)
        run.set_tags({"latents.digest": header.digest, "latents.uri": config.latents})
        run.log_input_dataset("latents", config.latents, header.digest, "output")
        seconds = round(time.monotonic() - started_s, 1)
        run.log_metrics(
            {"clips": header.clips, "frames": header.frames, "seconds": seconds}, step=0
        )
        return {
            "latents": config.latents,
            "digest": header.digest,
            "clips": header.clips,
            "frames": header.frames,
            "packs": len(summaries),
            "run_id": run.run_id,
            "seconds": seconds,
        }


def _shard_tasks(dataset: Store, stage: str) -> list[ShardTask]:
    clips = dataset.read_table("clips.parquet", columns=[*CLIP_COLUMNS, "verdict"]).to_pylist()
    shards = dataset.read_table("shards.parquet", columns=SHARD_SCHEMA.names).to_pylist()
    wanted: dict[str, list[dict[str, Any]]] = {}
    for clip in clips:
        if clip.pop("verdict") == "kept" and TIER_OF_STAGE[stage] in clip["tiers"]:
            wanted.setdefault(clip["shard"], []).append(clip)
    known = {shard["shard"]: shard["sha256"] for shard in shards}
    if unknown := sorted(set(wanted) - set(known)):
        raise RequestError(
            f"{dataset.uri}: clips.parquet names {unknown[0]}, which shards.parquet lacks; "
            "curate again"
        )
    names = sorted(wanted)
    return [
        ShardTask(
            dataset.uri,
            name,
            known[name],
            pack_name(number),
            sorted(wanted[name], key=lambda clip: clip["clip_id"]),
        )
        for number, name in enumerate(names)
    ]


def _run_on_actors(request: EncodeRequest) -> list[dict[str, Any]]:
    import ray

    workers = request.config.workers
    cores = int(ray.cluster_resources().get("CPU", 1))
    # One core stays free: actors that take them all starve the tasks that feed them (ray#44687).
    actors = min(workers.actors or max(1, cores - 1), len(request.tasks))
    items = [{"task": json.dumps(dataclasses.asdict(task))} for task in request.tasks]
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        EncodeActor,
        fn_constructor_args=(to_plain(request.config),),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1 if cores > 1 else 0.5,
        num_gpus=workers.gpus or None,
    )
    summaries = []
    clips_of = {task.pack: len(task.clips) for task in request.tasks}
    with Progress(request.num_clips, "clips", f"encoding ({request.config.stage})") as progress:
        for row in rows.iter_rows():
            summary = json.loads(row["summary"])
            _raise_if_failed(summary)
            summaries.append(summary)
            progress.advance(clips_of[summary["pack"]])
    return summaries


def _raise_if_failed(summary: dict[str, Any]) -> None:
    if message := summary.get("wrong_request"):
        raise RequestError(message)
    if message := summary.get("unreadable"):
        raise ClipUnreadable(message)


def _publish(request: EncodeRequest, summaries: list[dict[str, Any]]) -> LatentsHeader:
    config = request.config
    store = Store(config.latents)
    found = (committed_pack(store, summary["pack"], summary["key"]) for summary in summaries)
    commits = [commit for commit in found if commit is not None]
    if len(commits) != len(summaries):
        raise RequestError(
            f"--latents {config.latents}: packs were removed while they were made; run it again"
        )
    first = summaries[0]
    width_px, height_px = config.sizes.of(config.stage)
    settings = {"stage": config.stage, "sizes": config.sizes, "encoders": config.encoders}
    header = LatentsHeader(
        SCHEMA_VERSION,
        latents_digest([c.pack for c in commits], first["encoders"], request.dataset["digest"]),
        config.stage,
        request.dataset,
        first["encoders"],
        width_px,
        height_px,
        config.sizes.fps,
        tuple(first["latent_shape"]),
        tuple(first["text_shape"]),
        clips=sum(commit.pack.clips for commit in commits),
        frames=sum(row["num_frames"] for commit in commits for row in commit.rows),
        config=to_plain(settings),
        config_hash=config_hash(settings),
    )
    publish(store, header, commits)
    return header
