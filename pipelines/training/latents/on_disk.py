"""The latents on disk: what `jobs/encode.py` writes and training reads.

    LATENTS/latents.json            written last: names everything below, and the digest; sealed
            index.parquet           one row per clip: where its frames lie, its words, its tiers
            packs.parquet           pack, clips, bytes, sha256
            packs/pack-00000-HASH.safetensors   HASH of what the pack is made from
            _work/pack-00000-HASH.json          its commit: an interrupted encode goes on

A pack holds the frames of all its clips one after another, at one rate and one size, so any
length, start and slower rate of a clip is a strided slice: no clip is decoded twice. Shapes:
N frames of all clips, C latent channels, H W latent size, D embedding width, K texts, L tokens.

    latents_NCHW         float16, the VAE posterior's mean times the VAE's scaling factor
    latents_std_NCHW     float16, its standard deviation times the same (recipe `latent: moments`
                         only): a draw is mean + std * noise
    image_embeddings_ND  float16, CLIP vector of each frame (base stage only)
    text_KLD             float16, token features of the captions; row 0 is the empty caption
    short_text_KLD       the same of the short captions; row 0 is the empty caption
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipelines.config import RequestError
from pipelines.failpoints import failpoint
from pipelines.storage import Store, sha256_of_bytes
from pipelines.storage.seal import check_files, hashes_of, sealed_bytes, unsealed

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)  # 1: before clips could be taken over; a mean, no recipe
HEADER_FILE = "latents.json"
INDEX_FILE = "index.parquet"
PACKS_FILE = "packs.parquet"
STAGES = ("base", "refine")

INDEX_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("pack", pa.string(), nullable=False),
        pa.field("first_row", pa.int64(), nullable=False),
        pa.field("num_frames", pa.int32(), nullable=False),
        pa.field("fps", pa.float64(), nullable=False),
        ("caption", pa.string()),
        ("short_caption", pa.string()),
        pa.field("tiers", pa.list_(pa.string()), nullable=False),
        pa.field("text_row", pa.int32(), nullable=False),
        pa.field("short_text_row", pa.int32(), nullable=False),
        ("license", pa.string()),
        ("content_sha256", pa.string()),
    ]
)

PACKS_SCHEMA = pa.schema(
    [
        pa.field("pack", pa.string(), nullable=False),
        pa.field("clips", pa.int64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Pack:
    """A row of packs.parquet. `pack` is the file's path below LATENTS."""

    pack: str
    clips: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackCommit:
    """One finished pack and the index rows of its clips.

    `key` hashes all that went in (shard, clips, encoders, settings): a commit made from anything
    else is not taken over by a rerun. `made_with` is the recipe and the encoders, from which single
    clips of it can be taken over (reuse.py).
    """

    key: str
    pack: Pack
    rows: list[dict[str, Any]]
    made_with: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LatentsHeader:
    """latents.json. `latent_shape` is (C, H, W); `encoders` maps a role to its name and digest;
    `recipe` is a `recipe.Recipe`, all else that decides the bytes of a clip; `files` maps each
    table to its sha256."""

    schema_version: int
    digest: str
    stage: str
    dataset: dict[str, str]
    encoders: dict[str, dict[str, str]]
    width_px: int
    height_px: int
    fps: int
    latent_shape: tuple[int, int, int]
    text_shape: tuple[int, int]
    clips: int
    frames: int
    config: dict[str, Any]
    config_hash: str
    recipe: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def latent(self) -> str:
        """What `latents_NCHW` is: "mean", or "moments" with a standard deviation beside it."""
        return str(self.recipe.get("latent", "mean"))


