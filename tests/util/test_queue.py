"""``Queue``: order, limits, batches, timeouts, other processes, its end."""

from __future__ import annotations

import asyncio
import gc

import pytest

import freehold as fh
from api.conftest import returns_to, tables, until
from freehold.util import Empty, Full, Queue

pytestmark = pytest.mark.usefixtures("two_cpus")


def test_items_come_out_in_order_and_limits_hold() -> None:
    """Goal: first in, first out; ``Full`` and ``Empty`` as in the standard library, at once or
    after a timeout. Method: a queue of two, each call once; nothing is left when it is dropped."""
    before = tables()
    queue: Queue[object] = Queue(maxsize=2)
    assert (queue.empty(), queue.full(), queue.qsize(), queue.maxsize) == (True, False, 0, 2)
    queue.put("one")
    queue.put(b"2" * 200_000)
    assert (queue.full(), len(queue), bool(queue)) == (True, 2, True)
    with pytest.raises(Full):
        queue.put_nowait(3)
    with pytest.raises(Full, match=r"for 0\.05 s"):
        queue.put(3, timeout=0.05)
    assert queue.get() == "one"
    assert queue.get() == b"2" * 200_000
    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty, match=r"for 0\.05 s"):
        queue.get(timeout=0.05)
    with pytest.raises(ValueError, match=">= 0"):
        queue.get(timeout=-1)
    with pytest.raises(ValueError, match=">= 0"):
        queue.put(1, timeout=-1)
    with pytest.raises(TypeError, match="maxsize"):
        Queue(maxsize="2")  # type: ignore[arg-type]
    del queue
    gc.collect()
    assert returns_to(before, "owner objects") == {}


def test_batches_are_all_or_nothing() -> None:
    """Goal: a batch that does not fit changes nothing. Method: too many in, too many out."""
    queue: Queue[int] = Queue(maxsize=3)
    queue.put_nowait_batch([1, 2])
    with pytest.raises(Full, match="2 items"):
        queue.put_nowait_batch([3, 4])
    assert queue.size() == 2
    with pytest.raises(Empty, match="has 2"):
        queue.get_nowait_batch(3)
    assert queue.get_nowait_batch(2) == [1, 2]
    assert queue.get_nowait_batch(0) == []
    with pytest.raises(ValueError, match=">= 0"):
        queue.get_nowait_batch(-1)
    with pytest.raises(TypeError, match="list"):
        queue.put_nowait_batch("ab")  # type: ignore[arg-type]


def test_it_can_be_passed_to_tasks_and_waited_at() -> None:
    """Goal: one queue in many processes; a ``get`` waits for a ``put`` elsewhere. Method: a task
    echoes from one queue into another, which is waited at beforehand."""

    @fh.remote
    def echo(source: Queue[int], target: Queue[int]) -> None:
        while (item := source.get()) >= 0:
            target.put(item * 10)

    source: Queue[int] = Queue()
    target: Queue[int] = Queue(1)
    done = echo.remote(source, target)
    source.put_nowait_batch([1, 2, 3, -1])
    assert [target.get(timeout=20) for _ in range(3)] == [10, 20, 30]
    assert fh.get(done) is None


def test_coroutines_wait_without_a_thread_and_a_cancelled_one_takes_nothing() -> None:
    """Goal: the async forms. Method: a consumer waits while a producer is held up by the limit;
    one that is cancelled before an item comes leaves it to the next."""

    async def program() -> list[object]:
        queue: Queue[int] = Queue(1)
        consumer = asyncio.create_task(queue.get_async())
        await asyncio.sleep(0.05)  # so that it is in line
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        pid_free = queue.actor.size.remote()
        await pid_free
        await queue.put_async(1)
        with pytest.raises(Full):
            await queue.put_async(2, block=False)
        taken = [await queue.get_async(timeout=20)]
        with pytest.raises(Empty):
            await queue.get_async(timeout=0.05)
        return [consumer.cancelled(), *taken]

    assert asyncio.run(program()) == [True, 1]


def test_shutdown_ends_it_for_everybody() -> None:
    """Goal: after ``shutdown`` who waits is told. Method: a call that waits, and a later one."""
    queue: Queue[int] = Queue()
    waiting = queue.actor.get.remote(None)
    queue.shutdown()
    with pytest.raises(fh.errors.ActorDiedError):
        fh.get(waiting, timeout=20)
    with pytest.raises(fh.errors.ActorDiedError):
        queue.put(1)
    queue.shutdown(force=True)
    other: Queue[int] = Queue()
    other.put(1)
    other.shutdown(force=True)
    assert until(lambda: fh.wait([other.actor.size.remote()], timeout=5)[0])
    with pytest.raises(ValueError, match="grace_period_s"):
        queue.shutdown(grace_period_s=-1)
