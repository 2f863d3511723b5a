"""The small byte-pair vocabulary of the embedded CoCa.

open_clip's stock vocabulary costs 12.6 M parameters at any width. Ours holds every byte, so any
prompt can be written, and one token for each word the generated world uses.
"""

from __future__ import annotations

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path

VOCABULARY_FILE = Path(__file__).with_name("embedded_coca_bpe.txt.gz")

_WORDS = """
    a an the of and in on over with against photo picture video clip film image shot showing
    circle square triangle star cross ring red orange yellow green blue purple pink white
    moving left right up down growing shrinking spinning bouncing to background
    textured gradient noise still shape object scene small big
"""


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merge the most frequent neighbours until every word is one symbol (Sennrich 2016)."""
    spellings = [[*word[:-1], word[-1] + "</w>"] for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for symbols in spellings for pair in pairwise(symbols))
        if not pairs:
            return merges
        best = max(sorted(pairs), key=lambda pair: pairs[pair])
        merges.append(best)
        spellings = [_merge(symbols, best) for symbols in spellings]


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    index = 0
    while index < len(symbols):
        if tuple(symbols[index : index + 2]) == pair:
            merged.append(symbols[index] + symbols[index + 1])
            index += 2
        else:
            merged.append(symbols[index])
            index += 1
    return merged


def write_vocabulary(path: Path = VOCABULARY_FILE) -> int:
    """Write the merges as open_clip's SimpleTokenizer reads them; returns the vocabulary size."""
    merges = learn_merges(_WORDS.split())
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    return 2 * 256 + len(merges) + 2
