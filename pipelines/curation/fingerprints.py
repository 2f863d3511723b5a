"""Fingerprints (phash.py) of very many clips as whole numbers, a row each, in little memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.curation.mapped import zeros
from pipelines.curation.phash import unpacked

#: The value of each hex digit, by its character.
_VALUE_OF = np.zeros(256, np.uint8)
for _value, _digit in enumerate("0123456789abcdef"):
    _VALUE_OF[ord(_digit)] = _value
_COLOUR_DIGITS = 4
_ZERO = 8  # the digit that stands for 0


@dataclass(frozen=True)
class Fingerprints:
    """Of clips whose texts are equally long; whole numbers, so no sum depends on the machine.

    `moving_NB` holds two digits a byte: it is the largest part, and rarely looked at. It has no
    columns where the texts say nothing of what moves.
    """

    colour_N2: np.ndarray
    standing_ND: np.ndarray
    moving_NB: np.ndarray

    @staticmethod
    def room_for(count: int, length: int) -> Fingerprints:
        """Room for `count` texts of `length` digits, to be `put`."""
        example = unpacked("8" * length)
        moving = length - _COLOUR_DIGITS - len(example.standing)
        return Fingerprints(
            zeros((count, 2), np.int16),
            zeros((count, len(example.standing)), np.int8),
            zeros((count, moving // 2), np.uint8),
        )

    @staticmethod
    def of(texts: Sequence[str]) -> Fingerprints:
        """At least one text."""
        found = Fingerprints.room_for(len(texts), len(texts[0]))
        found.put(np.arange(len(texts)), texts)
        return found

    def put(self, rows: np.ndarray, texts: Sequence[str]) -> None:
        digits_RL = _VALUE_OF[np.frombuffer("".join(texts).encode("ascii"), np.uint8)]
        digits_RL = digits_RL.reshape(len(rows), -1)
        pairs_R22 = digits_RL[:, :_COLOUR_DIGITS].reshape(-1, 2, 2).astype(np.int16)
        moving_from = _COLOUR_DIGITS + self.standing_ND.shape[1]
        self.colour_N2[rows] = 16 * pairs_R22[..., 0] + pairs_R22[..., 1]
        self.standing_ND[rows] = digits_RL[:, _COLOUR_DIGITS:moving_from].astype(np.int8) - _ZERO
        self.moving_NB[rows] = (
            16 * digits_RL[:, moving_from::2] + digits_RL[:, moving_from + 1 :: 2]
        )

    def moving(self, rows: np.ndarray) -> np.ndarray:
        """(rows, digits) int8; without a column where nothing is said."""
        packed_RB = self.moving_NB[rows]
        digits_RB2 = np.stack([packed_RB >> 4, packed_RB & 15], axis=-1)
        return digits_RB2.reshape(len(packed_RB), -1).astype(np.int8) - _ZERO
