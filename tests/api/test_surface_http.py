"""GraphQL over HTTP: the audits of the npm package `graphql-http` that matter, and what it does not ask.

The names in brackets are those audits' ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
import pytest
import pytest_asyncio
from graphql import get_introspection_query
from structlog.testing import capture_logs

from schema.execution import Deadlines
from tests.api import surface as small
from tests.api.surface import DEADLINE_SECONDS, Surface, surface

JSON = "application/json"
RESPONSE = "application/graphql-response+json"


@pytest_asyncio.fixture(scope="module")
async def api() -> AsyncIterator[Surface]:
    async with surface() as running:
        yield running


async def send(api: Surface, body: bytes | str, **headers: str) -> httpx.Response:
    given = {
        "content-type": JSON,
        "accept": RESPONSE,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return await api.client.post("/graphql", content=body, headers=given)


def error_of(response: httpx.Response) -> Any:
    """The only error; every error has the contract's shape."""
    assert response.headers["content-type"].split(";")[0] in (JSON, RESPONSE)
    body = response.json()
    assert "data" not in body or body["data"] is None or response.status_code == 200
    (error,) = body["errors"]
    assert set(error["extensions"]) >= {"code", "statusCode", "details", "requestId"}
    assert error["extensions"]["requestId"] == response.headers["x-request-id"]
    return error


# -- requests that are refused before GraphQL sees them


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b'"x"',
        b"1",
        b"null",
        b"\xff\xfe",
        b'{"query": "{hello}"',
        b"[" * 5_000 + b"]" * 5_000,
        b'{"query":"{hello}","variables":{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}}",
        b"NaN",
    ],
)
@pytest.mark.parametrize("accept", [JSON, RESPONSE])
async def test_a_body_that_is_no_json_object_is_a_bad_request(api: Surface, body: bytes, accept: str) -> None:
    """[423L, 572B, DFE2]"""
    response = await send(api, body, accept=accept)
    assert response.status_code == 400
    assert error_of(response)["extensions"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["query"]),
        ({"query": ""}, ["query"]),
        ({"query": 1}, ["query"]),
        ({"query": {"a": 1}}, ["query"]),
        ({"query": "{hello}", "variables": [1]}, ["variables"]),
        ({"query": "{hello}", "variables": "{}"}, ["variables"]),
        ({"query": "{hello}", "operationName": 5}, ["operationName"]),
        ({"query": "{hello}", "extensions": "x"}, ["extensions"]),
    ],
)
async def test_a_parameter_of_the_wrong_type_is_named(api: Surface, body: Any, path: list[str]) -> None:
    """[LKJ0, 34A2, 3E3A, 6A09, 4F50, 69B0, 758E]"""
    for accept in (JSON, RESPONSE):
        response = await send(api, orjson.dumps(body), accept=accept)
        assert response.status_code == 400
        assert error_of(response)["extensions"]["details"]["path"] == path


async def test_batches_are_refused(api: Surface) -> None:
    response = await send(api, b'[{"query":"{hello}"}]')
    assert response.status_code == 400
    assert "Batches" in error_of(response)["message"]


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/application/json",
        "application/json-patch+json",
        "application/json; charset=latin-1",
        "",
    ],
)
async def test_only_json_bodies_are_read(api: Surface, content_type: str) -> None:
    """[7267]; the simple types of foreign forms above all."""
    response = await send(api, b'{"query":"{hello}"}', content_type=content_type)
    assert response.status_code == 415
    error_of(response)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=UTF-8", 'APPLICATION/JSON;charset="utf-8"']
)
async def test_json_may_say_that_it_is_utf8(api: Surface, content_type: str) -> None:
    response = await send(api, '{"query":"{hello(name:\\"ñ\\")}"}'.encode(), content_type=content_type)
    assert response.json() == {"data": {"hello": "Hello ñ"}}


