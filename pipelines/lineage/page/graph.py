"""The answer of a trace as a graph: sources to the left, generated videos to the right.

`graph_of(catalog, report)` takes what trace.py and past.py return. Nodes and edges come in an
order that depends on the report alone. Fan-outs that nobody could read are folded into one node
that says how many it stands for, so that every count on the graph is exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pipelines.lineage.catalog import Catalog

State = Literal["kept", "dropped", "tainted", "clean", "not found", "found"]

#: The column of each kind. Trainings and checkpoints move right by two per base they grew from.
LAYER_OF = {
    "source": 0,
    "clip": 1,
    "shard": 2,
    "dataset": 3,
    "latents": 4,
    "training": 5,
    "checkpoint": 6,
    "video": 99,
}
LAYERS_PER_BASE = 2
SHOWN, DROPPED_SHOWN = 6, 3
SHORT_HEX = 10


@dataclass(frozen=True)
class Node:
    """One thing, or `stands_for` things of one kind and state folded together.

    `counts` are exact: {"clips": 12, "times": 40} says that 12 clips were seen 40 times.
    `name`: a clip's id, under which a page may have a row for it.
    """

    key: str
    kind: str
    label: str
    layer: int
    state: State = "found"
    detail: str = ""
    digest: str = ""
    uri: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    stands_for: int = 1
    name: str = ""


@dataclass(frozen=True)
class Edge:
    """`count`: how many edges between single things it stands for."""

    start: str
    end: str
    count: int = 1


@dataclass(frozen=True)
class Graph:
    """Nodes by layer in reading order; every edge goes from a lower layer to a higher one."""

    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()


class Draft:
    """A graph in the making: a node added twice is one node, an edge added twice counts two."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], int] = defaultdict(int)

    def add(self, node: Node) -> str:
        self.nodes.setdefault(node.key, node)
        return node.key

    def link(self, start: str, end: str, count: int = 1) -> None:
        self.edges[start, end] += count

    def finished(self) -> Graph:
        nodes, place = _folded(self.nodes.values())
        edges: dict[tuple[str, str], int] = defaultdict(int)
        for (start, end), count in self.edges.items():
            edges[place[start], place[end]] += count
        order = {node.key: number for number, node in enumerate(nodes)}
        ends = sorted(edges, key=lambda pair: (order[pair[0]], order[pair[1]]))
        return Graph(tuple(nodes), tuple(Edge(a, b, edges[a, b]) for a, b in ends))


def _folded(nodes: Any) -> tuple[list[Node], dict[str, str]]:
    """(the nodes that stay, by layer; where each key went)."""
    groups: dict[tuple[int, str, State], list[Node]] = defaultdict(list)
    for node in nodes:
        groups[node.layer, node.kind, node.state].append(node)
    left: list[Node] = []
    place: dict[str, str] = {}
    for (_, kind, state), group in groups.items():
        most = DROPPED_SHOWN if kind == "clip" and state == "dropped" else SHOWN
        stay, rest = (group, []) if len(group) <= most else (group[: most - 1], group[most - 1 :])
        left += stay
        place.update((node.key, node.key) for node in stay)
        if rest:
            more = _more(rest)
            left.append(more)
            place.update((node.key, more.key) for node in rest)
    left.sort(key=lambda node: node.layer)
    return left, place


def _more(rest: list[Node]) -> Node:
    number = sum(node.stands_for for node in rest)
    counts: dict[str, int] = defaultdict(int)
    for node in rest:
        for name, count in node.counts.items():
            counts[name] += count
    first = rest[0]
    return replace(
        first,
        key=f"more {first.layer} {first.kind} {first.state}",
        label=f"and {number:,} more",
        detail=counts_in_words(counts),
        digest="",
        uri="",
        name="",
        counts=dict(counts),
        stands_for=number,
    )


def counts_in_words(counts: Mapping[str, int]) -> str:
    """ "12 clips, seen 40 times"."""
    said = []
    for name, count in counts.items():
        if name == "times":
            said.append(f"seen {count:,} {'time' if count == 1 else 'times'}")
        else:
            said.append(f"{count:,} {name.removesuffix('s') if count == 1 else name}")
    return ", ".join(said)


def steps_in_words(steps: list[int]) -> str:
    """ "step 4", "steps 2 to 6"."""
    low, high = min(steps, default=0), max(steps, default=0)
    return f"step {low:,}" if low == high else f"steps {low:,}–{high:,}"


def file_name(uri: str) -> str:
    return uri.rstrip("/").rpartition("/")[2] or uri


def source_name(uris: list[str] | None, source_id: str) -> str:
    return file_name(uris[0]) if uris else source_id[:SHORT_HEX]


def graph_of(catalog: Catalog, report: Mapping[str, Any]) -> Graph:
    """The graph of any of the reports: of sources, a clip, a checkpoint, a video, a dataset, or
    of the difference of two datasets."""
    from pipelines.lineage.page import graph_dataset, graph_future, graph_past

    draft = Draft()
    if "before" in report:
        graph_dataset.draw_difference(draft, report)
    elif "stages" in report:
        graph_past.draw_past(draft, catalog, report)
    elif "parent_digest" in report:
        graph_dataset.draw_dataset(draft, catalog, report)
    elif "clip_id" in report:
        graph_future.draw_clip(draft, catalog, report)
    else:
        for source in sources_in(report):
            graph_future.draw_source(draft, catalog, source)
    return draft.finished()


def sources_in(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A name can stand for several sources; `trace_source` alone reports one."""
    listed = report.get("sources")
    return list(listed) if isinstance(listed, list) else [report]
