"""What visitors of sites get over real HTTP: which host answers, which file, which headers, and what is refused."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import brotli
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from adapters import storage
from models.ids import Prefix, encode_id
from tasks.build import uploads
from tests.conftest import ApiServer
from tests.harness.sites import SiteDeployment, SiteDesk, SiteProject, open_site_desk
from tests.harness.waiting import eventually

HOME = "<h1>home</h1>" + "<p>text</p>" * 300
SCRIPT = "console.log('app');" * 200
LARGE = os.urandom(700_000)
FILES: dict[str, str | bytes] = {
    "index.html": HOME,
    "about.html": "about",
    "docs/index.html": "docs",
    "both.html": "both the page",
    "both/index.html": "both the folder",
    "404.html": "nothing here",
    "assets/app-BCOJk9TN.js": SCRIPT,
    "plain.js": SCRIPT,
    "large.bin": LARGE,
    "empty.txt": "",
    "ünï côde.txt": "unicode",
    "shadowed.html": "the file",
    ".well-known/security.txt": "Contact: x",
    "_redirects": (
        "/old /about 301\n/temp/* /docs/:splat 302\n/shadowed /about\n/forced.html /about 307!\n"
        "/api/* https://api.example.com/:splat 200\n/go/* /:splat 301\n/shown /about 200\n/gone /about 404\n"
        "/folder /docs 200\n/away https://example.com/x?y=1\n/search q=:q /find/:q 302\n/loop /loop\n"
        "/nowhere /missing 200\n"
    ),
    "forced.html": "never seen",
    "_headers": (
        "/*\n  X-Frame-Options: DENY\n  Set-Cookie: a=b\n/about\n  Cache-Control: no-store\n"
        "  Content-Type: text/plain\n  ETag: x\n/large.bin\n  Access-Control-Allow-Origin: *\n"
    ),
}


@dataclass(frozen=True, slots=True)
class Visit:
    """A client and the site it visits."""

    http: httpx.AsyncClient
    project: SiteProject
    deployment: SiteDeployment

    async def get(self, path: str, *, host: str | None = None, method: str = "GET", **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Accept-Encoding": "identity", "Host": host or f"{self.project.slug}.localhost", **names}
        return await self.http.request(method, path, headers=sent)


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SiteDesk]:
    async with open_site_desk(settings_env, tmp_path_factory.mktemp("outputs")) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def http(api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api_server.url, timeout=10, trust_env=False) as client:
        yield client


@pytest_asyncio.fixture(scope="module")
async def visit(desk: SiteDesk, http: httpx.AsyncClient) -> Visit:
    project = await desk.project()
    return Visit(http, project, await desk.deploy(project, FILES))


async def new_visit(desk: SiteDesk, http: httpx.AsyncClient, files: dict[str, str | bytes], **options: bool) -> Visit:
    project = await desk.project()
    return Visit(http, project, await desk.deploy(project, files, **options))  # type: ignore[arg-type] # forwarded


async def raw(api_server: ApiServer, request: str) -> tuple[int, str]:
    """Status and body of a request that no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api_server.port)
    try:
        writer.write(request.replace("\n", "\r\n").encode("latin-1"))
        async with asyncio.timeout(5):
            answer = (await reader.read()).decode("latin-1")
    finally:
        writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    return int(head.split(" ")[1]), body


# -- hosts


@pytest.mark.parametrize(
    "host", ["{}.localhost", "{}.LOCALHOST", "{}.localhost.", "{}.localhost:8000", "{}.localhost:1"]
)
async def test_a_site_is_found_by_its_host(visit: Visit, host: str) -> None:
    answer = await visit.get("/", host=host.format(visit.project.slug.upper()))
    assert (answer.status_code, answer.text) == (200, HOME)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("no-such-site.localhost", 404),
        ("a.{}.localhost", 404),
        (".localhost", 404),
        ("..localhost", 404),
        ("{}..localhost", 404),
        ("_.localhost", 404),
        ("-{}.localhost", 404),
        ("{}.localhost:99999", 400),
        ("{}.localhost:", 400),
        ("{}.localhost:8000:8000", 400),
        ("user@{}.localhost", 400),
        ("{}.localhost/..", 400),
        ("{}.localhost#.example", 400),
        ("{}.localhost, other.localhost", 400),
        ("[{}.localhost]", 400),
        ("{}.localhost\\@127.0.0.1", 400),
        ("{} .localhost", 400),
        ("{}%2elocalhost", 400),
        ("", 400),
        ("é.localhost", 400),
    ],
)
async def test_other_hosts_are_refused_and_show_nothing(
    api_server: ApiServer, visit: Visit, host: str, status: int
) -> None:
    named = host.format(visit.project.slug)
    for path in ("/", "/graphql", "/healthz"):
        found, body = await raw(api_server, f"GET {path} HTTP/1.1\nHost: {named}\nConnection: close\n\n")
        assert found == status
        assert "home" not in body
        assert "graphql" not in body.lower()


