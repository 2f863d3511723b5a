"""What goes over the wire comes back the same; what comes from a stranger makes nothing else."""

from __future__ import annotations

import dataclasses
import math
import pickle
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import msgpack
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, scalar_dtypes

from pipelines.media import CutFailure, CutOrder, FrameSpan
from pipelines.records import Source
from pipelines.sandbox import wire
from tests.pipelines.curation.clips_of import a_clip

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters(exclude_categories=())),  # with the halves of surrogate pairs
    st.binary(),
    st.builds(Path, st.text(st.characters(exclude_characters="\0", exclude_categories=()))),
)
NUMBERS = scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc" and dtype.itemsize <= 16)
LEAVES = PLAIN | arrays(NUMBERS, array_shapes(min_dims=0, min_side=0)) | st.just(CutFailure("x"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=5), inner, max_size=4),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        is_array = isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape
        return is_array and a.tobytes() == b.tobytes()
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return type(a) is type(b) and bool(a == b)


@given(VALUES)
def test_every_value_comes_back(value: Any) -> None:
    assert same(value, wire.decode(wire.encode(value)))


def test_our_records_come_back() -> None:
    order = CutOrder(Path("/tmp/a b.mp4"), FrameSpan(1, 9, 0.04, 0.36))
    clip = dataclasses.replace(a_clip(), embedding=None, tiers=["base"])
    for record in (order, clip, Source("0" * 32, ["\udcff.mp4"], 3)):
        assert wire.decode(wire.encode(record)) == record
    assert wire.decode(wire.encode(np.float32(0.1))) == float(np.float32(0.1))


@pytest.mark.parametrize(
    "value", [{1, 2}, Fraction(1, 2), print, np.array([object()]), 2**64, Source, object()]
)
def test_what_has_no_place_is_refused(value: object) -> None:
    with pytest.raises(wire.WireError):
        wire.encode(value)


def tree(packed: Any) -> bytes:
    data = msgpack.packb(packed)
    return len(data).to_bytes(8, "little") + data


LIST, TUPLE, PATH, BYTES, ARRAY, RECORD = range(6)


def record(module: str, name: str, *fields: Any) -> list[Any]:
    return [RECORD, module, name, *fields]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        pickle.dumps(Path("/")),
        tree(record("os", "system", "true")),
        tree(record("pathlib", "Path", "/")),
        tree(record("pipelines.sandbox.calls", "run_limited")),
        tree(record("pipelines.sandbox.calls", "subprocess")),
        tree(record("pipelines.no_such_module", "Clip")),
        tree(record("pipelines.curation.film", "Source", *[None] * 15)),  # lives elsewhere
        tree(record("pipelines.media.cut_order", "CutFailure", "x")),
        tree(record("pipelines.media.cut_order", "CutFailure", "x", 3)),
        tree(record("pipelines.media.cut_order", "FrameSpan", 0, True, 0.0, 1.0)),
        tree([ARRAY, "|O", [1], 0]),
        tree([ARRAY, "<f8", [2**62, 2**62], 0]),
        tree([ARRAY, "<f8", [-1], 0]),
        tree([ARRAY, "<f8", [1], 1]),
        tree([ARRAY, "<f8", [1]]),
        tree([BYTES, 0, 9]),
        tree([BYTES, -3, 3]),
        tree([PATH, 3]),
        tree([]),
        tree([True, 1]),
        tree(msgpack.ExtType(9, b"\xc0")),
        tree(msgpack.Timestamp(1, 1)),
        tree({1: 2}) + b"\xff" * 8 + tree(3),
        (2**63).to_bytes(8, "little") + b"\xc0",
    ],
)
def test_a_stranger_s_message_makes_nothing(message: bytes) -> None:
    if message == tree({1: 2}) + b"\xff" * 8 + tree(3):  # what follows the tree is arrays' bytes
        assert wire.decode(message) == {1: 2}
        return
    with pytest.raises(wire.WireError):
        wire.decode(message, str)


@given(st.binary())
@example(b"\x00" * 8)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for message in (data, len(data).to_bytes(8, "little") + data):
        try:
            wire.decode(message)
        except wire.WireError:
            continue


@given(st.data())
def test_no_change_of_a_message_raises_anything_else(data: st.DataObject) -> None:
    whole = wire.encode([a_clip(), np.arange(6.0), (Path("/x"), b"y", "z")])
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    try:
        wire.decode(changed)
    except wire.WireError:
        return


def test_nesting_without_end_is_refused() -> None:
    value: Any = ()
    for _ in range(5000):
        value = (value,)
    with pytest.raises(wire.WireError):
        wire.encode(value)
    packed: Any = 1
    for _ in range(200):
        packed = [LIST, packed]
    with pytest.raises(wire.WireError):
        wire.decode(tree(packed))


@pytest.mark.parametrize(
    ("value", "expected", "fits"),
    [
        (1, float, True),
        (True, int, False),
        (None, int | None, True),
        ("a", int | None, False),
        ([1, "a"], list[int], False),
        ((1, 2), Sequence[int], True),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        ((1, 2), tuple[int, ...], True),
        ({"a": [b""]}, dict[str, list[bytes]], True),
        ({"a": [""]}, dict[str, list[bytes]], False),
        ("smart", Literal["smart"], True),
        ("other", Literal["smart"], False),
        ([CutFailure("x")], list[CutFailure | FrameSpan], True),
        ("anything", Any, True),
    ],
)
def test_a_value_is_held_against_its_declaration(value: Any, expected: Any, fits: bool) -> None:
    assert wire.conforms(value, expected) is fits
