"""wait: ready and rest, order, bounds, time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import freehold as fh

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def after(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


@fh.remote
def fail() -> None:
    raise ValueError("on purpose")


def test_the_finished_one_is_ready() -> None:
    """Goal: one of two. Method: the second finishes first."""
    slow, fast = after.remote(30), after.remote(0)
    ready, rest = fh.wait([slow, fast])
    assert (ready, rest) == ([fast], [slow])
    fh.cancel(slow)


def test_never_more_than_asked_for() -> None:
    """Goal: len(ready) <= num_returns even if more are there. Method: all are ready; order of both
    lists is that of the input."""
    refs = [fh.put(i) for i in range(10)]
    ready, rest = fh.wait(refs, num_returns=3)
    assert (ready, rest) == (refs[:3], refs[3:])
    ready, rest = fh.wait(refs, num_returns=10)
    assert (ready, rest) == (refs, [])


def test_order_of_the_input_is_kept() -> None:
    """Goal: ready follows the list, not the clock. Method: the last finishes first."""
    refs = [after.remote(0.4), after.remote(0.05)]
    ready, rest = fh.wait(refs, num_returns=2, timeout=30)
    assert (ready, rest) == (refs, [])


def test_a_timeout_returns_what_there_is() -> None:
    """Goal: no error, fewer ready. Method: one ready, one asleep; timeout 0 and 0.2."""
    slow, there = after.remote(30), fh.put(1)
    for timeout in (0, 0.2):
        start = time.monotonic()
        assert fh.wait([slow, there], num_returns=2, timeout=timeout) == ([there], [slow])
        assert timeout <= time.monotonic() - start < timeout + 2
    fh.cancel(slow)


def test_failed_tasks_are_ready() -> None:
    """Goal: wait does not raise; get does. Method: a failing task."""
    ref = fail.remote()
    assert fh.wait([ref], timeout=30) == ([ref], [])
    with pytest.raises(ValueError, match="on purpose"):
        fh.get(ref)


def test_as_completed_by_waiting_in_a_loop() -> None:
    """Goal: the usual loop ends and sees each result once. Method: 300 tasks."""
    pending = [after.remote(0, i) for i in range(300)]
    seen = []
    while pending:
        ready, pending = fh.wait(pending)
        seen += fh.get(ready)
    assert sorted(seen) == list(range(300))


@pytest.mark.parametrize("fetch_local", [True, False])
def test_large_values_with_and_without_fetching(fetch_local: bool) -> None:
    """Goal: both modes know a large result of this machine. Method: store-sized results."""
    refs = [after.remote(0, np.ones(50_000)) for _ in range(3)]
    ready, rest = fh.wait(refs, num_returns=3, timeout=30, fetch_local=fetch_local)
    assert (ready, rest) == (refs, [])
    assert [float(array.sum()) for array in fh.get(ready)] == [50_000.0] * 3


def test_a_ready_large_value_is_ready_at_timeout_zero() -> None:
    """Goal: what lies in this machine's store is ready. Method: look with timeout=0."""
    ref = fh.put(np.ones(100_000))
    assert fh.wait([ref], timeout=0, fetch_local=False) == ([ref], [])
    assert fh.wait([ref], timeout=0) == ([ref], [])


def test_an_empty_list() -> None:
    """Goal: nothing to wait for. Method: two empty lists come back."""
    assert fh.wait([]) == ([], [])


@pytest.mark.parametrize(
    ("refs", "options", "error", "words"),
    [
        ("one", {}, TypeError, "list of ObjectRefs, not one"),
        ("none", {}, TypeError, "list"),
        ("mixed", {}, TypeError, "item 1"),
        ("twice", {}, ValueError, "duplicates"),
        ("two", {"num_returns": 0}, ValueError, "num_returns"),
        ("two", {"num_returns": 3}, ValueError, "num_returns.*2"),
        ("two", {"num_returns": 1.0}, TypeError, "num_returns"),
        ("two", {"num_returns": True}, TypeError, "num_returns"),
        ("two", {"timeout": -1}, ValueError, "timeout"),
        ("two", {"timeout": "1"}, TypeError, "timeout"),
    ],
)
def test_wrong_calls(
    refs: str, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """Goal: each wrong call is refused in words. Method: one line each."""
    a, b = fh.put(1), fh.put(2)
    given: Any = {"one": a, "none": None, "mixed": [a, 5], "twice": [a, b, a], "two": [a, b]}[refs]
    with pytest.raises(error, match=words):
        fh.wait(given, **options)


def test_waiting_inside_a_task_lends_its_cpu() -> None:
    """Goal: wait blocks as get does, without holding the CPU. Method: more waiters than CPUs."""

    @fh.remote
    def parent(i: int) -> int:
        child = after.remote(0.01, i)
        ready, _ = fh.wait([child])
        return int(fh.get(ready[0]))

    assert fh.get([parent.remote(i) for i in range(6)], timeout=60) == list(range(6))