@pytest.mark.parametrize("names", [("{}.localhost", "127.0.0.1"), ("127.0.0.1", "{}.localhost"), ("{}.localhost",) * 2])
async def test_two_hosts_are_none(api_server: ApiServer, visit: Visit, names: tuple[str, str]) -> None:
    lines = "\n".join(f"Host: {name.format(visit.project.slug)}" for name in names)
    status, body = await raw(api_server, f"GET / HTTP/1.1\n{lines}\nConnection: close\n\n")
    assert (status, "home" in body) == (400, False)


async def test_only_the_host_header_names_a_site(api_server: ApiServer, visit: Visit) -> None:
    site = f"{visit.project.slug}.localhost"
    forwarded = await visit.http.get("/", headers={"X-Forwarded-Host": site, "Forwarded": f"host={site}"})
    assert forwarded.json()["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    own = await visit.get("/about", x_forwarded_host="127.0.0.1", x_forwarded_server="127.0.0.1")
    assert own.text == "about"
    absolute = f"GET http://{site}/about HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n"
    assert (await raw(api_server, absolute))[0] == 404
    assert (await raw(api_server, "GET / HTTP/1.1\nHost: [::1]:80\nConnection: close\n\n"))[0] == 404  # the API's


@pytest.mark.parametrize("path", ["/graphql", "/healthz", "/readyz", "/files/x", "/graphql/assets/x", "/metrics"])
async def test_the_api_does_not_exist_on_a_site(visit: Visit, path: str) -> None:
    answer = await visit.get(path, accept="text/html", origin="https://app.example.com", cookie="session=1")
    assert (answer.status_code, answer.text) == (404, "nothing here")
    assert not {"set-cookie", "access-control-allow-origin", "content-security-policy"} & set(answer.headers)
    posted = await visit.get(path, method="POST")
    assert posted.status_code == 405


async def test_a_site_does_not_exist_on_the_api(visit: Visit) -> None:
    for path in ("/about", f"/{visit.project.slug}", "/index.html"):
        answer = await visit.http.get(path)
        assert answer.json()["errors"][0]["extensions"]["code"] == "NOT_FOUND"
    assert (await visit.http.get("/healthz", headers={"Host": "localhost"})).json()["status"] == "alive"


async def test_a_site_has_no_websocket(api_server: ApiServer, visit: Visit) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        async with connect(api_server.ws_url, additional_headers={"Host": f"{visit.project.slug}.localhost"}):
            pass
    assert refusal.value.response.status_code in (400, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"])
async def test_a_site_is_read_only(visit: Visit, method: str) -> None:
    answer = await visit.get("/", method=method)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


async def test_options_are_told(visit: Visit) -> None:
    answer = await visit.get("/", method="OPTIONS", origin="https://x.example", access_control_request_method="GET")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "access-control-allow-origin" not in answer.headers


# -- addresses


async def test_a_deployment_has_its_own_address_and_hides_from_search(desk: SiteDesk, visit: Visit) -> None:
    own = await visit.get("/", host=f"{visit.deployment.label}.localhost")
    production = await visit.get("/")
    assert own.text == production.text == HOME
    assert own.headers["x-robots-tag"] == "noindex"
    assert "x-robots-tag" not in production.headers
    assert own.headers["x-switchyard-deployment"] == encode_id(Prefix.DEPLOYMENT, visit.deployment.id)


async def test_an_alias_leads_to_its_deployment(desk: SiteDesk, http: httpx.AsyncClient) -> None:
    project = await desk.project()
    visit = Visit(http, project, await desk.deploy(project, {"index.html": "branch"}, alias="feat-x"))
    branch = await visit.get("/", host=f"feat-x--{project.slug}.localhost")
    assert (branch.text, branch.headers["x-robots-tag"]) == ("branch", "noindex")
    assert (await visit.get("/")).status_code == 404
    assert (await visit.get("/", host=f"other--{project.slug}.localhost")).status_code == 404


async def test_an_unfinished_deployment_has_no_address(desk: SiteDesk, visit: Visit) -> None:
    running = await desk.running(visit.project)
    host = f"{running.label}.localhost"
    async with desk.pool.acquire() as connection:
        # As far as files go it could be served.
        artifact = await desk.artifact({"index.html": "half built"})
        uploaded = await uploads.upload(
            artifact, project_id=visit.project.id, storage=storage.current(), pool=desk.pool
        )
        await uploads.record(connection, running.id, artifact, uploaded)
    assert (await visit.get("/", host=host)).status_code == 404
    await desk.finish(running, {"index.html": "half built"}, alias=None)
    await eventually(lambda: _shows(visit, host), 2)


async def _shows(visit: Visit, host: str) -> bool:
    return (await visit.get("/", host=host)).text == "half built"


async def test_a_deployments_key_opens_no_other_project(desk: SiteDesk, visit: Visit) -> None:
    other = await desk.project()
    assert (await visit.get("/", host=f"{visit.deployment.site_key}-{other.slug}.localhost")).status_code == 404


async def test_a_deployments_address_wins_over_a_project_of_the_same_name(desk: SiteDesk, visit: Visit) -> None:
    impostor = await desk.project(visit.deployment.label)
    await desk.deploy(impostor, {"index.html": "impostor"})
    assert (await visit.get("/", host=f"{visit.deployment.label}.localhost")).text == HOME


async def test_a_removed_deployment_is_gone(desk: SiteDesk, http: httpx.AsyncClient) -> None:
    visit = await new_visit(desk, http, {"index.html": "x"})
    host = f"{visit.deployment.label}.localhost"
    assert (await visit.get("/", host=host)).status_code == 200
    await desk.remove(visit.deployment)

    async def is_gone() -> bool:
        return (await visit.get("/", host=host)).status_code == 404

    await eventually(is_gone, 3)
    assert (await visit.get("/")).status_code == 404


# -- paths


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/index.html", HOME),
        ("/about", "about"),
        ("/about.html", "about"),
        ("/docs/", "docs"),
        ("/docs/index.html", "docs"),
        ("/both", "both the page"),
        ("/both/", "both the folder"),
        ("/%61bout", "about"),
        ("/%C3%BCn%C3%AF%20c%C3%B4de.txt", "unicode"),
        ("/.well-known/security.txt", "Contact: x"),
        ("/empty.txt", ""),
        ("/about?x=1", "about"),
        ("/shadowed", "the file"),
        ("/shown", "about"),
        ("/folder", "docs"),
    ],
)
async def test_a_path_shows_a_file(visit: Visit, path: str, text: str) -> None:
    answer = await visit.get(path)
    assert (answer.status_code, answer.text) == (200, text)


