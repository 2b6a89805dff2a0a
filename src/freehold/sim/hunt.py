"""Hunting planted bugs: proof that the simulator can see.

A *mutant* (``mutants``) breaks one rule of one machine by exchanging one method for the length of
a run. It must be found, that is, a promise must break, within ``MOST_SEEDS`` seeds of the profiles
that exercise the rule. A change after which one gets away has made the simulator blind somewhere.
Each mutant remembers a seed that finds it, so that all of them can be looked for in seconds; when
the code has changed so that this seed is another run, the hunt goes on from there."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from freehold.sim.cluster import run_case
from freehold.sim.generate import make_case

MOST_SEEDS: Final = 600

Method = Callable[..., Any]


@dataclass(frozen=True)
class Mutant:
    """One planted bug: what is wrong, and which method of which class it takes the place of.

    ``make`` is given the true method and returns the false one; ``seed`` has found it."""

    name: str
    owner: type
    method: str
    profiles: tuple[str, ...]
    seed: int
    make: Callable[[Method], Method]


@dataclass(frozen=True)
class Found:
    """How a mutant was found; ``seeds`` is 0 if it was not."""

    name: str
    seeds: int
    seed: int = 0
    profile: str = ""
    promise: str = ""

    def __str__(self) -> str:
        if not self.seeds:
            return f"{self.name:<34} NOT FOUND"
        where = f"{self.profile} {self.seed}: {self.promise}"
        return f"{self.name:<34} found after {self.seeds:>4} seeds, {where}"


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The bug is in the code."""
    true = getattr(mutant.owner, mutant.method)
    setattr(mutant.owner, mutant.method, mutant.make(true))
    try:
        yield
    finally:
        setattr(mutant.owner, mutant.method, true)


def hunt(mutant: Mutant, start: int = 0, most: int = MOST_SEEDS) -> Found:
    """Try seeds until a promise breaks that holds without the bug."""
    for count in range(most):
        seed = start + count
        case = make_case(seed, mutant.profiles[seed % len(mutant.profiles)])
        with planted(mutant):
            promise = run_case(case).promise
        if promise and run_case(case).promise != promise:
            return Found(mutant.name, count + 1, seed, case.profile, promise)
    return Found(mutant.name, 0)


def hunt_all(mutants: Sequence[Mutant], start: int, jobs: int) -> Iterator[Found]:
    """Hunt each, several at a time."""
    context = multiprocessing.get_context("fork")
    with context.Pool(jobs, initializer=PREPARED.extend, initargs=(mutants,)) as pool:
        yield from pool.imap(hunt_one, [(index, start) for index in range(len(mutants))])


PREPARED: Final[list[Mutant]] = []  # in a process of the pool: mutants are code and do not travel


def hunt_one(work: tuple[int, int]) -> Found:
    """One hunt, as a job of another process."""
    index, start = work
    return hunt(PREPARED[index], start)


def summary(found: Sequence[Found]) -> str:
    """How many were found, and how fast."""
    needed = [one.seeds for one in found if one.seeds]
    if not needed:
        return f"0 of {len(found)} found"
    return (
        f"{len(needed)} of {len(found)} found; median {statistics.median(needed):g} seeds, "
        f"most {max(needed)}"
    )
