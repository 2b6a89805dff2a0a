"""Coroutines of tasks: ``async def`` functions, run by one event loop on the worker's main thread.

Each task is run as ``asyncio.run`` would: to its end, and then what it has started beside itself is
cancelled and waited for. The loop is kept for the next task, because to make one takes 100 us.

While something in the task awaits a reference for longer than ``LEND_AFTER``, its CPU is lent out,
as if it were blocked in ``get``: what it waits for may need that CPU.

A cancelled task sees ``asyncio.CancelledError`` where it awaits, by ``Task.cancel``. If it does not
await but is busy or blocked in a call, the worker's signal raises there (``cancelling.MainThread``;
``step`` is the door that lets it), and only in the task's own code, never in the loop's.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from freehold.core.execution import Run
from freehold.runtime import aio
from freehold.runtime.process import LEND_AFTER

if TYPE_CHECKING:
    import asyncio

    from freehold.runtime.worker import Worker


class Coroutines:
    """The loop for the tasks of one worker."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.loop: asyncio.AbstractEventLoop | None = None
        self.run_now: Run | None = None
        self.task: asyncio.Task[Any] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.lent = False

    def reader(self) -> aio.LoopReader:
        """What reads the sockets in our loop."""
        import asyncio

        loop = self.loop
        if loop is None or loop.is_closed():
            loop = self.loop = asyncio.new_event_loop()
        found = aio.reader(self.worker, loop)
        found.on_waits = self.on_waits
        return found

    # ------------------------------------------------------------------ one task

    def run(self, run: Run, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a task's coroutine to its end."""
        import asyncio

        self.reader()
        loop = self.loop
        assert loop is not None
        asyncio.set_event_loop(loop)
        task = loop.create_task(step(coroutine))
        self.run_now, self.task = run, task
        interrupts = self.worker.interrupts
        interrupts.interruptible = True
        try:
            if run.cancelled:
                task.cancel()
            return loop.run_until_complete(task)
        finally:
            interrupts.interruptible = False
            self.task = None
            self.clear_up(loop)

    def clear_up(self, loop: asyncio.AbstractEventLoop) -> None:
        """End what the task has left running."""
        import asyncio

        left = asyncio.all_tasks(loop)
        if left:
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def interrupt(self, run: Run) -> None:
        """A run that may be ours is cancelled. By any thread."""
        loop, task = self.loop, self.task
        if task is not None and self.run_now is run and loop is not None:
            loop.call_soon_threadsafe(self.cancel, task)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """In the loop: it has heard; the signal is not needed any more."""
        self.worker.interrupts.wanted = None
        task.cancel()

    # ------------------------------------------------------------------ lending

    def on_waits(self, begin: bool) -> None:
        """The task begins to await references, or does so no more."""
        if self.worker.running is None or self.loop is None:
            return
        if begin:
            self.timer = self.loop.call_later(LEND_AFTER, self.lend)
            return
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.lent:
            self.lent = False
            with self.worker.lock:
                self.worker.executor.unblock()
                self.worker.transport.flush_soon()

    def lend(self) -> None:
        """It has waited for a while."""
        self.timer = None
        self.lent = True
        with self.worker.lock:
            self.worker.executor.block(self.reader(), None)
            self.worker.transport.flush_soon()


async def step(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """User code below this may be interrupted (see ``interrupts``)."""
    return await coroutine
