from __future__ import annotations

import itertools
import re
import shutil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lineage import catalog, trace
from pipelines.lineage import past as backward
from pipelines.lineage.difference import diff
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.page.graph import Draft, Graph, Node, graph_of
from pipelines.lineage.page.graph_layout import BOX_HEIGHT_PX, WIDTH_PX, Drawing, draw
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import SOURCES, Past


def everything(past: Past) -> catalog.Catalog:
    return catalog.build([str(past.root)])


def source_graph(past: Past, name: str) -> Graph:
    known = everything(past)
    return graph_of(known, trace.trace_source(known, world.source_id(name)))


def only(graph: Graph, kind: str, **wanted: Any) -> Node:
    (found,) = [
        node
        for node in graph.nodes
        if node.kind == kind and all(getattr(node, k) == v for k, v in wanted.items())
    ]
    return found


def joined(graph: Graph) -> set[tuple[str, str]]:
    """Edges by (kind, label) of their ends."""
    named = {node.key: f"{node.kind} {node.label}" for node in graph.nodes}
    return {(named[edge.start], named[edge.end]) for edge in graph.edges}


# --- from a source to the right --------------------------------------------------------------


def test_a_source_leads_to_the_video_by_every_step_between(past: Past) -> None:
    graph = source_graph(past, "alpha.mp4")
    kinds = [kind for kind, _ in itertools.groupby(node.kind for node in graph.nodes)]
    assert kinds == ["source", "clip", "shard", "dataset", "latents", "training", "checkpoint",
                     "training", "checkpoint", "video"]  # fmt: skip
    reached = {only(graph, "source").key}
    for edge in graph.edges:  # in order from left to right
        reached |= {edge.end} if edge.start in reached else set()
    assert reached == {node.key for node in graph.nodes}
    assert joined(graph) >= {
        ("training base", "checkpoint steps 10–20"),
        ("checkpoint steps 10–20", "training refine"),
        ("checkpoint step 10", "video video-x.mp4"),
        ("checkpoint steps 10–20", "video video-x.mp4"),
    }


def test_clips_are_kept_or_dropped_and_a_dropped_one_goes_nowhere(past: Past) -> None:
    graph = source_graph(past, "alpha.mp4")
    states = [node.state for node in graph.nodes if node.kind == "clip"]
    assert states == ["kept", "kept", "kept", "dropped"]
    dropped = only(graph, "clip", state="dropped")
    assert dropped.detail == "too_still"
    assert dropped.key not in {edge.start for edge in graph.edges}


def test_steps_before_the_first_sight_are_clean(past: Past) -> None:
    graph = source_graph(past, "beta film.mp4")
    base = [node for node in graph.nodes if node.kind == "checkpoint" and node.layer == 6]
    assert [(node.label, node.state) for node in base] == [
        ("step 10", "clean"),
        ("step 20", "tainted"),
    ]
    refine = only(graph, "checkpoint", layer=8)
    assert (refine.state, refine.detail) == ("tainted", "through its base")
    assert only(graph, "video").state == "tainted"


def test_latents_that_are_gone_are_drawn_as_not_found(past: Past) -> None:
    graph = source_graph(past, "gamma.mp4")
    gone = only(graph, "latents", state="not found")
    (edge,) = [edge for edge in graph.edges if edge.start == gone.key]
    assert edge.end == only(graph, "training").key


def test_a_clip_taken_down_since_is_drawn_once(past: Past) -> None:
    clips = [
        clip.dropped("takedown", "taken_down") if clip.source_id == world.source_id("beta film.mp4")
        else clip
        for clip in past.clips
    ]  # fmt: skip
    world.write_dataset(past.root / "dataset-b", SOURCES, clips)
    graph = source_graph(past, "beta film.mp4")
    assert [node.state for node in graph.nodes if node.kind == "clip"].count("kept") == 3
    assert only(graph, "dataset").uri == str(past.root / "dataset-a")
    assert only(graph, "source").counts == {"clips": 4}


def test_a_clip_alone(past: Past) -> None:
    known = everything(past)
    clip = past.clips_of("beta film.mp4")[1]
    graph = graph_of(known, trace.trace_clip(known, clip.clip_id))
    assert only(graph, "clip").name == clip.clip_id
    assert only(graph, "source").label == "beta film.mp4"
    assert only(graph, "shard").counts == {"clips": 1}


