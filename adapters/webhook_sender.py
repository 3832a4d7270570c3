"""Sending webhooks: one signed POST to an address that a user named, and what came of it.

Signed as the Standard Webhooks specification 1.0.0 says: `webhook-signature` is `v1,` and the base64 of HMAC-SHA256
over `id.timestamp.body`, once per secret that is valid. Invariants: no connection goes to an address that the guard did
not pass in the moment before (`adapters/addresses.py`); no redirect is followed; no proxy and no cookie is used; an
attempt ends within fifteen seconds, and of an answer at most 64 KiB are read and 1 KiB is kept, as text. Nothing is
raised: every end of an attempt is an `Outcome`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from adapters.addresses import DEFAULT_PORTS, AddressGuard, BlockedAddress, UnknownHost, resolve
from models.outgoing_webhooks import DispatchFailure
from settings import Settings

SEND_SECONDS: Final = 15.0
MAX_ANSWER_BYTES: Final = 65_536
EXCERPT_BYTES: Final = 1_024
LONGEST_RETRY_AFTER_SECONDS: Final = 86_400.0
MAX_URL_LENGTH: Final = 2_048

_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - no password
_SECRET_BYTES: Final = 32
_MAX_MESSAGE_LENGTH: Final = 300
_AGENT: Final = "Switchyard-Webhooks/1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt: delivered where `failure` is None. `message` is for people, `excerpt` the answer's."""

    duration_ms: int
    status_code: int | None = None
    excerpt: str | None = None
    failure: DispatchFailure | None = None
    message: str | None = None
    retry_after_seconds: float | None = None


def new_secret() -> str:
    """A fresh signing secret, as receivers keep it: `whsec_` and base64 of 32 random bytes."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signatures(event_id: str, timestamp: int, body: bytes, keys: Sequence[str]) -> str:
    """The value of `webhook-signature`, one signature per secret; raises ValueError for a text that is no secret."""
    signed = f"{event_id}.{timestamp}.".encode() + body
    parts = []
    for key in keys:
        try:
            raw = base64.b64decode(key.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            raise ValueError("not a signing secret") from None
        parts.append("v1," + base64.b64encode(hmac.digest(raw, signed, hashlib.sha256)).decode())
    return " ".join(parts)


class WebhookSender:
    """Sends from this process."""

    def __init__(self, session: aiohttp.ClientSession, guard: AddressGuard, *, needs_tls: bool) -> None:
        self._session = session
        self._guard = guard
        self._needs_tls = needs_tls

    def check(self, url: str) -> None:
        """Refuse an address that may not be opened by its text alone; raises BlockedAddress.

        A name passes here and is judged by its addresses when it is sent to.
        """
        self._guard.check_url(url)
        parsed = _parsed(url)
        # Clients read some spellings otherwise than we do: what will be opened is judged too.
        self._guard.check_url(str(parsed))
        if self._needs_tls and parsed.scheme != "https":
            port = parsed.port or DEFAULT_PORTS["http"]
            if not self._guard.allows(parsed.host or "", port):
                raise BlockedAddress(str(parsed.origin()), "webhooks go over https only")

    async def look_up(self, url: str) -> None:
        """`check`, and judge the addresses that the host has now; raises BlockedAddress. A name without one passes."""
        self.check(url)
        parsed = _parsed(url)
        try:
            await resolve(self._guard, parsed.host or "", parsed.port or DEFAULT_PORTS[parsed.scheme])
        except UnknownHost:
            return  # it may have one when there is something to send

    async def send(self, url: str, *, event_id: str, body: bytes, keys: Sequence[str]) -> Outcome:
        """Try once."""
        began = time.monotonic()

        def failed(failure: DispatchFailure, message: str) -> Outcome:
            return Outcome(_elapsed(began), failure=failure, message=message[:_MAX_MESSAGE_LENGTH])

        timestamp = int(time.time())
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(event_id, timestamp, body, keys),
        }
        try:
            self.check(url)
            async with self._session.post(_parsed(url), data=body, headers=headers, allow_redirects=False) as response:
                excerpt = await _excerpt(response)
                return _judged(response, excerpt, _elapsed(began))
        except BlockedAddress as error:
            return failed(DispatchFailure.BLOCKED_URL, str(error))
        except UnknownHost as error:
            return failed(DispatchFailure.UNKNOWN_HOST, str(error))
        except TimeoutError:
            return failed(DispatchFailure.TIMED_OUT, f"No complete answer within {self._session.timeout.total:g} s.")
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            return failed(DispatchFailure.TLS_FAILED, f"No encrypted connection: {_reason(error)}.")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            refusal = _guard_refusal(error)
            if refusal is not None:
                return failed(refusal[0], refusal[1])
            return failed(DispatchFailure.CONNECTION_FAILED, f"The connection failed: {_reason(error)}.")


_sender: WebhookSender | None = None


@asynccontextmanager
async def connected(
    settings: Settings, *, places: int, send_seconds: float = SEND_SECONDS
) -> AsyncIterator[WebhookSender]:
    """Open the sender for the life of the process, for so many attempts at once; nothing is connected yet."""
    global _sender
    before = _sender
    guard = AddressGuard.from_settings(settings.webhook_allowed_hosts)
    connector = aiohttp.TCPConnector(
        resolver=_GuardedResolver(guard), use_dns_cache=False, limit=places, force_close=True, ssl=True
    )
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=send_seconds),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"user-agent": _AGENT, "accept": "*/*", "accept-encoding": "identity"},
        auto_decompress=False,
        trust_env=False,
    ) as session:
        _sender = WebhookSender(session, guard, needs_tls=settings.is_production)
        try:
            yield _sender
        finally:
            _sender = before


def current() -> WebhookSender:
    """The sender of this process."""
    if _sender is None:
        raise LookupError("webhook_sender.connected() is not open in this process")
    return _sender


class _GuardedResolver(AbstractResolver):
    """Hands over only addresses that the guard passed; connections go to exactly those."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name; raises BlockedAddress and UnknownHost, wrapped for aiohttp."""
        try:
            addresses = await resolve(self._guard, host, port)
        except (BlockedAddress, UnknownHost) as error:
            raise OSError(str(error)) from error
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _parsed(url: str) -> URL:
    try:
        return URL(url)
    except ValueError:
        raise BlockedAddress(url, "it is not a URL") from None


