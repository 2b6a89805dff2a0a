"""Event loops: how asyncio reads the sockets of a driver or worker itself.

A loop *adopts* the transport. The transport's epoll descriptor can itself be polled, so the loop
watches it like any socket, and when something has come it makes one turn of the transport in its
own thread: a result goes from the socket to the coroutine that awaits it without a hand-off to
another thread, which would cost 45-90 us each.

The life of one await: ``value`` asks the role for the value under the core's lock; if it is not
there yet, an asyncio future stands for it, and the coroutine sleeps; whoever handles the message
that brings the value, in whichever thread, resolves the future (``LoopReader.resolve``): directly,
if that is the loop's own turn, else by one call into the loop for all that came together.

One ``LoopReader`` stands for a loop that uses a process's transport. It reads while something in
that loop waits (``hold``, ``release``), and lets go ``LINGER`` after the last wait. Several loops,
threads in ``get`` and the pump's background thread get along by one rule: who polls holds
``pump.lead``, for as long as it polls. A loop never waits for the lead: if another has it, that
one reads what there is, and the loop looks again ``BACK_OFF`` later. A loop that is busy in user
code for longer than ``pump.GRACE`` while messages lie there is stood in for by the background
thread (``Pump.stand_aside``), and so is one that was closed or is not run any more.

For coroutines that want to run when something has come (async actors): ``hold`` a reader for
good, set ``alert``, and use ``call_soon`` from other threads.

Races considered: the loop is closed while something in it waits (the wait is forgotten when the
coroutine is collected, at the start of some later turn: a finalizer may run inside our own code);
the asyncio task is cancelled (the wait is closed at once, the remote task runs on); the session
ends (every value resolves to an error first, then each loop lets go of its own copy of the
descriptor, so that no number is reused under it); the same loop is run by another thread later.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from freehold import errors
from freehold.core.fetching import Get, Wait
from freehold.runtime.waking import SPIN, Signal

if TYPE_CHECKING:
    import asyncio

    from freehold.core.telling import Awaits
    from freehold.ids import ObjectId
    from freehold.runtime.context import ObjectRef
    from freehold.runtime.process import Process

Awaited = TypeVar("Awaited", Get, Wait)

#: Seconds after which a loop looks again where another thread was reading. Without a pause it
#: would be woken by each message that the other one handles.
BACK_OFF: Final = 0.001
#: Seconds that a loop goes on reading after its last wait. To begin and end to read costs 10 us.
LINGER: Final = 0.1


class Sleeps(Protocol):
    """What a coroutine can sleep for: a get, a wait, or many of them. ``wake`` is called, under the
    core's lock, when ``done`` turns true.
    """

    wake: Callable[[], None]

    @property
    def done(self) -> bool:
        """Whether it has come."""

    @property
    def pending(self) -> dict[ObjectId, None]:
        """The objects that are not there yet."""


class LoopReader:
    """One event loop that reads a process's transport. All but ``resolve``, ``call_soon`` and
    ``retire`` is called in the loop's own thread.
    """

    def __init__(self, process: Process, loop: asyncio.AbstractEventLoop) -> None:
        self.readers = process.readers
        self.pump = process.pump
        self.transport = process.transport
        self.loop = loop
        self.descriptor = os.dup(self.transport.epoll.fileno())
        self.waits: dict[Awaits, None] = {}
        self.holds = 0
        self.reading = False
        self.turning = 0  # the thread that makes a turn of ours just now
        self.lingering = False
        self.used = False
        self.calls: deque[Callable[[], None]] = deque()
        self.called = False
        self.retired = False
        #: For a loop that does nothing but answer messages: look for the next one for ``SPIN``
        #: before it sleeps, as ``Pump.drive`` does.
        self.alert = False
        self.looking_until = 0.0
        #: Called when the first wait begins (True) and when the last one ends (False).
        self.on_waits: Callable[[bool], None] | None = None

    # ------------------------------------------------------------------ reading

    def hold(self) -> None:
        """Something in this loop waits for a message: read, until as many ``release`` it."""
        self.holds += 1
        self.used = True
        if not self.reading and not self.retired:
            self.reading = True
            with self.transport.lock:
                self.pump.loops += 1
            self.loop.add_reader(self.descriptor, self.turn)
            if self.pump.lead.locked():  # perhaps by the background thread, which sleeps
                self.transport.wake()

    def release(self) -> None:
        """One wait less. After the last the loop reads on for a while: the next is not far."""
        self.holds -= 1
        if not self.holds and not self.lingering:
            self.lingering = True
            self.used = False
            self.loop.call_later(LINGER, self.linger)

    def linger(self) -> None:
        """Stop to read if nobody has waited for LINGER."""
        self.lingering = False
        if self.holds:
            return
        if self.used:
            self.lingering = True
            self.used = False
            self.loop.call_later(LINGER, self.linger)
        else:
            self.stop()

    def stop(self) -> None:
        """Do not read any more."""
        if self.reading:
            self.reading = False
            with self.transport.lock:
                self.pump.loops -= 1
            if not self.loop.is_closed():
                self.loop.remove_reader(self.descriptor)

    def turn(self) -> None:
        """Something has come: make a turn of the transport, unless another thread is at it."""
        pump = self.pump
        pump.looked += 1
        pump.overdue = False
        if not pump.lead.acquire(blocking=False):
            self.loop.remove_reader(self.descriptor)
            self.loop.call_later(BACK_OFF, self.look_again)
            return
        came = False
        try:
            came = self.poll_once()
        finally:
            pump.lead.release()
        if self.alert and came:
            if not self.looking_until:
                self.loop.call_soon(self.look)
            self.looking_until = time.perf_counter() + SPIN

    def poll_once(self) -> bool:
        """Handle what has come. We have the lead."""
        self.turning = threading.get_ident()
        try:
            return self.transport.poll(0.0)
        except ValueError:
            if not self.transport.closed:
                raise
            self.retire()  # the session ends under us
            return False
        finally:
            self.turning = 0

    def look(self) -> None:
        """Something has come a moment ago: the next is not far. Run each time that the loop has run
        all else; between two looks whoever is to answer may have this CPU.
        """
        if time.perf_counter() > self.looking_until or not self.reading or self.retired:
            self.looking_until = 0.0
            return
        os.sched_yield()
        self.loop.call_soon(self.look)

    def look_again(self) -> None:
        """Another thread was reading a moment ago."""
        if self.reading:
            self.loop.add_reader(self.descriptor, self.turn)

    # ------------------------------------------------------------------ from any thread

    def turns_here(self) -> bool:
        """Whether we are in a turn that this thread makes for its loop."""
        return self.turning == threading.get_ident()

    def resolve(self, future: asyncio.Future[None]) -> None:
        """What a coroutine of this loop awaits is there. Under the core's lock."""
        if self.turns_here():
            fulfil(future)
        else:
            self.call_soon(partial(fulfil, future))

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have ``action`` called in the loop's thread, without the lock; calls that come together
        wake the loop once. Nothing happens if it is closed.
        """
        if self.turns_here():
            self.loop.call_soon(action)
            return
        with self.transport.lock:
            self.calls.append(action)
            if self.called:
                return
            self.called = True
        try:
            self.loop.call_soon_threadsafe(self.make_calls)
        except RuntimeError:  # it was closed: whoever waited there is gone
            self.retire()

    def make_calls(self) -> None:
        """What other threads have asked for."""
        with self.transport.lock:
            self.called = False
            calls, self.calls = self.calls, deque()
        for action in calls:
            action()

    def retire(self) -> None:
        """The session or the loop is over: let go of the descriptor, in the loop if it is open."""
        with self.transport.lock:
            if self.retired:
                return
            self.retired = True
            del self.readers[self.loop]
        try:
            if self.loop.is_closed():
                raise RuntimeError
            self.loop.call_soon_threadsafe(self.let_go)
        except RuntimeError:
            self.let_go()

    def let_go(self) -> None:
        """Nothing watches the descriptor any more: close it."""
        self.stop()
        os.close(self.descriptor)

    # ------------------------------------------------------------------ waiting

    @property
    def pending(self) -> dict[ObjectId, None]:
        """The objects that coroutines of this loop wait for (for ``explain``)."""
        return {object_id: None for wait in self.waits for object_id in wait.pending}

    async def until_done(self, awaited: Awaits, future: asyncio.Future[None]) -> None:
        """Sleep until ``future`` is resolved, which is when ``awaited`` is done."""
        if not self.waits and self.on_waits is not None:
            self.on_waits(True)
        self.waits[awaited] = None
        self.hold()
        try:
            await future
        except GeneratorExit:  # by a finalizer, in whichever thread
            self.call_soon(partial(self.end, awaited))
            raise
        except BaseException:
            self.end(awaited)
            raise
        self.end(awaited)

    def end(self, awaited: Awaits) -> None:
        """A wait is over."""
        del self.waits[awaited]
        self.release()
        if not self.waits and self.on_waits is not None:
            self.on_waits(False)


def fulfil(future: asyncio.Future[None]) -> None:
    """Wake who awaits the future, unless it was cancelled."""
    if not future.done():
        future.set_result(None)


def running_loop(what: str) -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread. Raises NoEventLoopError, naming what needs one."""
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise errors.NoEventLoopError(f"{what} needs a running event loop") from None


