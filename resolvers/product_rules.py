"""What a product may look like: every value of one, checked and in the one form that it is stored in.

Pure: forms of people, lines of imports and candidates from documents pass the same rules. Invariant: what `checked`
gives satisfies the constraints of the table by itself; what depends on other values of the product, such as that a
price has a currency, is `complete`'s. Whether a key is free is known to `resolvers/products.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import orjson

from errors import ValidationFailed
from models.product_keys import MAX_SLUG_LENGTH, ean_key, sku_key
from resolvers import texts

MAX_NAME_LENGTH: Final = 255
MAX_SKU_LENGTH: Final = 64
MAX_DESCRIPTION_LENGTH: Final = 20_000
MAX_UNIT_LENGTH: Final = 16
MAX_CATEGORY_LENGTH: Final = 120
MAX_ATTRIBUTES: Final = 50
MAX_ATTRIBUTE_NAME_LENGTH: Final = 64
MAX_ATTRIBUTES_BYTES: Final = 16_384
MAX_SAFE_INTEGER: Final = 2**53 - 1
PRICE_DECIMALS: Final = 4
MAX_PRICE: Final = Decimal("9999999999.9999")
STOCK_DECIMALS: Final = 3
MAX_STOCK: Final = Decimal("99999999999.999")

Path = Sequence[str | int]

_SLUG: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


def checked(given: Mapping[str, Any], *, path: Path = ("input",)) -> dict[str, Any]:
    """The given columns in the form they are stored in; raises ValidationFailed with the path below `path`."""
    result: dict[str, Any] = {}
    for column, value in given.items():
        result[column] = _RULES[column](value, [*path, _PUBLIC_NAMES.get(column, column)])
    if "sku" in result:
        result["sku_key"] = None if result["sku"] is None else _sku_key(result["sku"], [*path, "sku"])
    return result


def complete(columns: Mapping[str, Any], *, path: Path = ("input",)) -> None:
    """See that a whole product fits together; raises ValidationFailed with the path below `path`."""
    if columns["price"] is not None and columns["currency"] is None:
        raise ValidationFailed("A price needs a currency.", path=[*path, "currency"])
    if columns["price"] is None and columns["currency"] is not None:
        raise ValidationFailed("A currency needs a price.", path=[*path, "price"])


def amount(value: Decimal, *, decimals: int, most: Decimal, path: Path, least: Decimal = Decimal(0)) -> Decimal:
    """An exact number within bounds; raises ValidationFailed with the path."""
    if not value.is_finite() or not least <= value <= most:
        raise ValidationFailed(f"This takes a number from {least} to {most}.", path=path)
    # Bounded before it is scaled, so that no exponent makes a number of a million digits.
    rounded = round(value, decimals)
    if rounded != value:
        raise ValidationFailed(f"This takes at most {decimals} decimals.", path=path)
    return rounded


def quantity(value: Decimal, path: Path) -> Decimal:
    """A stock that can be stored; raises ValidationFailed with the path."""
    return amount(value, decimals=STOCK_DECIMALS, most=MAX_STOCK, path=path)


def _line(max_length: int) -> Callable[[str, Path], str]:
    return lambda value, path: texts.line(value, path=path, max_length=max_length)


def _optional(rule: Callable[[Any, Path], Any]) -> Callable[[Any, Path], Any]:
    return lambda value, path: None if value is None else rule(value, path)


def _slug(value: str, path: Path) -> str:
    if len(value) > MAX_SLUG_LENGTH or not _SLUG.fullmatch(value):
        raise ValidationFailed(
            f"A slug has up to {MAX_SLUG_LENGTH} characters: a to z and digits, in words joined by hyphens.", path=path
        )
    return value


def _sku_key(value: str, path: Path) -> str:
    key = sku_key(value)
    if not 1 <= len(key) <= MAX_SKU_LENGTH:
        raise ValidationFailed(f"This takes 1 to {MAX_SKU_LENGTH} characters.", path=path)
    return key


def _ean(value: str, path: Path) -> str:
    key = ean_key(value)
    if key is None:
        raise ValidationFailed("An EAN has 8, 12, 13 or 14 digits, the last of which checks the others.", path=path)
    return key


def _description(value: str, path: Path) -> str:
    return texts.prose(value, path=path, max_length=MAX_DESCRIPTION_LENGTH)


def _price(value: Decimal, path: Path) -> Decimal:
    return amount(value, decimals=PRICE_DECIMALS, most=MAX_PRICE, path=path)


def _currency(value: str, path: Path) -> str:
    code = value.strip().upper()
    if not _CURRENCY.fullmatch(code):
        raise ValidationFailed("A currency has three letters, such as EUR (ISO 4217).", path=path)
    return code


def _attributes(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValidationFailed("Attributes are a JSON object.", path=path)
    if len(value) > MAX_ATTRIBUTES:
        raise ValidationFailed(f"A product has at most {MAX_ATTRIBUTES} attributes.", path=path)
    for name, content in value.items():
        if not 1 <= len(name) <= MAX_ATTRIBUTE_NAME_LENGTH or not name.isprintable() or name != name.strip():
            raise ValidationFailed(
                f"Names of attributes have 1 to {MAX_ATTRIBUTE_NAME_LENGTH} printable characters.", path=[*path, name]
            )
        parts = content if isinstance(content, list) else [content]
        if isinstance(content, dict):
            parts = [*content, *content.values()]
        for part in parts:
            if isinstance(part, dict | list):
                raise ValidationFailed("Attributes are nested at most two levels deep.", path=[*path, name])
            if isinstance(part, str) and "\0" in part:
                raise ValidationFailed("Text has no NUL characters.", path=[*path, name])
            if not _is_exact(part):
                raise ValidationFailed("This number cannot be kept exactly; write it as text.", path=[*path, name])
    if len(orjson.dumps(value)) > MAX_ATTRIBUTES_BYTES:
        raise ValidationFailed(f"Attributes take at most {MAX_ATTRIBUTES_BYTES:,} bytes of JSON.", path=path)
    return value


def _is_exact(part: Any) -> bool:
    if isinstance(part, float):
        return math.isfinite(part)
    return not isinstance(part, int) or abs(part) <= MAX_SAFE_INTEGER


def _unchanged(value: Any, _path: Path) -> Any:
    return value


_PUBLIC_NAMES: Final = {"is_active": "isActive"}
_RULES: Final[Mapping[str, Callable[[Any, Path], Any]]] = {
    "name": _line(MAX_NAME_LENGTH),
    "slug": _slug,
    "sku": _optional(_line(MAX_SKU_LENGTH)),
    "ean": _optional(_ean),
    "description": _description,
    "price": _optional(_price),
    "currency": _optional(_currency),
    "unit": _optional(_line(MAX_UNIT_LENGTH)),
    "stock": _optional(quantity),
    "category": _optional(_line(MAX_CATEGORY_LENGTH)),
    "attributes": _attributes,
    "is_active": _unchanged,
}
