"""Recovery: a chain of tasks on a machine that dies half-way (NSDI'21, section 5.3).

Ten seconds of work, as 1,000 tasks of 10 ms, 100 of 100 ms or ten of 1 s, each on the result of the
one before. The program's own node has no processors: all of it runs on a second node. In every
other run that node is killed five seconds after the start, and another started in its place as
soon as the kill has returned. The ratio is the seconds of the run with the death over those of the
run without, taken one right after the other.

Small values ride in messages and lie with the program, so that only the task under way is lost:
the ratio shows how fast a death is noticed and a node replaced. A value of 10 MiB lies on the node
that dies, and those before it were dropped when they were used, so that everything is made again
from the first: 1.5 is the best that can be without a checkpoint.
"""

from __future__ import annotations

import time
from time import perf_counter
from typing import Any

from bench.clock import MIB
from bench.engines import two_nodes
from bench.figure import Figure, Metric, Samples, Target

WORK = 10.0
"""Seconds of sleep in a chain, whatever the length of its tasks."""

STEPS = (10, 100, 1000)
"""Milliseconds of a task."""

KILLED_AFTER = 5.0
LARGE = 10 * MIB


def first(size: int) -> Any:
    """The beginning of a chain: a number, or an array of so many bytes."""
    import numpy as np

    return np.zeros(size, np.uint8) if size else 0


def link(value: Any, seconds: float) -> Any:
    """One task of the chain."""
    time.sleep(seconds)
    return value + 1


def shared(name: str) -> Samples:
    """Each chain on a cluster of its own, without a death and with one."""
    for step in STEPS:
        for kind, size in (("small", 0), ("large", LARGE)):
            calm = chain(name, step, size, kill=False)
            yield f"{kind}_{step}ms_calm", calm
            killed = chain(name, step, size, kill=True)
            yield f"{kind}_{step}ms_killed", killed
            yield f"{kind}_{step}ms_ratio", killed / calm


def chain(name: str, step: int, size: int, *, kill: bool) -> float:
    """Seconds from the first submission to the last value, which is checked."""
    length = round(WORK * 1000 / step)
    with two_nodes(name) as (engine, replace):
        begin, task = engine.remote(first), engine.remote(max_retries=-1)(link)
        engine.get(task.remote(begin.remote(size), 0.0))
        begun = perf_counter()
        ref = begin.remote(size)
        for _ in range(length):
            ref = task.remote(ref, step / 1000)
        if kill:
            time.sleep(max(begun + KILLED_AFTER - perf_counter(), 0))
            replace()
        value = engine.get(ref)
        seconds = perf_counter() - begun
        found = int(value[-1]) if size else value
        if found != (length % 256 if size else length):
            raise AssertionError(f"the chain of {length} tasks gave {found}")
    return seconds


def metrics() -> tuple[Metric, ...]:
    """Three for each length and size."""
    listed: list[Metric] = []
    for step in STEPS:
        for kind, words, bound in (("small", "numbers", 1.35), ("large", "10 MiB arrays", 1.9)):
            what = f"{round(WORK * 1000 / step):,} tasks of {step} ms, {words}"
            start = f"{kind}_{step}ms"
            listed += [
                Metric(f"{start}_calm", "s", "lower", what),
                Metric(f"{start}_killed", "s", "lower", f"{what}, node killed after 5 s"),
                Metric(f"{start}_ratio", "x", "lower", "the one over the other", (Target(bound),)),
            ]
    return tuple(listed)


FIGURE = Figure(
    name="recovery",
    title="A chain of tasks whose node dies half-way",
    metrics=metrics(),
    shared=shared,
    limit=900.0,
)
