"""Files that name others (dataset.json, latents.json, checkpoint.json) vouch for every byte.

Such a file carries a sha256 of itself, its seal, and one of each table or file it names. Disks and
networks flip bits, and a flipped bit in a table of captions or in a learning rate is no error that
any reader would see: it would be trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from pipelines.config import RequestError
from pipelines.storage import Store, sha256_of_file

SEAL = "seal"


def sealed_bytes(value: Mapping[str, Any]) -> bytes:
    """The JSON object as a file's bytes, with its seal in it. Equal values give equal bytes."""
    return _text({**value, SEAL: _seal_of(value)})


def unsealed(data: bytes) -> dict[str, Any]:
    """The object of such a file, without its seal. One written by hand, without a seal, is taken
    as it is. Raises ValueError when a byte is not the one that was written."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    seal = value.pop(SEAL, None)
    if seal is not None and (seal != _seal_of(value) or data != sealed_bytes(value)):
        raise ValueError("damaged: its bytes are not those that were written")
    return value


def hashes_of(store: Store, names: Collection[str]) -> dict[str, str]:
    """The sha256 of each file, and of each part where a name is a folder; of those that exist."""
    found = {}
    for name in names:
        for file in store.list_files(name) or [name]:
            if store.exists(file):
                found[file] = _sha256(store, file)
    return found


def check_files(store: Store, files: Mapping[str, str], again: str) -> None:
    """Raises RequestError naming the first file that is missing or has other bytes; `again` says
    how to mend that."""
    for name, sha256 in files.items():
        if not store.exists(name):
            raise RequestError(f"{store.path(name)}: missing; {again}")
        if _sha256(store, name) != sha256:
            raise RequestError(
                f"{store.path(name)}: damaged, its bytes are not those that were written; {again}"
            )


def _sha256(store: Store, name: str) -> str:
    with store.as_local_file(name) as path:
        return sha256_of_file(path)


def _seal_of(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(_text(json.loads(json.dumps(value)))).hexdigest()


def _text(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
