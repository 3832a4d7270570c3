"""Properties through the API: who sees what, filters, facets, orders, distances, prices, and what ends a listing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import database, user_queries
from models.ids import Prefix, decode_id, encode_id, new_id
from models.permissions import Actor
from models.property_search import Near, PropertyConditions, PropertyOrderField, page
from tasks.crawl import datasets
from tasks.crawl.plan import FoundItem, Plan
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, open_desk, uuid_of
from tests.unit.test_found_values import haversine

LIST = """
query ($search: String, $filter: PropertyFilter, $orderBy: PropertyOrder, $first: Int, $after: String, $last: Int,
       $before: String) {
  properties(search: $search, filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last,
             before: $before) {
    edges { node { id sourceId distanceKilometres goneAt } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount
    facets {
      currencies { value count } cities { value count } propertyTypes { value count } sources { value count }
      bedrooms { value count } priceRanges { currency min max count }
    }
  }
}
"""
ONE = """
query ($id: ID!) {
  property(id: $id) {
    id source sourceId url title price currency area areaUnit squareMetres pricePerSquareMetre bedrooms bathrooms
    propertyType street city region postalCode country latitude longitude description images datePosted firstSeenAt
    lastSeenAt lastChangedAt goneAt distanceKilometres job { id name }
    priceHistory { totalCount edges { node { price currency } } }
  }
}
"""
DELETE = "mutation ($input: DeletePropertyInput!) { deleteProperty(input: $input) { deletedId } }"
DELETE_JOB = "mutation ($input: DeleteJobInput!) { deleteJob(input: $input) { deletedId } }"
NODE = "query ($id: ID!) { node(id: $id) { id } }"

HOMES: dict[str, dict[str, Any]] = {
    "villa": {"title": "Villa with garden", "price": "500000", "currency": "EUR", "area": 200, "bedrooms": 4,
              "bathrooms": 2.5, "propertyType": "HOUSE", "address": {"city": "Málaga", "country": "ES"},
              "latitude": 36.72, "longitude": -4.42, "areaUnit": "SQUARE_METRES"},
    "flat": {"title": "Flat in the centre", "price": "150000", "currency": "EUR", "area": 50, "bedrooms": 2,
             "bathrooms": 1, "propertyType": "FLAT", "address": {"city": "MALAGA", "street": "Calle Larios 5"},
             "latitude": 36.71, "longitude": -4.43, "areaUnit": "SQUARE_METRES"},
    "loft": {"title": "Loft", "price": "300000", "currency": "USD", "area": 1_000, "bedrooms": 0, "bathrooms": 1,
             "propertyType": "FLAT", "address": {"city": "New York", "region": "NY", "postalCode": "10001"},
             "latitude": 40.75, "longitude": -73.99, "areaUnit": "SQUARE_FEET", "description": "Near a garden."},
    "plot": {"title": "Plot", "area": 3, "areaUnit": "ACRES", "address": {"city": "Suva", "country": "FJ"},
             "latitude": -18.1, "longitude": 179.99},
    "atoll": {"title": "Hut on an atoll", "price": "9000", "latitude": -18.1, "longitude": -179.99},
    "bare": {"title": "House without anything"},
}  # fmt: skip
"""Listings by their numbers; `atoll` has a price without a currency."""


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


async def a_plan(desk: Desk, owner: Person, *, job: UUID | None = None, job_of: Plan | None = None) -> Plan:
    """A run that works, as those who crawl know it."""
    hand = await desk.started(owner, job=job_of.job_id if job_of else job)
    job_id = await desk.pool.fetchval("SELECT job_id FROM job_runs WHERE execution_id = $1", hand.id)
    return Plan(hand.id, hand.id, job_id, uuid_of(owner), "property_listings", {})


async def see(desk: Desk, plan: Plan, homes: Mapping[str, Mapping[str, Any]], *, host: str = "homes.example") -> None:
    """A batch of pages of a site, each with one listing."""
    items = [
        FoundItem(number, f"https://{host}/{number}", {"url": f"https://{host}/{number}", "sourceId": number, **home})
        for number, home in homes.items()
    ]
    async with desk.pool.acquire() as connection, connection.transaction():
        await datasets.absorb(connection, plan, items)


async def finish(desk: Desk, plan: Plan, *, is_complete: bool = True) -> None:
    async with desk.pool.acquire() as connection, connection.transaction():
        await datasets.finish(connection, plan, is_complete=is_complete)


@pytest_asyncio.fixture(scope="module")
async def owner(client: GraphQLClient, desk: Desk) -> Person:
    """Somebody with all of `HOMES`, seen one after the other, and with something that is gone."""
    person = await new_user(client)
    before = await a_plan(desk, person)
    await see(desk, before, {"old": {"title": "Sold long ago", "price": "1", "currency": "EUR"}})
    plan = await a_plan(desk, person, job_of=before)
    for number, home in HOMES.items():
        await see(desk, plan, {number: home})
    await finish(desk, plan)
    return person


async def listed(client: GraphQLClient, person: Person, **variables: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await client.run(LIST, variables, token=person.token))["properties"]
    return found


async def numbers(client: GraphQLClient, person: Person, **variables: Any) -> list[str]:
    found = await listed(client, person, **variables)
    assert found["totalCount"] >= len(found["edges"])
    return [edge["node"]["sourceId"] for edge in found["edges"]]


async def refusal(client: GraphQLClient, person: Person, document: str, **variables: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, token=person.token)
    return caught.value.extensions


async def id_of(desk: Desk, person: Person, number: str) -> str:
    found = await desk.pool.fetchval(
        "SELECT id FROM properties WHERE owner_id = $1 AND source_id = $2", uuid_of(person), number
    )
    return encode_id(Prefix.PROPERTY, found)


# -- who


async def test_a_listing_is_its_owners_and_administrators(
    client: GraphQLClient, desk: Desk, owner: Person, admin: Person
) -> None:
    other = await new_user(client)
    villa = await id_of(desk, owner, "villa")
    assert await numbers(client, other) == []
    assert (await listed(client, other))["facets"]["cities"] == []
    for document in (ONE, DELETE):
        variables = {"id": villa} if document == ONE else {"input": {"id": villa}}
        assert (await refusal(client, other, document, **variables))["code"] == "NOT_FOUND"
    assert (await client.run(NODE, {"id": villa}, token=other.token))["node"] is None
    assert (await client.run(NODE, {"id": villa}, token=owner.token))["node"] == {"id": villa}
    assert (await client.run(ONE, {"id": villa}, token=admin.token))["property"]["id"] == villa
    assert "villa" in await numbers(client, admin)


async def test_two_owners_of_one_listing_have_one_each(client: GraphQLClient, desk: Desk) -> None:
    for person in (await new_user(client), await new_user(client)):
        plan = await a_plan(desk, person)
        await see(desk, plan, {"villa": HOMES["villa"]})
        await see(desk, plan, {"villa": HOMES["villa"]}, host="other.example")
        assert await numbers(client, person) == ["villa", "villa"]


# -- one


async def test_a_listing_with_all_that_is_known_of_it(client: GraphQLClient, desk: Desk, owner: Person) -> None:
    loft = (await client.run(ONE, {"id": await id_of(desk, owner, "loft")}, token=owner.token))["property"]
    assert loft.pop("firstSeenAt") == loft.pop("lastChangedAt") == loft.pop("lastSeenAt")
    assert loft.pop("job")["name"] == "A job"
    assert loft.pop("id").startswith("prop_")
    assert loft == {
        "source": "homes.example", "sourceId": "loft", "url": "https://homes.example/loft", "title": "Loft",
        "price": "300000", "currency": "USD", "area": "1000", "areaUnit": "SQUARE_FEET", "squareMetres": "92.90304",
        "pricePerSquareMetre": "3229.1731", "bedrooms": 0, "bathrooms": 1, "propertyType": "FLAT", "street": None,
        "city": "New York", "region": "NY", "postalCode": "10001", "country": None, "latitude": 40.75,
        "longitude": -73.99, "description": "Near a garden.", "images": [], "datePosted": None, "goneAt": None,
        "distanceKilometres": None,
        "priceHistory": {"totalCount": 1, "edges": [{"node": {"price": "300000", "currency": "USD"}}]},
    }  # fmt: skip


async def test_the_history_has_each_price_once_and_no_page_twice(client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    plan = await a_plan(desk, person)
    said = [("1", "EUR"), ("1.0", "EUR"), ("1", "USD"), (None, None), (None, None), ("1", None), ("2", "EUR")]
    for price, currency in said:
        await see(desk, plan, {"a": {"title": "A", "price": price, "currency": currency}})
    found = (await client.run(ONE, {"id": await id_of(desk, person, "a")}, token=person.token))["property"]
    prices = [(edge["node"]["price"], edge["node"]["currency"]) for edge in found["priceHistory"]["edges"]]
    assert prices == [("2", "EUR"), ("1", None), (None, None), ("1", "USD"), ("1", "EUR")]


# -- lists


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({}, ["bare", "atoll", "plot", "loft", "flat", "villa", "old"]),
        ({"isGone": True}, ["old"]),
        ({"isGone": False, "price": {"min": 1, "max": "150000"}}, ["atoll", "flat"]),
        ({"price": {"min": "150000.01"}, "currency": "eur"}, ["villa"]),
        ({"price": {"min": "9000.00001", "max": "150000.00009"}}, ["flat"]),
        ({"price": {"min": "0"}}, ["atoll", "loft", "flat", "villa", "old"]),
        ({"price": {"max": "1000000000000000000"}}, ["atoll", "loft", "flat", "villa", "old"]),
        ({"currency": "USD"}, ["loft"]),
        ({"area": {"min": 50, "max": "92.91"}}, ["loft", "flat"]),
        ({"bedrooms": {"max": 2}}, ["loft", "flat"]),
        ({"bathrooms": {"min": 1.5}}, ["villa"]),
        ({"city": "malaga"}, ["flat", "villa"]),
        ({"city": "Mál"}, []),
        ({"region": "ny"}, ["loft"]),
        ({"country": "es"}, ["villa"]),
        ({"location": "larios"}, ["flat"]),
        ({"location": "mal lar"}, ["flat"]),
        ({"location": "new york 10001"}, ["loft"]),
        ({"location": "garden"}, []),
        ({"location": "%"}, []),
        ({"propertyType": "FLAT"}, ["loft", "flat"]),
        ({"source": "Homes.Example"}, ["bare", "atoll", "plot", "loft", "flat", "villa", "old"]),
        ({"source": "other.example"}, []),
        ({"near": {"latitude": 36.715, "longitude": -4.425, "kilometres": 2}}, ["flat", "villa"]),
        ({"near": {"latitude": -18.1, "longitude": 180, "kilometres": 5}}, ["atoll", "plot"]),
        ({"near": {"latitude": -18.1, "longitude": -180, "kilometres": 1}}, []),
    ],
)
async def test_what_a_filter_finds(
    client: GraphQLClient, owner: Person, filter: dict[str, Any], found: list[str]
) -> None:
    assert await numbers(client, owner, filter=filter) == found


@pytest.mark.parametrize(
    ("search", "found"),
    [("garden", ["loft", "villa"]), ("GARDENS villa", ["villa"]), ("houses", ["bare", "villa"]), ("%", []), (" ", 7)],
)
async def test_what_a_search_finds(client: GraphQLClient, owner: Person, search: str, found: list[str] | int) -> None:
    assert (await numbers(client, owner, search=search)) == found or len(await numbers(client, owner)) == found


async def test_conditions_of_time_and_of_a_job(client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    plan, other_plan = await a_plan(desk, person), await a_plan(desk, person)
    await see(desk, plan, {"a": {"title": "A", "price": "1"}, "b": {"title": "B", "price": "1"}})
    since = (await desk.pool.fetchval("SELECT clock_timestamp()")).isoformat()
    await see(desk, plan, {"a": {"title": "A", "price": "2"}, "c": {"title": "C", "price": "1"}})
    await see(desk, other_plan, {"b": {"title": "B", "price": "1"}})
    assert await numbers(client, person, filter={"priceChangedSince": since}) == ["a"]
    assert await numbers(client, person, filter={"firstSeenFrom": since}) == ["c"]
    job = encode_id(Prefix.JOB, other_plan.job_id)
    assert await numbers(client, person, filter={"jobId": job}) == ["b"]
    assert await numbers(client, await new_user(client), filter={"jobId": job}) == []


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"filter": {"price": {"min": 2, "max": 1}}}, ["filter", "price", "min"]),
        ({"filter": {"area": {"max": -1}}}, ["filter", "area", "max"]),
        ({"filter": {"near": {"latitude": 91, "longitude": 0, "kilometres": 1}}}, ["filter", "near", "latitude"]),
        ({"filter": {"near": {"latitude": 0, "longitude": 0, "kilometres": 501}}}, ["filter", "near", "kilometres"]),
        ({"filter": {"near": {"latitude": 0, "longitude": 0, "kilometres": 0}}}, ["filter", "near", "kilometres"]),
        ({"orderBy": {"field": "DISTANCE"}}, ["orderBy", "field"]),
        ({"filter": {"propertyType": "x" * 256}}, ["filter", "propertyType"]),
        ({"filter": {"location": "x" * 201}}, ["filter", "location"]),
        ({"search": "x" * 201}, ["search"]),
        ({"after": "nothing"}, ["after"]),
    ],
)
async def test_what_cannot_be_is_refused_with_its_path(
    client: GraphQLClient, owner: Person, variables: dict[str, Any], path: list[str]
) -> None:
    told = await refusal(client, owner, LIST, **variables)
    assert (told["code"], told["details"]["path"]) == ("VALIDATION_ERROR", path)


NEAR_MALAGA = {"near": {"latitude": 36.7, "longitude": -4.4, "kilometres": 500}}
ORDERS = {
    "PRICE": ["old", "flat", "villa", "loft", "atoll"],
    "AREA": ["flat", "loft", "villa", "plot"],
    "PRICE_PER_SQUARE_METRE": ["villa", "flat", "old", "loft"],
    "FIRST_SEEN": ["old", "villa", "flat", "loft", "plot", "atoll", "bare"],
    "LAST_SEEN": ["old", "villa", "flat", "loft", "plot", "atoll", "bare"],
    "DISTANCE": ["villa", "flat"],
}


@pytest.mark.parametrize("field", ORDERS)
@pytest.mark.parametrize("direction", ["ASC", "DESC", None])
async def test_pages_join_to_the_whole_list(
    client: GraphQLClient, owner: Person, field: str, direction: str | None
) -> None:
    order = {"field": field} | ({} if direction is None else {"direction": direction})
    variables = {"orderBy": order, "filter": NEAR_MALAGA if field == "DISTANCE" else {}}
    whole = await numbers(client, owner, **variables)
    is_down = direction == "DESC" or (direction is None and field in {"FIRST_SEEN", "LAST_SEEN"})
    known = [number for number in (whole[::-1] if is_down else whole) if number in ORDERS[field]]
    assert known == ORDERS[field]
    assert (whole[::-1] if is_down else whole)[: len(known)] == known, "what does not say it is last"
    for size, step, cursor, start in (("first", "after", "endCursor", 0), ("last", "before", "startCursor", -1)):
        joined: list[str] = []
        bound: dict[str, Any] = {}
        while True:
            found = await listed(client, owner, **variables, **bound, **{size: 2})
            names = [edge["node"]["sourceId"] for edge in found["edges"]]
            joined = joined + names if start == 0 else names + joined
            if not found["pageInfo"]["hasNextPage" if start == 0 else "hasPreviousPage"]:
                break
            bound = {step: found["pageInfo"][cursor]}
        assert joined == whole


async def test_facets_respect_all_filters_but_their_own(client: GraphQLClient, owner: Person) -> None:
    found = await listed(client, owner, filter={"city": "málaga", "bedrooms": {"min": 3}, "currency": "EUR"})
    assert [edge["node"]["sourceId"] for edge in found["edges"]] == ["villa"]
    facets = found["facets"]
    assert facets["bedrooms"] == [{"value": 2, "count": 1}, {"value": 4, "count": 1}]
    assert facets["cities"] == [{"value": "Málaga", "count": 1}]
    assert facets["propertyTypes"] == [{"value": "HOUSE", "count": 1}]
    assert facets["currencies"] == [{"value": "EUR", "count": 1}]
    assert facets["priceRanges"] == [{"currency": "EUR", "min": "500000", "max": "500000", "count": 1}]
    everything = (await listed(client, owner))["facets"]
    assert [each["count"] for each in everything["cities"]] == [2, 1, 1]
    assert everything["sources"] == [{"value": "homes.example", "count": 7}]
    assert everything["priceRanges"] == [
        {"currency": "EUR", "min": "1", "max": "500000", "count": 3},
        {"currency": "USD", "min": "300000", "max": "300000", "count": 1},
    ]


# -- distances


@pytest_asyncio.fixture(scope="module")
async def spread(client: GraphQLClient, desk: Desk) -> tuple[Actor, dict[str, tuple[float, float]]]:
    """Somebody's listings around the poles, the antimeridian and elsewhere."""
    person = await new_user(client)
    points = [
        (latitude, longitude + shift)
        for latitude in (-90, -89.97, -88, -18.1, -0.5, 0, 0.7, 45, 60, 86.5, 89.9, 90)
        for longitude in (-180, -179.9, -177, -90, -0.2, 0, 3, 90, 176, 179.5)
        for shift in (0, 0.05)
    ]
    homes = {
        f"p{place}": {"title": "P", "latitude": point[0], "longitude": point[1]} for place, point in enumerate(points)
    }
    await see(desk, await a_plan(desk, person), homes)
    return Actor(user_id=uuid_of(person)), {f"p{place}": point for place, point in enumerate(points)}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    st.floats(-90, 90) | st.sampled_from([-90.0, 90.0, 0.0, 89.95, -18.1]),
    st.floats(-180, 180) | st.sampled_from([-180.0, 180.0, 179.99, -179.99]),
    st.floats(0.1, 500),
)
async def test_distances_are_those_of_the_plain_formula(
    desk: Desk,
    spread: tuple[Actor, dict[str, tuple[float, float]]],
    latitude: float,
    longitude: float,
    kilometres: float,
) -> None:
    actor, points = spread
    rows = await page(
        actor,
        PropertyConditions(near=Near(latitude, longitude, kilometres)),
        order=PropertyOrderField.DISTANCE,
        descending=False,
        limit=len(points),
    )
    expected = {number: haversine((latitude, longitude), point) for number, point in points.items()}
    inside = {number for number, distance in expected.items() if distance < kilometres - 1e-6}
    found = {row["source_id"]: row["distance_metres"] for row in rows}
    assert inside <= found.keys()
    assert all(expected[number] < kilometres + 1e-6 for number in found)
    assert all(math.isclose(metres / 1000, expected[number], abs_tol=0.0006) for number, metres in found.items())
    assert list(found.values()) == sorted(found.values())


