"""One dataset shard -> one pack: decode each clip once, keep the features of its frames."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.shard_reader import MEDIA_ENDINGS
from pipelines.storage import Store, sha256_of_file
from pipelines.training.config import EncodersConfig, SizesConfig
from pipelines.training.latents import PackCommit, committed_pack, write_pack

FRAMES_PER_CALL = 32  # fixed, so that equal clips give equal bytes whatever is beside them


class ClipUnreadable(Exception):
    """A clip that curation wrote cannot be decoded: the dataset is broken, nothing is skipped."""


@dataclass(frozen=True)
class ShardTask:
    """A shard of the dataset and the clips wanted from it (columns of clips.parquet)."""

    dataset: str
    shard: str
    sha256: str
    pack: str
    clips: list[dict[str, Any]]


@dataclass(frozen=True)
class EncodedClip:
    """Features of one clip's F frames; float16."""

    latents_FCHW: np.ndarray
    image_embeddings_FD: np.ndarray | None


class ClipEncoder:
    """The frozen networks of one process, ready for one stage."""

    def __init__(
        self, encoders: EncodersConfig, sizes: SizesConfig, stage: str, device: str = "cpu"
    ) -> None:
        """Raises RequestError when named weights cannot be had."""
        from model.encoders import WeightsUnavailable, load_clip, load_vae

        self.sizes, self.stage = sizes, stage
        try:
            self.vae = load_vae(encoders.vae, device)
            self.clip = load_clip(encoders.clip, device)
        except WeightsUnavailable as error:
            raise RequestError(f"encoders: {error}") from error
        self.names = {
            "vae": {"name": encoders.vae, "digest": weights_digest(self.vae.vae)},
            "clip": {"name": encoders.clip, "digest": weights_digest(self.clip.model)},
        }

    def encode_shard(self, latents: Store, task: ShardTask) -> PackCommit:
        """Writes and commits the shard's pack, or returns the commit that is there already.

        Raises RequestError when the shard is not the one the dataset names, ClipUnreadable.
        """
        key = self._key(task)
        if done := committed_pack(latents, task.pack, key):
            return done
        dataset = Store(task.dataset)
        with dataset.as_local_file(f"shards/{task.shard}") as path:
            verify_shard(path, task)
            encoded = [self._encode(clip, data) for clip, data in read_members(path, task.clips)]
        arrays, rows = self._pack(task, encoded)
        return write_pack(latents, task.pack, key, arrays, rows)

    def _key(self, task: ShardTask) -> str:
        """Hashes everything that decides the pack's bytes and rows."""
        sizes = [*self.sizes.of(self.stage), self.sizes.fps, self.sizes.max_frames]
        clips = to_plain(task.clips)
        return config_hash([self.stage, sizes, self.names, task.sha256, clips])

    def _encode(self, clip: Mapping[str, Any], data: bytes) -> EncodedClip:
        frames_FHWC = self._frames(clip, data)
        latents, embeddings = [], []
        for first in range(0, len(frames_FHWC), FRAMES_PER_CALL):
            chunk_FHWC = frames_FHWC[first : first + FRAMES_PER_CALL]
            latents.append(self.vae.encode(frames_to_network(chunk_FHWC)).cpu().numpy())
            if self.stage == "base":
                images = self.clip.preprocess(chunk_FHWC)
                embeddings.append(self.clip.encode_image(images).cpu().numpy())
        return EncodedClip(
            np.concatenate(latents).astype(np.float16),
            np.concatenate(embeddings).astype(np.float16) if embeddings else None,
        )

    def _frames(self, clip: Mapping[str, Any], data: bytes) -> np.ndarray:
        from pipelines.media import MediaError, read_clip_frames

        width_px, height_px = self.sizes.of(self.stage)
        still = clip["kind"] == "image"
        try:
            frames_FHWC = read_clip_frames(
                data,
                fps=self.sizes.fps,
                width_px=width_px,
                height_px=height_px,
                max_frames=1 if still else self.sizes.max_frames,
            )
        except MediaError as error:
            raise ClipUnreadable(f"clip {clip['clip_id']} cannot be decoded: {error}") from error
        if len(frames_FHWC) == 0:
            raise ClipUnreadable(f"clip {clip['clip_id']} has no frames")
        return frames_FHWC

    def _pack(
        self, task: ShardTask, encoded: Sequence[EncodedClip]
    ) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
        texts = _texts(clip["caption"] for clip in task.clips)
        short_texts = _texts(clip["short_caption"] for clip in task.clips)
        arrays = {
            "latents_NCHW": np.concatenate([e.latents_FCHW for e in encoded]),
            "text_KLD": self._encode_texts(texts),
            "short_text_KLD": self._encode_texts(short_texts),
        }
        if self.stage == "base":
            vectors = [e.image_embeddings_FD for e in encoded if e.image_embeddings_FD is not None]
            arrays["image_embeddings_ND"] = np.concatenate(vectors)
        rows, first_row = [], 0
        for clip, one in zip(task.clips, encoded, strict=True):
            num_frames = len(one.latents_FCHW)
            rows.append(
                {
                    **{name: clip[name] for name in ("clip_id", "source_id", "kind", "caption")},
                    **{name: clip[name] for name in ("short_caption", "tiers", "license")},
                    "pack": task.pack,
                    "first_row": first_row,
                    "num_frames": num_frames,
                    "fps": float(self.sizes.fps),
                    "text_row": texts.index(clip["caption"] or ""),
                    "short_text_row": short_texts.index(clip["short_caption"] or ""),
                }
            )
            first_row += num_frames
        return arrays, rows

    def _encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(K, L, D) float16, one text a call: the result must not depend on its neighbours."""
        tokens = [self.clip.encode_text_tokens([text]).cpu().numpy() for text in texts]
        return np.concatenate(tokens).astype(np.float16)


def frames_to_network(frames_FHWC: np.ndarray) -> Any:
    """uint8 RGB (F, H, W, 3) -> float32 tensor (F, 3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(0, 3, 1, 2) / 127.5 - 1.0


def weights_digest(module: Any) -> str:
    """32 hex digits over the names, types, shapes and values of all tensors of a network."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def verify_shard(path: Path, task: ShardTask) -> None:
    """A tar that was cut on a member's border reads without any error, so hashes decide."""
    where = f"{task.dataset}/shards/{task.shard}"
    if not path.is_file():
        raise RequestError(f"{where}: missing, though shards.parquet names it; curate again")
    if sha256_of_file(path) != task.sha256:
        raise RequestError(
            f"{where}: damaged, its sha256 is not the one in shards.parquet; curate again"
        )


def read_members(
    shard: Path, clips: Iterable[Mapping[str, Any]]
) -> Iterable[tuple[Mapping[str, Any], bytes]]:
    """Each clip with its media's bytes, by member name; nothing is extracted to a path."""
    with tarfile.open(shard) as tar:
        for clip in clips:
            name = f"{clip['key']}.{MEDIA_ENDINGS[clip['kind']]}"
            try:
                member = tar.extractfile(name)
            except KeyError:
                member = None
            if member is None:
                raise RequestError(f"{shard.name} has no {name}, though clips.parquet names it")
            yield clip, member.read()


def _texts(captions: Iterable[str | None]) -> list[str]:
    """Each text once; the empty one first, for condition dropout and guidance."""
    return list(dict.fromkeys(["", *(caption or "" for caption in captions)]))
