"""What the practice site has to read: a register of people by state, a few articles, and the sitemaps of it all.

Invented, and the same for everybody. Returns bodies of pages; the frame around them is `practice_site`'s.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from typing import Final
from urllib.parse import urlencode

STATES: Final = ("Northmark", "Sundrift", "Westvale")
PEOPLE_PER_PAGE: Final = 12
_PEOPLE: Final = 90
_SURNAMES: Final = (
    *("Abell", "Ames", "Barrow", "Björk", "Calder", "Danvers", "Ekman", "Farrow", "Gray", "Hollis", "Ives", "Jarrett"),
    *("Kestrel", "Lund", "Mercer", "Moss", "Nyberg", "Orme", "Penrose", "Quill", "Rowan", "Sorrel", "Tamsin", "Voss"),
)
_GIVEN_NAMES: Final = (
    "Ada",
    "Bruno",
    "Clara",
    "Edmund",
    "Flora",
    "Ines",
    "Jonah",
    "Mara",
    "Otto",
    "Ruth",
    "Silas",
    "Wren",
)
_TRADES: Final = ("Baker", "Bookbinder", "Boatbuilder", "Cartographer", "Glazier", "Joiner", "Piano tuner", "Weaver")
_TOWNS: Final = {
    "Northmark": ("Alder Bay", "Frostwick"),
    "Sundrift": ("Harrow Sands", "Palmer's Rest"),
    "Westvale": ("Greenholm", "Stonebridge"),
}


@dataclass(frozen=True)
class Person:
    """Somebody in the register."""

    name: str
    state: str
    town: str
    trade: str
    since: int


@dataclass(frozen=True)
class Article:
    """Something to read."""

    slug: str
    title: str
    author: str
    date: str
    tags: tuple[str, ...]
    paragraphs: tuple[str, ...]


ARTICLES: Final = (
    Article(
        "the-ferry-that-waits",
        "The ferry that waits",
        "Ines Calder",
        "2026-02-03",
        ("harbour", "transport"),
        (
            "The last ferry from Alder Bay leaves at nine, unless somebody is seen running. Then it leaves when that "
            "person is aboard, and the timetable on the quay has said so since the harbour office painted it there.",
            "Nobody has measured what the habit costs. The skipper keeps a list in pencil: forty-one waits in a year, "
            "the longest of them eleven minutes, for a man who was carrying a wardrobe.",
            "When a consultant proposed to end it, the council read the list aloud and went on to the next item.",
        ),
    ),
    Article(
        "how-to-count-a-forest",
        "How to count a forest",
        "Silas Orme",
        "2026-03-14",
        ("forest", "method"),
        (
            "A forest is counted by not counting it. The surveyors of Westvale walk along lines that were drawn by "
            "lot, stop every two hundred paces, and measure the trees that stand within a circle of rope.",
            "From three hundred such circles they know the whole within four parts in a hundred, which is better than "
            "those who tried to count every tree have ever managed.",
            "The method needs good shoes, an honest draw, and the discipline to measure the dull circles as carefully "
            "as the beautiful ones.",
        ),
    ),
    Article(
        "a-piano-in-a-damp-town",
        "A piano in a damp town",
        "Flora Nyberg",
        "2026-05-21",
        ("music", "craft"),
        (
            "There are nine pianos in Frostwick and one tuner, and the tuner says that the sea is the better player. "
            "It goes into the soundboards in October and comes out in May, and every string feels it.",
            "She tunes them a little high before the autumn and a little low before the spring, so that the weather "
            "finishes her work instead of undoing it.",
            "The oldest of them stands in the school, has two keys that no longer answer, and is tuned all the same.",
        ),
    ),
    Article(
        "bread-for-a-thousand",
        "Bread for a thousand",
        "Jonah Abell",
        "2026-07-09",
        ("food", "method"),
        (
            "On the day of the regatta the bakery at Harrow Sands makes a thousand loaves with an oven that holds "
            "forty. The arithmetic is easy and the night is long.",
            "Dough waits for nobody, so the first batch is mixed by the clock and every later one by the one before. "
            "A late batch is never hurried; the next one is started cooler, and the delay is gone by morning.",
            "At seven the last loaf is sold, usually to one of the bakers.",
        ),
    ),
)


@cache
def people() -> Sequence[Person]:
    """The register, by name."""
    chance = random.Random(90)  # noqa: S311 - the same register for everybody, not a secret
    names = [f"{surname}, {given}" for surname in _SURNAMES for given in _GIVEN_NAMES]
    found = []
    for name in sorted(chance.sample(names, _PEOPLE)):
        state = chance.choice(STATES)
        found.append(
            Person(name, state, chance.choice(_TOWNS[state]), chance.choice(_TRADES), chance.randrange(1988, 2026))
        )
    return found


def people_page(state: str, page: int) -> str:
    """A page of the register of one state, or the states to choose from."""
    if state not in STATES:
        links = "".join(f'<li><a href="/people?{urlencode({"state": each})}">{each}</a></li>' for each in STATES)
        return f"<p>Everybody who has a licence to trade, by state.</p><ul>{links}</ul>"
    found = [person for person in people() if person.state == state]
    rows = "".join(
        f'<tr><td class="name">{escape(person.name)}</td><td class="town">{escape(person.town)}</td>'
        f'<td class="trade">{person.trade}</td><td class="since">{person.since}</td></tr>'
        for person in found[(page - 1) * PEOPLE_PER_PAGE : page * PEOPLE_PER_PAGE]
    )
    more = page * PEOPLE_PER_PAGE < len(found)
    query = urlencode({"state": state, "page": page + 1})
    following = f'<p><a rel="next" href="/people?{query}">Next page</a></p>' if more else ""
    head = "<thead><tr><th>Name</th><th>Town</th><th>Trade</th><th>Since</th></tr></thead>"
    return f'<table class="people">{head}<tbody>{rows}</tbody></table>{following}'


def articles_page() -> str:
    """The list of articles."""
    return "".join(
        f'<p><a href="/articles/{article.slug}">{article.title}</a><br>{article.date}, {article.author}</p>'
        for article in ARTICLES
    )


def article_page(article: Article) -> str:
    """One article, with the things around it that are no article."""
    data = {
        "@context": "https://schema.org",
        "@type": "NewsArticle",
        "headline": article.title,
        "author": {"@type": "Person", "name": article.author},
        "datePublished": article.date,
        "keywords": list(article.tags),
        "publisher": {"@type": "Organization", "name": "The Practice Post"},
    }
    text = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in article.paragraphs)
    return (
        f'<script type="application/ld+json">{json.dumps(data)}</script>'
        '<div class="cookie-banner" role="dialog"><p>We use no cookies. Agree all the same?</p></div>'
        f'<article><p class="byline">By {article.author}</p>{text}</article>'
        '<section id="comments" class="comments"><h2>Comments</h2>'
        "<p>First! I have not read it, but I disagree.</p></section>"
    )


def sitemap_index(base: str) -> str:
    """The index: one sitemap of each kind of page."""
    names = ("shop.xml.gz", "homes.xml", "articles.xml")
    entries = "".join(f"<sitemap><loc>{base}/sitemaps/{name}</loc></sitemap>" for name in names)
    return f'{_DECLARATION}<sitemapindex xmlns="{_NAMESPACE}">{entries}</sitemapindex>'


def sitemap(base: str, entries: Iterable[tuple[str, str | None]]) -> str:
    """Addresses with the date of their last change."""
    urls = "".join(
        f"<url><loc>{base}{path}</loc>{f'<lastmod>{date}</lastmod>' if date else ''}</url>" for path, date in entries
    )
    return f'{_DECLARATION}<urlset xmlns="{_NAMESPACE}">{urls}</urlset>'


def packed(text: str) -> bytes:
    """The same, by gzip; always the same bytes."""
    return gzip.compress(text.encode(), mtime=0)


_DECLARATION: Final = '<?xml version="1.0" encoding="UTF-8"?>'
_NAMESPACE: Final = "http://www.sitemaps.org/schemas/sitemap/0.9"