# -- gone


def a_home(price: str = "1") -> dict[str, Any]:
    return {"title": "A home", "price": price, "currency": "EUR"}


async def test_a_listing_that_cannot_be_a_property_is_counted(client: GraphQLClient, desk: Desk) -> None:
    plan = await a_plan(desk, await new_user(client))
    await see(desk, plan, {"a": a_home(), "b": {"title": None}, "c": {"sourceId": "", "title": "C"}})
    skipped = await desk.pool.fetchval("SELECT items_skipped FROM job_runs WHERE execution_id = $1", plan.run_id)
    assert skipped == 2


async def gone_of(client: GraphQLClient, person: Person) -> set[str]:
    return set(await numbers(client, person, filter={"isGone": True}))


@pytest.mark.parametrize(
    ("url", "reason", "status", "callback", "gone"),
    [
        ("https://homes.example/b", "HTTP_STATUS", 404, "read_listing", {"b", "c"}),
        ("https://homes.example/b", "HTTP_STATUS", 410, "read_listing", {"b", "c"}),
        ("https://homes.example/b", "HTTP_STATUS", 503, "read_listing", {"c"}),
        ("https://homes.example/b", "TIMEOUT", None, "read_listing", {"c"}),
        ("https://homes.example/list?page=2", "TIMEOUT", None, "read_list", set()),
        ("https://homes.example/private", "ROBOTS", None, "read_list", {"b", "c"}),
    ],
)
async def test_what_could_not_be_read_is_not_gone(
    client: GraphQLClient, desk: Desk, url: str, reason: str, status: int | None, callback: str, gone: set[str]
) -> None:
    person = await new_user(client)
    first = await a_plan(desk, person)
    await see(desk, first, {"a": a_home(), "b": a_home(), "c": a_home()})
    second = await a_plan(desk, person, job_of=first)
    await see(desk, second, {"a": a_home()})
    await desk.pool.execute(
        """INSERT INTO crawl_requests (dataset_id, fingerprint, url, payload, depth, rank, state, starts,
               failure_reason)
           VALUES ($1, '\\x00', $2, jsonb_build_object('callback', $3::text, 'status', $5::int), 0, 0, 'FAILED', 1,
               $4)""",
        second.dataset_id,
        url,
        callback,
        reason,
        status,
    )
    await finish(desk, second, is_complete=False)
    assert await gone_of(client, person) == set()
    await finish(desk, second)
    assert await gone_of(client, person) == gone
    await see(desk, second, {"c": a_home()})
    assert await gone_of(client, person) == gone - {"c"}


