"""A property listing in one shape, from whatever structured data a page carries.

Sources, best first: schema.org in JSON-LD, schema.org in microdata, Open Graph. A field is taken from the first source
that has it, so a page may say its price in one and its rooms in another. Numbers keep the page's digits: no float ever
stands between a price and its string.

Left out: guessing from the text of a page. What the structured data lacks, the input's selectors name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from extruct.jsonld import JsonLdExtractor
from extruct.opengraph import OpenGraphExtractor
from extruct.w3cmicrodata import MicrodataExtractor
from lxml.html import HtmlElement

from tasks.crawl.property_listings import AreaUnit
from tasks.crawl.selectors import ValueFault, amount

MAX_NODES: Final = 2_000
MAX_IMAGES: Final = 200

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

Node = Mapping[str, Any]


def listing_from(root: HtmlElement, *, url: str, currency: str | None, area_unit: str | None) -> dict[str, Any]:
    """The normalised listing; fields that the page does not give are None, its `sourceId` always something."""
    nodes = [*_linked_data(root), *_microdata(root, url)]
    wrappers = [node for node in nodes if _types(node) & LISTING_TYPES]
    homes = [node for node in nodes if _types(node) & HOME_TYPES]
    described = wrappers + homes
    graph = _open_graph(root)
    offers = [node for node in nodes if "Offer" in _types(node)] + wrappers
    area = _first_node(homes + wrappers, "floorSize", "area")
    places = _nodes(homes + wrappers, "geo") or [node for node in nodes if "GeoCoordinates" in _types(node)]
    addresses = _nodes(homes + wrappers, "address") or [node for node in nodes if "PostalAddress" in _types(node)]
    price = _number(_first(offers, "price", "lowPrice")) or _number(graph.get("product:price:amount"))
    size = _number(_first([area], "value", "@value")) if area else _number(_first(homes, "floorSize"))
    size = size if size is not None and size > 0 else None
    unit = AREA_UNITS.get(_text(_first([area], "unitCode", "unitText") if area else None).upper().strip(". "))
    return {
        "url": url,
        "sourceId": _text(_first(described, "identifier", "sku", "productID")) or _last_segment(url),
        "title": _text(_first(described, "name", "headline")) or graph.get("og:title"),
        "price": None if price is None else format(price, "f"),
        "currency": _currency(_first(offers, "priceCurrency"))
        or _currency(graph.get("product:price:currency"))
        or currency
        if price is not None
        else None,
        "area": None if size is None else float(size),
        "areaUnit": (unit or area_unit) if size is not None else None,
        "bedrooms": _plain(_number(_first(homes + wrappers, "numberOfBedrooms", "numberOfRooms"))),
        "bathrooms": _plain(_number(_first(homes + wrappers, "numberOfBathroomsTotal", "numberOfFullBathrooms"))),
        "propertyType": _text(_first(homes, "accommodationCategory", "category")) or _home_type(homes),
        "address": {part: _text(_first(addresses, name)) or None for part, name in ADDRESS_PARTS.items()},
        "latitude": _degrees(_first(places, "latitude") or graph.get("place:location:latitude"), 90),
        "longitude": _degrees(_first(places, "longitude") or graph.get("place:location:longitude"), 180),
        "description": _text(_first(described, "description")) or graph.get("og:description"),
        "images": _images(described, graph, url),
        "datePosted": _text(_first(described, "datePosted", "datePublished")) or None,
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


def _linked_data(root: HtmlElement) -> Iterator[Node]:
    """Every object in the page's JSON-LD, nested ones after those that hold them; a broken script spoils no other."""
    extractor = JsonLdExtractor()
    for script in root.iter("script"):
        try:
            found = extractor.extract_items(script)
        except (ValueError, RecursionError):
            continue
        yield from _flat(found)


def _microdata(root: HtmlElement, url: str) -> Iterator[Node]:
    """Every microdata item, in the shape of JSON-LD."""
    try:
        yield from _flat([_as_linked_data(each) for each in MicrodataExtractor().extract_items(root, url)])
    except (ValueError, RecursionError):
        return


def _as_linked_data(item: Any) -> Any:
    if isinstance(item, list):
        return [_as_linked_data(each) for each in item]
    if not isinstance(item, dict):
        return item
    properties = {name: _as_linked_data(value) for name, value in item.get("properties", {}).items()}
    return {"@type": item.get("type", ""), **properties}


def _open_graph(root: HtmlElement) -> dict[str, str]:
    """The first value of each property that is not empty."""
    values: dict[str, str] = {}
    for block in OpenGraphExtractor().extract_items(root):
        for name, value in block["properties"]:
            if isinstance(value, str) and value.strip():
                values.setdefault(name, value.strip())
    return values


def _flat(value: Any) -> Iterator[Node]:
    waiting, seen = [value], 0
    while waiting and seen < MAX_NODES:
        current = waiting.pop(0)
        seen += 1
        if isinstance(current, list):
            waiting[:0] = current
        elif isinstance(current, dict):
            yield current
            waiting.extend(each for each in current.values() if isinstance(each, (dict, list)))


def _types(node: Node) -> set[str]:
    """The node's types without their namespace."""
    given = node.get("@type", "")
    names = given if isinstance(given, list) else [given]
    return {str(name).rsplit("/", 1)[-1].rsplit(":", 1)[-1] for name in names}


def _first(nodes: Iterable[Node], *names: str) -> Any:
    """The first value that any of the nodes has under any of the names, in order of the names."""
    nodes = list(nodes)
    for name in names:
        for node in nodes:
            value = node.get(name)
            if isinstance(value, list):
                value = next((each for each in value if each), None)
            if value not in (None, "", {}):
                return value
    return None


def _nodes(nodes: Iterable[Node], name: str) -> list[Node]:
    found = _first([node for node in nodes if isinstance(node.get(name), (dict, list))], name)
    return [found] if isinstance(found, dict) else []


def _first_node(nodes: Iterable[Node], *names: str) -> Node | None:
    return next((found for name in names for found in _nodes(nodes, name)), None)


def _text(value: Any) -> str:
    """Text of a value: of `{"@value": …}`, `{"name": …}` or PropertyValue too; empty if there is none."""
    if isinstance(value, dict):
        value = _first([value], "@value", "value", "name", "@id")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    return " ".join(value.split()) if isinstance(value, str) else ""


def _number(value: Any) -> Decimal | None:
    text = _text(value)
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
    code = _text(value).upper()
    return code if len(code) == 3 and code.isascii() and code.isalpha() else None


def _home_type(homes: Iterable[Node]) -> str | None:
    return next((name for home in homes for name in sorted(_types(home) & HOME_TYPES)), None)


def _images(nodes: list[Node], graph: Mapping[str, str], url: str) -> list[str]:
    found: list[str] = []
    for node in nodes:
        given = node.get("image") or node.get("photo") or []
        for each in given if isinstance(given, list) else [given]:
            address = _first([each], "contentUrl", "url", "@id") if isinstance(each, dict) else each
            if isinstance(address, str) and address:
                found.append(urljoin(url, address))
    if not found and "og:image" in graph:
        found = [urljoin(url, graph["og:image"])]
    return list(dict.fromkeys(found))[:MAX_IMAGES]


def _last_segment(url: str) -> str:
    parts = urlsplit(url)
    return parts.path.rstrip("/").rsplit("/", 1)[-1] + (f"?{parts.query}" if parts.query else "") or parts.netloc
