"""Sitemaps read from bytes: every kind, every fault, dates, and what enemies write."""

from __future__ import annotations

import gzip
import time
import tracemalloc

import pytest

from tasks.crawl.crawler.spiders import sitemap_data
from tasks.crawl.crawler.spiders.sitemap_data import Entry, SitemapError, entries, latest_moment, tidy_date
from tests.sites.sitemaps import LAUGHS

URL = "https://a.example/maps/site.xml"
ONE = b"<urlset><url><loc>https://a.example/1</loc></url></urlset>"
# Without its time: it would be in the names of the tests, which workers have to agree on.
PACKED = gzip.compress(ONE, mtime=0)


def locs(body: bytes) -> list[str]:
    return [entry.loc for entry in entries(body, URL)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (ONE, ["https://a.example/1"]),
        (b"\xef\xbb\xbf  \n" + ONE, ["https://a.example/1"]),
        ('<?xml version="1.0" encoding="UTF-16"?><urlset><url><loc>/ü</loc></url></urlset>'.encode("utf-16"),
         ["https://a.example/ü"]),
        (b'<?xml version="1.0" encoding="iso-8859-1"?><urlset><url><loc>/\xfc</loc></url></urlset>',
         ["https://a.example/ü"]),
        (b"<urlset><url><loc>/a?b=1&c=2&amp;d=3</loc></url></urlset>", ["https://a.example/a?b=1&c=2&d=3"]),
        (b"<urlset><url><loc><![CDATA[/a?b=1&c=2]]></loc></url></urlset>", ["https://a.example/a?b=1&c=2"]),
        (b"<urlset><url></url><url><loc> </loc></url><url><lastmod>2026</lastmod></url></urlset>", []),
        (b"<s:urlset xmlns:s='x'><s:url><s:loc>/1</s:loc><i:a xmlns:i='y'><i:loc>/2</i:loc></i:a></s:url></s:urlset>",
         ["https://a.example/1"]),
        (b"<sitemapindex><sitemap><loc>/other.xml</loc></sitemap></sitemapindex>", ["https://a.example/other.xml"]),
        (b"<rss><channel><link>/</link><item><title>x</title><link>/1</link></item></channel></rss>",
         ["https://a.example/1"]),
        (b"<rdf:RDF xmlns:rdf='r'><item><link>/1</link></item></rdf:RDF>", ["https://a.example/1"]),
        (b"<feed><link href='/'/><entry><link rel='edit' href='/no'/><link href='/1'/></entry></feed>",
         ["https://a.example/1"]),
        (b"https://a.example/1\r\nnonsense\n\nhttp://b.example/2", ["https://a.example/1", "http://b.example/2"]),
        (PACKED + gzip.compress(b"", mtime=0), ["https://a.example/1"]),
    ],
)  # fmt: skip
def test_every_kind_of_sitemap_is_read(body: bytes, found: list[str]) -> None:
    assert locs(body) == found


def test_an_index_is_told_from_pages_and_what_is_not_a_value_is_none() -> None:
    body = (
        b"<urlset><url><loc>/1</loc><lastmod>2026-01-02T03:04:05.67+0100</lastmod><changefreq>Daily</changefreq>"
        b"<priority>0.9</priority></url><url><loc>/2</loc><lastmod>last week</lastmod><priority>9</priority></url>"
        b"</urlset>"
    )
    assert list(entries(body, URL)) == [
        Entry("https://a.example/1", "2026-01-02T03:04:05.67+01:00", "daily", 0.9),
        Entry("https://a.example/2"),
    ]
    assert [each.is_sitemap for each in entries(b"<sitemapindex><sitemap><loc>/x</loc></sitemap></sitemapindex>", URL)]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "neither XML nor"),
        (b"just words", "neither XML nor"),
        (b"<html><body>Log in</body></html>", "<html>"),
        (b"<urlset><url>", "Not well-formed"),
        (LAUGHS.encode(), "document type declaration"),
        (LAUGHS.encode("utf-16"), "document type declaration"),
        (b"<!DOCTYPE urlset SYSTEM 'http://169.254.169.254/'><urlset/>", "document type declaration"),
        (PACKED[:-9], "cut off"),
        (b"\x1f\x8bnot gzip at all", "Not gzip"),
    ],
)
def test_what_is_no_sitemap_says_why(body: bytes, why: str) -> None:
    with pytest.raises(SitemapError, match=why):
        locs(body)


def test_what_came_before_a_fault_counts() -> None:
    found = entries(ONE.replace(b"</urlset>", b"<url><loc>/2</lo>"), URL)
    assert next(found).loc == "https://a.example/1"
    with pytest.raises(SitemapError):
        next(found)


def test_a_bomb_is_never_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemap_data, "MAX_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**27)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(SitemapError, match="at most"):
        locs(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "latest"),
    [
        ("2026", "2026-12-31T23:59:59.999999+00:00"),
        ("2024-02", "2024-02-29T23:59:59.999999+00:00"),
        ("2026-03-04", "2026-03-04T23:59:59.999999+00:00"),
        ("2026-03-04T05:06Z", "2026-03-04T05:06:00+00:00"),
        ("2026-03-04T05:06:07+02:00", "2026-03-04T05:06:07+02:00"),
        ("2026-13", None),
        ("9999-12-31", "9999-12-31T23:59:59.999999+00:00"),
        ("soon", None),
    ],
)
def test_a_date_means_the_last_moment_that_it_may_mean(text: str, latest: str | None) -> None:
    found = latest_moment(text)
    assert (found and found.isoformat()) == latest


@pytest.mark.parametrize(
    ("text", "tidy"),
    [
        (" 2026-03-04 ", "2026-03-04"),
        ("2026-03-04 05:06:07+0200", "2026-03-04T05:06:07+02:00"),
        ("Wed, 04 Mar 2026 05:06:07 GMT", "2026-03-04T05:06:07+00:00"),
        ("2026-02-30", None),
        ("04/03/2026", None),
        ("", None),
    ],
)
def test_dates_are_written_in_one_way(text: str, tidy: str | None) -> None:
    assert tidy_date(text) == tidy


def test_the_sitemaps_of_a_robots_file_belong_to_no_group() -> None:
    text = "User-agent: x\nDisallow: /\nsitemap: /one.xml # first\nSiteMap:https://b.example/two.xml\nSitemap:\n"
    assert list(sitemap_data.sitemaps_in_robots(text, "https://a.example/robots.txt")) == [
        "https://a.example/one.xml",
        "https://b.example/two.xml",
    ]
