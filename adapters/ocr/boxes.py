"""Words with their places, and what follows from them: rows, text, how a sheet lies.

Pure rules. Places are in pixels of a picture, or in parts of a page, with the origin at the top left.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

MIN_SLOPE_WIDTH: Final = 4.0
"""A line tells how the sheet lies if it is so many times as wide as it is high."""


@dataclass(frozen=True, slots=True)
class Box:
    """A word and its place. Confidence is 0 to 100, None where nobody had to guess."""

    text: str
    left: float
    top: float
    right: float
    bottom: float
    confidence: float | None = None

    @property
    def middle(self) -> float:
        """Half of its height down."""
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        """How high it is."""
        return self.bottom - self.top


def straightened(boxes: Sequence[Box], degrees: float, width: float, height: float) -> list[Box]:
    """The boxes of a sheet that lies turned clockwise by so many degrees, turned back about its centre.

    Boxes of letters on a slope are too high by their width's share of it; that share is taken off again.
    """
    if not degrees:
        return list(boxes)
    angle = math.radians(-degrees)
    sine, cosine = math.sin(angle), math.cos(angle)
    turned = []
    for box in boxes:
        x, y = (box.left + box.right - width) / 2, (box.top + box.bottom - height) / 2
        centre_x, centre_y = x * cosine - y * sine + width / 2, x * sine + y * cosine + height / 2
        half_width = (box.right - box.left) / 2
        half_height = max(box.height - abs(sine) * half_width * 2, box.height / 2) / 2
        turned.append(
            replace(
                box,
                left=centre_x - half_width,
                right=centre_x + half_width,
                top=centre_y - half_height,
                bottom=centre_y + half_height,
            )
        )
    return turned


def rows(boxes: Sequence[Box]) -> list[list[Box]]:
    """Boxes of straight lines, row by row, each from left to right.

    A box belongs to the row whose middle is within half of its height of its own; linear but for the sorting.
    """
    found: list[list[Box]] = []
    middle = 0.0
    for box in sorted(boxes, key=lambda box: box.middle):
        if found and box.middle - middle <= max(box.height, statistics.fmean(b.height for b in found[-1][-8:])) / 2:
            found[-1].append(box)
            middle += (box.middle - middle) / len(found[-1])
        else:
            found.append([box])
            middle = box.middle
    return [sorted(row, key=lambda box: box.left) for row in found]


def text_of(found: Sequence[Sequence[Box]]) -> str:
    """Rows as text: words joined by blanks, an empty line where the gap to the row above is wider than two rows."""
    lines: list[str] = []
    bottom: float | None = None
    for row in found:
        height = statistics.fmean(box.height for box in row)
        top = min(box.top for box in row)
        if bottom is not None and top - bottom > 2 * height:
            lines.append("")
        lines.append(" ".join(box.text for box in row))
        bottom = max(box.bottom for box in row)
    return "\n".join(lines)


def slope_degrees(lines: Sequence[Sequence[Box]]) -> float:
    """How far lines of words go down to the right, in degrees: the middle of what the long ones say, 0 without any."""
    slopes = []
    for line in lines:
        if len(line) < 3:
            continue
        width = max(box.right for box in line) - min(box.left for box in line)
        if width < MIN_SLOPE_WIDTH * statistics.fmean(box.height for box in line):
            continue
        points = [((box.left + box.right) / 2, box.middle) for box in line]
        slopes.append(math.degrees(math.atan(statistics.linear_regression(*zip(*points, strict=True)).slope)))
    return statistics.median(slopes) if slopes else 0.0


def mean_confidence(boxes: Sequence[Box]) -> float | None:
    """The mean over words; None when no word has one."""
    known = [box.confidence for box in boxes if box.confidence is not None]
    return statistics.fmean(known) if known else None
