"""Items of the property listings spider as rows of `properties`. Pure, never raises.

An item needs the site's number of the listing, a title and an URL with a host; one without is no property. Anything
else that does not fit is left out of the row, and is still in the item.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any, Final

from models import near
from tasks.crawl import found_values as values
from tasks.crawl.property_listings import AreaUnit

SQUARE_METRES: Final[Mapping[AreaUnit, Decimal]] = {
    AreaUnit.SQUARE_METRES: Decimal(1),
    AreaUnit.SQUARE_FEET: Decimal("0.09290304"),
    AreaUnit.ACRES: Decimal("4046.8564224"),
    AreaUnit.HECTARES: Decimal(10_000),
}
"""Square metres of one of each, exactly (international foot and acre; NIST Special Publication 811, B.6)."""

MAX_PRICE: Final = Decimal("999999999999.9999")
MAX_AREA: Final = Decimal("9999999999")
MAX_ROOMS: Final = Decimal(10_000)
MAX_IMAGES: Final = 200
MAX_DESCRIPTION_CHARACTERS: Final = 20_000
_EXACT: Final = Context(prec=40)
_TEXTS: Final[Mapping[str, int]] = {"street": 255, "city": 120, "region": 120, "postalCode": 32, "country": 120}


def property_of(data: Mapping[str, Any], page_url: str) -> dict[str, Any] | None:
    """The columns of an item, found on this page, by their names; None when it cannot be a property."""
    url = values.url(data.get("url")) or values.url(page_url)
    source = url and values.source_of(url)
    source_id, title = values.line(data.get("sourceId"), 255), values.line(data.get("title"), 500)
    if url is None or source is None or source_id is None or title is None:
        return None
    price = values.amount(data.get("price"), most=MAX_PRICE, decimals=4)
    area = values.amount(data.get("area"), most=MAX_AREA, decimals=6, above_zero=True)
    unit = _unit(data.get("areaUnit")) if area is not None else None
    address = data.get("address")
    parts = address if isinstance(address, Mapping) else {}
    latitude, longitude = _degrees(data.get("latitude"), 90), _degrees(data.get("longitude"), 180)
    is_placed = latitude is not None and longitude is not None
    images = data.get("images")
    street, city, region, postal_code, country = (values.line(parts.get(name), most) for name, most in _TEXTS.items())
    return {
        "source": source,
        "source_id": source_id,
        "url": url,
        "title": title,
        "price": price,
        "currency": values.currency(data.get("currency")) if price is not None else None,
        "area": area,
        "area_unit": unit,
        "square_metres": None if area is None or unit is None else square_metres(area, unit),
        "bedrooms": _rooms(data.get("bedrooms")),
        "bathrooms": _rooms(data.get("bathrooms")),
        "property_type": values.line(data.get("propertyType"), 120),
        "street": street,
        "city": city,
        "region": region,
        "postal_code": postal_code,
        "country": country,
        "latitude": latitude if is_placed else None,
        "longitude": longitude if is_placed else None,
        "description": values.prose(data.get("description"), MAX_DESCRIPTION_CHARACTERS) or "",
        "images": [each for each in (images if isinstance(images, list) else []) if values.url(each) is not None][
            :MAX_IMAGES
        ],
        "date_posted": values.line(data.get("datePosted"), 40),
    }


def square_metres(area: Decimal, unit: AreaUnit) -> Decimal:
    """An area in square metres, exactly."""
    return _EXACT.multiply(area, SQUARE_METRES[unit])


def _unit(value: Any) -> AreaUnit | None:
    return AreaUnit(value) if isinstance(value, str) and value in AreaUnit.__members__ else None


def _rooms(value: Any) -> float | None:
    rooms = values.amount(value, most=MAX_ROOMS, decimals=2)
    return None if rooms is None else float(rooms)


def _degrees(value: Any, most: int) -> float | None:
    found = values.number(value)
    return None if found is None or abs(found) > most else round(float(found), near.DECIMALS)
