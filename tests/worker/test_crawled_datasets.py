"""Listings that are crawled again and again: what was seen, what it asked, what is gone, whoever dies on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from models.ids import Prefix, encode_id
from resolvers import runs
from tests.conftest import WorkerFactory
from tests.sites.sacramento import SacramentoSite
from tests.sites.server import Answer, Asked, SiteServer
from tests.worker.crawl_rows import Crawls, listings_input, new_crawls, open_crawls

SETTINGS = {
    "CRAWL_START_DELAY_SECONDS": "0.01",
    "CRAWL_TARGET_CONCURRENCY": "8",
    "WORKER_CRAWL_SLOTS": "2",
}
LATER = frozenset({58, 59, 60})
"""Homes that come on the second visit."""
SOLD = frozenset({10, 20})
DEARER = {1: "99999", 2: "100500"}


@pytest_asyncio.fixture(scope="module")
async def pool(settings_env: dict[str, str]) -> AsyncIterator[asyncpg.Pool]:
    async with open_crawls(settings_env) as pool:
        yield pool


@pytest_asyncio.fixture
async def crawls(pool: asyncpg.Pool) -> Crawls:
    return await new_crawls(pool)


@pytest.fixture
def homes() -> SacramentoSite:
    return SacramentoSite(count=60)


@pytest.fixture
def site(homes: SacramentoSite) -> Iterator[SiteServer]:
    with SiteServer(homes) as server:
        yield server


async def run_again(crawls: Crawls, run: UUID, **limits: int) -> UUID:
    """Another run of the run's job."""
    job = encode_id(Prefix.JOB, (await crawls.row(run))["job_id"])
    return await runs.run(crawls.actor, job, limits=limits or None, idempotency_key=None)


async def listed(crawls: Crawls) -> dict[int, asyncpg.Record]:
    """The owner's properties by their number."""
    rows = await crawls.db.fetch("SELECT * FROM properties WHERE owner_id = $1", crawls.actor.user_id)
    return {int(row["source_id"].removeprefix("SAC-")): row for row in rows}


async def histories(crawls: Crawls) -> dict[int, list[str]]:
    """What each property asked, oldest first."""
    rows = await crawls.db.fetch(
        """SELECT source_id, array_agg(trim_scale(h.price)::text ORDER BY h.seen_at, h.id) AS prices
           FROM properties p JOIN property_prices h ON h.property_id = p.id WHERE owner_id = $1 GROUP BY p.id""",
        crawls.actor.user_id,
    )
    return {int(row["source_id"].removeprefix("SAC-")): row["prices"] for row in rows}


def gone(found: Mapping[int, asyncpg.Record]) -> set[int]:
    return {number for number, row in found.items() if row["gone_at"] is not None}


@pytest.mark.slow
async def test_a_site_that_changes_is_followed_listing_by_listing(
    crawls: Crawls, worker_factory: WorkerFactory, homes: SacramentoSite, site: SiteServer
) -> None:
    homes.change(gone=LATER)
    worker = worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    first = await crawls.start(listings_input(site))
    row = await crawls.ended(first)
    found = await listed(crawls)
    assert found.keys() == set(range(1, 61)) - LATER
    for item in homes.expected(site.url):
        check_row(found[int(item["sourceId"].removeprefix("SAC-"))], item, first, row["job_id"], site)
    assert all(len(prices) == 1 for prices in (await histories(crawls)).values())

    homes.change(gone=SOLD, prices=DEARER)
    at = site.hits.total()
    site.hold_after(at + 30)
    second = await run_again(crawls, first)
    await crawls.until_items(second, 10)
    worker.kill()
    site.release()
    worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
    assert (await crawls.ended(second))["attempt"] == 2
    before, found = found, await listed(crawls)
    assert found.keys() == set(range(1, 61))
    assert gone(found) == SOLD
    history = await histories(crawls)
    assert {number: prices for number, prices in history.items() if len(prices) > 1} == {
        number: [own_price(number), price] for number, price in DEARER.items()
    }
    for number, old in before.items():
        new = found[number]
        assert (new["id"], new["first_seen_at"]) == (old["id"], old["first_seen_at"])
        assert (new["last_seen_at"] > old["last_seen_at"]) == (number not in SOLD)
        assert (new["last_changed_at"] > old["last_changed_at"]) == (number in DEARER)
        assert (new["price_changed_at"] > new["first_seen_at"]) == (number in DEARER)
        assert new["run_id"] == (first if number in SOLD else second)

    # A run that a limit ended has not seen everything, so it says nothing of what it did not see.
    homes.change(gone=SOLD | {30}, prices=DEARER)
    partial = await run_again(crawls, first, maxPages=8)
    assert (await crawls.ended(partial))["close_reason"] == "PAGE_LIMIT"
    assert gone(await listed(crawls)) == SOLD

    homes.change(gone={20}, prices=DEARER)
    third = await run_again(crawls, first)
    await crawls.ended(third)
    found = await listed(crawls)
    assert gone(found) == {20}
    assert (found[10]["run_id"], found[10]["last_changed_at"]) == (third, before[10]["last_changed_at"])
    assert await histories(crawls) == history


def own_price(number: int) -> str:
    return SacramentoSite(count=60).homes[number - 1].price


