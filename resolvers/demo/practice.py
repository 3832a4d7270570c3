"""What a crawl of the practice site brings home, today and weeks ago: pages, their sizes, and the items on them.

Today's pages are those that the practice site serves, so a real run after the demo finds what its history ends with.
Before that some prices were others, some homes were not there yet, and some that were are gone. Pure, and the same for
everybody.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from typing import Any, Final
from urllib.parse import quote, urlencode

from tasks.crawl import practice_reading, practice_site
from tasks.crawl.practice_site import PAGE_SIZE, Home, Product

BASE: Final = f"http://127.0.0.1:{practice_site.DEFAULT_PORT}"
HOST: Final = "127.0.0.1"
ROBOTS_BYTES: Final = len(str(practice_site.answer("/robots.txt")[2]))
_SEED: Final = 55


@dataclass(frozen=True, slots=True)
class Found:
    """A page that was read: its address, its size, links that were new, and its items."""

    url: str
    bytes: int
    links: int
    items: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, slots=True)
class _Shown:
    """A home and for how long it was offered: from so many days ago to so many."""

    home: Home
    first: float
    last: float = -1.0


def shop(days_ago: float) -> list[Found]:
    """The catalogue spider's way: lists, and the page behind each link."""
    pages = _lists("shop", len(practice_site.products()))
    return [*pages, *(_shop_page(product, days_ago, with_details=True) for product in practice_site.products())]


def sitemap(days_ago: float) -> list[Found]:
    """The sitemap spider's way to the same things."""
    count = len(practice_site.products())
    ways = [("/sitemap.xml", 3), ("/sitemaps/shop.xml.gz", count), ("/sitemaps/homes.xml", 0)]
    pages = [Found(f"{BASE}{path}", _size(path), links) for path, links in [*ways, ("/sitemaps/articles.xml", 0)]]
    return [*pages, *(_shop_page(product, days_ago, with_details=False) for product in practice_site.products())]


def homes(days_ago: float) -> list[Found]:
    """The property spider's way."""
    shown = [each.home for each in _offers() if each.last < days_ago <= each.first]
    pages = _lists("homes", len(shown))
    return [*pages, *(_home_page(home, days_ago) for home in shown)]


def people(_days_ago: float) -> list[Found]:
    """The directory spider's way: two states, from M on."""
    pages = []
    for state in ("Northmark", "Westvale"):
        register = [person for person in practice_reading.people() if person.state == state]
        size = practice_reading.PEOPLE_PER_PAGE
        count = -(-len(register) // size)
        for number in range(1, count + 1):
            query = urlencode({"state": state} | ({"page": number} if number > 1 else {}), quote_via=quote)
            url = f"{BASE}/people?{query}"
            entries = [
                {"url": url, "name": person.name, "state": state, "town": person.town, "trade": person.trade,
                 "since": person.since}
                for person in register[(number - 1) * size : number * size]
                if person.name >= "M"
            ]  # fmt: skip
            pages.append(Found(url, _size(f"/people?{query}"), int(number < count), entries))
    return pages


def articles(_days_ago: float) -> list[Found]:
    """The articles spider's way."""
    pages = [Found(f"{BASE}/articles", _size("/articles"), len(practice_reading.ARTICLES))]
    for article in practice_reading.ARTICLES:
        url, text = f"{BASE}/articles/{article.slug}", "\n".join(article.paragraphs)
        item = {
            "url": url,
            "canonicalUrl": url,
            "title": article.title,
            "author": article.author,
            "date": article.date,
            "dateModified": None,
            "language": "en",
            "siteName": "The Practice Post",
            "description": None,
            "text": text,
            "characters": len(text),
            "images": [],
            "tags": list(article.tags),
        }
        pages.append(Found(url, _size(f"/articles/{article.slug}"), 0, [item]))
    return pages


WAYS: Final[Mapping[str, Callable[[float], list[Found]]]] = {
    "catalogue": shop,
    "property_listings": homes,
    "directory_search": people,
    "sitemap": sitemap,
    "articles": articles,
}
"""By the name of the spider."""


def price_of(product: Product, days_ago: float) -> Decimal:
    """What something in the shop cost."""
    price = product.price
    for since, percent in _price_changes(product.slug):
        if days_ago > since:
            price = (price * (100 + percent) / 100).quantize(Decimal("0.01"))
    return price


@cache
def _price_changes(name: str) -> tuple[tuple[int, int], ...]:
    """Days ago, and by how many percent it cost more before that, the latest first."""
    chance = random.Random(f"{_SEED}:{name}")  # noqa: S311 - the same story for everybody, not a secret
    days = sorted(chance.sample(range(2, 50), chance.choice((0, 0, 0, 1, 1, 2))))
    return tuple((day, chance.choice((-12, -8, -5, 5, 8, 10, 15))) for day in days)


@cache
def _offers() -> tuple[_Shown, ...]:
    """The homes of today, the last two of them new, and three that were sold."""
    today = practice_site.homes()
    still = [_Shown(home, {23: 12.0, 24: 5.0}.get(home.number, 10_000.0)) for home in today]
    sold = [
        _Shown(replace(like, number=number, price=like.price + 17_000, street=street), 10_000.0, last)
        for like, number, street, last in (
            (today[3], 25, "3 Harbour Row", 38.0),
            (today[10], 26, "61 Orchard Street", 21.0),
            (today[17], 27, "14 Castle Hill", 9.0),
        )
    ]
    return (*still, *sold)


def _lists(path: str, count: int) -> list[Found]:
    last = -(-count // PAGE_SIZE)
    pages = []
    for number in range(1, last + 1):
        target = f"/{path}" if number == 1 else f"/{path}?page={number}"
        shown = min(PAGE_SIZE, count - (number - 1) * PAGE_SIZE)
        pages.append(Found(f"{BASE}{target}", _size(target), shown + int(number < last)))
    return pages


def _shop_page(product: Product, days_ago: float, *, with_details: bool) -> Found:
    url, price = f"{BASE}/shop/{product.slug}", str(price_of(product, days_ago))
    if with_details:
        stock = product.in_stock + (int(days_ago) * 7 % 11 if days_ago >= 1 else 0)
        item = {"url": url, "name": product.name, "price": price, "inStock": stock or None, "tags": list(product.tags)}
    else:
        item = {"url": url, "name": product.name, "price": price, "lastmod": None}
    return Found(url, _size(f"/shop/{product.slug}"), 0, [item])


def _home_page(home: Home, days_ago: float) -> Found:
    url = f"{BASE}/homes/{home.number}"
    price = Decimal(home.price)
    for since, percent in _price_changes(f"home-{home.number}"):
        if days_ago > since:
            price = (price * (100 + abs(percent)) / 100).quantize(Decimal("1E3"))
    item = {
        "url": url,
        "sourceId": f"home-{home.number}",
        "title": home.title,
        "price": str(int(price)),
        "currency": "GBP",
        "area": float(home.square_metres),
        "areaUnit": "SQUARE_METRES",
        "bedrooms": home.bedrooms,
        "bathrooms": None,
        "propertyType": home.kind,
        "address": {"street": home.street, "city": home.town, "region": None, "postalCode": None, "country": "GB"},
        "latitude": home.latitude,
        "longitude": home.longitude,
        "description": None,
        "images": [],
        "datePosted": None,
    }
    return Found(url, _size(f"/homes/{home.number}"), 0, [item])


@cache
def _size(target: str) -> int:
    body = practice_site.answer(target)[2]
    return len(body if isinstance(body, bytes) else body.encode())
