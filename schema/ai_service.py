"""The embedded risk scanner as a service of its own, on the contract of the AI service: `POST /scan`, `GET /healthz`.

`POST /scan` takes a form with `file` or `text`, and `force_llm`; it answers `{data: […], source: "model"}` with where
it comes from, and refusals as `{error, message}`. Invariants: a body is bounded in size and time while it arrives;
scans run in two threads and a few may wait, so the loop answers meanwhile; nothing of a document is stored or logged.
There is no database and no sign-in: whoever can reach the port may scan, which is why it listens on this machine
unless told otherwise.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import Any, Final

import orjson
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from adapters import scanner
from adapters.structured_logs import set_up_logging
from errors import PayloadTooLarge, ServiceUnavailable, SwitchyardError, ValidationFailed
from schema.middleware import BodyLimits
from schema.multipart import Part, boundary_of, read_form
from settings import Settings

MAX_FILE_BYTES: Final = 10 * 2**20
SCANS_AT_ONCE: Final = 2
SCANS_WAITING: Final = 8
REQUESTS_AT_ONCE: Final = 32
BODY_SECONDS: Final = 60
GRACE_SECONDS: Final = 10
_FORM_BYTES: Final = 64 * 2**10
_YES: Final = frozenset({"true", "1", "on", "yes"})
_NO: Final = frozenset({"false", "0", "off", "no", ""})

_log = structlog.get_logger("switchyard.ai_service")


class _Refused(Exception):
    """A refusal that has no place in the tree of the API's errors."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def create_app(extract: scanner.Extract = scanner.extract) -> Starlette:
    """The application; `extract` turns files into text."""
    door = BodyLimits(_Scans(extract), max_bytes=MAX_FILE_BYTES + _FORM_BYTES, timeout_seconds=BODY_SECONDS)

    @asynccontextmanager
    async def with_rules(_app: Starlette) -> AsyncIterator[None]:
        # Broken rules stop the start instead of the first scan.
        scanner.shipped_rules()
        yield

    return Starlette(
        routes=[Route("/scan", door, methods=["POST"]), Route("/healthz", _health)],
        exception_handlers=_HANDLERS,
        lifespan=with_rules,
    )


def run(settings: Settings, host: str, port: int) -> int:
    """Serve until SIGTERM or SIGINT; logs `ai_service_listening` with the port. Raises OSError for a taken address."""
    set_up_logging(settings)
    config = uvicorn.Config(
        create_app(),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    with config.bind_socket() as listener:
        asyncio.run(_Server(config).serve([listener]))
    _log.info("ai_service_stopped")
    return 0


class _Scans:
    """`POST /scan`."""

    def __init__(self, extract: scanner.Extract) -> None:
        self._extract = extract
        self._threads = ThreadPoolExecutor(SCANS_AT_ONCE, thread_name_prefix="scan")
        self._present = self._accepted = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._present >= REQUESTS_AT_ONCE:
            raise _busy()
        self._present += 1
        try:
            report = await self._report(Request(scope, receive))
        finally:
            self._present -= 1
        await _json(_answer(report))(scope, receive, send)

    async def _report(self, request: Request) -> scanner.ScanReport:
        boundary = boundary_of(request.headers.get("content-type", ""))
        if boundary is None:
            raise _Refused(415, "UNSUPPORTED_MEDIA_TYPE", "Send a form: multipart/form-data with `file` or `text`.")
        body = await request.body()
        if self._accepted >= SCANS_AT_ONCE + SCANS_WAITING:
            raise _busy()
        self._accepted += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._scan, body, boundary)
        finally:
            self._accepted -= 1

    def _scan(self, body: bytes, boundary: str) -> scanner.ScanReport:
        parts = _by_name(read_form(body, boundary))
        if _truth(parts.get("force_llm")):
            raise ServiceUnavailable("This scanner works by rules; there is no language model behind it.")
        file, text = parts.get("file"), parts.get("text")
        if file is not None and not file.content and not file.filename:
            file = None  # a file field of a web page in which nothing was chosen
        if text is not None and not text.content and file is not None:
            text = None
        if (file is None) == (text is None):
            raise ValidationFailed("Send either `file` or `text`.")
        document = _file_text(file, self._extract) if file is not None else _field_text(text)
        if not document.strip():
            raise _Refused(422, "EMPTY_DOCUMENT", "The document holds no text.")
        return scanner.scan(document)


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable("Too many scans are waiting.", retryAfterSeconds=1)


def _file_text(file: Part, extract: scanner.Extract) -> str:
    if len(file.content) > MAX_FILE_BYTES:
        raise PayloadTooLarge(f"The file is larger than {MAX_FILE_BYTES} bytes.", maxBytes=MAX_FILE_BYTES)
    try:
        return extract(file.filename or "", file.content)
    except scanner.UnsupportedFile as error:
        raise _Refused(415, "UNSUPPORTED_MEDIA_TYPE", str(error)) from None
    except scanner.UnreadableFile as error:
        raise _Refused(422, "UNREADABLE_DOCUMENT", str(error)) from None


def _field_text(part: Part | None) -> str:
    content = part.content if part is not None else b""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValidationFailed("`text` is not UTF-8.") from None


def _by_name(parts: Sequence[Part]) -> dict[str, Part]:
    """Fields by their names; what is not of the contract is passed over."""
    found: dict[str, Part] = {}
    for part in parts:
        if part.name in found:
            raise ValidationFailed(f"`{part.name}` is sent twice.")
        found[part.name] = part
    return found


def _truth(part: Part | None) -> bool:
    said = "" if part is None else part.content.decode("ascii", "replace").strip().lower()
    if said not in _YES | _NO:
        raise ValidationFailed("`force_llm` is neither true nor false.")
    return said in _YES


def _answer(report: scanner.ScanReport) -> dict[str, Any]:
    return {
        "data": [asdict(finding) for finding in report.findings],
        "source": "model",
        **asdict(report.provenance),
    }


async def _health(_request: Request) -> Response:
    return _json({"status": "ok", "ruleset": scanner.shipped_rules().hash})


async def _refuse_known(_request: Request, error: SwitchyardError) -> Response:
    answer = _json({"error": error.code.value, "message": error.message}, error.status)
    if (seconds := error.details.get("retryAfterSeconds")) is not None:
        answer.headers["Retry-After"] = str(seconds)
    return answer


async def _refuse(_request: Request, error: _Refused) -> Response:
    return _json({"error": error.code, "message": error.message}, error.status)


async def _refuse_http(_request: Request, error: HTTPException) -> Response:
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 408: "TIMED_OUT"}.get(error.status_code, "REFUSED")
    answer = _json({"error": code, "message": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _nobody_listens(_request: Request, _error: ClientDisconnect) -> Response:
    return Response(status_code=499)


# Starlette's type for a handler does not know that it gets what it is registered for.
_HANDLERS: Final[dict[Any, Any]] = {
    SwitchyardError: _refuse_known,
    _Refused: _refuse,
    HTTPException: _refuse_http,
    ClientDisconnect: _nobody_listens,
}


def _json(content: object, status: int = 200) -> Response:
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(orjson.dumps(content), status, headers, "application/json")


class _Server(uvicorn.Server):
    """uvicorn that says where it listens, and ends with code 0 on a signal that it obeyed."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for listener in sockets or ():
            host, port, *_ = listener.getsockname()
            _log.info("ai_service_listening", host=host, port=port)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