def check_row(row: asyncpg.Record, item: dict[str, Any], run: UUID, job: UUID, site: SiteServer) -> None:
    """The row says what the item says."""
    address = item["address"]
    expected = {
        "source": site.allowed_host,
        "source_id": item["sourceId"],
        "url": item["url"],
        "title": item["title"],
        "currency": "USD",
        "area_unit": "SQUARE_FEET",
        "bedrooms": item["bedrooms"],
        "bathrooms": item["bathrooms"],
        "property_type": item["propertyType"],
        "city": address["city"],
        "postal_code": address["postalCode"],
        "latitude": item["latitude"],
        "longitude": item["longitude"],
        "description": item["description"],
        "date_posted": item["datePosted"],
        "gone_at": None,
        "run_id": run,
        "dataset_id": run,
        "job_id": job,
    }
    assert {name: row[name] for name in expected} == expected
    assert str(row["price"].normalize()) == str(type(row["price"])(item["price"]).normalize())
    assert row["square_metres"] == row["area"] * type(row["area"])("0.09290304")


# -- products


class Shop:
    """A list of things with prices, some with numbers."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, str]] = {}

    def __call__(self, asked: Asked) -> Answer:
        if asked.target == "/robots.txt":
            return Answer(status=404)
        if asked.target == "/shop":
            return Answer("".join(f'<a href="/thing/{key}">x</a>' for key in self.things))
        fields = self.things.get(asked.target.removeprefix("/thing/"))
        if fields is None:
            return Answer(status=404)
        return Answer("".join(f'<p class="{name}">{text}</p>' for name, text in fields.items()))


@pytest.mark.slow
async def test_what_a_shop_sells_becomes_products_with_what_they_cost(
    crawls: Crawls, worker_factory: WorkerFactory
) -> None:
    db = crawls.db
    shop = Shop()
    shop.things = {
        "kettle": {"name": "Kettle", "price": "19.90 €", "ean": "4006381333931"},
        "pan": {"name": "Pan", "price": "£ 7.50", "sku": "PAN-1"},
        "lid": {"name": "Lid", "price": "call us"},
        "none": {"price": "1 €"},
    }
    await db.execute("UPDATE users SET role = 'ADMIN' WHERE id = $1", crawls.actor.user_id)
    await db.execute(
        """INSERT INTO products (id, name, slug, sku, sku_key, description, price, currency, attributes, is_active,
               version, created_at, updated_at)
           VALUES (gen_random_uuid(), 'Our pan', 'our-pan', 'pan-1', 'pan-1', 'Ours.', 6, 'GBP', '{}', true, 1, now(),
               now())"""
    )
    fields = [{"name": name, "css": f".{name}"} for name in ("name", "price", "ean", "sku")]
    with SiteServer(shop) as site:
        worker_factory(CRAWL_ALLOWED_HOSTS=site.allowed_host)
        spider_input = {"startUrls": [f"{site.url}/shop"], "detailLinks": {"css": "a"}, "fields": fields}
        # The job is made by the harness, which knows nothing of products.
        await db.execute("ALTER TABLE jobs ALTER saves_products SET DEFAULT true")
        first = await crawls.start(spider_input, spider="catalogue")
        await db.execute("ALTER TABLE jobs ALTER saves_products SET DEFAULT false")
        row = await crawls.ended(first)
        assert (row["items_scraped"], row["items_skipped"], row["saves_products"]) == (4, 1, True)
        assert await products(db) == {
            "kettle": ("Kettle", "19.9", "EUR", 2),
            "our-pan": ("Our pan", "7.5", "GBP", 2),
            "lid": ("Lid", None, None, 1),
        }

        # The price that somebody set stays while the site says what it said; a product that was deleted stays away.
        await db.execute("UPDATE products SET price = 5, description = 'Mine.' WHERE slug IN ('our-pan', 'kettle')")
        await db.execute("DELETE FROM products WHERE slug = 'lid'")
        shop.things["kettle"]["price"] = "21 €"
        shop.things["spoon"] = {"name": "Spoon", "price": "3 €"}
        second = await run_again(crawls, first)
        await crawls.ended(second)
        assert await products(db) == {
            "kettle": ("Kettle", "21", "EUR", 3),
            "our-pan": ("Our pan", "5", "GBP", 2),
            "spoon": ("Spoon", "3", "EUR", 2),
        }
        assert await db.fetchval("SELECT count(*) FROM products WHERE description = 'Mine.'") == 2
        history = await db.fetch("SELECT trim_scale(price)::text, source FROM product_prices ORDER BY id")
        assert [tuple(each) for each in history] == [
            ("19.9", "CRAWL"),
            ("7.5", "CRAWL"),
            ("21", "CRAWL"),
            ("3", "CRAWL"),
        ]

        del shop.things["spoon"]
        await db.execute("UPDATE users SET role = 'USER' WHERE id = $1", crawls.actor.user_id)
        shop.things["kettle"]["price"] = "1 €"
        third = await run_again(crawls, first)
        await crawls.ended(third)
        assert (await products(db))["kettle"] == ("Kettle", "21", "EUR", 3)
        assert any("may not change products any more" in message for message in await crawls.messages(third))
        await db.execute("UPDATE users SET role = 'ADMIN' WHERE id = $1", crawls.actor.user_id)
        await crawls.ended(await run_again(crawls, first))
        sources = await db.fetch("SELECT url, product_id IS NULL, gone_at IS NULL FROM product_sources ORDER BY url")
        assert [(row[0].rpartition("/")[2], row[1], row[2]) for row in sources] == [
            ("kettle", False, True),
            ("lid", True, True),
            ("pan", False, True),
            ("spoon", False, False),
        ]
        assert (await products(db))["kettle"] == ("Kettle", "1", "EUR", 4)


async def products(db: asyncpg.Pool) -> dict[str, tuple[Any, ...]]:
    """Name, price, currency and version of all products, by slug."""
    rows = await db.fetch("SELECT slug, name, trim_scale(price)::text, currency, version FROM products")
    return {row[0]: tuple(row)[1:] for row in rows}
