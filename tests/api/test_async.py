"""Futures in event loops: ``await``, ``wait_async``, ``as_completed``, coroutines as tasks."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from api.conftest import returns_to, tables, until
from freehold.runtime import current

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote
def echo(value: Any, seconds: float = 0.0) -> Any:
    time.sleep(seconds)
    return value


@fh.remote
def gate(path: Path) -> str:
    """Ends when the file is there."""
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return path.name


@pytest.fixture(autouse=True)
def _nothing_waits() -> Iterator[None]:
    """After each test no loop reads the transport, whatever became of it."""
    yield
    process = current.process()
    assert process is not None
    gc.collect()
    assert until(lambda: process.pump.loops == 0 or all(r.loop.is_closed() for r in readers()))


def readers() -> list[Any]:
    process = current.process()
    assert process is not None
    return list(process.readers.values())


# -- await ----------------------------------------------------------------------------------------


def test_ten_thousand_awaits() -> None:
    """Goal: many awaits at once cost neither threads nor more than linear time. Method: gather
    10,000 references; results in order, no thread more than before, within seconds; nothing stays.
    """
    fh.get(echo.remote(0))
    before, threads = tables(), threading.active_count()

    async def program() -> list[int]:
        refs = [echo.remote(i) for i in range(10_000)]
        gathered = asyncio.gather(*refs)
        await asyncio.sleep(0)
        assert threading.active_count() == threads
        return list(await gathered)

    began = time.monotonic()
    assert asyncio.run(program()) == list(range(10_000))
    assert time.monotonic() - began < 30
    assert returns_to(before, "owner objects") == {}


def test_one_reference_awaited_by_many() -> None:
    """Goal: a reference may be awaited any number of times, also after its value came. Method:
    three at once, then one more; a large value, and an error.
    """

    async def program() -> None:
        ref = echo.remote(np.arange(100_000), 0.05)
        values = await asyncio.gather(ref, ref, ref)
        assert [int(value.sum()) for value in (*values, await ref)] == [4_999_950_000] * 4
        with pytest.raises(ZeroDivisionError):
            await fh.remote(lambda: 1 / 0).remote()

    asyncio.run(program())


def test_cancelling_an_await_leaves_the_task(tmp_path: Path) -> None:
    """Goal: who stops waiting stops only that, and leaves nothing behind. Method: time out of an
    await and of an ``as_future``; the task ends as ever and its value is had; no waiter stays.
    """
    path = tmp_path / "done"

    async def program() -> str:
        ref = gate.remote(path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ref, 0.05)
        future = ref.as_future()
        await asyncio.sleep(0)
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        process = current.process()
        assert process is not None
        entry = process.role.ownership.entries[ref._ref.object]
        assert not entry.waiters
        path.touch()
        return await ref

    assert asyncio.run(program()) == "done"


def test_loops_and_threads_at_once() -> None:
    """Goal: several loops and threads may wait at the same time, each for its own. Method: two
    loops and two threads, 200 calls each one after the other, then 200 at once.
    """
    done: list[str] = []

    def loop() -> None:
        async def program() -> None:
            for i in range(200):
                assert await echo.remote(i) == i
            assert await asyncio.gather(*map(echo.remote, range(200))) == list(range(200))

        asyncio.run(program())
        done.append("loop")

    def thread() -> None:
        for i in range(200):
            assert fh.get(echo.remote(i)) == i
        assert fh.get([echo.remote(i) for i in range(200)]) == list(range(200))
        done.append("thread")

    threads = [threading.Thread(target=target) for target in (loop, loop, thread, thread)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(done) == ["loop", "loop", "thread", "thread"]


def test_a_loop_that_is_busy_does_not_stop_the_rest() -> None:
    """Goal: the process goes on while its loop computes. Method: a loop reads; then it is blocked,
    and a task that needs this process (it gets a reference owned here) ends meanwhile.
    """

    @fh.remote
    def nested(refs: list[fh.ObjectRef[int]]) -> int:
        return sum(fh.get(refs))

    async def program() -> None:
        await echo.remote(1)
        slow = nested.remote([echo.remote(i, 0.05) for i in range(3)])
        future = slow.future()
        deadline = time.monotonic() + 20
        while not future.done() and time.monotonic() < deadline:
            time.sleep(0.01)  # noqa: ASYNC251  # it is to block the loop
        assert future.done()
        assert await slow == 3

    asyncio.run(program())


def test_a_loop_that_was_closed_is_forgotten() -> None:
    """Goal: a loop closed in the middle of an await harms nobody. Method: close it, let the value
    come, collect the coroutine; the session works and nothing stays.
    """
    before = tables()
    loop = asyncio.new_event_loop()
    ref = echo.remote(1, 0.2)
    task = loop.create_task(asyncio.wait_for(ref, 60))
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    assert fh.get(ref) == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's word on it
    del task, ref
    gc.collect()
    assert fh.get(echo.remote(2)) == 2
    assert returns_to(before, "owner objects") == {}


def test_errors_have_names() -> None:
    """Goal: no loop, no session: said in words. Method: one of each."""
    ref = fh.put(1)
    with pytest.raises(fh.errors.NoEventLoopError, match="as_future"):
        ref.as_future()
    with pytest.raises(fh.errors.NoEventLoopError, match="await of an ObjectRef"):
        ref.__await__().send(None)
    for call in (fh.wait_async([ref]), anext(aiter(fh.as_completed([ref])))):
        with pytest.raises(fh.errors.NoEventLoopError):
            call.send(None)  # type: ignore[union-attr]


# -- wait and as_completed ------------------------------------------------------------------------


def test_wait_async(tmp_path: Path) -> None:
    """Goal: ``wait`` with an await in front. Method: one of two is ready, none in time, and both;
    wrong arguments as in ``wait``.
    """

    async def program() -> None:
        late, soon = gate.remote(tmp_path / "late"), echo.remote(1)
        assert await fh.wait_async([late, soon]) == ([soon], [late])
        assert await fh.wait_async([late], timeout=0.05) == ([], [late])
        assert await fh.wait_async([late, soon], timeout=0.05, num_returns=2) == ([soon], [late])
        (tmp_path / "late").touch()
        assert await fh.wait_async([late, soon], num_returns=2) == ([late, soon], [])
        assert await fh.wait_async([]) == ([], [])
        with pytest.raises(TypeError, match="wait_async"):
            await fh.wait_async(late)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="num_returns"):
            await fh.wait_async([late], num_returns=2)

    asyncio.run(program())


def test_as_completed_gives_and_takes(tmp_path: Path) -> None:
    """Goal: references in the order of their values, and more while iterating. Method: three that
    end one after the other, each when the one before was given; one is added in the middle.
    """
    paths = [tmp_path / name for name in "abc"]
    refs = [gate.remote(paths[2]), gate.remote(paths[0])]
    completed = fh.as_completed(refs)
    paths[0].touch()
    order = []
    for ref in completed:
        order.append(fh.get(ref))
        if len(order) == 1:
            completed.add(gate.remote(paths[1]))
            assert len(completed) == 2
            paths[1].touch()
        elif len(order) == 2:
            paths[2].touch()
    assert order == ["a", "b", "c"]
    assert list(completed) == []
    completed.add(refs[0])
    assert [fh.get(ref) for ref in completed] == ["c"]


def test_as_completed_in_a_loop() -> None:
    """Goal: the same with ``async for``; thousands in linear time; errors are values. Method: 3,000
    references, one of which fails.
    """

    @fh.remote
    def odd(i: int) -> int:
        if i == 1500:
            raise ValueError("half")
        return i

    async def program() -> tuple[int, int]:
        good = bad = 0
        async for ref in fh.as_completed(map(odd.remote, range(3000))):
            try:
                await ref
                good += 1
            except ValueError:
                bad += 1
        return good, bad

    assert asyncio.run(program()) == (2999, 1)


def test_as_completed_minds_its_time_and_its_arguments(tmp_path: Path) -> None:
    """Goal: the timeout is for the whole and ends the iteration by an error; wrong arguments are
    told; what is dropped leaves nothing. Method: one of each.
    """
    ref = gate.remote(tmp_path / "never")
    with pytest.raises(fh.errors.GetTimeoutError, match=r"1 of the values.*0.05 s"):
        next(fh.as_completed([ref], timeout=0.05))

    async def program() -> None:
        with pytest.raises(fh.errors.GetTimeoutError):
            await anext(fh.as_completed([ref], timeout=0.05))

    asyncio.run(program())
    with pytest.raises(TypeError, match="takes ObjectRefs, not 3"):
        fh.as_completed([3])  # type: ignore[list-item]
    completed = fh.as_completed([ref])
    with pytest.raises(ValueError, match="already"):
        completed.add(ref)
    del completed
    gc.collect()
    process = current.process()
    assert process is not None
    assert until(lambda: fh.get(echo.remote(1)) and not waiters(process, ref))
    (tmp_path / "never").touch()
    assert fh.get(ref) == "never"


def waiters(process: Any, ref: fh.ObjectRef[Any]) -> Any:
    return process.role.ownership.entries[ref._ref.object].waiters


# -- coroutines as tasks --------------------------------------------------------------------------


def test_coroutine_functions_are_tasks(tmp_path: Path) -> None:
    """Goal: ``async def`` runs as ``asyncio.run`` would run it. Method: it awaits references and
    sleeps; what it leaves running is ended before its result; the next task has a clean loop.
    """

    @fh.remote
    async def total(n: int) -> int:
        return sum(await asyncio.gather(*map(echo.remote, range(n))))

    @fh.remote
    async def leaves(path: Path) -> int:
        async def beside() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                path.touch()  # noqa: ASYNC240

        task = asyncio.create_task(beside())
        await asyncio.sleep(0)
        return id(task) * 0 + len(asyncio.all_tasks())

    assert fh.get(total.remote(50)) == 1225
    assert fh.get(leaves.remote(tmp_path / "ended")) == 2
    assert (tmp_path / "ended").exists()
    assert fh.get(leaves.remote(tmp_path / "again")) == 2


def test_awaiting_lends_the_cpu() -> None:
    """Goal: no deadlock of coroutines that wait for each other. Method: a recursion that is deeper
    than there are CPUs.
    """

    @fh.remote
    async def deep(n: int) -> int:
        return 0 if n == 0 else 1 + await deep.remote(n - 1)

    assert fh.get(deep.remote(5), timeout=60) == 5


@pytest.mark.parametrize("kind", ["awaits", "blocks", "computes"])
def test_cancel_reaches_a_coroutine(tmp_path: Path, kind: str) -> None:
    """Goal: a cancelled coroutine ends where it is, with its ``finally``. Method: it awaits, is
    blocked in a call, or computes without end.
    """

    @fh.remote
    async def endless(kind: str, folder: Path) -> None:
        try:
            (folder / "begun").touch()
            while True:
                if kind == "awaits":
                    await asyncio.sleep(60)
                elif kind == "blocks":
                    time.sleep(60)  # noqa: ASYNC251
        finally:
            (folder / "ended").touch()

    ref = endless.remote(kind, tmp_path)
    assert until((tmp_path / "begun").exists)
    began = time.monotonic()
    fh.cancel(ref)
    with pytest.raises(fh.errors.TaskCancelledError):
        fh.get(ref, timeout=20)
    assert time.monotonic() - began < 2
    assert (tmp_path / "ended").exists()
