"""Readers of documents without a worker: the child program, started by hand, and what it said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.ocr.languages import gather, installed
from adapters.ocr.protocol import MessageType, Start, decode
from settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 1_024 * 2**20


@dataclass(frozen=True, slots=True)
class Said:
    """What a reader said, and how it ended."""

    messages: Sequence[Mapping[str, Any]]
    exit_code: int
    stray: str

    @property
    def pages(self) -> list[Mapping[str, Any]]:
        """The pages that were read."""
        return [message for message in self.messages if message["type"] == MessageType.PAGE]

    @property
    def last(self) -> Mapping[str, Any]:
        """The last message."""
        return self.messages[-1]


class Readers:
    """Starts readers; files and language data are in a folder of the caller's."""

    def __init__(self, folder: Path, languages: Sequence[str]) -> None:
        self.languages = list(languages)
        self._folder = folder
        self.data_path = str(folder / "tessdata")
        self._count = 0
        gather(folder / "tessdata", self.languages, plain_settings())

    def start(
        self, content: bytes, *, is_pdf: bool, stdout: int = subprocess.PIPE, **fields: Any
    ) -> tuple[subprocess.Popen[bytes], bytes]:
        """A reader that waits for its start message, and the message."""
        self._count += 1
        file = self._folder / f"document-{self._count}"
        file.write_bytes(content)
        given = {
            "force_ocr": False,
            "dpi": 200,
            "max_pages": 500,
            "max_pixels": 50_000_000,
            "page_seconds": 60.0,
            "memory_bytes": MEMORY_BYTES,
            "languages": self.languages,
            **fields,
        }
        start = Start(path=str(file), is_pdf=is_pdf, data_path=self.data_path, **given)
        process = subprocess.Popen(
            [sys.executable, "-m", "adapters.ocr.reader"],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "OMP_THREAD_LIMIT": "1", "LANG": "C.UTF-8"},
        )
        return process, start.encode()

    def read(self, content: bytes, *, is_pdf: bool, **fields: Any) -> Said:
        """A document, read to its end."""
        process, start = self.start(content, is_pdf=is_pdf, **fields)
        out, stray = process.communicate(start, timeout=100)
        return Said([decode(line) for line in out.splitlines()], process.returncode, stray.decode())


def plain_settings() -> Settings:
    """Settings as they are without any environment but what must be there."""
    return Settings.model_construct(tessdata_paths=(), ocr_languages=("spa", "eng"))


def has_spanish() -> bool:
    """Whether Spanish can be read on this machine."""
    return "spa" in installed(plain_settings())
