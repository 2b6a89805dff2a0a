"""Workers that exit in good order hand over what they own."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh

LARGE = 200_000  # bytes: in the store


@pytest.fixture(autouse=True)
def session() -> Iterator[None]:
    fh.init(num_cpus=2)
    yield
    fh.shutdown()


def gone(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether all these processes end in time."""
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_a_worker_runs_as_many_tasks_as_it_may() -> None:
    """Goal: max_calls holds in a burst and one by one, and every task is answered. Method: 30 tasks
    at once, 10 in turn, at most 3 a process; each process ends."""

    @fh.remote(max_calls=3)
    def who() -> int:
        return os.getpid()

    calls = Counter(fh.get([who.remote() for _ in range(30)], timeout=60))
    calls.update(fh.get(who.remote(), timeout=60) for _ in range(10))
    assert calls.total() == 40
    assert max(calls.values()) == 3
    full = [pid for pid, count in calls.items() if count == 3]
    assert gone(full)


def test_max_calls_of_a_function_that_has_run() -> None:
    """Goal: ``options(max_calls=)`` holds for a function that has run without, and back. Method:
    one function that tells its process, three tasks each way, one by one."""

    @fh.remote
    def where() -> int:
        return os.getpid()

    def ran(function: Any) -> int:
        return len({fh.get(function.remote()) for _ in range(3)})

    assert ran(where) == 1
    assert ran(where.options(max_calls=1)) == 3
    assert ran(where) == 1


def test_no_limit_without_max_calls() -> None:
    """Goal: the default leaves workers alone: many tasks, two processes."""

    @fh.remote
    def who() -> int:
        return os.getpid()

    assert len(set(fh.get([who.remote() for _ in range(200)], timeout=60))) <= 2


@pytest.mark.parametrize("calls", [-1, 1.5, "2", True])
def test_bad_max_calls(calls: object) -> None:
    """Goal: the error names the option, where it is written."""
    with pytest.raises((TypeError, ValueError), match="max_calls"):
        fh.remote(max_calls=calls)


def test_values_outlive_the_process_that_owned_them() -> None:
    """Goal: results of children, small and stored puts of processes that have exited are read, and
    nothing runs again for it. Method: six processes of one call each; children count their runs in
    files; max_retries=0, so that a re-run would be an error."""

    @fh.remote(max_retries=0)
    def leaf(number: int, notes: str) -> np.ndarray:
        with Path(notes, str(number)).open("a") as note:
            note.write("run\n")
        return np.full(LARGE // 8, number)

    @fh.remote(max_calls=1, max_retries=0)
    def own(number: int, notes: str) -> tuple[int, list[fh.ObjectRef]]:
        made = [leaf.remote(number, notes), fh.put("x" * LARGE), fh.put(number)]
        fh.wait(made, num_returns=3)
        return os.getpid(), made

    import tempfile

    with tempfile.TemporaryDirectory() as notes:
        owned = fh.get([own.remote(number, notes) for number in range(6)], timeout=60)
        assert gone([pid for pid, _ in owned])
        for number, (_, (child, large, small)) in enumerate(owned):
            assert fh.get(child, timeout=10)[-1] == number
            assert len(fh.get(large, timeout=10)) == LARGE
            assert fh.get(small, timeout=10) == number
        for number in range(6):
            assert Path(notes, str(number)).read_text() == "run\n"


def test_a_worker_that_keeps_a_reference_stays() -> None:
    """Goal: a reference in a worker's own globals cannot be handed over: the process stays, takes
    no more tasks, and what it holds is still good."""

    @fh.remote(max_calls=1)
    def keep() -> tuple[int, list[fh.ObjectRef]]:
        import builtins

        builtins.kept = fh.put("kept")  # type: ignore[attr-defined]
        return os.getpid(), [builtins.kept]  # type: ignore[attr-defined]

    pid, (ref,) = fh.get(keep.remote(), timeout=60)
    assert not gone([pid], seconds=3.0)
    assert fh.get(ref, timeout=10) == "kept"
    other, _ = fh.get(keep.remote(), timeout=60)
    assert other != pid
