"""The child that decodes: `python -m adapters.decoding.child ORDER`, within the limits that its parent gave it.

ORDER is a JSON object: path, contentType, maxPixels, maxFrames, maxPages. The answer on standard output is one line of
JSON, `{kind, width, height, pages, durationSeconds, thumbnailBytes}` or `{rejection}`, which is for people, and then
the thumbnail. Whatever a decoder prints goes to stderr. A decoder that a file breaks takes this process along and
nothing else. The exit code is not 0 only for what is no fault of the file: a decoder that cannot be loaded, a file that
cannot be opened.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final

from adapters.decoding.findings import THUMBNAIL_PIXELS, Found, Rejection

_PDF_START: Final = b"%PDF-"


def main(arguments: list[str]) -> int:
    """Look, answer, end; the exit code is 0 also for a rejection, which is an answer. Raises ImportError, OSError."""
    order = json.loads(arguments[0])
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints must not meet the answer
    look = looker(order["contentType"])
    with open(order["path"], "rb"):
        pass
    thumbnail = b""
    answer: dict[str, Any]
    try:
        found = look(order)
    except Rejection as error:
        answer = {"rejection": str(error)}
    except MemoryError:
        answer = {"rejection": "Decoding the file takes more memory than it may."}
    except Exception:  # noqa: BLE001 - decoders raise whatever a file makes them raise
        traceback.print_exc()
        answer = {"rejection": "The file breaks its decoder."}
    else:
        thumbnail = found.thumbnail or b""
        answer = {
            "kind": found.kind,
            "width": found.width,
            "height": found.height,
            "pages": found.pages,
            "durationSeconds": found.duration_seconds,
            "thumbnailBytes": len(thumbnail),
        }
    answer_to.write(json.dumps(answer).encode() + b"\n" + thumbnail)
    answer_to.close()
    sys.stdout.flush()
    os._exit(0)  # decoders need not tidy up after themselves


def looker(content_type: str) -> Callable[[Mapping[str, Any]], Found]:
    """The decoder for a type, loaded whole; raises ImportError. It raises Rejection."""
    from adapters.decoding import pictures

    family = content_type.partition("/")[0]
    if family == "image":
        return pictures.look
    if family == "video":
        from adapters.decoding import videos

        return videos.look
    import pypdfium2  # noqa: F401 - what cannot be loaded is found before the file is

    return _document


def _document(order: Mapping[str, Any]) -> Found:
    import pypdfium2

    with open(order["path"], "rb") as file:
        # Readers take a PDF that begins later, and others would take such a file for what stands before.
        if not file.read(len(_PDF_START)) == _PDF_START:
            raise Rejection("The file is no PDF.")
    try:
        document = pypdfium2.PdfDocument(order["path"])
        pages = len(document)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise Rejection("The PDF is locked with a password." if locked else "The PDF is broken.") from None
    if not 1 <= pages <= order["maxPages"]:
        raise Rejection(f"A PDF has 1 to {order['maxPages']:,} pages; this one has {pages:,}.")
    return Found("PDF", pages=pages, thumbnail=_first_page(document, pypdfium2.PdfiumError))


def _first_page(document: Any, broken: type[Exception]) -> bytes | None:
    """A picture of the first page; None when it is broken or has no size."""
    from adapters.decoding import pictures

    try:
        page = document[0]
        longest, shortest = max(page.get_size()), min(page.get_size())
        if shortest <= 0:
            return None
        # Never larger than the thumbnail, whatever size the page says that it has.
        image = page.render(scale=THUMBNAIL_PIXELS / longest, may_draw_forms=False).to_pil()
    except broken:
        return None
    return pictures.thumbnail(image)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
