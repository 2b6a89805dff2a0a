"""Running generators and coroutines in a worker: what a function has returned is not its result
yet, but goes on by itself.

``carry_on`` is the one door, on any thread that runs tasks or calls: a coroutine is run to its end
(``coroutines``), a generator is run value by value (``run_generator``), and an asynchronous
generator both (``run_async_generator``, which coroutine actors await themselves). What comes back
is what the task returns; of a stream that is the number of its values.

The life of one value: the generator yields it -> it is serialised, and stored if it is large ->
``core.yielding`` sends it -> the generator goes on, or waits until its consumer has taken some. It
waits as in ``get``: its CPU is lent out. Messages leave together, within a fraction of a
millisecond (``Pump.send_soon``): nobody waits for one value more than for the next.

User code may be interrupted only while it runs, so only ``take_one`` and ``close`` let it: between
two values nothing of ours is torn. A generator whose consumer wants no more is closed, as Python
closes one that is dropped; if it is in the middle of something, that is interrupted first.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from freehold import errors
from freehold.core.execution import Run
from freehold.core.yielding import Outgoing
from freehold.ids import return_id
from freehold.runtime.aio import LoopReader
from freehold.runtime.cancelling import Interruption
from freehold.runtime.waking import Signal
from freehold.wire import serial

if TYPE_CHECKING:
    from freehold.runtime.cancelling import MainThread
    from freehold.runtime.hosting import Guard
    from freehold.runtime.worker import Worker

#: Stands for the end of an iterator: None is a value like any other.
END: Final = object()


def carry_on(worker: Worker, run: Run, value: Any, interrupts: MainThread | Guard) -> Any:
    """Run what a function has returned to its end. Returns the result of the task."""
    if hasattr(value, "__anext__"):
        coroutine = run_async_generator(worker, run, value, worker.coroutines.reader())
        return worker.coroutines.run(run, coroutine)
    if type(value) is CoroutineType:
        return worker.coroutines.run(run, value)
    return run_generator(worker, run, value, interrupts)


# ------------------------------------------------------------------ generators


def run_generator(worker: Worker, run: Run, value: Any, interrupts: MainThread | Guard) -> int:
    """Make a stream of what a function yields. Returns how many values there were."""
    iterator = iterator_of(worker, run, value)
    with worker.lock:
        outgoing = worker.executor.yielding.begin(run)
    try:
        while not outgoing.unwanted:
            try:
                interrupts.interruptible = True
                if run.cancelled:
                    raise errors.TaskCancelledError(function_name=run.message.name)
                item = take_one(iterator)
            finally:
                interrupts.interruptible = False
            if item is END:
                break
            give(worker, outgoing, item)
            del item
            if not outgoing.done:
                wait_for_room(worker, outgoing)
    except Interruption:
        if not outgoing.closed:
            raise
    finally:
        close(iterator)
        with worker.lock:
            worker.executor.yielding.end(outgoing)
    return outgoing.made


def iterator_of(worker: Worker, run: Run, value: Any) -> Iterator[Any]:
    """What a stream is made of. Raises TypeError for what cannot be iterated."""
    try:
        return iter(value)
    except TypeError:
        definition = worker.executor.execution.functions[run.message.function]
        raise TypeError(
            f"{run.message.name or definition.name}() has num_returns='streaming' but returned "
            f"{type(value).__name__}, which is no iterator: it should yield its values"
        ) from None


def take_one(iterator: Iterator[Any]) -> Any:
    """The next value, by user code."""
    return next(iterator, END)


def close(iterator: Iterator[Any]) -> None:
    """User code's cleanup, if it has not come to its end. What it raises has nobody to hear it."""
    end = getattr(iterator, "close", None)
    if end is not None:
        try:
            end()
        except BaseException:
            sys.excepthook(*sys.exc_info())


def give(worker: Worker, outgoing: Outgoing, item: Any) -> None:
    """Send one value on its way."""
    run = outgoing.run
    packed = serial.serialize(item, "the yielded value")
    value = worker.store(return_id(run.message.task, outgoing.made + 1), packed, run.submitter)
    with worker.lock:
        if worker.dropped:
            worker.settle()
        worker.executor.yielding.give(outgoing, value)
        worker.pump.send_soon()
    # (``packed`` holds the references inside until here.)


def wait_for_room(worker: Worker, outgoing: Outgoing) -> None:
    """Sleep until the consumer has taken some, or wants no more."""
    signal = Signal()
    with worker.lock:
        outgoing.wake = signal.ring
        worker.transport.flush()
    worker.await_it(outgoing, signal, None)


# ------------------------------------------------------------------ asynchronous generators


async def run_async_generator(
    worker: Worker, run: Run, generator: AsyncIterator[Any], reader: LoopReader
) -> int:
    """The same for what an asynchronous generator yields, on the loop of ``reader``."""
    import asyncio

    with worker.lock:
        outgoing = worker.executor.yielding.begin(run)
    try:
        while not outgoing.unwanted:
            if run.cancelled:
                raise asyncio.CancelledError
            try:
                item = await anext(generator)
            except StopAsyncIteration:
                break
            give(worker, outgoing, item)
            del item
            if not outgoing.done:
                await room(worker, outgoing, reader)
    except asyncio.CancelledError:
        if not outgoing.closed:
            raise
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
    finally:
        with contextlib.suppress(StopAsyncIteration, AttributeError):
            await generator.aclose()  # type: ignore[attr-defined]  # as generators have it
        with worker.lock:
            worker.executor.yielding.end(outgoing)
    return outgoing.made


async def room(worker: Worker, outgoing: Outgoing, reader: LoopReader) -> None:
    """Sleep until the consumer has taken some, or wants no more."""
    import asyncio

    future = asyncio.get_running_loop().create_future()
    with worker.lock:
        outgoing.wake = partial(reader.resolve, future)
        worker.transport.flush()
        if outgoing.done:
            return
    await reader.until_done(outgoing, future)
