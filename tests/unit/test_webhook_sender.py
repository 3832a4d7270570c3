"""One attempt to send a webhook: what is signed, where it may go, and how every end of it is told."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from standardwebhooks import Webhook, WebhookVerificationError

from adapters import webhook_sender
from adapters.addresses import BlockedAddress
from adapters.webhook_sender import EXCERPT_BYTES, Outcome, WebhookSender, new_secret, signatures
from models.outgoing_webhooks import DispatchFailure
from settings import Settings
from tests.harness.webhook_receiver import Answer, WebhookReceiver, webhook_receiver

BODY = '{"type":"ping","data":{"name":"Zoë"}}'.encode()
SECRET = new_secret()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    async with webhook_receiver() as started:
        yield started


def settings(*allowed: str, **more: Any) -> Settings:
    return Settings.model_validate(
        {
            "database_url": "postgres://nobody@127.0.0.1/none",
            "redis_url": "redis://127.0.0.1:1",
            "secret_keys": f"test:{base64.b64encode(b'0' * 32).decode()}",
            "webhook_allowed_hosts": allowed,
            **more,
        }
    )


@pytest_asyncio.fixture
async def sender(receiver: WebhookReceiver) -> AsyncIterator[WebhookSender]:
    async with webhook_sender.connected(settings(receiver.allowed), places=4, send_seconds=0.5) as opened:
        yield opened


async def send(sender: WebhookSender, url: str, *keys: str) -> Outcome:
    return await sender.send(url, event_id="evt_1", body=BODY, keys=keys or (SECRET,))


async def test_what_is_sent_is_signed_by_each_secret(sender: WebhookSender, receiver: WebhookReceiver) -> None:
    older = new_secret()
    outcome = await send(sender, receiver.url("a"), SECRET, older)
    assert (outcome.failure, outcome.status_code, outcome.excerpt) == (None, 200, "ok")
    (received,) = receiver.requests["a"]
    assert received.body == BODY
    assert received.event_id == "evt_1"
    for key in (SECRET, older):
        assert received.verified(key)["data"] == {"name": "Zoë"}
    with pytest.raises(WebhookVerificationError):
        received.verified(new_secret())
    assert "cookie" not in received.headers


def test_our_signature_is_the_reference_library_s() -> None:
    at = datetime.fromtimestamp(1_750_000_000, UTC)
    expected = Webhook(SECRET).sign(msg_id="evt_1", timestamp=at, data=BODY.decode())
    assert signatures("evt_1", 1_750_000_000, BODY, [SECRET]) == expected


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer(204, b""), None),
        (Answer(301, headers={"location": "/elsewhere"}), DispatchFailure.REDIRECTED),
        (Answer(410), DispatchFailure.GONE),
        (Answer(500), DispatchFailure.BAD_STATUS),
        (Answer(404), DispatchFailure.BAD_STATUS),
        (Answer(cut_off=True), DispatchFailure.CONNECTION_FAILED),
        (Answer(held=True), DispatchFailure.TIMED_OUT),
    ],
    ids=["no content", "redirect", "gone", "broken", "unknown", "cut off", "silent"],
)
async def test_every_end_is_told(
    answer: Answer, failure: DispatchFailure | None, sender: WebhookSender, receiver: WebhookReceiver
) -> None:
    receiver.answer("a", answer)
    outcome = await send(sender, receiver.url("a"))
    assert outcome.failure == failure
    assert (outcome.message is None) == (failure is None)
    assert outcome.duration_ms < 5_000
    assert "elsewhere" not in receiver.requests, "a redirect is not followed"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("120", 120.0), ("999999999999", 86_400.0), ("soon", None), ("-5", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
async def test_what_a_receiver_asks_for_is_bounded(
    header: str, seconds: float | None, sender: WebhookSender, receiver: WebhookReceiver
) -> None:
    receiver.answer("a", Answer(429, headers={"retry-after": header}), Answer(500, headers={"retry-after": header}))
    assert (await send(sender, receiver.url("a"))).retry_after_seconds == seconds
    assert (await send(sender, receiver.url("a"))).retry_after_seconds is None, "only of 429 and 503"


async def test_of_a_long_answer_little_is_kept(sender: WebhookSender, receiver: WebhookReceiver) -> None:
    receiver.answer("a", Answer(500, b"x\x00\xff\x1b" + b"y" * 5 * 2**20))
    outcome = await send(sender, receiver.url("a"))
    assert outcome.failure is DispatchFailure.BAD_STATUS
    assert outcome.excerpt is not None
    assert outcome.excerpt.startswith("x\ufffd\ufffd\ufffdyyy")
    assert len(outcome.excerpt) == EXCERPT_BYTES


BLOCKED = (
    "http://127.0.0.1/",
    "http://127.1/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://[::ffff:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://localhost/",
    "http://169.254.169.254/latest/meta-data",
    "http://１２７.0.0.1/",
    "http://example.com:6379/",
    "ftp://example.com/",
    "http://user:secret@example.com/",
    "not a url",
    "",
)


@pytest.mark.parametrize("url", BLOCKED)
async def test_addresses_inside_are_refused(url: str, sender: WebhookSender) -> None:
    with pytest.raises(BlockedAddress):
        sender.check(url)
    assert (await send(sender, url)).failure is DispatchFailure.BLOCKED_URL


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.7", "169.254.169.254"])
async def test_a_name_that_leads_inside_is_refused_when_it_is_used(
    address: str, sender: WebhookSender, receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name was fine when it was given; now its address is another."""
    loop = asyncio.get_running_loop()
    asked: list[str] = []

    async def answer(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(loop, "getaddrinfo", answer)
    sender.check("http://hooks.example.com/")
    with pytest.raises(BlockedAddress):
        await sender.look_up("http://hooks.example.com/")
    outcome = await send(sender, "http://hooks.example.com/")
    assert (outcome.failure, len(asked)) == (DispatchFailure.BLOCKED_URL, 2)
    assert receiver.requests == {}


async def test_an_unknown_host_is_told(sender: WebhookSender, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    await sender.look_up("http://hooks.example.com/")
    assert (await send(sender, "http://hooks.example.com/")).failure is DispatchFailure.UNKNOWN_HOST


async def test_a_proxy_of_the_environment_is_not_used(
    receiver: WebhookReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    async with webhook_sender.connected(settings(receiver.allowed), places=1) as sender:
        assert (await send(sender, receiver.url("a"))).failure is None


async def test_in_production_it_is_https_or_what_the_operator_opened(receiver: WebhookReceiver) -> None:
    more = {"environment": "production", "base_url": "https://yard.example"}
    async with webhook_sender.connected(settings(receiver.allowed, **more), places=1) as sender:
        with pytest.raises(BlockedAddress, match="https only"):
            sender.check("http://hooks.example.com/")
        sender.check("https://hooks.example.com/")
        assert (await send(sender, receiver.url("a"))).failure is None


async def test_what_is_not_encrypted_well_is_told(sender: WebhookSender, receiver: WebhookReceiver) -> None:
    outcome = await send(sender, receiver.url("a").replace("http:", "https:"))
    assert outcome.failure is DispatchFailure.TLS_FAILED
