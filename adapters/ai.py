"""The AI service that finds risks: one POST per document, and what its answer may be.

The contract: `POST {AI_SERVICE_URL}/scan` with a form of `file` or `text` and of `force_llm`; it answers
`{data: [{risk, category, context}], source: "llm" | "model"}`. Invariants: what it sends is untrusted, so an answer is
at most 5 MB and 5,000 risks, every string is cut and can be stored, fields that we do not know are kept as JSON text; a
call ends within its time; no redirect is followed and no proxy of the environment used; a file streams. Where
contexts stand in the text, and what severity a risk has that brings none, is `tasks/scan/`'s.
"""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson
import structlog
from yarl import URL

from adapters import events
from adapters.circuit_breaker import BreakerOpen, CircuitBreaker, Rules
from settings import Settings

MAX_ANSWER_BYTES: Final = 5_000_000
MAX_RISKS: Final = 5_000
MAX_RISK_CHARACTERS: Final = 2_000
MAX_CONTEXT_CHARACTERS: Final = 8_000
MAX_CATEGORY_CHARACTERS: Final = 64
MAX_MESSAGE_CHARACTERS: Final = 500
CONNECT_SECONDS: Final = 10.0
_CHUNK_BYTES: Final = 65_536
_MAX_PAGE: Final = 1_000_000
_TRIAL_MARGIN_SECONDS: Final = 5.0
# What says nothing of the document: our address of it, our credentials, or its own state.
_ABOUT_THE_SERVICE: Final = frozenset({401, 403, 404, 405, 407, 408, 425, 429})
_PROVENANCE: Final = {"scanner": 100, "version": 100, "ruleset": 100, "model": 200, "language": 35}
_SEVERITIES: Final = frozenset({"LOW", "MEDIUM", "HIGH", "CRITICAL"})
_log = structlog.get_logger("switchyard.ai")


class Unavailable(Exception):
    """The service cannot answer now; the message is for people. The same call may succeed later."""


