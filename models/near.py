"""Places within so many kilometres of a point: boxes for an index to find, and the distance that decides.

A box is around the circle, split where it crosses the antimeridian, and as wide as the world where it holds a pole.
The earth is a sphere of its mean radius (IUGG: 6371.0088 km), which is wrong by up to half a percent.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

EARTH_METRES: Final = 6_371_008.8
DECIMALS: Final = 9
"""Of degrees: a tenth of a millimetre. Far smaller differences underflow when they are squared, which is an error."""
_SPARE_DEGREES: Final = 1e-6
"""More than rounding can take: what is in the circle must be in a box, the rest is the distance's to refuse."""


class Box(NamedTuple):
    """Bounds in degrees."""

    south: float
    west: float
    north: float
    east: float


def boxes(latitude: float, longitude: float, kilometres: float) -> list[Box]:
    """One box or two that hold every point within `kilometres`, less than a quarter of the earth away."""
    angle = kilometres * 1000 / EARTH_METRES
    reach = math.degrees(angle) + _SPARE_DEGREES
    south, north = latitude - reach, latitude + reach
    if south <= -90 or north >= 90:
        return [Box(max(south, -90.0), -180.0, min(north, 90.0), 180.0)]
    # The meridians that touch the circle do so nearer to the pole than its centre is.
    width = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(latitude))))) + _SPARE_DEGREES
    west, east = longitude - width, longitude + width
    if west < -180:
        return [Box(south, west + 360, north, 180.0), Box(south, -180.0, north, east)]
    if east > 180:
        return [Box(south, west, north, 180.0), Box(south, -180.0, north, east - 360)]
    return [Box(south, west, north, east)]


def distance_metres(latitude: str, longitude: str, *, of: str) -> str:
    """SQL: metres from a point, given as two expressions, to the place of the row that `of` names (haversine).

    Degrees on both sides have `DECIMALS` decimals.
    """
    north = f"power(sin(radians({of}.latitude - {latitude}) / 2), 2)"
    east = f"power(sin(radians({of}.longitude - {longitude}) / 2), 2)"
    share = f"{north} + cos(radians({latitude})) * cos(radians({of}.latitude)) * {east}"
    return f"({2 * EARTH_METRES}::float8 * asin(least(1, sqrt({share}))))"
