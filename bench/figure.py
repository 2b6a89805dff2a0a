"""The nouns of the harness: `Figure`, `Metric`, `Target`.

A figure knows what is measured and by which program; it knows nothing of processes, rounds or
tables. It is imported by the measuring child as well, so this file uses the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Samples = Iterator[tuple[str, float]]
"""What a program yields: the name of a metric of its figure, and the value measured."""

Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True, slots=True)
class Target:
    """What Freehold must reach, from the budget table of the design.

    Args:
        bound: With a peer, the least advantage over it, where 2.0 means twice as good and 0.4 means
            that at most 2.5 times the peer's cost is allowed. Without one, the bound of Freehold's
            own value in the metric's unit.
        peer: Name of the engine compared with, or None for an absolute bound.
    """

    bound: float
    peer: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a figure.

    Args:
        name: Key under which programs yield it.
        unit: Unit as printed ("s", "/s", "GiB/s", "MiB", "%").
        better: Direction that is good; "neither" for a count that is only shown.
        meaning: One phrase that says from where to where the clock ran.
        targets: Bounds of the design, if it states any.
    """

    name: str
    unit: str
    better: Better
    meaning: str
    targets: tuple[Target, ...] = ()

    def advantage(self, ours: float, theirs: float) -> float:
        """How many times as good as theirs our value is; above 1 is always better."""
        top, bottom = (ours, theirs) if self.better == "higher" else (theirs, ours)
        return top / bottom if bottom else float("inf")

    def within(self, ours: float, bound: float) -> bool:
        """Whether our value keeps an absolute bound."""
        return ours >= bound if self.better == "higher" else ours <= bound


@dataclass(frozen=True, slots=True)
class Figure:
    """A group of metrics that one program measures in one go.

    Args:
        name: Name on the command line; also the file's name.
        title: One line for tables.
        metrics: What the programs yield, in the order of printing.
        shared: The program written on the futures API, run literally unchanged on Freehold and on
            Ray. It is given the name of the module to import.
        own: Programs of the other engines, each in its engine's own idiom, by engine name.
        limit: Seconds after which one measurement is killed and reported as failed.
        prepare: Makes the data that all measurements of a run read, in the folder that it is given.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    shared: Callable[[str], Samples]
    own: Mapping[str, Callable[[], Samples]] = field(default_factory=dict)
    limit: float = 120.0
    prepare: Callable[[Path], None] | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that have a program here, Freehold first."""
        return ("freehold", "ray", *self.own)

    def samples(self, engine: str) -> Samples:
        """Run the program of `engine`, which must be one of `engines`."""
        return self.own[engine]() if engine in self.own else self.shared(engine)
