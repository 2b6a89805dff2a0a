"""What a run has shown: medians, spread, ratios and targets; as tables for the terminal.

A ratio is the median over rounds of our value against the peer's of the same round, so that a slow
minute of the machine is on both sides of it. It is turned so that above 1 is always better for
Freehold. `page` writes the same as Markdown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from bench.engines import NAMES
from bench.figure import Figure, Metric, Target
from bench.harness import Measurement

OURS = "freehold"
PEERS = tuple(name for name in NAMES if name != OURS)


@dataclass(frozen=True, slots=True)
class Value:
    """One engine's result for one metric: median and extremes over rounds, in the metric's unit."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Collection[float]) -> Value:
        """From the values of all rounds."""
        return cls(median(values), min(values), max(values))

    def __str__(self) -> str:
        middle, least, most = map(number, (self.middle, self.least, self.most))
        return middle if least == most else f"{middle} ({least} - {most})"


@dataclass(frozen=True, slots=True)
class Line:
    """All that a table says about one metric.

    Args:
        values: By engine, in the order of `engines.NAMES`, for those that yielded any.
        ratios: Freehold's advantage by peer, where there is one.
    """

    figure: Figure
    metric: Metric
    values: dict[str, Value]
    ratios: dict[str, float]

    @property
    def targets(self) -> list[tuple[Target, bool]]:
        """Each target that could be judged, and whether it is met."""
        judged: list[tuple[Target, bool]] = []
        for target in self.metric.bounds:
            if target.peer is None and OURS in self.values:
                held = self.metric.within(self.values[OURS].middle, target.bound)
                judged.append((target, held))
            elif target.peer in self.ratios:
                judged.append((target, self.ratios[target.peer] >= target.bound))
        return judged

    @property
    def missed(self) -> list[Target]:
        """The targets that are not met."""
        return [target for target, held in self.targets if not held]

    @property
    def bounds(self) -> str:
        """The metric's own targets in words, or else the one that holds for all."""
        return self._words(self.metric.targets or [target for target, _ in self.targets])

    @property
    def verdict(self) -> str:
        """Met, or what is missed, or what cannot be told; nothing where nothing is promised."""
        judged = [target for target, _ in self.targets]
        unknown = [target for target in self.metric.targets if target not in judged]
        if self.missed:
            return f"missed: {self._words(self.missed)}"
        if unknown:
            return f"not measured: {self._words(unknown)}"
        return "met" if judged else ""

    def _words(self, targets: Iterable[Target]) -> str:
        return ", ".join(bound(self.metric, target) for target in targets)

    @property
    def ours(self) -> str:
        """Freehold's median with its unit, or a dash."""
        value = self.values.get(OURS)
        return f"{number(value.middle)} {self.metric.unit}".strip() if value else "-"

    def ratio(self, peer: str) -> str:
        """Freehold's advantage over `peer`; a dash where there is a value but no ratio."""
        if peer in self.ratios:
            ratio = self.ratios[peer]
            return f"{number(ratio)}x" if ratio >= 0.01 else "< 0.01x"
        return "-" if peer in self.values else ""


def lines(figure: Figure, measured: Sequence[Measurement]) -> Iterator[Line]:
    """The metrics of a figure that anybody has a value for."""
    for metric in figure.metrics:
        series = _series(metric, measured)
        ratios = {peer: ratios_by_round(metric, measured, peer) for peer in PEERS}
        if series:
            yield Line(
                figure,
                metric,
                {engine: Value.of(by_round.values()) for engine, by_round in series.items()},
                {peer: median(several) for peer, several in ratios.items() if several},
            )


def terminal(figure: Figure, measured: Sequence[Measurement]) -> Table:
    """A table for the terminal: a line per metric; of a peer its median and our ratio to it."""
    found = list(lines(figure, measured))
    peers = [peer for peer in PEERS if any(peer in line.values for line in found)]
    table = Table(title=f"{figure.name}: {figure.title}", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for column in (OURS, *peers):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("target")
    table.add_column("")
    for line in found:
        cells = [
            f"{number(line.values[peer].middle)}  {line.ratio(peer)}" if peer in line.values else ""
            for peer in peers
        ]
        style = "red" if line.missed else None
        table.add_row(line.metric.name, line.ours, *cells, line.bounds, line.verdict, style=style)
    return table


def remarks(measured: Iterable[Measurement]) -> list[str]:
    """What went wrong: failures, values that are missing, leftovers; a line each."""
    measured = list(measured)
    found: dict[str, None] = {}
    for one in measured:
        if one.error:
            found[f"{one.engine} failed: {one.error}"] = None
        for metric, words in one.missing.items():
            found[f"{one.engine} has no {metric}: {words}"] = None
    left = {one.engine: one.leftover for one in measured if one.leftover}
    found |= {f"{name} left {count} processes behind": None for name, count in left.items()}
    return list(found)


def share(shares: Iterable[float]) -> str:
    """Shares of the machine in words: the median and the most."""
    listed = list(shares)
    return f"{median(listed):.0%}, at most {max(listed):.0%}"


def tally(found: Iterable[Line]) -> str:
    """How many targets are met, in words."""
    judged = [held for line in found for _, held in line.targets]
    return f"{sum(judged)} of {len(judged)} targets met"


def number(value: float) -> str:
    """Three significant digits, without exponents: 12,345 becomes "12,300"."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    if abs(rounded) >= 100:
        return f"{rounded:,.0f}"
    return f"{rounded:.6f}".rstrip("0").rstrip(".") if abs(rounded) >= 1e-5 else "0"


def bound(metric: Metric, target: Target) -> str:
    """A target in words."""
    if target.peer is not None:
        return f"≥ {number(target.bound)}x {target.peer}"
    sign = "≥" if metric.better == "higher" else "≤"
    return f"{sign} {number(target.bound)} {metric.unit}".strip()


def ratios_by_round(metric: Metric, measured: Sequence[Measurement], peer: str) -> list[float]:
    """Freehold's advantage over `peer` in each round that has both."""
    series = _series(metric, measured)
    ours, theirs = series.get(OURS, {}), series.get(peer, {})
    found = [metric.advantage(ours[turn], theirs[turn]) for turn in ours if turn in theirs]
    return [ratio for ratio in found if ratio is not None]


def _series(metric: Metric, measured: Sequence[Measurement]) -> dict[str, dict[int, float]]:
    """Values by engine and round, for the engines that yielded any."""
    series: dict[str, dict[int, float]] = {}
    for engine in NAMES:
        values = {
            one.round: one.values[metric.name]
            for one in measured
            if one.engine == engine and metric.name in one.values
        }
        if values:
            series[engine] = values
    return series
