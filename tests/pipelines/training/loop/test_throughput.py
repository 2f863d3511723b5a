"""Speeds and shares are what the steps say."""

import itertools

import pytest
import torch

from model.presets import demo
from pipelines.training.loop.throughput import (
    Meter,
    StepTime,
    flop_of_clips,
    measured_peak,
    memory_figures,
    peak_flop_per_s,
    timed,
)


def test_figures_are_means_over_the_last_steps():
    meter = Meter(peak_flop_per_s=4e12)
    for _ in range(30):
        meter.add(StepTime(seconds=100.0, waited_s=100.0, clips=1, flop=0.0))
    for _ in range(20):
        meter.add(StepTime(seconds=0.5, waited_s=0.1, clips=8, flop=1e12))
    assert meter.figures() == pytest.approx(
        {
            "steps_per_s": 2.0,
            "clips_per_s": 16.0,
            "tflop_per_s": 2.0,
            "share_of_peak": 0.5,
            "data_wait_share": 0.2,
        }
    )


def test_every_item_comes_with_the_time_it_was_waited_for():
    clock = itertools.count()

    def slow():
        for item in "abc":
            next(clock)
            yield item

    found = list(timed(slow()))
    assert [item for item, _ in found] == ["a", "b", "c"]
    assert all(waited_s >= 0 for _, waited_s in found)


def test_counting_operations_leaves_the_random_state_alone():
    """It happens in mid-training, at a step that a run that goes on may not count again."""
    torch.manual_seed(0)
    before = torch.get_rng_state()
    count = flop_of_clips(demo().base_unet, (4, 8, 14), 32)
    assert count(8) > count(1) > 0
    assert torch.equal(before, torch.get_rng_state())


def test_a_cpu_is_measured_and_used_memory_is_known():
    peak = peak_flop_per_s(torch.device("cpu"), "float32")
    assert 1e9 < peak < 1e14
    assert measured_peak(torch.device("cpu"), torch.float32) > 0
    before = memory_figures(torch.device("cpu"))["memory_peak_gib"]
    block = torch.ones(int((before + 0.2) * 2**30) // 4)
    assert memory_figures(torch.device("cpu"))["memory_peak_gib"] > before
    del block