class NotUnderstood(Unavailable):
    """The service answered, and not by the contract."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The AI service answered in a way that we do not understand: {why}.")
        self.why = why


class Refused(Exception):
    """The service will not read this document; the message is its own."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file to send: its size in bytes, and its content when it is asked for."""

    filename: str
    content_type: str
    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Risk:
    """One risk as the service sent it. `extra` is JSON text of the fields that we do not know."""

    risk: str
    category: str
    context: str
    severity: str | None = None
    confidence: float | None = None
    page: int | None = None
    start: int | None = None
    rule: str | None = None
    cue: str | None = None
    extra: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service found; `source` is `llm` or `model`, `provenance` says what it is, as far as it tells."""

    risks: tuple[Risk, ...]
    source: str
    provenance: Mapping[str, str]
    is_truncated: bool
    extra: str | None
    size: int


class AiService:
    """The AI service, behind its breaker."""

    def __init__(self, session: aiohttp.ClientSession, url: str, breaker: CircuitBreaker) -> None:
        self._session = session
        self._url = URL(url.rstrip("/") + "/scan")
        self._health_url = URL(url.rstrip("/") + "/healthz")
        self._breaker = breaker

    async def scan(self, document: str | Upload, *, force_llm: bool) -> Answer:
        """Have a text or a file read.

        Raises Unavailable when the service is down, slow, busy, not understood, or left alone after such failures;
        Refused when it will not read the document, and what an upload's chunks raise.
        """
        try:
            async with self._breaker.call(failures=Unavailable, answers=Refused):
                return await self._scan(document, force_llm=force_llm)
        except BreakerOpen as error:
            raise Unavailable(
                "The AI service failed several times in a row and is left alone; "
                f"it is tried again in {error.retry_after_seconds:.0f} s."
            ) from None

    async def probe(self) -> None:
        """Whether the service answers and scans of late did not fail; raises Unavailable.

        It is asked for `/healthz`, which the contract does not have, so any answer but a fault of the server will do: a
        scan every half minute could cost its owner money. What scans met with, the breaker tells.
        """
        if await self._breaker.is_open():
            raise Unavailable("The AI service failed several times in a row.")
        try:
            async with self._session.get(self._health_url, allow_redirects=False) as response:
                if response.status >= 500:
                    raise Unavailable(f"The AI service answered with status {response.status}.")
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"The AI service cannot be reached: {type(error).__name__}.") from None

    async def _scan(self, document: str | Upload, *, force_llm: bool) -> Answer:
        form = _Form(document, force_llm=force_llm)
        try:
            async with (
                aclosing(form.body()) as body,
                self._session.post(self._url, data=body, headers=form.headers, allow_redirects=False) as response,
            ):
                content = await _read(response)
                _refuse(response, content)
        except (aiohttp.ClientError, OSError) as error:
            if form.failure is not None:
                raise form.failure from None
            if isinstance(error, TimeoutError):
                raise Unavailable("The AI service did not answer in time.") from None
            _log.warning("ai_service_lost", error=repr(error))
            raise Unavailable("The AI service cannot be reached.") from None
        return read_answer(content)


@dataclass(frozen=True, slots=True)
class _Opened:
    service: AiService | None


_opened: _Opened | None = None


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[None]:
    """Hold a client of the service that the settings name, if they do, for the life of the process.

    Nothing is asked of it yet. `events` must be connected: the breaker uses its Redis.
    """
    global _opened
    before = _opened
    async with AsyncExitStack() as stack:
        url = settings.ai_service_url
        _opened = _Opened(None if url is None else await stack.enter_async_context(_client(settings, url)))
        try:
            yield
        finally:
            _opened = before


def current() -> AiService | None:
    """The service of this process, None where there is none."""
    if _opened is None:
        raise LookupError("ai.connected() is not open in this process")
    return _opened.service


@asynccontextmanager
async def _client(settings: Settings, url: str) -> AsyncIterator[AiService]:
    rules = Rules(
        settings.ai_breaker_failures,
        settings.ai_breaker_seconds,
        trial_seconds=settings.ai_timeout_seconds + _TRIAL_MARGIN_SECONDS,
    )
    breaker = CircuitBreaker("ai", rules, redis=lambda: events.bus().redis, namespace=settings.redis_namespace)
    async with aiohttp.ClientSession(
        # Scans are bounded by the worker's slots, and each has a connection of its own.
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=settings.ai_timeout_seconds, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "Switchyard", "Accept": "application/json", "Accept-Encoding": "identity"},
        trust_env=False,
    ) as session:
        yield AiService(session, url, breaker)


def read_answer(content: bytes) -> Answer:
    """What an answer says; raises NotUnderstood."""
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError:
        raise NotUnderstood("the answer is no JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise NotUnderstood("`data` is missing or no list")
    source = answer.get("source")
    if source not in ("llm", "model"):
        raise NotUnderstood("`source` is neither `llm` nor `model`")
    data = answer["data"]
    risks = tuple(_risk(each, place) for place, each in enumerate(data[:MAX_RISKS]))
    provenance = {
        name: _text(value, longest)
        for name, longest in _PROVENANCE.items()
        if isinstance(value := answer.get(name), str) and value
    }
    known = {"data", "source", "truncated", *provenance}
    return Answer(
        risks,
        source,
        provenance,
        is_truncated=answer.get("truncated") is True or len(data) > MAX_RISKS,
        extra=_extra(answer, known),
        size=len(content),
    )


class _Form:
    """A form of known length (RFC 7578): many services take no chunked bodies."""

    def __init__(self, document: str | Upload, *, force_llm: bool) -> None:
        boundary = secrets.token_hex(16)
        flag = _part(boundary, 'name="force_llm"') + (b"true" if force_llm else b"false") + b"\r\n"
        if isinstance(document, str):
            head, size = _part(boundary, 'name="text"', "text/plain; charset=utf-8"), 0
            head += document.encode("utf-8", "replace")
        else:
            name = f'name="file"; filename="{_quoted(document.filename)}"'
            head, size = _part(boundary, name, document.content_type), document.size
        self._head = flag + head
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._file = document if isinstance(document, Upload) else None
        self.failure: Exception | None = None
        """What kept us from sending: aiohttp takes it for a lost connection."""
        self.headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(self._head) + size + len(self._tail)),
        }

    async def body(self) -> AsyncGenerator[bytes, None]:
        """The form, piece by piece."""
        yield self._head
        if self._file is not None:
            try:
                async for chunk in self._file.chunks:
                    yield chunk
            except Exception as error:
                self.failure = error
                raise
        yield self._tail


def _part(boundary: str, name: str, content_type: str | None = None) -> bytes:
    typed = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"--{boundary}\r\nContent-Disposition: form-data; {name}\r\n{typed}\r\n".encode()


def _quoted(filename: str) -> str:
    """A file's name as browsers write it into a header (WHATWG HTML, multipart/form-data encoding algorithm)."""
    return filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            response.close()
            raise NotUnderstood("the answer is too long")
    return bytes(content)


