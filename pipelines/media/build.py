"""Which FFmpeg this is. Several lie in one environment; the one that PyAV carries does our work."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

import av
from av._core import library_meta  # public only as text, through `python -m av --version`

from pipelines.media.program import program_build


@functools.cache
def _build() -> tuple[dict[str, str], str, str]:
    versions = {name: ".".join(map(str, meta["version"])) for name, meta in library_meta.items()}
    licenses = sorted({meta["license"] for meta in library_meta.values()})
    configured = {name: meta["configuration"] for name, meta in library_meta.items()}
    text = json.dumps(configured, sort_keys=True)
    return versions, "; ".join(licenses), hashlib.sha256(text.encode()).hexdigest()[:32]


def ffmpeg_build() -> dict[str, Any]:
    """{version, license, configuration_sha256 (32 hex digits), libraries: {name: version}}.

    Two builds of one version decode and encode differently when they were configured differently
    (another encoder, another resampler), so the options count too. Only their hash is kept: they
    name folders of the machine that compiled them. `encoder` is there when FFMPEG_BINARY names
    another one that encodes. Raises RequestError for a binary that is none.
    """
    libraries, license_text, configuration_sha256 = _build()
    encoder = program_build()
    return {
        **({"encoder": encoder} if encoder else {}),
        "version": av.ffmpeg_version_info,
        "license": license_text,
        "configuration_sha256": configuration_sha256,
        "libraries": dict(sorted(libraries.items())),
    }
