"""Every clip of a run as the driver holds it: a few numbers each, in order of source and shot.

What decides over all clips together (duplicates, tiers, shards) is decided on these columns, which
are mapped from temporary files where they are long (mapped.py). The rows themselves stay in their
parts (judged_parts.py) until they are published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.curation.clip_ids import ID_BYTES, hex_ids, packed_ids
from pipelines.curation.judged_parts import ROW_DIGEST_BYTES, part_path
from pipelines.curation.mapped import Growing, stretches
from pipelines.curation.tiers import MERITS
from pipelines.curation.verdicts import TAKEN_DOWN
from pipelines.curation.work import Row, Work

KEPT, UNCUT, CUT, CUT_FAILED = 0, 0, 1, 2
SHA256_BYTES = 32
Reason = tuple[str | None, str | None]

#: Columns that are numbers in a part, with the type they are held in and what stands for null.
NUMBERS: Mapping[str, tuple[type, float]] = {
    "start_s": (np.float64, 0),
    "end_s": (np.float64, 0),
    "crop_w_px": (np.int32, 0),
    "crop_h_px": (np.int32, 0),
    "sharpness": (np.float32, 0),
    **dict.fromkeys(MERITS, (np.float32, np.nan)),
    "row_at": (np.int64, -1),
    "row_bytes": (np.int32, 0),
    "embedding_at": (np.int64, -1),
    "embedding_bytes": (np.int32, 0),
    "caption_bytes": (np.int32, 0),
    "is_shadow": (np.bool_, 0),
    "cut_size_bytes": (np.int64, 0),
    "cut_leak_frames": (np.int32, -1),
    "cut_lost_frames": (np.int32, -1),
    "cut_cut_again": (np.bool_, 0),
}
#: What is worked out from the texts of a part: the type, and how many values a clip.
OF_TEXTS: Mapping[str, tuple[type, int | None]] = {
    "ids": (np.uint8, ID_BYTES),
    "is_video": (np.bool_, None),
    "phash_digits": (np.int16, None),
    "reason": (np.int16, None),
    "row_digest": (np.uint8, ROW_DIGEST_BYTES),
    "cut_state": (np.int8, None),
    "cut_sha256": (np.uint8, SHA256_BYTES),
    "cut_method": (np.int8, None),
}
TEXTS = ("clip_id", "kind", "phash", "reason_stage", "reason", "row_digest")
CUT_TEXTS = ("cut_sha256", "cut_failed", "cut_method")


@dataclass
class Judged:
    """Columns of N clips. `reason_N` is KEPT, or the number in `reasons` of why it was dropped."""

    parts: Sequence[str]
    #: Where each part's clips begin, and the end.
    starts: np.ndarray
    ids_NB: np.ndarray
    is_video_N: np.ndarray
    phash_digits_N: np.ndarray
    reason_N: np.ndarray
    reasons: list[Reason]
    row_digest_NB: np.ndarray
    numbers: dict[str, np.ndarray]
    cut_state_N: np.ndarray
    cut_sha256_NB: np.ndarray
    cut_method_N: np.ndarray
    methods: list[str | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids_NB)

    def duration_s_of(self, clips: np.ndarray) -> np.ndarray:
        return np.asarray(self.numbers["end_s"][clips] - self.numbers["start_s"][clips])

    def reason_number(self, reason: Reason) -> int:
        """The number that stands for it in `reason_N`."""
        return number_in(self.reasons, reason)

    def is_taken_down(self) -> np.ndarray:
        return self.reason_N == self.reason_number(TAKEN_DOWN)

    def part_of(self, clips: np.ndarray) -> np.ndarray:
        """Numbers of the parts that these clips are in."""
        return np.searchsorted(self.starts, clips, side="right") - 1

    def rows_by_part(self, clips: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(part, those of the clips in it), `clips` rising."""
        edges = np.searchsorted(clips, self.starts)
        for part in np.flatnonzero(np.diff(edges)):
            yield int(part), clips[edges[part] : edges[part + 1]]

    def learn_cut(self, clip: int, cut: Row) -> None:
        """What came of a cut that was just made."""
        self.cut_state_N[clip] = CUT_FAILED if cut["failed"] else CUT
        if cut["failed"]:
            return
        self.cut_sha256_NB[clip] = np.frombuffer(bytes.fromhex(cut["sha256"]), np.uint8)
        self.cut_method_N[clip] = number_in(self.methods, cut["method"])
        for name in ("size_bytes", "leak_frames", "lost_frames", "cut_again"):
            column = f"cut_{name}"
            value = cut[name]
            self.numbers[column][clip] = NUMBERS[column][1] if value is None else value

    def cut_rows(self, clips: np.ndarray) -> Iterator[Row]:
        """Rows of CUTS_SCHEMA of clips that were cut."""
        for some in stretches(len(clips)):
            yield from self._cut_rows(clips[some])

    def _cut_rows(self, clips: np.ndarray) -> Iterator[Row]:
        sha256 = hex_ids(self.cut_sha256_NB[clips])
        for clip, clip_id, digest in zip(clips, hex_ids(self.ids_NB[clips]), sha256, strict=True):
            leak, lost = (int(self.numbers[f"cut_{n}_frames"][clip]) for n in ("leak", "lost"))
            yield {
                "clip_id": clip_id,
                "size_bytes": int(self.numbers["cut_size_bytes"][clip]),
                "sha256": digest,
                "failed": None,
                "method": self.methods[self.cut_method_N[clip]],
                "leak_frames": None if leak < 0 else leak,
                "lost_frames": None if lost < 0 else lost,
                "cut_again": bool(self.numbers["cut_cut_again"][clip]),
            }


