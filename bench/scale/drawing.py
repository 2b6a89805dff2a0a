"""Lines over a logarithmic axis of nodes, as SVG text, as ``freehold.shuffle.drawing`` draws them.

Everything is text, so that a picture needs no library and no script. Both axes are logarithmic
unless ``linear`` says that the upright one is not, which then begins at 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from freehold.shuffle.drawing import COLOURS, FONT, text, ticks

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 66, 170, 34, 44

Points = Sequence[tuple[float, float]]


def lines(title: str, y_name: str, series: Mapping[str, Points], *, linear: bool = False) -> str:
    """The picture. Lines whose name ends in "before" are dashed, in the colour of the line that
    they are named after.
    """
    points = [point for line in series.values() for point in line]
    xs = powers(min(x for x, _ in points), max(x for x, _ in points))
    most = max(y for _, y in points)
    ys = ticks(most) if linear else powers(min(y for _, y in points), most)
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        high = y / ys[-1] if linear else part(y, ys)
        return LEFT + across * part(x, xs), HEIGHT - BOTTOM - up * high

    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" {FONT}>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 20, title, ' font-weight="bold" font-size="14"'),
        text(LEFT + across / 2, HEIGHT - 8, "nodes", ' text-anchor="middle"'),
        text(0, 0, y_name, f' text-anchor="middle" transform="translate(14 {TOP + up / 2:.0f}) '
             'rotate(-90)"'),
    ]  # fmt: skip
    for tick in ys:
        y = at(xs[0], tick)[1]
        drawn.append(f'<path d="M{LEFT} {y:.1f}h{across}" stroke="#ddd"/>')
        drawn.append(text(LEFT - 6, y + 4, f"{tick:,g}", ' text-anchor="end"'))
    for tick in sorted({x for x, _ in points}):
        x = at(tick, ys[-1])[0]
        drawn.append(text(x, HEIGHT - BOTTOM + 16, f"{tick:g}", ' text-anchor="middle"'))
    colours: dict[str, str] = {}
    for number, (name, line) in enumerate(series.items()):
        kind = name.removesuffix(" before")
        colour = colours.setdefault(kind, COLOURS[len(colours) % len(COLOURS)])
        dashes = ' stroke-dasharray="5 4"' if name.endswith(" before") else ""
        way = " ".join("{:.1f},{:.1f}".format(*at(*point)) for point in line)
        drawn.append(
            f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
        )
        for point in line:
            x, y = at(*point)
            drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>')
        drawn.append(
            text(WIDTH - RIGHT + 12, TOP + 12 + 18 * number, name, f' style="fill:{colour}"')
        )
    return "\n".join([*drawn, "</svg>"]) + "\n"


def powers(least: float, most: float) -> list[float]:
    """The powers of ten that enclose both."""
    first = math.floor(math.log10(max(least, 1e-9)))
    return [10.0**power for power in range(first, max(first + 1, math.ceil(math.log10(most))) + 1)]


def part(value: float, axis: Sequence[float]) -> float:
    """How far along a logarithmic axis a value is, 0 to 1."""
    return math.log(max(value, axis[0]) / axis[0]) / math.log(axis[-1] / axis[0])
