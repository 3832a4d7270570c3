"""Mail as files: what a machine without a mail server gets, for people and tests to look at.

A message is complete from the moment its file is there; names are in the order of sending. The newest 500 are kept.
"""

from __future__ import annotations

import asyncio
import os
import time
from email import policy
from email.message import EmailMessage
from pathlib import Path
from secrets import token_hex
from typing import Final

from adapters.mail.contract import TransientMailError

KEPT_MESSAGES: Final = 500
_ABANDONED_SECONDS: Final = 3_600
_SUFFIX: Final = ".eml"


class FolderMailer:
    """Writes each message to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, message: EmailMessage) -> None:
        """Write the message; raises TransientMailError when the disk does not take it."""
        content = message.as_bytes(policy=policy.SMTP)
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            raise TransientMailError(f"The mail folder cannot be written: {error.strerror}.") from error

    def _write(self, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{time.time_ns():020d}-{token_hex(4)}"
        unfinished = self._folder / f".{name}"
        try:
            # Mail holds links that sign people in: it is for the owner of the folder only.
            with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(self._folder / f"{name}{_SUFFIX}")
        finally:
            unfinished.unlink(missing_ok=True)
        self._prune()

    def _prune(self) -> None:
        names = sorted(entry.name for entry in os.scandir(self._folder))
        finished = [name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]
        for name in finished[:-KEPT_MESSAGES]:
            (self._folder / name).unlink(missing_ok=True)  # another process prunes too
        oldest = f".{time.time_ns() - _ABANDONED_SECONDS * 10**9:020d}"
        for name in names:
            if name.startswith(".") and name < oldest:
                (self._folder / name).unlink(missing_ok=True)
