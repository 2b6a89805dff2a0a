"""Task, one at a time: submit a no-op, wait for its result, submit the next."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from socket import MSG_WAITALL

from bench import floor as bare
from bench.clock import rate
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, Target

MESSAGE = bytes(128)
"""About the size of an encoded task without arguments."""


def nothing() -> None:
    """The task."""


def shared(name: str) -> Samples:
    """Submit and get."""
    with cluster(name) as engine:
        task = engine.remote(nothing)
        yield "rate", rate(lambda: engine.get(task.remote()))


def dask() -> Samples:
    """Submit and result; `pure=False`, or Dask would answer from its cache."""
    with dask_client() as client:
        yield "rate", rate(lambda: client.submit(nothing, pure=False).result())


def pool() -> Samples:
    """Pool.apply."""
    with Pool(2) as workers:
        yield "rate", rate(lambda: workers.apply(nothing))


def executor() -> Samples:
    """ProcessPoolExecutor.submit().result()."""
    with ProcessPoolExecutor(2) as workers:
        yield "rate", rate(lambda: workers.submit(nothing).result())


def floor() -> Samples:
    """One message there and back on a unix socket."""
    with bare.partner(bare.echo) as connection:

        def round_trip() -> None:
            connection.sendall(MESSAGE)
            connection.recv(len(MESSAGE), MSG_WAITALL)

        yield "rate", rate(round_trip)


FIGURE = Figure(
    name="task_sync",
    title="A no-op task, submitted and awaited one at a time",
    metrics=(
        Metric(
            "rate",
            "/s",
            "higher",
            "submit + get, repeated",
            (Target(15, "ray"), Target(2, "pool"), Target(0.4, "floor")),
        ),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor, "floor": floor},
)
