"""Where the boxes and curves of a lineage graph go, in pixels of a drawing that scales.

Columns from left to right; an edge over several columns keeps a free lane in each, so that no
curve runs behind a box. The same graph gives the same drawing.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from pipelines.lineage.page.graph import Graph, Node

WIDTH_PX, MARGIN_PX, HEADER_PX = 1240, 8, 30
BOX_HEIGHT_PX, LANE_HEIGHT_PX, ROW_GAP_PX = 42, 10, 12
BOX_LOW_PX, BOX_HIGH_PX, GAP_LOW_PX, GAP_HIGH_PX = 72, 190, 22, 90
CHARACTER_PX, SMALL_CHARACTER_PX, PADDING_PX = 7.7, 6.3, 10  # of a wide font
SWEEPS = 4
IN_ORDER = ("source", "clip")

Spread = list[tuple[float, float]]  # (left edge, width) of each column
TITLES = {
    "source": "Sources",
    "clip": "Clips",
    "shard": "Shards",
    "dataset": "Datasets",
    "latents": "Latents",
    "training": "Training",
    "checkpoint": "Checkpoints",
    "video": "Videos",
}


@dataclass(frozen=True)
class Box:
    """A node at (x, y), its upper left corner. `label` and `detail` are cut to fit."""

    number: int
    node: Node
    x_px: float
    y_px: float
    width_px: float
    label: str
    detail: str


@dataclass(frozen=True)
class Curve:
    """An edge as an SVG path; `start` and `end` are box numbers."""

    start: int
    end: int
    count: int
    path: str


@dataclass(frozen=True)
class Drawing:
    width_px: float
    height_px: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]
    titles: tuple[tuple[float, str], ...]


@dataclass
class _Slot:
    """A place in a column: of a node, or of an edge that passes by (`node` is None)."""

    column: int
    node: Node | None
    order: float = 0.0
    y_px: float = 0.0

    @property
    def height_px(self) -> float:
        return BOX_HEIGHT_PX if self.node else LANE_HEIGHT_PX


def draw(graph: Graph) -> Drawing:
    layers = sorted({node.layer for node in graph.nodes})
    column_of = {layer: number for number, layer in enumerate(layers)}
    columns: list[list[_Slot]] = [[] for _ in layers]
    slot_of: dict[str, _Slot] = {}
    for node in graph.nodes:
        slot = _Slot(column_of[node.layer], node)
        columns[slot.column].append(slot)
        slot_of[node.key] = slot
    ways = [_way(slot_of[e.start], slot_of[e.end], columns) for e in graph.edges]
    _order(columns, ways)
    height = _place(columns)

    spread = _spread(columns)
    number_of = {node.key: number for number, node in enumerate(graph.nodes)}
    boxes = tuple(_box(number_of[n.key], n, slot_of[n.key], spread) for n in graph.nodes)
    curves = tuple(
        Curve(number_of[e.start], number_of[e.end], e.count, _path(way, spread))
        for e, way in zip(graph.edges, ways, strict=True)
    )
    titles = tuple((x, _title(graph, layer)) for layer, (x, _) in zip(layers, spread, strict=True))
    width = MARGIN_PX + sum(spread[-1]) if spread else 2 * MARGIN_PX
    return Drawing(width, height, boxes, curves, titles)


def _box(number: int, node: Node, slot: _Slot, spread: Spread) -> Box:
    x, width = spread[slot.column]
    label = _cut(node.label, (width - 2 * PADDING_PX) / CHARACTER_PX)
    detail = _cut(node.detail, (width - 2 * PADDING_PX) / SMALL_CHARACTER_PX)
    return Box(number, node, x, slot.y_px, width, label, detail)


def _spread(columns: list[list[_Slot]]) -> Spread:
    """Columns as wide as their words, the widest narrowed until all of them fit."""
    room = WIDTH_PX - 2 * MARGIN_PX - GAP_LOW_PX * (len(columns) - 1)
    wanted = [max(_wanted_px(slot.node) for slot in column if slot.node) for column in columns]
    most = BOX_HIGH_PX
    while most > BOX_LOW_PX and sum(min(width, most) for width in wanted) > room:
        most -= 2
    widths = [min(width, most) for width in wanted]
    gap = GAP_LOW_PX + max(room - sum(widths), 0.0) / max(len(columns) - 1, 1)
    spread: Spread = []
    x = float(MARGIN_PX)
    for width in widths:
        spread.append((x, width))
        x += width + min(gap, GAP_HIGH_PX)
    return spread


def _wanted_px(node: Node) -> float:
    words = max(len(node.label) * CHARACTER_PX, len(node.detail) * SMALL_CHARACTER_PX)
    return max(words + 2 * PADDING_PX + 1, BOX_LOW_PX)


def _title(graph: Graph, layer: int) -> str:
    kinds = dict.fromkeys(TITLES[node.kind] for node in graph.nodes if node.layer == layer)
    return ", ".join(kinds)


def _way(start: _Slot, end: _Slot, columns: list[list[_Slot]]) -> list[_Slot]:
    lanes = [_Slot(column, None) for column in range(start.column + 1, end.column)]
    for lane in lanes:
        columns[lane.column].append(lane)
    return [start, *lanes, end]


def _order(columns: list[list[_Slot]], ways: list[list[_Slot]]) -> None:
    """Each slot moves to the mean place of its neighbours, forth and back: fewer crossings.

    Sources and clips stay in the order of the report, which is that of the film.
    """
    before: dict[int, list[_Slot]] = defaultdict(list)
    after: dict[int, list[_Slot]] = defaultdict(list)
    for way in ways:
        for left, right in pairwise(way):
            before[id(right)].append(left)
            after[id(left)].append(right)
    for column in columns:
        _number(column)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        for column in columns if forth else reversed(columns):
            if any(slot.node and slot.node.kind in IN_ORDER for slot in column):
                continue
            neighbours = before if forth else after
            for slot in column:
                near = [other.order for other in neighbours[id(slot)]]
                slot.order = sum(near) / len(near) if near else slot.order
            column.sort(key=lambda slot: slot.order)  # stable: ties keep their order
            _number(column)


def _number(column: list[_Slot]) -> None:
    """Orders in [0, 1], so that columns of different lengths compare."""
    for number, slot in enumerate(column):
        slot.order = (number + 0.5) / len(column)


def _place(columns: list[list[_Slot]]) -> float:
    """Columns centred on one axis. Returns the height of the drawing."""
    heights = [sum(s.height_px + ROW_GAP_PX for s in column) - ROW_GAP_PX for column in columns]
    tallest = max(heights, default=0.0)
    for column, height in zip(columns, heights, strict=True):
        y = HEADER_PX + (tallest - height) / 2
        for slot in column:
            slot.y_px = y
            y += slot.height_px + ROW_GAP_PX
    return HEADER_PX + tallest + MARGIN_PX


def _path(way: list[_Slot], spread: Spread) -> str:
    """Level through boxes and lanes, an S between two columns."""
    parts: list[str] = []
    for left, right in pairwise(way):
        x1 = sum(spread[left.column])
        x2 = spread[right.column][0]
        y1, y2 = (slot.y_px + slot.height_px / 2 for slot in (left, right))
        middle = (x1 + x2) / 2
        parts.append(f"{'L' if parts else 'M'}{x1:.1f} {y1:.1f}")
        parts.append(f"C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}")
    return "".join(parts)


def _cut(text: str, characters: float) -> str:
    """One line of at most so many characters; what tells names apart is often at their end."""
    line = " ".join(text.split())
    most = int(characters)
    if len(line) <= most:
        return line
    tail = most // 2
    return f"{line[: most - tail - 1]}…{line[-tail:]}"
