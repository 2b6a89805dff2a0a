"""Rounds of measurements: every engine once a round, each in a fresh process, in rotating order.

One measurement is `python -m bench.child` under the engine's own interpreter. Before it the harness
waits, within reason, for the machine to be quiet, and records how busy it was; after it nothing of
it is left running. A failure is a record like any other: the values yielded before it count, and
its last words are kept. Nothing that an engine does ends the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

from bench import engines, peers, processes
from bench.figure import Figure

QUIET = 0.15
"""Share of the machine in use below which a measurement starts at once; an editor uses 1-5 %."""

PATIENCE = 15
"""Times 0.3 s to wait for quiet, which a shared machine may never be."""

HUNG = "no end"
"""How the error of a measurement begins that was killed at its limit."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one engine yielded for one figure in one round.

    Args:
        values: Value by metric; incomplete when `error` is set.
        missing: By metric, why there is no value though the program went on.
        busy: Share of the machine's processors others used just before, 0 to 1.
        others: The same during the measurement: what was used less what the program and its
            descendants did, as far as the kernel told us of these when they ended.
        leftover: Processes that were still running after the program's end, and were killed.
        error: Last words of a failed measurement, or None.
    """

    figure: str
    engine: str
    round: int
    values: dict[str, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    busy: float = 0.0
    others: float = 0.0
    leftover: int = 0
    seconds: float = 0.0
    error: str | None = None


def run(
    figure: Figure,
    wanted: Sequence[str],
    rounds: int,
    report: Callable[[Measurement], None],
    metrics: Sequence[str] = (),
) -> list[Measurement]:
    """Measure `figure` on those of the `wanted` engines that have a program for it.

    An engine that yielded nothing, or did not end, in two rounds running is left out of the later
    ones. One whose environment cannot be made has one measurement, which says so.

    Args:
        figure: What to measure.
        wanted: Names of engines.
        rounds: How often each is measured.
        report: Called with every measurement as it ends.
        metrics: What alone is needed, of what a program measures by `attempt`; none named: all.
    """
    processes.adopt_orphans()
    engines.compile_package()
    done: list[Measurement] = []

    def note(one: Measurement) -> None:
        done.append(one)
        report(one)

    interpreters: dict[str, str] = {}
    for engine in figure.engines:
        if engine in wanted:
            try:
                interpreters[engine] = _interpreter(engine)
            except RuntimeError as error:
                words = " ".join(str(error).split())  # one line of a page
                note(Measurement(figure.name, engine, 0, error=words))
    entered = list(interpreters)
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        data = Path(folder)
        if figure.prepare and entered:
            figure.prepare(data)
        for number in range(rounds):
            # Rotated, so that nobody always runs behind the same peer, in the state it left.
            turn = number % len(entered) if entered else 0
            for engine in entered[turn:] + entered[:turn]:
                if not hopeless(done, engine):
                    note(measure(figure, engine, number, interpreters[engine], data, metrics))
    return done


def measure(
    figure: Figure,
    engine: str,
    number: int,
    interpreter: str,
    data: Path,
    metrics: Sequence[str] = (),
) -> Measurement:
    """One measurement in a fresh process of `interpreter`, on what was prepared in `data`."""
    busy = _settle()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        out = Path(folder, "out")
        out.touch()
        begun, used, own = perf_counter(), processes.used(), processes.used_by_children()
        command = [interpreter, "-m", "bench.child", figure.name, engine, str(out), *metrics]
        error = await_child(command, engine, Path(folder), figure.limit, data)
        leftover = processes.end_leftovers()
        passed = perf_counter() - begun
        used = processes.used() - used - (processes.used_by_children() - own)
        records = [json.loads(line) for line in out.read_text().splitlines()]
    return Measurement(
        figure=figure.name,
        engine=engine,
        round=number,
        values={record["metric"]: record["value"] for record in records if "value" in record},
        missing={record["metric"]: record["error"] for record in records if "error" in record},
        versions=next((record["versions"] for record in records if "versions" in record), {}),
        busy=round(busy, 3),
        others=round(max(used, 0) / passed / (os.cpu_count() or 1), 3),
        leftover=leftover,
        seconds=round(passed, 3),
        error=error,
    )


def await_child(
    command: list[str], engine: str, folder: Path, limit: float, data: Path | None = None
) -> str | None:
    """Run `command` for at most `limit` seconds; None, or why it failed.

    `folder` becomes its place for temporary files, so that session folders go when it goes.
    """
    # A file and no pipe: a daemon that outlives the program would hold a pipe open and us with it.
    with Path(folder, "words").open("w+") as sink:
        child = subprocess.Popen(
            command,
            cwd=engines.ROOT,
            env=engines.variables(engine) | {"TMPDIR": str(folder), engines.DATA: str(data or "")},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
        try:
            code = child.wait(limit)
        except BaseException as interruption:
            processes.end_tree(child.pid)
            child.wait()
            if isinstance(interruption, subprocess.TimeoutExpired):
                return f"{HUNG} within {limit:g} s"
            raise
        sink.seek(0)
        lines = sink.read().strip().splitlines()
    return f"{lines[-1] if lines else 'no output'} (exit code {code})" if code else None


def _interpreter(engine: str) -> str:
    return peers.interpreter() if engine in engines.PEER_ENVIRONMENT else sys.executable


def _settle() -> float:
    """Wait for the machine to be quiet and return how busy it was at last."""
    busy = 1.0
    for _ in range(PATIENCE):
        busy = processes.busy(0.3)
        if busy < QUIET:
            break
    return busy


def hopeless(done: Sequence[Measurement], engine: str) -> bool:
    """Whether its last two measurements yielded nothing or did not end."""
    last = [one for one in done if one.engine == engine][-2:]
    return len(last) == 2 and all(not one.values or _hung(one) for one in last)


def _hung(one: Measurement) -> bool:
    return one.error is not None and one.error.startswith(HUNG)
