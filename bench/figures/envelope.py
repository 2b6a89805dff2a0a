"""Scale on one node: many arguments, many returns, many objects, a long chain.

The dimensions are those of Ray's scalability envelope; its long queue is `queued`. The inputs are
made outside the clock, except where the metric says so. Answers are checked: a wrong one is an
error, not a measurement.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from bench.clock import seconds
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, attempt

ARGUMENTS = 10_000
RETURNS = 3_000
OBJECTS = 10_000
CHAIN = 2_000
BODY = bytes(1024)


def total(*values: int) -> int:
    """The task of many arguments."""
    return sum(values)


def many() -> list[int]:
    """The task of many returns."""
    return list(range(RETURNS))


def successor(value: int) -> int:
    """One link of the chain."""
    return value + 1


def nothing() -> None:
    """The first task."""


def check(found: object, wanted: object) -> None:
    """Refuse a wrong answer."""
    if found != wanted:
        raise AssertionError(f"the engine answered {found!r:.80} where {wanted!r:.80} is right")


def shared(name: str) -> Samples:
    """All of them on one cluster, whose first task has run."""
    with cluster(name) as engine:
        task = engine.remote(nothing)
        engine.get(task.remote())
        yield from attempt("arguments", lambda: arguments(engine))
        yield from attempt("returns", lambda: returns(engine))
        yield from objects(engine)
        yield from attempt("chain", lambda: seconds(lambda: chain(engine)))


def arguments(engine: Any) -> float:
    """One task of 10,000 references."""
    refs = [engine.put(1) for _ in range(ARGUMENTS)]
    task = engine.remote(total)
    begun = perf_counter()
    check(engine.get(task.remote(*refs)), ARGUMENTS)
    return perf_counter() - begun


def returns(engine: Any) -> float:
    """One task of 3,000 returns, all fetched."""
    task = engine.remote(num_returns=RETURNS)(many)
    begun = perf_counter()
    check(engine.get(task.remote()), many())
    return perf_counter() - begun


def objects(engine: Any) -> Samples:
    """10,000 objects of 1 KiB, put and then fetched in one get."""
    begun = perf_counter()
    refs = [engine.put(BODY) for _ in range(OBJECTS)]
    yield "put_objects", perf_counter() - begun
    begun = perf_counter()
    check(engine.get(refs), [BODY] * OBJECTS)
    yield "get_objects", perf_counter() - begun


def chain(engine: Any) -> None:
    """2,000 tasks, each on the result of the one before; only the last is fetched."""
    task = engine.remote(successor)
    ref = task.remote(0)
    for _ in range(CHAIN - 1):
        ref = task.remote(ref)
    check(engine.get(ref), CHAIN)


def dask() -> Samples:
    """What Dask can express: no task of many returns."""
    with dask_client() as client:
        client.submit(nothing, pure=False).result()
        refs = client.scatter([1] * ARGUMENTS, hash=False)
        begun = perf_counter()
        check(client.submit(total, *refs, pure=False).result(), ARGUMENTS)
        yield "arguments", perf_counter() - begun
        begun = perf_counter()
        refs = client.scatter([BODY] * OBJECTS, hash=False)
        yield "put_objects", perf_counter() - begun
        begun = perf_counter()
        check(client.gather(refs), [BODY] * OBJECTS)
        yield "get_objects", perf_counter() - begun
        yield "chain", seconds(lambda: dask_chain(client))


def dask_chain(client: Any) -> None:
    """The chain in Dask's idiom."""
    future = client.submit(successor, 0, pure=False)
    for _ in range(CHAIN - 1):
        future = client.submit(successor, future, pure=False)
    check(future.result(), CHAIN)


FIGURE = Figure(
    name="envelope",
    title="Large counts on one node",
    metrics=(
        Metric("arguments", "s", "lower", "one task of 10,000 references as arguments"),
        Metric("returns", "s", "lower", "one task of 3,000 returns, all fetched"),
        Metric("put_objects", "s", "lower", "put of 10,000 objects of 1 KiB"),
        Metric("get_objects", "s", "lower", "one get of those 10,000"),
        Metric("chain", "s", "lower", "2,000 tasks, each on the result of the one before"),
    ),
    shared=shared,
    own={"dask": dask},
    limit=300.0,
    main=True,
)