@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/docs", 301, "/docs/"),
        ("/docs?a=1&b=%20", 301, "/docs/?a=1&b=%20"),
        ("/about/", 301, "/about"),
        ("/old", 301, "/about"),
        ("/old/", 301, "/about"),
        ("/old?a=1", 301, "/about?a=1"),
        ("/temp/a/b", 302, "/docs/a/b"),
        ("/forced.html", 307, "/about"),
        ("/away", 301, "https://example.com/x?y=1"),
        ("/search?q=a%2Fb", 302, "/find/a/b"),
        ("/go//evil.example/%2e", 400, None),
        ("/go//evil.example", 301, "/evil.example"),
        ("/go/%0d%0aSet-Cookie:a=b", 400, None),
        ("/loop", 404, None),
        ("/nowhere", 404, None),
        ("/gone", 404, None),
        ("/api/x", 404, None),
        ("/missing", 404, None),
        ("/large.bin/", 404, None),
        ("/_redirects", 404, None),
        ("/_headers", 404, None),
    ],
)
async def test_a_path_leads_elsewhere(visit: Visit, path: str, status: int, location: str | None) -> None:
    answer = await visit.get(path)
    assert (answer.status_code, answer.headers.get("location")) == (status, location)


@pytest.mark.parametrize(
    "path",
    [
        *("/../etc/passwd", "/docs/../about", "/./about", "/docs/..", "/%2e%2e/about", "/.%2e/about", "/%2e/about"),
        *("/docs%2findex.html", "/docs%2Findex.html", "/docs%5cindex.html", "/docs\\index.html", "/about%00.html"),
        *("/%252e%252e/about", "//about", "/docs//index.html", "///", "/%zz", "/%", "/about%", "/%ff", "/%c0%ae/about"),
        *("/about%0a", "/about;x", "/about%3fx", "/about%23x", "/ABOUT", "/" + "a" * 5_000, "/%2f", "/%2fabout"),
    ],
)
async def test_paths_that_trick_lead_nowhere(api_server: ApiServer, visit: Visit, path: str) -> None:
    head = f"GET {path} HTTP/1.1\nHost: {visit.project.slug}.localhost\nConnection: close\n\n"
    status, body = await raw(api_server, head)
    assert status in (400, 404)
    assert "about" not in body


