"""From a source or a clip to the right: where it went, and which checkpoints it reached."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.lineage.catalog import Catalog, Entry, base_of, checkpoints_of
from pipelines.lineage.page.graph import (
    LAYER_OF,
    LAYERS_PER_BASE,
    SHORT_HEX,
    Draft,
    Node,
    counts_in_words,
    file_name,
    source_name,
    steps_in_words,
)

Rows = list[dict[str, Any]]


def draw_source(draft: Draft, catalog: Catalog, report: Mapping[str, Any]) -> None:
    """A `trace_source` report."""
    source_id = report["source_id"]
    kept = {c["clip_id"] for d in report["datasets"] for c in d["clips"] if _is_kept(c)}
    row = report["datasets"][0]["source"] if report["datasets"] else {}
    found = {c["clip_id"] for d in report["datasets"] for c in d["clips"]}
    source = draft.add(_source_node(source_id, row.get("uris"), bool(kept), len(found)))
    for dataset in report["datasets"]:
        held = Counter(clip["shard"] for clip in dataset["clips"])
        for clip in sorted(dataset["clips"], key=lambda c: (c["shot_index"], c["clip_id"])):
            _draw_clip(draft, source, dataset, clip, clip["clip_id"] in kept, held[clip["shard"]])
    _draw_use(draft, catalog, report)


def draw_clip(draft: Draft, catalog: Catalog, report: Mapping[str, Any]) -> None:
    """A `trace_clip` report."""
    kept = any(_is_kept(dataset["row"]) for dataset in report["datasets"])
    for dataset in report["datasets"]:
        row = dataset["row"]
        source = draft.add(_source_node(row["source_id"], dataset["uris"], kept, 1))
        _draw_clip(draft, source, dataset, row, kept, 1)
    _draw_use(draft, catalog, report)


def _is_kept(clip: Mapping[str, Any]) -> bool:
    return bool(clip["verdict"] == "kept")


def _source_node(source_id: str, uris: list[str] | None, kept: bool, clips: int) -> Node:
    return Node(
        key=f"source {source_id}",
        kind="source",
        label=source_name(uris, source_id),
        layer=LAYER_OF["source"],
        state="kept" if kept else "dropped",
        detail=counts_in_words({"clips": clips}),
        digest=source_id,
        uri=uris[0] if uris else "",
        counts={"clips": clips},
    )


def _draw_clip(
    draft: Draft,
    source: str,
    dataset: Mapping[str, Any],
    row: Mapping[str, Any],
    kept: bool,
    in_shard: int,
) -> None:
    """`kept`: in any of the versions; a clip taken down since is drawn once, with its shard.
    `in_shard`: how many of the clips asked about its shard holds."""
    span = f"{row['start_s'] or 0:.1f}–{row['end_s'] or 0:.1f} s"
    clip = draft.add(
        Node(
            key=f"clip {row['clip_id']}",
            kind="clip",
            label=span if row["kind"] == "video" else "picture",
            layer=LAYER_OF["clip"],
            state="kept" if kept else "dropped",
            detail=row["clip_id"][:SHORT_HEX] if kept else str(row["reason"] or "dropped"),
            digest=row["clip_id"],
            name=row["clip_id"],
        )
    )
    if (source, clip) not in draft.edges:
        draft.link(source, clip)
    if not _is_kept(row):
        return
    held = draft.add(_dataset_node(dataset))
    if not row["shard"]:
        draft.link(clip, held)
        return
    shard = draft.add(
        Node(
            key=f"shard {dataset['uri']} {row['shard']}",
            kind="shard",
            label=row["shard"].removesuffix(".tar"),
            layer=LAYER_OF["shard"],
            state="kept",
            detail=counts_in_words({"clips": in_shard}),
            uri=f"{dataset['uri']}/shards/{row['shard']}",
            counts={"clips": in_shard},
        )
    )
    draft.link(clip, shard)
    draft.link(shard, held)


def _dataset_node(dataset: Mapping[str, Any], found: bool = True) -> Node:
    return Node(
        key=f"dataset {dataset['uri']}",
        kind="dataset",
        label=file_name(dataset["uri"]),
        layer=LAYER_OF["dataset"],
        state="found" if found else "not found",
        detail=dataset["digest"][:SHORT_HEX],
        digest=dataset["digest"],
        uri=dataset["uri"],
    )


# --- what was made from it -------------------------------------------------------------------


def _draw_use(draft: Draft, catalog: Catalog, report: Mapping[str, Any]) -> None:
    for latents in report["latents"]:
        entry = catalog.at("latents", latents["uri"])
        number = len(latents["clips"])
        node = draft.add(latents_node(latents, latents["stage"], {"clips": number}))
        if entry:
            _link_dataset(draft, catalog, entry, node)
    trainings: dict[str, Rows] = defaultdict(list)
    for row in report["checkpoints"]:
        trainings[folder_of(row)].append({**row, "state": "tainted"})
    for row in report["clean_checkpoints"]:
        if folder_of(row) in trainings:
            trainings[folder_of(row)].append({**row, "state": "clean"})
    drawn: dict[str, str] = {}  # digest of a checkpoint -> its node
    for folder in sorted(trainings, key=lambda f: (_depth(catalog, trainings[f]), f)):
        _draw_training(draft, catalog, folder, trainings[folder], drawn)
    draw_videos(draft, catalog, report["videos"], drawn, tainted=True)


def latents_node(
    latents: Mapping[str, Any], stage: str | None, counts: Mapping[str, int], found: bool = True
) -> Node:
    return Node(
        key=f"latents {latents.get('digest') or latents.get('uri')}",
        kind="latents",
        label=stage or "latents",
        layer=LAYER_OF["latents"],
        state="found" if found else "not found",
        detail=counts_in_words(counts) or str(latents.get("digest", ""))[:SHORT_HEX],
        digest=str(latents.get("digest", "")),
        uri=str(latents.get("uri", "")),
        counts=dict(counts),
    )


def _link_dataset(draft: Draft, catalog: Catalog, made_from: Entry, node: str) -> None:
    """Draws only datasets that hold the thing asked about, wherever their copy lies."""
    reference = made_from.header.get("dataset") or {}
    held = catalog.find("dataset", reference)
    same = [f"dataset {held.uri}"] if held else []
    same += [n.key for n in draft.nodes.values() if _is_dataset(n, reference.get("digest"))]
    for key in same:
        if key in draft.nodes:
            if (key, node) not in draft.edges:
                draft.link(key, node)
            return


def _is_dataset(node: Node, digest: str | None) -> bool:
    return node.kind == "dataset" and bool(digest) and node.digest == digest


def folder_of(row: Mapping[str, Any]) -> str:
    return str(row["uri"]).rpartition("/")[0]


def _depth(catalog: Catalog, rows: Rows) -> int:
    entry = catalog.at("checkpoint", rows[0]["uri"])
    return len(catalog.ancestry(entry)) - 1 if entry else 0


def _draw_training(
    draft: Draft, catalog: Catalog, folder: str, rows: Rows, drawn: dict[str, str]
) -> None:
    """One training: a node, and one for each state that its steps are in."""
    depth = _depth(catalog, rows)
    bad = [row for row in rows if row["state"] == "tainted"]
    newest = max(bad, key=lambda row: row["step"])
    training = draft.add(training_node(folder, newest["stage"], depth, "tainted", len(rows)))
    entry = catalog.at("checkpoint", newest["uri"])
    if entry and newest["clips"]:
        draft.link(_latents_of(draft, catalog, entry), training)
    if entry and (base := catalog.find("checkpoint", base_of(entry))) and base.digest in drawn:
        draft.link(drawn[base.digest], training)
    for state in ("clean", "tainted"):
        steps = [row for row in rows if row["state"] == state]
        if steps:
            node = draft.add(_steps_node(folder, steps, depth))
            draft.link(training, node, len(steps))
            drawn.update((row["digest"], node) for row in steps)


def _steps_node(folder: str, rows: Rows, depth: int) -> Node:
    state = rows[0]["state"]
    newest = max(rows, key=lambda row: row["step"])
    seen = newest.get("clips", [])
    counts = {"checkpoints": len(rows)}
    if seen:
        counts["times"] = sum(clip["times"] for clip in seen)
    said = "clean" if state == "clean" else counts_in_words({"times": counts.get("times", 0)})
    return Node(
        key=f"checkpoint {folder} {state}",
        kind="checkpoint",
        label=steps_in_words([row["step"] for row in rows]),
        layer=LAYER_OF["checkpoint"] + LAYERS_PER_BASE * depth,
        state=state,
        detail=said if seen or state == "clean" else "through its base",
        digest=newest["digest"],
        uri=newest["uri"],
        counts=counts,
        stands_for=len(rows),
    )


def training_node(folder: str, stage: str | None, depth: int, state: Any, checkpoints: int) -> Node:
    return Node(
        key=f"training {folder}",
        kind="training",
        label=stage or "training",
        layer=LAYER_OF["training"] + LAYERS_PER_BASE * depth,
        state=state,
        detail=counts_in_words({"checkpoints": checkpoints}),
        uri=folder,
        counts={"checkpoints": checkpoints},
    )


def _latents_of(draft: Draft, catalog: Catalog, checkpoint: Entry) -> str:
    """The latents that a checkpoint learned from; drawn as not found where they are gone."""
    reference = checkpoint.header.get("latents") or {}
    found = catalog.find("latents", reference)
    named = {"uri": found.uri, "digest": found.digest} if found else reference
    stage = checkpoint.header.get("stage")
    node = draft.add(latents_node(named, stage, {}, found is not None))
    _link_dataset(draft, catalog, checkpoint, node)
    return node


def draw_videos(
    draft: Draft,
    catalog: Catalog,
    videos: Iterable[Mapping[str, Any]],
    drawn: Mapping[str, str],
    tainted: bool = False,
) -> None:
    """Those of `videos` that a checkpoint drawn made, the first of equal ones. `videos`: {"uri",
    "digest", "copies"} each, the last two if known; `drawn`: the node of a checkpoint's digest."""
    for video in videos:
        entry = catalog.at("video", video["uri"])
        roles = checkpoints_of(entry) if entry else {}
        starts = dict.fromkeys(drawn[r["digest"]] for r in roles.values() if r["digest"] in drawn)
        digest = video.get("digest", "")
        key = f"video {digest or video['uri']}"
        if not starts or key in draft.nodes:
            continue
        node = Node(
            key=key,
            kind="video",
            label=file_name(video["uri"]),
            layer=LAYER_OF["video"],
            state="tainted" if tainted else "found",
            detail=_copies_in_words(len(video.get("copies", ()))),
            digest=digest,
            uri=video["uri"],
        )
        draft.add(node)
        for start in starts:
            draft.link(start, node.key)


def _copies_in_words(copies: int) -> str:
    return "" if not copies else "and 1 copy" if copies == 1 else f"and {copies:,} copies"