# --- from a result to the left ---------------------------------------------------------------


def test_a_checkpoint_grew_from_its_base(past: Past) -> None:
    known = everything(past)
    entry = backward.checkpoint_entry(known, past.refine["uri"])
    graph = graph_of(known, backward.trace_checkpoint(known, entry))
    assert ("checkpoint steps 10–20", "training refine") in joined(graph)
    assert {node.label for node in graph.nodes if node.kind == "source"} == set(SOURCES)
    seen = {node.label: node.counts for node in graph.nodes if node.kind == "clip"}
    assert seen == {"6 clips": {"clips": 6, "times": 14}, "3 clips": {"clips": 3, "times": 3}}
    assert {node.kind for node in graph.nodes if node.state == "not found"} == {"latents"}


def test_sources_that_a_report_only_counts_are_counted(past: Past) -> None:
    known = everything(past)
    entry = backward.checkpoint_entry(known, str(past.root / "base-x"))
    graph = graph_of(known, backward.trace_checkpoint(known, entry, shown=1))
    more = only(graph, "source", label="and 1 more")
    assert more.counts == {"clips": 3}
    assert sum(n.stands_for for n in graph.nodes if n.kind == "source") == 2


def test_a_base_that_is_gone_is_drawn_as_not_found(past: Past) -> None:
    shutil.rmtree(past.root / "base-x")
    known = everything(past)
    entry = backward.checkpoint_entry(known, past.refine["uri"])
    graph = graph_of(known, backward.trace_checkpoint(known, entry))
    lost = only(graph, "checkpoint", state="not found")
    assert lost.digest == past.base[1]["digest"]
    assert (lost.key, only(graph, "training").key) in {(e.start, e.end) for e in graph.edges}


def test_a_video_was_made_by_two_checkpoints(past: Past) -> None:
    known = everything(past)
    video = backward.video_entry(known, str(past.root / "video-x.mp4"))
    graph = graph_of(known, backward.trace_video(known, video))
    made = {edge.start for edge in graph.edges if edge.end == only(graph, "video").key}
    assert len(made) == 2
    alone = catalog.build([str(past.root / "dataset-a")])
    lost = graph_of(alone, backward.trace_video(alone, video))
    assert [n.state for n in lost.nodes if n.kind == "checkpoint"] == ["not found"] * 2


def test_a_dataset_with_what_was_made_from_it(past: Past) -> None:
    known = everything(past)
    report = backward.trace_dataset(known, read_dataset(past.dataset["uri"]))
    graph = graph_of(known, report)
    assert {node.label for node in graph.nodes if node.kind == "clip"} == {"9 kept", "3 dropped"}
    assert ("checkpoint steps 10–20", "training refine") in joined(graph)
    assert only(graph, "source").stands_for == 3 and only(graph, "video")


def test_what_lies_between_two_versions(past: Past) -> None:
    clips = [c for c in past.clips if c.source_id != world.source_id("gamma.mp4")]
    world.write_dataset(past.root / "dataset-b", SOURCES[:2], clips)
    difference = diff(read_dataset(past.dataset["uri"]), read_dataset(str(past.root / "dataset-b")))
    graph = graph_of(everything(past), vars(difference))
    assert only(graph, "clip").label == "3 removed"
    assert joined(graph) == {
        ("dataset before", "dataset after"),
        ("dataset before", "clip 3 removed"),
    }


# --- folding and layout ----------------------------------------------------------------------


def many_clips(count: int, dropped: int) -> dict[str, Any]:
    def clip(number: int) -> dict[str, Any]:
        return {
            "clip_id": f"{number:032x}", "source_id": "5" * 32, "kind": "video",
            "shot_index": number, "start_s": float(number), "end_s": number + 1.0,
            "verdict": "dropped" if number < dropped else "kept",
            "reason": "too_still" if number < dropped else None,
            "shard": None if number < dropped else f"shard-{number % 40:05d}.tar",
        }  # fmt: skip

    return {
        "source_id": "5" * 32,
        "datasets": [
            {
                "uri": "/sets/one",
                "digest": "d" * 32,
                "source": {"uris": ["/films/long.mp4"]},
                "clips": [clip(number) for number in range(count)],
            }
        ],
        "latents": [],
        "checkpoints": [],
        "clean_checkpoints": [],
        "videos": [],
    }


