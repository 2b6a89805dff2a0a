"""Worker starts: a machine said to have 20 CPUs is at once given 20 tasks that overlap.

The tasks sleep 0.05 s, so the shortest time for real parallelism is 0.05 s, and 1 s would be one
worker alone. The count of distinct processes says how far the engine really spread them. Both
clocks stop at the last result; one starts at the submission and the other before init, because Ray
starts workers during init.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from time import perf_counter

from bench import floor as bare
from bench.engines import cluster, dask_client, load
from bench.figure import Figure, Metric, Samples
from bench.remotes import nap

WORKERS = 20


def shared(name: str) -> Samples:
    """init(num_cpus=20), then 20 tasks."""
    load(name)
    begun = perf_counter()
    with cluster(name, num_cpus=WORKERS) as engine:
        task = engine.remote(nap)
        submitted = perf_counter()
        pids = engine.get([task.remote() for _ in range(WORKERS)])
        yield from results(begun, submitted, pids)


def results(begun: float, submitted: float, pids: list[int]) -> Samples:
    """The three metrics, taken now."""
    now = perf_counter()
    yield "from_submit", now - submitted
    yield "from_init", now - begun
    yield "processes", len(set(pids))


def dask() -> Samples:
    """A local cluster of 20 processes; its constructor waits for them."""
    begun = perf_counter()
    with dask_client(WORKERS) as client:
        submitted = perf_counter()
        pids = client.gather(client.map(nap, range(WORKERS), pure=False))
        yield from results(begun, submitted, pids)


def pool() -> Samples:
    """A pool of 20, forked by its constructor."""
    begun = perf_counter()
    with Pool(WORKERS) as workers:
        submitted = perf_counter()
        yield from results(begun, submitted, workers.map(nap, range(WORKERS), chunksize=1))


def executor() -> Samples:
    """An executor of 20, forked at the first submission."""
    begun = perf_counter()
    with ProcessPoolExecutor(WORKERS) as workers:
        submitted = perf_counter()
        futures = [workers.submit(nap) for _ in range(WORKERS)]
        yield from results(begun, submitted, [future.result() for future in futures])


def floor() -> Samples:
    """20 forks."""
    begun = perf_counter()
    pids = bare.forked(WORKERS, lambda: time.sleep(0.05))
    yield from results(begun, begun, pids)


FIGURE = Figure(
    name="worker_starts",
    title="20 overlapping tasks on a fresh runtime of 20 workers",
    metrics=(
        Metric("from_submit", "s", "lower", "from the first submission to the last result"),
        Metric("from_init", "s", "lower", "from before init() to the last result"),
        Metric("processes", "", "neither", "distinct processes that ran a task, of 20"),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor, "floor": floor},
)
