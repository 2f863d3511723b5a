"""Parameters and tags in the form and size that MLflow keeps whole.

MLflow 3.17 cuts long values without a word unless told otherwise, and then refuses the whole
batch; so a value that is too long is named by its hash and the caller stores it as a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pipelines.config import to_plain
from pipelines.lineage.fingerprint import sha256_of_text

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 250


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings and dataclasses as {"section.field": text}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        plain = to_plain(value) if hasattr(value, "__dataclass_fields__") else value
        if isinstance(plain, Mapping):
            flat.update(flatten(plain, f"{name}."))
        else:
            flat[safe_key(name)] = plain if isinstance(plain, str) else as_json(plain)
    return flat


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def safe_key(name: str) -> str:
    return re.sub(r"[^\w\-. :/]", "_", name)[:KEY_CHARACTERS]


def fit(values: Mapping[str, str], limit: int) -> tuple[dict[str, str], dict[str, str]]:
    """(what fits, with hashes in place of what does not; what does not)."""
    long = {key: value for key, value in values.items() if len(value) > limit}
    hashes = {key: f"sha256:{sha256_of_text(value)}" for key, value in long.items()}
    return {**values, **hashes}, long
