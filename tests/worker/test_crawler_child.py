"""The crawler process against a real site over real pipes: what it brings home, refuses, survives and obeys."""

from __future__ import annotations

import asyncio
import gzip
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapters.addresses import AddressGuard
from tasks.crawl.crawler.guard import GuardedResolver
from tasks.crawl.crawler.protocol import Limits, Start, Throttle, Totals
from tests.sites import sacramento
from tests.sites.sacramento import SacramentoSite
from tests.sites.server import Answer, Asked, SiteServer
from tests.worker.crawler_driver import ROOT, Crawler, Frontier, crawl, crawling, start_message

FIELDS = [{"name": "title", "css": "h1"}]


@pytest.fixture
def full_site() -> Iterator[SiteServer]:
    with SiteServer(SacramentoSite()) as server:
        yield server


@pytest.fixture
def site() -> Iterator[SiteServer]:
    """The first sixty homes, on three list pages."""
    with SiteServer(SacramentoSite(count=60)) as server:
        yield server


def listings(server: SiteServer, **more: Any) -> Start:
    spider_input = {"startUrls": [f"{server.url}/homes"], "detailPattern": sacramento.PROPERTY_INPUT_PATTERN}
    return start_message("property_listings", spider_input, allowed=[server.allowed_host], **more)


def catalogue(server: SiteServer, *targets: str, allowed: list[str] | None = None, **more: Any) -> Start:
    given = {"fields": FIELDS, **more.pop("spider_input", {})}
    urls = [target if "://" in target else server.url + target for target in targets]
    allowed = [server.allowed_host] if allowed is None else allowed
    return start_message("catalogue", {"startUrls": urls, **given}, allowed=allowed, **more)


def by_number(frontier: Frontier) -> list[dict[str, Any]]:
    return sorted(frontier.items.values(), key=lambda item: int(item["sourceId"].removeprefix("SAC-")))


def failures(frontier: Frontier, server: SiteServer) -> dict[str, str]:
    """Reason by the path that was asked for, before redirects."""
    return {
        (failed["redirectedFrom"] or [failed["url"]])[0].removeprefix(server.url): failed["reason"]
        for failed in frontier.failed
    }


def page_hits(server: SiteServer) -> int:
    return sum(count for target, count in server.hits.items() if target != "/robots.txt")


# -- everything, exactly once


async def test_a_crawl_brings_home_every_listing_once_and_reports_what_it_could_not_read(full_site: SiteServer) -> None:
    crawler = await crawl(listings(full_site))
    frontier = crawler.frontier
    assert by_number(frontier) == SacramentoSite().expected(full_site.url)
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "FINISHED"
    assert failures(frontier, full_site) == {
        sacramento.ROBOTS: "ROBOTS",
        sacramento.METADATA: "BLOCKED_URL",
        sacramento.LOOP: "REDIRECTS",
        sacramento.GONE: "HTTP_STATUS",
    }
    blocked = next(each for each in frontier.failed if each["reason"] == "BLOCKED_URL")
    assert "169.254.169.254" in blocked["detail"]
    assert "link-local" in blocked["detail"]
    assert full_site.hits[sacramento.ROBOTS] == 0
    assert all(full_site.hits[f"/homes/{number}"] == 2 for number in sacramento.THROTTLED)
    stats = crawler.stats[-1]
    assert stats["throttled"] == stats["retries"] == len(sacramento.THROTTLED)
    assert crawler.hosts["offSite"] == 1
    assert stats["pages"] == frontier.pages == SacramentoSite().list_pages + 932 + 1
    assert stats["failed"]["ROBOTS"] == 1
    assert stats["elapsedSeconds"] > 0
    assert frontier.repeated_items == 1, "the page that redirects to a listing gives the same item again, by its key"


