"""Tasks in flight: 1,000 no-ops submitted, then all results fetched; the rate of warm batches."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool

from bench import floor as bare
from bench.clock import batch_rate
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, Target

BATCH = 1000


def nothing(_: object = None) -> None:
    """The task."""


def shared(name: str) -> Samples:
    """Submit 1,000, get 1,000."""
    with cluster(name) as engine:
        task = engine.remote(nothing)
        yield (
            "rate",
            batch_rate(lambda: engine.get([task.remote() for _ in range(BATCH)]), BATCH),
        )


def dask() -> Samples:
    """client.map and gather."""
    with dask_client() as client:

        def batch() -> None:
            client.gather(client.map(nothing, range(BATCH), pure=False))

        yield "rate", batch_rate(batch, BATCH)


def pool() -> Samples:
    """Pool.map, one item a message."""
    with Pool(2) as workers:
        yield "rate", batch_rate(lambda: workers.map(nothing, range(BATCH), chunksize=1), BATCH)


def executor() -> Samples:
    """Submit 1,000 futures, then take the result of each."""
    with ProcessPoolExecutor(2) as workers:

        def batch() -> None:
            for future in [workers.submit(nothing) for _ in range(BATCH)]:
                future.result()

        yield "rate", batch_rate(batch, BATCH)


def floor() -> Samples:
    """Pickled calls over one unix socket to one process, no bookkeeping."""
    with bare.partner(bare.call_pickled) as connection:
        yield "rate", batch_rate(lambda: bare.calls(connection, nothing, BATCH), BATCH)


FIGURE = Figure(
    name="task_throughput",
    title="No-op tasks, 1,000 in flight",
    metrics=(
        Metric(
            "rate",
            "/s",
            "higher",
            "tasks a second of a warm batch, submit to last result",
            (Target(20, "ray"), Target(2, "pool")),
        ),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor, "floor": floor},
)
