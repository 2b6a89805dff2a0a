"""get: order, errors, timeouts, threads, coroutines and futures."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
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
def echo(x: Any) -> Any:
    return x


@fh.remote
def fail(message: str) -> None:
    raise ValueError(message)


def test_a_list_comes_back_in_order() -> None:
    """Goal: order is the list's, not that of finishing. Method: the first is the slowest; the same
    ref appears twice."""
    slow, fast = after.remote(0.2, "slow"), after.remote(0, "fast")
    assert fh.get([slow, fast, slow]) == ["slow", "fast", "slow"]
    assert fh.get([]) == []


def test_the_first_error_raises_at_once() -> None:
    """Goal: no waiting for the rest. Method: a failure beside a task of 30 seconds."""
    never, bad = after.remote(30), fail.remote("now")
    start = time.monotonic()
    with pytest.raises(ValueError, match="now"):
        fh.get([never, bad])
    assert time.monotonic() - start < 5
    fh.cancel(never)


def test_an_error_that_is_there_already_is_the_lists_first() -> None:
    """Goal: of several known errors the first in the list is raised. Method: both are ready."""
    refs = [fail.remote("one"), fail.remote("two")]
    fh.wait(refs, num_returns=2)
    with pytest.raises(ValueError, match="one"):
        fh.get(refs)


def test_an_error_can_be_got_again_and_again() -> None:
    """Goal: errors are values. Method: three gets raise three equal, separate errors."""
    ref = fail.remote("again")
    caught = []
    for _ in range(3):
        with pytest.raises(ValueError, match="again") as error:
            fh.get(ref)
        caught.append(error.value)
    assert len({id(error) for error in caught}) == 3


@pytest.mark.parametrize(
    "wrong", [(1,), {"a": 1}, 5, None, "ref", [5], [None], [[]], range(3)], ids=repr
)
def test_only_references_and_lists_of_them(wrong: Any) -> None:
    """Goal: TypeError naming what was given. Method: tuples, dicts, values, nested lists."""
    with pytest.raises(TypeError, match=r"get\(\) takes"):
        fh.get(wrong)


@pytest.mark.parametrize(
    ("timeout", "error"),
    [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)],
)
def test_bad_timeouts(timeout: Any, error: type[Exception]) -> None:
    """Goal: a wrong timeout is refused by name. Method: negative, not a number, not numeric."""
    with pytest.raises(error, match="timeout"):
        fh.get(fh.put(1), timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e10, 2**70, np.float64(30)], ids=repr)
def test_very_long_timeouts(timeout: Any) -> None:
    """Goal: "as long as it takes" may be written as a number. Method: a task that takes a while,
    and wait with the same."""
    assert fh.get(after.remote(0.1, "x"), timeout=timeout) == "x"
    ref = after.remote(0.1)
    assert fh.wait([ref], timeout=timeout) == ([ref], [])


# -- time -----------------------------------------------------------------------------------------


def test_timeout_zero_only_looks() -> None:
    """Goal: 0 returns what is here and raises else. Method: ready small and large values, then a
    task that sleeps."""
    ready, array = fh.put(1), fh.put(np.ones(100_000))
    assert fh.get(ready, timeout=0) == 1
    sleeping = after.remote(30)
    start = time.monotonic()
    with pytest.raises(fh.errors.GetTimeoutError):
        fh.get(sleeping, timeout=0)
    assert time.monotonic() - start < 1
    fh.cancel(sleeping)
    assert fh.get(array, timeout=5).shape == (100_000,)


def test_timeout_zero_finds_a_large_value_that_is_here() -> None:
    """Goal: a value in this machine's own store counts as here. Method: get it with timeout=0."""
    array = fh.put(np.ones(100_000))
    assert fh.get(array, timeout=0).shape == (100_000,)


def test_the_timeout_is_kept_and_the_reference_stays_good() -> None:
    """Goal: GetTimeoutError in time, a TimeoutError, and a later get works. Method: measure."""
    ref = after.remote(1.0, "late")
    start = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        fh.get(ref, timeout=0.2)
    assert 0.2 <= time.monotonic() - start < 0.9
    assert isinstance(caught.value, fh.errors.GetTimeoutError)
    assert fh.get(ref, timeout=30) == "late"


def test_timeouts_nest() -> None:
    """Goal: a timeout inside a task is the task's own. Method: the inner get gives up, the outer
    one does not."""

    @fh.remote
    def impatient() -> str:
        inner = after.remote(30)
        try:
            fh.get(inner, timeout=0.1)
        except fh.errors.GetTimeoutError:
            fh.cancel(inner)
            return "gave up"
        return "got it"

    assert fh.get(impatient.remote(), timeout=30) == "gave up"


def test_timeout_says_where_the_task_runs() -> None:
    """Goal: the error names the function and the worker it runs on. Method: read it."""
    ref = after.remote(30)
    time.sleep(0.5)
    with pytest.raises(fh.errors.GetTimeoutError, match=r"after\(\).*worker \d+ on node") as caught:
        fh.get(ref, timeout=0.3)
    assert caught.value.waiting
    fh.cancel(ref)


def test_timeout_says_what_a_queued_task_needs() -> None:
    """Goal: a queued task's error names the missing resource. Method: both CPUs taken for long,
    then a third task."""
    holders = [after.remote(30) for _ in range(2)]
    time.sleep(0.5)
    with pytest.raises(fh.errors.GetTimeoutError, match=r"(?s)queued.*CPU") as caught:
        fh.get(echo.remote(1), timeout=2)
    assert "free" in str(caught.value)
    for holder in holders:
        fh.cancel(holder)


