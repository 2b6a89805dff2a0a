"""Many actors: creating a hundred, and keeping a thousand alive.

A hundred are created first, on a fresh cluster, and each is called once. Then more are created, a
hundred at a time, until there are a thousand, or a minute is over, or less than an eighth of the
machine's memory is left: an engine that needs more for each stops earlier. All are called once
more at the end, which each must answer from a process of its own, and these processes are weighed.
"""

from __future__ import annotations

from time import perf_counter

import psutil

from bench.clock import MIB
from bench.engines import cluster
from bench.figure import Figure, Metric, Samples, Target
from bench.remotes import Member

HUNDRED = 100
ACTORS = 1000
SECONDS = 60.0
SPARE = 1 / 8


def roomy() -> bool:
    """Whether the machine has memory for more."""
    memory = psutil.virtual_memory()
    return bool(memory.available > SPARE * memory.total)


def shared(name: str) -> Samples:
    """Create, count, weigh."""
    with cluster(name) as engine:
        kind = engine.remote(Member).options(num_cpus=0)
        begun = perf_counter()
        actors = [kind.remote() for _ in range(HUNDRED)]
        engine.get([actor.where.remote() for actor in actors])
        yield "create", perf_counter() - begun
        while len(actors) < ACTORS and perf_counter() - begun < SECONDS and roomy():
            more = [kind.remote() for _ in range(HUNDRED)]
            engine.get([actor.where.remote() for actor in more])
            actors += more
        yield "alive", len(actors)
        yield "create_all", (perf_counter() - begun) / len(actors) * 1000
        begun = perf_counter()
        homes = engine.get([actor.where.remote() for actor in actors])
        yield "call_all", (perf_counter() - begun) / len(actors) * 1000
        assert len(set(homes)) == len(actors), "two actors live in one process"
        weights = [psutil.Process(pid).memory_full_info() for pid in homes]
        yield "private", sum(weight.uss for weight in weights) / len(weights) / MIB
        yield "proportional", sum(weight.pss for weight in weights) / len(weights) / MIB


FIGURE = Figure(
    name="actors_many",
    title="A thousand actors",
    metrics=(
        Metric("create", "s", "lower", "create 100 and call each once", (Target(2.0),)),
        Metric("alive", "", "higher", "alive after a minute, of 1,000", (Target(ACTORS),)),
        Metric("create_all", "ms", "lower", "create and call so many, for each"),
        Metric("call_all", "ms", "lower", "one call of each, all in flight, for each"),
        Metric("private", "MiB", "lower", "private memory (USS) of each", (Target(15.0),)),
        Metric(
            "proportional", "MiB", "lower", "the same with shared pages split among users (PSS)"
        ),
    ),
    shared=shared,
    limit=300.0,
)
