"""Searches of 100,000 products through the API, against the statement of the page alone on a connection of its own.

Each search is asked several times, all in turn; what counts is the 95th percentile over all of them, and for how much
of it the bare SQL stands.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import asyncpg

from models import database, product_search
from models.database import SERVER_SETTINGS
from models.product_search import ProductConditions, ProductOrderField
from tests.bench.place import place
from tests.harness import catalogue

PRODUCTS: Final = 100_000
ROUNDS: Final = 12
PAGE: Final = 20
DOCUMENT: Final = """query ($search: String) { products(search: $search, first: 20) {
    edges { cursor node { id name slug sku price currency stock inStock category } } pageInfo { hasNextPage } } }"""
SEARCHES: Final = (
    "cafetera",
    "Cafetera italiana",
    "cafetra italana",
    "camisetas algodón",
    "CAT-0012345",
    "mochila impermeable cuero",
    "caf",
    "steel knife",
    "acero inoxidable",
    "teclado inalámbrico de aluminio",
    "hedphones wireles",
    "zapatila",
    "wireless headphones for leather",
    "nothing of the kind",
)
"""What people type: words in two languages, beginnings, plurals, typing errors, a number, and what is not there."""


async def main() -> None:
    """Print the median and the 95th percentile of both, and the ratio."""
    async with place() as here:
        began = time.monotonic()
        await catalogue.fill(here.db, PRODUCTS)
        print(f"{PRODUCTS:,} products in {time.monotonic() - began:.1f} s")
        bare = await asyncpg.connect(here.environment["DATABASE_URL"], server_settings=SERVER_SETTINGS)

        async def rows(sql: str, *values: Any) -> list[dict[str, Any]]:
            return [dict(row) for row in await bare.fetch(sql, *values)]

        in_house, database.rows = database.rows, rows
        try:
            times: dict[str, list[float]] = {"API": [], "bare SQL": []}
            for round_ in range(ROUNDS + 1):
                for search in SEARCHES:
                    through_api = await _timed(here.client.run, DOCUMENT, {"search": search})
                    alone = await _timed(_page, search)
                    if round_:  # the first one warms up
                        times["API"].append(through_api)
                        times["bare SQL"].append(alone)
        finally:
            database.rows = in_house
            await bare.close()
    percentiles = {name: statistics.quantiles(values, n=20)[-1] for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:9} median {statistics.median(values) * 1e3:6.1f} ms  p95 {percentiles[name] * 1e3:6.1f} ms")
    print(f"ratio of p95 to bare SQL: {percentiles['API'] / percentiles['bare SQL']:.2f}")


async def _page(search: str) -> None:
    await product_search.page(
        ProductConditions(search=search, is_active=True),
        order=ProductOrderField.RELEVANCE,
        descending=True,
        limit=PAGE + 1,
    )


async def _timed(ask: Callable[..., Awaitable[object]], *arguments: Any) -> float:
    began = time.perf_counter()
    await ask(*arguments)
    return time.perf_counter() - began