def test_a_large_fan_out_is_folded_and_every_count_stays_exact() -> None:
    graph = graph_of(catalog.Catalog(()), many_clips(5000, 700))
    labels = [node.label for node in graph.nodes if node.kind == "clip"]
    assert labels[-1] == "and 4,295 more" and "and 698 more" in labels
    assert len(graph.nodes) < 20
    for state, number in (("kept", 4300), ("dropped", 700)):
        found = [n for n in graph.nodes if n.kind == "clip" and n.state == state]
        assert sum(node.stands_for for node in found) == number
    assert sum(node.stands_for for node in graph.nodes if node.kind == "shard") == 40
    by_kind = {node.key: node.kind for node in graph.nodes}
    for kinds, number in ((("source", "clip"), 5000), (("clip", "shard"), 4300)):
        edges = [e for e in graph.edges if (by_kind[e.start], by_kind[e.end]) == kinds]
        assert sum(edge.count for edge in edges) == number


def test_the_same_report_gives_the_same_drawing(past: Past) -> None:
    first, second = (draw(source_graph(past, "alpha.mp4")) for _ in range(2))
    assert first == second


def check_drawing(drawing: Drawing) -> None:
    """No box on another or outside, and no curve behind a box that it does not join."""
    for a, b in itertools.combinations(drawing.boxes, 2):
        apart = a.x_px + a.width_px <= b.x_px or b.x_px + b.width_px <= a.x_px
        apart |= a.y_px + BOX_HEIGHT_PX <= b.y_px or b.y_px + BOX_HEIGHT_PX <= a.y_px
        assert apart, (a, b)
    for box in drawing.boxes:
        assert box.x_px >= 0 and box.x_px + box.width_px <= drawing.width_px
        assert box.y_px >= 0 and box.y_px + BOX_HEIGHT_PX <= drawing.height_px
    for curve in drawing.curves:
        for x, y in points_of(curve.path):
            for box in drawing.boxes:
                inside = box.x_px + 1 < x < box.x_px + box.width_px - 1
                inside &= box.y_px + 1 < y < box.y_px + BOX_HEIGHT_PX - 1
                assert not inside, (curve, box)


def points_of(path: str) -> list[tuple[float, float]]:
    """The path's corners, and points along its level parts and curves."""
    numbers = [float(text) for text in re.findall(r"-?\d+\.\d+", path)]
    points: list[tuple[float, float]] = []
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    for start, a, b, end in zip(*(corners[i::4] for i in range(4)), strict=True):
        if points:  # level, from the end of the last curve
            points += [
                (points[-1][0] + (start[0] - points[-1][0]) * t / 8, start[1]) for t in range(9)
            ]
        for step in range(9):
            t = step / 8
            mix = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3]
            xs, ys = (
                sum(m * p[axis] for m, p in zip(mix, (start, a, b, end), strict=True))
                for axis in (0, 1)
            )
            points.append((xs, ys))
    return points


@pytest.mark.parametrize("name", SOURCES)
def test_boxes_and_curves_keep_clear_of_each_other(past: Past, name: str) -> None:
    drawing = draw(source_graph(past, name))
    check_drawing(drawing)
    assert drawing.width_px <= WIDTH_PX
    assert drawing.curves


@given(
    st.lists(st.tuples(st.integers(0, 9), st.text(max_size=80)), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60),
)
def test_any_graph_is_drawn_clear(
    things: list[tuple[int, str]], pairs: list[tuple[int, int]]
) -> None:
    draft = Draft()
    kinds = ("source", "clip", "shard", "dataset", "latents", "training", "checkpoint", "video")
    keys = [
        draft.add(Node(str(n), kinds[layer % 8], label, layer))
        for n, (layer, label) in enumerate(things)
    ]
    for a, b in pairs:
        if a < len(keys) and b < len(keys) and things[a][0] < things[b][0]:
            draft.link(keys[a], keys[b])
    graph = draft.finished()
    drawing = draw(graph)
    check_drawing(drawing)
    assert len(drawing.boxes) == len(graph.nodes) and len(drawing.curves) == len(graph.edges)


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw(Graph()).boxes == ()
