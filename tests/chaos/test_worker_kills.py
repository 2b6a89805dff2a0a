"""Workers are killed at random while thousands of tasks run; every value must be right."""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import freehold as fh


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    """Two CPUs, for one test."""
    fh.init(num_cpus=2, log_to_driver=False)
    yield
    fh.shutdown()


class Killer:
    """SIGKILL to a random worker every ``every`` seconds, until it leaves the block."""

    def __init__(self, every: float, seed: int) -> None:
        self.every = every
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.kills = 0
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.stop.wait(self.every):
            workers = [p for p in psutil.Process().children(recursive=True) if is_worker(p)]
            if workers:
                os.kill(self.random.choice(workers).pid, signal.SIGKILL)
                self.kills += 1

    def __enter__(self) -> Killer:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()


def is_worker(process: psutil.Process) -> bool:
    try:
        return "worker" in process.name() or "worker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


@fh.remote(max_retries=-1)
def scaled(i: int, array: Any) -> Any:
    time.sleep(0.002)
    return array * i if i % 10 == 0 else int(array[i % array.size]) * i


@fh.remote(max_retries=-1)
def plus(value: Any, i: int) -> Any:
    return value + i


@fh.remote(max_retries=-1)
def parent(i: int) -> int:
    return sum(fh.get([plus.remote(i, k) for k in range(5)]))


@pytest.mark.timeout(110)
def test_five_thousand_tasks_under_fire() -> None:
    """Goal: deaths are invisible to who allows retries. Method: 2,500 tasks with a shared large
    argument, each followed by a dependant, while a worker dies every half second."""
    array = fh.put(np.arange(20_000))
    with Killer(0.5, seed=1) as killer:
        refs = [plus.remote(scaled.remote(i, array), i) for i in range(2500)]
        for i, ref in enumerate(refs):
            got = fh.get(ref, timeout=90)
            if i % 10 == 0:
                assert np.array_equal(got, np.arange(20_000) * i + i)
            else:
                assert got == (i % 20_000) * i + i
    assert killer.kills >= 3


@pytest.mark.timeout(110)
def test_parents_and_children_under_fire() -> None:
    """Goal: the same when tasks own tasks: an owner may die while its children run. Method: 300
    parents of five, a death every 0.3 s."""
    with Killer(0.3, seed=2) as killer:
        while killer.kills < 5:
            refs = [parent.remote(i) for i in range(60)]
            assert fh.get(refs, timeout=60) == [5 * i + 10 for i in range(60)]
    gc.collect()
    assert killer.kills >= 5
