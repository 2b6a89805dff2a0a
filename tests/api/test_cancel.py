"""cancel: queued, waiting, running, blocked, finished; by force; with children."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.errors import TaskCancelledError

from .conftest import tables, until

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def sleep(seconds: float, path: str = "") -> str:
    if path:
        Path(path).touch()
    time.sleep(seconds)
    return "slept"


@fh.remote
def spin(path: str) -> None:
    Path(path).touch()
    while True:
        pass


@fh.remote
def echo(x: Any) -> Any:
    return x


@pytest.fixture(autouse=True)
def both_cpus_are_free_again() -> Iterator[None]:
    """After each test: two tasks run side by side within a few seconds, so nothing still runs."""
    yield
    assert fh.get([sleep.remote(0.05) for _ in range(2)], timeout=10) == ["slept"] * 2


def assert_cancelled(ref: Any, seconds: float = 3) -> None:
    start = time.monotonic()
    with pytest.raises(TaskCancelledError, match="cancelled"):
        fh.get(ref, timeout=20)
    assert time.monotonic() - start < seconds


def started(path: Path) -> bool:
    return bool(until(path.exists, 10))


def test_a_sleeping_task(tmp_path: Path) -> None:
    """Goal: time.sleep(1000) ends at once. Method: cancel when it is known to run."""
    ref = sleep.remote(1000, str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)


def test_a_busy_loop(tmp_path: Path) -> None:
    """Goal: pure Python that never calls anything ends too. Method: while True."""
    ref = spin.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)


def test_a_queued_task_never_runs(tmp_path: Path) -> None:
    """Goal: cancelled before its turn means never begun. Method: both CPUs held; then a file that
    must not appear."""
    holders = [sleep.remote(0.5) for _ in range(2)]
    queued = [sleep.remote(0, str(tmp_path / f"{i}")) for i in range(20)]
    for ref in queued:
        fh.cancel(ref)
    for ref in queued:
        assert_cancelled(ref)
    assert fh.get(holders) == ["slept"] * 2
    time.sleep(0.1)
    assert not list(tmp_path.iterdir())


def test_a_task_that_waits_for_its_argument() -> None:
    """Goal: a dependant can be cancelled alone. Method: its argument goes on."""
    argument = sleep.remote(0.5)
    waiting = echo.remote(argument)
    fh.cancel(waiting)
    assert_cancelled(waiting, 0.45)
    assert fh.get(argument) == "slept"


def test_dependants_of_a_cancelled_task_fail_alike() -> None:
    """Goal: the error passes on as any other. Method: cancel the argument."""
    argument = sleep.remote(1000)
    waiting = echo.remote(echo.remote(argument))
    fh.cancel(argument)
    assert_cancelled(waiting)


def test_a_finished_task_is_left_alone() -> None:
    """Goal: no effect, no error, also for put values. Method: value still there."""
    done, stored = echo.remote("done"), fh.put("put")
    assert fh.get(done) == "done"
    fh.cancel(done)
    fh.cancel(stored)
    assert fh.get([done, stored]) == ["done", "put"]


def test_twice_is_as_good_as_once(tmp_path: Path) -> None:
    """Goal: repeated cancels do no harm, nor hit the next task. Method: ten in a row."""
    ref = sleep.remote(1000, str(tmp_path / "s"))
    assert started(tmp_path / "s")
    for _ in range(10):
        fh.cancel(ref)
    assert fh.get([echo.remote(i) for i in range(100)], timeout=20) == list(range(100))
    assert_cancelled(ref)


def test_by_force(tmp_path: Path) -> None:
    """Goal: a task that will not hear is ended with its worker, and is still "cancelled". Method:
    one that swallows every exception."""

    @fh.remote
    def deaf(path: str) -> None:
        Path(path).touch()
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass

    ref = deaf.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref, force=True)
    assert_cancelled(ref, 5)


def test_a_cancelled_task_is_not_retried(tmp_path: Path) -> None:
    """Goal: retries are for accidents. Method: retry_exceptions=True and many retries; count."""

    @fh.remote(max_retries=10, retry_exceptions=True)
    def slow(path: str) -> None:
        with Path(path).open("ab") as file:
            file.write(b".")
        time.sleep(1000)

    ref = slow.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)
    time.sleep(0.2)
    assert (tmp_path / "s").read_bytes() == b"."


def test_children_are_cancelled_too(tmp_path: Path) -> None:
    """Goal: recursive reaches grandchildren. Method: a parent waits for a child that waits for a
    sleeper."""

    @fh.remote
    def child(path: str) -> Any:
        return fh.get(sleep.remote(1000, path))

    @fh.remote
    def parent(path: str) -> Any:
        return fh.get(child.remote(path))

    ref = parent.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)


def test_what_an_ended_child_has_left_is_cancelled_too(tmp_path: Path) -> None:
    """Goal: recursive reaches what a child has started that has ended itself. Method: it starts a
    task that says when it is told to end, and returns at once; then its parent is cancelled."""

    @fh.remote(num_cpus=0)
    def sleeper(path: str) -> None:
        Path(path).touch()
        try:
            time.sleep(1000)
        except TaskCancelledError:
            Path(path + ".told").touch()
            raise

    @fh.remote(num_cpus=0)
    def child(path: str) -> int:
        sleeper.remote(path)
        return 1

    @fh.remote
    def parent(path: str) -> None:
        fh.get(child.remote(path))
        time.sleep(1000)

    ref = parent.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)
    assert started(tmp_path / "s.told")


def test_children_are_spared_if_asked(tmp_path: Path) -> None:
    """Goal: recursive=False ends the parent alone. Method: the child's file appears later."""

    @fh.remote
    def child(path: str) -> None:
        time.sleep(0.5)
        Path(path).touch()

    @fh.remote
    def parent(path: str) -> Any:
        ref = child.remote(path + ".done")
        Path(path).touch()
        return fh.get(ref)

    ref = parent.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref, recursive=False)
    assert_cancelled(ref)
    assert started(tmp_path / "s.done")


