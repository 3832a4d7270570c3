"""A place in a container's log, so that a log which is followed anew goes on where it was cut.

Invariant: every byte is passed on once and in order, as long as the cluster still has the lines since the cut; the
kubelet keeps the last files of a log only (`containerLogMaxSize`), so a long cut in a busy log can leave a gap.
"""

from __future__ import annotations

from typing import Final

from adapters.sandbox.kubernetes_api import ClusterError

TIMESTAMP_BYTES: Final = 64


class LogPlace:
    """Takes the timestamps off the lines, and leaves out what came before.

    A connection begins with the lines of one second. How many of these came already tells which are new; their order
    in the log is fixed, although the two streams of a container can be a little out of step. A line younger than all
    that came is new in any case: the kubelet may have begun a new file.
    """

    def __init__(self) -> None:
        self._second = b""  # the latest one, as a timestamp that lies in it
        self._lines = 0  # begun in that second
        self._latest = b""
        self._line_bytes = 0  # passed on of the last line
        self._is_line_over = True
        self._is_counted = True
        self._head = bytearray()  # a timestamp that is not whole yet
        self._is_in_line = False
        self._skip = 0  # bytes of this line to leave out; -1 for all of it
        self._again = 0  # lines that this connection has sent again
        self._is_catching_up = False

    @property
    def since(self) -> str | None:
        """The second to follow from (RFC 3339), None for the start."""
        text = self._second.decode("ascii", errors="replace")
        return (text[:19] + (text[-6:] if text[-6:-5] in ("+", "-") else "Z")) if text else None

    def reconnect(self) -> None:
        """What comes next is a new connection's, from `since`."""
        self._head.clear()
        self._is_in_line = False
        self._again = 0
        self._is_catching_up = self._lines > 0

    def take(self, chunk: bytes) -> bytes:
        """What of this chunk is new. Raises ClusterError when it is no log with timestamps."""
        new = bytearray()
        place = 0
        while place < len(chunk):
            if not self._is_in_line:
                space = chunk.find(b" ", place)
                self._head += chunk[place : space if space >= 0 else None]
                if len(self._head) > TIMESTAMP_BYTES:
                    raise ClusterError("a line of the log has no timestamp")
                if space < 0:
                    break
                place = space + 1
                self._begin_line(bytes(self._head))
                self._head.clear()
            end = chunk.find(b"\n", place) + 1
            piece = chunk[place : end or None]
            place += len(piece)
            self._is_in_line = not end
            new += self._take_piece(piece, is_over=bool(end))
        return bytes(new)

    def _begin_line(self, timestamp: bytes) -> None:
        self._is_in_line = True
        self._skip = 0
        order = _order(timestamp)
        if self._is_catching_up:
            self._again += 1
            self._is_catching_up = self._again < self._lines
            if self._again <= self._lines and order <= self._latest:
                is_cut_line = self._again == self._lines and not self._is_line_over
                self._skip = self._line_bytes if is_cut_line else -1
                return
            self._is_catching_up = False
        if timestamp[:19] > self._second[:19]:
            self._second, self._lines = timestamp, 0
        self._is_counted = timestamp[:19] == self._second[:19]
        self._lines += self._is_counted
        self._latest = max(self._latest, order)
        self._line_bytes = 0
        self._is_line_over = False

    def _take_piece(self, piece: bytes, *, is_over: bool) -> bytes:
        if self._skip < 0:
            return b""
        new = piece[self._skip :]
        self._skip -= len(piece) - len(new)
        self._line_bytes += len(new)
        self._is_line_over = is_over or not self._is_counted  # what is not counted does not come again
        return new


def _order(timestamp: bytes) -> bytes:
    """A key that sorts: fractions are written with a fixed length, but not by every runtime."""
    whole, _, fraction = timestamp.partition(b".")
    return whole[:19] + fraction.rstrip(b"Z").split(b"+")[0].split(b"-")[0].ljust(9, b"0")
