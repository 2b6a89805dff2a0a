"""Actors: creating twenty, and calling one.

Twenty are created first, on a fresh cluster, and each is called once; then one of them is called
alone, one call at a time and with 1,000 in flight. The count it has reached at the end is checked
against the calls made.
"""

from __future__ import annotations

from time import perf_counter

from bench.clock import batch_rate, rate
from bench.engines import cluster
from bench.figure import Figure, Metric, Samples, Target

ACTORS = 20
BATCH = 1000


class Counter:
    """The actor."""

    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        """Count one call; the number of calls so far."""
        self.count += 1
        return self.count


def shared(name: str) -> Samples:
    """Create, call, call in batches."""
    with cluster(name) as engine:
        kind = engine.remote(Counter)
        begun = perf_counter()
        actors = [kind.remote() for _ in range(ACTORS)]
        answers = engine.get([actor.add.remote() for actor in actors])
        yield "create", perf_counter() - begun
        assert answers == [1] * ACTORS
        actor = actors[0]
        seen = [1]

        def call() -> None:
            seen.append(engine.get(actor.add.remote()))

        def batch() -> None:
            seen.extend(engine.get([actor.add.remote() for _ in range(BATCH)]))

        yield "call", rate(call)
        yield "calls", batch_rate(batch, BATCH)
        assert seen == list(range(1, len(seen) + 1)), "an actor's calls were lost or out of order"


FIGURE = Figure(
    name="actors",
    title="Actors",
    metrics=(
        Metric("create", "s", "lower", "create 20 and call each once", (Target(0.3),)),
        Metric("call", "/s", "higher", "call + get, repeated", (Target(10, "ray"),)),
        Metric("calls", "/s", "higher", "calls a second, 1,000 in flight", (Target(20, "ray"),)),
    ),
    shared=shared,
)