class PackArrays(Protocol):
    """Where a feed gets the arrays of packs from."""

    def arrays(self, name: str) -> dict[str, np.ndarray]: ...

    def prepare(self, names: Iterable[str]) -> None:
        """These are wanted soon: work that can be done in the background begins."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Latents:
    """Complete latents, open for reading. `in_memory` holds packs that lie in no store (encoded
    online)."""

    store: Store
    header: LatentsHeader
    index: pa.Table
    packs: dict[str, Pack]
    in_memory: PackArrays | None = None


# --- writing -------------------------------------------------------------------------------


def pack_name(number: int, made_from: str = "") -> str:
    """`made_from`: a hash of the pack's inputs. With it, a run never overwrites the packs that an
    unfinished run over another dataset left in the same folder, whose clips it may take over."""
    suffix = f"-{made_from}" if made_from else ""
    return f"packs/pack-{number:05d}{suffix}.safetensors"


def _commit_name(pack: str) -> str:
    return f"_work/{Path(pack).stem}.json"


def write_pack(
    store: Store,
    name: str,
    key: str,
    arrays: Mapping[str, np.ndarray],
    rows: list[dict[str, Any]],
    made_with: dict[str, Any] | None = None,
) -> PackCommit:
    """Publishes a pack, then its commit. Equal arrays give equal bytes."""
    from safetensors.numpy import save

    data = save({k: np.ascontiguousarray(v) for k, v in sorted(arrays.items())})
    pack = Pack(name, len(rows), len(data), sha256_of_bytes(data))
    commit = PackCommit(key, pack, rows, made_with or {})
    failpoint("pack.before_write")
    store.write_bytes(name, data)
    failpoint("pack.before_commit")
    store.write_json(_commit_name(name), asdict(commit))
    failpoint("pack.after_commit")
    return commit


def committed_pack(store: Store, name: str, key: str) -> PackCommit | None:
    """The commit of this pack if it was made from the same inputs, else None."""
    commit = _read_commit(store, _commit_name(name)) if store.exists(_commit_name(name)) else None
    return commit if commit is not None and commit.key == key else None


def commits_in(store: Store) -> list[PackCommit]:
    """Every pack committed there, of whatever run. Commits that cannot be read are left out."""
    found = (_read_commit(store, n) for n in store.list_files("_work") if n.endswith(".json"))
    return [commit for commit in found if commit is not None]


def _read_commit(store: Store, name: str) -> PackCommit | None:
    try:
        saved = store.read_json(name)
        pack = Pack(**saved["pack"])
        commit = PackCommit(saved["key"], pack, saved["rows"], saved.get("made_with", {}))
    except (ValueError, KeyError, TypeError):
        return None
    return commit if store.exists(commit.pack.pack) else None


def latents_digest(
    packs: Sequence[Pack], encoders: Mapping[str, Mapping[str, str]], dataset_digest: str
) -> str:
    """32 hex digits over the packs' bytes, the encoders' weights and the dataset's digest."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "packs": [p.sha256 for p in sorted(packs, key=lambda p: p.pack)],
        "encoders": {role: encoders[role]["digest"] for role in sorted(encoders)},
        "dataset": dataset_digest,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def publish(store: Store, header: LatentsHeader, commits: Sequence[PackCommit]) -> None:
    """Writes the tables, and latents.json last."""
    ordered = sorted(commits, key=lambda c: c.pack.pack)
    rows = [row for commit in ordered for row in commit.rows]
    failpoint("latents.before_index")
    store.write_table(INDEX_FILE, pa.Table.from_pylist(rows, schema=INDEX_SCHEMA))
    packs = [asdict(commit.pack) for commit in ordered]
    failpoint("latents.before_packs")
    store.write_table(PACKS_FILE, pa.Table.from_pylist(packs, schema=PACKS_SCHEMA))
    header = replace(header, files=hashes_of(store, (INDEX_FILE, PACKS_FILE)))
    failpoint("latents.before_header")
    store.publish_bytes(HEADER_FILE, sealed_bytes(asdict(header)))
    failpoint("latents.after_header")


def remove_leftovers(store: Store) -> None:
    """Packs and commits of unfinished runs over something else, and half-written files of killed
    ones. Call when latents.json stands and nobody else writes. Raises RequestError, and removes
    nothing, when the table that says what belongs there is damaged."""
    header = read_header(store)
    if header is None or not header.files:
        return
    check_files(store, header.files, "encode again")
    store.remove_temporaries()
    packs = set(store.read_table(PACKS_FILE, columns=["pack"])["pack"].to_pylist())
    wanted = packs | {_commit_name(pack) for pack in packs}
    for name in [*store.list_files("packs"), *store.list_files("_work")]:
        if name not in wanted:
            store.remove(name)


# --- reading -------------------------------------------------------------------------------


def read_header(store: Store) -> LatentsHeader | None:
    """latents.json, or None where there is none. Raises RequestError when it is not ours, or not
    as it was written."""
    if not store.exists(HEADER_FILE):
        return None
    try:
        plain = unsealed(store.read_bytes(HEADER_FILE))
        shapes = {name: tuple(plain[name]) for name in ("latent_shape", "text_shape")}
        header = LatentsHeader(**{**plain, **shapes})
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"{store.path(HEADER_FILE)}: not readable as latents ({error}); encode again"
        ) from error
    if header.schema_version not in READABLE_VERSIONS:
        raise RequestError(
            f"{store.path(HEADER_FILE)}: schema version {header.schema_version}, this code reads "
            f"{' and '.join(map(str, READABLE_VERSIONS))}; encode again"
        )
    return header


def open_latents(uri: str, stage: str) -> Latents:
    """Opens complete latents. Raises RequestError when missing, unfinished, of another stage, or
    when a table is not as it was written (packs: `check_packs`)."""
    store = Store.open(uri)
    header = read_header(store)
    if header is None:
        raise RequestError(
            f"--latents {uri}: no {HEADER_FILE} there; make latents with "
            f"`python jobs/encode.py --stage {stage} --dataset ... --latents {uri}`"
        )
    if header.stage != stage:
        raise RequestError(
            f"--latents {uri}: these are latents of the {header.stage} stage; "
            f"give latents encoded with `--stage {stage}`"
        )
    check_files(store, header.files, "encode again")
    index = store.read_table(INDEX_FILE)
    packs = [Pack(**row) for row in store.read_table(PACKS_FILE).to_pylist()]
    return Latents(store, header, index, {pack.pack: pack for pack in packs})
