"""`make bench-check`: has a ratio that was recorded become more than 20 % worse?

    python -m bench.check             measure, compare with recorded.json, exit 1 when one is worse
    python -m bench.check --record    measure, and write what is found into recorded.json

Ratios, not seconds: ours over a peer's of the same round, so that a slow machine, or a slow minute,
is on both sides. The peers are the floor and the standard library, and Ray where the environment of
the peers has been made. A figure whose ratio seems worse is measured again, with as many rounds,
and judged by the median of all: a regression stays, a burst of noise does not.

A recorded ratio belongs to the machine that it was recorded on; on another, record first. A gain is
no failure, but to be kept it has to be recorded. A machine that others use is refused: what it
records would let later regressions pass.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import click
from rich.console import Console
from rich.table import Table

from bench import figures, harness, machine, peers, report
from bench.harness import Measurement

RECORDED = Path(__file__).resolve().parent / "recorded.json"
TOLERANCE = 0.2
ROUNDS = 5
OTHERS_MOST = 0.2
"""Share of the machine that others may use, in the median, while something is recorded."""

RATIOS = (
    ("tasks", "one_at_a_time", "floor"),
    ("tasks", "in_flight", "floor"),
    ("tasks", "in_flight", "pool"),
    ("tasks", "cpu", "pool"),
    ("actors", "one_at_a_time", "floor"),
    ("actors", "in_flight", "floor"),
    ("large_objects", "put_warm", "floor"),
    ("startup", "init", "floor"),
    ("tasks", "one_at_a_time", "ray"),
    ("tasks", "in_flight", "ray"),
    ("large_objects", "get", "ray"),
    ("large_objects", "argument", "ray"),
)
"""Figure, metric and peer of what is checked: every layer once, none that takes long."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One ratio, recorded and measured; None where there is none.

    Args:
        name: figure.metric/peer.
    """

    name: str
    recorded: float | None
    measured: float | None

    @property
    def verdict(self) -> str:
        """ok, better, worse, or why the two cannot be compared."""
        if self.measured is None:
            return "not measured"
        if self.recorded is None:
            return "not recorded"
        change = self.measured / self.recorded
        if change < 1 - TOLERANCE:
            return "worse"
        return "better" if change > 1 + TOLERANCE else "ok"

    @property
    def failed(self) -> bool:
        """Worse, or gone: a measure that has begun to fail is no better than a slow one."""
        return self.recorded is not None and self.verdict in {"worse", "not measured"}


def name_of(figure: str, metric: str, peer: str) -> str:
    """The key of a ratio in the record."""
    return f"{figure}.{metric}/{peer}"


def compare(
    recorded: dict[str, float], measured: dict[str, float], names: Iterable[str]
) -> list[Comparison]:
    """Each of `names`, recorded beside measured."""
    return [Comparison(name, recorded.get(name), measured.get(name)) for name in names]


def ratios(measured: Sequence[Measurement]) -> dict[str, float]:
    """The median over rounds of each checked ratio that was measured."""
    found: dict[str, float] = {}
    for figure, name, peer in RATIOS:
        [metric] = [one for one in figures.find(figure).metrics if one.name == name]
        ours = [one for one in measured if one.figure == figure]
        if several := report.ratios_by_round(metric, ours, peer):
            found[name_of(figure, name, peer)] = median(several)
    return found


def measure(names: Iterable[str], engines: Sequence[str], rounds: int) -> list[Measurement]:
    """Those figures on ours and on the peers that some ratio of theirs needs."""
    done: list[Measurement] = []
    for name in sorted(set(names)):
        metrics = {metric for figure, metric, _ in RATIOS if figure == name}
        needed = {peer for figure, _, peer in RATIOS if figure == name} | {report.OURS}
        wanted = [engine for engine in engines if engine in needed]
        done += harness.run(figures.find(name), wanted, rounds, _note, sorted(metrics))
    return done


def again(done: list[Measurement], later: Iterable[Measurement]) -> list[Measurement]:
    """More rounds after those done, numbered on."""
    start = 1 + max((one.round for one in done), default=-1)
    return done + [replace(one, round=one.round + start) for one in later]


def table(comparisons: Iterable[Comparison]) -> Table:
    """For the terminal."""
    shown = Table(title="ratios, above 1 is better than the peer", title_justify="left")
    for column in ("ratio", "recorded", "measured", "change", ""):
        shown.add_column(column, justify="left" if column in ("ratio", "") else "right")
    for one in comparisons:
        change = ""
        if one.recorded and one.measured:
            change = f"{one.measured / one.recorded - 1:+.0%}"
        cells = [report.number(v) if v is not None else "-" for v in (one.recorded, one.measured)]
        style = "red" if one.failed else None
        shown.add_row(one.name, *cells, change, one.verdict, style=style)
    return shown


@click.command(help=(__doc__ or "").partition("\n")[0])
@click.option("--record", is_flag=True, help="Write what is measured into recorded.json.")
@click.option("--rounds", default=ROUNDS, show_default=True, type=click.IntRange(1))
def main(record: bool, rounds: int) -> None:
    """Measure, compare or record."""
    engines = [report.OURS, "pool", "floor"] + (["ray"] if peers.ready() else [])
    checked = [ratio for ratio in RATIOS if ratio[2] in engines]
    names = [name_of(*ratio) for ratio in checked]
    figure_of = {name_of(*ratio): ratio[0] for ratio in checked}
    recorded = {} if record else read()
    done = measure(figure_of.values(), engines, rounds)
    found = compare(recorded, ratios(done), names)
    if worse := {figure_of[one.name] for one in found if one.failed}:
        click.echo(f"again, to tell noise from a regression: {', '.join(sorted(worse))}", err=True)
        done = again(done, measure(worse, engines, rounds))
        found = compare(recorded, ratios(done), names)
    Console(width=100).print(table(found))
    for remark in report.remarks(done):
        click.echo(f"  {remark}")
    others = median(one.others for one in done)
    click.echo(f"  others used {others:.0%} of the machine")
    if record and others > OTHERS_MOST:
        raise click.ClickException("nothing recorded: record when the machine is quiet")
    if record:
        write(ratios(done))
    elif any(one.failed for one in found):
        sys.exit(f"a ratio is more than {TOLERANCE:.0%} worse than recorded, or gone")


def read() -> dict[str, float]:
    """The recorded ratios.

    Raises:
        ClickException: Nothing is recorded.
    """
    if not RECORDED.exists():
        raise click.ClickException(f"no {RECORDED.name}: run python -m bench.check --record")
    ratios: dict[str, float] = json.loads(RECORDED.read_text(encoding="utf-8"))["ratios"]
    return ratios


def write(found: dict[str, float]) -> None:
    """Record the ratios, with the machine that they belong to; others stay as they were."""
    kept = read() if RECORDED.exists() else {}
    merged = {name: float(f"{ratio:.3g}") for name, ratio in (kept | found).items()}
    text = json.dumps(
        {"facts": machine.facts(["bench.check", "--record"]), "ratios": merged}, indent=2
    )
    RECORDED.write_text(text + "\n", encoding="utf-8")
    click.echo(f"wrote {RECORDED.name}")


def _note(one: Measurement) -> None:
    words = f" failed: {one.error}" if one.error else ""
    click.echo(f"{one.figure} {one.round + 1} {one.engine}{words}", err=True)


if __name__ == "__main__":
    main()
