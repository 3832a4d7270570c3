"""A property listing in one shape, from whatever structured data a page carries.

Sources, best first: schema.org in JSON-LD, schema.org in microdata, Open Graph. A field is taken from the first source
that has it, so a page may say its price in one and its rooms in another. Numbers keep the page's digits: no float ever
stands between a price and its string.

Left out: guessing from the text of a page. What the structured data lacks, the input's selectors name.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from lxml.html import HtmlElement

from tasks.crawl.crawler.spiders.structured_data import (
    MAX_IMAGES,
    Node,
    first,
    first_node,
    images_of,
    linked_data,
    microdata,
    nodes_under,
    open_graph,
    text_of,
    types_of,
)
from tasks.crawl.property_listings import AreaUnit
from tasks.crawl.selectors import ValueFault, amount

LISTING_TYPES: Final = frozenset({"RealEstateListing", "Offer", "Product"})
"""Types that wrap the home they offer."""
HOME_TYPES: Final = frozenset(
    {"Accommodation", "Apartment", "ApartmentComplex", "House", "SingleFamilyResidence", "Residence", "Room", "Suite"}
)
AREA_UNITS: Final = {
    # UN/CEFACT codes as schema.org uses them, and what people write
    "FTK": AreaUnit.SQUARE_FEET,
    "SQFT": AreaUnit.SQUARE_FEET,
    "SQ FT": AreaUnit.SQUARE_FEET,
    "FT2": AreaUnit.SQUARE_FEET,
    "FT²": AreaUnit.SQUARE_FEET,
    "SQUARE FEET": AreaUnit.SQUARE_FEET,
    "MTK": AreaUnit.SQUARE_METRES,
    "SQM": AreaUnit.SQUARE_METRES,
    "M2": AreaUnit.SQUARE_METRES,
    "M²": AreaUnit.SQUARE_METRES,
    "SQUARE METRES": AreaUnit.SQUARE_METRES,
    "SQUARE METERS": AreaUnit.SQUARE_METRES,
    "ACR": AreaUnit.ACRES,
    "ACRES": AreaUnit.ACRES,
    "HAR": AreaUnit.HECTARES,
    "HA": AreaUnit.HECTARES,
    "HECTARES": AreaUnit.HECTARES,
}
ADDRESS_PARTS: Final = {
    "street": "streetAddress",
    "city": "addressLocality",
    "region": "addressRegion",
    "postalCode": "postalCode",
    "country": "addressCountry",
}


def listing_from(root: HtmlElement, *, url: str, currency: str | None, area_unit: str | None) -> dict[str, Any]:
    """The normalised listing; fields that the page does not give are None, its `sourceId` always something."""
    nodes = [*linked_data(root), *microdata(root, url)]
    wrappers = [node for node in nodes if types_of(node) & LISTING_TYPES]
    homes = [node for node in nodes if types_of(node) & HOME_TYPES]
    described = wrappers + homes
    graph = open_graph(root)
    offers = [node for node in nodes if "Offer" in types_of(node)] + wrappers
    area = first_node(homes + wrappers, "floorSize", "area")
    places = nodes_under(homes + wrappers, "geo") or [node for node in nodes if "GeoCoordinates" in types_of(node)]
    addresses = nodes_under(homes + wrappers, "address") or [
        node for node in nodes if "PostalAddress" in types_of(node)
    ]
    price = _number(first(offers, "price", "lowPrice")) or _number(graph.get("product:price:amount"))
    size = _number(first([area], "value", "@value")) if area else _number(first(homes, "floorSize"))
    size = size if size is not None and size > 0 else None
    unit = AREA_UNITS.get(text_of(first([area], "unitCode", "unitText") if area else None).upper().strip(". "))
    return {
        "url": url,
        "sourceId": text_of(first(described, "identifier", "sku", "productID")) or _last_segment(url),
        "title": text_of(first(described, "name", "headline")) or graph.get("og:title"),
        "price": None if price is None else format(price, "f"),
        "currency": _currency(first(offers, "priceCurrency"))
        or _currency(graph.get("product:price:currency"))
        or currency
        if price is not None
        else None,
        "area": None if size is None else float(size),
        "areaUnit": (unit or area_unit) if size is not None else None,
        "bedrooms": _plain(_number(first(homes + wrappers, "numberOfBedrooms", "numberOfRooms"))),
        "bathrooms": _plain(_number(first(homes + wrappers, "numberOfBathroomsTotal", "numberOfFullBathrooms"))),
        "propertyType": text_of(first(homes, "accommodationCategory", "category")) or _home_type(homes),
        "address": {part: text_of(first(addresses, name)) or None for part, name in ADDRESS_PARTS.items()},
        "latitude": _degrees(first(places, "latitude") or graph.get("place:location:latitude"), 90),
        "longitude": _degrees(first(places, "longitude") or graph.get("place:location:longitude"), 180),
        "description": text_of(first(described, "description")) or graph.get("og:description"),
        "images": images_of(described, graph, url),
        "datePosted": text_of(first(described, "datePosted", "datePublished")) or None,
    }


def overridden(listing: dict[str, Any], name: str, texts: list[str], base_url: str) -> None:
    """Put what a selector found into the listing; raises ValueFault when it is not of the field's kind."""
    text = texts[0]
    if name in ADDRESS_PARTS:
        listing["address"][name] = text
    elif name == "images":
        listing["images"] = [urljoin(base_url, each) for each in texts][:MAX_IMAGES]
    elif name == "price":
        listing["price"] = format(amount(text), "f")
    elif name in ("bedrooms", "bathrooms"):
        listing[name] = _plain(amount(text))
    elif name in ("area", "latitude", "longitude"):
        listing[name] = float(amount(text))
    elif name == "areaUnit":
        unit = AREA_UNITS.get(text.upper().strip(". "))
        if unit is None:
            raise ValueFault(f"not a unit of area: {text[:40]!r}")
        listing["areaUnit"] = unit
    elif name == "currency":
        if (code := _currency(text)) is None:
            raise ValueFault(f"not a currency code: {text[:40]!r}")
        listing["currency"] = code
    else:
        listing[name] = text


def _number(value: Any) -> Decimal | None:
    text = text_of(value)
    if not text:
        return None
    try:
        return amount(text)
    except ValueFault:
        return None


def _plain(value: Decimal | None) -> int | float | None:
    if value is None:
        return None
    return int(value) if value == int(value) else float(value)


def _degrees(value: Any, bound: int) -> float | None:
    number = _number(value)
    return float(number) if number is not None and abs(number) <= bound else None


def _currency(value: Any) -> str | None:
    code = text_of(value).upper()
    return code if len(code) == 3 and code.isascii() and code.isalpha() else None


def _home_type(homes: Iterable[Node]) -> str | None:
    return next((name for home in homes for name in sorted(types_of(home) & HOME_TYPES)), None)


def _last_segment(url: str) -> str:
    parts = urlsplit(url)
    return parts.path.rstrip("/").rsplit("/", 1)[-1] + (f"?{parts.query}" if parts.query else "") or parts.netloc
