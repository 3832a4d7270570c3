"""How the page and its files are served: policy, caching, compression, and nothing but what the build wrote."""

from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from schema import pages

STATIC = Path(pages.__file__).parent / "static"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=[Route("/graphql", pages.graphiql), *pages.routes()])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api") as client:
        yield client


def _an_asset() -> str:
    return next(path.name for path in (STATIC / "assets").glob("index-*.js"))


@pytest.mark.parametrize(
    "name", ["unknown.js", "..%2findex.html", "%2e%2e%2f%2e%2e%2fpages.py", ".", "..%5cindex.html", "%00"]
)
async def test_names_that_the_build_did_not_write_are_not_found(http: httpx.AsyncClient, name: str) -> None:
    answer = await http.get(f"/graphql/assets/{name}")

    assert answer.status_code == 404
    assert answer.content in (b"", b"Not Found")


async def test_page_may_load_from_its_own_origin_only_and_be_framed_by_none(http: httpx.AsyncClient) -> None:
    answer = await http.get("/graphql")

    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["script-src"] == policy["connect-src"] == policy["worker-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["object-src"] == "'none'"
    assert policy["form-action"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "accept" in answer.headers["vary"].lower()


async def test_everything_the_page_names_exists_and_is_relative_to_it(http: httpx.AsyncClient) -> None:
    page = (await http.get("/graphql")).text

    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert not link.startswith(("/", "http")), "an absolute address breaks below a path prefix"
        assert (await http.get(f"/{link}")).status_code == 200


async def test_page_is_asked_for_each_time_and_hashed_files_are_kept(http: httpx.AsyncClient) -> None:
    assert (await http.get("/graphql")).headers["cache-control"] == "no-cache"
    assert "immutable" in (await http.get(f"/graphql/assets/{_an_asset()}")).headers["cache-control"]
    assert (await http.get("/graphql/assets/third-party-notices.txt")).headers["cache-control"] == "no-cache"


async def test_a_known_etag_is_answered_without_a_body(http: httpx.AsyncClient) -> None:
    first = await http.get("/graphql")
    again = await http.get("/graphql", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    changed = await http.get("/graphql", headers={"If-None-Match": '"other"'})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert changed.status_code == 200


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "GZIP"])
async def test_files_are_compressed_for_those_who_take_it(http: httpx.AsyncClient, accepted: str) -> None:
    path = f"/graphql/assets/{_an_asset()}"
    async with http.stream("GET", path, headers={"Accept-Encoding": accepted}) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])

    body = (STATIC / "assets" / _an_asset()).read_bytes()
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(raw) == body
    assert len(raw) < len(body) / 2
    assert answer.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("accepted", ["identity", "gzip;q=0", "gzip; q=0.000", "br", ""])
async def test_files_are_plain_for_those_who_refuse_compression(http: httpx.AsyncClient, accepted: str) -> None:
    answer = await http.get(f"/graphql/assets/{_an_asset()}", headers={"Accept-Encoding": accepted})

    assert "content-encoding" not in answer.headers
    assert answer.content == (STATIC / "assets" / _an_asset()).read_bytes()


async def test_compressed_and_plain_files_have_different_validators(http: httpx.AsyncClient) -> None:
    path = f"/graphql/assets/{_an_asset()}"
    plain = await http.get(path, headers={"Accept-Encoding": "identity"})
    packed = await http.get(path, headers={"Accept-Encoding": "gzip"})

    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", True),
        ("Text/HTML;q=0.9", True),
        ("*/*", False),
        ("application/json", False),
        ("application/graphql-response+json, application/json;q=0.9", False),
        ("", False),
    ],
)
async def test_only_clients_that_name_html_get_the_page(accept: str, expected: bool) -> None:
    request = Request({"type": "http", "method": "GET", "headers": [(b"accept", accept.encode())]})

    assert pages.accepts_page(request) is expected


def test_no_file_of_the_build_is_a_source_map_or_names_a_foreign_font() -> None:
    names = [path.name for path in STATIC.rglob("*") if path.is_file()]
    styles = "".join(path.read_text() for path in STATIC.rglob("*.css"))

    assert not [name for name in names if name.endswith(".map")]
    assert not re.search(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//", styles)