async def test_operations_by_get_are_refused_and_browsers_get_the_page(api: Surface) -> None:
    response = await api.client.get("/graphql", params={"query": "{hello}"}, headers={"accept": JSON})
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    error_of(response)
    stream = await api.client.get(
        "/graphql", params={"query": "subscription{quiet}"}, headers={"accept": "text/event-stream"}
    )
    assert stream.status_code == 405
    page = await api.client.get("/graphql", headers={"accept": "text/html,*/*;q=0.8"})
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
async def test_other_methods_are_refused(api: Surface, method: str) -> None:
    response = await api.client.request(method, "/graphql", json={"query": "{hello}"})
    assert response.status_code == 405
    error_of(response)


async def test_a_client_that_takes_no_form_of_ours_is_told_so(api: Surface) -> None:
    response = await send(api, b'{"query":"{hello}"}', accept="application/xml")
    assert response.status_code == 406
    error_of(response)


# -- forms of answers


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", JSON),
        ("application/*", JSON),
        (JSON, JSON),
        (RESPONSE, RESPONSE),
        (f"{RESPONSE}, {JSON};q=0.9", RESPONSE),
        (f"{JSON};q=0.1, {RESPONSE};q=0.5", RESPONSE),
        (f"{RESPONSE};q=0, {JSON}", JSON),
        (f"text/event-stream;q=0.5, {JSON}", JSON),
        ("application/xml, */*;q=0.1", JSON),
    ],
)
async def test_the_form_of_the_answer_is_negotiated(api: Surface, accept: str, form: str) -> None:
    """[22EB, 4655, 47DE, 80D8]"""
    response = await send(api, b'{"query":"{hello}"}', accept=accept)
    assert response.status_code == 200
    assert response.headers["content-type"] == f"{form}; charset=utf-8"


@pytest.mark.parametrize("query", ["{", "{nope}", "query($a:Int!){small(number:$a)}", "query A{hello} query B{hello}"])
async def test_a_wrong_operation_is_400_in_the_new_form_and_200_in_plain_json(api: Surface, query: str) -> None:
    """[865D, 556A, D586, 51FE, 74FF, 5E5B, 86EE, 3715, 9FE0, 572B]"""
    body = orjson.dumps({"query": query})
    new, plain = await send(api, body, accept=RESPONSE), await send(api, body, accept=JSON)
    assert (new.status_code, plain.status_code) == (400, 200)
    for response in (new, plain):
        assert "data" not in response.json()
        assert error_of(response)["extensions"]["code"] == "VALIDATION_ERROR"


async def test_an_error_of_a_field_leaves_the_status_at_200(api: Surface) -> None:
    response = await api.post("{hello conflict}")
    assert response.status_code == 200
    assert response.json()["data"] == {"hello": "Hello world", "conflict": None}
    assert error_of(response)["path"] == ["conflict"]


async def test_several_operations_need_a_name(api: Surface) -> None:
    query = "query A{a:hello} query B{b:hello}"
    assert error_of(await api.post(query))["extensions"]["details"]["path"] == ["operationName"]
    assert error_of(await api.post(query, operationName="C"))["extensions"]["details"]["path"] == ["operationName"]
    assert (await api.post(query, operationName="B")).json() == {"data": {"b": "Hello world"}}
    assert (await api.post("{hello}", operationName=None, variables=None, extensions=None)).status_code == 200


# -- sizes and times


