"""Tables of a run: medians, spread, ratios and targets; for the terminal and as Markdown.

A ratio is the median over rounds of our value against the peer's of the same round, so that a slow
minute of the machine is on both sides of it. It is turned so that above 1 is always better for
Freehold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

from rich.console import JustifyMethod
from rich.table import Table

from bench.figure import Figure, Metric, Target
from bench.harness import Measurement

OURS = "freehold"
COLUMNS = ("metric", "engine", "median", "min - max", "freehold is", "target", "")


@dataclass(frozen=True, slots=True)
class Row:
    """One engine's line for one metric, as text."""

    metric: str
    engine: str
    middle: str
    spread: str
    ratio: str
    target: str
    verdict: str

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of `COLUMNS`."""
        return (
            self.metric,
            self.engine,
            self.middle,
            self.spread,
            self.ratio,
            self.target,
            self.verdict,
        )


def rows(figure: Figure, measured: Sequence[Measurement]) -> Iterator[Row]:
    """The lines of a figure, metric by metric, Freehold first."""
    for metric in figure.metrics:
        series = _series(metric, figure, measured)
        for engine, values in series.items():
            yield _row(metric, engine, values, series.get(OURS, {}))
        if metric is figure.metrics[0]:
            failed = {one.engine: one for one in measured if one.error}
            for engine in failed.keys() - series.keys():
                yield Row(metric.name, engine, "failed", "", "", "", "see the remark")


def terminal(figure: Figure, measured: Sequence[Measurement]) -> Table:
    """A table for the terminal."""
    table = Table(title=f"{figure.name}: {figure.title}", title_justify="left")
    for column in COLUMNS:
        side: JustifyMethod = "left" if column in ("metric", "engine", "") else "right"
        table.add_column(column, justify=side, no_wrap=True)
    for _, group in groupby(rows(figure, measured), key=lambda row: row.metric):
        for row in group:
            table.add_row(*row.cells, style="bold" if row.engine == OURS else None)
        table.add_section()
    return table


def remarks(measured: Iterable[Measurement]) -> list[str]:
    """What went wrong: failures, leftovers, a busy machine."""
    measured = list(measured)
    found = {f"{one.engine}: failed: {one.error}": None for one in measured if one.error}
    left = {one.engine: one.leftover for one in measured if one.leftover}
    found |= {f"{name}: left {count} processes behind": None for name, count in left.items()}
    if measured and (busy := median(one.busy for one in measured)) > 0.1:
        found[f"others used {busy:.0%} of the machine before the median measurement"] = None
    return list(found)


def markdown(figure: Figure, measured: Sequence[Measurement], run: Mapping[str, str]) -> str:
    """A section of the page: table, meanings, remarks, and where and when it was measured."""
    lines = [f"## {figure.name}: {figure.title}", "", _line(COLUMNS), _line(["---"] * len(COLUMNS))]
    lines += [_line(row.cells) for row in rows(figure, measured)]
    lines += ["", *(f"* `{metric.name}`: {metric.meaning}." for metric in figure.metrics)]
    lines += [f"* Remark: {remark}." for remark in remarks(measured)]
    count = 1 + max(one.round for one in measured)
    rounds = "1 round" if count == 1 else f"{count} rounds"
    return "\n".join(
        [
            *lines,
            "",
            f"{rounds}, {run['date']}, source {run['source']}: `{run['command']}`",
            "",
        ]
    )


def page(sections: Iterable[str], run: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """The whole page, from the sections and the newest run's machine."""
    named = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    head = [
        "# Benchmarks",
        "",
        "Written by `python -m bench --doc`; do not edit. `bench/README.md` says how to read it",
        "and how noise is treated. *freehold is* says how many times as good Freehold is as the",
        "engine of that line (median of the rounds' own ratios): above 1 is better, whatever the",
        "unit. Targets are the budgets of the design.",
        "",
        f"Machine: {run['processor']}, {run['memory']}, {run['kernel']}. Versions: {named}.",
        "",
    ]
    return "\n".join([*head, *sections])


def versions(measured: Iterable[Measurement]) -> dict[str, str]:
    """Versions of all that was measured; where two environments differ, both."""
    found: dict[str, set[str]] = {}
    for one in measured:
        for name, version in one.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(several)) for name, several in found.items()}


def number(value: float) -> str:
    """Three significant digits, without exponents: 12,345 becomes "12,300"."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:g}"


def _series(
    metric: Metric, figure: Figure, measured: Sequence[Measurement]
) -> dict[str, dict[int, float]]:
    """Values by engine and round, for the engines that yielded any."""
    series: dict[str, dict[int, float]] = {engine: {} for engine in figure.engines}
    for one in measured:
        if metric.name in one.values:
            series[one.engine][one.round] = one.values[metric.name]
    return {engine: values for engine, values in series.items() if values}


def _row(metric: Metric, engine: str, values: dict[int, float], ours: dict[int, float]) -> Row:
    ratios = [
        metric.advantage(ours[turn], value)
        for turn, value in values.items()
        if engine != OURS and turn in ours and metric.better != "neither"
    ]
    ratio = median(ratios) if ratios else None
    middle = median(values.values())
    target = next((t for t in metric.targets if (t.peer or OURS) == engine), None)
    return Row(
        metric.name,
        engine,
        f"{number(middle)} {metric.unit}".strip(),
        f"{number(min(values.values()))} - {number(max(values.values()))}",
        f"{number(ratio)}x" if ratio is not None else "",
        _bound(metric, target) if target else "",
        _verdict(metric, target, middle, ratio) if target else "",
    )


def _bound(metric: Metric, target: Target) -> str:
    if target.peer is not None:
        return f"≥ {number(target.bound)}x"
    sign = "≥" if metric.better == "higher" else "≤"
    return f"{sign} {number(target.bound)} {metric.unit}"


def _verdict(metric: Metric, target: Target, middle: float, ratio: float | None) -> str:
    if target.peer is None:
        return "met" if metric.within(middle, target.bound) else "missed"
    if ratio is None:
        return ""
    return "met" if ratio >= target.bound else "missed"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
