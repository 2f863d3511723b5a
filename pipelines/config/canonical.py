"""One way to write a configuration down, and its hash: what names results by what decides them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any


def to_plain(value: Any, where: str = "") -> Any:
    """Dataclasses, tuples and scalars as JSON values.

    Raises TypeError, naming the field, on anything that could be written in two ways or read in
    two (sets, objects, NaN, keys that are not text), so that equal configurations have equal hashes
    and unequal ones do not collide.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)]
        return {n: to_plain(getattr(value, n), _below(where, n)) for n in names}
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):  # 1 and "1" would be one name in JSON
                raise _no_canonical_form(key, _below(where, "a key"))
        return {_text(k, where): to_plain(value[k], _below(where, k)) for k in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v, f"{where}[{n}]") for n, v in enumerate(value)]
    if isinstance(value, str):
        return _text(value, where)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value) + 0.0  # -0.0 equals 0.0
    raise _no_canonical_form(value, where)


def _text(value: str, where: str) -> str:
    """JSON writes a character beyond U+FFFF as it writes the two surrogates that make one up; bytes
    of file names that are not UTF-8 (lone low surrogates) cannot be mistaken so."""
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _no_canonical_form(value, where) from None
    return value


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _no_canonical_form(value: Any, where: str) -> TypeError:
    shown = " ".join(repr(value)[:60].split())
    return TypeError(f"{where or 'value'}: {shown} ({type(value).__name__}) has no canonical form")


def config_hash(value: Any) -> str:
    """First 32 hex digits of the sha256 of the canonical JSON of `value`. Raises as `to_plain`."""
    text = json.dumps(to_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