async def test_a_run_says_nothing_of_what_others_saw_meanwhile_nor_of_sites_it_did_not_see(
    client: GraphQLClient, desk: Desk
) -> None:
    person = await new_user(client)
    first = await a_plan(desk, person)
    await see(desk, first, {"a": a_home(), "b": a_home()})
    await see(desk, first, {"elsewhere": a_home()}, host="moved.example")
    stranger = await new_user(client)
    await see(desk, await a_plan(desk, stranger), {"b": a_home()})
    other_job = await a_plan(desk, person)
    await see(desk, other_job, {"other": a_home()})
    long_one = await a_plan(desk, person, job_of=first)
    short_one = await a_plan(desk, person, job_of=first)
    await see(desk, short_one, {"a": a_home(), "b": a_home()})
    await see(desk, long_one, {"a": a_home()})
    await finish(desk, long_one)
    assert await gone_of(client, person) == set()
    rejecting = await a_plan(desk, person, job_of=first)
    await see(desk, rejecting, {"a": a_home()})
    await desk.pool.execute(
        """INSERT INTO rejected_items (dataset_id, run_id, key, url, data, faults, rejected_at)
           VALUES ($1, $1, 'b', 'https://homes.example/b', '{}', '[]', now())""",
        rejecting.run_id,
    )
    await finish(desk, rejecting)
    assert await gone_of(client, person) == set()
    empty = await a_plan(desk, person, job_of=first)
    await finish(desk, empty)
    assert await gone_of(client, person) == set()
    whole = await a_plan(desk, person, job_of=first)
    await see(desk, whole, {"a": a_home()})
    await finish(desk, whole)
    assert await gone_of(client, person) == {"b"}
    assert await gone_of(client, stranger) == set()