async def test_the_404_page_is_the_sites_own(desk: SiteDesk, http: httpx.AsyncClient, visit: Visit) -> None:
    answer = await visit.get("/missing", if_none_match="*")
    assert (answer.status_code, answer.text) == (404, "nothing here")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "etag" not in answer.headers
    bare = await (await new_visit(desk, http, {"index.html": "x"})).get("/missing")
    assert (bare.status_code, bare.headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_an_application_gets_navigations(desk: SiteDesk, http: httpx.AsyncClient) -> None:
    visit = await new_visit(desk, http, {"index.html": "app", "app.js": "x"}, spa_fallback=True)
    for path, headers in (
        ("/deep/link", {}),
        ("/deep/link.v2", {"accept": "text/html,*/*"}),
        ("/deep/link.v2", {"sec_fetch_mode": "navigate"}),
    ):
        answer = await visit.get(path, **headers)
        assert (answer.status_code, answer.text) == (200, "app")
        assert answer.headers["cache-control"] == "public, max-age=0, must-revalidate"
    for path, headers in (
        ("/missing.js", {}),
        ("/assets/app-BCOJk9TN.js", {"sec_fetch_mode": "no-cors"}),
        ("/api/x", {"sec_fetch_mode": "cors", "accept": "text/html"}),
    ):
        assert (await visit.get(path, **headers)).status_code == 404


async def test_a_rule_for_everything_does_not_hide_files(desk: SiteDesk, http: httpx.AsyncClient) -> None:
    visit = await new_visit(
        desk, http, {"index.html": "app", "about.html": "about", "docs/index.html": "docs", "_redirects": "/* / 200"}
    )
    assert [(await visit.get(path)).text for path in ("/about", "/docs/", "/x/y")] == ["about", "docs", "app"]
    assert (await visit.get("/docs")).headers["location"] == "/docs/"


# -- headers


async def test_a_page_is_asked_for_again_and_a_fingerprinted_file_is_not(visit: Visit) -> None:
    for path in ("/", "/plain.js", "/large.bin"):
        assert (await visit.get(path)).headers["cache-control"] == "public, max-age=0, must-revalidate"
    asset = await visit.get("/assets/app-BCOJk9TN.js")
    assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert asset.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_every_file_is_sent_with_care(visit: Visit) -> None:
    for path in ("/", "/large.bin", "/missing"):
        headers = (await visit.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "strict-origin-when-cross-origin"
        assert headers["vary"] == "Accept-Encoding"
        assert len(headers["x-request-id"]) == 32
        assert "server" not in headers
        assert "set-cookie" not in headers


async def test_a_sites_own_headers_are_added_where_they_may(visit: Visit) -> None:
    assert (await visit.get("/")).headers["x-frame-options"] == "DENY"
    about = (await visit.get("/about")).headers
    assert (about["cache-control"], about["content-type"]) == ("no-store", "text/plain")
    assert about.get_list("cache-control") == ["no-store"]
    assert about["etag"] != "x"
    assert (await visit.get("/large.bin")).headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in (await visit.get("/")).headers


async def test_a_hidden_site_cannot_show_itself(desk: SiteDesk, http: httpx.AsyncClient) -> None:
    visit = await new_visit(desk, http, {"index.html": "x", "_headers": "/*\n X-Robots-Tag: all\n"})
    assert (await visit.get("/")).headers["x-robots-tag"] == "all"
    own = await visit.get("/", host=f"{visit.deployment.label}.localhost")
    assert own.headers.get_list("x-robots-tag") == ["noindex"]


# -- what the browser has already


@pytest.mark.parametrize("known", ["{}", "W/{}", '"other", {}', "*"])
async def test_what_the_browser_has_is_not_sent_again(visit: Visit, known: str) -> None:
    etag = (await visit.get("/")).headers["etag"]
    answer = await visit.get("/", if_none_match=known.format(etag))
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "content-length" not in answer.headers


async def test_another_content_is_sent(visit: Visit) -> None:
    assert (await visit.get("/", if_none_match='"other"')).status_code == 200
    assert (await visit.get("/", if_none_match="")).status_code == 200


async def test_the_same_content_has_the_same_etag_in_each_deployment(desk: SiteDesk, visit: Visit) -> None:
    again = await desk.deploy(visit.project, {"copy.html": HOME}, alias=None)
    copy = await visit.get("/copy", host=f"{again.label}.localhost")
    assert copy.headers["etag"] == (await visit.get("/")).headers["etag"]


async def test_head_tells_without_sending(visit: Visit) -> None:
    for path in ("/", "/large.bin", "/missing", "/docs"):
        head, get = await visit.get(path, method="HEAD"), await visit.get(path)
        assert head.content == b""
        assert head.status_code == get.status_code
        for name in ("content-length", "content-type", "etag", "location"):
            assert head.headers.get(name) == get.headers.get(name)


# -- forms


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("br", "br"),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0, gzip;q=0.0", None),
        ("*", "br"),
        ("*;q=0", None),
        ("br;q=0, *;q=0.5", "gzip"),
        ("identity", None),
        ("identity;q=1, br;q=0.5", None),
        ("identity;q=0.5, br", "br"),
        ("BR", "br"),
        ("br;q=nonsense", None),
        ("deflate", None),
        ("", None),
        ("x" * 10_000 + ", br", None),
    ],
)
async def test_the_form_is_the_one_the_client_prefers(visit: Visit, accepted: str, coding: str | None) -> None:
    answer = await visit.get("/", accept_encoding=accepted)
    assert answer.headers.get("content-encoding") == coding
    assert answer.text == HOME
    assert answer.headers["vary"] == "Accept-Encoding"


