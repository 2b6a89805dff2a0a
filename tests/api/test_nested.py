"""Tasks that submit tasks and wait for them, on fewer CPUs than there are waiters."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

import freehold as fh
from freehold.ids import RunNames, TaskId

from .conftest import until

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def echo(x: Any) -> Any:
    return x


@fh.remote
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@fh.remote
def depth(n: int) -> int:
    return 0 if n == 0 else 1 + fh.get(depth.remote(n - 1))


@fh.remote
def fib(n: int) -> int:
    return n if n < 2 else sum(fh.get([fib.remote(n - 1), fib.remote(n - 2)]))


def test_recursion_eight_deep() -> None:
    """Goal: blocked parents do not hold the CPUs their children need. Method: a chain of gets
    longer than the number of CPUs, alone and four at once."""
    assert fh.get(depth.remote(8), timeout=60) == 8
    assert fh.get([depth.remote(8) for _ in range(4)], timeout=60) == [8] * 4


def test_recursion_that_branches() -> None:
    """Goal: a tree of tasks ends. Method: Fibonacci, 67 tasks on two CPUs."""
    assert fh.get(fib.remote(8), timeout=60) == 21


def test_a_hundred_parents_of_ten() -> None:
    """Goal: 100 tasks that each wait for 10 end, and right. Method: their sums."""

    @fh.remote
    def parent(i: int) -> int:
        return sum(fh.get([echo.remote(10 * i + k) for k in range(10)]))

    sums = fh.get([parent.remote(i) for i in range(100)], timeout=100)
    assert sum(sums) == sum(range(1000))


def test_children_that_outlive_their_parent() -> None:
    """Goal: a parent may return before its children end. Method: it returns their refs."""

    @fh.remote
    def parent() -> list[Any]:
        return [echo.remote(i) for i in range(20)]

    assert fh.get(fh.get(parent.remote()), timeout=30) == list(range(20))


def test_a_blocked_get_lends_its_cpu() -> None:
    """Goal: while a parent waits its CPU is used. Method: two parents on two CPUs, each waiting
    for two sleepers; then everything comes back as free."""

    @fh.remote
    def parent() -> None:
        fh.get([sleep.remote(0.2) for _ in range(2)])

    start = time.monotonic()
    fh.get([parent.remote() for _ in range(2)], timeout=30)
    assert time.monotonic() - start < 5
    assert until(lambda: fh.available_resources().get("CPU") == 2.0)


def test_a_task_waits_for_what_lies_behind_it_in_its_own_queue() -> None:
    """Goal: no deadlock when a task waits for one that was batched onto the same worker after it.
    Method: measured-as-quick tasks are sent by the hundred; one of them gets the later ones
    through refs inside a list."""

    @fh.remote
    def maybe_wait(box: list[Any]) -> int:
        return sum(fh.get(box)) if box else 1

    fh.get([maybe_wait.remote([]) for _ in range(200)])
    for _ in range(5):
        late: list[Any] = []
        first = []
        chain: list[Any] = []
        for i in range(100):
            ref = maybe_wait.remote(chain[-1:] if i % 3 == 0 else [])
            chain.append(ref)
            (late if i % 2 else first).append(ref)
        assert fh.get(maybe_wait.remote(late), timeout=30) >= 50
        assert len(fh.get(first, timeout=30)) == 50


def test_two_levels_of_fan_out_with_values_between() -> None:
    """Goal: refs made by a child are used by its siblings. Method: a two-stage map in a task."""

    @fh.remote
    def stage(n: int) -> int:
        first = [echo.remote(i) for i in range(n)]
        second = [echo.remote(ref) for ref in first]
        return sum(fh.get(second))

    assert fh.get([stage.remote(30) for _ in range(5)], timeout=60) == [435] * 5


def test_threads_of_one_task_make_the_same_call() -> None:
    """Goal: equal calls from several threads of a task are several tasks. Method: 8 threads submit
    the same 100 times each; ids are all different, and each call runs."""

    @fh.remote
    def parent() -> tuple[int, int]:
        import concurrent.futures

        def work(_: int) -> list[Any]:
            return [echo.remote(7) for _ in range(100)] + [fh.put(7) for _ in range(100)]

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            refs = [ref for made in pool.map(work, range(8)) for ref in made]
        return len(set(refs)), sum(fh.get(refs))

    assert fh.get(parent.remote(), timeout=60) == (1600, 7 * 1600)


def test_ids_of_equal_calls_differ_however_threads_switch() -> None:
    """Goal: the count behind a task's id is safe between threads. Method: the counter alone, four
    threads, the interpreter switching as often as it can; 12,000 ids are 12,000."""
    names = RunNames(bytes(8), TaskId(bytes(16)))
    ids: list[TaskId] = []

    def count() -> None:
        ids.extend([names.next_task(b"f", b"(7,)") for _ in range(3000)])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert len(set(ids)) == len(ids) == 12_000
