"""Who writes the words: open_clip's CoCa, any OpenAI-compatible server, or a text file.

Every captioner does one thing: sampled frames of clips in, one line of words each out. The
`name` goes into the clip's row, so that a reader knows who said it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipelines.config import RequestError
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.clip_score import in_batches, sample_frames

SERVER_THREADS = 8
RETRY_PAUSE_S = 0.5
SIDECAR_MAX_BYTES = 1 << 20


class CaptionerFailed(RuntimeError):
    """The captioner itself is at fault, not the clip: the job stops, what is done stays done."""


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


# --- a server --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ServerCaptioner:
    """Chat completions with image inputs (the OpenAI shape: vLLM, SGLang, llama.cpp, ...)."""

    base_url: str
    config: CaptionsConfig

    @property
    def name(self) -> str:
        return f"openai:{self.config.model or 'default'}"

    def check(self) -> None:
        """Raises RequestError when no server answers (any HTTP status counts as an answer)."""
        try:
            self._send("GET", "/models", None)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise RequestError(
                    f"captions.backend {self.base_url}: the server refuses the key (HTTP "
                    f"{error.code}); put it in the environment variable {self.config.api_key_env}"
                ) from error
        except (OSError, ValueError) as error:
            raise RequestError(
                f"captions.backend {self.base_url}: no server answers ({error}); "
                "start it, or give another captions.backend"
            ) from error

    def caption(self, frames_of_clips: Sequence[Sequence[bytes]]) -> list[str]:
        with ThreadPoolExecutor(SERVER_THREADS) as pool:
            return list(pool.map(self._caption_one, frames_of_clips))

    def _caption_one(self, frames: Sequence[bytes]) -> str:
        request = self._request_for(frames)
        for attempt in range(1, self.config.tries + 1):
            try:
                answer = json.loads(self._send("POST", "/chat/completions", request))
                return str(answer["choices"][0]["message"]["content"] or "")
            except urllib.error.HTTPError as error:
                fault = f"HTTP {error.code} {error.read(300).decode(errors='replace')}"
                if error.code < 500 and error.code not in (408, 429):
                    break
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                fault = f"{type(error).__name__}: {error}"
            if attempt < self.config.tries:
                time.sleep(RETRY_PAUSE_S * 2 ** (attempt - 1))
        raise CaptionerFailed(f"{self.base_url}: no caption ({' '.join(fault.split())[:300]})")

    def _request_for(self, frames: Sequence[bytes]) -> bytes:
        chosen = [frames[i] for i in sample_frames(len(frames), self.config.frames)]
        pictures = [
            {
                "type": "image_url",
                "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(f).decode()},
            }
            for f in chosen
        ]
        content = [{"type": "text", "text": self.config.prompt}, *pictures]
        body = {
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 4 * self.config.max_words,
            "temperature": 0,
            "seed": 0,
            **({"model": self.config.model} if self.config.model else {}),
        }
        return json.dumps(body).encode()

    def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.config.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            self.base_url + path, data=body, headers=headers, method=method
        )
        if request.type not in ("http", "https"):
            raise ValueError("expected http:// or https://")
        with urllib.request.urlopen(request, timeout=self.config.timeout_s) as response:
            return bytes(response.read())


# --- text files ------------------------------------------------------------------------------


def sidecar_caption(paths: Sequence[str]) -> str:
    """The first line with words of NAME.txt beside the first copy of a source that has one.

    '' where there is none: its clips are then dropped as `caption_empty`.
    """
    for path in paths:
        for line in _read_text(Path(path).with_suffix(".txt")).splitlines():
            if line.strip():
                return line.strip()
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
