"""Captions from any OpenAI-compatible server: vLLM, SGLang, llama.cpp, a cloud.

A fault of the server is tried again, then stops the job: to call a clip bad because a server was
down would be wrong. A refusal is about the clip: it becomes its (useless) words, and the clip is
dropped as `caption_refused`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipelines.config import RequestError
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.clip_score import sample_frames

THREADS = 8
RETRY_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
ANSWER_MAX_BYTES = 1 << 20
#: The words of a clip that a server would not describe, where it gives none of its own.
REFUSED = "I cannot describe this."
_REFUSAL_CODES = ("content_filter", "content_policy", "safety")
_THOUGHTS = re.compile(r"<think>.*?(</think>|$)", re.DOTALL | re.IGNORECASE)


class CaptionerFailed(RuntimeError):
    """The captioner itself is at fault, not the clip: the job stops, what is done stays done."""


@dataclass(frozen=True)
class ServerCaptioner:
    """Chat completions with image inputs, a request a clip, a few at a time."""

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
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RequestError(
                f"captions.backend {self.base_url}: no server answers ({error}); "
                "start it, or give another captions.backend"
            ) from error

    def caption(self, frames_of_clips: Sequence[Sequence[bytes]]) -> list[str]:
        """One text for each clip, in order. Raises CaptionerFailed."""
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(self._caption_one, frames_of_clips))

    def _caption_one(self, frames: Sequence[bytes]) -> str:
        request, pause_s = self._request_for(frames), RETRY_PAUSE_S
        for left in reversed(range(self.config.tries)):
            try:
                return words_of(json.loads(self._send("POST", "/chat/completions", request)))
            except urllib.error.HTTPError as error:
                said = error.read(2000).decode(errors="replace")
                if error.code == 400 and any(code in said.lower() for code in _REFUSAL_CODES):
                    return REFUSED
                fault = f"HTTP {error.code} {said}"
                if error.code < 500 and error.code not in (408, 429):
                    break
                pause_s = _asked_pause_s(error.headers.get("Retry-After"), pause_s)
            except (OSError, ValueError, LookupError, TypeError) as error:
                fault = f"{type(error).__name__}: {error}"
            except http.client.HTTPException as error:
                fault = f"{type(error).__name__}: {error}"
            if left:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
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
        """The whole answer, within `timeout_s` altogether: a socket's own limit is per packet."""
        headers = {"Content-Type": "application/json"}
        if key := os.environ.get(self.config.api_key_env):
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(
            self.base_url + path, data=body, headers=headers, method=method
        )
        if request.type not in ("http", "https"):
            raise ValueError("expected http:// or https://")
        until_s = time.monotonic() + self.config.timeout_s
        with urllib.request.urlopen(request, timeout=self.config.timeout_s) as response:
            answer = b""
            while piece := response.read1(1 << 16):
                answer += piece
                if time.monotonic() > until_s:
                    raise TimeoutError(f"no whole answer in {self.config.timeout_s:g} s")
                if len(answer) > ANSWER_MAX_BYTES:
                    raise ValueError(f"an answer of more than {ANSWER_MAX_BYTES} bytes")
            if response.length:
                raise ConnectionError(f"the answer broke off, {response.length} bytes missing")
        return answer


def words_of(answer: Any) -> str:
    """The text of a chat completion, without the model's thoughts; its refusal where it gives one.

    Raises LookupError, TypeError or ValueError for anything but a chat completion.
    """
    choice = answer["choices"][0]
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):  # in parts
        content = " ".join(part["text"] for part in content if part.get("type") == "text")
    text = _THOUGHTS.sub("", content or "").strip()
    if not text and (message.get("refusal") or choice.get("finish_reason") in _REFUSAL_CODES):
        return REFUSED
    return text


def _asked_pause_s(retry_after: str | None, otherwise_s: float) -> float:
    """Seconds that a busy server asks to wait; a date, or nonsense, is not followed."""
    try:
        asked_s = float(retry_after or "")
    except ValueError:
        return otherwise_s
    return min(max(asked_s, otherwise_s), LONGEST_PAUSE_S) if asked_s >= 0 else otherwise_s
