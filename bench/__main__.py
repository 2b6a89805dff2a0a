"""The command line: measure figures, append to a file of JSON lines, print tables, write the page.

The file is the record: one line of facts per run, then one line per measurement, both with the
run's id. Tables on the page come from the file, each figure from the newest run that measured it,
so that one figure can be measured again without the others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import click
from rich.console import Console

from bench import engines, figures, harness, machine, report
from bench.harness import Measurement

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.jsonl"
PAGE = HERE.parent / "docs" / "benchmarks.md"

Runs = dict[str, tuple[dict[str, str], list[Measurement]]]


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
@click.option("--doc", is_flag=True, help="Write docs/benchmarks.md from all that is in --out.")
def main(
    names: tuple[str, ...], wanted: str, rounds: int, out: Path, scale: float, doc: bool
) -> None:
    """Measure, record, print."""
    os.environ[engines.SCALE] = str(scale)
    chosen = names or [name for name in figures.NAMES if name not in figures.ON_REQUEST]
    field = _engines(wanted)
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # A file has no width, and 80 would cut the tables.
    if rounds:
        _measure(chosen, field, rounds, out)
    runs = _read(out)
    failed = False
    for name in chosen:
        _, measured = _newest(runs, name)
        if measured:
            console.print(report.terminal(figures.find(name), measured))
            for remark in report.remarks(measured):
                console.print(f"  {remark}", style="yellow")
            failed |= any(one.error for one in measured)
    if doc:
        PAGE.write_text(_page(runs), encoding="utf-8")
        console.print(f"wrote {PAGE.relative_to(HERE.parent)}")
    sys.exit(1 if failed else 0)


def _measure(chosen: Iterable[str], field: list[str], rounds: int, out: Path) -> None:
    """Measure and append to `out`, line by line, so that an interrupted run keeps what it has."""
    run = uuid4().hex[:12]
    with out.open("a", encoding="utf-8") as sink:

        def write(record: dict[str, object]) -> None:
            sink.write(json.dumps({"run": run} | record) + "\n")
            sink.flush()

        def note(one: Measurement) -> None:
            write(asdict(one))
            words = " ".join(f"{k}={report.number(v)}" for k, v in one.values.items())
            words += f" failed: {one.error}" if one.error else ""
            click.echo(
                f"{one.figure} {one.round + 1}/{rounds} {one.engine}: {words.strip()}", err=True
            )

        write({"facts": machine.facts(sys.argv[1:])})
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


def _read(path: Path) -> Runs:
    """All runs in a results file, oldest first."""
    runs: Runs = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            run = record.pop("run")
            if "facts" in record:
                runs[run] = (record["facts"], [])
            else:
                runs[run][1].append(Measurement(**record))
    return runs


def _newest(runs: Runs, figure: str) -> tuple[dict[str, str], list[Measurement]]:
    """Facts and measurements of the newest run that has `figure`; empty ones if none has."""
    for facts, measured in reversed(runs.values()):
        ours = [one for one in measured if one.figure == figure]
        if ours:
            return facts, ours
    return {}, []


def _page(runs: Runs) -> str:
    """The Markdown page."""
    parts: list[str] = []
    everything: list[Measurement] = []
    newest: dict[str, str] = {}
    for name in figures.NAMES:
        facts, measured = _newest(runs, name)
        if measured:
            parts.append(report.markdown(figures.find(name), measured, facts))
            everything += measured
            newest = max(newest, facts, key=lambda f: f.get("date", ""))
    if not parts:
        raise click.ClickException("nothing to write: the results file holds no measurement")
    return report.page(parts, newest, report.versions(everything))


if __name__ == "__main__":
    main()
