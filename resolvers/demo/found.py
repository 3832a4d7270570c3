"""What runs of the demo made of their items: properties with their history, and products of an empty catalogue.

Each run is taken in as `models/property_ledger.py` and `models/product_ledger.py` take in a real one, at the moment at
which it happened. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from models import product_keys, product_queries
from models.demo import DEMO_USER_ID
from models.ids import id_at
from models.products import PriceSource
from resolvers.demo.crawls import Run
from tasks.crawl.found_products import product_of
from tasks.crawl.found_properties import property_of

CURRENCY = "GBP"
"""The sign beside the prices of the shop says so."""

_Row = dict[str, Any]


def property_rows(runs: Sequence[Run]) -> tuple[list[_Row], list[_Row]]:
    """Rows of `properties` and of `property_prices`, of runs in the order of time."""
    listings: dict[tuple[str, str], _Row] = {}
    prices: list[_Row] = []
    for run in runs:
        seen = set()
        for at, _, url, data in run.items():
            said = property_of(data, url)
            if said is None:
                continue
            listing = (said["source"], said["source_id"])
            seen.add(listing)
            before = listings.get(listing)
            if before is None:
                before = listings[listing] = {
                    "id": id_at(at),
                    "owner_id": DEMO_USER_ID,
                    "first_seen_at": at,
                    "last_changed_at": at,
                    "price_changed_at": at,
                    "price_id": _new_price(prices, None, said, at, run),
                }
                prices[-1]["property_id"] = before["id"]
            elif any(before[name] != value for name, value in said.items()):
                before["last_changed_at"] = at
                if (before["price"], before["currency"]) != (said["price"], said["currency"]):
                    before["price_id"] = _new_price(prices, before["id"], said, at, run)
                    before["price_changed_at"] = at
            before |= said | {
                "job_id": run.job_id,
                "dataset_id": run.ended.id,
                "run_id": run.ended.id,
                "last_seen_at": at,
                "gone_at": None,
            }
            listings[listing] = before
        if run.is_complete:
            for listing, row in listings.items():
                if listing not in seen and row["gone_at"] is None:
                    row["gone_at"] = run.ended.finished_at
    return list(listings.values()), prices


def product_rows(runs: Sequence[Run]) -> tuple[list[_Row], list[_Row], list[_Row]]:
    """Rows of `products`, `product_prices` and `product_sources`, of runs in the order of time."""
    products: dict[str, _Row] = {}
    sources: dict[str, _Row] = {}
    prices: list[_Row] = []
    for run in runs:
        for at, _, url, data in run.items():
            found = product_of(data, url, {**run.job.input, "currency": CURRENCY})
            if found is None:
                continue
            product, source = products.get(found.source_id), sources.get(found.source_id)
            if product is None or source is None:
                product = products[found.source_id] = {
                    **product_queries.EMPTY,
                    "id": id_at(at),
                    "name": found.name,
                    "slug": product_keys.slug_of(found.name),
                    "category": data["tags"][-1].capitalize(),
                    "version": 0,
                    "created_at": at,
                }
                source = sources[found.source_id] = {
                    "id": id_at(at),
                    "product_id": product["id"],
                    "source": found.source,
                    "source_id": found.source_id,
                    "first_seen_at": at,
                }
            if product["price"] != found.price:
                product |= {"price": found.price, "currency": found.currency, "version": product["version"] + 1}
                product["updated_at"] = at
                prices.append(
                    {
                        "id": id_at(at),
                        "product_id": product["id"],
                        "price": found.price,
                        "currency": found.currency,
                        "source": PriceSource.CRAWL.value,
                        "changed_at": at,
                    }
                )
            product["stock"] = data["inStock"] or 0
            source |= {
                "job_id": run.job_id,
                "dataset_id": run.ended.id,
                "run_id": run.ended.id,
                "url": found.url,
                "price": found.price,
                "currency": found.currency,
                "last_seen_at": at,
            }
            products[found.source_id], sources[found.source_id] = product, source
    return list(products.values()), prices, list(sources.values())


def _new_price(prices: list[_Row], property_id: UUID | None, said: Mapping[str, Any], at: datetime, run: Run) -> UUID:
    price_id = id_at(at)
    prices.append(
        {
            "id": price_id,
            "property_id": property_id,
            "price": said["price"],
            "currency": said["currency"],
            "seen_at": at,
            "run_id": run.ended.id,
        }
    )
    return price_id
