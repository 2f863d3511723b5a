"""What there is to encode: the packs of a dataset's clips, each of bounded size, and what former
latents give of them. Networks are loaded for a dry run only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.records import SHARD_SCHEMA
from pipelines.storage import Store
from pipelines.storage.seal import check_files, unsealed
from pipelines.training.config import EncodeConfig
from pipelines.training.latents.on_disk import pack_name, read_header, remove_leftovers
from pipelines.training.latents.pack_encoder import PackTask
from pipelines.training.latents.recipe import Recipe, promised_frames, recipe_of
from pipelines.training.latents.reuse import FormerIndex, open_formers

TIER_OF_STAGE = {"base": "base", "refine": "high_res"}
CLIP_COLUMNS = (
    "clip_id", "source_id", "kind", "start_s", "end_s", "shard", "key", "content_sha256",
    "caption", "short_caption", "tiers", "license",
)  # fmt: skip
TABLES = ("clips.parquet", "shards.parquet")
BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class EncodeRequest:
    """A checked request: what there is to do."""

    config: EncodeConfig
    recipe: Recipe
    dataset: dict[str, str]
    tasks: list[PackTask]
    former: FormerIndex

    @property
    def num_clips(self) -> int:
        return sum(len(task.clips) for task in self.tasks)


def prepare(config: EncodeConfig) -> EncodeRequest:
    """Checks the request and lists the packs. Raises RequestError."""
    latents, dataset = Store.open(config.latents), Store.open(config.dataset)
    refuse_complete(latents)
    digest = checked_dataset(dataset)
    latents.check_writable()
    recipe = recipe_of(config)
    former = open_formers(config.reuse, latents, recipe)
    config = dataclasses.replace(config, latents=latents.uri, dataset=dataset.uri)
    tasks = [
        dataclasses.replace(task, takeover=former.takeover(task.clips))
        for task in pack_tasks(dataset, recipe, config.pack_clips)
    ]
    return EncodeRequest(config, recipe, {"uri": dataset.uri, "digest": digest}, tasks, former)


def refuse_complete(latents: Store) -> None:
    """Raises RequestError where latents are finished; what a job that was killed just then had yet
    to remove goes."""
    if done := read_header(latents):
        remove_leftovers(latents)
        raise RequestError(
            f"--latents {latents.uri}: already complete ({done.clips} clips, digest "
            f"{done.digest}); give another folder to encode again"
        )


def checked_dataset(dataset: Store) -> str:
    """The digest of a complete dataset whose tables are as they were written (shards are checked
    when they are read). Raises RequestError where there is none."""
    if not dataset.exists("dataset.json"):
        raise RequestError(
            f"--dataset {dataset.uri}: no dataset.json there; "
            "make a dataset with `python jobs/curate.py`"
        )
    try:
        manifest = unsealed(dataset.read_bytes("dataset.json"))
        digest = str(manifest["digest"])
    except (ValueError, KeyError) as error:
        raise RequestError(
            f"{dataset.path('dataset.json')}: not readable ({error}); restore it, or curate again"
        ) from error
    files = manifest.get("files", {})
    check_files(dataset, {n: h for n, h in files.items() if n.startswith(TABLES)}, "curate again")
    return digest


def pack_tasks(dataset: Store, recipe: Recipe, pack_clips: int) -> list[PackTask]:
    """The stage's clips by shard and clip id, at most `pack_clips` a pack.

    Depends on the dataset and the settings alone. Raises RequestError when there are no clips, or
    the dataset's tables do not fit each other.
    """
    shards = dataset.read_table("shards.parquet", columns=SHARD_SCHEMA.names).to_pylist()
    sha256_of = {shard["shard"]: shard["sha256"] for shard in shards}
    wanted = _clips_by_shard(dataset, recipe.stage)
    if unknown := sorted(set(wanted) - set(sha256_of)):
        raise RequestError(
            f"{dataset.uri}: clips.parquet names {unknown[0]}, which shards.parquet lacks; "
            "curate again"
        )
    tasks: list[PackTask] = []
    for shard, clips in sorted(wanted.items()):
        clips.sort(key=lambda clip: clip["clip_id"])
        for first in range(0, len(clips), pack_clips):
            chosen = clips[first : first + pack_clips]
            made_from = config_hash([to_plain(recipe), sha256_of[shard], chosen])[:12]
            name = pack_name(len(tasks), made_from)
            tasks.append(PackTask(shard, sha256_of[shard], name, chosen))
    if not tasks:
        raise RequestError(
            f"--dataset {dataset.uri}: no kept clip of tier {TIER_OF_STAGE[recipe.stage]}; "
            "curate more footage, or lower what the tier asks for"
        )
    return tasks


def _clips_by_shard(dataset: Store, stage: str) -> dict[str, list[dict[str, Any]]]:
    kept = dataset.read_table(
        "clips.parquet", columns=list(CLIP_COLUMNS), filters=[("verdict", "=", "kept")]
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for clip in kept.to_pylist():
        if TIER_OF_STAGE[stage] in clip["tiers"]:
            found.setdefault(clip["shard"], []).append(clip)
    return found


def dry_run_report(request: EncodeRequest) -> str:
    """Clips to encode and to take over, shards, packs and bytes, in a few lines for a person.

    Loads the networks, whose weights decide what may be taken over. Raises RequestError.
    """
    from pipelines.training.latents.clip_encoder import ClipEncoder

    config, recipe = request.config, request.recipe
    encoder = ClipEncoder(config.encoders, recipe)
    digests = {role: named["digest"] for role, named in encoder.names.items()}
    reused = sum(request.former.count(task.takeover, recipe, digests) for task in request.tasks)
    clips = [clip for task in request.tasks for clip in task.clips]
    frames = sum(promised_frames(clip, recipe) or recipe.max_frames for clip in clips)
    mib = estimated_bytes(request.tasks, frames, encoder, recipe) / 2**20
    shards = len({task.shard for task in request.tasks})
    return "\n".join(
        [
            f"stage     {recipe.stage}: {recipe.width_px}x{recipe.height_px} px, {recipe.fps} "
            f"frames/s, at most {recipe.max_frames} frames a clip, latent {recipe.latent}",
            f"dataset   {request.dataset['uri']}: {len(clips)} clips of {shards} shards, "
            f"about {frames} frames",
            f"clips     would encode {len(clips) - reused} clips and take over {reused}",
            f"latents   {config.latents}: {len(request.tasks)} packs, about {mib:.1f} MiB",
        ]
    )


def estimated_bytes(tasks: Sequence[PackTask], frames: int, encoder: Any, recipe: Recipe) -> int:
    """Of all packs together; `encoder` is a ClipEncoder."""
    channels, rows, columns = encoder.latent_shape
    per_frame = channels * rows * columns * (2 if recipe.latent == "moments" else 1)
    if recipe.with_image_embeddings:
        per_frame += encoder.clip.embed_dim
    texts = sum(
        len({"", *(clip[name] or "" for clip in task.clips)})
        for task in tasks
        for name in ("caption", "short_caption")
    )
    length, width = encoder.text_shape
    return BYTES_PER_VALUE * (frames * per_frame + texts * length * width)