async def test_each_form_has_its_own_etag(visit: Visit) -> None:
    answers = {accepted: await visit.get("/", accept_encoding=accepted) for accepted in ("identity", "br", "gzip")}
    assert len({answer.headers["etag"] for answer in answers.values()}) == 3
    assert int(answers["br"].headers["content-length"]) < len(HOME)
    crossed = await visit.get("/", accept_encoding="br", if_none_match=answers["identity"].headers["etag"])
    assert crossed.status_code == 200
    known = await visit.get("/", accept_encoding="br", if_none_match=answers["br"].headers["etag"])
    assert (known.status_code, known.headers["etag"]) == (304, answers["br"].headers["etag"])


async def test_forms_unpack_to_the_content(api_server: ApiServer, visit: Visit) -> None:
    for coding, unpack in (("br", brotli.decompress), ("gzip", gzip.decompress)):
        async with visit.http.stream(
            "GET", "/plain.js", headers={"Host": f"{visit.project.slug}.localhost", "Accept-Encoding": coding}
        ) as answer:
            packed = b"".join([chunk async for chunk in answer.aiter_raw()])
        assert unpack(packed) == SCRIPT.encode()


async def test_a_picture_is_sent_as_it_is(visit: Visit) -> None:
    assert "content-encoding" not in (await visit.get("/large.bin", accept_encoding="br, gzip")).headers


