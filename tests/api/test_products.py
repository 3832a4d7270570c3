"""Products through the API: who may what, what a bad one is told, keys, versions, stock, prices and media."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

import asyncpg
import pytest

from models.ids import Prefix, decode_id, encode_id, new_id
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure

PRODUCT = (
    "id name slug sku ean description price currency unit stock inStock category attributes isActive version createdAt"
    " updatedAt"
)
CREATE = f"mutation ($input: CreateProductInput!) {{ createProduct(input: $input) {{ product {{ {PRODUCT} }} }} }}"
UPDATE = f"mutation ($input: UpdateProductInput!) {{ updateProduct(input: $input) {{ product {{ {PRODUCT} }} }} }}"
DELETE = "mutation ($input: DeleteProductInput!) { deleteProduct(input: $input) { deletedId } }"
ADJUST = "mutation ($input: AdjustStockInput!) { adjustStock(input: $input) { product { stock version } } }"
SET_STOCK = "mutation ($input: SetStockInput!) { setStock(input: $input) { product { stock version } } }"
SET_MEDIA = """
mutation ($input: SetProductMediaInput!) {
  setProductMedia(input: $input) { product { version media { mediaId alt contentType width height url } } }
}
"""
ONE = f"query ($id: ID, $slug: String) {{ product(id: $id, slug: $slug) {{ {PRODUCT} }} }}"
NODE = "query ($id: ID!) { node(id: $id) { id } }"
LIST = "query ($filter: ProductFilter) { products(filter: $filter, first: 100) { edges { node { id } } } }"
PRICES = """
query ($id: ID!, $first: Int, $after: String) {
  product(id: $id) {
    priceHistory(first: $first, after: $after) {
      totalCount edges { node { price currency source changedAt } } pageInfo { endCursor hasNextPage }
    }
  }
}
"""
NOBODYS_PRODUCT = encode_id(Prefix.PRODUCT, NOBODYS_ID)


def a_product(**changes: Any) -> dict[str, Any]:
    return {"name": f"Product {secrets.token_hex(4)}", **changes}


async def created(client: GraphQLClient, admin: Person, **changes: Any) -> dict[str, Any]:
    data = await client.run(CREATE, {"input": a_product(**changes)}, token=admin.token)
    product: dict[str, Any] = data["createProduct"]["product"]
    return product


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


async def one(client: GraphQLClient, product_id: str, person: Person | None = None) -> dict[str, Any]:
    data = await client.run(ONE, {"id": product_id}, token=person.token if person else None)
    product: dict[str, Any] = data["product"]
    return product


async def stored(db: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(await db.fetch("SELECT * FROM products ORDER BY id"))


# -- who


async def test_everybody_reads_active_products_and_administrators_all(client: GraphQLClient, admin: Person) -> None:
    active, inactive = await created(client, admin), await created(client, admin, isActive=False)
    for token in (None, (await new_user(client)).token):
        assert (await client.run(ONE, {"id": active["id"]}, token=token))["product"] == active
        assert (await client.run(ONE, {"slug": active["slug"]}, token=token))["product"] == active
        for names in ({"id": inactive["id"]}, {"slug": inactive["slug"]}):
            assert (await refused(client, ONE, names, token=token))["code"] == "NOT_FOUND"
        assert (await client.run(NODE, {"id": active["id"]}, token=token))["node"] == {"id": active["id"]}
        assert (await client.run(NODE, {"id": inactive["id"]}, token=token))["node"] is None
        for wanted, is_there in ((None, True), ({"isActive": True}, True), ({"isActive": False}, False)):
            found = await client.run(LIST, {"filter": wanted}, token=token)
            ids = {edge["node"]["id"] for edge in found["products"]["edges"]}
            assert (active["id"] in ids, inactive["id"] in ids) == (is_there, False)
    assert await one(client, inactive["id"], admin) == inactive
    found = await client.run(LIST, {"filter": {"isActive": False}}, token=admin.token)
    assert inactive["id"] in {edge["node"]["id"] for edge in found["products"]["edges"]}


async def test_only_administrators_change_products(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    product = await created(client, admin, stock="3")
    before = await stored(db)
    attempts: list[tuple[str, dict[str, Any]]] = [
        (CREATE, a_product()),
        (UPDATE, {"id": product["id"], "name": "Mine"}),
        (ADJUST, {"id": product["id"], "by": "1"}),
        (SET_STOCK, {"id": product["id"], "stock": "1"}),
        (SET_MEDIA, {"id": product["id"], "items": []}),
        (DELETE, {"id": product["id"]}),
    ]
    person = await new_user(client)
    for document, variables in attempts:
        assert (await refused(client, document, {"input": variables}))["code"] == "UNAUTHORIZED"
        refusal = await refused(client, document, {"input": variables}, token=person.token)
        assert refusal["code"] == "FORBIDDEN"
    assert await stored(db) == before
    for document, variables in attempts[1:]:
        refusal = await refused(client, document, {"input": {**variables, "id": NOBODYS_PRODUCT}}, token=admin.token)
        assert refusal["code"] == "NOT_FOUND"
    for wrong in ("", "prod_1", product["id"].replace("prod", "med")):
        assert (await refused(client, ONE, {"id": wrong}))["code"] == "NOT_FOUND"
    assert (await refused(client, ONE, {}))["details"]["path"] == ["id"]
    assert (await refused(client, ONE, {"id": product["id"], "slug": "x"}))["code"] == "VALIDATION_ERROR"


# -- what


async def test_a_product_keeps_what_it_was_given(client: GraphQLClient, admin: Person) -> None:
    given = {
        "name": "  Cafetera Ñandú 3 ",
        "sku": "Caf 01",
        "ean": "0-36000-29145-2",
        "description": "Una.\r\nDos.",
        "price": "1234567890.1200",
        "currency": " eur ",
        "unit": "kg",
        "stock": 12,
        "category": "Café",
        "attributes": {"color": ["rojo", "azul"], "size": {"w": 2.5}, "new": True, "none": None},
    }
    product = await created(client, admin, **given)
    expected = {
        "name": "Cafetera Ñandú 3",
        "slug": "cafetera-nandu-3",
        "sku": "Caf 01",
        "ean": "0036000291452",
        "description": "Una.\nDos.",
        "price": "1234567890.12",
        "currency": "EUR",
        "unit": "kg",
        "stock": "12",
        "inStock": True,
        "category": "Café",
        "attributes": given["attributes"],
        "isActive": True,
        "version": 1,
    }
    assert {name: product[name] for name in expected} == expected
    assert await one(client, product["id"]) == product


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"slug": "Not a slug"}, "slug"),
        ({"slug": "x" * 121}, "slug"),
        ({"sku": ""}, "sku"),
        ({"sku": "x" * 65}, "sku"),
        ({"sku": "ﷺ" * 10}, "sku"),
        ({"ean": "4006381333932"}, "ean"),
        ({"ean": "12345"}, "ean"),
        ({"ean": "٤٠٠٦٣٨١٣٣٣٩٣١"}, "ean"),
        ({"price": "-1", "currency": "EUR"}, "price"),
        ({"price": "1.00001", "currency": "EUR"}, "price"),
        ({"price": "10000000000", "currency": "EUR"}, "price"),
        ({"price": "1"}, "currency"),
        ({"currency": "EUR"}, "price"),
        ({"price": "1", "currency": "euro"}, "currency"),
        ({"stock": "-0.001"}, "stock"),
        ({"stock": "0.0001"}, "stock"),
        ({"unit": "x" * 17}, "unit"),
        ({"category": ""}, "category"),
        ({"description": "x" * 20_001}, "description"),
        ({"attributes": []}, "attributes"),
        ({"attributes": {str(number): 1 for number in range(51)}}, "attributes"),
        ({"attributes": {"a": "x" * 16_384}}, "attributes"),
        ({"attributes": {"": 1}}, "attributes"),
        ({"attributes": {"deep": {"deeper": {"deepest": 1}}}}, "attributes"),
        ({"attributes": {"deep": [[1]]}}, "attributes"),
        ({"attributes": {"large": 2**60}}, "attributes"),
    ],
)
async def test_a_value_that_does_not_fit_is_refused_with_its_path(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, change: dict[str, Any], place: str
) -> None:
    before = await stored(db)
    refusal = await refused(client, CREATE, {"input": a_product(**change)}, token=admin.token)
    assert refusal["code"] == "VALIDATION_ERROR"
    assert refusal["details"]["path"][:2] == ["input", place]
    assert await stored(db) == before


@pytest.mark.parametrize("price", [9.99, "1e3", "9,99", "", "NaN", "-", "1.", True, 2**60, "1" * 41])
async def test_a_price_is_text_of_digits(client: GraphQLClient, admin: Person, price: Any) -> None:
    refusal = await refused(client, CREATE, {"input": a_product(price=price, currency="EUR")}, token=admin.token)
    assert refusal["code"] == "VALIDATION_ERROR"


# -- keys


async def test_a_key_names_one_product(client: GraphQLClient, admin: Person, db: asyncpg.Connection) -> None:
    mark = secrets.token_hex(4)
    first = await created(client, admin, slug=f"first-{mark}", sku=f"Ab {mark}", ean="4006381333931")
    second = await created(client, admin)
    before = await stored(db)
    for change, place in (
        ({"slug": f"first-{mark}"}, "slug"),
        ({"sku": f"ＡB{mark.upper()}"}, "sku"),
        ({"ean": "04006381333931"}, "ean"),
    ):
        refusals = [
            await refused(client, CREATE, {"input": a_product(**change)}, token=admin.token),
            await refused(client, UPDATE, {"input": {"id": second["id"], **change}}, token=admin.token),
        ]
        for refusal in refusals:
            assert (refusal["code"], refusal["details"]["path"]) == ("CONFLICT", ["input", place])
    assert await stored(db) == before
    same = {"id": first["id"], "slug": first["slug"], "sku": f"AB {mark}"}
    changed = (await client.run(UPDATE, {"input": same}, token=admin.token))["updateProduct"]["product"]
    assert (changed["sku"], changed["version"]) == (f"AB {mark}", 2)


async def test_slugs_are_made_from_names_and_stay(client: GraphQLClient, admin: Person) -> None:
    name = f"Mesa plegable {secrets.token_hex(3)}"
    stem = name.lower().replace(" ", "-")
    made = [(await created(client, admin, name=name))["slug"] for _ in range(11)]
    assert made[:9] == [stem, *(f"{stem}-{number}" for number in range(2, 10))]
    assert len(set(made)) == 11
    product = await created(client, admin, name="東京")
    assert product["slug"].startswith("product")
    renamed = await client.run(UPDATE, {"input": {"id": product["id"], "name": "Tokio"}}, token=admin.token)
    assert renamed["updateProduct"]["product"]["slug"] == product["slug"]
    moved = await client.run(UPDATE, {"input": {"id": product["id"], "slug": f"{stem}-x"}}, token=admin.token)
    assert moved["updateProduct"]["product"]["slug"] == f"{stem}-x"


async def test_of_two_products_with_one_sku_at_once_one_is_made(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    sku = secrets.token_hex(6)
    answers = await asyncio.gather(
        *(client.run(CREATE, {"input": a_product(sku=sku)}, token=admin.token) for _ in range(6)),
        return_exceptions=True,
    )
    failures = [answer for answer in answers if isinstance(answer, GraphQLFailure)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 5
    assert await db.fetchval("SELECT count(*) FROM products WHERE sku_key = $1", sku) == 1


async def test_a_repeated_creation_with_its_key_makes_nothing_more(client: GraphQLClient, admin: Person) -> None:
    given = a_product(idempotencyKey=secrets.token_hex(8), price="1", currency="EUR")
    first, again = [
        (await client.run(CREATE, {"input": given}, token=admin.token))["createProduct"]["product"] for _ in range(2)
    ]
    assert first == again
    refusal = await refused(client, CREATE, {"input": {**given, "price": "2"}}, token=admin.token)
    assert refusal["code"] == "CONFLICT"


# -- changes


async def test_of_two_changes_of_one_version_one_is_made(client: GraphQLClient, admin: Person) -> None:
    product = await created(client, admin)
    changes = [{"id": product["id"], "expectedVersion": 1, "name": f"Name {number}"} for number in range(4)]
    answers = await asyncio.gather(
        *(client.run(UPDATE, {"input": change}, token=admin.token) for change in changes), return_exceptions=True
    )
    failures = [answer for answer in answers if isinstance(answer, GraphQLFailure)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 3
    assert failures[0].extensions["details"] == {"path": ["input", "expectedVersion"], "version": 2}
    [made] = [answer for answer in answers if isinstance(answer, dict)]
    assert await one(client, product["id"]) == made["updateProduct"]["product"]


async def test_a_change_that_changes_nothing_leaves_no_trace(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    product = await created(client, admin, price="1.50", currency="EUR", attributes={"a": 1})
    same = {"id": product["id"], "price": "1.5", "attributes": {"a": 1}, "name": product["name"]}
    assert (await client.run(UPDATE, {"input": same}, token=admin.token))["updateProduct"]["product"] == product
    target = decode_id(product["id"])[1]
    acts = await db.fetch("SELECT action FROM audit_events WHERE target_id = $1", target)
    assert [act["action"] for act in acts] == ["createProduct"]


async def test_every_price_is_in_the_history(client: GraphQLClient, admin: Person) -> None:
    product = await created(client, admin, price="10", currency="EUR")
    for change in ({"price": "9.5"}, {"name": "Other"}, {"currency": "USD"}, {"price": None}):
        await client.run(UPDATE, {"input": {"id": product["id"], **change}}, token=admin.token)
    now = await one(client, product["id"])
    assert (now["price"], now["currency"], now["version"]) == (None, None, 5)
    history = (await client.run(PRICES, {"id": product["id"], "first": 3}))["product"]["priceHistory"]
    entries = [(edge["node"]["price"], edge["node"]["currency"]) for edge in history["edges"]]
    assert (history["totalCount"], entries) == (4, [(None, None), ("9.5", "USD"), ("9.5", "EUR")])
    rest = await client.run(PRICES, {"id": product["id"], "after": history["pageInfo"]["endCursor"]})
    [last] = rest["product"]["priceHistory"]["edges"]
    assert (last["node"]["price"], last["node"]["source"]) == ("10", "MANUAL")


async def test_acts_are_in_the_audit_trail_and_a_deleted_product_is_gone(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    product = await created(client, admin, price="10", currency="EUR", stock="1")
    key = {"id": product["id"]}
    await client.run(UPDATE, {"input": {**key, "sku": secrets.token_hex(4)}}, token=admin.token)
    await client.run(ADJUST, {"input": {**key, "by": "-1", "reason": "Sold"}}, token=admin.token)
    await client.run(SET_STOCK, {"input": {**key, "stock": "7", "reason": "Counted"}}, token=admin.token)
    assert (await client.run(DELETE, {"input": key}, token=admin.token))["deleteProduct"] == {"deletedId": key["id"]}
    assert (await refused(client, ONE, key, token=admin.token))["code"] == "NOT_FOUND"
    assert (await refused(client, DELETE, {"input": key}, token=admin.token))["code"] == "NOT_FOUND"
    target = decode_id(product["id"])[1]
    acts = await db.fetch("SELECT action, details FROM audit_events WHERE target_id = $1 ORDER BY id", target)
    assert [act["action"] for act in acts] == [
        "createProduct",
        "updateProduct",
        "adjustStock",
        "setStock",
        "deleteProduct",
    ]
    assert '"reason": "Sold"' in acts[2]["details"]
    assert await db.fetchval("SELECT count(*) FROM product_prices WHERE product_id = $1", target) == 0


# -- stock


async def test_twenty_adjustments_at_once_all_count(client: GraphQLClient, admin: Person) -> None:
    product = await created(client, admin, stock="5")
    steps = ["0.5", "-0.25"] * 10
    await asyncio.gather(
        *(client.run(ADJUST, {"input": {"id": product["id"], "by": by}}, token=admin.token) for by in steps)
    )
    now = await one(client, product["id"])
    assert (now["stock"], now["version"]) == ("7.5", 21)


async def test_a_stock_never_falls_below_nothing(client: GraphQLClient, admin: Person) -> None:
    product = await created(client, admin, stock="3")
    answers = await asyncio.gather(
        *(client.run(ADJUST, {"input": {"id": product["id"], "by": "-1"}}, token=admin.token) for _ in range(5)),
        return_exceptions=True,
    )
    failures = [answer for answer in answers if isinstance(answer, GraphQLFailure)]
    assert [failure.code for failure in failures] == ["CONFLICT"] * 2
    assert failures[0].extensions["details"]["stock"] == "0.000"
    now = await one(client, product["id"])
    assert (now["stock"], now["inStock"]) == ("0", False)
    uncounted = await created(client, admin)
    assert uncounted["inStock"]
    refusal = await refused(client, ADJUST, {"input": {"id": uncounted["id"], "by": "1"}}, token=admin.token)
    assert refusal["code"] == "CONFLICT"
    for by in ("0.0001", "100000000000"):
        refusal = await refused(client, ADJUST, {"input": {"id": product["id"], "by": by}}, token=admin.token)
        assert refusal["details"]["path"] == ["input", "by"]


async def test_a_repeated_adjustment_with_its_key_counts_once(client: GraphQLClient, admin: Person) -> None:
    product = await created(client, admin, stock="3")
    given = {"id": product["id"], "by": "2", "idempotencyKey": secrets.token_hex(8)}
    for _ in range(3):
        answer = await client.run(ADJUST, {"input": given}, token=admin.token)
        assert answer["adjustStock"]["product"]["stock"] == "5"
    assert (await refused(client, ADJUST, {"input": {**given, "by": "3"}}, token=admin.token))["code"] == "CONFLICT"


# -- media


async def a_medium(db: asyncpg.Connection, *, owner: Person, status: str = "READY") -> str:
    medium = new_id()
    await db.execute(
        """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, kind, width, height,
               has_thumbnail, created_at, upload_until)
           VALUES ($1, $2, $3::varchar, 'a.png', 'image/png', 10, repeat('0', 64),
               CASE WHEN $3::varchar = 'READY' THEN 'IMAGE' END, 4, 3, false, now(),
               CASE WHEN $3::varchar = 'PENDING' THEN now() END)""",
        medium,
        decode_id(owner.id)[1],
        status,
    )
    return encode_id(Prefix.MEDIA, medium)


async def test_media_stand_in_their_order_and_everybody_sees_them(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    product = await created(client, admin)
    first, second = [await a_medium(db, owner=admin) for _ in range(2)]
    for order in ([first, second], [second, first], [second], []):
        items = [{"mediaId": medium, "alt": f"Shows {medium}"} for medium in order]
        answer = await client.run(SET_MEDIA, {"input": {"id": product["id"], "items": items}}, token=admin.token)
        found = answer["setProductMedia"]["product"]["media"]
        assert [(part["mediaId"], part["alt"]) for part in found] == [(m, f"Shows {m}") for m in order]
        assert all(part["contentType"] == "image/png" and "signature" in part["url"] for part in found)
    items = [{"mediaId": second}]
    await client.run(SET_MEDIA, {"input": {"id": product["id"], "items": items}}, token=admin.token)
    seen = await client.run("query ($id: ID!) { product(id: $id) { media { mediaId alt } } }", {"id": product["id"]})
    assert seen["product"]["media"] == [{"mediaId": second, "alt": ""}]


async def test_media_that_are_not_ready_are_refused(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    product = await created(client, admin)
    ready, pending = await a_medium(db, owner=admin), await a_medium(db, owner=admin, status="PENDING")
    for media, code in (
        ([ready, pending], "CONFLICT"),
        ([encode_id(Prefix.MEDIA, NOBODYS_ID)], "NOT_FOUND"),
        ([product["id"]], "NOT_FOUND"),
        ([ready, ready], "VALIDATION_ERROR"),
        ([ready] * 21, "VALIDATION_ERROR"),
    ):
        items = [{"mediaId": medium} for medium in media]
        refusal = await refused(client, SET_MEDIA, {"input": {"id": product["id"], "items": items}}, token=admin.token)
        assert refusal["code"] == code
    assert await db.fetchval("SELECT count(*) FROM product_media") <= 1
    assert await one(client, product["id"]) == product
