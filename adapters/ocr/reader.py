"""The reader: opens one document that nobody trusts, and says what is on its pages. `python -m adapters.ocr.reader`.

A process of its own, without credentials and with limits on memory and processor time: what a document does to its
decoder ends here. It reads `start` from standard input and speaks `protocol` on what was standard output; a library
that prints goes to standard error. Invariant: it says which page it begins before it touches it, so whoever started it
knows what killed it.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Final

from adapters.ocr.engines import Engine, EngineMissing, TookTooLong, open_engine
from adapters.ocr.protocol import MAX_LINE_BYTES, Fault, MessageType, ProtocolError, Start, encode
from adapters.ocr.recognition import read_page
from adapters.ocr.sheets import Document, Unreadable, open_document

EXIT_NOT_STARTED: Final = 2
CPU_SLACK_SECONDS: Final = 2
OUT_OF_MEMORY: Final = "It needs more memory than a document may take."


def main() -> int:
    """Read the document to its end."""
    out = _claim_output()
    try:
        start = Start.decode(sys.stdin.buffer.readline(MAX_LINE_BYTES))
    except ProtocolError as error:
        sys.stderr.write(f"reader: {error}\n")
        return EXIT_NOT_STARTED
    _limit(resource.RLIMIT_AS, start.memory_bytes)
    _limit_processor(start.page_seconds)
    try:
        document = open_document(start.path, is_pdf=start.is_pdf, dpi=start.dpi, max_pixels=start.max_pixels)
        if document.pages == 0:
            raise Unreadable("The document has no pages.")
        if document.pages > start.max_pages:
            raise Unreadable(f"The document has {document.pages:,} pages; {start.max_pages:,} are read at most.")
    except (Unreadable, MemoryError, RuntimeError) as error:
        fault, message = _fault_of(error)
        _say(out, MessageType.REFUSED, code=fault.value, message=message)
        return 0
    _say(out, MessageType.DOCUMENT, pages=document.pages)
    engine = cache(partial(open_engine, start.data_path, start.languages))
    done = frozenset(start.skip)
    for number in range(1, document.pages + 1):
        if number not in done:
            _read(out, start, document, engine, number)
    _say(out, MessageType.END)
    return 0


def _read(out: int, start: Start, document: Document, engine: Callable[[], Engine], number: int) -> None:
    _limit_processor(start.page_seconds)
    _say(out, MessageType.BEGUN, number=number)
    try:
        page = read_page(document, number, engine, force_ocr=start.force_ocr, seconds=start.page_seconds)
        line = encode(MessageType.PAGE, number=number, **page.to_message())
        if len(line) > MAX_LINE_BYTES:
            raise Unreadable("The page has more text than a page can have.")
    except (Unreadable, TookTooLong, EngineMissing, MemoryError, RuntimeError) as error:
        fault, message = _fault_of(error, seconds=start.page_seconds)
        line = encode(MessageType.FAILED, number=number, code=fault.value, message=message)
    _write(out, line)


def _fault_of(error: Exception, *, seconds: float = 0.0) -> tuple[Fault, str]:
    match error:
        case Unreadable():
            return error.fault, str(error)
        case MemoryError():
            return Fault.OUT_OF_MEMORY, OUT_OF_MEMORY
        case TookTooLong():
            return Fault.TIMED_OUT, f"Reading it took longer than {seconds:g} s."
        case EngineMissing():
            return Fault.START_ERROR, f"Documents cannot be read here: {error}."
        case _:
            # PDFium's and Tesseract's way to say that they cannot go on.
            return Fault.INVALID_INPUT, f"It cannot be read: {str(error)[:200] or type(error).__name__}"


def _claim_output() -> int:
    """A descriptor of our own for the protocol: what libraries print must not meet it."""
    out = os.dup(1)
    os.dup2(2, 1)
    return out


def _limit_processor(seconds: float) -> None:
    """Allow so much processor time from now on; the kernel ends the process that takes more."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, int(usage.ru_utime + usage.ru_stime + seconds) + CPU_SLACK_SECONDS)


def _limit(kind: int, value: int) -> None:
    # Only the soft limit, which can be moved from page to page; systems without such a limit have the watcher's.
    with suppress(OSError, ValueError):
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def _say(out: int, type: MessageType, **fields: object) -> None:
    _write(out, encode(type, **fields))


def _write(out: int, line: bytes) -> None:
    view = memoryview(line)
    while view:
        view = view[os.write(out, view) :]


if __name__ == "__main__":
    sys.exit(main())