def _judged(response: aiohttp.ClientResponse, excerpt: str, duration_ms: int) -> Outcome:
    status = response.status
    failure, message, retry_after = None, None, None
    if 300 <= status < 400:
        failure, message = DispatchFailure.REDIRECTED, f"It answered {status}; redirects are not followed."
    elif status == 410:
        failure, message = DispatchFailure.GONE, "It answered 410: it wants no more."
    elif not 200 <= status < 300:
        failure, message = DispatchFailure.BAD_STATUS, f"It answered {status}."
        if status in (429, 503):
            retry_after = _retry_after(response.headers.get("Retry-After", ""))
    return Outcome(duration_ms, status, excerpt, failure, message, retry_after)


def _retry_after(text: str) -> float | None:
    """Seconds or an HTTP date (RFC 9110 §10.2.3), at most a day; None for anything else."""
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_SECONDS)


async def _excerpt(response: aiohttp.ClientResponse) -> str:
    """The beginning of an answer as printable text; what is longer than we read is cut off with its connection."""
    kept, count = bytearray(), 0
    async for chunk in response.content.iter_any():
        kept += chunk[: EXCERPT_BYTES - len(kept)]
        count += len(chunk)
        if count > MAX_ANSWER_BYTES:
            response.close()
            break
    text = kept.decode("utf-8", "replace")
    return "".join(each if each.isprintable() or each in "\n\t" else "\ufffd" for each in text)


def _guard_refusal(error: BaseException) -> tuple[DispatchFailure, str] | None:
    """What the guard or the resolver said, beneath what aiohttp made of it."""
    seen: BaseException | None = error
    for _ in range(8):
        if isinstance(seen, BlockedAddress):
            return DispatchFailure.BLOCKED_URL, str(seen)
        if isinstance(seen, UnknownHost):
            return DispatchFailure.UNKNOWN_HOST, str(seen)
        if seen is None:
            return None
        seen = seen.__cause__ or seen.__context__
    return None


def _reason(error: BaseException) -> str:
    """Why, without what an exception may quote of the request."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not valid for this host"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or type(error.os_error).__name__
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it was closed without an answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _elapsed(began: float) -> int:
    return int((time.monotonic() - began) * 1000)
