"""Timing loops used by the figures. Standard library only; runs inside the measured process.

A rate is the median over slices of one steady period, so that a burst of somebody else's work on
the machine spoils a slice and not the value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import perf_counter

GIB = 1 << 30
MIB = 1 << 20


def median(values: Iterable[float]) -> float:
    """The middle one. (``statistics`` takes 6 ms to import, in every worker that does.)"""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def seconds(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begun = perf_counter()
    call()
    return perf_counter() - begun


def rate(
    call: Callable[[], object], *, warm: float = 0.3, period: float = 0.7, slices: int = 5
) -> float:
    """Calls per second, one at a time: median over the slices of `period`, after `warm` seconds."""
    _repeat(call, warm)
    return median(_repeat(call, period / slices) for _ in range(slices))


def batch_rate(
    batch: Callable[[], object],
    size: int,
    *,
    warm: float = 0.3,
    least: int = 2,
    period: float = 0.7,
    patience: float = 10.0,
) -> float:
    """Items per second: median over batches of `size`, after batches of `warm` seconds.

    It takes at least `least` batches and `period` seconds, but begins none after `patience`
    seconds, so that an engine that is a hundred times slower is measured too, if less often.
    """
    _repeat(batch, warm)
    rates: list[float] = []
    begun = perf_counter()
    passed = 0.0
    while not rates or passed < period or (len(rates) < least and passed < patience):
        rates.append(size / seconds(batch))
        passed = perf_counter() - begun
    return median(rates)


def _repeat(call: Callable[[], object], period: float) -> float:
    """Calls per second over one stretch of `period` seconds, at least one call."""
    begun = perf_counter()
    count = 0
    while True:
        call()
        count += 1
        passed = perf_counter() - begun
        if passed >= period:
            return count / passed
