"""The search of products: what finds what, in which order, page by page, with filters and facets, by which indexes."""

from __future__ import annotations

import unicodedata
from typing import Any

import asyncpg
import pytest

from models import database, product_search
from models.product_search import ProductConditions, ProductOrderField
from tests.factories import Person, sign_in
from tests.harness import catalogue
from tests.harness.client import GraphQLClient, GraphQLFailure

CREATE = "mutation ($input: CreateProductInput!) { createProduct(input: $input) { product { id } } }"
LIST = """
query ($search: String, $filter: ProductFilter, $orderBy: ProductOrder, $first: Int, $after: String, $last: Int,
       $before: String) {
  products(search: $search, filter: $filter, orderBy: $orderBy, first: $first, after: $after, last: $last,
           before: $before) {
    edges { node { name } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount
    facets { categories { value count } priceRanges { currency min max } inStock }
  }
}
"""
SHOP = [
    {"name": "Cafetera italiana", "sku": "CAF-01", "price": "29.90", "currency": "EUR", "stock": 3,
     "category": "Cocina", "attributes": {"color": ["rojo", "negro"], "cups": 6}},
    {"name": "Cafetera eléctrica de émbolo", "sku": "CAF-02", "price": "49.5", "currency": "EUR", "stock": 0,
     "category": "Cocina", "attributes": {"color": "rojo", "cups": 12}},
    {"name": "Café molido", "ean": "4006381333931", "price": "7", "currency": "EUR", "category": "Alimentos",
     "description": "Para la cafetera italiana de siempre."},
    {"name": "Camiseta azul", "price": "12", "currency": "USD", "stock": 9, "category": "Ropa"},
    {"name": "Camisetas de algodón", "price": "15", "currency": "EUR", "stock": 9, "category": "Ropa"},
    {"name": "Wireless headphones", "description": "For running.", "category": "Audio"},
    {"name": "Tornillo 3.5mm DIN-912", "sku": "T 35/912", "description": "100% acero_inoxidable"},
    {"name": "Ñandú de peluche", "isActive": False, "category": "Juguetes"},
]  # fmt: skip


@pytest.fixture(scope="module")
async def shop(client: GraphQLClient, api_server: Any) -> GraphQLClient:
    admin = await sign_in(client, api_server.admin_email, api_server.admin_password)
    for product in SHOP:
        await client.run(CREATE, {"input": product}, token=admin.token)
    return client


async def listed(client: GraphQLClient, *, person: Person | None = None, **variables: Any) -> dict[str, Any]:
    page: dict[str, Any] = (await client.run(LIST, variables, token=person.token if person else None))["products"]
    return page


async def names(client: GraphQLClient, search: str | None = None, **variables: Any) -> list[str]:
    page = await listed(client, search=search, **variables)
    assert page["totalCount"] >= len(page["edges"])
    return [edge["node"]["name"] for edge in page["edges"]]


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("CAF-02", ["Cafetera eléctrica de émbolo"]),
        ("caf-02", ["Cafetera eléctrica de émbolo"]),
        ("t35/912", ["Tornillo 3.5mm DIN-912"]),
        ("4006381333931", ["Café molido"]),
        ("04006381333931", ["Café molido"]),
        ("cafetera", ["Cafetera italiana", "Cafetera eléctrica de émbolo", "Café molido"]),
        ("CAFETERAS", ["Cafetera italiana", "Cafetera eléctrica de émbolo", "Café molido"]),
        ("italiana cafetera", ["Cafetera italiana", "Café molido"]),
        ("cafetera embolo", ["Cafetera eléctrica de émbolo"]),
        ("cafe", ["Café molido", "Cafetera italiana", "Cafetera eléctrica de émbolo"]),
        ("caf", ["Café molido", "Cafetera italiana", "Cafetera eléctrica de émbolo"]),
        ("cafetra italana", ["Cafetera italiana"]),
        ("camsieta", ["Camiseta azul"]),
        ("camiseta", ["Camiseta azul", "Camisetas de algodón"]),
        ("camisetas", ["Camisetas de algodón", "Camiseta azul"]),
        ("la camiseta de algodon", ["Camisetas de algodón"]),
        ("headphone", ["Wireless headphones"]),
        ("hedphones", ["Wireless headphones"]),
        ("runs", ["Wireless headphones"]),
        ("3.5mm", ["Tornillo 3.5mm DIN-912"]),
        ("din 912", ["Tornillo 3.5mm DIN-912"]),
        ("100%", ["Tornillo 3.5mm DIN-912"]),
        ("inoxidable", ["Tornillo 3.5mm DIN-912"]),
        ("%", []),
        ("_", []),
        ("\\", []),
        ("'", []),
        ("':*&!|()<->", []),
        ("½ ™ ß ø Ǆ ʼ", []),
        ("ñandú", []),
        ("motocicleta", []),
    ],
)
async def test_what_a_search_finds(shop: GraphQLClient, search: str, found: list[str]) -> None:
    assert await names(shop, search) == found


