"""Fits the weights of pipelines/curation/text_lines.py, and says how well they do when new.

    python tests/benchmarks/fit_text_lines.py

Learns from seed 11 with the real clips bikes and carphone; judged on seed 12 with bigbuckbunny,
whose standing grass is as stroke-like as anything. Prints `WEIGHTS` and `BIAS` to be pasted there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np

from pipelines.curation import text_lines
from tests.benchmarks.text_corpus import Box, Sample, draw_sample

TAUGHT = (11, 3000, ("bikes.mp4", "carphone_pristine.mp4"))
UNSEEN = (12, 800, ("bigbuckbunny.mp4",))
WRONG_COSTS = 1.5  # against a missed line
STEADY = 1e-3
NAMES = (
    "strength", "strokes_per_height", "even_rows", "parts_per_height", "around_on", "period",
    "empty_columns", "log_height", "log_aspect", "row_spread", "height_spread", "around", "filled",
)  # fmt: skip


def main() -> None:
    cv2.setNumThreads(1)
    taught, unseen = (samples(*which) for which in (TAUGHT, UNSEEN))
    measures_ND, is_text_N = table(taught)
    mean_D, deviation_D = measures_ND.mean(axis=0), measures_ND.std(axis=0) + 1e-6
    weights = fitted(terms(measures_ND, mean_D, deviation_D), is_text_N)
    columns = (mean_D, deviation_D, *np.split(weights[:-1], 2))
    text_lines.WEIGHTS = {
        name: tuple(round(float(v), 4) for v in values)  # type: ignore[misc]
        for name, *values in zip(NAMES, *columns, strict=True)
    }
    text_lines.BIAS = round(float(weights[-1]), 4)
    print("WEIGHTS: dict[str, tuple[float, float, float, float]] = {")
    for name, values in text_lines.WEIGHTS.items():
        print(f'    "{name}": {values},')
    print(f"}}\nBIAS = {text_lines.BIAS}")
    for title, group in (("taught", taught), ("unseen", unseen)):
        report(title, group)


def samples(seed: int, count: int, real_names: tuple[str, ...]) -> list[Sample]:
    rng = np.random.default_rng(seed)
    return [draw_sample(rng, real_names) for _ in range(count)]


def table(group: list[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) measures of all candidates that clearly are text or clearly not, and which are."""
    rows, labels = [], []
    for sample in group:
        for box, measures in text_lines.candidates(sample.luma_frames):
            label = label_of(box, sample.letters)
            if label is not None:
                rows.append(measures)
                labels.append(label)
    return np.array(rows), np.array(labels, dtype=float)


def label_of(box: Box, letters: list[Box]) -> bool | None:
    """Text when most of it is letters and half a line's height is in it; None in between."""
    shared, covered = 0.0, 0.0
    for other in letters:
        across = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
        down = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
        if across > 0 and down > 0:
            shared += across * down / (box[2] * box[3])
            covered = max(covered, down / other[3])
    if shared > 0.55 and covered > 0.5:
        return True
    return False if shared < 0.12 else None


def terms(measures_ND: np.ndarray, mean_D: np.ndarray, deviation_D: np.ndarray) -> np.ndarray:
    z_ND = np.clip((measures_ND - mean_D) / deviation_D, -text_lines._REACH, text_lines._REACH)
    return np.hstack([z_ND, z_ND**2, np.ones((len(z_ND), 1))])


def fitted(terms_NT: np.ndarray, is_text_N: np.ndarray) -> np.ndarray:
    """Logistic regression by Newton's method; the last weight is the bias."""
    cost_N = np.where(is_text_N == 1, 1.0, WRONG_COSTS)
    pull = np.full(terms_NT.shape[1], STEADY * len(terms_NT))
    pull[-1] = 1e-6
    weights = np.zeros(terms_NT.shape[1])
    for _ in range(40):
        chance_N = 1 / (1 + np.exp(-np.clip(terms_NT @ weights, -30, 30)))
        slope = terms_NT.T @ (cost_N * (chance_N - is_text_N)) + pull * weights
        bend = (terms_NT * (cost_N * chance_N * (1 - chance_N))[:, None]).T @ terms_NT
        step = np.linalg.solve(bend + np.diag(pull), slope)
        weights -= step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def report(title: str, group: list[Sample]) -> None:
    found = np.array([bool(text_lines.text_lines(s.luma_frames)) for s in group])
    there = np.array([bool(s.letters) for s in group])
    for ground in ("world", "real", "pattern", "all"):
        of = np.array([ground in (s.ground, "all") for s in group])
        right, wrong = int((found & there & of).sum()), int((found & ~there & of).sum())
        print(
            f"{title:7s} {ground:8s} recall {right / (there & of).sum():.3f}   "
            f"precision {right / max(1, right + wrong):.3f}   "
            f"wrong {wrong} of {(~there & of).sum()} without letters"
        )


if __name__ == "__main__":
    main()