def test_a_task_can_clean_up(tmp_path: Path) -> None:
    """Goal: finally blocks and context managers run. Method: a file written in ``finally``."""

    @fh.remote
    def tidy(path: str) -> None:
        try:
            Path(path).touch()
            time.sleep(1000)
        finally:
            Path(path + ".clean").touch()

    ref = tidy.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    assert_cancelled(ref)
    assert started(tmp_path / "s.clean")


def test_broad_except_clauses_do_not_swallow_it(tmp_path: Path) -> None:
    """Goal: ``except Exception: pass`` around work is common and must not make a task immortal.
    Method: a loop that goes on after every Exception."""

    @fh.remote
    def persistent(path: str) -> None:
        Path(path).touch()
        for _ in range(1000):
            try:
                time.sleep(10)
            except Exception:
                pass

    ref = persistent.remote(str(tmp_path / "s"))
    assert started(tmp_path / "s")
    fh.cancel(ref)
    try:
        assert_cancelled(ref)
    finally:
        fh.cancel(ref, force=True)


def test_cancel_from_inside_a_task() -> None:
    """Goal: a task may cancel what it submitted, and what it was given. Method: both."""

    @fh.remote
    def own() -> str:
        ref = sleep.remote(1000)
        fh.cancel(ref)
        try:
            fh.get(ref, timeout=10)
        except TaskCancelledError:
            return "cancelled"
        return "not"

    @fh.remote
    def given(box: list[Any]) -> None:
        fh.cancel(box[0])

    assert fh.get(own.remote(), timeout=20) == "cancelled"
    victim = sleep.remote(1000)
    try:
        fh.get(given.remote([victim]), timeout=20)
        assert_cancelled(victim)
    finally:
        fh.cancel(victim)


def test_cancel_while_the_task_gets_and_puts(tmp_path: Path) -> None:
    """Goal: an interruption inside Freehold's own code breaks nothing. Method: 60 tasks that do
    nothing but put, submit and get are cancelled at odd moments; then the worker still works and
    the tables come back."""

    @fh.remote
    def busy(path: str) -> None:
        Path(path).touch()
        while True:
            ref = fh.put(np.ones(30_000))
            assert fh.get(echo.remote(ref)).shape == (30_000,)
            assert fh.get(fh.put(5)) == 5

    fh.get([echo.remote(i) for i in range(50)])
    before = tables()
    for round_ in range(30):
        refs = [busy.remote(str(tmp_path / f"{round_}-{i}")) for i in range(2)]
        assert started(tmp_path / f"{round_}-0")
        time.sleep(0.002 * round_ % 0.017)
        for ref in refs:
            fh.cancel(ref)
        for ref in refs:
            assert_cancelled(ref, 10)
        assert fh.get([echo.remote(i) for i in range(10)], timeout=20) == list(range(10))
    del refs, ref
    until(lambda: tables()["owner objects"] <= before["owner objects"])
    assert tables()["owner objects"] <= before["owner objects"]


def test_a_storm_of_cancels() -> None:
    """Goal: each task ends as its value or as cancelled, whatever the moment. Method: 500 quick
    tasks cancelled while they run."""
    refs = [echo.remote(i) for i in range(500)]
    for ref in refs[::2]:
        fh.cancel(ref)
    for i, ref in enumerate(refs):
        try:
            assert fh.get(ref, timeout=20) == i
        except TaskCancelledError:
            assert i % 2 == 0


@pytest.mark.parametrize("option", ["force", "recursive"])
@pytest.mark.parametrize("wrong", [1, 0, None, "yes"])
def test_wrong_options(option: str, wrong: Any) -> None:
    """Goal: what a message cannot carry is refused here. Method: values that are nearly bool; the
    task goes on."""
    ref = sleep.remote(0.1)
    with pytest.raises(TypeError, match=option):
        fh.cancel(ref, **{option: wrong})
    assert fh.get(ref, timeout=20) == "slept"


@pytest.mark.parametrize("wrong", [None, 5, [], "ref"])
def test_wrong_calls(wrong: Any) -> None:
    """Goal: TypeError naming what was given. Method: values and a list."""
    with pytest.raises(TypeError, match=r"cancel\(\) takes an ObjectRef"):
        fh.cancel(wrong)
