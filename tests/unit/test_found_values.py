"""Items of crawls as rows: exact areas, hosts, money, and that nothing a site says is ever too much for a column."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import near
from tasks.crawl import found_values
from tasks.crawl.found_products import product_of
from tasks.crawl.found_properties import property_of, square_metres
from tasks.crawl.property_listings import AreaUnit

PAGE = "https://homes.example/1"
ITEM = {"url": PAGE, "sourceId": "A-1", "title": "House"}


@pytest.mark.parametrize(
    ("area", "unit", "expected"),
    [
        (1, AreaUnit.SQUARE_FEET, "0.09290304"),
        (1_500.5, AreaUnit.SQUARE_FEET, "139.40101152"),
        (0.1, AreaUnit.SQUARE_METRES, "0.1"),
        (0.25, AreaUnit.ACRES, "1011.7141056"),
        (1, AreaUnit.ACRES, "4046.8564224"),
        (3, AreaUnit.HECTARES, "30000"),
    ],
)
def test_areas_become_square_metres_exactly(area: float, unit: AreaUnit, expected: str) -> None:
    row = property_of({**ITEM, "area": area, "areaUnit": unit.value}, PAGE)
    assert row is not None
    assert (row["area"], row["area_unit"], row["square_metres"]) == (Decimal(str(area)), unit, Decimal(expected))


def test_an_acre_is_43560_square_feet() -> None:
    assert square_metres(Decimal(43_560), AreaUnit.SQUARE_FEET) == square_metres(Decimal(1), AreaUnit.ACRES)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://Homes.Example/1", "homes.example"),
        ("https://homes.example:443/", "homes.example"),
        ("http://homes.example:443/", "homes.example:443"),
        ("http://user:word@127.0.0.1:8900/", "127.0.0.1:8900"),
        ("ftp://homes.example/", None),
        ("http://[::1", None),
        ("http://homes.example:99999/", None),
        ("/homes/1", None),
        ("", None),
    ],
)
def test_the_source_of_a_url(url: str, source: str | None) -> None:
    assert found_values.source_of(url) == source


@pytest.mark.parametrize(
    "missing", [{"sourceId": None}, {"sourceId": " "}, {"title": None}, {"title": "\u200b"}, {"sourceId": ["A-1"]}]
)
def test_what_lacks_its_number_or_title_is_no_property(missing: dict[str, Any]) -> None:
    assert property_of({**ITEM, **missing}, PAGE) is None
    assert property_of(ITEM, PAGE) is not None


@pytest.mark.parametrize(
    ("item", "kept"),
    [
        ({"price": "1", "currency": "usd"}, {"price": Decimal(1), "currency": "USD"}),
        ({"price": None, "currency": "USD"}, {"price": None, "currency": None}),
        ({"price": "-1"}, {"price": None}),
        ({"price": "1e999"}, {"price": None}),
        ({"price": "NaN"}, {"price": None}),
        ({"price": True}, {"price": None}),
        ({"price": "1", "currency": "dollars"}, {"price": Decimal(1), "currency": None}),
        ({"area": 5, "areaUnit": "ROODS"}, {"area": Decimal(5), "area_unit": None, "square_metres": None}),
        ({"area": 1e-9, "areaUnit": "ACRES"}, {"area": None, "area_unit": None, "square_metres": None}),
        ({"latitude": 91, "longitude": 1}, {"latitude": None, "longitude": None}),
        ({"latitude": 1}, {"latitude": None, "longitude": None}),
        ({"bathrooms": 2.5}, {"bathrooms": 2.5}),
        ({"title": "x" * 600}, {"title": "x" * 500}),
        ({"address": "Main Street"}, {"street": None}),
        ({"images": [PAGE, "data:x", 3]}, {"images": [PAGE]}),
    ],
)
def test_values_that_do_not_fit_are_left_out(item: dict[str, Any], kept: dict[str, Any]) -> None:
    row = property_of({**ITEM, **item}, PAGE)
    assert row is not None
    assert {name: row[name] for name in kept} == kept


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["9" * 70, "1e-400", PAGE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = st.sampled_from(
    [
        *("price", "currency", "area", "areaUnit", "bedrooms", "bathrooms", "propertyType", "address", "latitude"),
        *("longitude", "description", "images", "datePosted", "url", "sku", "ean", "category", "name", "sourceId"),
        "title",
    ]
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(_FIELDS, _VALUES, max_size=8))
def test_no_item_is_too_much(item: dict[str, Any]) -> None:
    row = property_of({**ITEM, **item}, PAGE)
    if row is not None:
        assert row["price"] is None or 0 <= row["price"] < 10**12
        assert (row["area_unit"] is None) == (row["square_metres"] is None)
        assert all(math.isfinite(row[name]) for name in ("latitude", "longitude") if row[name] is not None)
        assert all("\0" not in value for value in row.values() if isinstance(value, str))
        assert 1 <= len(row["source_id"]) <= 255
    found = product_of({"name": "Thing", **item}, PAGE, {})
    if found is not None:
        assert (found.price is None) == (found.currency is None)
        assert 1 <= len(found.source_id) <= 255
        assert found.sku_key is None or 1 <= len(found.sku_key) <= 64


@pytest.mark.parametrize(
    ("item", "spider_input", "money"),
    [
        ({"price": "£ 1,299.50"}, {}, (Decimal("1299.5"), "GBP")),
        ({"price": "12.5", "currency": "eur"}, {}, (Decimal("12.5"), "EUR")),
        ({"price": 12.5, "priceCurrency": "EUR"}, {}, (Decimal("12.5"), "EUR")),
        ({"price": "12.5"}, {"currency": "CHF"}, (Decimal("12.5"), "CHF")),
        ({"price": "$5"}, {"currency": "CAD"}, (Decimal(5), "CAD")),
        ({"price": "$5"}, {}, (None, None)),
        ({"price": "12.5"}, {}, (None, None)),
        ({"price": "on request", "currency": "EUR"}, {}, (None, None)),
    ],
)
def test_money_of_a_product(item: dict[str, Any], spider_input: dict[str, Any], money: tuple[Any, Any]) -> None:
    found = product_of({"name": "Thing", **item}, PAGE, spider_input)
    assert found is not None
    assert (found.price, found.currency) == money


def test_what_tells_products_of_a_site_apart() -> None:
    def number(item: dict[str, Any], spider_input: dict[str, Any]) -> str | None:
        found = product_of({"name": "Thing", **item}, PAGE, spider_input)
        return None if found is None else found.source_id

    assert number({"sourceId": "7"}, {"items": {"css": "li"}}) == "7"
    assert number({}, {}) == PAGE
    assert number({}, {"items": {"css": "li"}}) == "Thing"
    long = number({"url": PAGE + "a" * 400}, {})
    assert long is not None
    assert len(long) <= 255
    assert long != number({"url": PAGE + "a" * 401}, {})
    assert product_of({"price": "1"}, PAGE, {}) is None
    assert product_of({"title": "Thing", "ean": "4006381333930"}, PAGE, {}).ean is None  # type: ignore[union-attr]


# -- places


def haversine(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Kilometres, by the plain formula."""
    (south, west), (north, east) = ((math.radians(each) for each in point) for point in (a, b))
    share = math.sin((north - south) / 2) ** 2
    share += math.cos(south) * math.cos(north) * math.sin((east - west) / 2) ** 2
    return 2 * near.EARTH_METRES / 1000 * math.asin(min(1.0, math.sqrt(share)))


