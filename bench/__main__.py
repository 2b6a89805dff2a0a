"""The command line: measure figures, keep the record, print tables, write the page.

Tables and page come from the record (`bench.record`), each figure from the newest run that
measured it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import click
from rich.console import Console

from bench import engines, figures, harness, machine, page, peers, record, report
from bench.harness import Measurement
from bench.page import Section

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
SHOWN = HERE / "record.jsonl"
PAGE = HERE.parent / "docs" / "benchmarks.md"
PLOT = PAGE.with_name("benchmarks.svg")


@click.command(help=__doc__.partition("\n")[0])
@click.argument("names", metavar="[FIGURE]...", nargs=-1, type=click.Choice(figures.NAMES))
@click.option(
    "--engines",
    "wanted",
    default=",".join(engines.NAMES),
    show_default=True,
    help="Comma-separated; std stands for pool,executor.",
)
@click.option(
    "--rounds",
    default=5,
    show_default=True,
    type=click.IntRange(0),
    help="Measurements of each engine; 0 only prints and writes what is on file.",
)
@click.option("--quick", is_flag=True, help="The same as --rounds 1.")
@click.option("--all", "everything", is_flag=True, help="Also the figures that take long.")
@click.option(
    "--out",
    default=RESULTS,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that JSON lines are appended to.  [default: bench/results.jsonl]",
)
@click.option(
    "--scale",
    default=1.0,
    type=click.FloatRange(0, 1, min_open=True),
    help="Share of their data that the sorts use, for a trial: 0.1 is a sort of 100 MB.",
)
@click.option("--doc", is_flag=True, help="Write docs/benchmarks.md and its plot.")
def main(
    names: tuple[str, ...],
    wanted: str,
    rounds: int,
    quick: bool,
    everything: bool,
    out: Path,
    scale: float,
    doc: bool,
) -> None:
    """Measure, record, print."""
    os.environ[engines.SCALE] = str(scale)
    chosen = names or (figures.ALL if everything else figures.main())
    field = _engines(wanted)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # A file has no width, and 80 would cut the tables.
    rounds = 1 if quick else rounds
    if rounds:
        _measure(chosen, field, rounds, out)
    runs = record.read([SHOWN, out])
    sections = _sections(runs, chosen)
    for section in sections:
        console.print(report.terminal(section.figure, section.measured))
        for remark in report.remarks(section.measured):
            console.print(f"  {remark}", style="yellow", markup=False)
    _verdict(console, sections)
    if doc:
        _write(runs)
        console.print(f"wrote {PAGE.relative_to(HERE.parent)}")
    failed = any(one.error or one.missing for each in sections for one in each.measured)
    sys.exit(1 if failed else 0)


def _measure(chosen: Iterable[str], field: list[str], rounds: int, out: Path) -> None:
    """Measure and append to `out`, line by line, so that an interrupted run keeps what it has."""
    run = uuid4().hex[:12]
    with out.open("a", encoding="utf-8") as sink:

        def note(one: Measurement) -> None:
            sink.write(record.line(run, **asdict(one)))
            sink.flush()
            words = " ".join(f"{k}={report.number(v)}" for k, v in one.values.items())
            words += "".join(f" {k}: {why}" for k, why in one.missing.items())
            words += f" failed: {one.error}" if one.error else ""
            click.echo(
                f"{one.figure} {one.round + 1}/{rounds} {one.engine}: {words.strip()}", err=True
            )

        sink.write(record.line(run, facts=machine.facts(["bench", *sys.argv[1:]])))
        for name in chosen:
            harness.run(figures.find(name), field, rounds, note)


def _engines(wanted: str) -> list[str]:
    """The names in a comma-separated list, with groups replaced by their members."""
    names: list[str] = []
    for name in wanted.split(","):
        names += engines.GROUPS.get(name, (name,))
    unknown = sorted(set(names) - set(engines.NAMES))
    if unknown:
        raise click.BadParameter(
            f"{', '.join(unknown)}: there are {', '.join(engines.NAMES)} and std",
            param_hint="--engines",
        )
    return names


def _sections(runs: record.Runs, names: Iterable[str]) -> list[Section]:
    """The named figures that are on record, each from its newest run."""
    newest = {name: record.newest(runs, name) for name in names}
    return [
        Section(figures.find(name), run, runs[run].of(name)) for name, run in newest.items() if run
    ]


def _verdict(console: Console, sections: Iterable[Section]) -> None:
    """Say how many targets are met and name those that are not."""
    lines = [line for section in sections for line in section.lines]
    console.print(report.tally(lines), style="bold")
    for line in lines:
        if line.verdict not in ("", "met"):
            console.print(f"  {line.figure.name}.{line.metric.name} {line.verdict}", style="red")


def _write(runs: record.Runs) -> None:
    """The page, its plot, and the record of what they show."""
    sections = _sections(runs, figures.NAMES)
    if not sections:
        raise click.ClickException("nothing to write: no measurement is on record")
    shown = {section.figure.name: section.run for section in sections}
    facts = {run: runs[run].facts for run in runs if run in shown.values()}
    plots = [PLOT.name] if _plot(sections) else []
    PAGE.write_text(page.markdown(sections, facts, plots), encoding="utf-8")
    record.write(SHOWN, shown, runs)


def _plot(sections: Sequence[Section]) -> bool:
    """Draw with the peers' interpreter, since it is not ours that has Matplotlib."""
    if not peers.ready():
        return PLOT.exists()
    bars = [bar for section in sections for bar in page.bars(section)]
    command = [peers.interpreter(), "-m", "bench.plot", str(PLOT)]
    subprocess.run(command, input=json.dumps(bars), text=True, check=True, cwd=engines.ROOT)
    return True


if __name__ == "__main__":
    main()
