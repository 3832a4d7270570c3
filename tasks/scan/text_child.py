"""Takes the text out of a PDF or HTML file, in a process of its own: `python -m tasks.scan.text_child TYPE CHARACTERS`.

The file comes on standard input, one JSON object goes out: `{"text", "isCut"}` with a form feed between pages, or
`{"refusal"}` for people. The process limits itself before it looks at the file: a parser that a file broke or fooled
takes this process with it and nothing else. It has no credentials and imports neither settings nor models.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any, Final

PDF: Final = "application/pdf"
HTML: Final = "text/html"
MEMORY_BYTES: Final = 768 * 2**20
CPU_SECONDS: Final = 30
MAX_PAGES: Final = 5_000
# PDFium writes a hyphen at the end of a line as one of these.
_WRITTEN: Final = str.maketrans({"\x02": "-", "\ufffe": "-", "\f": " ", "\0": ""})


class Refusal(Exception):
    """The file cannot be read; the message is for people."""


def main(arguments: list[str]) -> int:
    """Read, write, end; the exit code is 0 also for a refusal, which is an answer."""
    content_type, longest = arguments[0], int(arguments[1])
    answer_to = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace")
    os.dup2(2, 1)  # what a parser prints must not meet the answer
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    content = sys.stdin.buffer.read()
    answer: dict[str, object]
    try:
        text, is_cut = _pdf(content, longest) if content_type == PDF else _html(content, longest)
        answer = {"text": text, "isCut": is_cut}
    except Refusal as error:
        answer = {"refusal": str(error)}
    json.dump(answer, answer_to, ensure_ascii=False)
    answer_to.close()
    return 0


def _html(content: bytes, longest: int) -> tuple[str, bool]:
    from adapters import scanner

    try:
        text = scanner.extract("page.html", content)
    except (scanner.UnreadableFile, scanner.UnsupportedFile) as error:
        raise Refusal(str(error)) from None
    return text[:longest], len(text) > longest


def _pdf(content: bytes, longest: int) -> tuple[str, bool]:
    """The text layer, page by page; a page that cannot be read is an empty one."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
        count = len(document)
    except pypdfium2.PdfiumError as error:
        locked = "password" in str(error).lower()
        raise Refusal("The PDF is locked with a password." if locked else "The PDF is broken.") from None
    pages: list[str] = []
    left = longest
    for number in range(min(count, MAX_PAGES)):
        page = _page(document, number, pypdfium2.PdfiumError)[:left]
        pages.append(page)
        left -= len(page) + 1
        if left <= 0:
            return "\f".join(pages)[:longest], True
    return "\f".join(pages), count > MAX_PAGES


def _page(document: Any, number: int, broken: type[Exception]) -> str:
    try:
        page = document[number]
        words = page.get_textpage()
        text = str(words.get_text_range())
        words.close()
        page.close()
    except broken:
        return ""
    return text.replace("\r\n", "\n").translate(_WRITTEN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
