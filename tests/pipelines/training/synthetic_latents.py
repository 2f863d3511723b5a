"""Small latents on disk, written through the real writer, for tests that need no encoder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from pipelines.config import to_plain
from pipelines.storage import Store
from pipelines.training.latents.on_disk import (
    SCHEMA_VERSION,
    LatentsHeader,
    latents_digest,
    pack_name,
    publish,
    write_pack,
)
from pipelines.training.latents.recipe import Recipe

ENCODERS = {
    "vae": {"name": "embedded", "digest": "0" * 32},
    "clip": {"name": "embedded", "digest": "1" * 32},
}
DATASET = {"uri": "nowhere", "digest": "d" * 32}


def hex_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def write_latents(
    folder: Path,
    stage: str = "base",
    *,
    lengths: list[int] | None = None,
    clips_per_pack: int = 8,
    size: tuple[int, int] = (4, 6),
    text_shape: tuple[int, int] = (5, 128),
    premium_every: int = 2,
    latent: str = "mean",
) -> Path:
    """Clips of the given lengths (stored frames), with random features; returns the folder."""
    lengths = lengths or [1, 9, 17, 33] * 6
    store = Store.open(str(folder))
    commits = []
    for number, first in enumerate(range(0, len(lengths), clips_per_pack)):
        chosen = lengths[first : first + clips_per_pack]
        arrays = _arrays(number, chosen, stage, size, text_shape, latent)
        rows, first_row = [], 0
        for place, num_frames in enumerate(chosen):
            tiers = ["base", "high_res"]
            if (first + place) % premium_every == 0:
                tiers.append("premium")
            rows.append(
                {
                    "clip_id": hex_id("clip", first + place),
                    "source_id": hex_id("source", (first + place) // 3),
                    "kind": "image" if num_frames == 1 else "video",
                    "pack": pack_name(number),
                    "first_row": first_row,
                    "num_frames": num_frames,
                    "fps": 16.0,
                    "caption": f"caption {place}",
                    "short_caption": f"short {place}",
                    "tiers": tiers,
                    "text_row": place + 1,
                    "short_text_row": place + 1,
                    "license": None,
                    "content_sha256": None,
                }
            )
            first_row += num_frames
        commits.append(write_pack(store, pack_name(number), f"key {number}", arrays, rows))
    header = LatentsHeader(
        SCHEMA_VERSION,
        latents_digest([c.pack for c in commits], ENCODERS, DATASET["digest"]),
        stage,
        DATASET,
        ENCODERS,
        size[1] * 4,
        size[0] * 4,
        16,
        (4, *size),
        text_shape,
        len(lengths),
        sum(lengths),
        {},
        "c" * 32,
        to_plain(Recipe(stage, size[1] * 4, size[0] * 4, 16, max(lengths), latent)),
    )
    publish(store, header, commits)
    return folder


def _arrays(
    number: int,
    lengths: list[int],
    stage: str,
    size: tuple[int, int],
    text_shape: tuple[int, int],
    latent: str,
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    frames = sum(lengths)
    shapes = {
        "latents_NCHW": (frames, 4, *size),
        "text_KLD": (len(lengths) + 1, *text_shape),
        "short_text_KLD": (len(lengths) + 1, *text_shape),
    }
    if stage == "base":
        shapes["image_embeddings_ND"] = (frames, text_shape[1])
    arrays = {name: rng.standard_normal(s).astype(np.float16) for name, s in shapes.items()}
    if latent == "moments":
        stds = rng.random(shapes["latents_NCHW"]) * 0.1 + 0.01
        arrays["latents_std_NCHW"] = stds.astype(np.float16)
    return arrays
