"""Sitemaps as sites have them and as enemies make them; the pages that they name exist."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.sites.server import Answer, Asked

PAGES = 60
ELSEWHERE = "http://elsewhere.example/page"
LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE urlset [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;"><!ENTITY d SYSTEM "file:///etc/passwd">]>'
    "<urlset><url><loc>http://127.0.0.1/&c;&d;</loc></url></urlset>"
)


class SitemapSite:
    """`/robots.txt` names the index; it names a plain one, a packed one, an old one, a hostile one and one too deep."""

    def __call__(self, asked: Asked) -> Answer:
        path = urlsplit(asked.target).path
        base = f"http://{asked.headers['host']}"
        xml = {"Content-Type": "application/xml"}
        match path.strip("/").split("/"):
            case ["robots.txt"]:
                return Answer(f"User-agent: *\nDisallow: /pages/7$\nSITEMAP: {base}/maps/index.xml # all of it\n")
            case ["maps", "index.xml"]:
                dates = {"plain.xml": "2026-01-01", "packed.xml.gz": "", "old.xml": "2020-05"}
                names = {**dates, "hostile.xml": "", "deep-1.xml": ""}
                return Answer(_index(base, names), headers=xml)
            case ["maps", "plain.xml"]:
                return Answer(_urls(base, range(1, 31), foreign=True), headers=xml)
            case ["maps", "packed.xml.gz"]:
                body = gzip.compress(_urls(base, range(25, PAGES + 1)).encode())
                return Answer(body, headers={"Content-Type": "application/x-gzip"})
            case ["maps", "old.xml"]:
                return Answer(_urls(base, range(1_000, 1_010)), headers=xml)
            case ["maps", "hostile.xml"]:
                return Answer(LAUGHS, headers=xml)
            case ["maps", name] if name.startswith("deep-"):
                level = int(name.removeprefix("deep-").removesuffix(".xml"))
                return Answer(_index(base, {f"deep-{level + 1}.xml": ""}), headers=xml)
            case ["maps", "large.txt"]:
                return Answer("\n".join(f"{base}/pages/{number}" for number in range(1, 20_001)))
            case ["pages", number]:
                return Answer(f"<h1>Page {number}</h1><p class=price>£ {number}.50</p>")
        return Answer("<p>No such page.</p>", status=404)


def changed(number: int) -> str | None:
    """The date that a page's entry has: none for every fifth, old for every third."""
    if number % 5 == 0:
        return None
    return "2024-06-30" if number % 3 == 0 else f"2026-02-{number % 28 + 1:02}T12:00:00+02:00"


def _urls(base: str, numbers: range, *, foreign: bool = False) -> str:
    def entry(number: int) -> str:
        date = changed(number)
        lastmod = f"<lastmod>{date}</lastmod>" if date else ""
        more = "<changefreq>Weekly</changefreq><priority>0.8</priority>" if number % 2 else "<priority>high</priority>"
        image = f"<image:image><image:loc>{base}/pictures/{number}.jpg</image:loc></image:image>"
        return f"<url>{image}<loc>\n {base}/pages/{number} </loc>{lastmod}{more}</url>"

    entries = "".join(entry(number) for number in numbers)
    if foreign:
        entries += f"<url><loc>{ELSEWHERE}?a=1&b=2</loc></url>"
    namespaces = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:image="http://www.google.com/schemas/sitemap-image/1.1"'
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset {namespaces}>{entries}</urlset>'


def _index(base: str, names: Mapping[str, str]) -> str:
    entries = "".join(
        f"<sitemap><loc>{base}/maps/{name}</loc>{f'<lastmod>{date}</lastmod>' if date else ''}</sitemap>"
        for name, date in names.items()
    )
    return f'<sitemapindex xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{entries}</sitemapindex>'
