"""The stand-alone scanner over real HTTP: its contract, its refusals, and that it answers while it works."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from adapters.scanner import shipped_rules
from errors import ValidationFailed
from schema.ai_service import MAX_FILE_BYTES, create_app
from schema.multipart import MAX_PARTS, boundary_of, read_form
from tests.harness.processes import CLI, Program
from tests.harness.waiting import eventually

DELAY = "The delivery of the servers is delayed."


@pytest_asyncio.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """`switchyard ai-service` as a process of its own, and a client of it."""
    folder = tmp_path_factory.mktemp("ai-service")
    program = Program(
        [CLI, "ai-service", "--listen", "127.0.0.1:0"],
        environment={"LOG_FORMAT": "json", "DATA_DIR": str(folder)},
        log=folder / "log",
    )

    def port() -> int | None:
        assert program.exit_code is None, program.log_tail()
        lines = [json.loads(line) for line in program.log.read_text().splitlines() if line.startswith("{")]
        return next((line["port"] for line in lines if line["event"] == "ai_service_listening"), None)

    await eventually(lambda: port() is not None, 30, what="a port of the service")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port()}", timeout=30) as client:
        yield client
    assert await program.stop() == 0, program.log_tail()


async def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, body
    assert set(body) == {"error", "message"}
    return body


async def test_a_text_is_answered_with_its_risks_and_where_they_come_from(service: httpx.AsyncClient) -> None:
    answer = await service.post("/scan", files={"text": (None, f"All is well. {DELAY}"), "force_llm": (None, "false")})
    assert answer.status_code == 200
    body = answer.json()
    (risk,) = body["data"]
    assert {
        name: risk[name] for name in ("category", "context", "severity", "rule", "cue", "start", "end", "page")
    } == {
        "category": "schedule",
        "context": DELAY,
        "severity": "HIGH",
        "rule": "schedule.delayed",
        "cue": "delayed",
        "start": 13,
        "end": 13 + len(DELAY),
        "page": None,
    }
    assert risk["risk"]
    assert len(risk["fingerprint"]) == 64
    assert (body["source"], body["ruleset"], body["language"], body["truncated"]) == (
        "model",
        shipped_rules().hash,
        "en",
        False,
    )


async def test_files_are_read_by_their_names(service: httpx.AsyncClient) -> None:
    page = f"<p>All is well.</p><p>{DELAY}</p>"
    for name, content in (
        ("ä b.txt", DELAY),
        ("a.md", f"# Risks\n* {DELAY}"),
        ("a.html", page),
        ("a.csv", f"1,{DELAY}"),
    ):
        answer = await service.post("/scan", files={"file": (name, content.encode()), "text": (None, "")})
        assert [risk["rule"] for risk in answer.json()["data"]] == ["schedule.delayed"], name


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"force_llm": (None, "false")}, 400),
        ({"text": (None, DELAY), "file": ("a.txt", b"x")}, 400),
        ({"text": (None, DELAY), "force_llm": (None, "perhaps")}, 400),
        ({"text": (None, b"\xff\xfe")}, 400),
        ({"text": (None, DELAY), "force_llm": (None, "true")}, 503),
        ({"text": (None, " \n ")}, 422),
        ({"file": ("a.txt", b"")}, 422),
        ({"file": ("a.txt", b"a\0b")}, 422),
        ({"file": ("a.pdf", b"%PDF-1.7")}, 415),
        ({"file": ("a.txt", b"PK\x03\x04")}, 415),
        ({"file": ("a.txt", b"x" * (MAX_FILE_BYTES + 1))}, 413),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_cannot_be_scanned_is_refused(
    service: httpx.AsyncClient, fields: dict[str, Any], status: int
) -> None:
    await refused(await service.post("/scan", files=fields), status)


async def test_a_body_that_is_no_form_is_refused(service: httpx.AsyncClient) -> None:
    await refused(await service.post("/scan", json={"text": DELAY}), 415)
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    await refused(await service.post("/scan", content=b"no form", headers=form), 400)
    await refused(await service.get("/scan"), 405)
    await refused(await service.get("/elsewhere"), 404)


async def test_a_body_without_a_length_is_bounded_while_it_arrives(service: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n'
        for _ in range(2 * MAX_FILE_BYTES // 2**20):
            yield b"x" * 2**20

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    try:
        answer = await service.post("/scan", content=endless(), headers=headers)
    except (httpx.WriteError, httpx.ReadError):
        return  # The connection is closed on a sender that goes on.
    await refused(answer, 413)


async def test_it_answers_others_while_it_scans(service: httpx.AsyncClient) -> None:
    text = (DELAY + " The rest goes on. ") * 3_000
    scanning = asyncio.create_task(service.post("/scan", files={"text": (None, text)}))
    answered = 0
    while not scanning.done():
        assert (await service.get("/healthz")).status_code == 200
        answered += 1
    assert answered > 1
    assert (await scanning).json()["data"][0]["occurrences"] > 1_000


async def test_files_can_be_read_by_somebody_else() -> None:
    app = create_app(lambda _name, content: content.decode().upper())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        answer = await client.post("/scan", files={"file": ("a.pdf", DELAY.encode())})
    assert answer.json()["data"][0]["context"] == DELAY.upper()


# -- forms


def form(*parts: bytes) -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"


def test_a_form_is_read_byte_by_byte() -> None:
    content = bytes(range(256)) + b"\r\n--c\r\n\n--b\n"
    head = 'Content-Disposition: form-data; name="file"; filename="ä.txt"\r\nContent-Type: text/plain\r\n\r\n'.encode()
    (part,) = read_form(b"preamble\r\n" + form(head + content) + b"epilogue", "b")
    assert (part.name, part.filename, part.content) == ("file", "ä.txt", content)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b",
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\ncut off",
        form(b"no headers"),
        form(b"Content-Disposition: form-data\r\n\r\nx"),
        form(b"Content-Disposition: attachment; name=a\r\n\r\nx"),
        form(b"Content-Disposition: form-data; name=a\r\nX: " + b"y" * 5_000 + b"\r\n\r\nx"),
        form(*[b"Content-Disposition: form-data; name=a\r\n\r\nx"] * (MAX_PARTS + 1)),
        b"--bb\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--b--",
    ],
    ids=lambda body: body[:30],
)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationFailed):
        read_form(body, "b")


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ('multipart/form-data; boundary="a b"', "a b"),
        ("Multipart/Form-Data; charset=utf-8; boundary=x-1", "x-1"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/mixed; boundary=b", None),
        (f"multipart/form-data; boundary={'b' * 71}", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_boundaries(content_type: str, boundary: str | None) -> None:
    assert boundary_of(content_type) == boundary
