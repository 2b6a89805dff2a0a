"""Footprint: memory and processor time of a runtime of two workers, idle and then at work.

Idle is after one task. Busy is right after a second of batches of 1,000 no-op tasks. The private
memory (USS) is that of every process below the program, found as its descendants; the program
becomes the reaper of its orphans first, so that a daemon that detaches is counted too. The program
itself (the driver) is not in the memory, because its imports are the user's, but its threads are in
the processor time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing import Pool

import psutil

from bench.clock import MIB
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, Target
from bench.processes import adopt_orphans, spent

SETTLE = 2.0
"""Seconds for start-up work to end; Ray still starts workers when init returns."""

WATCH = 3.0
WORK = 1.0
BATCH = 1000


def where(_: object = None) -> int:
    """The task: which process am I?"""
    return os.getpid()


def shared(name: str) -> Samples:
    """One task, then nothing, then many."""
    adopt_orphans()
    with cluster(name) as engine:
        task = engine.remote(where)

        def batch() -> list[int]:
            pids: list[int] = engine.get([task.remote() for _ in range(BATCH)])
            return pids

        yield from watch(engine.get(task.remote()), batch)


def dask() -> Samples:
    """The same."""
    adopt_orphans()
    with dask_client() as client:

        def batch() -> list[int]:
            pids: list[int] = client.gather(client.map(where, range(BATCH), pure=False))
            return pids

        yield from watch(client.submit(where, pure=False).result(), batch)


def pool() -> Samples:
    """The same."""
    with Pool(2) as workers:
        yield from watch(
            workers.apply(where), lambda: workers.map(where, range(BATCH), chunksize=1)
        )


def watch(worker: int, batch: Callable[[], list[int]]) -> Samples:
    """Weigh our descendants, count their processor time, then weigh them after work.

    Args:
        worker: Process id of a worker.
        batch: Runs tasks and returns the process id that each ran in.
    """
    time.sleep(SETTLE)
    driver = psutil.Process()
    members = driver.children(recursive=True)
    weights = {member.pid: member.memory_full_info() for member in members}
    yield "processes", len(members)
    yield "private", sum(weight.uss for weight in weights.values()) / MIB
    yield "proportional", sum(weight.pss for weight in weights.values()) / MIB
    yield "worker_private", weights[worker].uss / MIB
    everyone = [driver, *members]
    before = sum(spent(one.pid) for one in everyone)
    time.sleep(WATCH)
    yield "processor", 100 * (sum(spent(one.pid) for one in everyone) - before) / WATCH
    until = time.monotonic() + WORK
    ran: list[int] = []
    while time.monotonic() < until:
        ran += batch()
    private = {one.pid: one.memory_full_info().uss for one in driver.children(recursive=True)}
    yield "busy_private", sum(private.values()) / MIB
    yield "busy_worker_private", max(private[pid] for pid in set(ran)) / MIB


FIGURE = Figure(
    name="footprint",
    title="Memory and processor time of a runtime of two workers",
    metrics=(
        Metric(
            "private",
            "MiB",
            "lower",
            "private memory (USS) of all processes but the program, idle",
            (Target(60.0),),
            spent_on="21 MiB in the node, of which 16 are pages of the store, touched early so "
            "that the first put need not; 19 in the zygote, most of it numpy and asyncio, which "
            "workers then share; 5 in the head and in each worker",
        ),
        Metric(
            "proportional", "MiB", "lower", "the same with shared pages split among users (PSS)"
        ),
        Metric(
            "worker_private", "MiB", "lower", "private memory of one idle worker", (Target(15.0),)
        ),
        Metric(
            "processor",
            "%",
            "lower",
            "of one core when idle, over 3 s, the program included",
            (Target(0.5),),
            resolution=0.01,
        ),
        Metric("processes", "", "neither", "processes besides the program"),
        Metric("busy_private", "MiB", "lower", "private memory of all after 1 s of no-op tasks"),
        Metric("busy_worker_private", "MiB", "lower", "the same of the largest worker"),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool},
    main=True,
)