def number_in(values: list[Any], value: Any) -> int:
    """Its place in the list, to which it is added if need be; the list stays short."""
    if value not in values:
        values.append(value)
    return values.index(value)


def read_judged(work: Work, parts: Sequence[str]) -> Judged:
    """The columns of all parts, in their order."""
    reasons: list[Reason] = [(None, None)]
    methods: list[str | None] = [None]
    columns = {name: Growing(kind, width) for name, (kind, width) in OF_TEXTS.items()}
    columns |= {name: Growing(kind) for name, (kind, _) in NUMBERS.items()}
    counts = []
    for part in parts:
        found = _columns(work, part, reasons, methods)
        counts.append(len(found["ids"]))
        for name, rows in found.items():
            columns[name].add(rows)
    starts = np.cumsum([0, *counts])
    whole = {name: column.whole() for name, column in columns.items()}
    numbers = {name: whole.pop(name) for name in NUMBERS}
    return Judged(
        parts, starts, whole["ids"], whole["is_video"], whole["phash_digits"],
        whole["reason"], reasons, whole["row_digest"], numbers, whole["cut_state"],
        whole["cut_sha256"], whole["cut_method"], methods,
    )  # fmt: skip


def _columns(
    work: Work, part: str, reasons: list[Reason], methods: list[str | None]
) -> dict[str, np.ndarray]:
    table = work.scratch.read_table(part_path(work, part), [*TEXTS, *CUT_TEXTS, *NUMBERS])
    texts = {name: table[name].to_pylist() for name in (*TEXTS, *CUT_TEXTS)}
    count = table.num_rows
    why = zip(texts["reason_stage"], texts["reason"], strict=True)
    known = zip(texts["cut_sha256"], texts["cut_failed"], strict=True)
    found = {
        "ids": packed_ids(texts["clip_id"]),
        "is_video": np.array([kind == "video" for kind in texts["kind"]], bool),
        "phash_digits": np.array([len(text or "") for text in texts["phash"]], np.int16),
        "reason": np.array([number_in(reasons, reason) for reason in why], np.int16),
        "row_digest": _bytes_of(texts["row_digest"], ROW_DIGEST_BYTES),
        "cut_state": np.array(
            [CUT_FAILED if failed else CUT if digest else UNCUT for digest, failed in known],
            np.int8,
        ),
        "cut_sha256": _bytes_of(
            [bytes.fromhex(digest or "") for digest in texts["cut_sha256"]], SHA256_BYTES
        ),
        "cut_method": np.array([number_in(methods, m) for m in texts["cut_method"]], np.int8),
    }
    for name, (kind, null) in NUMBERS.items():
        values = table[name].combine_chunks()
        filled = (
            values.fill_null(pa.scalar(null).cast(values.type)) if values.null_count else values
        )
        found[name] = filled.to_numpy(zero_copy_only=False).astype(kind)
    assert all(len(column) == count for column in found.values())
    return found


def _bytes_of(values: Sequence[bytes | None], width: int) -> np.ndarray:
    """(N, width) uint8; zeros for null."""
    return np.frombuffer(b"".join(value or bytes(width) for value in values), np.uint8).reshape(
        -1, width
    )
