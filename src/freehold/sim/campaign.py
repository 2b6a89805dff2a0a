"""Many seeds at once: what they saw, whether they saw enough, whether they are the same elsewhere.

A campaign is more than its failures. It counts what happened; it fails if a place that its profiles
are meant to reach was not (``reach``); and it runs one seed in twenty once more in a fresh
interpreter that hashes strings and bytes differently, where every step must be the same."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from freehold.sim.cluster import Outcome, run_case
from freehold.sim.generate import make_case
from freehold.sim.reach import unreached, watched
from freehold.sim.showing import show
from freehold.sim.shrink import shrink, sizes

#: One seed in so many is run a second time elsewhere.
REPEATED: Final = 20
#: Campaigns of so many seeds must have reached what they are meant to reach.
JUDGED: Final = 1000

Seed = tuple[int, str]  # and its profile


@dataclass
class Tally:
    """What a campaign has seen: seeds, steps, virtual time, what struck and how gets ended."""

    steps: int = 0
    virtual_seconds: float = 0.0
    wall_seconds: float = 0.0
    seeds: Counter[str] = field(default_factory=Counter)  # of each profile
    marks: Counter[str] = field(default_factory=Counter)
    reached: Counter[str] = field(default_factory=Counter)  # seeds that came to each mark
    outcomes: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[int, str, str]] = field(default_factory=list)
    digests: dict[Seed, str] = field(default_factory=dict)
    longest: dict[str, tuple[float, int]] = field(default_factory=dict)  # after healing, and seed
    differ: list[Seed] = field(default_factory=list)
    repeated: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more run."""
        case = outcome.case
        self.seeds[case.profile] += 1
        self.steps += outcome.steps
        self.virtual_seconds += outcome.seconds
        self.marks.update(outcome.marks)
        self.reached.update(outcome.marks.keys())
        self.outcomes.update(outcome.outcomes)
        if outcome.promise:
            self.failed.append((case.seed, case.profile, outcome.promise))
        if case.seed % REPEATED == 0:
            self.digests[case.seed, case.profile] = outcome.digest
        took = max(outcome.ended_after, outcome.rested_after)
        if took >= self.longest.get(case.profile, (0.0, 0))[0]:
            self.longest[case.profile] = (took, case.seed)

    def missing(self) -> list[str]:
        """Places that so many seeds should have reached and did not."""
        return unreached(self.seeds, self.reached)[0] if self.seeds.total() >= JUDGED else []

    @property
    def good(self) -> bool:
        """Whether nothing failed, differed or is missing."""
        return not (self.failed or self.differ or self.missing())

    def lines(self) -> list[str]:
        """For people. Virtual time alone is easily had (idle time is free): hence all of it."""
        seeds = self.seeds.total()
        rate = seeds / self.wall_seconds * 60 if self.wall_seconds else 0.0
        missing, due = unreached(self.seeds, self.reached)
        longest = ", ".join(
            f"{name} {took:.1f} s of {make_case(seed, name).within:g} (seed {seed})"
            for name, (took, seed) in sorted(self.longest.items())
        )
        return [
            f"{seeds} seeds in {self.wall_seconds:.1f} s ({rate:,.0f} a minute)",
            f"{self.steps:,} steps, {self.virtual_seconds / 3600:.2f} virtual hours",
            "happened: " + table(self.marks),
            "gets ended with: " + table(self.outcomes),
            "longest from healing to the end, or to rest: " + longest,
            f"places reached: {due - len(missing)} of the {due} due after so many seeds"
            + (f"; never: {', '.join(missing)}" if missing else ""),
            f"run again in a fresh interpreter: {len(self.differ)} mismatches of {self.repeated}",
            f"failed: {len(self.failed)}",
        ]


def table(counts: Counter[str]) -> str:
    """Counts in a line."""
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def campaign(
    seeds: Iterable[int], profile: str, jobs: int, tell: Callable[[Outcome], None]
) -> Tally:
    """Run seeds, in several processes if asked; ``tell`` hears of each run, in order. Then some of
    them once more, elsewhere."""
    tally = Tally()
    began = perf_counter()
    work = [(seed, profile) for seed in seeds]
    if jobs == 1:
        for outcome in map(one, work):
            tally.add(outcome)
            tell(outcome)
    else:
        with multiprocessing.get_context("fork").Pool(jobs) as pool:
            for outcome in pool.imap(one, work, chunksize=8):
                tally.add(outcome)
                tell(outcome)
    repeat(tally, jobs)
    tally.wall_seconds = perf_counter() - began
    return tally


def one(work: Seed) -> Outcome:
    """One run, as a job of another process."""
    seed, profile = work
    with watched():
        return run_case(make_case(seed, profile))


# ------------------------------------------------------------------ once more, elsewhere


def repeat(tally: Tally, jobs: int) -> None:
    """Run the chosen seeds in fresh interpreters, each with a hash seed of its own."""
    work = list(tally.digests)
    parts = [part for part in (work[job::jobs] for job in range(jobs)) if part]
    children = [elsewhere(part, hash_seed) for hash_seed, part in enumerate(parts, start=1)]
    for part, child in zip(parts, children, strict=True):
        assert child.stdout is not None
        with child.stdout:
            digests = child.stdout.read().split()
        if child.wait() or len(digests) != len(part):
            raise RuntimeError(f"the repeating interpreter ended with status {child.returncode}")
        tally.differ += [
            seed
            for seed, digest in zip(part, digests, strict=True)
            if digest != tally.digests[seed]
        ]
    tally.repeated = len(work)


def elsewhere(seeds: Sequence[Seed], hash_seed: int) -> subprocess.Popen[str]:
    """A fresh interpreter that prints the digest of each of these seeds."""
    code = "from freehold.sim.campaign import print_digests; print_digests()"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": str(hash_seed),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    child = subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    with child.stdin:  # it reads all before it runs the first
        child.stdin.write("\n".join(f"{seed} {profile}" for seed, profile in seeds))
    return child


def print_digests() -> None:
    """What the fresh interpreter does."""
    for line in sys.stdin.readlines():
        seed, profile = line.split()
        sys.stdout.write(run_case(make_case(int(seed), profile)).digest + "\n")


# ------------------------------------------------------------------ one that failed


def report(outcome: Outcome, steps: int = 30) -> str:
    """A failing seed for its finder: the broken promise, the smallest program, the last steps."""
    case = outcome.case
    small = shrink(case, outcome.promise)
    again = run_case(small)
    command = f"python -m freehold.sim --seed {case.seed} --profile {case.profile}"
    lines = [
        f"seed {case.seed}, profile {case.profile}: {again.promise} is broken",
        again.detail,
        "",
        f"shrunk from {sizes(case)} to {sizes(small)}",
    ]
    for number, program in enumerate(small.programs):
        lines += [f"driver d{number} on node n{small.homes[number]}", show(program)]
    nodes = ", ".join(f"n{i}: {n.cpus} CPU, {n.store:,} bytes" for i, n in enumerate(small.nodes))
    habits = [name for name in ("hasty", "keeps") if getattr(small, name)]
    lines += [
        f"nodes: {nodes}; network {small.style}; drivers {' and '.join(habits) or 'as usual'}",
        f"constants: {dict(small.knobs) or 'as in the code'}",
        "faults: " + ("; ".join(str(fault) for fault in small.faults) or "none"),
        "last steps (seconds, process, event):",
        *again.story[-steps:],
        "",
        f"replay: {command} --trace",
    ]
    return "\n".join(lines)
