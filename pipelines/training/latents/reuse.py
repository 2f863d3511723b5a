"""Taking features over from former latents, so that only new clips and texts are encoded.

A clip's features are decided by its bytes, the recipe and the networks' weights; a text's by its
words, the text network and the kind of device. Where all of those are equal, what lies in a former
pack is what encoding would give, byte for byte. Former latents are other folders (`--reuse`), and
the commits that an unfinished run left in the folder that is written to.

The driver says for each pack what may be taken and from where (`Takeover`, from indexes alone); the
actors, which hold the networks, compare the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.latents.clip_encoder import ClipFeatures
from pipelines.training.latents.on_disk import (
    INDEX_FILE,
    PACKS_FILE,
    Pack,
    commits_in,
    read_header,
)
from pipelines.training.latents.packs import DamagedPack, PackReader
from pipelines.training.latents.recipe import Recipe, recipe_from

TEXT_COLUMNS = (("caption", "text_row", "text_KLD"),
                ("short_caption", "short_text_row", "short_text_KLD"))  # fmt: skip
INDEX_COLUMNS = ("kind", "content_sha256", "pack", "first_row", "num_frames",
                 *(name for of_text in TEXT_COLUMNS for name in of_text[:2]))  # fmt: skip
PACKS_OPEN = 64


@dataclass(frozen=True)
class Former:
    """Packs of one folder that were made with one recipe and the same weights (digests by role).

    `is_own`: left in the folder that is written to; nobody named it, so damage is passed over.
    """

    uri: str
    recipe: Recipe
    digests: dict[str, str]
    packs: dict[str, Pack]
    is_own: bool = False

    def gives_clips(self, recipe: Recipe, digests: Mapping[str, str]) -> bool:
        roles = ("vae", "clip") if recipe.with_image_embeddings else ("vae",)
        return self.recipe == recipe and all(self.digests[r] == digests[r] for r in roles)

    def gives_texts(self, recipe: Recipe, digests: Mapping[str, str]) -> bool:
        same = self.recipe.of_text() == recipe.of_text()
        return same and self.digests["clip"] == digests["clip"]


@dataclass(frozen=True)
class Takeover:
    """Where features lie, by clip id and by text: (number of the former, pack, first row, frames),
    and (number of the former, pack, array, row)."""

    clips: dict[str, list[tuple[int, str, int, int]]] = field(default_factory=dict)
    texts: dict[str, list[tuple[int, str, str, int]]] = field(default_factory=dict)


class FormerIndex:
    """What lies in former latents, by content: the driver's side."""

    def __init__(self, formers: Sequence[tuple[Former, Iterable[Mapping[str, Any]]]]) -> None:
        """Each former with the index rows of its packs."""
        self.formers = [former for former, _ in formers]
        self._clips: dict[tuple[str, str], list[tuple[int, str, int, int]]] = {}
        self._texts: dict[str, list[tuple[int, str, str, int]]] = {}
        for number, (_, rows) in enumerate(formers):
            for row in rows:
                self._add(number, row)

    def _add(self, number: int, row: Mapping[str, Any]) -> None:
        if sha256 := row["content_sha256"]:
            place = (number, row["pack"], row["first_row"], row["num_frames"])
            self._clips.setdefault((row["kind"], sha256), []).append(place)
        self._add_text("", (number, row["pack"], "text_KLD", 0))  # every pack begins with it
        for text, text_row, array in TEXT_COLUMNS:
            self._add_text(row[text] or "", (number, row["pack"], array, row[text_row]))

    def _add_text(self, text: str, place: tuple[int, str, str, int]) -> None:
        """One place of each former is enough: captions repeat."""
        found = self._texts.setdefault(text, [])
        if not found or found[-1][0] != place[0]:
            found.append(place)

    def takeover(self, clips: Sequence[Mapping[str, Any]]) -> Takeover:
        """What may be taken for these clips (rows of clips.parquet), if the weights are equal."""
        places = {c["clip_id"]: self._clips.get((c["kind"], c["content_sha256"])) for c in clips}
        texts = {"", *(c[name] or "" for c in clips for name, _, _ in TEXT_COLUMNS)}
        return Takeover(
            {clip_id: found for clip_id, found in places.items() if found},
            {text: self._texts[text] for text in sorted(texts) if text in self._texts},
        )

    def count(self, takeover: Takeover, recipe: Recipe, digests: Mapping[str, str]) -> int:
        """Clips that will be taken over by networks with these digests."""
        giving = [former.gives_clips(recipe, digests) for former in self.formers]
        return sum(any(giving[p[0]] for p in places) for places in takeover.clips.values())


