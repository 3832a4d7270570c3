"""The shell around the operations: ids, addresses, origins, headers, bounds, probes, and how the process ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters import embedded
from app import GRACE_SECONDS, HEAD_MAX_BYTES, STALLED_PEER_MILLISECONDS, listening_socket
from models.ids import decode_id
from schema.middleware import FAULT_HANDLERS, RequestIdentity
from tests.conftest import ApiServer, Programs
from tests.factories import Person
from tests.harness.client import GraphQLClient, StreamClosed, open_socket
from tests.harness.processes import CHECKOUT, Api
from tests.harness.waiting import eventually

APP_ORIGIN = "https://app.example.com"
TIMEOUT_SECONDS = 1.0
MAX_BODY_BYTES = 4_096
SETTINGS = {
    "ALLOWED_ORIGINS": APP_ORIGIN,
    "TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8",
    "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    "BODY_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
}
TYPENAME = "{ __typename }"
WORKER_SCRIPT = next((CHECKOUT / "schema" / "static" / "assets").glob("*.worker-*.js")).name


@pytest_asyncio.fixture(scope="module")
async def http(api_server: ApiServer) -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(api_server) as client:
        yield client


@asynccontextmanager
async def http_client(api: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=api.url, timeout=10, trust_env=False) as client:
        yield client


# -- request ids


async def test_own_request_id_comes_back_and_is_in_the_log(api_server: ApiServer, http: httpx.AsyncClient) -> None:
    answer = await http.get("/nothing", headers={"X-Request-ID": "mine_0123-abc"})
    assert answer.headers["X-Request-ID"] == "mine_0123-abc"
    assert answer.json()["errors"][0]["extensions"]["requestId"] == "mine_0123-abc"
    line = await api_server.wait_event("request", request_id="mine_0123-abc")
    assert (line["method"], line["path"], line["status"]) == ("GET", "/nothing", 404)


@pytest.mark.parametrize("nasty", ["short", "a" * 65, "with space", "<script>alert(1)", "äöüäöüäöü", '"}{"level":"x"'])
async def test_unfit_request_id_is_replaced(http: httpx.AsyncClient, nasty: str) -> None:
    answer = await http.get("/healthz", headers=[(b"X-Request-ID", nasty.encode())])
    assert len(answer.headers["X-Request-ID"]) == 32
    assert answer.headers["X-Request-ID"].isalnum()


async def test_two_request_ids_are_none(http: httpx.AsyncClient) -> None:
    answer = await http.get("/healthz", headers=[("X-Request-ID", "first-one-1"), ("X-Request-ID", "second-one-2")])
    assert answer.headers.get_list("X-Request-ID") != ["first-one-1"]
    assert len(answer.headers.get_list("X-Request-ID")) == 1


async def test_query_string_is_not_logged(api_server: ApiServer, http: httpx.AsyncClient) -> None:
    await http.get("/nothing?signature=hush-hush", headers={"X-Request-ID": "query-string-1"})
    await api_server.wait_event("request", request_id="query-string-1")
    assert "hush-hush" not in api_server.log.read_text()


# -- origins


async def test_named_origin_may_read_answers(client: GraphQLClient) -> None:
    answer = await client.raw(TYPENAME, headers={"Origin": APP_ORIGIN})
    assert answer.headers["Access-Control-Allow-Origin"] == APP_ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    assert {"X-Request-ID", "Retry-After", "RateLimit", "Content-Range", "Content-Disposition"} <= set(
        answer.headers["Access-Control-Expose-Headers"].split(", ")
    )


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://app.example.com", f"{APP_ORIGIN}.evil.example", f"{APP_ORIGIN}:444", "null"],
)
async def test_other_origin_may_not_read_answers(http: httpx.AsyncClient, origin: str) -> None:
    answer = await http.get("/healthz", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert "Origin" in answer.headers["Vary"]


async def test_refusals_can_be_read_by_the_named_origin(http: httpx.AsyncClient) -> None:
    answer = await http.post("/graphql", content=b" " * (MAX_BODY_BYTES + 1), headers={"Origin": APP_ORIGIN})
    assert answer.status_code == 413
    assert answer.headers["Access-Control-Allow-Origin"] == APP_ORIGIN


async def test_preflight_is_answered_for_the_named_origin_only(http: httpx.AsyncClient) -> None:
    wanted = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    allowed = await http.options("/graphql", headers={"Origin": APP_ORIGIN, **wanted})
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == APP_ORIGIN
    assert int(allowed.headers["Access-Control-Max-Age"]) >= 600
    refused = await http.options("/graphql", headers={"Origin": "https://evil.example", **wanted})
    assert refused.status_code == 400
    assert "Access-Control-Allow-Origin" not in refused.headers


# -- headers and error bodies


@pytest.mark.parametrize(
    ("method", "path", "accept"),
    [
        ("GET", "/graphql", "text/html"),
        ("POST", "/graphql", "application/json"),
        ("GET", "/healthz", "*/*"),
        ("GET", "/readyz", "*/*"),
        ("GET", "/nothing", "*/*"),
        ("DELETE", "/graphql", "*/*"),
        ("GET", "/files/nothing", "*/*"),
        ("GET", "/graphql/assets/nothing.js", "*/*"),
    ],
)
async def test_every_answer_is_strict(http: httpx.AsyncClient, method: str, path: str, accept: str) -> None:
    answer = await http.request(method, path, headers={"Accept": accept})
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert len(answer.headers.get_list("Content-Security-Policy")) == 1
    assert "Referrer-Policy" in answer.headers
    assert "X-Request-ID" in answer.headers
    assert "Server" not in answer.headers
    assert "Strict-Transport-Security" not in answer.headers


async def test_only_the_page_may_run_scripts(http: httpx.AsyncClient) -> None:
    page = await http.get("/graphql", headers={"Accept": "text/html"})
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    answer = await http.get("/healthz")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")


async def test_workers_of_the_page_may_load_their_modules(http: httpx.AsyncClient) -> None:
    answer = await http.get(f"/graphql/assets/{WORKER_SCRIPT}")
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "immutable" in answer.headers["Cache-Control"]


async def test_production_insists_on_https(api_server: ApiServer) -> None:
    server = await api_server.second(ENVIRONMENT="production", BASE_URL="https://api.example.com")
    async with http_client(server) as client:
        assert "max-age=" in (await client.get("/healthz")).headers["Strict-Transport-Security"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/graphql/", 404, "NOT_FOUND"),
        ("DELETE", "/graphql", 405, "VALIDATION_ERROR"),
        ("POST", "/healthz", 405, "VALIDATION_ERROR"),
    ],
)
async def test_refusals_of_the_router_are_json(
    http: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/json"
    [error] = answer.json()["errors"]
    assert error["extensions"] == {
        "code": code,
        "statusCode": status,
        "details": {},
        "requestId": answer.headers["X-Request-ID"],
    }
    assert ("Allow" in answer.headers) == (status == 405)


async def test_fault_of_ours_tells_its_id_and_nothing_else() -> None:
    async def fail(_: Request) -> Response:
        raise KeyError("the innermost secret")

    app = Starlette(
        routes=[Route("/", fail)],
        middleware=[Middleware(RequestIdentity), Middleware(ExceptionMiddleware, handlers=FAULT_HANDLERS)],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
        answer = await client.get("/", headers={"X-Request-ID": "the-fault-1"})
    assert answer.status_code == 500
    assert answer.json() == {
        "errors": [
            {
                "message": "Something went wrong on our side.",
                "extensions": {
                    "code": "INTERNAL_SERVER_ERROR",
                    "statusCode": 500,
                    "details": {},
                    "requestId": "the-fault-1",
                },
            }
        ]
    }


# -- addresses


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the left one is the client's own word
        ("203.0.113.9, 10.1.2.3", "203.0.113.9"),  # the right one is a proxy of ours
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::7]:443", "2001:db8::7"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("garbage", "127.0.0.1"),
        ("203.0.113.9, garbage, 10.1.2.3", "10.1.2.3"),
        ("10.0.0.1", "10.0.0.1"),
    ],
)
async def test_address_comes_from_our_proxies(
    api_server: ApiServer, http: httpx.AsyncClient, forwarded: str, address: str
) -> None:
    answer = await http.get("/nothing", headers={"X-Forwarded-For": forwarded})
    line = await api_server.wait_event("request", request_id=answer.headers["X-Request-ID"])
    assert line["ip"] == address


async def test_strangers_cannot_choose_their_address(api_server: ApiServer) -> None:
    server = await api_server.second(TRUSTED_PROXIES="192.0.2.0/24")
    async with http_client(server) as client:
        answer = await client.get("/nothing", headers={"X-Forwarded-For": "203.0.113.9", "X-Real-IP": "203.0.113.9"})
    line = await server.wait_event("request", request_id=answer.headers["X-Request-ID"])
    assert line["ip"] == "127.0.0.1"


# -- bounds


async def test_announced_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/graphql", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.json()["errors"][0]["extensions"]["code"] == "PAYLOAD_TOO_LARGE"
    assert (await http.get("/healthz")).status_code == 200  # the connection survives the refusal


async def test_unannounced_body_over_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 1_024

    answer = await http.post("/graphql", content=chunks(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["errors"][0]["extensions"]["code"] == "PAYLOAD_TOO_LARGE"


async def test_body_that_stops_arriving_is_given_up(api_server: ApiServer) -> None:
    head = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    answer, seconds = await talk(api_server, head + b'{"query":')
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"VALIDATION_ERROR" in answer
    assert TIMEOUT_SECONDS * 0.9 < seconds < TIMEOUT_SECONDS + 3


@pytest.mark.parametrize("said", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_head_that_stops_arriving_is_given_up(api_server: ApiServer, said: bytes) -> None:
    answer, seconds = await talk(api_server, said)
    assert answer == b""
    assert TIMEOUT_SECONDS * 0.9 < seconds < TIMEOUT_SECONDS + 3


async def test_body_that_nobody_reads_does_not_hold_the_connection(api_server: ApiServer) -> None:
    length = 10 * MAX_BODY_BYTES
    head = f"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()
    answer, seconds = await talk(api_server, head + b"x")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert seconds < TIMEOUT_SECONDS + 3


async def test_head_without_end_is_refused(api_server: ApiServer) -> None:
    answer, _ = await talk(api_server, b"GET / HTTP/1.1\r\nX-Long: " + b"x" * (HEAD_MAX_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 400 ")


async def test_message_over_the_limit_closes_the_socket(api_server: ApiServer) -> None:
    async with open_socket(api_server.ws_url) as ws:
        await ws.send_text('{"type":"ping","payload":{"x":"' + "x" * 70_000 + '"}}')
        assert (await ws.closed()).code == 1009


def test_connections_give_up_on_a_peer_that_takes_nothing() -> None:
    option = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
    with listening_socket("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname(), timeout=5):
            listener.settimeout(5)
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.getsockopt(*option) == STALLED_PEER_MILLISECONDS


async def talk(api: Api, said: bytes) -> tuple[bytes, float]:
    """Say something over a bare connection and listen until the server hangs up; the answer and the seconds."""
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    try:
        writer.write(said)
        async with asyncio.timeout(TIMEOUT_SECONDS + 5):
            try:
                answer = await reader.read()
            except ConnectionResetError:
                answer = b""
    finally:
        writer.close()
    return answer, time.monotonic() - started


# -- probes


async def test_all_well_is_ready(http: httpx.AsyncClient) -> None:
    answer = await http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert {name: check["status"] for name, check in answer.json()["checks"].items()} == {
        "postgresql": "ready",
        "redis": "ready",
        "storage": "ready",
    }
    assert all(check["milliseconds"] >= 0 for check in answer.json()["checks"].values())


async def test_lost_redis_degrades_and_lost_postgresql_is_not_ready(programs: Programs, tmp_path: Path) -> None:
    async with embedded.postgres(tmp_path, durable=False) as postgres, embedded.redis(tmp_path, durable=False) as redis:
        server = await programs.api(Api, DATABASE_URL=postgres.url, REDIS_URL=redis.url)
        async with http_client(server) as client:
            assert await readiness(client, "ready")

            await redis.kill()
            status, checks = await eventually(lambda: readiness(client, "degraded"), 10)
            assert status == 200
            assert checks["redis"]["status"] == "degraded"
            assert checks["postgresql"]["status"] == "ready"

            await postgres.kill()
            status, checks = await eventually(lambda: readiness(client, "down"), 10)
            assert status == 503
            assert checks["postgresql"]["status"] == "down"
            assert (await client.get("/healthz")).status_code == 200

            await redis.restart_immediate()
            await postgres.restart_immediate()
            await eventually(lambda: readiness(client, "ready"), 10)
        assert await server.stop() == 0


async def readiness(client: httpx.AsyncClient, state: str) -> tuple[int, Any] | None:
    """Status code and checks once the state is the wanted one."""
    answer = await client.get("/readyz")
    body = answer.json()
    return (answer.status_code, body["checks"]) if body["status"] == state else None


# -- the end


async def test_stop_with_an_open_socket_says_1012_and_exits_0(api_server: ApiServer) -> None:
    server = await api_server.second()
    async with open_socket(server.ws_url) as ws:
        started = time.monotonic()
        server.terminate()
        with pytest.raises(StreamClosed) as closed:
            await ws.receive()
        assert closed.value.code == 1012
        assert await server.wait_exit(5) == 0
        assert time.monotonic() - started < 5
    assert server.events("api_stopped")


async def test_stop_with_a_half_sent_body_exits_0(programs: Programs) -> None:
    """With less patience than in production, where it is the same code and the same wait, only longer."""
    assert GRACE_SECONDS <= 10
    impatient = "import sys, app, cli; app.GRACE_SECONDS = 1; sys.exit(cli.main(['api']))"
    server = await programs.api(Api, ["-c", impatient], BODY_TIMEOUT_SECONDS="60")
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
    await writer.drain()
    server.terminate()
    assert await server.wait_exit(6) == 0
    writer.close()


async def test_draining_server_answers_but_is_not_ready(api_server: ApiServer) -> None:
    server = await api_server.second(DRAIN_SECONDS="1")
    async with http_client(server) as client:
        server.terminate()
        await server.wait_event("api_draining")
        draining = await client.get("/readyz")
        assert (draining.status_code, draining.json()["status"]) == (503, "draining")
        assert (await client.get("/healthz")).status_code == 200
    assert await server.wait_exit(5) == 0


async def test_taken_port_stops_the_start(programs: Programs, api_server: ApiServer) -> None:
    server = programs.start(api_server.argv[1:], kind="api", PORT=str(api_server.port))
    assert await server.wait_exit(20) != 0
    assert "api_listening" not in server.log.read_text()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "https://app.example.com/"),
        ("TRUSTED_PROXIES", "the-proxy"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
async def test_bad_setting_stops_the_start_by_name(
    programs: Programs, api_server: ApiServer, variable: str, value: str
) -> None:
    server = programs.start(api_server.argv[1:], kind="api", **{variable: value})
    assert await server.wait_exit(20) == 2
    assert variable in server.log.read_text()


# -- the access log


async def test_the_line_of_a_request_says_who_asked_for_what_and_nothing_more(
    api_server: ApiServer, client: GraphQLClient, admin: Person
) -> None:
    document = "query WhoAmI($hidden: Boolean!) { me { id @include(if: $hidden) username } }"
    headers = {"X-Request-ID": "access-line-1"}
    await client.run(document, {"hidden": True}, token=admin.token, operation_name="WhoAmI", headers=headers)
    line = await api_server.wait_event("request", request_id="access-line-1")
    assert (line["operation"], line["status"], line["path"]) == ("WhoAmI", 200, "/graphql")
    assert line["user_id"] == str(decode_id(admin.id)[1])
    assert line["milliseconds"] > 0
    assert "hidden" not in str(line)
    assert admin.token not in api_server.log.read_text()


async def test_the_access_log_can_be_switched_off(api_server: ApiServer) -> None:
    quiet = await api_server.second(ACCESS_LOG="false")
    async with http_client(quiet) as http:
        await http.post("/graphql", json={"query": "{ nothing }"})
        assert 'route="graphql"' in (await http.get("/metrics")).text, "it is counted all the same"
    await quiet.stop()
    assert not quiet.events("request")
