"""The garbage collector, kept out of the way of a process that loads, migrates or ends.

Modules are thousands of objects that live as long as the process. Looking through them again and again while they come
to be, and once more before they go, finds nothing and is a quarter to a third of what both cost. Collecting while a
process works is left to Python and to who serves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Import modules without collecting; afterwards they are not looked at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def seldom() -> Iterator[None]:
    """Collect far less often: for work that makes much and soon forgets it. It may take tens of megabytes more."""
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def ending() -> None:
    """Call last: what is left goes with the process, uncollected."""
    gc.freeze()
