"""The nouns of the harness: `Figure`, `Metric`, `Target`.

A figure knows what is measured and by which program; it knows nothing of processes, rounds or
tables. It is imported by the measuring child as well, so this file uses the standard library alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Samples = Iterator[tuple[str, float | str]]
"""What a program yields: the name of a metric of its figure, and the value measured; or words that
say why there is none."""

Better = Literal["higher", "lower", "neither"]


_chosen: set[str] = set()


def choose(metrics: Collection[str]) -> None:
    """Have `attempt` pass over all metrics but these, in this process; none given: over none."""
    _chosen.clear()
    _chosen.update(metrics)


def attempt(metric: str, measure: Callable[[], float]) -> Samples:
    """Yield what `measure` returns, or the error that it raises, so that the program goes on."""
    if _chosen and metric not in _chosen:
        return
    try:
        yield metric, measure()
    except Exception as error:
        yield metric, f"{type(error).__name__}: {str(error).strip()[:200]}"


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


AHEAD = Target(1.0, "ray")
"""What holds for every metric that names no other target beside Ray: not behind it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a figure.

    Args:
        name: Key under which programs yield it.
        unit: Unit as printed ("s", "/s", "GiB/s", "MiB", "%").
        better: Direction that is good; "neither" for a count that is only shown.
        meaning: One phrase that says from where to where the clock ran.
        targets: Bounds of the design, if it states any.
        resolution: Least value that means anything. Ratios take smaller ones for as large, since
            nothing against next to nothing is no advantage.
        spent_on: Where the time or memory goes; the page says it when a target is missed.
    """

    name: str
    unit: str
    better: Better
    meaning: str
    targets: tuple[Target, ...] = ()
    resolution: float = 0.0
    spent_on: str = ""

    @property
    def bounds(self) -> tuple[Target, ...]:
        """The targets, and `AHEAD` unless one of them is about Ray already."""
        named = self.better == "neither" or any(t.peer == AHEAD.peer for t in self.targets)
        return self.targets if named else (*self.targets, AHEAD)

    def advantage(self, ours: float, theirs: float) -> float | None:
        """How many times as good as theirs our value is; above 1 is always better.

        None where there is no such number: for a mere count, or when a value is zero.
        """
        ours, theirs = max(ours, self.resolution), max(theirs, self.resolution)
        if self.better == "neither" or not ours or not theirs:
            return None
        return ours / theirs if self.better == "higher" else theirs / ours

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
            Ray. It is given the name of the module to import. None: the figure is about Freehold
            alone, or every engine has a program of its own.
        own: Programs of the other engines, each in its engine's own idiom, by engine name.
        limit: Seconds after which one measurement is killed and reported as failed.
        main: Whether it belongs to the run that names no figures, which has 20 minutes for all.
        prepare: Makes the data that all measurements of a run read, in the folder that it is given.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    shared: Callable[[str], Samples] | None = None
    own: Mapping[str, Callable[[], Samples]] = field(default_factory=dict)
    limit: float = 180.0
    main: bool = False
    prepare: Callable[[Path], None] | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of the engines that have a program here, Freehold first."""
        return (*(("freehold", "ray") if self.shared is not None else ()), *self.own)

    def samples(self, engine: str) -> Samples:
        """Run the program of `engine`, which must be one of `engines`."""
        if engine in self.own:
            return self.own[engine]()
        assert self.shared is not None
        return self.shared(engine)
