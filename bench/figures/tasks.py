"""Tasks that do nothing: one at a time, 1,000 in flight, and from two programs at once.

The last is two actors that submit and fetch at the same time, since a cluster of one program has no
other clients. Processor time is that of batches of 1,000, tasks that return their process id.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import Pool
from typing import Any

from bench import floor as bare
from bench.clock import batch_rate, rate
from bench.engines import cluster, dask_client, load
from bench.figure import Figure, Metric, Samples, Target, attempt
from bench.processes import adopt_orphans, spent_per_task

BATCH = 1000
CLIENTS = 2


def nothing(_: object = None) -> None:
    """The task."""


def where(_: object = None) -> int:
    """The task whose processor time is counted; the process id names the workers."""
    return os.getpid()


class Client:
    """An actor that submits tasks itself."""

    def __init__(self, name: str) -> None:
        self.engine = load(name)
        self.task = self.engine.remote(nothing)

    def run(self) -> None:
        """Submit a batch and fetch it."""
        self.engine.get([self.task.remote() for _ in range(BATCH)])


def shared(name: str) -> Samples:
    """Submit and get."""
    adopt_orphans()  # a daemon that detaches belongs to the processor time
    with cluster(name) as engine:

        def batch(function: Callable[..., Any]) -> Any:
            task = engine.remote(function)
            return lambda: engine.get([task.remote() for _ in range(BATCH)])

        task = engine.remote(nothing)
        yield from attempt("one_at_a_time", lambda: rate(lambda: engine.get(task.remote())))
        yield from attempt("in_flight", lambda: batch_rate(batch(nothing), BATCH))
        yield from attempt("two_clients", lambda: from_clients(engine))
        yield from spent_per_task(batch(where))


def from_clients(engine: Any) -> float:
    """Tasks a second of two actors together."""
    kind = engine.remote(Client)
    clients = [kind.remote(engine.__name__) for _ in range(CLIENTS)]
    return batch_rate(lambda: engine.get([c.run.remote() for c in clients]), CLIENTS * BATCH)


def dask() -> Samples:
    """submit and result, map and gather; `pure=False`, or Dask would answer from its cache."""
    with dask_client() as client:

        def batch(function: Callable[..., Any]) -> Any:
            return lambda: client.gather(client.map(function, range(BATCH), pure=False))

        one = partial(client.submit, nothing, pure=False)
        yield "one_at_a_time", rate(lambda: one().result())
        yield "in_flight", batch_rate(batch(nothing), BATCH)
        yield from spent_per_task(batch(where))


def pool() -> Samples:
    """apply, and map with one item a message."""
    with Pool(2) as workers:
        yield "one_at_a_time", rate(lambda: workers.apply(nothing))
        several = partial(workers.map, iterable=range(BATCH), chunksize=1)
        yield "in_flight", batch_rate(lambda: several(nothing), BATCH)
        yield from spent_per_task(lambda: several(where))


def executor() -> Samples:
    """submit and result, of one and of 1,000."""
    with ProcessPoolExecutor(2) as workers:

        def batch(function: Callable[..., Any]) -> list[Any]:
            futures = [workers.submit(function) for _ in range(BATCH)]
            return [future.result() for future in futures]

        yield "one_at_a_time", rate(lambda: workers.submit(nothing).result())
        yield "in_flight", batch_rate(lambda: batch(nothing), BATCH)
        yield from spent_per_task(lambda: batch(where))


def floor() -> Samples:
    """A message there and back, and pickled calls in one batch, between two processes."""
    yield "one_at_a_time", bare.round_trips()
    yield "in_flight", bare.batches(nothing, BATCH)


FIGURE = Figure(
    name="tasks",
    title="Tasks that do nothing",
    metrics=(
        Metric(
            "one_at_a_time",
            "/s",
            "higher",
            "submit + get, repeated; floor: a round trip on a unix socket",
            (Target(15, "ray"), Target(2, "pool"), Target(0.4, "floor")),
            spent_on="a call that is alone shares its system calls, and the looking for the next "
            "message, with no other; the rest is Python in two processes (see cpu below). The "
            "floor's processes wake each other and run nothing",
        ),
        Metric(
            "in_flight",
            "/s",
            "higher",
            "tasks a second, 1,000 submitted, then fetched; floor: pickled calls in one batch",
            (Target(20, "ray"), Target(15, "dask"), Target(2, "pool"), Target(5, "executor")),
            spent_on="in the program: some 12 us to name, count, place and send a task, 5 to take "
            "its result. The pool keeps no names and no counts, and cannot pass a result on",
        ),
        Metric("two_clients", "/s", "higher", "the same by two actors at a time, together"),
        Metric("cpu", "µs", "lower", "processor time a task, 1,000 in flight, all processes"),
        Metric("cpu_driver", "µs", "lower", "of it in the program; Dask's scheduler is there too"),
        Metric("cpu_worker", "µs", "lower", "of it in the workers"),
        Metric("cpu_other", "µs", "lower", "of it in all others: node, head", resolution=0.1),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor, "floor": floor},
    main=True,
)
