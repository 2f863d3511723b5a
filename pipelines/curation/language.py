"""Is it a sentence somebody could use? Script, language, length, repeats and refusals of a text.

Heuristics, not a model: the script of each letter is known exactly; the language of a Latin text
is guessed from its little words, and only said where one language clearly leads.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise

#: Little words that are frequent in one language and rare in the others, as far as there are any.
LITTLE_WORDS: dict[str, frozenset[str]] = {
    name: frozenset(words.split())
    for name, words in {
        "en": "the of and with is on in at an to over from by his her its are while",
        "de": "der die das und ein eine einem einen mit ist auf im zu vor dem den",
        "fr": "le la les un une des du et avec est sur dans au qui en devant",
        "es": "el la los las un una de y con es en sobre por del al que",
        "it": "il lo la gli le un una di e con su nel della del che davanti",
        "pt": "o os as um uma de e com em sobre por do da no na que",
        "nl": "de het een en met is op van te voor aan bij zijn die",
    }.items()
}
#: Scripts whose words are not parted by spaces; two letters there count as a word.
_UNSPACED = frozenset(("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"))
_REFUSAL = re.compile(
    r"^\W*(i['’]?m (very )?sorry|sorry[,.!]|"
    r"i (can(no|['’])t|am (not able|unable)|won['’]t|apologi)|"
    r"as an ai\b|i do(n['’]t| not) (see|have|feel comfortable)|"
    r"(unfortunately|apologies),? )",
    re.IGNORECASE,
)


def count_words(text: str) -> int:
    """Words between spaces; in scripts without spaces, half the letters."""
    unspaced = sum(script_of(c) in _UNSPACED for c in text)
    words = text.split()
    spaced = sum(any(c.isalnum() and script_of(c) not in _UNSPACED for c in w) for w in words)
    return spaced + (unspaced + 1) // 2


def repeated_share(text: str) -> float:
    """Share of neighbouring pairs of words that were there before: a captioner in a loop."""
    words = text.lower().split()
    pairs = list(pairwise(words))
    return 1.0 - len(set(pairs)) / len(pairs) if pairs else 0.0


def is_refusal(text: str) -> bool:
    """True for an answer that declines to describe, as chat models give."""
    return bool(_REFUSAL.match(text))


@cache
@cache
def known_scripts() -> frozenset[str]:
    """The scripts that letters of Unicode's first plane belong to, in lower case."""
    return frozenset(script_of(chr(code)).lower() for code in range(0x10000)) - {""}


def script_of(character: str) -> str:
    """LATIN, CYRILLIC, CJK, ... by the character's Unicode name; '' for what is no letter."""
    if not character.isalpha():
        return ""
    return unicodedata.name(character, "UNKNOWN").split()[0].split("-")[0]


def script_share(text: str, scripts: tuple[str, ...]) -> float:
    """Share of the letters that belong to these scripts; 1 without letters."""
    wanted = {name.upper() for name in scripts}
    counts = Counter(script_of(c) for c in text)
    del counts[""]
    total = sum(counts.values())
    return sum(counts[name] for name in wanted) / total if total else 1.0


def language_of(text: str) -> str | None:
    """The language whose little words clearly lead (two at least, and ahead), or None."""
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = sorted(
        ((sum(w in little for w in words), name) for name, little in LITTLE_WORDS.items()),
        reverse=True,
    )
    (most, first), (second, _) = counts[0], counts[1]
    return first if most >= 2 and most > second else None