async def test_an_empty_search_is_none_and_one_that_is_too_long_is_refused(shop: GraphQLClient) -> None:
    everything = await names(shop)
    assert await names(shop, "  ") == everything
    plain = [unicodedata.normalize("NFKD", name).encode("ascii", "ignore").lower() for name in everything]
    assert plain == sorted(plain)
    with pytest.raises(GraphQLFailure) as caught:
        await names(shop, "x" * 201)
    assert caught.value.extensions["details"]["path"] == ["search"]


async def test_administrators_find_inactive_products(shop: GraphQLClient, admin: Person) -> None:
    page = await listed(shop, search="nandu", person=admin)
    assert [edge["node"]["name"] for edge in page["edges"]] == ["Ñandú de peluche"]


@pytest.mark.parametrize("field", ["RELEVANCE", "NAME", "PRICE", "UPDATED", "CREATED"])
@pytest.mark.parametrize("direction", ["ASC", "DESC", None])
@pytest.mark.parametrize("search", ["cafetera", None])
async def test_pages_join_to_the_whole_list(
    shop: GraphQLClient, field: str, direction: str | None, search: str | None
) -> None:
    order = {"field": field, "direction": direction}
    whole = await names(shop, search, orderBy=order)
    assert len(whole) == (3 if search else 7)
    forwards, backwards = list[str](), list[str]()
    after = before = None
    for _ in whole:
        page = await listed(shop, search=search, orderBy=order, first=1, after=after)
        forwards += [edge["node"]["name"] for edge in page["edges"]]
        after = page["pageInfo"]["endCursor"]
        page = await listed(shop, search=search, orderBy=order, last=1, before=before)
        backwards = [edge["node"]["name"] for edge in page["edges"]] + backwards
        before = page["pageInfo"]["startCursor"]
    assert forwards == backwards == whole
    with pytest.raises(GraphQLFailure):
        await listed(shop, orderBy={"field": "PRICE" if field != "PRICE" else "NAME"}, after=after)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"category": "Cocina"}, ["Cafetera eléctrica de émbolo", "Cafetera italiana"]),
        ({"categories": ["Audio", "Ropa"]}, ["Camiseta azul", "Camisetas de algodón", "Wireless headphones"]),
        ({"category": "Audio", "categories": ["Ropa"]}, []),
        ({"priceMin": "12", "priceMax": 15}, ["Camiseta azul", "Camisetas de algodón"]),
        ({"priceMin": "12", "priceMax": "15", "currency": "eur"}, ["Camisetas de algodón"]),
        ({"inStock": False}, ["Cafetera eléctrica de émbolo"]),
        ({"inStock": True, "category": "Cocina"}, ["Cafetera italiana"]),
        ({"attributes": [{"name": "color", "value": "rojo"}]}, ["Cafetera eléctrica de émbolo", "Cafetera italiana"]),
        ({"attributes": [{"name": "cups", "value": "6"}]}, ["Cafetera italiana"]),
        ({"attributes": [{"name": "cups", "value": "6"}, {"name": "color", "value": "azul"}]}, []),
        ({"updatedAfter": "2001-01-01T00:00:00Z", "category": "Audio"}, ["Wireless headphones"]),
        ({"updatedAfter": "2999-01-01T00:00:00Z"}, []),
        ({"isActive": False}, []),
    ],
)
async def test_filters(shop: GraphQLClient, wanted: dict[str, Any], found: list[str]) -> None:
    assert await names(shop, filter=wanted) == found


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ({"categories": [str(number) for number in range(51)]}, "categories"),
        ({"attributes": [{"name": "x", "value": "x"}] * 11}, "attributes"),
        ({"attributes": [{"name": "x" * 256, "value": "x"}]}, "attributes"),
        ({"priceMin": "-1"}, "priceMin"),
        ({"priceMax": "1.00001"}, "priceMax"),
    ],
)
async def test_filters_have_limits(shop: GraphQLClient, wanted: dict[str, Any], path: str) -> None:
    with pytest.raises(GraphQLFailure) as caught:
        await names(shop, filter=wanted)
    assert caught.value.extensions["details"]["path"][:2] == ["filter", path]