async def test_runs_that_meet_at_the_same_listings_do_not_wait_in_a_circle(client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    plans = [await a_plan(desk, person) for _ in range(2)]
    homes = {f"n{place}": a_home() for place in range(200)}
    backwards = dict(reversed(homes.items()))
    for price in range(5):
        changed = ({number: a_home(str(price)) for number in each} for each in (homes, backwards))
        await asyncio.gather(*(see(desk, plan, each) for plan, each in zip(plans, changed, strict=True)))
    rows = await desk.pool.fetch(
        """SELECT p.id, count(*) FROM properties p JOIN property_prices h ON h.property_id = p.id WHERE p.owner_id = $1
           GROUP BY p.id""",
        uuid_of(person),
    )
    assert [row["count"] for row in rows] == [5] * 200


# -- ends


async def test_a_deleted_listing_is_gone_until_a_crawl_sees_it_again(client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    plan = await a_plan(desk, person)
    await see(desk, plan, {"a": a_home(), "b": a_home()})
    deleted = await id_of(desk, person, "a")
    answer = await client.run(DELETE, {"input": {"id": deleted}}, token=person.token)
    assert answer["deleteProperty"] == {"deletedId": deleted}
    assert (await refusal(client, person, DELETE, input={"id": deleted}))["code"] == "NOT_FOUND"
    assert await numbers(client, person) == ["b"]
    left = "SELECT count(*) FROM property_prices WHERE property_id = $1"
    assert await desk.pool.fetchval(left, decode_id(deleted)[1]) == 0
    await see(desk, plan, {"a": a_home()})
    assert await id_of(desk, person, "a") != deleted


async def test_a_deleted_job_leaves_its_properties(client: GraphQLClient, desk: Desk) -> None:
    person = await new_user(client)
    job = await desk.job(person)
    plan = await a_plan(desk, person, job=job)
    await see(desk, plan, {"a": a_home()})
    await desk.pool.execute(
        "UPDATE executions SET status = 'SUCCEEDED', finished_at = now(), lease_until = NULL WHERE id = $1", plan.run_id
    )
    await client.run(DELETE_JOB, {"input": {"id": encode_id(Prefix.JOB, job)}}, token=person.token)
    found = (await client.run(ONE, {"id": await id_of(desk, person, "a")}, token=person.token))["property"]
    assert (found["job"], found["title"]) == (None, "A home")


async def test_the_properties_of_an_account_go_in_pieces_before_its_jobs(client: GraphQLClient, desk: Desk) -> None:
    person, other = await new_user(client), await new_user(client)
    for each in (person, other):
        await see(desk, await a_plan(desk, each), {f"n{place}": a_home() for place in range(5)})
    await desk.pool.execute(
        """INSERT INTO product_sources (id, job_id, dataset_id, run_id, source, source_id, url, first_seen_at,
               last_seen_at)
           SELECT $1, id, $1, $1, 'a.example', '1', '', now(), now() FROM jobs WHERE owner_id = $2""",
        new_id(),
        uuid_of(person),
    )
    left = "SELECT count(*) FROM {} WHERE owner_id = $1"
    counts = []
    while await user_queries.delete_some(desk.pool, uuid_of(person), limit=2):
        counts.append(await desk.pool.fetchval(left.format("properties"), uuid_of(person)))
    assert counts[:4] == [5, 3, 1, 0]
    assert await desk.pool.fetchval(left.format("jobs"), uuid_of(person)) == 0
    assert await desk.pool.fetchval(left.format("properties"), uuid_of(other)) == 5
    assert await desk.pool.fetchval("SELECT count(*) FROM product_sources WHERE job_id IS NULL") == 1


async def test_the_database_refuses_what_no_listing_is(db: asyncpg.Connection, owner: Person) -> None:
    for change in (
        "price = -1",
        "price = NULL",
        "area = NULL",
        "longitude = NULL",
        "currency = 'eur'",
        "area_unit = 'X'",
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await db.execute(f"UPDATE properties SET {change} WHERE source_id = 'villa'")
    assert await database.value("SELECT count(*) FROM properties WHERE price < 0") == 0
