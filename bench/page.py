"""The page `docs/benchmarks.md`: a summary with the targets, plots, details by figure, the runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import report
from bench.engines import NAMES, SORTERS
from bench.figure import Figure
from bench.harness import Measurement
from bench.report import OURS, PEERS, Line

HEAD = """# Benchmarks

Written by `make bench`; do not edit. Freehold beside Ray, Dask, the standard library's pools
(pool: `multiprocessing.Pool`, executor: `ProcessPoolExecutor`) and a floor: bare processes, sockets
and memory, no runtime. Every engine is measured once a round, in turn, in fresh processes. Values
are medians over the rounds. [How noise is treated](../bench/README.md), and how to add a figure.
"""

SUMMARY = """## Summary

*freehold* is the value. The columns behind it say how many times as good that is as the peer of the
column: the median of the rounds' own ratios; above 1 is better, whatever the unit. Nothing is to be
behind Ray, whether or not it has other targets.
"""

DETAILS = """## Details

Medians, and in parentheses the least and the most of all rounds.
"""

RUNS = """## Runs

The last columns are what others used of the machine just before the measurements and during them:
median, and the most.
"""

COLUMNS = tuple(peer for peer in PEERS if peer not in SORTERS)
"""Of the summary: engines that only sort stand in the details of the sorts."""


@dataclass(frozen=True, slots=True)
class Section:
    """One figure with the run that the page shows of it."""

    figure: Figure
    run: str
    measured: Sequence[Measurement]

    @property
    def lines(self) -> list[Line]:
        """Its metrics."""
        return list(report.lines(self.figure, self.measured))


def markdown(
    sections: Sequence[Section], facts: Mapping[str, Mapping[str, str]], plots: Iterable[str]
) -> str:
    """The whole page.

    Args:
        sections: The figures, in order.
        facts: Of each run that the sections name.
        plots: File names of plots beside the page, to be shown under the summary.
    """
    newest = max(facts.values(), key=lambda run: run["date"])
    measured = [one for section in sections for one in section.measured]
    versions = ", ".join(f"{name} {version}" for name, version in _versions(measured).items())
    lines = [line for section in sections for line in section.lines]
    others = report.share(one.others for one in measured)
    labels = {run: chr(ord("A") + index) for index, run in enumerate(facts)}
    return "\n".join(
        [
            HEAD,
            f"* Machine: {newest['processor']}, {newest['memory']}, {newest['kernel']}",
            f"* Versions: {versions}",
            f"* Others on the machine, median over measurements: {others}",
            "",
            SUMMARY,
            f"{report.tally(lines)}.",
            "",
            *_summary(sections),
            "",
            *(f"![Ratios to the peers]({name})\n" for name in plots),
            *_behind(lines),
            DETAILS,
            *(text for each in sections for text in _details(each, labels)),
            *_runs(sections, facts, labels),
        ]
    )


def bars(section: Section) -> Iterator[dict[str, Any]]:
    """What `bench.plot` draws of a figure: those metrics that have a ratio to Ray."""
    for line in section.lines:
        if "ray" in line.ratios:
            bounds = [one.bound for one in line.metric.targets if one.peer == "ray"]
            yield {
                "label": f"{section.figure.name}, {line.metric.name.replace('_', ' ')}",
                "ratios": line.ratios,
                "target": bounds[0] if bounds else None,
            }


def _summary(sections: Sequence[Section]) -> list[str]:
    """The table of ratios and targets."""
    rows = [
        _row(["measure", OURS, *COLUMNS, "target", ""]),
        _row(["---", "--:", *["--:"] * len(COLUMNS), "---", "---"]),
    ]
    for section in sections:
        rows.append(_row([f"**[{section.figure.name}](#{section.figure.name})**", *[""] * 8]))
        for line in section.lines:
            if line.metric.better != "neither":
                ratios = [line.ratio(peer) for peer in COLUMNS]
                name = line.metric.name.replace("_", " ")
                rows.append(_row([name, line.ours, *ratios, line.bounds, line.verdict]))
    return rows


def _behind(lines: Iterable[Line]) -> list[str]:
    """Where the time goes in what misses a target."""
    told = [
        f"* {line.figure.name}, {line.metric.name.replace('_', ' ')}: {line.metric.spent_on}."
        for line in lines
        if line.missed and line.metric.spent_on
    ]
    return ["## Where it goes, for what is missed", "", *told, ""] if told else []


def _details(section: Section, labels: Mapping[str, str]) -> list[str]:
    """Title, table of values, meanings and remarks of one figure."""
    lines = section.lines
    engines = [name for name in NAMES if any(name in line.values for line in lines)]
    rounds = 1 + max(one.round for one in section.measured)
    meta = f"{section.figure.title}. {rounds} {'round' if rounds == 1 else 'rounds'}"
    if len(labels) > 1:
        meta += f", run {labels[section.run]}"
    rows = [
        _row(["measure", "unit", *engines, "what is measured"]),
        _row(["---", "---", *["--:"] * len(engines), "---"]),
    ]
    for line in lines:
        values = [str(line.values.get(engine, "")) for engine in engines]
        name = line.metric.name.replace("_", " ")
        rows.append(_row([name, line.metric.unit, *values, line.metric.meaning]))
    told = [f"* {remark}" for remark in report.remarks(section.measured)]
    return [
        f"### {section.figure.name}",
        "",
        f"{meta}.",
        "",
        *rows,
        "",
        *told,
        *([""] if told else []),
    ]


def _runs(
    sections: Sequence[Section],
    facts: Mapping[str, Mapping[str, str]],
    labels: Mapping[str, str],
) -> list[str]:
    """When, from which source and by which command."""
    rows = [
        _row(["run", "date", "source", "command", "others before", "others during"]),
        _row(["---"] * 6),
    ]
    for run, label in labels.items():
        told = facts[run]
        measured = [one for each in sections if each.run == run for one in each.measured]
        during = report.share(one.others for one in measured)
        before = report.share(one.busy for one in measured)
        command = f"`{told['command']}`"
        rows.append(_row([label, told["date"], told["source"], command, before, during]))
    return [RUNS, *rows, ""]


def _versions(measured: Iterable[Measurement]) -> dict[str, str]:
    """Versions of all that was measured; where two environments differ, both."""
    found: dict[str, set[str]] = {}
    for one in measured:
        for name, version in one.versions.items():
            found.setdefault(name, set()).add(version)
    return {name: " and ".join(sorted(several)) for name, several in sorted(found.items())}


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