async def test_a_crawler_killed_four_times_still_brings_home_every_listing_once(full_site: SiteServer) -> None:
    frontier = Frontier()
    for stop_at in (3, 150, 400, 700):
        async with crawling(listings(full_site, resume=frontier.seeded), frontier) as crawler:
            await crawler.run(until=lambda each, at=stop_at: each.frontier.pages >= at)  # type: ignore[misc]
            crawler.signal(signal.SIGKILL)  # what it sent and nobody read yet is lost with it
            assert frontier.leased
        assert crawler.closed is None
    last = await crawl(listings(full_site, resume=True), frontier)
    assert last.closed is not None
    assert last.closed["reason"] == "FINISHED"
    assert last.types["seed"] == 0
    assert by_number(frontier) == SacramentoSite().expected(full_site.url)


# -- limits


async def test_the_page_limit_is_exact(site: SiteServer) -> None:
    crawler = await crawl(listings(site, limits=Limits(max_pages=5)))
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "PAGE_LIMIT"
    assert crawler.frontier.pages == 5


async def test_the_page_limit_counts_earlier_attempts(site: SiteServer) -> None:
    crawler = await crawl(listings(site, limits=Limits(max_pages=5), totals=Totals(pages=4)))
    assert crawler.frontier.pages == 1


async def test_a_page_cut_by_the_item_limit_is_read_again_when_the_run_goes_on(site: SiteServer) -> None:
    fields = [{"name": "link", "css": "a + a", "attribute": "href", "type": "url"}]
    more = {"items": {"css": "li"}, "nextPage": {"css": "a[rel=next]"}, "fields": fields}
    crawler = await crawl(catalogue(site, "/homes?page=2", spider_input=more, limits=Limits(max_items=7)))
    frontier = crawler.frontier
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "ITEM_LIMIT"
    assert len(frontier.items) == 7
    again = catalogue(site, "/homes?page=2", spider_input=more, limits=Limits(max_items=33), resume=True)
    await crawl(again, frontier)
    assert sorted(item["link"] for item in frontier.items.values()) == sorted(
        f"{site.url}/homes/{number}" for number in range(21, 54)
    )


async def test_the_depth_limit_keeps_details_out_but_not_further_list_pages(site: SiteServer) -> None:
    crawler = await crawl(listings(site, limits=Limits(max_depth=0)))
    assert crawler.frontier.pages == 3
    assert not crawler.frontier.items
    assert crawler.hosts["depth"] > 60


async def test_the_byte_limit_ends_the_crawl(site: SiteServer) -> None:
    crawler = await crawl(listings(site, limits=Limits(max_bytes=20_000)))
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "BYTE_LIMIT"
    assert 20_000 <= crawler.stats[-1]["bytes"] < 40_000


# -- ends


def stopping(crawler: Crawler) -> bool:
    return any(line["message"].startswith("Stopping") for line in crawler.logs)


async def test_the_memory_limit_ends_the_crawl(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site, limits=Limits(memory_megabytes=1)), Frontier()) as crawler:
        await crawler.run(until=stopping)
        site.release()
        await crawler.run()
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "MEMORY_LIMIT"
    assert crawler.frontier.pages < 60


async def test_one_sigterm_finishes_the_pages_in_flight_and_starts_no_others(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site), Frontier()) as crawler:
        task = asyncio.create_task(crawler.run(until=stopping))
        await asyncio.to_thread(site.wait_for_hits, 18)
        crawler.signal(signal.SIGTERM)
        await task
        asked = site.hits.total()
        before = crawler.frontier.pages + len(crawler.frontier.failed)
        site.release()
        await crawler.run()
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "STOPPED"
    assert site.hits.total() == asked
    assert crawler.frontier.pages + len(crawler.frontier.failed) > before
    assert crawler.frontier.waiting, "what was leased and not fetched waits again"


async def test_a_second_sigterm_ends_it_at_once(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site), Frontier()) as crawler:
        task = asyncio.create_task(crawler.run(until=stopping))
        await asyncio.to_thread(site.wait_for_hits, 18)
        crawler.signal(signal.SIGTERM)
        await task
        crawler.signal(signal.SIGTERM)
        async with asyncio.timeout(3):
            await crawler.process.wait()
    assert crawler.closed is None


