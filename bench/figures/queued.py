"""A queue on one node: 10,000 no-op tasks submitted behind two that block the workers.

Memory is weighed while all are pending. The clock counts the submissions, and then from the release
of the workers to the last result; the weighing is not in it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from bench.clock import seconds
from bench.engines import cluster
from bench.figure import Figure, Metric, Samples, Target

TASKS = 10_000
WORKERS = 2


def nothing() -> None:
    """The task."""


def hold(path: str) -> None:
    """The task that occupies a worker until there is a file at `path`."""
    while not Path(path).exists():
        time.sleep(0.01)


@contextmanager
def gate() -> Iterator[Path]:
    """Where the file is to appear."""
    with TemporaryDirectory(prefix="queued-") as folder:
        yield Path(folder, "open")


def queue(
    count: int, submit: Callable[..., Any], fetch: Callable[[list[Any]], list[Any]]
) -> Samples:
    """Submit `count` tasks, weigh, release, fetch.

    Args:
        count: How many.
        submit: Submits a function with arguments and returns a handle of the result.
        fetch: Returns the results of handles.
    """
    with gate() as path:
        try:
            blockers = [submit(hold, str(path)) for _ in range(WORKERS)]
            time.sleep(0.5)
            before = private()
            handles: list[Any] = []
            submission = seconds(lambda: handles.extend(submit(nothing) for _ in range(count)))
            yield "bytes_per_task", (private() - before) / count
        finally:
            path.touch()  # or the workers would outlive a failure
        answers: list[Any] = []
        drain = seconds(lambda: answers.extend(fetch(blockers + handles)))
        assert answers == [None] * (WORKERS + count)
        yield "submit", count / submission
        yield "rate", count / (submission + drain)


def private() -> int:
    """Private memory of this process, garbage collected."""
    gc.collect()
    return int(psutil.Process().memory_full_info().uss)


def shared(name: str) -> Samples:
    """remote and get."""
    with cluster(name) as engine:
        tasks = {function: engine.remote(function) for function in (hold, nothing)}
        engine.get(tasks[nothing].remote())
        yield from queue(
            TASKS, lambda function, *arguments: tasks[function].remote(*arguments), engine.get
        )


def pool() -> Samples:
    """apply_async."""
    with Pool(WORKERS) as workers:
        yield from queue(
            TASKS,
            lambda function, *arguments: workers.apply_async(function, arguments),
            lambda handles: [handle.get() for handle in handles],
        )


def executor() -> Samples:
    """submit."""
    with ProcessPoolExecutor(WORKERS) as workers:
        yield from queue(
            TASKS, workers.submit, lambda handles: [handle.result() for handle in handles]
        )


FIGURE = Figure(
    name="queued",
    title="A queue: 10,000 no-op tasks behind busy workers",
    metrics=(
        Metric(
            "rate", "/s", "higher", "tasks a second, submission and drain", (Target(10, "ray"),)
        ),
        Metric("submit", "/s", "higher", "submissions a second"),
        Metric(
            "bytes_per_task",
            "B",
            "lower",
            "private memory of the program for each pending task",
            (Target(1500.0),),
        ),
    ),
    shared=shared,
    own={"pool": pool, "executor": executor},
    limit=300.0,
    main=True,
)
