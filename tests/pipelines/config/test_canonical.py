"""A canonical form that never collides, and goes back to what it was made of."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.config import config_hash, from_plain, to_plain
from tests.pipelines.config.example import Example, Shots

shots = st.builds(
    Shots,
    threshold=st.floats(0, 100),
    detector=st.sampled_from(["adaptive", "content"]),
    sizes_px=st.lists(st.integers(0, 99), max_size=4).map(tuple),
    limit=st.none() | st.integers(1, 9),
    guard=st.booleans(),
)


@given(shots)
def test_plain_form_round_trips(value: Shots) -> None:
    assert from_plain(Shots, to_plain(value)) == value


@given(shots, shots)
def test_equal_configurations_and_only_they_have_equal_hashes(a: Shots, b: Shots) -> None:
    assert (config_hash(a) == config_hash(b)) == (to_plain(a) == to_plain(b))


def test_known_hashes_stay_what_they_were() -> None:
    """They name folders of finished work."""
    assert config_hash(Shots()) == "4a014813995c447dd9a56cb8d2507dde"
    value = {"b": [1, 2.5, None, True, "\u00e9\udc80"], "a": {"x": (1,), "y": "z"}}
    assert config_hash(value) == "f8bf7af0a9d02423721fd8f23d195b9b"


file_names = st.binary(max_size=6).map(lambda name: name.decode("utf-8", "surrogateescape"))
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text() | file_names
encodable = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def typed(value: Any) -> Any:
    """The value so that what JSON tells apart is unequal: True, 1 and 1.0 are equal in Python."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value).__name__, value


def reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return tuple(map(reordered, value)) if isinstance(value, list) else value


@given(encodable)
def test_the_order_of_insertion_does_not_matter(value: Any) -> None:
    assert config_hash(reordered(value)) == config_hash(value)


@given(encodable, encodable)
def test_different_values_have_different_hashes(a: Any, b: Any) -> None:
    assert (config_hash(a) == config_hash(b)) == (typed(a) == typed(b))


def test_the_two_zeros_are_equal() -> None:
    assert config_hash({"x": -0.0}) == config_hash({"x": 0.0}) != config_hash({"x": 0})


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        frozenset("a"),
        object(),
        float("nan"),
        float("inf"),
        b"bytes",
        datetime.date(2026, 1, 2),
        Path("a"),
        decimal.Decimal(1),
        1j,
        numpy.int64(1),
        numpy.float32(0.5),
        numpy.zeros((9, 9)),
        len,
        Shots,
        {1: "a"},  # in JSON the same as {"1": "a"}
        {"1": "a", 1: "b"},
        {None: "a"},
        "\ud83d\ude00",  # in JSON the same as one emoji
        {"\ud83d": 0},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_canonical_form_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match=r"^sections\[1\]\.deep.* has no canonical form$") as caught:
        config_hash({"sections": [0, {"deep": value}]})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 150


def test_the_field_of_a_section_is_named() -> None:
    broken = Example(shots=dataclasses.replace(Shots(), threshold=float("nan")))
    with pytest.raises(TypeError, match=r"^shots\.threshold: nan \(float\) has no canonical form"):
        config_hash(broken)


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Example().footage = "other"  # type: ignore[misc]
