"""Startup: import, start to the first task's result, and stop.

The import is timed in an interpreter of its own, since this one has imported half the standard
library already.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from time import perf_counter

from bench.clock import seconds
from bench.engines import dask_client, load, start
from bench.figure import Figure, Metric, Samples, Target

IMPORT = "from time import perf_counter as now; t = now(); import {}; print(now() - t)"


def fresh_import(module: str) -> float:
    """Seconds that `import module` takes in a fresh interpreter, whose own start is not counted."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one() -> int:
    """The first task."""
    return 1


def shared(name: str) -> Samples:
    """Import, init, run one task, shut down."""
    yield "import", fresh_import(name)
    engine = load(name)
    begun = perf_counter()
    start(engine)
    assert engine.get(engine.remote(one).remote()) == 1
    yield "first_result", perf_counter() - begun
    yield "shutdown", seconds(engine.shutdown)


def dask() -> Samples:
    """The same with a local cluster of two worker processes."""
    yield "import", fresh_import("distributed")
    load("distributed")
    begun = perf_counter()
    with dask_client() as client:
        assert client.submit(one, pure=False).result() == 1
        yield "first_result", perf_counter() - begun
        begun = perf_counter()
    yield "shutdown", perf_counter() - begun


def pool() -> Samples:
    """The same with a pool of two processes."""
    yield "import", fresh_import("multiprocessing.pool")
    begun = perf_counter()
    workers = Pool(2)
    assert workers.apply(one) == 1
    yield "first_result", perf_counter() - begun
    begun = perf_counter()
    workers.close()
    workers.join()
    yield "shutdown", perf_counter() - begun


def executor() -> Samples:
    """The same with a process pool executor of two."""
    yield "import", fresh_import("concurrent.futures.process")
    begun = perf_counter()
    workers = ProcessPoolExecutor(2)
    assert workers.submit(one).result() == 1
    yield "first_result", perf_counter() - begun
    yield "shutdown", seconds(workers.shutdown)


FIGURE = Figure(
    name="startup",
    title="Starting and stopping a runtime of two workers",
    metrics=(
        Metric("import", "s", "lower", "the import statement in a fresh interpreter"),
        Metric(
            "first_result", "s", "lower", "from init() to the first task's result", (Target(0.3),)
        ),
        Metric("shutdown", "s", "lower", "the call that takes it down"),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor},
)
