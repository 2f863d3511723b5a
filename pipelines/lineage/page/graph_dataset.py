"""A dataset with what is in it and what was made from it; and what lies between two of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipelines.lineage.catalog import Catalog, base_of, name_of
from pipelines.lineage.page.graph import (
    LAYER_OF,
    LAYERS_PER_BASE,
    Draft,
    Node,
    State,
    counts_in_words,
    steps_in_words,
)
from pipelines.lineage.page.graph_future import draw_videos, latents_node, training_node
from pipelines.lineage.page.graph_past import dataset_node


def draw_dataset(draft: Draft, catalog: Catalog, report: Mapping[str, Any]) -> None:
    """A `trace_dataset` report: what is in it and what was made from it."""
    held = draft.add(dataset_node(report, report["uri"]))
    number = report["sources"]
    words = counts_in_words({"sources": number})
    sources = draft.add(Node("sources", "source", words, LAYER_OF["source"], stands_for=number))
    states: tuple[State, ...] = ("kept", "dropped")
    for state in states:
        if not report[state]:
            continue
        counts = {"clips": report[state]}
        detail = "" if state == "kept" else _main_reason(report["reasons"])
        clips = draft.add(
            Node(
                key=f"clips {state}",
                kind="clip",
                label=f"{report[state]:,} {state}",
                layer=LAYER_OF["clip"],
                state=state,
                detail=detail,
                counts=counts,
                stands_for=report[state],
            )
        )
        draft.link(sources, clips, report[state])
        if state == "kept":
            draft.link(clips, held, report[state])
    if parent := report["parent_digest"]:
        _draw_parent(draft, catalog, parent, held)
    _draw_made_from(draft, catalog, report, held)


def _main_reason(reasons: Mapping[str, int]) -> str:
    most = max(reasons, key=lambda reason: (reasons[reason], reason), default="")
    return f"most: {most}" if most else ""


def _draw_parent(draft: Draft, catalog: Catalog, digest: str, held: str) -> None:
    found = next((e for e in catalog.of("dataset") if e.digest == digest), None)
    node = dataset_node({"digest": digest}, found.uri if found else None)
    draft.link(draft.add(replace(node, layer=LAYER_OF["shard"])), held)


def _draw_made_from(draft: Draft, catalog: Catalog, report: Mapping[str, Any], held: str) -> None:
    for latents in report["latents"]:
        node = draft.add(latents_node(latents, latents["stage"], {}))
        if (held, node) not in draft.edges:
            draft.link(held, node)
    trainings: dict[str, list[Any]] = defaultdict(list)
    for row in report["checkpoints"]:
        if entry := catalog.at("checkpoint", row["uri"]):
            trainings[entry.folder].append(entry)
    depth_of = {f: len(catalog.ancestry(rows[-1])) - 1 for f, rows in trainings.items()}
    drawn: dict[str, str] = {}
    for folder in sorted(trainings, key=lambda f: (depth_of[f], f)):
        rows, depth = trainings[folder], depth_of[folder]
        stage = rows[-1].header.get("stage")
        training = draft.add(training_node(folder, stage, depth, "found", len(rows)))
        learned_from = catalog.find("latents", rows[-1].header.get("latents"))
        start = f"latents {learned_from.digest}" if learned_from else held
        draft.link(start if start in draft.nodes else held, training)
        base = catalog.find("checkpoint", base_of(rows[-1]))
        if base and base.digest in drawn:
            draft.link(drawn[base.digest], training)
        steps = Node(
            key=f"checkpoint {folder}",
            kind="checkpoint",
            label=steps_in_words([row.step for row in rows]),
            layer=LAYER_OF["checkpoint"] + LAYERS_PER_BASE * depth,
            digest=rows[-1].digest,
            uri=rows[-1].uri,
            counts={"checkpoints": len(rows)},
            stands_for=len(rows),
        )
        draft.link(training, draft.add(steps), len(rows))
        drawn.update((row.digest, steps.key) for row in rows)
    made = sorted(map(name_of, catalog.of("video")), key=lambda v: (len(v["uri"]), v["uri"]))
    draw_videos(draft, catalog, made, drawn)


def draw_difference(draft: Draft, report: Mapping[str, Any]) -> None:
    """Two versions of a dataset, and the clips between them."""
    groups: tuple[tuple[str, State], ...] = (
        ("removed", "dropped"),
        ("changed", "found"),
        ("added", "kept"),
    )
    start, end = (
        draft.add(
            replace(
                dataset_node({"digest": report[name]}, None),
                key=name,
                label=name,
                layer=layer,
                state="found",
            )
        )
        for name, layer in (("before", 0), ("after", 2))
    )
    draft.link(start, end)
    for name, state in groups:
        rows = report[name]
        if rows:
            node = Node(
                key=name,
                kind="clip",
                label=f"{len(rows):,} {name}",
                layer=LAYER_OF["clip"],
                state=state,
                detail=_main_reason(_reasons(rows)),
                counts={"clips": len(rows)},
                stands_for=len(rows),
            )
            key = draft.add(node)
            if name != "added":
                draft.link(start, key, len(rows))
            if name != "removed":
                draft.link(key, end, len(rows))


def _reasons(rows: list[Mapping[str, str]]) -> dict[str, int]:
    counted: dict[str, int] = defaultdict(int)
    for row in rows:
        counted[row["why"]] += 1
    return dict(counted)
