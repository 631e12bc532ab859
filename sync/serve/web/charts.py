"""Bar charts, as coordinates for an SVG element."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

#: Height of a chart, and width that each bar takes, in units of the drawing.
HEIGHT, STEP, BAR = 80.0, 10.0, 7.0
#: A chart has room for at least this many bars. Fewer bars are drawn apart, not wide.
FEWEST = 30
#: Least height of a bar that is not zero.
LEAST = 1.5


class Point(Struct, frozen=True):
    """A value to draw; None is not known, and is left out."""

    value: float | None
    #: Of what it belongs to: it decides the colour.
    status: str
    #: What the bar says of itself.
    title: str


class Bar(Struct, frozen=True):
    """A bar, from its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    status: str
    title: str


class Chart(Struct, frozen=True, kw_only=True):
    """A chart, the oldest value first."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    #: The largest value; None: no value is known.
    top: float | None


def bar_chart(points: Sequence[Point]) -> Chart:
    """Return a chart of values that are not negative. Its first and last bar are above the labels of both ends."""
    top = max((point.value for point in points if point.value is not None), default=None)
    width = max(len(points), FEWEST) * STEP
    step = (width - BAR) / (len(points) - 1) if len(points) > 1 else 0.0
    bars = []
    for place, point in enumerate(points):
        if point.value is None or not top:
            continue
        height = max(HEIGHT * point.value / top, LEAST) if point.value > 0 else 0.0
        x = round(place * step, 1)
        bars.append(Bar(x, round(HEIGHT - height, 1), BAR, round(height, 1), point.status, point.title))
    return Chart(width=width, height=HEIGHT, bars=tuple(bars), top=top)
