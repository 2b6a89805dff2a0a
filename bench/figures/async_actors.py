"""Actors whose method is a coroutine: the calls of the figure `actors`."""

from __future__ import annotations

from bench.engines import cluster
from bench.figure import Figure, Metric, Samples, Target
from bench.figures import actors


class Counter:
    """The actor; an event loop runs it."""

    def __init__(self) -> None:
        self.count = 0

    async def add(self) -> int:
        """Count one call; the number of calls so far."""
        self.count += 1
        return self.count


def shared(name: str) -> Samples:
    """Create four, call each once, then measure."""
    with cluster(name) as engine:
        kind = engine.remote(Counter)
        some = [kind.remote() for _ in range(actors.MANY)]
        assert engine.get([actor.add.remote() for actor in some]) == [1] * actors.MANY
        yield from actors.calls(engine, some)


FIGURE = Figure(
    name="async_actors",
    title="Actors with coroutines",
    metrics=(
        Metric("one_at_a_time", "/s", "higher", "call + get, repeated", (Target(10, "ray"),)),
        Metric("in_flight", "/s", "higher", "to one, 1,000 in flight", (Target(10, "ray"),)),
        Metric("one_to_four", "/s", "higher", "to four in turn", (Target(10, "ray"),)),
        Metric("two_to_two", "/s", "higher", "by two actors to two", (Target(10, "ray"),)),
    ),
    shared=shared,
    main=True,
)
