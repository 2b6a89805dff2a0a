"""Time: ``timeout=`` of tasks, and the pauses before retries."""

from __future__ import annotations

import ctypes
import itertools
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from freehold.core.cancelling import GRACE
from freehold.errors import TaskTimeoutError

from .conftest import until

pytestmark = pytest.mark.usefixtures("two_cpus")

#: What the machine may add to a promised time: it is shared.
SLACK = 2.0


def mark(path: str) -> int:
    """Note one more attempt and its moment; say how many there are."""
    with Path(path).open("a") as file:
        file.write(f"{time.monotonic()}\n")
    return len(moments(path))


def moments(path: Path | str) -> list[float]:
    return [float(line) for line in Path(path).read_text().splitlines()]


@fh.remote(timeout=0.3)
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def seconds_until_timed_out(ref: Any) -> float:
    start = time.monotonic()
    with pytest.raises(TaskTimeoutError):
        fh.get(ref, timeout=30)
    return time.monotonic() - start


def test_a_task_that_takes_too_long() -> None:
    """Goal: it ends when its time is over, as a TimeoutError that says whose, how long and where it
    was; one that is quick has its value; the worker lives on."""
    assert fh.get(sleep.remote(0.01)) == "slept"
    assert 0.2 < seconds_until_timed_out(sleep.remote(1000)) < 0.3 + SLACK
    with pytest.raises(TimeoutError) as caught:
        fh.get(sleep.remote(1000))
    assert str(caught.value).startswith("sleep() ran for longer than its timeout of 0.3 s, and was")
    assert "test_timeouts.py, in sleep()" in str(caught.value)
    assert fh.get(sleep.options(timeout=float("inf")).remote(0.5)) == "slept"


def test_native_code_is_killed_a_grace_later(tmp_path: Path) -> None:
    """Goal: what does not hear ends too, without a retry that was not asked for. Method: code that
    holds the interpreter; ``max_retries`` is for deaths."""

    @fh.remote(timeout=0.5, max_retries=3)
    def hold(path: str) -> None:
        mark(path)
        ctypes.PyDLL(None).sleep(1000)

    ref = hold.remote(str(tmp_path / "marks"))
    assert 0.4 + GRACE < seconds_until_timed_out(ref) < 0.5 + GRACE + SLACK
    assert len(moments(tmp_path / "marks")) == 1


def test_only_user_code_counts() -> None:
    """Goal: neither the queue nor a slow argument uses the time up. Method: both CPUs are held for
    longer than the timeout, and the argument takes as long."""

    @fh.remote(timeout=0.4)
    def quick(x: Any) -> Any:
        return x

    @fh.remote
    def slow() -> int:
        time.sleep(0.6)
        return 7

    holders = [slow.remote() for _ in range(2)]
    assert fh.get(quick.remote(slow.remote()), timeout=20) == 7
    assert fh.get(holders) == [7, 7]


@pytest.mark.parametrize("native", [False, True])
def test_retried_where_it_is_wanted(tmp_path: Path, native: bool) -> None:
    """Goal: ``retry_exceptions`` with the error's type retries, within ``max_retries``, also when
    the worker had to be killed. Method: the second attempt is quick; one that never is fails."""

    @fh.remote(timeout=0.5, max_retries=2, retry_exceptions=[TaskTimeoutError])
    def slow(path: str, good: int) -> int:
        attempt = mark(path)
        if attempt < good:
            (ctypes.PyDLL(None).sleep if native else time.sleep)(1000)
        return attempt

    assert fh.get(slow.remote(str(tmp_path / "a"), 2), timeout=30) == 2
    with pytest.raises(TaskTimeoutError):
        fh.get(slow.remote(str(tmp_path / "b"), 9), timeout=30)
    assert len(moments(tmp_path / "b")) == 3


def test_other_exceptions_do_not_retry_timeouts(tmp_path: Path) -> None:
    """Goal: a list without the type means no retry."""

    @fh.remote(timeout=0.5, max_retries=3, retry_exceptions=[KeyError])
    def slow(path: str) -> None:
        mark(path)
        time.sleep(1000)

    seconds_until_timed_out(slow.remote(str(tmp_path / "a")))
    assert len(moments(tmp_path / "a")) == 1


def test_children_end_with_it(tmp_path: Path) -> None:
    """Goal: what a timed-out task has submitted does not run on. Method: a child marks its end."""

    @fh.remote
    def child(path: str) -> None:
        mark(path)
        try:
            time.sleep(1000)
        finally:
            mark(path)

    @fh.remote(timeout=0.5)
    def parent(path: str) -> None:
        fh.get(child.remote(path))

    ref = parent.remote(str(tmp_path / "marks"))
    seconds_until_timed_out(ref)
    assert until(lambda: len(moments(tmp_path / "marks")) == 2)


def test_pauses_before_retries(tmp_path: Path) -> None:
    """Goal: a wanted exception and a worker's death wait alike, each time longer by the factor."""

    @fh.remote(max_retries=3, retry_exceptions=True, retry_delay=0.2, retry_backoff=2)
    def failing(path: str, how: str) -> None:
        mark(path)
        if how == "dies":
            import os

            os._exit(1)
        raise ValueError(how)

    for how, error in (("raises", ValueError), ("dies", fh.errors.WorkerDiedError)):
        path = tmp_path / how
        with pytest.raises(error):
            fh.get(failing.remote(str(path), how), timeout=30)
        at = moments(path)
        pauses = [after - before for before, after in itertools.pairwise(at)]
        assert len(pauses) == 3
        for pause, promised in zip(pauses, (0.2, 0.4, 0.8)):
            assert promised - 0.01 < pause < promised + SLACK


def test_cancelled_in_its_pause(tmp_path: Path) -> None:
    """Goal: at once, and it never runs again; ``explain`` says what it waits for."""

    @fh.remote(retry_exceptions=True, retry_delay=60)
    def failing(path: str) -> None:
        mark(path)
        raise ValueError

    ref = failing.remote(str(tmp_path / "marks"))
    assert until(lambda: "tried again in" in fh.explain(ref))
    start = time.monotonic()
    fh.cancel(ref)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(ref, timeout=20)
    assert time.monotonic() - start < SLACK
    assert len(moments(tmp_path / "marks")) == 1


@pytest.mark.parametrize(
    ("option", "wrong"),
    [
        ("timeout", 0),
        ("timeout", -1.0),
        ("timeout", "1"),
        ("timeout", True),
        ("timeout", float("nan")),
        ("retry_delay", -1),
        ("retry_delay", 1e9),
        ("retry_backoff", 0.5),
        ("retry_backoff", "2"),
        ("retry_jitter", 2),
        ("retry_jitter", -0.1),
    ],
)
def test_wrong_options(option: str, wrong: Any) -> None:
    """Goal: refused where they are written, with the option's name and its range."""
    with pytest.raises((TypeError, ValueError), match=f"{option} must be .*>= "):
        sleep.options(**{option: wrong})
