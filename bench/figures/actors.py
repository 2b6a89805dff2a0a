"""Actors: creating twenty, and calling them in the ways that programs do.

Twenty are created first, on a fresh cluster, and each is called once; four are kept. Calls are then
made one at a time and with 1,000 in flight: from the program to one actor and to four, and from two
actors to two; then all again to actors whose method is a coroutine. One actor's count is checked.
"""

from __future__ import annotations

import time
from functools import partial
from time import perf_counter
from typing import Any

from bench import floor as bare
from bench.clock import batch_rate, rate
from bench.engines import cluster, dask_client, load
from bench.figure import Figure, Metric, Samples, Target, attempt
from bench.remotes import AsyncCounter, Counter

ACTORS = 20
BATCH = 1000
MANY = 4
PAIRS = 2
THREADS = 16
SETTLE = 2.0
"""Seconds for the processes of those not called any more to end; 16 of Ray's take a second."""


class Caller:
    """An actor that calls others."""

    def __init__(self, name: str, actors: list[Any]) -> None:
        self.engine = load(name)
        self.actors = actors

    def run(self) -> None:
        """A batch of calls, to each in turn."""
        called(self.engine, self.actors)


def nothing() -> None:
    """What the floor calls."""


def called(engine: Any, actors: list[Any]) -> list[int]:
    """1,000 calls in flight, to each of the actors in turn; what they answered."""
    count = len(actors)
    answers: list[int] = engine.get([actors[i % count].add.remote() for i in range(BATCH)])
    return answers


def shared(name: str) -> Samples:
    """Create, call."""
    with cluster(name) as engine:
        begun = perf_counter()
        actors = [engine.remote(Counter).remote() for _ in range(ACTORS)]
        answers = engine.get([actor.add.remote() for actor in actors])
        yield "create", perf_counter() - begun
        assert answers == [1] * ACTORS
        actors = actors[:MANY]
        time.sleep(SETTLE)
        yield from calls(engine, actors)
        threaded = engine.remote(Counter).options(max_concurrency=THREADS).remote()
        batch = partial(called, engine, [threaded])
        yield from attempt("threads", lambda: batch_rate(batch, BATCH))
        actors = [engine.remote(AsyncCounter).remote() for _ in range(MANY)]
        assert engine.get([actor.add.remote() for actor in actors]) == [1] * MANY
        yield from calls(engine, actors, "async_")


def calls(engine: Any, actors: list[Any], prefix: str = "") -> Samples:
    """The rates of calls to actors that have been called once each.

    Those of one caller run in order, but for coroutines, whose metrics have a prefix.
    """
    first = actors[:1]
    seen = [1]

    def call() -> None:
        seen.append(engine.get(first[0].add.remote()))

    def batch() -> None:
        seen.extend(called(engine, first))

    yield from attempt(f"{prefix}one_at_a_time", lambda: rate(call))
    yield from attempt(f"{prefix}in_flight", lambda: batch_rate(batch, BATCH))
    counts = sorted(seen) if prefix else seen
    assert counts == list(range(1, len(seen) + 1)), "an actor's calls were lost or out of order"
    batch_to_all = partial(called, engine, actors)
    yield from attempt(f"{prefix}one_to_four", lambda: batch_rate(batch_to_all, BATCH))
    yield from attempt(f"{prefix}two_to_two", lambda: crosswise(engine, actors[:PAIRS]))


def crosswise(engine: Any, actors: list[Any]) -> float:
    """Calls a second of as many callers as actors, each calling all."""
    kind = engine.remote(Caller)
    callers = [kind.remote(engine.__name__, actors) for _ in actors]
    size = len(callers) * BATCH
    return batch_rate(lambda: engine.get([caller.run.remote() for caller in callers]), size)


def dask() -> Samples:
    """Dask's actors, which live in its two workers and not in processes of their own."""
    with dask_client() as client:
        begun = perf_counter()
        futures = [client.submit(Counter, actor=True, pure=False) for _ in range(ACTORS)]
        actors = [future.result() for future in futures]
        assert [one.result() for one in [actor.add() for actor in actors]] == [1] * ACTORS
        yield "create", perf_counter() - begun

        def batch(count: int) -> None:
            for one in [actors[i % count].add() for i in range(BATCH)]:
                one.result()

        yield from attempt("one_at_a_time", lambda: rate(lambda: actors[0].add().result()))
        yield from attempt("in_flight", lambda: batch_rate(lambda: batch(1), BATCH))
        yield from attempt("one_to_four", lambda: batch_rate(lambda: batch(MANY), BATCH))


def floor() -> Samples:
    """A message there and back, and pickled calls in one batch, between two processes."""
    yield "one_at_a_time", bare.round_trips()
    yield "in_flight", bare.batches(nothing, BATCH)


FIGURE = Figure(
    name="actors",
    title="Actors",
    metrics=(
        Metric(
            "create",
            "s",
            "lower",
            "create 20 and call each once",
            (Target(0.3), Target(30, "ray")),
            spent_on="each is a process: 10 ms of both processors to fork it from the zygote, "
            "to connect and register it, and to load its class",
        ),
        Metric(
            "one_at_a_time",
            "/s",
            "higher",
            "call + get, repeated; floor: a round trip on a unix socket",
            (Target(10, "ray"),),
        ),
        Metric(
            "in_flight",
            "/s",
            "higher",
            "calls of one actor a second, 1,000 in flight; floor: pickled calls in one batch",
            (Target(20, "ray"),),
            spent_on="in the program, as for tasks: 20 us of Python a call, thinly spread",
        ),
        Metric("one_to_four", "/s", "higher", "the same to four actors in turn"),
        Metric(
            "two_to_two",
            "/s",
            "higher",
            "the same by two actors to two, all together",
            (Target(10, "ray"),),
        ),
        Metric("threads", "/s", "higher", "to one actor that runs 16 calls at a time in threads"),
        Metric(
            "async_one_at_a_time",
            "/s",
            "higher",
            "call of a coroutine method + get, repeated",
            (Target(10, "ray"),),
            spent_on="in the turns of the event loop, one for the call and one for its answer",
        ),
        Metric(
            "async_in_flight",
            "/s",
            "higher",
            "calls of coroutine methods of one actor a second, 1,000 in flight",
            (Target(10, "ray"),),
        ),
        Metric(
            "async_one_to_four",
            "/s",
            "higher",
            "the same to four actors in turn",
            (Target(10, "ray"),),
        ),
        Metric(
            "async_two_to_two",
            "/s",
            "higher",
            "the same by two actors to two, all together",
            (Target(10, "ray"),),
        ),
    ),
    shared=shared,
    own={"dask": dask, "floor": floor},
    main=True,
)
