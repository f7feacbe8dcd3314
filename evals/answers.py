"""Generated answers against reference answers. Pure and torch-free.

Exact match is strict: two answers are equal where they differ in white space alone (both stripped, runs of it as one
blank), after Unicode NFC. Case, punctuation and articles count, since "1.5" is not "15" and `[a]` is not `a`. The
official SQuAD script drops all three (Rajpurkar et al. 2016, arXiv:1606.05250, `evaluate-v1.1.py`); that is done for
token F1 only, where it is part of the definition.
"""

import re
import string
import unicodedata
from collections import Counter

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, reference: str) -> float:
    """1.0 where the answers are equal but for white space, else 0.0."""
    return float(_collapsed(answer) == _collapsed(reference))


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the words of both, each counted as often as it occurs (SQuAD).

    Words are those of the text in lower case without punctuation and articles. Where one of the texts has none, it is
    1.0 or 0.0 by exact match (as in `evaluate-v2.0.py`, but on the texts as they are: "+" is not "-").
    """
    words, wanted = _words(answer), _words(reference)
    if not words or not wanted:
        return exact_match(answer, reference)
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted))


def _collapsed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", unicodedata.normalize("NFC", text).lower().translate(_PUNCTUATION)).split()
