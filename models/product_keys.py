"""Keys of products: the one form of SKU and GTIN under which they are unique, and the slug of a name. Pure."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MAX_SLUG_LENGTH: Final = 120


def sku_key(sku: str) -> str:
    """The form under which a SKU is unique: without regard to case, width and spaces."""
    return "".join(unicodedata.normalize("NFKC", sku).casefold().split())


def ean_key(ean: str) -> str | None:
    """The digits of a GTIN whose check digit is right, in the shortest of its forms but never below 13; None otherwise.

    A UPC-A number (12 digits) and the EAN-13 number with a zero before it are one (GS1 General Specifications §3).
    """
    digits = re.sub(r"[\s-]", "", ean)
    if not re.fullmatch(r"[0-9]{8}|[0-9]{12,14}", digits):
        return None
    # From the right: check digit times 1, then 3, 1, 3 … (GS1 General Specifications §7.9).
    total = sum(int(digit) * (3 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    if total % 10:
        return None
    if len(digits) == 8:
        return digits
    shortest = digits.lstrip("0") if len(digits) == 14 else digits
    return shortest.rjust(13, "0") if len(shortest) < 13 else shortest


def slug_of(name: str) -> str:
    """The plain slug of a name; `product` for a name without Latin letters and digits."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[: MAX_SLUG_LENGTH - 9].strip("-") or "product"
