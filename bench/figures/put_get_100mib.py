"""A large array: put, got and passed to a task, 100 MiB of float64.

"Cold" is the first put of a fresh cluster, "warm" the later ones, each after the previous reference
is dropped. The dropping is inside the clock, since a store that frees late makes the next put pay
for fresh pages.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing import Pool
from statistics import median
from typing import Any

import numpy as np

from bench.clock import GIB, MIB, rate, seconds
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, Target

SIZE = 100 * MIB
PUTS = 10


def array() -> Any:
    """100 MiB, every page touched."""
    return np.arange(SIZE // 8, dtype=np.float64)


def last(values: Any) -> float:
    """The task: proves that the whole array is there, at no cost."""
    return float(values[-1])


def speed(copy: Callable[[], object]) -> float:
    """GiB/s of one copy of the array."""
    return SIZE / GIB / seconds(copy)


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
        [ref] = held
        assert last(engine.get(ref)) == last(values)
        yield "get", rate(lambda: engine.get(ref))
        task = engine.remote(last)
        assert engine.get(task.remote(ref)) == last(values)
        yield "argument", rate(lambda: engine.get(task.remote(ref)))


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
    name="put_get_100mib",
    title="A NumPy array of 100 MiB",
    metrics=(
        Metric("put_cold", "GiB/s", "higher", "first put of a fresh cluster; floor: fresh pages"),
        Metric(
            "put_warm",
            "GiB/s",
            "higher",
            "drop the previous reference and put again; floor: the same buffer",
            (Target(6.0), Target(0.6, "floor")),
        ),
        Metric("get", "/s", "higher", "get of one reference, repeated"),
        Metric(
            "argument",
            "/s",
            "higher",
            "submit + get of a task that takes the reference",
            (Target(2000.0),),
        ),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "floor": floor},
)
