"""Startup: import, start to the first task's result, and stop.

The import is timed in an interpreter of its own, since this one has imported half the standard
library already.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import Pool
from time import perf_counter
from typing import Any

from bench.clock import seconds
from bench.engines import dask_client, load, start
from bench.figure import Figure, Metric, Samples, Target
from bench.remotes import one

IMPORT = "from time import perf_counter as now; t = now(); import {}; print(now() - t)"


def fresh_import(module: str) -> float:
    """Seconds that `import module` takes in a fresh interpreter, whose own start is not counted."""
    command = [sys.executable, "-c", IMPORT.format(module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def timed(
    begin: Callable[[], Any], first: Callable[[Any], int]
) -> Generator[tuple[str, float], None, Any]:
    """Start something, have it run the first task, and return what was started."""
    begun = perf_counter()
    started = begin()
    up = perf_counter()
    yield "init", up - begun
    assert first(started) == 1
    done = perf_counter()
    yield "first_task", done - up
    yield "first_result", done - begun
    return started


def shared(name: str) -> Samples:
    """Import, init, run one task, shut down."""
    yield "import", fresh_import(name)
    engine = load(name)
    yield from timed(lambda: start(engine), lambda _: engine.get(engine.remote(one).remote()))
    yield "shutdown", seconds(engine.shutdown)


def dask() -> Samples:
    """The same with a local cluster of two worker processes."""
    yield "import", fresh_import("distributed")
    load("distributed")
    context = dask_client()
    yield from timed(context.__enter__, lambda client: client.submit(one, pure=False).result())
    yield "shutdown", seconds(lambda: context.__exit__(None, None, None))


def pool() -> Samples:
    """The same with a pool of two processes."""
    yield "import", fresh_import("multiprocessing.pool")
    workers = yield from timed(lambda: Pool(2), lambda workers: workers.apply(one))
    begun = perf_counter()
    workers.close()
    workers.join()
    yield "shutdown", perf_counter() - begun


def executor() -> Samples:
    """The same with a process pool executor of two, which forks at the first submission."""
    yield "import", fresh_import("concurrent.futures.process")
    workers = yield from timed(
        lambda: ProcessPoolExecutor(2), lambda workers: workers.submit(one).result()
    )
    yield "shutdown", seconds(workers.shutdown)


def floor() -> Samples:
    """A bare interpreter: what any start of a fresh process costs at least."""
    yield "init", seconds(lambda: subprocess.run([sys.executable, "-c", ""], check=True))


FIGURE = Figure(
    name="startup",
    title="Starting and stopping a runtime of two workers",
    metrics=(
        Metric(
            "import",
            "s",
            "lower",
            "the import statement in a fresh interpreter",
            (Target(0.12),),
            spent_on="most of it in the standard library and msgspec, the rest in our files",
        ),
        Metric(
            "init",
            "s",
            "lower",
            "init(); floor: an interpreter that does nothing, start to end",
        ),
        Metric("first_task", "s", "lower", "submit + get of the first task"),
        Metric(
            "first_result",
            "s",
            "lower",
            "the two together",
            (Target(0.3),),
            spent_on="an interpreter and its imports, 0.15 s, from which head, node and workers "
            "are forked; then they find each other",
        ),
        Metric("shutdown", "s", "lower", "the call that takes it down", (Target(0.2),)),
    ),
    shared=shared,
    own={"dask": dask, "pool": pool, "executor": executor, "floor": floor},
    main=True,
)