async def test_facets_respect_all_filters_but_their_own(shop: GraphQLClient) -> None:
    page = await listed(shop, filter={"category": "Cocina", "inStock": True})
    assert page["facets"] == {
        "categories": [
            {"value": "Ropa", "count": 2},
            {"value": "Alimentos", "count": 1},
            {"value": "Audio", "count": 1},
            {"value": "Cocina", "count": 1},
        ],
        "priceRanges": [{"currency": "EUR", "min": "29.9", "max": "29.9"}],
        "inStock": 1,
    }
    page = await listed(shop, search="cafetera", filter={"priceMin": "40"})
    assert page["facets"] == {
        "categories": [{"value": "Cocina", "count": 1}],
        "priceRanges": [{"currency": "EUR", "min": "7", "max": "49.5"}],
        "inStock": 0,
    }
    assert (await listed(shop, filter={"isActive": False}))["facets"] == {
        "categories": [],
        "priceRanges": [],
        "inStock": 0,
    }


async def test_a_large_catalogue_is_searched_by_indexes(
    db: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalogue.fill(db, 10_000)
    await db.execute("SELECT set_config('pg_trgm.word_similarity_threshold', '0.37', false)")
    plans: list[str] = []

    async def explained(statement: str, *values: Any) -> list[dict[str, Any]]:
        if "FROM products" not in statement:
            return [dict(row) for row in await db.fetch(statement, *values)]
        plan = await db.fetch(f"EXPLAIN {statement}", *values)
        plans.append("\n".join(row[0] for row in plan))
        return []

    monkeypatch.setattr(database, "rows", explained)
    for search in ("cafetera italiana", "cafetra italana", "CAT-0000123", "caf"):
        await product_search.page(
            ProductConditions(search=search, is_active=True),
            order=ProductOrderField.RELEVANCE,
            descending=True,
            limit=21,
        )
    for order in (
        ProductOrderField.NAME,
        ProductOrderField.PRICE,
        ProductOrderField.UPDATED,
        ProductOrderField.CREATED,
    ):
        await product_search.page(ProductConditions(is_active=True), order=order, descending=False, limit=21)
    narrow = ProductConditions(attributes=(("size", "49"), ("color", "red")))
    await product_search.page(narrow, order=ProductOrderField.NAME, descending=False, limit=21)
    assert len(plans) == 9
    for plan in plans:
        # Whether there are enough is looked up to a limit: of frequent words any products will do.
        assert "Seq Scan" not in plan.replace("Seq Scan on products p_5", ""), plan
    for index in ("search_words", "search_name", "sku", "name", "price_order", "updated", "attributes"):
        assert any(f"products_{index}" in plan for plan in plans), index