def is_in(box: near.Box, point: tuple[float, float]) -> bool:
    return box.south <= point[0] <= box.north and box.west <= point[1] <= box.east


@given(
    st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
    st.floats(0.001, 500),
    st.floats(0, 1),
    st.floats(0, 2 * math.pi),
)
def test_boxes_hold_the_whole_circle(
    centre: tuple[float, float], kilometres: float, share: float, bearing: float
) -> None:
    boxes = near.boxes(*centre, kilometres)
    assert all(-90 <= box.south <= box.north <= 90 and -180 <= box.west <= box.east <= 180 for box in boxes)
    latitude, longitude = (math.radians(each) for each in centre)
    angle = kilometres * 1000 / near.EARTH_METRES * share
    sine = math.sin(latitude) * math.cos(angle) + math.cos(latitude) * math.sin(angle) * math.cos(bearing)
    north = math.asin(max(-1.0, min(1.0, sine)))
    east = longitude + math.atan2(
        math.sin(bearing) * math.sin(angle) * math.cos(latitude), math.cos(angle) - math.sin(latitude) * math.sin(north)
    )
    point = (math.degrees(north), (math.degrees(east) + 540) % 360 - 180)
    if haversine(centre, point) <= kilometres:
        assert any(is_in(box, point) for box in boxes), (point, boxes)


def test_a_box_is_split_at_the_antimeridian_and_whole_at_a_pole() -> None:
    west, east = near.boxes(10, 179.99, 50)
    assert (west.east, east.west) == (180, -180)
    assert is_in(east, (10, -179.9))
    (pole,) = near.boxes(89.9, 0, 50)
    assert is_in(pole, (89.95, 180))
