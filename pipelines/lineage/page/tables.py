"""What a trace page shows besides the graph: tables, strips of time, scores against limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.records import REASONS

ROWS_SHOWN = 200
STRIPS_SHOWN = 40
VALUE_CHARACTERS = 40
Look = Literal["text", "num", "mono", "path", "tag"]
Columns = tuple[tuple[str, Look], ...]


@dataclass(frozen=True)
class Cell:
    text: str
    href: str = ""


@dataclass(frozen=True)
class Row:
    """`anchor`: its id on the page, or ""; `state` colours its tag."""

    cells: tuple[Cell, ...]
    anchor: str = ""
    state: str = ""


@dataclass(frozen=True)
class Table:
    """`columns`: (name, look). `hidden` rows are left out and counted."""

    anchor: str
    title: str
    columns: Columns
    rows: tuple[Row, ...]
    lead: str = ""
    hidden: int = 0


@dataclass(frozen=True)
class Piece:
    left_percent: float
    width_percent: float
    state: str
    label: str
    href: str = ""


@dataclass(frozen=True)
class Strip:
    """A film from start to end, and which parts of it were used."""

    name: str
    path: str
    pieces: tuple[Piece, ...]
    figure: str


@dataclass(frozen=True)
class Strips:
    lead: str
    legend: tuple[tuple[str, str], ...]
    strips: tuple[Strip, ...]
    are_some: bool = False


@dataclass(frozen=True)
class Decision:
    """What was measured and what was asked of it. Where both are numbers they lie on a scale of 0
    to 100; `limits_percent` is empty where they are not."""

    title: str
    setting: str
    rule: str
    value: str
    asked: str
    also: tuple[str, ...]
    verdict: str
    state: str
    bar_percent: float
    limits_percent: tuple[float, ...]


@dataclass(frozen=True)
class Fact:
    name: str
    value: str
    strong: bool = False


def table_of(
    anchor: str,
    title: str,
    columns: Columns,
    rows: Iterable[Row],
    lead: str = "",
    of: int = 0,
) -> Table:
    """At most ROWS_SHOWN of the rows; `of`: how many there are, where `rows` are not all."""
    listed = tuple(rows)
    shown = listed[:ROWS_SHOWN]
    return Table(anchor, title, columns, shown, lead, max(of, len(listed)) - len(shown))


def row(*values: Any, anchor: str = "", state: str = "") -> Row:
    cells = (v if isinstance(v, Cell) else Cell(in_words(v)) for v in values)
    return Row(tuple(cells), anchor, state)


def meaning_of(reason: str | None) -> str:
    """A reason code in words; itself where it is not one of ours."""
    return REASONS.get(reason or "", reason or "")


def in_words(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1 else f"{value:,.2f}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(in_words, value))
    return str(value)


def strip_of(
    name: str, path: str, spans: Sequence[tuple[float, float, str, str, str]], duration_s: float
) -> Strip:
    """`spans`: (start_s, end_s, state, label, href). Marks of a moment stay wide enough to see."""
    length = max(duration_s, max((end for _, end, *_ in spans), default=0.0)) or 1.0
    pieces = tuple(
        Piece(100 * start / length, max(100 * (end - start) / length, 0.2), state, label, href)
        for start, end, state, label, href in spans
    )
    return Strip(name, path, pieces, f"{length:,.1f} s")


def decision_of(judged: Mapping[str, Any]) -> Decision:
    """One of a clip's `decisions`."""
    value: Any = judged.get("value")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    passed = judged.get("passed")
    verdict = judged.get("outcome")
    if verdict is None:
        verdict = "not judged" if passed is None else "passed" if passed else "failed"
    bar, limits = (
        _scale(float(value), _limits(judged)) if is_number and value is not None else (0, ())
    )
    return Decision(
        title=str(judged.get("title") or judged.get("stage") or ""),
        setting=str(judged.get("setting") or judged.get("stage") or ""),
        rule=str(judged.get("rule") or ""),
        value=_cut(in_words(value)) if value is not None else "–",
        asked=_asked(judged),
        also=tuple(
            f"and {in_words(limit.get('value'))}, {_asked(limit)}"
            for limit in judged.get("also") or ()
        ),
        verdict=str(verdict),
        state="dropped" if passed is None else "kept" if passed else "tainted",
        bar_percent=bar,
        limits_percent=limits,
    )


def _limits(judged: Mapping[str, Any]) -> list[float]:
    named = (judged.get(name) for name in ("at_least", "at_most"))
    return [float(limit) for limit in named if limit is not None]


def _scale(value: float, limits: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """Where the value and the limits lie between the least of them, or 0, and the most."""
    low, high = min([0.0, value, *limits]), max([0.0, value, *limits])
    span = 1.15 * (high - low) or 1.0
    return 100 * (value - low) / span, tuple(100 * (limit - low) / span for limit in limits)


def _asked(judged: Mapping[str, Any]) -> str:
    words = [
        f"{said} {in_words(judged[name])}"
        for name, said in (("at_least", "at least"), ("at_most", "at most"))
        if judged.get(name) is not None
    ]
    return " ".join(filter(None, (" and ".join(words), str(judged.get("unit") or ""))))


def _cut(text: str) -> str:
    """Captions and hashes are values too."""
    return text if len(text) <= VALUE_CHARACTERS else f"{text[: VALUE_CHARACTERS - 1]}…"
