"""Logs: one JSON object per line on stderr, from our own loggers and everybody else's.

Each line has `timestamp` (UTC), `level`, `logger`, `event` and its fields, the request or execution id among them
once it is bound. Invariant: a value under a secret-looking name, or the password inside a URL, never reaches the
stream. Where lines are collected, rotated and kept is the platform's business.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, Final, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from settings import Settings

REDACTED: Final = "[redacted]"

_SECRET_NAME: Final = re.compile(
    r"password|passwd|secret|token|authorization|cookie|api_?key|credential", re.IGNORECASE
)
_URL_PASSWORD: Final = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/]+@", re.IGNORECASE)
_OWN_HANDLERS: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
_CHATTY: Final = ("uvicorn", "tortoise", "arq", "asyncio", "httpx", "httpcore", "aiobotocore", "botocore", "scrapy")


def set_up_logging(settings: Settings, *, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to one stream, stderr by default; may be called again."""
    out = stream if stream is not None else sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: Sequence[Processor] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:-2], structlog.stdlib.ExtraAdder(), *shared[-2:]],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _renderer(settings.log_format, out),
            ],
        )
    )
    root = logging.getLogger()
    for previous in root.handlers[:]:
        if isinstance(previous.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _OWN_HANDLERS:
        # A server that was configured before us, as one in a test is, has handlers of its own.
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.NOTSET)
    for name in _CHATTY:
        # What they say at INFO, our own events say with an id. At DEBUG somebody wants to hear everything.
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    for name in ("uvicorn", "websockets"):
        # At DEBUG they write out frames, and the first frame of a socket holds a token.
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(True)


def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Blank what must not be written: values by the name of their field, passwords inside URLs anywhere."""
    for name, value in event.items():
        event[name] = _without_secrets(value, name)
    return event


def _without_secrets(value: Any, name: object = "") -> Any:
    if isinstance(name, str) and isinstance(value, str | bytes | list | tuple | dict) and _SECRET_NAME.search(name):
        return REDACTED  # numbers and flags pass: `max_tokens` is no secret
    if isinstance(value, str):
        return _URL_PASSWORD.sub(rf"\1{REDACTED}@", value) if "://" in value else value
    if isinstance(value, dict):
        return {key: _without_secrets(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(inner) for inner in value]
    return value


def _renderer(log_format: str, stream: TextIO) -> Processor:
    if log_format == "console":
        return structlog.dev.ConsoleRenderer(colors=stream.isatty())
    return structlog.processors.JSONRenderer(serializer=_to_line)


def _to_line(event: EventDict, **_: Any) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
