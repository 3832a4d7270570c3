"""A small web site to practise on: `python -m tasks.crawl.practice_site --port 8900`.

A shop of 36 things, a listing of 24 homes, a register of 90 people, articles and a sitemap, invented and always the
same, so that the first crawl of a newcomer (and the tour in the README) needs no internet and bothers nobody. Each page
takes a moment, so that progress can be watched. The examples of the shipped spiders are written for it. The practice
repository is served here as well, where there is git. Standard library only; loopback only.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

from tasks.build import practice_repository
from tasks.build.practice_repository import Answer, NoRepository, PracticeRepository
from tasks.crawl import practice_reading

DEFAULT_PORT: Final = 8900
DEFAULT_DELAY_SECONDS: Final = 0.15
IDLE_SECONDS: Final = 60
PAGE_SIZE: Final = 8

STYLE: Final = """
body{font:16px/1.6 system-ui,sans-serif;max-width:52rem;margin:0 auto;padding:1.5rem;color:#22303c;background:#fbfaf7}
a{color:#0a6e6e;text-decoration:none}a:hover{text-decoration:underline}nav a{margin-right:1.2rem;font-weight:600}
ul.cards{list-style:none;padding:0;display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1rem}
.cards li{background:#fff;border:1px solid #e5e0d5;border-radius:.6rem;padding:1rem}
.price{font-weight:700;color:#8a3b12}
.tags a{display:inline-block;background:#e6f0ee;border-radius:1rem;padding:0 .7rem;margin-right:.4rem}
dl{display:grid;grid-template-columns:10rem 1fr}dd{margin:0}footer{margin-top:3rem;color:#6b7680;font-size:.85rem}
"""

_WELCOME: Final = (
    "<p>A shop, a listing, a register and articles to crawl. Nothing here is real.</p>"
    f'<p><a href="{practice_repository.PREFIX}">A git repository</a> to deploy.</p>'
)
_MATERIALS: Final = ("Oak", "Linen", "Copper", "Slate", "Walnut", "Cotton", "Brass", "Cedar", "Wool")
_THINGS: Final = (
    ("Lamp", "light"),
    ("Bowl", "kitchen"),
    ("Bench", "furniture"),
    ("Throw", "textile"),
)
_STREETS: Final = ("Harbour Row", "Mill Lane", "Station Road", "Orchard Street", "Castle Hill", "Meadow View")
_TOWNS: Final = (("Northhaven", 54.61, -1.24), ("Eastbrook", 54.58, -1.11), ("Wellfield", 54.72, -1.35))
_KINDS: Final = ("House", "Apartment", "SingleFamilyResidence")


@dataclass(frozen=True)
class Product:
    """Something in the shop."""

    slug: str
    name: str
    price: Decimal
    in_stock: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Home:
    """Something in the listing."""

    number: int
    title: str
    kind: str
    price: int
    bedrooms: int
    square_metres: int
    street: str
    town: str
    latitude: float
    longitude: float


_Entry = TypeVar("_Entry", Product, Home)
_Page = tuple[int, str, str | bytes]
"""Status, content type and body."""


@cache
def products() -> Sequence[Product]:
    """The shop, in its order."""
    chance = random.Random(36)  # noqa: S311 - the same shop for everybody, not a secret
    return [
        Product(
            f"{material}-{thing}".lower(),
            f"{material} {thing}",
            Decimal(chance.randrange(900, 24_900)) / 100,
            chance.randrange(0, 40),
            (material.lower(), kind),
        )
        for material in _MATERIALS
        for thing, kind in _THINGS
    ]


@cache
def homes() -> Sequence[Home]:
    """The listing, in its order."""
    chance = random.Random(24)  # noqa: S311
    found = []
    for number in range(1, 25):
        town, latitude, longitude = _TOWNS[number % len(_TOWNS)]
        bedrooms = chance.randrange(1, 6)
        street = f"{chance.randrange(1, 90)} {_STREETS[number % len(_STREETS)]}"
        found.append(
            Home(
                number,
                f"{bedrooms}-bedroom home in {town}",
                _KINDS[number % len(_KINDS)],
                chance.randrange(95, 640) * 1_000,
                bedrooms,
                chance.randrange(38, 210),
                street,
                town,
                round(latitude + chance.uniform(-0.02, 0.02), 5),
                round(longitude + chance.uniform(-0.02, 0.02), 5),
            )
        )
    return found


def serve(
    *,
    port: int = DEFAULT_PORT,
    delay_seconds: float = DEFAULT_DELAY_SECONDS,
    repository: PracticeRepository | None = None,
) -> ThreadingHTTPServer:
    """A server on loopback, bound and not yet running: call `serve_forever`; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        timeout = IDLE_SECONDS

        def do_GET(self) -> None:
            if self.path.rstrip("/") == practice_repository.PREFIX:
                self._send(_page_answer(_repository_page(repository)))
            elif self._is_for_git():
                self._ask_git(b"")
            else:
                page = _page_answer(answer(self.path, base=f"http://{self.headers.get('Host', 'localhost')}"))
                if page.headers["Content-Type"].startswith("text/html"):
                    time.sleep(delay_seconds)
                self._send(page)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not self._is_for_git():
                self.send_error(405)
            elif not length.isdecimal():
                self.send_error(411)
            elif int(length) > practice_repository.REQUEST_BYTES:
                self.send_error(413)
            else:
                self._ask_git(self.rfile.read(int(length)))

        def _is_for_git(self) -> bool:
            return self.path.startswith((f"{practice_repository.PREFIX}/", f"{practice_repository.PREFIX}.git/"))

        def _ask_git(self, body: bytes) -> None:
            if repository is None:
                self._send(_page_answer(_repository_page(None)))
            else:
                self._send(repository.answer(self.command, self.path, dict(self.headers), body))

        def _send(self, answer: Answer) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Silence: the crawl's own log is the one to watch."""

    return _Server(("127.0.0.1", port), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence for clients that break off, as a crawl that is stopped does."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def answer(target: str, *, base: str = f"http://127.0.0.1:{DEFAULT_PORT}") -> _Page:
    """Status, content type and body of one address of the site, which is reached at `base`."""
    parts = urlsplit(target)
    query = parse_qs(parts.query)
    page = query.get("page", ["1"])[0]
    number = int(page) if page.isdecimal() and len(page) < 6 else 1
    match parts.path.strip("/").split("/"):
        case ["robots.txt"]:
            robots = f"User-agent: *\nDisallow: /basket\n\nSitemap: {base}/sitemap.xml\n"
            return 200, "text/plain; charset=utf-8", robots
        case ["sitemap.xml"]:
            return 200, "application/xml", practice_reading.sitemap_index(base)
        case ["sitemaps", name]:
            if name in _SITEMAPS:
                text = practice_reading.sitemap(base, _SITEMAPS[name]())
                if name.endswith(".gz"):
                    return 200, "application/gzip", practice_reading.packed(text)
                return 200, "application/xml", text
        case ["people"]:
            state = query.get("state", [""])[0]
            return _html("People", practice_reading.people_page(state, number))
        case ["articles"]:
            return _html("Articles", practice_reading.articles_page())
        case ["articles", slug]:
            for article in practice_reading.ARTICLES:
                if article.slug == slug:
                    return _html(article.title, practice_reading.article_page(article))
        case [""]:
            return _html("Practice site", _WELCOME)
        case ["shop"]:
            return _list("Shop", "/shop", products(), number, _product_card)
        case ["homes"]:
            return _list("Homes", "/homes", homes(), number, _home_card)
        case ["shop", slug]:
            for product in products():
                if product.slug == slug:
                    return _html(product.name, _product_page(product))
        case ["homes", wanted]:
            for home in homes():
                if str(home.number) == wanted:
                    return _html(home.title, _home_page(home))
    return _html("Not found", "<p>There is no such page.</p>", status=404)


_SITEMAPS: Final[dict[str, Callable[[], list[tuple[str, str | None]]]]] = {
    "shop.xml.gz": lambda: [(f"/shop/{product.slug}", None) for product in products()],
    "homes.xml": lambda: [(f"/homes/{home.number}", None) for home in homes()],
    "articles.xml": lambda: [(f"/articles/{article.slug}", article.date) for article in practice_reading.ARTICLES],
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="practice_site", description="A small web site to practise crawling on.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT)
    parser.add_argument("--delay", type=float, default=DEFAULT_DELAY_SECONDS, help="seconds that each page takes")
    parser.add_argument("--folder", type=Path, help="where to keep the git repository (default: a temporary folder)")
    given = parser.parse_args(arguments)
    # A temporary folder has to go, whichever signal ends this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            _repository(given.folder) as repository,
            serve(port=given.port, delay_seconds=given.delay, repository=repository) as server,
        ):
            _say(f"Practice site on http://127.0.0.1:{server.server_address[1]} (Ctrl-C ends it)")
            server.serve_forever()
    except KeyboardInterrupt:
        return
    except OSError as error:
        sys.exit(f"The practice site cannot use port {given.port}: {error.strerror}")


@contextmanager
def _repository(folder: Path | None) -> Iterator[PracticeRepository | None]:
    with ExitStack() as stack:
        try:
            repository = stack.enter_context(practice_repository.made(folder))
        except NoRepository as reason:
            _say(f"The practice site goes without its repository: {reason}.")
            repository = None
        yield repository


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _page_answer(page: _Page) -> Answer:
    status, kind, body = page
    return Answer(status, {"Content-Type": kind}, body if isinstance(body, bytes) else body.encode())


def _repository_page(repository: PracticeRepository | None) -> _Page:
    if repository is None:
        return _html("Not found", "<p>There is no practice repository: git could not make it here.</p>", status=404)
    commits = "".join(
        f"<li><b>{branch}</b> {escape(message)}<br><code>{name}</code></li>"
        for branch, name, message in reversed(repository.commits)
    )
    return _html(
        "The garden",
        "<p>A git repository to deploy first: this page's address is the one to clone. Build it with "
        f"<code>sh build.sh</code>, and serve <code>public</code>.</p><ul>{commits}</ul>",
    )


def _list(title: str, path: str, entries: Sequence[_Entry], page: int, card: Callable[[_Entry], str]) -> _Page:
    shown = entries[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
    cards = "".join(f"<li>{card(each)}</li>" for each in shown)
    more = page * PAGE_SIZE < len(entries)
    following = f'<p><a rel="next" href="{path}?page={page + 1}">Next page</a></p>' if more else ""
    return _html(f"{title}, page {page}", f'<ul class="cards">{cards}</ul>{following}')


def _product_card(product: Product) -> str:
    link = f'<a class="product" href="/shop/{product.slug}">{product.name}</a>'
    return f'{link}<br><span class="price">£ {product.price}</span>'


def _product_page(product: Product) -> str:
    stock = f"{product.in_stock} in stock" if product.in_stock else "sold out"
    tags = "".join(f'<a href="/shop">{tag}</a>' for tag in product.tags)
    return (
        f'<p class="price">£ {product.price}</p><p class="stock">{stock}</p><p class="tags">{tags}</p>'
        '<p><a href="/basket">Put into the basket</a></p>'
    )


def _home_card(home: Home) -> str:
    return f'<a href="/homes/{home.number}">{home.title}</a><br><span class="price">£ {home.price:,}</span>'


def _home_page(home: Home) -> str:
    data = {
        "@context": "https://schema.org",
        "@type": "RealEstateListing",
        "name": home.title,
        "identifier": f"home-{home.number}",
        "offers": {"@type": "Offer", "price": home.price, "priceCurrency": "GBP"},
        "about": {
            "@type": home.kind,
            "numberOfBedrooms": home.bedrooms,
            "floorSize": {"@type": "QuantitativeValue", "value": home.square_metres, "unitCode": "MTK"},
            "address": {
                "@type": "PostalAddress",
                "streetAddress": home.street,
                "addressLocality": home.town,
                "addressCountry": "GB",
            },
            "geo": {"@type": "GeoCoordinates", "latitude": home.latitude, "longitude": home.longitude},
        },
    }
    return (
        f'<script type="application/ld+json">{json.dumps(data)}</script><p class="price">£ {home.price:,}</p>'
        f"<dl><dt>Bedrooms</dt><dd>{home.bedrooms}</dd><dt>Floor area</dt><dd>{home.square_metres} m²</dd>"
        f"<dt>Address</dt><dd>{home.street}, {home.town}</dd></dl>"
    )


def _html(title: str, body: str, *, status: int = 200) -> _Page:
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        '<nav><a href="/">Practice site</a><a href="/shop">Shop</a><a href="/homes">Homes</a>'
        '<a href="/people">People</a><a href="/articles">Articles</a></nav>'
        f"<h1>{escape(title)}</h1>{body}<footer>Invented for practising. Served by Switchyard.</footer></body></html>"
    )
    return status, "text/html; charset=utf-8", page


if __name__ == "__main__":
    main()
