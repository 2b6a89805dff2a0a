"""Named locks, semaphores, events and variables: one meaning everywhere, and no lock outlives its
holder."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

import freehold as fh
from api.conftest import until
from freehold.util import Event, Lock, Semaphore, Variable

pytestmark = pytest.mark.usefixtures("two_cpus")


@fh.remote(max_retries=0)
def hold(name: str, path: str) -> None:
    """Take a lock, say who has it, and keep it for good."""
    lock = Lock(name)
    lock.acquire()
    part = Path(path).with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(path)
    time.sleep(1000)


def test_one_holder_at_a_time() -> None:
    """Goal: mutual exclusion between processes. Method: tasks that read, wait and write a number
    in a variable; no update is lost."""

    @fh.remote
    def add(times: int) -> None:
        lock, number = Lock("adders"), Variable[int]("number")
        for _ in range(times):
            with lock:
                number.set(number.get() + 1)

    lock, number = Lock("adders"), Variable[int]("number")
    number.set(0)
    fh.get([add.remote(20) for _ in range(4)])
    assert (number.get(), lock.locked()) == (80, False)


def test_a_holder_that_dies_lets_go(tmp_path: Path) -> None:
    """Goal: kill -9 of a holder frees its lock at once. Method: a task holds it, we wait in line,
    its process is killed; the lock is ours well before any heartbeat could have told."""
    lock = Lock("fatal")
    task = hold.remote("fatal", str(tmp_path / "pid"))
    assert until((tmp_path / "pid").exists)
    assert lock.acquire(timeout=0.1) is False
    assert lock.acquire(blocking=False) is False
    killed = time.monotonic()
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
    assert lock.acquire(timeout=20) is True
    assert time.monotonic() - killed < 3
    lock.release()
    with pytest.raises(fh.errors.WorkerDiedError):
        fh.get(task)


def test_a_cancelled_holder_and_a_dropped_lock_let_go(tmp_path: Path) -> None:
    """Goal: whoever can no longer release has released. Method: a holding task is cancelled; a
    holding ``Lock`` is dropped; one that gives up waiting leaves the line to those behind it."""
    lock = Lock("dropped")
    task = hold.remote("dropped", str(tmp_path / "pid"))
    assert until((tmp_path / "pid").exists)
    fh.cancel(task)
    other = Lock("dropped")
    assert other.acquire(timeout=20)
    assert lock.acquire(timeout=0.05) is False
    del other
    gc.collect()
    assert lock.acquire(timeout=20) is True
    lock.release()


def test_first_come_first_served() -> None:
    """Goal: permits are given in the order of asking. Method: coroutines ask one after the other
    while the lock is held, and note the order in which they get it."""
    lock = Lock("fair")
    order: list[int] = []

    async def ask(number: int) -> None:
        mine = Lock("fair")
        await mine.acquire_async()
        order.append(number)
        await mine.release_async()

    async def program() -> None:
        async with lock:
            tasks = []
            for number in range(5):
                tasks.append(asyncio.create_task(ask(number)))
                await asyncio.sleep(0)
            assert await Lock("fair").acquire_async(timeout=0.05) is False
            assert order == []
        await asyncio.gather(*tasks)

    asyncio.run(program())
    assert order == [0, 1, 2, 3, 4]


def test_a_semaphore_has_so_many_permits() -> None:
    """Goal: value holders and no more, also through one object; a passed copy holds nothing.
    Method: two permits, three asked for; release by one that holds none."""
    pair = Semaphore("pair", 2)
    assert [pair.acquire(timeout=0) for _ in range(3)] == [True, True, False]
    assert pair.free() == 0

    @fh.remote
    def try_it(semaphore: Semaphore) -> Any:
        try:
            semaphore.release()
        except RuntimeError as error:
            return semaphore.acquire(blocking=False), str(error)

    taken, text = fh.get(try_it.remote(pair))
    assert taken is False
    assert text.startswith("Semaphore('pair') is not held by this object")
    pair.release()
    pair.release()
    assert pair.free() == 2
    with pytest.raises(ValueError, match="has 2 permits already, not 3"):
        Semaphore("pair", 3)


def test_misuse_is_named() -> None:
    """Goal: wrong arguments say what is wrong. Method: each once."""
    with pytest.raises(TypeError, match="the lock's name"):
        Lock(5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the event's name"):
        Event("")
    with pytest.raises(ValueError, match="at least 1 permit"):
        Semaphore("none", 0)
    with pytest.raises(TypeError, match="whole number"):
        Semaphore("none", 1.5)  # type: ignore[arg-type]
    lock = Lock("misused")
    with pytest.raises(ValueError, match="timeout must be"):
        lock.acquire(timeout=-1)
    with pytest.raises(ValueError, match="does not wait"):
        lock.acquire(blocking=False, timeout=1)
    with pytest.raises(RuntimeError, match="not held"):
        lock.release()


def test_an_event_wakes_all_that_wait() -> None:
    """Goal: set wakes waiters in other processes, clear undoes it. Method: two tasks wait."""

    @fh.remote(num_cpus=0)
    def wait(name: str) -> bool:
        return Event(name).wait(20)

    event = Event("start")
    assert (event.is_set(), event.wait(0), event.wait(0.05)) == (False, False, False)
    waiting = [wait.remote("start") for _ in range(2)]
    event.set()
    assert fh.get(waiting) == [True, True]
    assert event.wait() is True
    event.clear()
    assert asyncio.run(event.wait_async(0.05)) is False


def test_a_variable_is_waited_for_until_it_is_set() -> None:
    """Goal: ``get`` waits for a value, has the newest, and says when there is none. Method: set by
    a task, replaced here, deleted."""

    @fh.remote
    def give(name: str, value: Any) -> None:
        Variable[Any](name).set(value)

    variable: Variable[Any] = Variable("weights")
    with pytest.raises(TimeoutError, match=r"'weights'.* was not set within 0\.05 s"):
        variable.get(0.05)
    task = give.remote("weights", [1, 2])
    assert variable.get(20) == [1, 2]
    fh.get(task)
    variable.set(None)
    assert variable.get() is None
    variable.delete()

    async def program() -> Any:
        with pytest.raises(TimeoutError):
            await variable.get_async(0)
        await variable.set_async(5)
        return await variable.get_async(1)

    assert asyncio.run(program()) == 5
