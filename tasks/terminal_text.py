"""What a terminal would leave of a stream of bytes: the text without colours, cursor movements and control characters.

Invariant: one linear scan, and no sequence is longer than 2 KiB here, so a sequence that never ends is shown as text
and neither hides what follows nor grows in memory. Line feeds, tabs and carriage returns stay; sequences that begin a
line again (`ESC [2K`, `ESC [1G`) become carriage returns. Movements to other lines are dropped, not obeyed.
"""

from __future__ import annotations

import re
from typing import Final

_MAX_STRING_BYTES: Final = 2_048
# ECMA-48 §5.3–5.6 and §8.3: control sequences, control strings, escape sequences with and without intermediate bytes.
_SEQUENCE: Final = re.compile(
    rb"""\x1b(?:
        \[ [0-?]{0,64}+ [ -/]{0,8}+ [@-~]
      | [\]PX^_] [^\x07\x1b\n]{0,2048}+ (?: \x07 | \x1b\\ )
      | [ -/]{1,4}+ [0-~]
      | [0-OQ-WYZ\\`-~]
    )?""",
    re.VERBOSE,
)
_UNFINISHED: Final = re.compile(
    rb"""\x1b(?:
        \[ [0-?]{0,64}+ [ -/]{0,8}+
      | [\]PX^_] [^\x07\x1b\n]{0,2048}+ \x1b?
      | [ -/]{1,4}+
    )?\Z""",
    re.VERBOSE,
)
_LINE_AGAIN: Final = frozenset({b"\x1b[2K", b"\x1b[G", b"\x1b[0G", b"\x1b[1G"})
# A bell ends a control string, so it goes last.
_CONTROLS_BUT_BELL: Final = bytes(code for code in (*range(32), 127) if code not in b"\t\n\r\x1b\x07")


class TerminalText:
    """Takes bytes cut anywhere; holds at most one unfinished sequence."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The text of what came so far and was not given out yet, up to an unfinished sequence."""
        data = (self._held + data).translate(None, _CONTROLS_BUT_BELL)
        self._held = b""
        if b"\x1b" in data:
            unfinished = _UNFINISHED.search(data, max(0, len(data) - _MAX_STRING_BYTES - 4))
            if unfinished is not None:
                data, self._held = data[: unfinished.start()], unfinished[0]
            data = _SEQUENCE.sub(_what_it_leaves, data)
        return data.replace(b"\x07", b"")

    def close(self) -> bytes:
        """What is left when nothing follows; the next bytes begin anew."""
        data, self._held = self._held, b""
        return _SEQUENCE.sub(_what_it_leaves, data)


def terminal_text(data: bytes) -> bytes:
    """The text of bytes that are complete."""
    stream = TerminalText()
    return stream.feed(data) + stream.close()


def _what_it_leaves(sequence: re.Match[bytes]) -> bytes:
    return b"\r" if sequence[0] in _LINE_AGAIN else b""
