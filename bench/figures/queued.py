"""A queue on one node: no-op tasks submitted behind two that block the workers, 10,000 here, a
million in ``queued_million``.

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


def figure(name: str, tasks: int, limit: float, *, main: bool) -> Figure:
    """A queue of so many ``tasks``; ``limit`` is the seconds that an engine may take."""

    def shared(engine_name: str) -> Samples:
        with cluster(engine_name) as engine:
            made = {function: engine.remote(function) for function in (hold, nothing)}
            engine.get(made[nothing].remote())
            yield from queue(
                tasks, lambda function, *arguments: made[function].remote(*arguments), engine.get
            )

    def pool() -> Samples:
        with Pool(WORKERS) as workers:
            yield from queue(
                tasks,
                lambda function, *arguments: workers.apply_async(function, arguments),
                lambda handles: [handle.get() for handle in handles],
            )

    def executor() -> Samples:
        with ProcessPoolExecutor(WORKERS) as workers:
            yield from queue(
                tasks, workers.submit, lambda handles: [handle.result() for handle in handles]
            )

    rate = "tasks a second, submission and drain"
    return Figure(
        name=name,
        title=f"A queue: {tasks:,} no-op tasks behind busy workers",
        metrics=(
            Metric("rate", "/s", "higher", rate, (Target(10, "ray"),)),
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
        limit=limit,
        main=main,
    )


FIGURE = figure("queued", 10_000, 300.0, main=True)
