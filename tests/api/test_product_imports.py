"""Products from files and to files: what is read, what is refused, and that a file comes back as it went."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import secrets
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models import product_keys, product_queries
from models.ids import Prefix, encode_id
from resolvers import product_csv, product_rules
from resolvers.product_csv import COLUMNS, CsvDelimiter, DecimalMark
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure, bearer

IMPORT = """
mutation ($input: ImportProductsInput!) {
  importProducts(input: $input) {
    imported created updated unchanged skipped errorCount errors { line path message } ignoredColumns
  }
}
"""
EXPORT = "mutation ($input: ExportProductsInput!) { exportProducts(input: $input) { url expiresAt } }"
ADJUST = "mutation ($input: AdjustStockInput!) { adjustStock(input: $input) { product { stock } } }"
CREATE = "mutation ($input: CreateProductInput!) { createProduct(input: $input) { product { id slug } } }"


async def imported(client: GraphQLClient, person: Person, content: bytes | str, **options: Any) -> dict[str, Any]:
    """Send a file as a form, as small clients do (GraphQL multipart request specification)."""
    operations = {"query": IMPORT, "variables": {"input": {"file": None, **options}}}
    answer = await client.http.post(
        client.url,
        headers={**bearer(person.token), "X-Requested-With": "tests"},
        files={
            "operations": (None, json.dumps(operations)),
            "map": (None, json.dumps({"0": ["variables.input.file"]})),
            "0": ("products.csv", content.encode() if isinstance(content, str) else content, "text/csv"),
        },
    )
    body = answer.json()
    if body.get("errors"):
        raise GraphQLFailure(body["errors"])
    result: dict[str, Any] = body["data"]["importProducts"]
    return result


async def exported(client: GraphQLClient, admin: Person, **conditions: Any) -> list[dict[str, str]]:
    link = (await client.run(EXPORT, {"input": conditions}, token=admin.token))["exportProducts"]["url"]
    answer = await client.http.get(link)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    return list(csv.DictReader(io.StringIO(answer.text)))


async def stored(db: asyncpg.Connection) -> list[asyncpg.Record]:
    return list(
        await db.fetch(
            """SELECT name, slug, sku, ean, description, price, currency, unit, stock, category, attributes, is_active
               FROM products ORDER BY slug"""
        )
    )


async def emptied(db: asyncpg.Connection) -> None:
    await db.execute("DELETE FROM products")


def counts(result: dict[str, Any]) -> tuple[int, ...]:
    return tuple(result[name] for name in ("created", "updated", "unchanged", "skipped", "errorCount"))


async def test_a_spanish_file_of_a_spreadsheet_is_read(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    await emptied(db)
    file = (
        "Nombre;Referencia;Precio;Moneda;Existencias;Categoría;Color\r\nCafé molido;C-1;1.234,50;eur;3;Café;x\r\n\r\n"
    )
    file += "Té;T-1;2,5;EUR;;;\r\n"
    for content in (file.encode("latin-1"), file.encode(), file.encode("utf-8-sig")):
        result = await imported(client, admin, content, dryRun=True)
        assert (counts(result), result["imported"]) == ((2, 0, 0, 0, 0), False)
        assert await stored(db) == []
    result = await imported(client, admin, file.encode("latin-1"))
    assert (result["imported"], result["ignoredColumns"], counts(result)) == (True, ["Color"], (2, 0, 0, 0, 0))
    coffee, tea = await stored(db)
    assert (coffee["name"], coffee["slug"], coffee["price"], coffee["stock"]) == (
        "Café molido", "cafe-molido", Decimal("1234.5"), 3,
    )  # fmt: skip
    assert (tea["price"], tea["currency"], tea["stock"], tea["category"]) == (Decimal("2.5"), "EUR", None, None)
    sources = await db.fetch("SELECT source FROM product_prices")
    assert [row["source"] for row in sources] == ["IMPORT", "IMPORT"]
    again = await imported(client, admin, file)
    assert counts(again) == (0, 0, 2, 0, 0)


async def test_lines_change_the_products_that_have_their_keys(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    await emptied(db)
    await imported(client, admin, "name,sku,ean,price,currency,unit\nOne,S1,4006381333931,1,EUR,kg\nTwo,S2,,2,EUR,kg\n")
    prices = "sku;precio\ns1;3,00\ns2;2,00\n"
    assert counts(await imported(client, admin, prices, onConflict="SKIP")) == (0, 0, 0, 2, 0)
    refused = await imported(client, admin, prices, onConflict="FAIL")
    assert (refused["imported"], counts(refused)) == (False, (0, 0, 0, 0, 2))
    assert counts(await imported(client, admin, prices)) == (0, 1, 1, 0, 0)
    one, two = await stored(db)
    assert (one["price"], one["unit"], one["ean"], two["price"]) == (3, "kg", "4006381333931", 2)
    await imported(client, admin, "ean,unit\n4006381333931,\n")
    assert (await stored(db))[0]["unit"] is None


async def test_a_file_with_an_error_changes_nothing_and_says_where(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    await emptied(db)
    await imported(client, admin, "name,sku,ean\nOne,S1,\nTwo,S2,4006381333931\n")
    before = await stored(db)
    lines = [
        "name,sku,ean,price,currency,active,attributes",
        "Good,G1,,1.5,EUR,yes,",
        ",G2,,1,EUR,,",
        "Bad price,G3,,1.x,EUR,,",
        "No currency,G4,,1,,,",
        '"Two\nlines",G5,,,,,',
        "Check digit,G6,4006381333932,,,,",
        "Twice,g1,,,,,",
        "Two products,S1,4006381333931,,,,",
        "Boolean,G7,,,,perhaps,",
        "JSON,G8,,,,,{",
        'NUL,G9,,,,,"{""a"": ""\\u0000""}"',
        "Too many,G10,,,,,,,x",
        "Negative,G11,,-1,EUR,,",
    ]
    result = await imported(client, admin, "\n".join(lines))
    assert [(error["line"], error["path"]) for error in result["errors"]] == [
        (3, ["name"]),
        (4, ["price"]),
        (6, ["name"]),
        (8, ["ean"]),
        (9, ["sku"]),
        (11, ["active"]),
        (12, ["attributes"]),
        (13, ["attributes"]),
        (14, []),
        (15, ["price"]),
        (5, ["currency"]),
        (10, []),
    ]
    assert (result["imported"], result["errorCount"]) == (False, 12)
    assert await stored(db) == before


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("", {}),
        ("colour,size\nred,1\n", {}),
        ("name,nombre\na,b\n", {}),
        ('name,price,currency\na,1.5,EUR\nb,"1,5",EUR\n', {}),
        (b"\x00\x01\x02", {}),
        ("name\n" + "x\n" * 50_001, {}),
    ],
)
async def test_what_is_no_file_of_products_is_refused(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, content: bytes | str, options: dict[str, Any]
) -> None:
    before = await stored(db)
    with pytest.raises(GraphQLFailure) as caught:
        await imported(client, admin, content, **options)
    assert caught.value.code in ("VALIDATION_ERROR", "PAYLOAD_TOO_LARGE")
    assert await stored(db) == before


async def test_only_administrators_import_and_export(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    person, before = await new_user(client), await stored(db)
    with pytest.raises(GraphQLFailure) as caught:
        await imported(client, person, "name\nMine\n")
    assert caught.value.code == "FORBIDDEN"
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(EXPORT, {"input": {}}, token=person.token)
    assert caught.value.code == "FORBIDDEN"
    assert await stored(db) == before
    link = (await client.run(EXPORT, {"input": {}}, token=admin.token))["exportProducts"]["url"]
    assert (await client.http.get(link.replace("signature=", "signature=0"))).status_code == 403
    assert (await client.http.get(link.replace("/exports/products/", "/exports/products/x"))).status_code == 403


async def test_stock_that_is_adjusted_meanwhile_is_not_overwritten(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    sku = secrets.token_hex(6)
    await imported(client, admin, f"name,sku,stock\nCounted,{sku},100\n")
    product = encode_id(Prefix.PRODUCT, await db.fetchval("SELECT id FROM products WHERE sku_key = $1", sku))
    adjust = {"input": {"id": product, "by": "-1"}}
    # Four forms are what one user may send at once.
    await asyncio.gather(
        *(
            imported(client, admin, f"sku,price,currency\n{sku},{price},EUR\n") for price in range(4)
        ),  # what one user may send at once
        *(client.run(ADJUST, adjust, token=admin.token) for _ in range(24)),
    )
    assert await db.fetchval("SELECT stock FROM products WHERE sku_key = $1", sku) == 76


async def test_a_repeated_import_with_its_key_answers_as_before(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection
) -> None:
    key = secrets.token_hex(8)
    file = f"name,stock\nOnce {key},1\n"
    first = await imported(client, admin, file, idempotencyKey=key)
    assert await imported(client, admin, file, idempotencyKey=key) == first
    assert await db.fetchval("SELECT count(*) FROM products WHERE name = $1", f"Once {key}") == 1
    with pytest.raises(GraphQLFailure) as caught:
        await imported(client, admin, file + "Other,2\n", idempotencyKey=key)
    assert caught.value.code == "CONFLICT"
    await asyncio.gather(*(imported(client, admin, f"name,sku\nRaced,{key}\n") for _ in range(4)))
    assert await db.fetchval("SELECT count(*) FROM products WHERE sku_key = $1", key) == 1


async def test_a_catalogue_comes_back_as_it_went(client: GraphQLClient, admin: Person, db: asyncpg.Connection) -> None:
    await emptied(db)
    odd = [
        {"name": "=1+1", "sku": "@S", "description": '-a\nb;"c",\t\'=d', "price": "0.0001", "currency": "EUR"},
        {"name": "'=quoted", "category": "+x", "attributes": {"a": ["=1", 2.5], "b": {"c": None}}, "stock": "1.234"},
        {"name": "Plain", "isActive": False, "ean": "96385074", "unit": "kg", "stock": 0},
    ]
    for product in odd:
        await client.run(CREATE, {"input": product}, token=admin.token)
    await imported(client, admin, "name\n" + "".join(f"Many {number}\n" for number in range(1_100)))
    before = await stored(db)
    assert len(before) == 1_103
    rows = await exported(client, admin)
    assert [row["name"] for row in rows[:3]] == ["'=1+1", "''=quoted", "Plain"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row.values())
    assert len(await exported(client, admin, search="many", filter={"isActive": True})) == 1_100
    assert [row["name"] for row in await exported(client, admin, filter={"isActive": False})] == ["Plain"]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    assert counts(await imported(client, admin, text.getvalue())) == (0, 0, 1_103, 0, 0)
    await emptied(db)
    assert counts(await imported(client, admin, text.getvalue())) == (1_103, 0, 0, 0, 0)
    assert await stored(db) == before


# -- the format by itself

_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" =+-@'\",")
)
_PRODUCTS = st.fixed_dictionaries(
    {
        "name": _TEXT.filter(lambda text: 1 <= len(text.strip()) <= 60),
        "slug": st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,8}){0,2}", fullmatch=True),
        "description": _TEXT.map(lambda text: text.replace(",", "\n")),
        "sku": st.none() | _TEXT.filter(lambda text: 1 <= len(product_keys.sku_key(text)) <= 20),
        "ean": st.sampled_from([None, "4006381333931", "96385074"]),
        "price": st.none() | st.decimals("0", "9999999999.9999", places=4),
        "currency": st.just("EUR"),
        "unit": st.none() | st.just("kg"),
        "stock": st.none() | st.decimals("0", "99999999.999", places=3),
        "category": st.none() | _TEXT.filter(lambda text: 1 <= len(text.strip()) <= 20),
        "attributes": st.dictionaries(
            st.text("abc", min_size=1, max_size=3),
            st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT | st.lists(_TEXT, max_size=2),
            max_size=3,
        ),
        "is_active": st.booleans(),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.lists(_PRODUCTS, min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, drafts: list[dict[str, Any]]) -> None:
    products = [_checked(draft) for draft in drafts]
    path = tmp_path_factory.getbasetemp() / "round.csv"
    path.write_bytes(product_csv.written(products, header=True))
    assert _read(path) == products


def _checked(draft: dict[str, Any]) -> dict[str, Any]:
    if draft["price"] is None:
        draft = {**draft, "currency": None}
    return {**product_queries.EMPTY, **product_rules.checked(draft)}


def _read(path: Path) -> Sequence[dict[str, Any]]:
    shape = product_csv.shape_of(path, delimiter=CsvDelimiter.AUTO, decimal_mark=DecimalMark.AUTO)
    return [
        {**product_queries.EMPTY, **product_rules.checked(product_csv.columns_of(line, shape), path=())}
        for line in product_csv.lines_of(path, shape)
    ]


@pytest.mark.parametrize(
    ("cells", "semicolons", "numbers"),
    [
        (["1.234,56", "2"], True, ["1234.56", "2"]),
        (["1,234.56", "2"], True, ["1234.56", "2"]),
        (["1.234", "2,5"], True, ["1234", "2.5"]),
        (["1.234"], True, ["1234"]),
        (["1.234"], False, ["1.234"]),
        (["0,500"], False, ["0.5"]),
        (["1.234.567"], False, ["1234567"]),
        (["1 234,5"], True, ["1234.5"]),
        (["12"], True, ["12"]),
    ],
)
def test_the_mark_of_fractions_is_found(tmp_path: Path, cells: list[str], semicolons: bool, numbers: list[str]) -> None:
    path = tmp_path / "prices.csv"
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=";" if semicolons else ",").writerows(
            [["name", "price"], *(["x", c] for c in cells)]
        )
    assert [product["price"] for product in _read(path)] == [Decimal(number) for number in numbers]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("4006381333931", "4006381333931"),
        ("036000291452", "0036000291452"),
        ("00036000291452", "0036000291452"),
        ("10614141000415", "10614141000415"),
        ("9638-5074", "96385074"),
        ("4006381333932", None),
        ("1234567", None),
        ("40063813339310", None),
    ],
)
def test_check_digits_of_article_numbers(text: str, key: str | None) -> None:
    assert product_keys.ean_key(text) == key
