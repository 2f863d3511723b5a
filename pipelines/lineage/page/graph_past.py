"""From a checkpoint or a video to the left: all that it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.lineage.catalog import Catalog
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
from pipelines.lineage.page.graph_future import folder_of, latents_node, training_node


def draw_past(draft: Draft, catalog: Catalog, report: Mapping[str, Any]) -> None:
    """A `trace_checkpoint` or `trace_video` report."""
    stages = {stage["digest"]: stage for stage in report["stages"]}
    drawn: dict[str, str] = {}
    for stage in sorted(stages.values(), key=lambda s: (_depth(stages, s), s["uri"])):
        _draw_stage(draft, catalog, stage, _depth(stages, stage), drawn)
    if lost := report.get("base_not_found"):
        _draw_lost_base(draft, lost, report["stages"])
    if "made_with" in report:
        for role, reference in report["checkpoints"].items():
            if reference["digest"] not in drawn:
                drawn[reference["digest"]] = draft.add(_lost_checkpoint(reference, role))
        _draw_video(draft, report, drawn)


def _depth(stages: Mapping[str, Any], stage: Mapping[str, Any]) -> int:
    """How many bases it grew from, of those at hand."""
    seen = {stage["digest"]}
    while base := stages.get((stage["base"] or {}).get("digest", "")):
        if base["digest"] in seen:
            break
        seen.add(base["digest"])
        stage = base
    return len(seen) - 1


def _draw_stage(
    draft: Draft, catalog: Catalog, stage: Mapping[str, Any], depth: int, drawn: dict[str, str]
) -> None:
    clips = _draw_samples(draft, stage)
    dataset, reference = stage["dataset"] or {}, stage["latents"] or {}
    held = draft.add(dataset_node(dataset, stage["dataset_found"]))
    found = catalog.find("latents", reference)
    named = {"uri": found.uri, "digest": found.digest} if found else reference
    latents = draft.add(latents_node(named, stage["stage"], {}, found is not None))
    folder = folder_of(stage)
    history = stage["history"]
    training = draft.add(training_node(folder, stage["stage"], depth, "found", len(history)))
    steps = draft.add(
        Node(
            key=f"checkpoint {folder} {stage['digest']}",
            kind="checkpoint",
            label=steps_in_words(history),
            layer=LAYER_OF["checkpoint"] + LAYERS_PER_BASE * depth,
            detail=counts_in_words({"times": stage["samples_seen"]}).replace("seen ", "saw "),
            digest=stage["digest"],
            uri=stage["uri"],
            counts={"checkpoints": len(history), "times": stage["samples_seen"]},
            stands_for=len(history),
        )
    )
    base = (stage["base"] or {}).get("digest", "")
    links = [(clips, held), (held, latents), (latents, training), (training, steps)]
    if base in drawn:
        links.append((drawn[base], training))
    for link in links:
        if link not in draft.edges:
            draft.link(*link)
    drawn[stage["digest"]] = steps


def _draw_samples(draft: Draft, stage: Mapping[str, Any]) -> str:
    """The sources of a stage, and one node for all clips that it saw of them."""
    counts = {"clips": stage["clips_seen"], "times": stage["samples_seen"]}
    clips = draft.add(
        Node(
            key=f"clips {stage['uri']}",
            kind="clip",
            label=counts_in_words({"clips": stage["clips_seen"]}),
            layer=LAYER_OF["clip"],
            state="kept",
            detail=f"{stage['stage']}, {counts_in_words({'times': stage['samples_seen']})}",
            counts=counts,
            stands_for=stage["clips_seen"],
        )
    )
    for source in stage["sources"]:
        uris = source["uris"]
        node = draft.add(
            Node(
                key=f"source {source['source_id']}",
                kind="source",
                label=source_name(uris, source["source_id"]),
                layer=LAYER_OF["source"],
                state="kept" if uris else "not found",
                detail=source["license"] or "licence not stated",
                digest=source["source_id"],
                uri=uris[0] if uris else "",
                counts={"clips": source["clips"]},
            )
        )
        draft.link(node, clips, source["clips"])
    _draw_unlisted(draft, stage, clips)
    return clips


def _draw_unlisted(draft: Draft, stage: Mapping[str, Any], clips: str) -> None:
    """Sources that the report counts but does not list."""
    number = stage.get("sources_seen", 0) - len(stage["sources"])
    left = stage["clips_seen"] - sum(source["clips"] for source in stage["sources"])
    if number > 0:
        rest = Node(
            key=f"sources {stage['uri']}",
            kind="source",
            label=f"and {number:,} more",
            layer=LAYER_OF["source"],
            detail=f"{stage['stage']}, {counts_in_words({'clips': left})}",
            counts={"clips": left},
            stands_for=number,
        )
        draft.link(draft.add(rest), clips, left)


def dataset_node(reference: Mapping[str, Any], found_at: str | None) -> Node:
    uri = found_at or str(reference.get("uri", ""))
    digest = str(reference.get("digest", ""))
    return Node(
        key=f"dataset {uri or digest}",
        kind="dataset",
        label=file_name(uri) or "dataset",
        layer=LAYER_OF["dataset"],
        state="found" if found_at else "not found",
        detail=digest[:SHORT_HEX],
        digest=digest,
        uri=uri,
    )


def _lost_checkpoint(reference: Mapping[str, Any], role: str) -> Node:
    digest = str(reference.get("digest", ""))
    return Node(
        key=f"checkpoint {digest}",
        kind="checkpoint",
        label=f"{role} checkpoint",
        layer=LAYER_OF["checkpoint"],
        state="not found",
        detail=digest[:SHORT_HEX],
        digest=digest,
        uri=str(reference.get("uri") or ""),
    )


def _draw_lost_base(draft: Draft, lost: Mapping[str, Any], stages: list[dict[str, Any]]) -> None:
    """To the left of the training that grew from it, which stays in the first column."""
    training = f"training {folder_of(stages[-1])}"
    node = _lost_checkpoint(lost, "base")
    above = draft.nodes[training].layer - 1
    draft.link(draft.add(replace(node, layer=above)), training)


def _draw_video(draft: Draft, report: Mapping[str, Any], drawn: Mapping[str, str]) -> None:
    """Not looked up in the catalog: a video may be described by its own metadata alone."""
    node = Node(
        key=f"video {report['uri']}",
        kind="video",
        label=file_name(report["uri"]),
        layer=LAYER_OF["video"],
        uri=report["uri"],
    )
    draft.add(node)
    for start in dict.fromkeys(drawn[r["digest"]] for r in report["checkpoints"].values()):
        draft.link(start, node.key)