async def test_a_sigterm_after_stop_still_lets_the_pages_in_flight_finish(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site), Frontier()) as crawler:
        task = asyncio.create_task(crawler.run(until=stopping))
        await asyncio.to_thread(site.wait_for_hits, 18)
        crawler.send({"type": "stop", "reason": "STOPPED_BY_USER"})
        await task
        crawler.signal(signal.SIGTERM)
        seen = len(crawler.stats)
        await crawler.run(until=lambda each: len(each.stats) > seen)  # alive a moment later
        before = crawler.frontier.pages
        site.release()
        await crawler.run()
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "STOPPED_BY_USER"
    assert crawler.frontier.pages > before


async def test_stop_ends_with_the_reason_the_worker_gave(site: SiteServer) -> None:
    async with crawling(listings(site), Frontier()) as crawler:
        await crawler.run(until=lambda each: each.frontier.pages >= 2)
        crawler.send({"type": "stop", "reason": "TIME_LIMIT"})
        await crawler.run()
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "TIME_LIMIT"


async def test_it_dies_when_the_worker_is_gone(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site), Frontier()) as crawler:
        task = asyncio.create_task(crawler.run())
        await asyncio.to_thread(site.wait_for_hits, 18)
        assert crawler.process.stdin is not None
        crawler.process.stdin.close()
        await task
    assert crawler.closed is None
    assert crawler.process.returncode == 3


async def test_nothing_listens_while_a_crawl_runs(site: SiteServer) -> None:
    site.hold_after(10)
    async with crawling(listings(site), Frontier()) as crawler:
        task = asyncio.create_task(crawler.run())
        await asyncio.to_thread(site.wait_for_hits, 18)
        sockets = psutil.Process(crawler.process.pid).net_connections(kind="inet")
        site.release()
        crawler.send({"type": "stop"})
        await task
    assert sockets, "it does hold connections to the site"
    assert not [each for each in sockets if each.status == psutil.CONN_LISTEN]


async def test_a_worker_that_does_not_read_stops_the_fetching_and_loses_nothing() -> None:
    text = "".join(f"<p>{'x' * 19_000}</p>" for _ in range(13))

    def heavy(asked: Asked) -> Answer:
        if asked.target == "/list":
            return Answer("".join(f'<a href="/page/{number}">page</a>' for number in range(48)))
        return Answer(f"<h1>{asked.target}</h1>{text}", status=404 if asked.target == "/robots.txt" else 200)

    fields = [{"name": "title", "css": "h1"}, {"name": "text", "css": "p", "list": True}]
    with SiteServer(heavy) as server:
        given = {"detailLinks": {"css": "a"}, "fields": fields}
        throttle = Throttle(
            concurrency=16, concurrency_per_host=16, start_delay_seconds=0, target_concurrency=64, timeout_seconds=30
        )
        start = catalogue(server, "/list", spider_input=given, throttle=throttle)
        async with crawling(start, Frontier(), line_limit=2**19) as crawler:
            await crawler.run(until=lambda each: each.frontier.pages == 1)
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(server.wait_for_hits, 45, timeout_seconds=1.5)
            await crawler.run()
    assert len(crawler.frontier.items) == 48


# -- what it refuses


async def test_no_spelling_of_loopback_gets_through_without_the_allow_list() -> None:
    with SiteServer(SacramentoSite(count=1)) as server:
        hosts = ("127.0.0.1", "localhost", "2130706433", "0x7f000001", "127.1", "[::ffff:127.0.0.1]", "[::1]", "0")
        urls = [f"http://{host}:{server.port}/homes/1" for host in hosts]
        crawler = await crawl(catalogue(server, *urls, allowed=[], ports=(80, 443, server.port)))
        assert [failed["reason"] for failed in crawler.frontier.failed] == ["BLOCKED_URL"] * len(hosts)
        assert not server.hits


