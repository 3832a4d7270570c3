"""Codes of products: GTINs, whose last digit proves the others, and the shapes that shops give their own.

Rule of the check digit: GS1 General Specifications §7.9. A chance number of 13 digits passes it one time in ten, so a
right digit is no proof alone.
"""

from __future__ import annotations

import re
from typing import Final

MAX_SKU: Final = 64
_GTIN_LENGTHS: Final = frozenset({8, 12, 13, 14})
_LOOKALIKES: Final = str.maketrans("lI|OoSBZ", "11100582")
_SKU: Final = re.compile(r"[A-Z0-9][A-Z0-9._/#-]{1,31}", re.IGNORECASE)
_PLAIN_SKU: Final = re.compile(r"[A-Z]{1,6}[-._/]?[0-9]{2,12}(?:[-._/]?[A-Z0-9]{1,8}){0,3}|[0-9]{2,8}-[A-Z0-9]{1,8}")
_DATE: Final = re.compile(r"[0-9]{1,4}[-./][0-9]{1,2}[-./][0-9]{1,4}")
_MEASURE: Final = re.compile(r"[0-9]+[.,]?[0-9]*[a-zA-Z]{1,3}")
_PHONE: Final = re.compile(r"\+?[0-9]{2,4}[-.][0-9]{3,4}(?:[-.][0-9]{3,4})?")


def is_gtin(digits: str) -> bool:
    """Whether these are the digits of an EAN-8, UPC-12, EAN-13 or GTIN-14 with a right check digit."""
    if len(digits) not in _GTIN_LENGTHS or not (digits.isascii() and digits.isdigit()) or not digits.strip("0"):
        return False
    weighed = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return weighed % 10 == 0


def find_gtin(text: str, *, is_labelled: bool) -> tuple[str, float] | None:
    """The GTIN that a text is, and how sure that is. Eight digits count only where a header says so.

    A letter that looks like a digit is read as one if the check digit is right then.
    """
    token = re.sub(r"[\s-]", "", text[: 2 * MAX_SKU])
    if len(token) not in _GTIN_LENGTHS or (len(token) == 8 and not is_labelled):
        return None
    if is_gtin(token):
        return token, 1.0
    plain = token.translate(_LOOKALIKES)
    if plain != token and sum(map(str.isdecimal, token)) >= len(token) - 2 and is_gtin(plain):
        return plain, 0.7
    return None


def find_sku(text: str, *, is_labelled: bool) -> tuple[str, float] | None:
    """The code that a text is, and how sure that is. Without a header's word it must look like one."""
    token = " ".join(text.strip(" \t:;,").split())
    if is_labelled:
        if not token or len(token) > MAX_SKU or len(token.split()) > 3 or not any(map(str.isalnum, token)):
            return None
        certainty = 1.0 if _SKU.fullmatch(token) else 0.8
        return token, certainty if any(map(str.isdecimal, token)) else 0.6
    if len(token) > MAX_SKU or any(shape.fullmatch(token) for shape in (_DATE, _PHONE, _MEASURE)):
        return None
    if _PLAIN_SKU.fullmatch(token):
        return token, 0.9
    return (token, 0.7) if token.isascii() and token.isdigit() and 4 <= len(token) <= 8 else None


def shape(code: str) -> str:
    """What a code looks like: runs of letters as one A, runs of digits as one 9."""
    return re.sub(r"[0-9]+", "9", re.sub(r"[^\W\d_]+", "A", code[:MAX_SKU]))
