"""What makes two findings the same one, in this scan and in a later one of the same document.

A fingerprint is SHA-256 over the category and the sentence, of which only letters count, and the place of numbers:
NFKC, case folded, a word that was hyphenated at a line's end is whole again, each run of digits (with points and
commas inside) is one `0`, and everything else separates words. So a document that was laid out anew, or in which "3
weeks" became "4 weeks", keeps its findings; changed words make new ones. Compare SARIF 2.1.0 §3.27.17,
partialFingerprints.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Final

_HYPHENATED: Final = re.compile(r"\u00ad|(?<=[^\W\d_])[-\u2010]\r?\n[ \t]{0,8}(?=[^\W\d_])")
_PART: Final = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


def fingerprint(category: str, sentence: str) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(f"{category}\n{normalised(sentence)}".encode("utf-8", "replace")).hexdigest()


def normalised(sentence: str) -> str:
    """The part of a sentence that its identity is made of."""
    folded = unicodedata.normalize("NFKC", _HYPHENATED.sub("", sentence)).casefold()
    return " ".join("0" if part[0].isdigit() else part for part in _PART.findall(folded))
