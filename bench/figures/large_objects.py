"""A large array: put, got and passed to a task, 100 MiB of float64; and put by two actors at once.

"Cold" is the first put of a fresh cluster, "warm" the later ones, each after the previous reference
is dropped. The dropping is inside the clock, since a store that frees late makes the next put pay
for fresh pages.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import Pool
from typing import Any

import numpy as np

from bench.clock import GIB, MIB, batch_rate, median, rate, seconds
from bench.engines import cluster, dask_client, load
from bench.figure import Figure, Metric, Samples, Target, attempt

SIZE = 100 * MIB
PUTS = 5
CLIENTS = 2


def array() -> Any:
    """100 MiB, every page touched."""
    return np.arange(SIZE // 8, dtype=np.float64)


def last(values: Any) -> float:
    """The task: proves that the whole array is there, at no cost."""
    return float(values[-1])


def speed(copy: Callable[[], object]) -> float:
    """GiB/s of one copy of the array."""
    return SIZE / GIB / seconds(copy)


class Client:
    """An actor that puts half of the array, each time dropping what it put before."""

    def __init__(self, name: str) -> None:
        self.engine = load(name)
        self.values = array()[: SIZE // 16]
        self.held: list[Any] = []

    def run(self) -> None:
        """A batch of puts."""
        for _ in range(PUTS):
            self.held.clear()
            self.held.append(self.engine.put(self.values))


def from_clients(engine: Any) -> float:
    """GiB/s of two actors together."""
    kind = engine.remote(Client)
    clients = [kind.remote(engine.__name__) for _ in range(CLIENTS)]
    size = CLIENTS * PUTS * SIZE / 2 / GIB
    return size * batch_rate(lambda: engine.get([c.run.remote() for c in clients]), 1)


def shared(name: str) -> Samples:
    """Put, get, pass."""
    values = array()
    held: list[Any] = []
    with cluster(name) as engine:

        def put() -> None:
            held.clear()
            held.append(engine.put(values))

        yield "put_cold", speed(put)
        yield "put_warm", median(speed(put) for _ in range(PUTS))
        yield from reads(engine, held[0], last(values))
        held.clear()
        yield from attempt("two_clients_put", lambda: from_clients(engine))


def reads(engine: Any, ref: Any, end: float) -> Samples:
    """The rates of what is done with the reference of an array that ends in `end`."""
    task = engine.remote(last)
    if last(engine.get(ref)) != end or engine.get(task.remote(ref)) != end:
        raise AssertionError("the array is not what was put")
    yield from attempt("get", lambda: rate(lambda: engine.get(ref)))
    yield from attempt("argument", lambda: rate(lambda: engine.get(task.remote(ref))))


def dask() -> Samples:
    """Scatter, gather, pass a future."""
    values = array()
    held: list[Any] = []
    with dask_client() as client:

        def put() -> None:
            held.clear()
            held.append(client.scatter(values, hash=False))

        yield "put_cold", speed(put)
        yield "put_warm", median(speed(put) for _ in range(PUTS))
        [future] = held
        yield "get", rate(lambda: client.gather(future))
        yield "argument", rate(lambda: client.submit(last, future, pure=False).result())


def pool() -> Samples:
    """Pass the array itself, pickled through a pipe, as a pool must."""
    values = array()
    with Pool(2) as workers:
        yield "argument", rate(lambda: workers.apply(last, (values,)))


def floor() -> Samples:
    """Copy into fresh pages, and again into the same ones."""
    values = array()
    yield "put_cold", speed(lambda: np.copyto(np.empty_like(values), values))
    into = np.empty_like(values)
    np.copyto(into, values)
    yield "put_warm", median(speed(lambda: np.copyto(into, values)) for _ in range(PUTS))


FIGURE = Figure(
    name="large_objects",
    title="A NumPy array of 100 MiB",
    metrics=(
        Metric(
            "put_cold",
            "GiB/s",
            "higher",
            "first put of a fresh cluster; floor: a copy into fresh pages",
            (Target(2, "ray"),),
            spent_on="in the kernel, which clears each page before its first use; a virtual "
            "machine asks its host for those that it had given back, not the same in every round",
        ),
        Metric(
            "put_warm",
            "GiB/s",
            "higher",
            "drop the previous reference and put again; floor: a copy over a copy",
            (Target(6.0), Target(5, "ray"), Target(0.6, "floor")),
            spent_on="in one copy (compare the floor)",
        ),
        Metric(
            "get",
            "/s",
            "higher",
            "get of one reference, repeated",
            spent_on="in making the view, and in noting its end; the pin stays for 50 ms",
        ),
        Metric(
            "argument",
            "/s",
            "higher",
            "submit + get of a task that takes the reference",
            (Target(2000.0),),
            spent_on="in two round trips: the task's, and its worker's with the node, which pins "
            "the value for it",
        ),
        Metric("two_clients_put", "GiB/s", "higher", "puts of 50 MiB by two actors, together"),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "floor": floor},
    main=True,
)