async def test_a_body_over_the_limit_is_refused_while_it_arrives(api: Surface) -> None:
    """Without a Content-Length nothing tells the size beforehand, and the rest of the body is never sent."""
    parts = urlsplit(api.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(
            b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        chunk = b"x" * 65_536
        for _ in range(17):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        await writer.drain()
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413")
            assert b"PAYLOAD_TOO_LARGE" in await reader.read(4_096)
    finally:
        writer.close()


async def test_an_announced_size_over_the_limit_is_refused_unread(api: Surface) -> None:
    response = await send(api, b'{"query":"{hello}","variables":{"a":"' + b"x" * 1_100_000 + b'"}}')
    assert response.status_code == 413
    assert error_of(response)["extensions"]["details"]["maxBytes"] == 1_048_576


async def test_a_body_that_trickles_is_given_up() -> None:
    async with surface(body_timeout_seconds=1) as impatient:
        parts = urlsplit(impatient.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            writer.write(
                b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
            )
            async with asyncio.timeout(DEADLINE_SECONDS):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 408")
        finally:
            writer.close()


async def test_a_client_that_leaves_before_its_body_ends_is_no_fault(api: Surface) -> None:
    parts = urlsplit(api.url)
    with capture_logs() as logged:
        _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(
            b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await api.post("{hello}")).status_code == 200
    assert [line for line in logged if line["log_level"] == "error"] == []


@pytest.mark.parametrize("query", ["{hang}", "mutation{hang}"])
async def test_an_operation_that_takes_too_long_is_given_up(query: str) -> None:
    async with surface(deadlines=Deadlines(query_seconds=0.05, mutation_seconds=0.1)) as impatient:
        response = await impatient.post(query)
        assert response.status_code == 503
        assert error_of(response)["extensions"]["code"] == "SERVICE_UNAVAILABLE"
        assert (await impatient.post("{hello}")).status_code == 200


async def test_introspection_as_graphiql_asks_for_it_is_answered(api: Surface) -> None:
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    response = await api.post(query, operationName="IntrospectionQuery")
    assert "errors" not in response.json()


async def test_introspection_can_be_switched_off_and_suggestions_with_it() -> None:
    async with surface(introspection=False) as closed:
        for query in ("{__schema{types{name}}}", '{...F} fragment F on Query{__type(name:"Query"){name}}'):
            assert "Introspection" in error_of(await closed.post(query))["message"]
        assert "Did you mean" not in (await closed.post("{helo}")).text
        assert "Did you mean" not in (await closed.post('{hello(nam:"x")}')).text
        assert (await closed.post("{__typename hello}")).status_code == 200


# -- text that cannot be stored, numbers that do not fit, paths of errors


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (rb'{"query":"query($a:String!){hello(name:$a)}","variables":{"a":"x\u0000y"}}', ["a"]),
        (rb'{"query":"query($a:String!){hello(name:$a)}","variables":{"a":"\ud800"}}', ["a"]),
        (
            rb'{"query":"query($a:JSON!){echo(value:$a)}","variables":{"a":{"b":[1,{"c":"\u0000"}]}}}',
            ["a", "b", 1, "c"],
        ),
        (
            rb'{"query":"query($a:JSON!){echo(value:$a)}","variables":{"a":{"b":[1,{"c":"\udfff"}]}}}',
            ["a", "b", 1, "c"],
        ),
        (rb'{"query":"{hello(name:\"a\\u0000\")}"}', ["name"]),
        (rb'{"query":"{hello(name:\"a\\u{0}\")}"}', ["name"]),
        (rb'{"query":"{echo(value:{a:[1,{b:\"\\u0000\"}]})}"}', ["value", "a", 1, "b"]),
        (rb'{"query":"query($a:String=\"\\u0000\"){hello(name:$a)}"}', ["a"]),
    ],
)
async def test_text_that_cannot_be_stored_is_refused_with_its_path(api: Surface, body: bytes, path: list[Any]) -> None:
    error = error_of(await send(api, body))
    assert error["extensions"]["code"] == "VALIDATION_ERROR"
    assert error["extensions"]["details"]["path"] == path


async def test_keys_that_cannot_be_stored_are_refused_too(api: Surface) -> None:
    body = rb'{"query":"query($a:JSON!){echo(value:$a)}","variables":{"a":{"x\u0000":1}}}'
    assert error_of(await send(api, body))["extensions"]["code"] == "VALIDATION_ERROR"


async def test_text_beyond_ascii_comes_back_as_it_was(api: Surface) -> None:
    text = "ñ 漢字 😀 \u0001 \\u0000"
    response = await api.post("query($a:String!){hello(name:$a)}", variables={"a": text})
    assert response.json() == {"data": {"hello": f"Hello {text}"}}


@pytest.mark.parametrize(
    ("query", "variables", "path"),
    [
        ("query($n:Int!){small(number:$n)}", {"n": 2**31}, ["n"]),
        ("query($n:Int!){small(number:$n)}", {"n": 10**40}, ["n"]),
        ("{small(number:2147483648)}", {}, ["number"]),
        ("query($n:BigInt!){big(number:$n)}", {"n": 2**53}, ["n"]),
        ("query($n:BigInt!){big(number:$n)}", {"n": "1"}, ["n"]),
        ("query($n:BigInt!){big(number:$n)}", {"n": True}, ["n"]),
        ("query($d:Deep!){deep(input:$d)}", {"d": {"name": "a", "counts": [1, "x"]}}, ["d", "counts", 1]),
        ("query($d:Deep!){deep(input:$d)}", {"d": {"name": "a", "inner": {"nam": "b", "name": "c"}}}, ["d", "inner"]),
        ('{deep(input:{name:"a",inner:{name:1}})}', {}, ["input", "inner", "name"]),
        ('{moment(at:"2026-01-31")}', {}, ["at"]),
        ('{moment(at:"2026-02-31T00:00:00Z")}', {}, ["at"]),
        ('{moment(at:"2026-01-31T00:00:00")}', {}, ["at"]),
    ],
)
async def test_a_value_of_the_wrong_kind_is_refused_with_its_path(
    api: Surface, query: str, variables: dict[str, Any], path: list[Any]
) -> None:
    error = error_of(await api.post(query, variables=variables))
    assert error["extensions"]["code"] == "VALIDATION_ERROR"
    assert error["extensions"]["details"]["path"] == path


async def test_json_that_could_not_be_sent_back_is_refused(api: Surface) -> None:
    value: Any = 1
    for _ in range(100):
        value = [value]
    error = error_of(await api.post("query($a:JSON!){echo(value:$a)}", variables={"a": value}))
    assert error["extensions"]["details"]["path"] == ["a"]


async def test_scalars_come_back_in_their_one_form(api: Surface) -> None:
    response = await api.post('{moment(at:"2026-01-31T12:00:00.5+02:00") big(number:9007199254740991)}')
    assert response.json()["data"] == {"moment": "2026-01-31T10:00:00.500000Z", "big": 9007199254740991}


# -- failures of ours


@pytest.mark.parametrize("field", ["fault", "overflow"])
async def test_a_fault_shows_nothing_but_the_request_id(api: Surface, field: str) -> None:
    response = await api.post(f"{{{field}}}")
    error = error_of(response)
    assert error["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    assert "hunter2" not in response.text
    assert "32-bit" not in response.text


async def test_a_fault_leaves_its_trace_in_the_log(api: Surface) -> None:
    with capture_logs() as logged:
        error = error_of(await api.post("{fault}"))
    (line,) = [line for line in logged if line["log_level"] == "error"]
    assert isinstance(line["exc_info"], RuntimeError)
    assert line["request_id"] == error["extensions"]["requestId"]


async def test_an_expected_error_is_logged_without_what_the_client_said(api: Surface) -> None:
    with capture_logs() as logged:
        await api.post("{conflict}")
    (line,) = [line for line in logged if line["event"] == "operation_refused"]
    assert line["log_level"] == "info"
    assert line["code"] == "CONFLICT"
    assert "Already" not in str(line)


async def test_an_outage_is_no_fault(api: Surface) -> None:
    response = await api.post("{outage}")
    assert error_of(response)["extensions"]["code"] == "SERVICE_UNAVAILABLE"
    assert "10.0.0.5" not in response.text


async def test_a_value_that_json_cannot_hold_is_a_fault(api: Surface) -> None:
    assert error_of(await api.post("{unwritable}"))["extensions"]["code"] == "INTERNAL_SERVER_ERROR"


# -- what Strawberry's resolvers need of the executor


async def test_types_behind_an_interface_are_told_apart(api: Surface) -> None:
    response = await api.post("{shapes{__typename name ...on Circle{radius} ...on Square{side}}}")
    assert response.json()["data"]["shapes"] == [
        {"__typename": "Circle", "name": "c", "radius": 1.5},
        {"__typename": "Square", "name": "s", "side": 2.0},
    ]


async def test_loads_of_one_operation_are_batched_and_of_two_are_not(api: Surface) -> None:
    small.batches.clear()
    await api.post("{a:doubled(number:1) b:doubled(number:2)}")
    await api.post("{a:doubled(number:1)}")
    assert small.batches == [[1, 2], [1]]


# -- who asks


async def test_a_field_asks_for_its_permission(api: Surface) -> None:
    assert error_of(await api.post("{me}"))["extensions"]["code"] == "UNAUTHORIZED"
    assert error_of(await api.post("{forAdmins}", token="ada"))["extensions"]["code"] == "FORBIDDEN"
    assert (await api.post("{forAdmins}", token="root")).json() == {"data": {"forAdmins": "secret"}}
    assert (await api.post("{me}", token="ada")).json() == {"data": {"me": str(small.ADA)}}


@pytest.mark.parametrize("authorization", ["Bearer nobody", "Bearer", "Basic YTpi", "ada", ""])
@pytest.mark.parametrize("accept", [JSON, RESPONSE])
async def test_a_bad_bearer_token_refuses_the_request(api: Surface, authorization: str, accept: str) -> None:
    response = await send(api, b'{"query":"{hello}"}', authorization=authorization, accept=accept)
    assert response.status_code == 401
    assert error_of(response)["extensions"]["details"]["reason"] == "invalid"
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_credentials_that_cannot_be_checked_are_an_outage(api: Surface) -> None:
    api.sessions.away = True
    try:
        assert (await api.post("{hello}", token="ada")).status_code == 503
        assert (await api.post("{hello}")).status_code == 200
    finally:
        api.sessions.away = False


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
async def test_a_cookie_of_a_foreign_page_counts_for_nothing(api: Surface, headers: dict[str, str]) -> None:
    response = await send(api, b'{"query":"{me}"}', cookie="switchyard_access=ada", **headers)
    assert error_of(response)["extensions"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://spa.example"},
        {"origin": "http://localhost:8000"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_a_cookie_of_our_own_page_is_believed(api: Surface, headers: dict[str, str]) -> None:
    response = await send(api, b'{"query":"{me}"}', cookie="other=1; switchyard_access=ada", **headers)
    assert response.json() == {"data": {"me": str(small.ADA)}}
    same_host = await send(api, b'{"query":"{me}"}', cookie="switchyard_access=ada", origin=api.url)
    assert same_host.json() == {"data": {"me": str(small.ADA)}}


async def test_bearer_wins_over_the_cookie(api: Surface) -> None:
    headers = {"cookie": "switchyard_access=ada", "origin": "https://spa.example"}
    response = await send(api, b'{"query":"{me}"}', authorization="Bearer bob", **headers)
    assert response.json() == {"data": {"me": str(small.BOB)}}
    refused = await send(api, b'{"query":"{me}"}', authorization="Bearer nobody", **headers)
    assert refused.status_code == 401


async def test_a_bad_cookie_leaves_the_caller_anonymous_and_able_to_sign_in(api: Surface) -> None:
    headers = {"cookie": "switchyard_access=nobody", "origin": "https://spa.example"}
    response = await send(api, b'{"query":"mutation{touch(cookie:true)}"}', **headers)
    assert response.json() == {"data": {"touch": "touched"}}
    assert response.headers["set-cookie"] == "switchyard_access=ada; HttpOnly; Max-Age=60; Path=/; SameSite=Lax"


async def test_cookies_are_bound_to_the_host_where_there_is_tls() -> None:
    async with surface(base_url="https://api.example") as secure:
        headers = {"origin": "https://api.example"}
        plain = await send(secure, b'{"query":"{me}"}', cookie="switchyard_access=ada", **headers)
        assert error_of(plain)["extensions"]["code"] == "UNAUTHORIZED"
        bound = await send(secure, b'{"query":"{me}"}', cookie="__Host-switchyard_access=ada", **headers)
        assert bound.json() == {"data": {"me": str(small.ADA)}}
        cookie = "__Host-switchyard_access=ada"
        stripped = await send(
            secure, b'{"query":"{me}"}', cookie=cookie, host="api.example", origin="http://api.example"
        )
        assert error_of(stripped)["extensions"]["code"] == "UNAUTHORIZED"


async def test_a_subscription_by_plain_post_is_told_what_to_do(api: Surface) -> None:
    response = await api.post("subscription{quiet}")
    assert response.status_code == 405
    assert "text/event-stream" in error_of(response)["message"]