def open_formers(reuse: str, own: Store, recipe: Recipe) -> FormerIndex:
    """The folders that `--reuse` names and what lies in `own`. Raises RequestError when a named
    folder holds nothing that clips can be taken from."""
    found = []
    for uri in filter(None, (part.strip() for part in reuse.split(","))):
        formers = list(_formers_in(Store.open(uri), is_own=False))
        if not formers:
            raise RequestError(
                f"--reuse {uri}: no latents there that clips can be taken from (none at all, or "
                "encoded by an earlier version of this code); leave it out"
            )
        found += formers
    found += _formers_in(own, is_own=True)
    # Made by another version or on another kind of device: not even their texts are of use.
    return FormerIndex([f for f in found if f[0].recipe.of_text() == recipe.of_text()])


def _formers_in(store: Store, is_own: bool) -> Iterable[tuple[Former, Iterable[Mapping[str, Any]]]]:
    header = read_header(store)
    if header is not None:
        if recipe := recipe_from(header.recipe):
            digests = {role: named["digest"] for role, named in header.encoders.items()}
            packs = {row["pack"]: Pack(**row) for row in store.read_table(PACKS_FILE).to_pylist()}
            rows = store.read_table(INDEX_FILE, columns=list(INDEX_COLUMNS)).to_pylist()
            yield Former(store.uri, recipe, digests, packs, is_own), rows
        return
    for commit in commits_in(store):
        recipe = recipe_from(commit.made_with.get("recipe", {}))
        digests = commit.made_with.get("digests", {})
        if recipe and {"vae", "clip"} <= set(digests):
            packs = {commit.pack.pack: commit.pack}
            yield Former(store.uri, recipe, digests, packs, is_own), commit.rows


class FormerFeatures:
    """Reads what may be taken over: an actor's side."""

    def __init__(
        self, formers: Sequence[Former], recipe: Recipe, digests: Mapping[str, str]
    ) -> None:
        self._formers, self._recipe, self._digests = formers, recipe, digests
        self._readers: dict[int, PackReader] = {}

    def clip(self, takeover: Takeover, clip_id: str) -> ClipFeatures | None:
        """None when there is nothing for this clip. Raises RequestError on a damaged pack."""
        for number, pack, first, num_frames in takeover.clips.get(clip_id, ()):
            if not self._formers[number].gives_clips(self._recipe, self._digests):
                continue
            if (arrays := self._arrays(number, pack)) is not None:
                rows = slice(first, first + num_frames)
                found = {
                    name: np.array(a[rows]) for name, a in arrays.items() if "text" not in name
                }
                return ClipFeatures(
                    found["latents_NCHW"],
                    found.get("latents_std_NCHW"),
                    found.get("image_embeddings_ND"),
                )
        return None

    def text(self, takeover: Takeover, text: str) -> np.ndarray | None:
        """(L, D) float16, or None. Raises RequestError on a damaged pack."""
        for number, pack, array, row in takeover.texts.get(text, ()):
            if not self._formers[number].gives_texts(self._recipe, self._digests):
                continue
            if (arrays := self._arrays(number, pack)) is not None:
                return np.array(arrays[array][row])
        return None

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _arrays(self, number: int, pack: str) -> dict[str, np.ndarray] | None:
        former = self._formers[number]
        if number not in self._readers:
            store = Store(former.uri)
            self._readers[number] = PackReader(store, former.packs, most_open=PACKS_OPEN)
        try:
            return self._readers[number].arrays(pack)
        except DamagedPack as error:
            if former.is_own:
                return None
            raise RequestError(f"--reuse {former.uri}: {error}; or leave it out") from error
