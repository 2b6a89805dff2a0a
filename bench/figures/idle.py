"""Idle: memory and processor time of a runtime of two workers that has run one task and has nothing
to do.

"Cluster" is every process below the program, found as its descendants; the program becomes the
reaper of its orphans first, so that a daemon that detaches is counted too. The program itself (the
driver) is not in the memory, because its imports are the user's, but its threads are in the
processor time.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool

import psutil

from bench.clock import MIB
from bench.engines import cluster, dask_client
from bench.figure import Figure, Metric, Samples, Target
from bench.processes import adopt_orphans

SETTLE = 2.0
"""Seconds for start-up work to end; Ray still starts workers when init returns."""

WATCH = 5.0


def where() -> int:
    """The task: which process am I?"""
    return os.getpid()


def shared(name: str) -> Samples:
    """One task, then nothing."""
    adopt_orphans()
    with cluster(name) as engine:
        yield from watch(engine.get(engine.remote(where).remote()))


def dask() -> Samples:
    """The same."""
    adopt_orphans()
    with dask_client() as client:
        yield from watch(client.submit(where, pure=False).result())


def pool() -> Samples:
    """The same."""
    with Pool(2) as workers:
        yield from watch(workers.apply(where))


def executor() -> Samples:
    """The same."""
    with ProcessPoolExecutor(2) as workers:
        yield from watch(workers.submit(where).result())


def watch(worker: int) -> Samples:
    """Weigh our descendants, then count their processor time; `worker` is a worker's id."""
    time.sleep(SETTLE)
    driver = psutil.Process()
    members = driver.children(recursive=True)
    weights = {member.pid: member.memory_full_info() for member in members}
    yield "processes", len(members)
    yield "private", sum(weight.uss for weight in weights.values()) / MIB
    yield "proportional", sum(weight.pss for weight in weights.values()) / MIB
    yield "worker_private", weights[worker].uss / MIB
    everyone = [driver, *members]
    before = sum(map(spent, everyone))
    time.sleep(WATCH)
    yield "processor", 100 * (sum(map(spent, everyone)) - before) / WATCH


def spent(process: psutil.Process) -> float:
    """Processor seconds of a process so far; 10 ms is the kernel's grain."""
    times = process.cpu_times()
    return float(times.user + times.system)


FIGURE = Figure(
    name="idle",
    title="A runtime of two workers with nothing to do",
    metrics=(
        Metric("private", "MiB", "lower", "private memory (USS) of all processes but the driver"),
        Metric(
            "proportional",
            "MiB",
            "lower",
            "the same with shared pages split among their users (PSS)",
            (Target(60.0),),
        ),
        Metric(
            "worker_private", "MiB", "lower", "private memory of one idle worker", (Target(15.0),)
        ),
        Metric("processor", "%", "lower", "of one core over 5 s, driver included", (Target(0.5),)),
        Metric("processes", "", "neither", "processes besides the driver"),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor},
)
