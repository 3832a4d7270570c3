"""Lines of the log: one JSON object each, whoever wrote them, and no secrets."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from adapters.structured_logs import REDACTED, set_up_logging
from settings import load


class Stream(io.StringIO):
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().rstrip("\n").split("\n")]


@pytest.fixture
def stream() -> Iterator[Stream]:
    """Logging goes here during the test and back to where it was after it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configuration = structlog.get_config()
    stream = Stream()
    keys = f"k:{base64.b64encode(bytes(32)).decode()}"
    set_up_logging(load(database_url="postgres://x", redis_url="redis://x", secret_keys=keys), stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.configure(**configuration)


def test_secrets_are_not_written(stream: Stream) -> None:
    log = structlog.get_logger("switchyard.test")
    log.info(
        "leak",
        password="hunter2",
        headers={"Authorization": "Bearer hunter2", "Accept": "text/html"},
        refresh_token="hunter2",
        database="postgres://user:hunter2@db/switchyard",
        sources=["redis://:hunter2@cache/0"],
        max_tokens=2000,
    )
    logging.getLogger("library").warning("cannot reach %s", "amqp://me:hunter2@queue", extra={"api_key": "hunter2"})
    assert "hunter2" not in stream.getvalue()
    ours, theirs = stream.lines()
    assert ours["headers"] == {"Authorization": REDACTED, "Accept": "text/html"}
    assert ours["database"] == f"postgres://user:{REDACTED}@db/switchyard"
    assert ours["max_tokens"] == 2000
    assert theirs["event"] == f"cannot reach amqp://me:{REDACTED}@queue"


def test_secrets_in_a_trace_are_not_written(stream: Stream) -> None:
    try:
        raise ConnectionError("postgres://user:hunter2@db refused")
    except ConnectionError as error:
        structlog.get_logger("switchyard.test").error("failed", exc_info=error)
        logging.getLogger("library").exception("failed")
    ours, theirs = stream.lines()
    assert "ConnectionError" in ours["exception"]
    assert "ConnectionError" in theirs["exception"]
    assert "hunter2" not in stream.getvalue()


def test_bound_ids_reach_lines_of_libraries_too(stream: Stream) -> None:
    with structlog.contextvars.bound_contextvars(request_id="the-request"):
        structlog.get_logger("switchyard.test").info("ours")
        logging.getLogger("library").warning("theirs")
    assert [line["request_id"] for line in stream.lines()] == ["the-request", "the-request"]
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in stream.lines())


@pytest.mark.parametrize("library", ["uvicorn.error", "tortoise", "arq.worker"])
def test_libraries_are_heard_only_when_something_is_wrong(stream: Stream, library: str) -> None:
    logging.getLogger(library).info("chatter")
    logging.getLogger(library).warning("trouble")
    assert [line["event"] for line in stream.lines()] == ["trouble"]


def test_a_line_is_one_line_whatever_is_in_it(stream: Stream) -> None:
    structlog.get_logger("switchyard.test").info("two\nlines", value="a\r\nb\u2028c")
    [line] = stream.lines()
    assert line["event"] == "two\nlines"