def reader(process: Process, loop: asyncio.AbstractEventLoop) -> LoopReader:
    """What reads the process's transport in this loop; made at its first use."""
    found = process.readers.get(loop)
    if found is None:
        sweep(process)
        found = process.readers[loop] = LoopReader(process, loop)
    return found


def sweep(process: Process) -> None:
    """Forget loops that have been closed."""
    for loop, found in list(process.readers.items()):
        if loop.is_closed():
            found.retire()


async def sleep(process: Process, awaited: Sleeps, within: float | None) -> None:
    """Sleep until ``awaited`` is done, or ``within`` seconds are over."""
    if not process.sockets:  # local mode: nobody else makes it
        process.await_it(awaited, Signal(), within)
        return
    import asyncio

    loop = asyncio.get_running_loop()
    with process.lock:
        if awaited.done:
            return
        found = reader(process, loop)
        future = loop.create_future()
        awaited.wake = partial(found.resolve, future)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await found.until_done(awaited, future)


async def finished(
    process: Process, begin: Callable[[], Awaited], within: float | None = None
) -> Awaited:
    """Begin a get or wait, and sleep until it is done or ``within`` seconds are over."""
    with process.lock:
        if process.dropped:
            process.settle()
        awaited = begin()
        process.transport.flush_soon()
    if awaited.done:
        return awaited
    try:
        await sleep(process, awaited, within)
    except GeneratorExit:  # perhaps in the middle of one of our own turns
        process.finalizers.append(partial(process.let_go, awaited))
        raise
    except BaseException:
        process.let_go(awaited)
        raise
    return awaited


async def value(process: Process, ref: ObjectRef) -> Any:
    """The value of a reference. Raises what ``get`` raises."""
    objects = [ref._ref.object]
    while True:
        awaited = await finished(process, lambda: process.role.get(objects, no_one))
        try:
            values = process.taken(awaited, objects)
        finally:
            process.let_go(awaited)
        if values is not None:
            return values[0]
        # (It was lost again before we came for it, perhaps for good: see.)


async def ready(
    process: Process, objects: list[ObjectId], needed: int, within: float | None, *, fetch: bool
) -> list[int]:
    """``Process.ready`` for coroutines."""
    awaited = await finished(
        process, lambda: process.role.wait(objects, needed, fetch, no_one), within
    )
    with process.lock:
        return process.found_ready(awaited, objects, needed)


def no_one() -> None:
    """Nobody sleeps yet."""
