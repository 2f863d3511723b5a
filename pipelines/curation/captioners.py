"""Who writes the words: open_clip's CoCa, any OpenAI-compatible server, or a text file.

Every captioner does one thing: sampled frames of clips in, one line of words each out. The
`name` goes into the clip's row, so that a reader knows who said it.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from pipelines.config import RequestError
from pipelines.curation.caption_server import CaptionerFailed, ServerCaptioner
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.clip_score import in_batches
from pipelines.storage import Store, is_local

__all__ = [
    "Captioner",
    "CaptionerFailed",
    "CocaCaptioner",
    "ServerCaptioner",
    "check_backend",
    "frame_from_jpeg",
    "open_captioner",
    "sidecar_caption",
]

SIDECAR_MAX_BYTES = 1 << 20


class Captioner(Protocol):
    """Words for clips, given the JPEG bytes of each clip's sampled frames."""

    @property
    def name(self) -> str: ...

    def caption(self, frames_of_clips: Sequence[Sequence[bytes]]) -> list[str]: ...


def open_captioner(config: CaptionsConfig) -> Captioner:
    """The captioner that `captions.backend` names. Raises RequestError when it names none.

    A sidecar is not opened here: it belongs to a source (`sidecar_caption`).
    """
    scheme, _, rest = config.backend.partition(":")
    if scheme == "coca" and rest:
        return CocaCaptioner(rest, config.clips_per_batch)
    if scheme == "openai" and rest:
        return ServerCaptioner(rest.rstrip("/"), config)
    raise RequestError(
        f"captions.backend {config.backend!r}: expected coca:MODEL, openai:BASE_URL or sidecar"
    )


def check_backend(config: CaptionsConfig) -> None:
    """Raises RequestError for a backend that cannot answer, before any work is done."""
    if config.backend == "sidecar":
        return
    captioner = open_captioner(config)
    if isinstance(captioner, ServerCaptioner):
        captioner.check()


def frame_from_jpeg(data: bytes) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    from PIL import Image

    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


# --- CoCa ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CocaCaptioner:
    """Captions the middle sampled frame. Batches are padded to one size (see clip_score.py)."""

    model: str
    clips_per_batch: int

    @property
    def name(self) -> str:
        return f"coca:{self.model}"

    @cached_property
    def _model(self) -> Any:
        import torch

        from model.encoders import load_captioner_model

        return load_captioner_model(self.model, "cuda" if torch.cuda.is_available() else "cpu")

    def caption(self, frames_of_clips: Sequence[Sequence[bytes]]) -> list[str]:
        pictures = [frame_from_jpeg(frames[len(frames) // 2]) for frames in frames_of_clips]
        captions: dict[int, str] = {}
        for indices in _by_shape(pictures):
            for batch in in_batches(len(indices), self.clips_per_batch):
                chosen = [indices[i] for i in batch]
                frames_BHWC = np.stack([pictures[i] for i in chosen])
                texts = self._model.generate_captions(frames_BHWC, batch_size=len(chosen))
                captions.update(zip(chosen, texts, strict=True))
        return [captions[i] for i in range(len(pictures))]


def _by_shape(pictures: Sequence[np.ndarray]) -> list[list[int]]:
    """Indices of pictures that can be stacked."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, picture in enumerate(pictures):
        groups.setdefault(picture.shape, []).append(i)
    return list(groups.values())


# --- text files ------------------------------------------------------------------------------


def sidecar_caption(paths: Sequence[str]) -> str:
    """The first line with words of NAME.txt beside the first copy of a source that has one.

    '' where there is none: its clips are then dropped as `caption_empty`.
    """
    for path in paths:
        for line in _text_beside(path).splitlines():
            if line.strip():
                return line.strip()
    return ""


def _text_beside(path: str) -> str:
    folder, _, name = path.rpartition("/")
    beside = PurePosixPath(name).with_suffix(".txt").name if name else ".txt"
    if is_local(path):
        return _read_text(Path(folder or "/") / beside)
    try:
        with Store(folder).as_local_file(beside) as copy:
            return _read_text(copy)
    except FileNotFoundError:
        return ""


def _read_text(path: Path) -> str:
    """'' for anything but a readable regular file: opening a pipe would hang."""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return ""
        with open(path, "rb") as file:
            return file.read(SIDECAR_MAX_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
