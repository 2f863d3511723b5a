"""Consent from the C2PA manifest inside a file: what it says of training and data mining.

C2PA's and CAWG's training-and-data-mining assertions name uses (`c2pa.ai_generative_training`,
`cawg.data_mining`, ...) that are allowed, notAllowed or constrained. Curation and training are all
four uses: clips are mined, captioned by a model, and train one. So each of them can refuse.

The manifest is read in the child process that also decodes: it is bytes from a stranger in a large
parser. Nothing is fetched, and no list of trusted signers is asked: a signature says that the file
is as its signer left it. Where it is broken, a refusal in it still counts; a permission does not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipelines.curation.rights.manifest_signs import manifest_format
from pipelines.curation.rights.stated import Rights
from pipelines.media import MediaError
from pipelines.sandbox.calls import SandboxConfig, SandboxFault, run_limited

ASSERTIONS = ("c2pa.training-mining", "cawg.training-mining")
USES = ("ai_generative_training", "ai_training", "data_mining", "ai_inference")
PERMITTING_USE = "ai_generative_training"
MAX_MANIFEST_CHARACTERS = 16 << 20
_SETTINGS = {"verify": {"verify_trust": False, "remote_manifest_fetch": False, "ocsp_fetch": False}}

#: (manifest is the file's own and unbroken, entry such as c2pa.data_mining, what it says)
Entry = tuple[bool, str, str]


def rights_inside(path: str, size_bytes: int, sandbox: SandboxConfig) -> Rights:
    """The consent that the file's own manifest states. Bad bytes never raise: a sign of a
    manifest that cannot be read is a consent that is unknown."""
    try:
        media_type = manifest_format(path)
    except OSError:
        return Rights()
    if media_type is None:
        return Rights()
    try:
        limits = sandbox.limits(size_bytes).of_files(path)
        found = run_limited(limits, entries_in, path, media_type)
    except MediaError as error:
        return Rights(consent=f"unknown (C2PA manifest: {error.reason})")
    except SandboxFault:
        return Rights(consent="unknown (C2PA manifest: unreadable)")
    return Rights(consent=consent_of(found))


def consent_of(entries: Iterable[Entry]) -> str | None:
    """`no (c2pa.data_mining: notAllowed)`, the same with `constrained` or `yes`; None where
    nothing is said. A refusal of any use is a no; only that of training a generator is a yes."""
    said = sorted({(name, use, counts) for counts, name, use in entries}, key=_by_use)
    for stance, uses in (("no", ("notAllowed",)), ("constrained", ("constrained",))):
        for name, use, _ in said:
            if use in uses:
                return f"{stance} ({name}: {use})"
    for name, use, counts in said:
        if use == "allowed" and counts and name.endswith(f".{PERMITTING_USE}"):
            return f"yes ({name}: allowed)"
    return None


def _by_use(entry: tuple[str, str, bool]) -> tuple[int, str, str, bool]:
    name, use, counts = entry
    return USES.index(name.partition(".")[2]), name, use, counts


# --- in the child process ----------------------------------------------------------------------


def entries_in(path: str, media_type: str) -> list[Entry]:
    """The entries of every manifest in the file, the file's own and those of what it was made of.

    Raises MediaError `broken` where there is no manifest to be read.
    """
    import c2pa

    context = c2pa.Context.from_dict(_SETTINGS)
    try:
        with open(path, "rb") as file, c2pa.Reader(media_type, file, context=context) as reader:
            text = reader.json()
        if len(text) > MAX_MANIFEST_CHARACTERS:
            raise MediaError("too_large", "manifest")
        told = json.loads(text)
    except (c2pa.C2paError, ValueError, RecursionError) as error:
        if "ManifestNotFound" in str(error):
            return []
        raise MediaError("broken", str(error)[:200]) from None
    whole = told.get("validation_state") in ("Valid", "Trusted")
    active = told.get("active_manifest")
    return [
        (whole and label == active, name, use)
        for label, manifest in _mapping(told.get("manifests")).items()
        for name, use in _entries_of(manifest)
    ]


def _entries_of(manifest: Any) -> Iterator[tuple[str, str]]:
    assertions = _mapping(manifest).get("assertions")
    for assertion in assertions if isinstance(assertions, list) else ():
        label = str(_mapping(assertion).get("label"))
        if not label.startswith(ASSERTIONS):  # a second one of a kind ends in __1
            continue
        entries = _mapping(_mapping(_mapping(assertion).get("data")).get("entries"))
        for name, entry in entries.items():
            if name.partition(".")[0] in ("c2pa", "cawg") and name.partition(".")[2] in USES:
                use = _mapping(entry).get("use")
                yield name, use if use in ("allowed", "notAllowed") else "constrained"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
