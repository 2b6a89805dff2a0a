"""Small pictures as SVG text: lines over an axis, for a report or a page that needs no library.

Theory of operation
-------------------
``lines`` takes named series of points and draws them in one frame, with ticks at round numbers
and the names at the right. Everything is text: no script, no font and nothing from a network, so
a picture can be put into an HTML page or opened by itself. Colours tell series apart for readers
who see few of them as well (Okabe and Ito's), and the names stand in the same colour.

This file must not know what the numbers mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

#: Okabe and Ito's colours, without the black and the yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 130, 34, 44

FONT = 'font-family="sans-serif" font-size="12" fill="#333"'

Points = Sequence[tuple[float, float]]


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Points]) -> str:
    """The picture of several lines as an ``<svg>`` element; both axes begin at 0.

    Raises ValueError where there is no point to draw, or one that is negative or not finite.
    """
    points = [point for line in series.values() for point in line]
    if not points:
        raise ValueError("nothing to draw: give at least one point")
    if not all(math.isfinite(number) and number >= 0 for point in points for number in point):
        raise ValueError("cannot draw numbers that are negative or not finite")
    x_ticks, y_ticks = ticks(max(x for x, _ in points)), ticks(max(y for _, y in points))
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + across * x / x_ticks[-1], HEIGHT - BOTTOM - up * y / y_ticks[-1]

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 20, title, ' font-weight="bold" font-size="14"'),
        text(LEFT + across / 2, HEIGHT - 8, x_name, ' text-anchor="middle"'),
        text(0, 0, y_name, f' text-anchor="middle" transform="translate(14 {TOP + up / 2:.0f}) '
             'rotate(-90)"'),
    ]  # fmt: skip
    for tick in y_ticks:
        _, y = at(0, tick)
        drawn.append(f'<path d="M{LEFT} {y:.1f}h{across}" stroke="#ddd"/>')
        drawn.append(text(LEFT - 6, y + 4, f"{tick:g}", ' text-anchor="end"'))
    for tick in x_ticks:
        drawn.append(
            text(at(tick, 0)[0], HEIGHT - BOTTOM + 16, f"{tick:g}", ' text-anchor="middle"')
        )
    labels = _apart([at(*line[-1])[1] for line in series.values() if line])
    named = [(name, line) for name, line in series.items() if line]
    for number, ((name, line), label) in enumerate(zip(named, labels, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in line]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        drawn.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.extend(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places
        )
        drawn.append(text(WIDTH - RIGHT + 8, label + 4, name, f' style="fill:{colour}"'))
    return "\n".join([*drawn, "</svg>"])


def text(x: float, y: float, words: str, attributes: str = "") -> str:
    """Words at a place, made safe for markup."""
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'


def ticks(most: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to at least ``most``, some ``about`` of them: 1, 2 or 5 apart, or ten
    times that.
    """
    if most <= 0:
        return [0.0, 1.0]
    rough = most / about
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(step * i, 12) for i in range(math.ceil(most / step * 0.999) + 1)]


def _apart(heights: Sequence[float], least: float = 15.0) -> list[float]:
    """The same heights, moved down where they would be less than a line of text apart."""
    moved = list(heights)
    below = -math.inf
    for index in sorted(range(len(moved)), key=heights.__getitem__):
        below = moved[index] = max(moved[index], below + least)
    return moved
