"""The load model is arithmetic: what must hold of it whatever the figures are."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks.load_model import COSTS, Assumptions, demand, money, plot, requests, table

MEASURED = json.loads(COSTS.read_text())
COUNTS = st.floats(1e3, 1e9)


@given(COUNTS, st.floats(1.5, 100))
def test_demand_grows_in_proportion_to_the_clips(clips: float, times: float) -> None:
    few, many = (demand(MEASURED, Assumptions(clips=n)) for n in (clips, clips * times))
    for small, large in zip(few, many, strict=True):
        for one, other in zip(astuple(small)[1:], astuple(large)[1:], strict=True):
            assert other == pytest.approx(times * one)


def astuple(line: object) -> tuple[float, ...]:
    return dataclasses.astuple(line)  # type: ignore[call-overload]


@given(st.floats(0.05, 0.5))
def test_footage_that_is_thrown_away_is_watched_all_the_same(kept_share: float) -> None:
    half, whole = (
        {line.stage: line for line in demand(MEASURED, Assumptions(kept_share=share))}
        for share in (kept_share, 2 * kept_share)
    )
    assert half["watch"].core_hours == pytest.approx(2 * whole["watch"].core_hours)
    assert half["cut, write shards"] == whole["cut, write shards"]


def test_every_stage_costs_something_and_all_of_it_is_in_the_bill() -> None:
    assumed = Assumptions()
    lines, asked = demand(MEASURED, assumed), requests(MEASURED, assumed)
    assert all(any(astuple(line)[1:]) for line in lines)
    bill = money(lines, asked, assumed)
    assert all(usd > 0 for usd in bill.values())
    core_hours = sum(line.core_hours for line in lines)
    assert bill["cores"] == pytest.approx(core_hours * assumed.core_hour_usd)


def test_it_is_shown(tmp_path: Path) -> None:
    text = table(MEASURED, Assumptions())
    assert "35,000,000 kept videos" in text and "USD: " in text
    plot(MEASURED, Assumptions(), tmp_path / "load.png")
    assert (tmp_path / "load.png").read_bytes().startswith(b"\x89PNG")
