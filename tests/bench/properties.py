"""Lists of a million properties through the API, against the statement of the page alone on a connection of its own.

The rows are made in SQL: 400 cities of very different sizes, prices and areas that vary by city, two currencies, words.
Most belong to whoever asks. Facets, which have no statement of a page, are compared with the statements of the facets.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Mapping
from typing import Any, Final

import asyncpg

from models import database, property_search
from models.database import SERVER_SETTINGS
from models.permissions import Actor
from models.property_search import Between, Facet, Near, PropertyConditions, PropertyOrderField
from tests.bench.place import Place, percentile, place

PROPERTIES: Final = 1_000_000
ROUNDS: Final = 12
PAGE: Final = 20
DOCUMENT: Final = """
query ($search: String, $filter: PropertyFilter, $orderBy: PropertyOrder) {
  properties(search: $search, filter: $filter, orderBy: $orderBy, first: 20) {
    edges { cursor node { id title price currency squareMetres pricePerSquareMetre bedrooms city url firstSeenAt
                          distanceKilometres } } pageInfo { hasNextPage } } }"""
FACETS: Final = """
query ($filter: PropertyFilter) {
  properties(filter: $filter, first: 20) { edges { node { id } } facets {
    currencies { value count } cities { value count } propertyTypes { value count } bedrooms { value count }
    priceRanges { currency min max } } } }"""

# City number c is at a point of its own, and the larger its number the fewer properties it has.
_FILL: Final = """
INSERT INTO properties (id, owner_id, job_id, dataset_id, run_id, source, source_id, url, title, price, currency, area,
    area_unit, square_metres, bedrooms, bathrooms, property_type, street, city, region, country, latitude, longitude,
    description, images, price_id, first_seen_at, last_seen_at, last_changed_at, price_changed_at, gone_at)
SELECT gen_random_uuid(), CASE WHEN n % 10 = 0 THEN $2::uuid ELSE $1::uuid END, NULL, gen_random_uuid(),
    gen_random_uuid(), 'homes' || n % 7 || '.example', n::text, 'https://homes.example/' || n,
    rooms || '-bedroom ' || kind || ' with ' || (ARRAY['garden', 'pool', 'view', 'garage', 'balcony'])[1 + n % 5],
    round((metres * (1500 + 40 * (c % 80)) * (0.6 + 0.8 * random()))::numeric, 0),
    CASE WHEN c % 3 = 0 THEN 'EUR' ELSE 'USD' END,
    metres, 'SQUARE_METRES', metres, rooms, 1 + rooms / 2, upper(kind), 'Street ' || n % 5000, 'City ' || c,
    'Region ' || c % 20, CASE WHEN c % 3 = 0 THEN 'ES' ELSE 'US' END, 30 + (c % 20) + random() * 0.3,
    -100 + (c / 20) * 3 + random() * 0.3,
    'Quiet ' || (ARRAY['street', 'park', 'river'])[1 + n % 3] || ' lot ' || n % 9973,
    '[]', gen_random_uuid(), at, at + interval '1 hour', at, at, CASE WHEN n % 20 = 0 THEN at + interval '2 hours' END
