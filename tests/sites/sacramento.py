"""A listing site made of 932 real home sales, with the awkward corners of real sites, and what a crawl must bring home.

Pages: `/homes?page=N` lists twenty each; `/homes/N` is one listing, with JSON-LD if N is odd and microdata if even;
`/sitemap.xml`, `/robots.txt`, `/directory?state=CA&start=M` lists by first letter of the city.

Corners: every listing is linked more than once; three listings answer 429 with Retry-After the first time; one takes
1.5 s; the lists also link to a page that robots.txt disallows, to one that redirects to a metadata address, to a
redirect loop, to a page that redirects to a listing, to another site and to a page that is gone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.sites.server import Answer, Asked

CSV_FILE = Path(__file__).parents[1] / "data" / "sacramento_home_sales.csv"
PAGE_SIZE = 20
STATE = "CA"

THROTTLED = frozenset({7, 8, 407})
SLOW = 250
SLOW_SECONDS = 1.5
METADATA_ADDRESS = "http://169.254.169.254/latest/meta-data/"

ROBOTS = "/homes/private/1"
METADATA = "/homes/metadata"
LOOP = "/homes/loop-a"
MOVED = "/homes/moved-to-12"
GONE = "/homes/gone"
ELSEWHERE = "http://elsewhere.test/homes/1"

PROPERTY_INPUT_PATTERN = "/homes/[^/?]+(/1)?$"
"""Which links of the lists lead to listings: the awkward ones too."""


@dataclass(frozen=True)
class Home:
    """One row of the data."""

    number: int
    city: str
    zip: str
    beds: int
    baths: str
    square_feet: int
    kind: str
    price: str
    latitude: str
    longitude: str

    @property
    def title(self) -> str:
        """As on its page."""
        return f"{self.beds}-bedroom {self.kind.replace('_', '-').lower()} in {self.city.title()}"

    def item(self, base: str) -> dict[str, Any]:
        """What the property spider must make of its page."""
        return {
            "url": f"{base}/homes/{self.number}",
            "sourceId": f"SAC-{self.number}",
            "title": self.title,
            "price": self.price,
            "currency": "USD",
            "area": float(self.square_feet),
            "areaUnit": "SQUARE_FEET",
            "bedrooms": self.beds,
            "bathrooms": _plain(float(self.baths)),
            "propertyType": self.kind,
            "address": {
                "street": None,
                "city": self.city,
                "region": STATE,
                "postalCode": self.zip,
                "country": "US",
            },
            "latitude": float(self.latitude),
            "longitude": float(self.longitude),
            "description": f"{self.title}, {self.square_feet} square feet.",
            "images": [f"{base}/photos/{self.number}.jpg"],
            "datePosted": "2008-05-15",
        }


class SacramentoSite:
    """Callable that answers for the whole site; stateless but for what the server counts and `change`.

    `count` takes only the first so many homes, for tests that need no more.
    """

    def __init__(self, *, count: int | None = None) -> None:
        self._count = count
        self.homes = list(self._all)

    def change(self, *, gone: Collection[int] = (), prices: Mapping[int, str] | None = None) -> None:
        """From now on show all homes but those that are gone, at these prices or else their own."""
        changed = prices or {}
        self.homes = [
            replace(home, price=changed.get(home.number, home.price)) for home in self._all if home.number not in gone
        ]

    @cached_property
    def _all(self) -> list[Home]:
        """All 932, numbered from 1."""
        with CSV_FILE.open(newline="") as file:
            rows = list(csv.DictReader(file))[: self._count]
        return [
            Home(
                number,
                row["city"],
                row["zip"].removeprefix("z"),
                int(row["beds"]),
                row["baths"],
                int(row["sqft"]),
                row["type"],
                row["price"],
                row["latitude"],
                row["longitude"],
            )
            for number, row in enumerate(rows, start=1)
        ]

    @property
    def list_pages(self) -> int:
        """How many pages of twenty."""
        return -(-len(self.homes) // PAGE_SIZE)

    def expected(self, base: str) -> list[dict[str, Any]]:
        """Exactly the items of a complete crawl, in order of their numbers."""
        return [home.item(base) for home in self.homes]

    def __call__(self, asked: Asked) -> Answer:
        parts = urlsplit(asked.target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        match parts.path.strip("/").split("/"):
            case ["robots.txt"]:
                return Answer("User-agent: *\nDisallow: /homes/private/\n", headers={"Content-Type": "text/plain"})
            case ["sitemap.xml"]:
                return Answer(self._sitemap(asked.headers["host"]), headers={"Content-Type": "application/xml"})
            case ["homes"]:
                return Answer(self._list(int(query.get("page", "1"))))
            case ["directory"]:
                return Answer(self._directory(query.get("state", ""), query.get("start", "")))
            case ["homes", "metadata"]:
                return Answer(status=302, headers={"Location": METADATA_ADDRESS})
            case ["homes", "loop-a"]:
                return Answer(status=302, headers={"Location": "/homes/loop-b"})
            case ["homes", "loop-b"]:
                return Answer(status=302, headers={"Location": "/homes/loop-a"})
            case ["homes", "moved-to-12"]:
                return Answer(status=301, headers={"Location": "/homes/12"})
            case ["homes", number] if number.isdecimal():
                home = next((home for home in self.homes if home.number == int(number)), None)
                if home is not None:
                    return self._detail(home, asked)
        return Answer(_page("Gone", "<p>No such page.</p>"), status=404)

    def _detail(self, home: Home, asked: Asked) -> Answer:
        if home.number in THROTTLED and asked.earlier == 0:
            return Answer("Slow down.", status=429, headers={"Retry-After": "1"})
        base = f"http://{asked.headers['host']}"
        body = _linked_data(home, base) if home.number % 2 else _microdata(home, base)
        return Answer(_page(home.title, body), delay_seconds=SLOW_SECONDS if home.number == SLOW else 0.0)

    def _list(self, page: int) -> str:
        shown = self.homes[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        links = "".join(
            f'<li><a href="/homes/{home.number}#photos"><img src="/photos/{home.number}.jpg" alt=""></a>'
            f'<a href="/homes/{home.number}">{escape(home.title)}</a></li>'
            for home in shown
        )
        awkward = "".join(
            f'<li><a href="{url}">offer</a></li>' for url in (ROBOTS, METADATA, LOOP, MOVED, GONE, ELSEWHERE)
        )
        featured = "".join(f'<a href="/homes/{number}">featured</a>' for number in (1, 2, 3))
        following = f'<a rel="next" href="?page={page + 1}">next</a>' if page < self.list_pages else ""
        mail = '<a href="mailto:sales@example.com">write</a>'
        return _page(
            f"Homes, page {page}", f"<ul>{links}{awkward if page == 1 else ''}</ul>{featured}{following}{mail}"
        )

    def _directory(self, state: str, start: str) -> str:
        found = [home for home in self.homes if state == STATE and home.city.startswith(start.upper())]
        links = "".join(f'<li><a href="/homes/{home.number}">{escape(home.title)}</a></li>' for home in found)
        return _page(f"Directory {state} {start}", f"<ul>{links}</ul>")

    def _sitemap(self, host: str) -> str:
        entries = "".join(f"<url><loc>http://{host}/homes/{home.number}</loc></url>" for home in self.homes)
        return f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</urlset>'


def _page(title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="en"><head><title>{escape(title)}</title>'
        '<meta property="og:site_name" content="Sacramento Homes"></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )


def _linked_data(home: Home, base: str) -> str:
    data = {
        "@context": "https://schema.org",
        "@type": "RealEstateListing",
        "name": home.title,
        "description": f"{home.title}, {home.square_feet} square feet.",
        "identifier": f"SAC-{home.number}",
        "datePosted": "2008-05-15",
        "image": [f"/photos/{home.number}.jpg"],
        "offers": {"@type": "Offer", "price": home.price, "priceCurrency": "USD"},
        "about": {
            "@type": "House",
            "accommodationCategory": home.kind,
            "numberOfBedrooms": home.beds,
            "numberOfBathroomsTotal": float(home.baths),
            "floorSize": {"@type": "QuantitativeValue", "value": home.square_feet, "unitCode": "FTK"},
            "address": {
                "@type": "PostalAddress",
                "addressLocality": home.city,
                "addressRegion": STATE,
                "postalCode": home.zip,
                "addressCountry": "US",
            },
            "geo": {"@type": "GeoCoordinates", "latitude": home.latitude, "longitude": home.longitude},
        },
    }
    broken = '<script type="application/ld+json">{"@type": "Organization", </script>'
    return f'{broken}<script type="application/ld+json">{json.dumps(data)}</script><p>{base}</p>'


def _microdata(home: Home, base: str) -> str:
    def properties() -> Iterator[str]:
        yield f'<h2 itemprop="name">{escape(home.title)}</h2>'
        yield f'<p itemprop="description">{escape(home.title)}, {home.square_feet} square feet.</p>'
        yield f'<meta itemprop="identifier" content="SAC-{home.number}">'
        yield '<meta itemprop="datePosted" content="2008-05-15">'
        yield f'<img itemprop="image" src="/photos/{home.number}.jpg" alt="">'
        yield (
            '<div itemprop="offers" itemscope itemtype="https://schema.org/Offer">'
            f'<span itemprop="price" content="{home.price}">${int(home.price):,}</span>'
            '<meta itemprop="priceCurrency" content="USD"></div>'
        )
        yield '<div itemprop="about" itemscope itemtype="https://schema.org/House">'
        yield f'<meta itemprop="accommodationCategory" content="{home.kind}">'
        yield f'<b itemprop="numberOfBedrooms">{home.beds}</b><b itemprop="numberOfBathroomsTotal">{home.baths}</b>'
        yield (
            '<div itemprop="floorSize" itemscope itemtype="https://schema.org/QuantitativeValue">'
            f'<span itemprop="value">{home.square_feet}</span><meta itemprop="unitCode" content="FTK"></div>'
        )
        yield (
            '<div itemprop="address" itemscope itemtype="https://schema.org/PostalAddress">'
            f'<span itemprop="addressLocality">{home.city}</span><span itemprop="addressRegion">{STATE}</span>'
            f'<span itemprop="postalCode">{home.zip}</span><span itemprop="addressCountry">US</span></div>'
        )
        yield (
            '<div itemprop="geo" itemscope itemtype="https://schema.org/GeoCoordinates">'
            f'<meta itemprop="latitude" content="{home.latitude}">'
            f'<meta itemprop="longitude" content="{home.longitude}"></div></div>'
        )

    return f'<div itemscope itemtype="https://schema.org/RealEstateListing">{"".join(properties())}</div><p>{base}</p>'


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
