"""Items of any spider as products, by the names of their fields. Pure, never raises.

| of a product | fields of an item, the first that has something |
|---|---|
| name | `name`, `productName`, `title` |
| price | `price`; a number, or text such as `£ 1,299.50` |
| currency | `currency`, `priceCurrency`, the input's `currency`, the sign beside the price |
| SKU | `sku` |
| EAN | `ean`, `gtin`, `gtin13`, `gtin14`, `gtin12`, `gtin8`, `barcode`; one whose check digit is wrong is left out |
| description | `description` |
| category | `category` |
| URL | `url`, or the page's |
| the site's number | `sourceId`, `productId`, the URL; or the name, where an input has `items` and a page shows many |

An item without a name or a host is no product. A price whose currency nothing tells is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from models import product_keys
from models.product_ledger import FoundProduct
from tasks.crawl import found_values as values
from tasks.ocr.money import convention, currency_of, parse_money

MAX_PRICE: Final = Decimal("9999999999.9999")
MAX_SOURCE_ID_CHARACTERS: Final = 255
_NAMES: Final = ("name", "productName", "title")
_CURRENCIES: Final = ("currency", "priceCurrency")
_EANS: Final = ("ean", "gtin", "gtin13", "gtin14", "gtin12", "gtin8", "barcode")
_NUMBERS: Final = ("sourceId", "productId")


def product_of(data: Mapping[str, Any], page_url: str, spider_input: Mapping[str, Any]) -> FoundProduct | None:
    """The product in an item that was found on this page; None when there is none."""
    url = values.url(data.get("url")) or values.url(page_url)
    source = url and values.source_of(url)
    name = _line(data, _NAMES, 255)
    if url is None or source is None or name is None:
        return None
    price, currency = _money(data, spider_input)
    sku = _line(data, ("sku",), 64)
    is_sku = sku is not None and 1 <= len(product_keys.sku_key(sku)) <= 64
    return FoundProduct(
        source=source,
        source_id=_short(_line(data, _NUMBERS, 2_000) or (name if "items" in spider_input else url)),
        url=url,
        name=name,
        price=price,
        currency=currency,
        sku=sku if is_sku else None,
        ean=next((key for text in _lines(data, _EANS, 64) if (key := product_keys.ean_key(text)) is not None), None),
        description=values.prose(data.get("description"), 20_000) or "",
        category=_line(data, ("category",), 120),
    )


def _money(data: Mapping[str, Any], spider_input: Mapping[str, Any]) -> tuple[Decimal | None, str | None]:
    named = next((code for name in _CURRENCIES if (code := values.currency(data.get(name))) is not None), None)
    default = named or values.currency(spider_input.get("currency"))
    given = data.get("price")
    found = values.number(given)
    if found is None and isinstance(given, str):
        money = parse_money(given, convention([given], default))
        if money is not None:
            found, default = money.amount, named or currency_of(money, default)[0] or default
    price = values.amount(str(found), most=MAX_PRICE, decimals=4)
    return (price, default) if price is not None and default is not None else (None, None)


def _lines(data: Mapping[str, Any], names: tuple[str, ...], max_characters: int) -> list[str]:
    return [text for name in names if (text := values.line(data.get(name), max_characters)) is not None]


def _line(data: Mapping[str, Any], names: tuple[str, ...], max_characters: int) -> str | None:
    return next(iter(_lines(data, names, max_characters)), None)


def _short(text: str) -> str:
    """Text as it is, or where it is too long for the column, its start and what tells it apart."""
    if len(text) <= MAX_SOURCE_ID_CHARACTERS:
        return text
    return f"{text[:200]}#{hashlib.sha256(text.encode()).hexdigest()[:32]}"
