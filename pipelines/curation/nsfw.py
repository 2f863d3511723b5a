"""Nudity in the sampled frames, by a packaged detector (NudeNet: MIT, 12 MB, no download).

An optional extra: `pip install i2vgen-ray[nsfw]`. Off, the score stays null and nothing is judged.
A clip's score is the surest detection of any of the chosen classes in any of its frames; a frame
takes about 20 ms on one core. The detector knows bodies, not violence or cruelty.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.config import RequestError, setting
from pipelines.records import Clip

_PARTS = ("FEMALE_GENITALIA", "FEMALE_BREAST", "BUTTOCKS", "ANUS", "BELLY", "FEET", "ARMPITS")
#: What the detector can name. It says nothing below a score of 0.2.
CLASSES = frozenset(
    (
        *(f"{part}_{seen}" for part in _PARTS for seen in ("EXPOSED", "COVERED")),
        *("MALE_GENITALIA_EXPOSED", "MALE_BREAST_EXPOSED", "FACE_FEMALE", "FACE_MALE"),
    )
)
_DIGITS = 4


@dataclass(frozen=True)
class NsfwConfig:
    """Whether nudity is looked for, and how sure a finding must be."""

    method: Literal["off", "nudenet"] = setting(
        "off", "nudenet: needs the extra [nsfw]; off: the score stays null"
    )
    max_score: float = setting(
        0.5, "surest finding that passes; 0.2 is the least there is", unit="score", low=0, high=1
    )
    classes: tuple[str, ...] = setting(
        (
            "FEMALE_GENITALIA_EXPOSED",
            "MALE_GENITALIA_EXPOSED",
            "FEMALE_BREAST_EXPOSED",
            "BUTTOCKS_EXPOSED",
            "ANUS_EXPOSED",
        ),
        "findings that count, by the detector's names",
    )


def judge(clip: Clip, config: NsfwConfig) -> Clip:
    """Drops clips that show nudity; what was not looked at is not judged."""
    if clip.nsfw is not None and clip.nsfw > config.max_score:
        return clip.dropped("nsfw", "nsfw")
    return clip


def check_nsfw(config: NsfwConfig) -> None:
    """Raises RequestError for a detector that is not there, or classes that it does not know."""
    if config.method == "off":
        return
    unknown = sorted(set(config.classes) - CLASSES)
    if unknown or not config.classes:
        raise RequestError(
            f"nsfw.classes: {', '.join(unknown) or 'none given'}; "
            f"the detector knows {', '.join(sorted(CLASSES))}"
        )
    if importlib.util.find_spec("nudenet") is None:
        raise RequestError(
            "nsfw.method nudenet: the package is not installed; "
            "pip install 'i2vgen-ray[nsfw]', or leave nsfw.method off"
        )


class NsfwDetector:
    """The loaded detector; one per worker. Raises RequestError where it is not installed."""

    def __init__(self, config: NsfwConfig) -> None:
        check_nsfw(config)
        import nudenet
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._classes = frozenset(config.classes)
        self._detector: Any = nudenet.NudeDetector()
        weights = Path(nudenet.__file__).parent / "320n.onnx"
        self._detector.onnx_session = InferenceSession(str(weights), options)

    def score(self, jpegs: Sequence[bytes]) -> float:
        """The surest finding in any of a clip's frames, 0 when there is none."""
        found = (f for jpeg in jpegs for f in self._detector.detect(jpeg))
        sure = [round(f["score"], _DIGITS) for f in found if f["class"] in self._classes]
        return max(sure, default=0.0)