def test_timeout_says_which_argument_a_task_waits_for() -> None:
    """Goal: the chain is followed to its end. Method: a task on a task on a sleeper."""
    sleeper = after.remote(30)
    with pytest.raises(fh.errors.GetTimeoutError) as caught:
        fh.get(echo.remote(echo.remote(sleeper)), timeout=0.5)
    text = str(caught.value)
    assert text.count("echo()") == 2
    assert "argument" in text
    assert "after()" in text
    fh.cancel(sleeper)


# -- many, and from many ----------------------------------------------------------------------


def test_ten_thousand_values() -> None:
    """Goal: a long list is no special case. Method: 10,000 puts and 10,000 results."""
    assert fh.get([fh.put(i) for i in range(10_000)]) == list(range(10_000))
    assert fh.get([echo.remote(i) for i in range(10_000)]) == list(range(10_000))


def test_eight_threads_at_once() -> None:
    """Goal: any thread may submit, put and get. Method: 8 threads x 200 rounds, sums compared."""
    sums = [0] * 8
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for i in range(200):
                sums[index] += fh.get(echo.remote(fh.put(i)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert sums == [19_900] * 8


def test_threads_wait_for_the_same_value() -> None:
    """Goal: one value wakes all who wait for it. Method: 16 threads get one slow, large result."""
    ref = after.remote(0.3, np.ones(50_000))
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        arrays = list(pool.map(lambda _: fh.get(ref), range(16)))
    assert [float(array.sum()) for array in arrays] == [50_000.0] * 16


def test_threads_inside_a_task() -> None:
    """Goal: user threads in a worker may use the API as well. Method: 4 threads submit and get."""

    @fh.remote
    def parallel() -> int:
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            return sum(pool.map(lambda i: fh.get(echo.remote(i)), range(40)))

    assert fh.get(parallel.remote(), timeout=60) == 780


# -- coroutines and futures -----------------------------------------------------------------------


def test_await() -> None:
    """Goal: ``await ref`` is get. Method: a value, a large value and an error in one program."""

    async def program() -> tuple[Any, Any]:
        with pytest.raises(ValueError, match="awaited"):
            await fail.remote("awaited")
        return await echo.remote(5), await fh.put(np.ones(100_000))

    five, array = asyncio.run(program())
    assert five == 5
    assert array.shape == (100_000,)


def test_gather_of_a_thousand() -> None:
    """Goal: a thousand awaits at once. Method: asyncio.gather, results in order."""

    async def program() -> list[int]:
        return list(await asyncio.gather(*[echo.remote(i) for i in range(1000)]))

    assert asyncio.run(program()) == list(range(1000))


def test_the_event_loop_goes_on_meanwhile() -> None:
    """Goal: awaiting does not block the loop. Method: count ticks while a task sleeps."""

    async def program() -> int:
        ticks = 0
        task = asyncio.ensure_future(_await(after.remote(0.5)))
        while not task.done():
            await asyncio.sleep(0.01)
            ticks += 1
        return ticks

    assert asyncio.run(program()) > 15


async def _await(ref: Any) -> Any:
    return await ref


def test_wait_for_and_a_cancelled_await() -> None:
    """Goal: asyncio's own timeout works and leaves the ref good. Method: wait_for, then await."""

    async def program() -> Any:
        ref = after.remote(0.5, "still")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_await(ref), 0.05)
        return await ref

    assert asyncio.run(program()) == "still"


def test_a_loop_that_ends_before_its_refs() -> None:
    """Goal: a closed loop is no trouble for the reader. Method: abandon an await, work on."""

    async def program() -> None:
        task = asyncio.ensure_future(_await(after.remote(0.2)))
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(program())
    time.sleep(0.3)
    assert fh.get(echo.remote(1)) == 1


def test_future() -> None:
    """Goal: ``ref.future()`` is a concurrent.futures.Future. Method: results, an error, waits."""
    futures = [echo.remote(i).future() for i in range(20)]
    assert [future.result(30) for future in futures] == list(range(20))
    bad = fail.remote("in a future").future()
    assert isinstance(bad.exception(30), ValueError)
    done, _ = concurrent.futures.wait([after.remote(0.1).future()], timeout=30)
    assert len(done) == 1


@pytest.mark.parametrize("size", [10, 1_000_000])
def test_writable_arrays_are_private(size: int) -> None:
    """Goal: ``writable=True`` gives arrays of one's own. Method: change one, inline and stored;
    the next get sees the value as it was put."""
    ref = fh.put(np.zeros(size))
    mine = fh.get(ref, writable=True)
    mine[:] = 1
    assert mine.sum() == size
    assert fh.get(ref).sum() == 0
    assert not fh.get(ref).flags.writeable


def test_a_reference_that_is_read_begins_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a get or cancel that meets a shutdown in another thread starts no new cluster. Method:
    asking for the session is forbidden while references are read."""
    ref = echo.remote(1)

    def begun() -> None:
        raise AssertionError("a session was asked for")

    monkeypatch.setattr("freehold.api.session.connected", begun)
    assert fh.get(ref) == 1
    assert fh.get([ref, ref]) == [1, 1]
    assert fh.explain(ref)
    fh.cancel(ref)
