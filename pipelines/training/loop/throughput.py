"""How fast training is: steps, clips, operations, and how much of the time is spent waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch

from model.training_memory import training_flop
from model.unet_config import UNetConfig

Item = TypeVar("Item")

WINDOW_STEPS = 20

# Dense products, from the makers' data sheets, in TFLOP/s: bfloat16, float32 (without TF32).
# The first name that is part of the device's own counts.
GPU_PEAKS: tuple[tuple[str, float, float], ...] = (
    ("H100 PCIe", 756, 51),
    ("H100 NVL", 835, 60),
    ("H100", 989, 67),
    ("H200", 989, 67),
    ("B200", 2250, 80),
    ("A100", 312, 19.5),
    ("L40S", 362, 91.6),
    ("A10G", 70, 35),
    ("RTX 4090", 165, 82.6),
)
PROBE_SIDE, PROBE_TIMES = 1024, 5


@dataclass(frozen=True)
class StepTime:
    """One step of all workers: how long it took, how much of that this worker waited for data."""

    seconds: float
    waited_s: float
    clips: int
    flop: float


class Meter:
    """Means over the last 20 steps; what lies between steps (saving, validating) is not theirs."""

    def __init__(self, peak_flop_per_s: float) -> None:
        self._peak = peak_flop_per_s
        self._steps: deque[StepTime] = deque(maxlen=WINDOW_STEPS)

    def add(self, step: StepTime) -> None:
        self._steps.append(step)

    def figures(self) -> dict[str, float]:
        """Needs at least one step."""
        seconds = max(sum(step.seconds for step in self._steps), 1e-9)
        flop_per_s = sum(step.flop for step in self._steps) / seconds
        return {
            "steps_per_s": len(self._steps) / seconds,
            "clips_per_s": sum(step.clips for step in self._steps) / seconds,
            "tflop_per_s": flop_per_s / 1e12,
            "share_of_peak": flop_per_s / self._peak,
            "data_wait_share": sum(step.waited_s for step in self._steps) / seconds,
        }


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, float]]:
    """Each item, and how many seconds it was waited for."""
    iterator = iter(items)
    while True:
        started_s = time.monotonic()
        try:
            item = next(iterator)
        except StopIteration:
            return
        yield item, time.monotonic() - started_s


def flop_of_clips(
    config: UNetConfig, latent_shape: tuple[int, int, int], tokens: int
) -> Callable[[int], int]:
    """Frames -> operations of training on one clip of that length; each length counted once.

    latent_shape: (C, H, W).
    """
    _, height, width = latent_shape

    @cache
    def of(frames: int) -> int:
        return training_flop(config, frames, height, width, tokens)

    return of


def peak_flop_per_s(device: torch.device, precision: str) -> float:
    """What one worker's device could do at best: the maker's figure for a GPU known by name, else
    what one large product reaches here and now."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, bfloat16, float32 in GPU_PEAKS:
            if known in name:
                return (bfloat16 if precision == "bfloat16" else float32) * 1e12
    return measured_peak(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)


def measured_peak(device: torch.device, dtype: torch.dtype) -> float:
    """The best of a few products of square matrices, in operations per second."""
    from model.linear import linear

    a, b = (torch.ones(PROBE_SIDE, PROBE_SIDE, device=device, dtype=dtype) for _ in range(2))
    best_s = float("inf")
    with torch.no_grad():
        for _ in range(PROBE_TIMES):
            started_s = time.monotonic()
            linear(a, b)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best_s = min(best_s, time.monotonic() - started_s)
    return 2 * PROBE_SIDE**3 / best_s


def memory_figures(device: torch.device) -> dict[str, float]:
    """The most memory that was used so far: the GPU's, and this process's."""
    figures: dict[str, float] = {"memory_peak_gib": _process_peak_bytes() / 2**30}
    if device.type == "cuda":
        figures["gpu_memory_peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return figures


def device_facts(device: torch.device) -> dict[str, Any]:
    """What trains, for the record."""
    facts: dict[str, Any] = {"device": device.type, "threads": torch.get_num_threads()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "gpu_memory_bytes": properties.total_memory}
    return facts


def _process_peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