async def test_the_allow_list_opens_one_port_and_not_its_neighbours(site: SiteServer) -> None:
    with SiteServer(SacramentoSite(count=1)) as other:
        crawler = await crawl(catalogue(site, f"{other.url}/homes/1", ports=(80, 443, other.port)))
        assert [failed["reason"] for failed in crawler.frontier.failed] == ["BLOCKED_URL"]
        assert not other.hits


async def test_a_proxy_in_the_environment_is_not_used(site: SiteServer) -> None:
    with SiteServer(SacramentoSite(count=1)) as proxy:
        variables = {"http_proxy": proxy.url, "HTTP_PROXY": proxy.url, "all_proxy": proxy.url}
        async with crawling(catalogue(site, "/homes/1"), Frontier(), extra_environment=variables) as crawler:
            await crawler.run()
        assert crawler.frontier.pages == 1
        assert not proxy.hits


class Received:
    """Twisted's side of a resolution."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.complete = asyncio.Event()

    def resolutionBegan(self, resolution: object) -> None:
        pass

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address.host)

    def resolutionComplete(self) -> None:
        self.complete.set()


@pytest.mark.parametrize(
    ("host", "port", "handed_over"),
    [("127.0.0.1", 80, []), ("localhost", 80, []), ("127.0.0.1", 8080, ["127.0.0.1"]), ("127.0.0.1", 8081, [])],
)
async def test_the_resolver_alone_hands_over_only_what_is_allowed(host: str, port: int, handed_over: list[str]) -> None:
    guard = AddressGuard.from_settings(["127.0.0.1:8080"], ports=(80, 443, 8080, 8081))
    received = Received()
    GuardedResolver(None, guard).resolveHostName(received, host, port)  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await received.complete.wait()
    assert received.addresses == handed_over


async def test_a_redirect_to_another_site_is_reported_and_not_followed(site: SiteServer) -> None:
    def moved(asked: Asked) -> Answer:
        return Answer(status=302, headers={"Location": "http://example.com/"})

    with SiteServer(moved) as server:
        crawler = await crawl(catalogue(server, "/", obey_robots=False))
    assert [failed["reason"] for failed in crawler.frontier.failed] == ["OFF_SITE"]


async def test_robots_that_fail_with_5xx_allow_nothing() -> None:
    def broken(asked: Asked) -> Answer:
        return Answer("<h1>x</h1>", status=503 if asked.target == "/robots.txt" else 200)

    with SiteServer(broken) as server:
        crawler = await crawl(catalogue(server, "/page"))
        assert [failed["reason"] for failed in crawler.frontier.failed] == ["ROBOTS"]
        assert server.hits["/page"] == 0


async def test_the_crawl_delay_of_robots_txt_is_kept_from_the_first_page_on() -> None:
    asked_at: list[float] = []

    def slow_please(asked: Asked) -> Answer:
        if asked.target == "/robots.txt":
            return Answer("User-agent: *\nCrawl-delay: 0.3\n")
        asked_at.append(time.monotonic())
        return Answer("<h1>x</h1>")

    with SiteServer(slow_please) as server:
        crawler = await crawl(catalogue(server, "/1", "/2", "/3", "/4"))
    assert crawler.frontier.pages == 4
    assert min(after - before for before, after in pairwise(asked_at)) > 0.2


# -- what can go wrong with a page


async def test_every_way_to_fail_has_its_reason() -> None:
    answers = {
        "/image": Answer(b"\x89PNG\r\n\x1a\n\x00\x00", headers={"Content-Type": "image/png"}),
        "/large": Answer("<h1>large</h1>" + " " * 60_000),
        "/bomb": Answer(gzip.compress(b"<h1>bomb</h1>" + b" " * 9_000_000), headers={"Content-Encoding": "gzip"}),
        "/slow": Answer("<h1>slow</h1>", delay_seconds=20),
        "/broken": Answer("<h1>broken</h1>", status=500),
        "/busy": Answer("<h1>busy</h1>", status=429, headers={"Retry-After": "9999"}),
        "/fine": Answer("<h1>fine</h1>"),
    }
    with SiteServer(lambda asked: answers.get(asked.target, Answer(status=404))) as server:
        with SiteServer(SacramentoSite(count=1)) as gone:
            pass
        throttle = Throttle(
            start_delay_seconds=0, target_concurrency=64, retries=0, timeout_seconds=1, max_response_bytes=50_000
        )
        others = [f"{gone.url}/", "http://nothing.invalid/"]
        allowed = [server.allowed_host, gone.allowed_host]
        crawler = await crawl(catalogue(server, *answers, *others, allowed=allowed, throttle=throttle))
        assert failures(crawler.frontier, server) == {
            "/image": "UNSUPPORTED_CONTENT",
            "/large": "TOO_LARGE",
            "/bomb": "TOO_LARGE",
            "/slow": "TIMEOUT",
            "/broken": "HTTP_STATUS",
            "/busy": "HTTP_STATUS",
            f"{gone.url}/": "CONNECTION",
            "http://nothing.invalid/": "DNS",
        }
    assert [item["title"] for item in crawler.frontier.items.values()] == ["fine"]


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "server.pem"
    encoding = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    file.write_bytes(
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(encoding)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


async def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with SiteServer(SacramentoSite(count=1), tls=self_signed(tmp_path)) as server:
        throttle = Throttle(retries=0, start_delay_seconds=0)
        crawler = await crawl(catalogue(server, "/homes/1", throttle=throttle))
        assert [failed["reason"] for failed in crawler.frontier.failed] == ["TLS"]
        assert not server.hits


@pytest.mark.parametrize(
    "field",
    [
        {"name": "trap", "css": "p", "regex": "^(a+)+$"},
        {"name": "trap", "xpath": "//p[re:test(., '^(a+)+$')]"},
    ],
    ids=["regex", "EXSLT"],
)
async def test_an_endless_pattern_costs_its_page_and_not_the_crawl(field: Mapping[str, str]) -> None:
    pages = {"/trap": f"<h1>trap</h1><p>{'a' * 60}!</p>", "/fine": "<h1>fine</h1><p>aaa</p>"}
    with SiteServer(lambda asked: Answer(pages.get(asked.target, ""))) as server:
        given = {"fields": [*FIELDS, field]}
        crawler = await crawl(catalogue(server, "/trap", "/fine", spider_input=given, limits=Limits(page_seconds=0.3)))
    assert [item["title"] for item in crawler.frontier.items.values()] == ["fine"]
    assert ["took longer than 0.3 s" in error["message"] for error in crawler.frontier.errors] == [True]


async def test_a_selector_that_fails_on_a_page_is_an_error_of_that_page() -> None:
    pages = {"/table": "<h1>table</h1><table><tr><td>1</td></tr></table>", "/plain": "<h1>plain</h1>"}
    with SiteServer(lambda asked: Answer(pages.get(asked.target, ""))) as server:
        given = {"fields": [*FIELDS, {"name": "cell", "xpath": "//table[no-such-function(.)]"}]}
        crawler = await crawl(catalogue(server, "/table", "/plain", spider_input=given))
    assert [item["title"] for item in crawler.frontier.items.values()] == ["plain"]
    assert "no-such-function" in crawler.frontier.errors[0]["message"]
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "FINISHED"


async def test_a_value_of_the_wrong_type_is_reported_with_its_path_and_the_item_kept() -> None:
    with SiteServer(lambda asked: Answer("<h1>one</h1><b>many</b>")) as server:
        given = {"fields": [*FIELDS, {"name": "count", "css": "b", "type": "integer"}]}
        crawler = await crawl(catalogue(server, "/", spider_input=given, obey_robots=False))
    assert list(crawler.frontier.items.values()) == [{"url": f"{server.url}/", "title": "one", "count": None}]
    assert crawler.frontier.errors == [{"message": "count: no number in 'many'", "path": ["fields", 1]}]


async def test_text_that_postgresql_refuses_does_not_leave_the_crawler() -> None:
    data = '{"@type": "House", "name": "a\\ud800b\\u0000c", "offers": {"@type": "Offer", "price": 1}}'
    page = f'<script type="application/ld+json">{data}</script>'
    with SiteServer(lambda asked: Answer(page)) as server:
        start = start_message(
            "property_listings", {"startUrls": [f"{server.url}/1"]}, allowed=[server.allowed_host], obey_robots=False
        )
        crawler = await crawl(start)
    assert [item["title"] for item in crawler.frontier.items.values()] == ["a?bc"]


# -- the start


@pytest.mark.parametrize(
    ("spider_input", "path"),
    [
        ({"startUrls": ["http://example.com/"]}, []),
        ({"startUrls": ["ftp://example.com/"], "fields": FIELDS}, ["startUrls", 0]),
        ({"startUrls": ["http://user:word@example.com/"], "fields": FIELDS}, ["startUrls", 0]),
        ({"startUrls": ["http://example.com/"], "fields": [{"name": "x", "css": "div["}]}, ["fields", 0, "css"]),
        ({"startUrls": ["http://example.com/"], "fields": [{"name": "x", "xpath": "//a["}]}, ["fields", 0, "xpath"]),
        (
            {"startUrls": ["http://example.com/"], "fields": [{"name": "x", "xpath": "count(//a)"}]},
            ["fields", 0, "xpath"],
        ),
        (
            {"startUrls": ["http://example.com/"], "fields": [{"name": "x", "xpath": "document('/etc/passwd')"}]},
            ["fields", 0, "xpath"],
        ),
        (
            {"startUrls": ["http://example.com/"], "fields": [{"name": "x", "css": "a", "regex": "("}]},
            ["fields", 0, "regex"],
        ),
        (
            {"startUrls": ["http://example.com/"], "fields": FIELDS, "nextPage": {"css": "a:nope()"}},
            ["nextPage", "css"],
        ),
    ],
)
async def test_a_faulty_input_ends_as_start_error_with_its_path(
    spider_input: Mapping[str, Any], path: list[Any]
) -> None:
    crawler = await crawl(start_message("catalogue", spider_input, allowed=[]))
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "START_ERROR"
    assert crawler.closed["path"] == path
    assert crawler.closed["detail"]
    assert crawler.types.total() == 1


async def test_an_unknown_spider_is_a_start_error() -> None:
    crawler = await crawl(start_message("nope", {}, allowed=[]))
    assert crawler.closed is not None
    assert crawler.closed["reason"] == "START_ERROR"


async def test_anything_but_a_start_message_starts_nothing() -> None:
    async with crawling(start_message("catalogue", {}, allowed=[]), Frontier(), first_line=b"hello\n") as crawler:
        await crawler.run()
    assert crawler.process.returncode == 2
    assert not crawler.types


def test_the_crawler_knows_neither_settings_nor_models_nor_other_adapters() -> None:
    script = (
        "import sys, tasks.crawl.crawler.__main__, tasks.crawl.crawler.addon, tasks.crawl.crawler.session,"
        "tasks.crawl.crawler.politeness, tasks.crawl.crawler.spiders.catalogue,"
        "tasks.crawl.crawler.spiders.property_listings\n"
        "tops = {'settings', 'models', 'resolvers', 'schema', 'tortoise', 'redis', 'strawberry'}\n"
        "print([name for name in sys.modules if name.split('.')[0] in tops"
        " or (name.startswith('adapters.') and name != 'adapters.addresses')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout.strip() == "[]"


def test_the_list_of_spiders_is_read_without_scrapy() -> None:
    script = "import sys, tasks.crawl.spiders; print('scrapy' in sys.modules, 'twisted' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    assert found.stdout.strip() == "False False"