FROM (
    SELECT n, floor(400 * random() ^ 2.5)::int AS c, 1 + floor(random() * random() * 6)::int AS rooms,
        (ARRAY['flat', 'house', 'villa', 'loft'])[1 + floor(random() * 4)::int] AS kind,
        round((30 + 270 * random() * random())::numeric, 1) AS metres,
        now() - interval '1 second' * n AS at
    FROM generate_series($3::int, $4::int) AS n
) AS given
"""


class Case:
    """What is asked, once for the API and once for the statement."""

    def __init__(
        self,
        filter: Mapping[str, Any],
        conditions: PropertyConditions,
        *,
        search: str | None = None,
        order: PropertyOrderField = PropertyOrderField.FIRST_SEEN,
        descending: bool = True,
        has_facets: bool = False,
    ) -> None:
        self.variables = {"filter": filter, "search": search, "orderBy": {"field": order.value}}
        self._conditions = conditions
        self._order = order
        self._descending = descending
        self._has_facets = has_facets
        self.document = DOCUMENT
        if has_facets:
            self.document, self.variables = FACETS, {"filter": filter}

    async def alone(self, actor: Actor) -> None:
        """The statements, one after the other."""
        await property_search.page(
            actor, self._conditions, order=self._order, descending=self._descending, limit=PAGE + 1
        )
        if self._has_facets:
            for facet in (Facet.CURRENCY, Facet.CITY, Facet.PROPERTY_TYPE, Facet.BEDROOMS):
                await property_search.values(actor, self._conditions, facet)
            await property_search.price_ranges(actor, self._conditions)


def _town(number: int) -> dict[str, Any]:
    return {
        "price": {"min": 200_000, "max": 300_000}, "currency": "EUR" if number % 3 == 0 else "USD",
        "bedrooms": {"min": 3}, "city": f"city {number}",
    }  # fmt: skip


def _town_conditions(number: int) -> PropertyConditions:
    return PropertyConditions(
        price=Between(200_000, 300_000), currency="EUR" if number % 3 == 0 else "USD", bedrooms=Between(3),
        city=f"city {number}",
    )  # fmt: skip


CASES: Final[dict[str, list[Case]]] = {
    "price, rooms and city": [Case(_town(number), _town_conditions(number)) for number in (0, 5, 100, 399)],
    "price, rooms, no city": [
        Case(
            {"price": {"min": 200_000, "max": 300_000}, "currency": "USD", "bedrooms": {"min": 3}, "isGone": False},
            PropertyConditions(price=Between(200_000, 300_000), currency="USD", bedrooms=Between(3), is_gone=False),
            order=PropertyOrderField.PRICE,
            descending=False,
        )
    ],
    "near 10 km by price": [
        Case(
            {"near": {"latitude": 30.15 + number % 20, "longitude": -99.85 + number // 20 * 3, "kilometres": 10}},
            PropertyConditions(near=Near(30.15 + number % 20, -99.85 + number // 20 * 3, 10)),
            order=PropertyOrderField.PRICE,
            descending=False,
        )
        for number in (0, 5, 100, 399)
    ],
    "text search": [
        Case({}, PropertyConditions(search=words), search=words)
        for words in ("villa garden", "loft pool river", "lot 4711", "street 77 pool")
    ],
    "location words": [
        Case({"location": words}, PropertyConditions(location=words))
        for words in ("city 12", "region 3", "street 4711")
    ],
    "price per m², filtered": [
        Case(
            {"currency": "EUR", "bedrooms": {"min": 2}, "isGone": False},
            PropertyConditions(currency="EUR", bedrooms=Between(2), is_gone=False),
            order=PropertyOrderField.PRICE_PER_SQUARE_METRE,
            descending=False,
        )
    ],
    "newest, no filter": [Case({}, PropertyConditions())],
    "facets of a filter": [Case(_town(number), _town_conditions(number), has_facets=True) for number in (5, 100)],
    "last seen, no filter": [Case({}, PropertyConditions(), order=PropertyOrderField.LAST_SEEN)],
    "facets of everything": [Case({}, PropertyConditions(), has_facets=True)],
}


async def main() -> None:
    """Print, for each kind of question, the 95th percentile of both and the ratio."""
    async with place() as here:
        began = time.monotonic()
        await _fill(here)
        print(f"{PROPERTIES:,} properties in {time.monotonic() - began:.0f} s")
        bare = await asyncpg.connect(here.environment["DATABASE_URL"], server_settings=SERVER_SETTINGS)

        async def rows(sql: str, *values: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in await bare.fetch(sql, *values)]

        in_house, database.rows = database.rows, rows
        try:
            for name, cases in CASES.items():
                through_api, alone = await _measured(here, cases)
                ratio = percentile(through_api, 0.95) / percentile(alone, 0.95)
                print(
                    f"{name:24} API median {statistics.median(through_api) * 1e3:7.1f} ms"
                    f"  p95 {percentile(through_api, 0.95) * 1e3:7.1f} ms"
                    f"  bare SQL p95 {percentile(alone, 0.95) * 1e3:7.1f} ms  ratio {ratio:.2f}"
                )
        finally:
            database.rows = in_house
            await bare.close()


async def _fill(here: Place) -> None:
    stranger = await here.db.fetchval(
        """INSERT INTO users (id, email, email_key, username, username_key, name, password_hash, role, is_active,
               created_at)
           VALUES (gen_random_uuid(), 'x', 'x', 'x', 'x', 'X', 'none', 'USER', true, now()) RETURNING id"""
    )
    step = PROPERTIES // 20
    for start in range(1, PROPERTIES, step):
        await here.db.execute(_FILL, here.owner_id, stranger, start, start + step - 1)
    await here.db.execute("VACUUM ANALYZE properties")


async def _measured(here: Place, cases: list[Case]) -> tuple[list[float], list[float]]:
    actor = Actor(user_id=here.owner_id)
    through_api: list[float] = []
    alone: list[float] = []
    for round_ in range(ROUNDS + 1):
        for case in cases:
            asked = await _timed(here.client.run(case.document, case.variables, token=here.person.token))
            bare = await _timed(case.alone(actor))
            if round_:  # the first one warms up
                through_api.append(asked)
                alone.append(bare)
    return through_api, alone


async def _timed(asking: Awaitable[object]) -> float:
    began = time.perf_counter()
    await asking
    return time.perf_counter() - began
