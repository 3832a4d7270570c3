"""One crawl, in a process of its own: `python -m tasks.crawl.crawler`, started by a worker with two pipes.

Reads `start` from standard input, speaks `protocol` on what was standard output, and keeps everything else that
writes there away from it (it goes to standard error). Holds no credentials and imports neither settings nor models.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from typing import Final

from tasks.crawl.crawler.protocol import MAX_LINE_BYTES, CloseReason, ProtocolError, Start, decode, encode

EXIT_NOT_STARTED: Final = 2
"""Exit code when standard input did not begin with a `start` message."""


def main() -> int:
    """Run the crawl to its end; the exit code says nothing, `closed` does."""
    in_fd, out_fd = _claim_pipes()
    try:
        line, rest = _read_line(in_fd)
        start = Start.from_message(decode(line))
    except ProtocolError as error:
        sys.stderr.write(f"crawler: {error}\n")
        return EXIT_NOT_STARTED
    if refusal := _refusal(start):
        path, detail = refusal
        _refuse(out_fd, path, detail)
        return 0
    _crawl(start, in_fd, out_fd, rest)
    return 0


def _claim_pipes() -> tuple[int, int]:
    """Move the pipes to descriptors of our own: a stray print or read must not meet the protocol."""
    in_fd, out_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return in_fd, out_fd


def _read_line(fd: int) -> tuple[bytes, bytes]:
    """The first line and what came after it; raises ProtocolError at the end of the input."""
    data = bytearray()
    while (end := data.find(b"\n")) < 0:
        chunk = os.read(fd, 65_536)
        if not chunk or len(data) > MAX_LINE_BYTES:
            raise ProtocolError("standard input did not begin with a message")
        data += chunk
    return bytes(data[:end]), bytes(data[end + 1 :])


def _refusal(start: Start) -> tuple[list[str | int], str] | None:
    """Why the crawl cannot start, as a path into the input and a sentence; None if it can."""
    from tasks.crawl import spiders
    from tasks.crawl.contracts import SpiderUnusable

    try:
        definition = spiders.only(start.spider)
    except SpiderUnusable as error:
        return [], str(error)
    fault = next(iter(spiders.input_faults(definition, start.input)), None)
    return None if fault is None else (list(fault.path), fault.message)


def _refuse(out_fd: int, path: list[str | int], detail: str) -> None:
    message = {"type": "closed", "reason": CloseReason.START_ERROR.value, "detail": detail, "path": path}
    os.write(out_fd, encode(message))


def _crawl(start: Start, in_fd: int, out_fd: int, already_read: bytes) -> None:
    gc.disable()  # modules are no garbage
    # The reactor must be installed by Scrapy's process object before anything imports it, hence the order here.
    from scrapy.crawler import AsyncCrawlerProcess

    from tasks.crawl.crawler.addon import settings_for

    process = AsyncCrawlerProcess(settings_for(start))

    from tasks.crawl import spiders
    from tasks.crawl.contracts import SpiderUnusable
    from tasks.crawl.crawler.channel import Channel
    from tasks.crawl.crawler.classes import class_of
    from tasks.crawl.crawler.output_check import OutputCheck, UnusableSchema
    from tasks.crawl.crawler.session import LogLines, Session

    try:
        definition = spiders.only(start.spider)
        spider_class = class_of(definition)
        check = OutputCheck(definition.narrow_output(start.input))
    except (SpiderUnusable, UnusableSchema) as error:
        _refuse(out_fd, [], str(error))
        return
    session = Session(start, Channel(in_fd, out_fd, already_read=already_read), check)
    _send_logs_to(session, LogLines(session))
    gc.freeze()
    gc.enable()
    process.crawl(spider_class, session=session)
    process.start(install_signal_handlers=False)


def _send_logs_to(session: object, handler: logging.Handler) -> None:
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.addHandler(handler)
    for name in ("scrapy", "twisted"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Pages that raise are reported by `pages.PageRunner`, Python's own warnings are for developers.
    logging.getLogger("scrapy.core.scraper").setLevel(logging.CRITICAL)
    logging.getLogger("py.warnings").setLevel(logging.CRITICAL)


if __name__ == "__main__":
    exit_code = main()
    gc.freeze()  # what is left goes with the process
    sys.exit(exit_code)