def _refuse(response: aiohttp.ClientResponse, content: bytes) -> None:
    """Raise what a status means, unless it is a success."""
    status = response.status
    if 200 <= status < 300:
        return
    said = _message(response, content)
    if status == 503:
        raise Unavailable(said or "The AI service is busy or down; it does not say more.")
    if status in _ABOUT_THE_SERVICE:
        raise Unavailable(said or f"The AI service answered with status {status}; it does not say why.")
    if 400 <= status < 500:
        raise Refused(said or "The AI service does not read this document; it does not say why.")
    raise NotUnderstood(f"status {status}")


def _message(response: aiohttp.ClientResponse, content: bytes) -> str:
    """What the service says of a refusal, short and printable; empty when it says nothing to people."""
    said: Any = None
    if response.content_type == "text/plain":
        said = content[: 4 * MAX_MESSAGE_CHARACTERS].decode("utf-8", "replace")
    else:
        try:
            answer = orjson.loads(content)
        except orjson.JSONDecodeError:
            return ""
        if isinstance(answer, dict):
            error = answer.get("error")
            nested = error.get("message") if isinstance(error, dict) else None
            said = next((text for text in (answer.get("message"), nested, answer.get("detail"), error) if text), None)
    return printable(said, MAX_MESSAGE_CHARACTERS) if isinstance(said, str) else ""


def printable(text: str, longest: int) -> str:
    """One line of printable characters, cut."""
    # Of a long text only the beginning is looked at: what is left of it is enough.
    visible = "".join(each if each.isprintable() else " " for each in text[: 4 * longest])
    return " ".join(visible.split())[:longest]


def _risk(sent: Any, place: int) -> Risk:
    if not isinstance(sent, dict):
        raise NotUnderstood(f"`data[{place}]` is no object")
    words: dict[str, Any] = {name: sent.get(name) for name in ("risk", "category", "context")}
    if words["context"] is None:
        words["context"] = ""
    for name, value in words.items():
        if not isinstance(value, str) or (name != "context" and not value.strip()):
            raise NotUnderstood(f"`data[{place}].{name}` is missing or no text")
    known = set(words)

    def taken(name: str, value: Any, *, fits: bool) -> Any:
        if not fits:
            return None
        known.add(name)
        return value

    severity: Any = sent.get("severity")
    confidence: Any = sent.get("confidence")
    page, start, rule, cue = (sent.get(name) for name in ("page", "start", "rule", "cue"))
    is_known_severity = isinstance(severity, str) and severity.upper() in _SEVERITIES
    is_share = isinstance(confidence, int | float) and not isinstance(confidence, bool) and 0 <= confidence <= 1
    return Risk(
        risk=_text(words["risk"], MAX_RISK_CHARACTERS),
        category=_line(words["category"], MAX_CATEGORY_CHARACTERS) or "other",
        context=_text(words["context"], MAX_CONTEXT_CHARACTERS),
        severity=taken("severity", str(severity).upper(), fits=is_known_severity),
        confidence=taken("confidence", float(confidence) if is_share else None, fits=is_share),
        page=taken("page", page, fits=type(page) is int and 1 <= page <= _MAX_PAGE),
        start=taken("start", start, fits=type(start) is int and 0 <= start < 2**31),
        rule=taken("rule", rule and _line(str(rule), 64), fits=isinstance(rule, str) and bool(rule.strip())),
        cue=taken("cue", cue and _line(str(cue), 200), fits=isinstance(cue, str) and bool(cue.strip())),
        # Where a risk ends follows from its context; who judged it and what it is the same as is decided here.
        extra=_extra(sent, known | {"end", "severity_source", "fingerprint"}),
    )


def _line(text: str, longest: int) -> str:
    return printable(unicodedata.normalize("NFC", text), longest)


def _text(text: str, longest: int) -> str:
    """Text that can be stored, cut."""
    return text.replace("\0", "\ufffd")[:longest].strip()


def _extra(sent: Mapping[str, Any], known: set[str]) -> str | None:
    """JSON text of the fields that are not known; what cannot be stored as JSON is not understood."""
    rest = {name: value for name, value in sent.items() if name not in known and value is not None}
    if not rest:
        return None
    try:
        text = orjson.dumps(rest)
        # PostgreSQL's jsonb has no NUL. Looked for as an escape, which a text about escapes may hold too: no harm.
        if b"\\u0000" in text:
            text = orjson.dumps(_without_nul(rest))
    except orjson.JSONEncodeError:
        raise NotUnderstood("it is nested too deeply") from None
    return text.decode()


def _without_nul(value: Any) -> Any:
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case list():
            return [_without_nul(each) for each in value]
        case dict():
            return {name.replace("\0", "\ufffd"): _without_nul(each) for name, each in value.items()}
        case _:
            return value
