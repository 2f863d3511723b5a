"""Parameters and tags in the form and size that MLflow keeps whole.

MLflow 3.17 cuts long values without a word unless told otherwise, and then refuses the whole
batch; so a value that is too long is named by its hash and the caller stores it as a file.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

from pipelines.config import config_hash, to_plain
from pipelines.lineage.fingerprint import sha256_of_text
from pipelines.storage import absolute_uri

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 250
RUN_NAME_CHARACTERS = 250

# Where and how, not what: a job that is started again elsewhere is the same job.
CIRCUMSTANCES = ("cluster", "tracking")


def job_identity(out: str, config: Any, *digests: str) -> str:
    """What decides the output at `out`, as `Tracker.run` wants it: the job's configuration, and
    the digests of inputs that may change under their names."""
    settings = {k: v for k, v in to_plain(config).items() if k not in CIRCUMSTANCES}
    return " ".join((absolute_uri(out), config_hash(settings), *digests))


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings and dataclasses as {"section.field": text}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        plain = to_plain(value) if hasattr(value, "__dataclass_fields__") else value
        if isinstance(plain, Mapping):
            flat.update(flatten(plain, f"{name}."))
        else:
            text = plain if isinstance(plain, str) else as_json(plain)
            flat[safe_key(name)] = clean(text)
    return flat


def as_json(value: Any, indent: int | None = None) -> str:
    """Text that is UTF-8: what came from a file's name may hold half a character."""
    return clean(json.dumps(value, ensure_ascii=False, default=str, indent=indent))


def clean(text: str) -> str:
    """PostgreSQL takes no NUL, and nothing takes a lone surrogate."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


@functools.lru_cache(4096)  # the same names at every step
def safe_key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)[:KEY_CHARACTERS]


def fit(values: Mapping[str, str], limit: int) -> tuple[dict[str, str], dict[str, str]]:
    """(what fits, with hashes in place of what does not; what does not)."""
    long = {key: value for key, value in values.items() if len(value) > limit}
    hashes = {key: f"sha256:{sha256_of_text(value)}" for key, value in long.items()}
    return {**values, **hashes}, long