# -- ranges


@pytest.mark.parametrize("path", ["/large.bin", "/plain.js"])
async def test_a_range_is_answered_in_part(visit: Visit, path: str) -> None:
    whole = LARGE if path == "/large.bin" else SCRIPT.encode()
    size = len(whole)
    for asked, start, end in (
        ("bytes=0-3", 0, 4),
        ("bytes=100-", 100, size),
        ("bytes=-5", size - 5, size),
        (f"bytes={size - 2}-{size + 50}", size - 2, size),
        (f"bytes=-{size * 2}", 0, size),
    ):
        answer = await visit.get(path, range=asked, accept_encoding="br, gzip")
        assert (answer.status_code, answer.content) == (206, whole[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert "content-encoding" not in answer.headers


@pytest.mark.parametrize("asked", [f"bytes={len(LARGE)}-", "bytes=9999999-", "bytes=-0"])
async def test_a_range_outside_the_file_is_unsatisfiable(visit: Visit, asked: str) -> None:
    answer = await visit.get("/large.bin", range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(LARGE)}")


@pytest.mark.parametrize("asked", ["bytes=", "bytes=-", "bytes=3-1", "lines=0-1", "bytes=0-1,3-4", "bytes=x-y"])
async def test_a_range_we_do_not_serve_is_ignored(visit: Visit, asked: str) -> None:
    answer = await visit.get("/plain.js", range=asked)
    assert (answer.status_code, answer.text) == (200, SCRIPT)


async def test_a_range_of_a_changed_file_gives_the_whole(visit: Visit) -> None:
    etag = (await visit.get("/plain.js")).headers["etag"]
    packed = (await visit.get("/plain.js", accept_encoding="br")).headers["etag"]
    statuses = [
        (await visit.get("/plain.js", range="bytes=0-3", if_range=value)).status_code
        for value in (etag, packed, '"other"', f"W/{etag}", "Wed, 21 Oct 2026 07:28:00 GMT")
    ]
    assert statuses == [206, 200, 200, 200, 200]


async def test_a_large_file_arrives_whole(visit: Visit) -> None:
    answer = await visit.get("/large.bin")
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(LARGE).digest()


async def test_many_ask_for_a_large_file_and_leave(api_server: ApiServer, visit: Visit) -> None:
    head = f"GET /large.bin HTTP/1.1\r\nHost: {visit.project.slug}.localhost\r\n\r\n".encode()
    for _ in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", api_server.port)
        writer.write(head)
        await reader.readexactly(1_000)
        writer.transport.abort()
    assert (await visit.get("/large.bin")).content == LARGE
    assert not [line for line in api_server.events() if line.get("level") in ("error", "critical")]


# -- outages


async def test_without_the_file_store_remembered_files_are_served(
    desk: SiteDesk, http: httpx.AsyncClient, api_server: ApiServer
) -> None:
    visit = await new_visit(desk, http, {"index.html": "remembered", "other.html": "never asked for"})
    assert (await visit.get("/")).text == "remembered"
    keys = [found.key async for found in storage.current().list(f"sites/{visit.project.id}/")]
    await storage.current().delete(keys)
    assert (await visit.get("/")).text == "remembered"
    answer = await visit.get("/other")
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["cache-control"]) == (
        503,
        "2",
        "no-store",
    )


async def test_without_the_database_remembered_sites_are_served(
    desk: SiteDesk, http: httpx.AsyncClient, visit: Visit
) -> None:
    unknown = Visit(http, await desk.project(), visit.deployment)
    assert (await visit.get("/")).status_code == 200
    async with desk.pool.acquire() as connection, connection.transaction():
        # Whoever reads it now waits: to the API the database is too slow to be there.
        await connection.execute("LOCK TABLE site_aliases IN ACCESS EXCLUSIVE MODE")

        async def is_asked() -> bool:
            await visit.get("/")
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'site_aliases'::regclass"
            return bool(await connection.fetchval(waiting))

        await eventually(is_asked, 5)
        assert (await visit.get("/")).text == HOME
        refused = await unknown.get("/")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert (await visit.get("/")).status_code == 200
