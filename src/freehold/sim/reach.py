"""Rare paths, and whether a campaign has been on them.

A simulator that never comes to a place proves nothing about it. Each row of ``paths.PATHS`` names a
place: a method of a machine, perhaps with a condition on how it is called; the profiles that are
meant to come there; and about one in how many of their seeds does. A campaign with twelve times as
many seeds comes there with a probability of 1 - e**-12: if it has not, the simulator has gone blind
in that corner, and the campaign fails. Faults and what they do are marked by the simulator itself
and judged the same way.

The machines know nothing of this: their methods are exchanged for ones that look first and then do
as before (``watched``), which changes neither a message nor a draw of chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from freehold.core.execution import Needs
from freehold.core.hosting import Hosting
from freehold.sim.generate import NAMES, PROFILES
from freehold.sim.paths import FAULT_IN, MARKS, PATHS, Condition, Path

#: Seeds for each that is expected to come there, until one must have.
SURE: Final = 12


@contextmanager
def watched() -> Iterator[None]:
    """While this is open, every path that is taken is marked in the run that takes it."""
    places: dict[tuple[type, str], list[Path]] = {}
    for path in PATHS:
        places.setdefault((path.owner, path.method), []).append(path)
    before = [(owner, method, getattr(owner, method)) for owner, method in places]
    try:
        for owner, method, true in before:
            setattr(owner, method, looking(true, places[owner, method]))
        yield
    finally:
        for owner, method, true in before:
            setattr(owner, method, true)


def looking(true: Condition, paths: list[Path]) -> Condition:
    """A method that looks which of the paths are taken, then does as before."""

    def method(self: Any, *args: Any, **rest: Any) -> Any:
        for path in paths:
            if path.when is None or path.when(self, *args, **rest):
                world_of(self).mark(path.name)
        return true(self, *args, **rest)

    return method


def world_of(machine: Any) -> Any:
    """The simulated world of a machine: its own ``world`` is its process."""
    if isinstance(machine, Needs | Hosting):
        machine = machine.execution
    return machine.world.world


def expectations() -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Every path and mark: its name, one in how many seeds, of which profiles."""
    for path in PATHS:
        yield path.name, path.one_in, path.profiles
    for name, (one_in, profiles) in MARKS.items():
        yield name, one_in, profiles
    for fault in sorted({fault for profile in PROFILES.values() for fault in profile.faults}):
        yield fault, FAULT_IN, tuple(name for name in NAMES if fault in PROFILES[name].faults)


def unreached(seeds: Counter[str], reached: Counter[str]) -> tuple[list[str], int]:
    """What a campaign should have reached and has not, and how many places were due at all.

    Args: seeds: run of each profile; reached: seeds of any profile that came to each place."""
    due = [
        name
        for name, one_in, profiles in expectations()
        if sum(seeds[profile] for profile in profiles) >= SURE * one_in
    ]
    return [name for name in due if not reached[name]], len(due)
