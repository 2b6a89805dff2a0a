"""Many seeds at once, and the report of one that fails."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter

from freehold.sim.cluster import Outcome, run_case
from freehold.sim.generate import make_case
from freehold.sim.programs import show
from freehold.sim.shrink import shrink


@dataclass
class Tally:
    """What a campaign has seen: seeds, steps, virtual time, what struck and how gets ended."""

    seeds: int = 0
    steps: int = 0
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    marks: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    known: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str, str]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        self.seeds += 1
        self.steps += outcome.steps
        self.virtual_seconds += outcome.seconds
        self.marks.update(outcome.marks)
        self.outcomes.update(outcome.outcomes)
        if outcome.known:
            self.known[outcome.known] += 1
        elif outcome.promise:
            case = outcome.case
            self.failed.append((case.seed, case.profile, outcome.promise))

    def lines(self) -> list[str]:
        """For people. Virtual time alone is easily had (idle time is free): hence all of it."""
        rate = self.seeds / self.wall_seconds * 60 if self.wall_seconds else 0.0
        hours = self.virtual_seconds / 3600
        return [
            f"{self.seeds} seeds in {self.wall_seconds:.1f} s ({rate:,.0f} a minute)",
            f"{self.steps:,} steps, {hours:.2f} virtual hours",
            "happened: " + table(self.marks),
            "gets ended with: " + table(self.outcomes),
            "known limits met: " + (table(self.known) or "none"),
            f"failed: {len(self.failed)}",
        ]


def table(counts: Counter[str]) -> str:
    """Counts in a line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def campaign(
    seeds: Iterable[int], profile: str, jobs: int, tell: Callable[[Outcome], None]
) -> Tally:
    """Run seeds, in several processes if asked; ``tell`` hears of each run, in order."""
    tally = Tally()
    began = perf_counter()
    work = [(seed, profile) for seed in seeds]
    if jobs == 1:
        outcomes: Iterable[Outcome] = map(one, work)
        for outcome in outcomes:
            tally.add(outcome)
            tell(outcome)
    else:
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            for outcome in pool.imap(one, work, chunksize=8):
                tally.add(outcome)
                tell(outcome)
    tally.wall_seconds = perf_counter() - began
    return tally


def one(work: tuple[int, str]) -> Outcome:
    """One run, as a job of another process."""
    seed, profile = work
    return run_case(make_case(seed, profile))


def report(outcome: Outcome, steps: int = 30) -> str:
    """A failing seed for its finder: the broken promise, the smallest program, the last steps."""
    small = shrink(outcome.case, outcome.promise)
    again = run_case(small)
    command = f"python -m freehold.sim --seed {outcome.case.seed} --profile {outcome.case.profile}"
    lines = [
        f"seed {outcome.case.seed}, profile {outcome.case.profile}: {again.promise} is broken",
        again.detail,
        "",
    ]
    for number, program in enumerate(small.programs):
        lines += [f"driver d{number} on node n{small.homes[number]}", show(program)]
    nodes = ", ".join(f"n{i}: {n.cpus} CPU, {n.store:,} bytes" for i, n in enumerate(small.nodes))
    lines += [
        f"nodes: {nodes}; network {small.style}",
        f"constants: {dict(small.knobs) or 'as in the code'}",
        "faults: " + ("; ".join(str(fault) for fault in small.faults) or "none"),
        "last steps (seconds, process, event):",
        *again.story[-steps:],
        "",
        f"replay: {command} --trace",
    ]
    return "\n".join(lines)
