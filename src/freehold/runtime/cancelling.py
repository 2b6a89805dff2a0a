"""Cancelling, the worker's side: how running user code is made to stop, by where it runs.

One rule for all: the task's *token* is set, and an exception is raised in the task, once per
cancel. What differs is how the exception gets there.

* **The main thread** (tasks, calls of serial actors): a signal, whose handler raises. System calls
  that sleep or wait return early for it, so ``time.sleep(1000)`` ends at once. ``MainThread``.
* **Another thread** (calls of threaded actors): the interpreter is asked to raise there
  (``interrupt_thread``). It does so at the next backward jump or call of a Python function; a
  system call is not cut short.
* **A coroutine**: ``asyncio.Task.cancel``, from the loop's own thread (``interrupt_coroutine``). It
  sees ``asyncio.CancelledError`` as everywhere in asyncio.

What hears none of these is killed with its process by its node, if the cancel was by force
(``core.cancelling``).

The exception of the first two is an ``Interruption``: a TaskCancelledError that is no Exception.
``except Exception: pass`` around a piece of work is common, and must not make a task immortal
(KeyboardInterrupt and asyncio's CancelledError are made so for the same reason), while ``except
TaskCancelledError`` has to catch it. The interpreter asks a class's method resolution order
whether an ``except`` clause catches it, so Exception is left out there.

Races considered: the task ends while the signal is on its way (``interruptible`` is down: nothing
happens); the signal strikes while this package's own code runs (``interrupts.may_raise``: it comes
again in a millisecond); two cancels at the same moment (one interruption); the next task begins
before the signal that was meant for the last one arrives (the handler asks for whom it is).
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from freehold.core.execution import Run
from freehold.errors import TaskCancelledError
from freehold.runtime.interrupts import again, may_raise
from freehold.runtime.transport import Transport

if TYPE_CHECKING:
    import asyncio

CANCEL: Final = signal.SIGUSR1


class _NoException(type):
    """The type of a class that ``except Exception`` does not catch, whatever its bases."""

    def mro(cls) -> list[type]:
        """All bases but Exception, which has the memory layout of BaseException."""
        return [base for base in super().mro() if base is not Exception]


class Interruption(TaskCancelledError, metaclass=_NoException):
    """Raised in a task that is cancelled or out of time. The caller never sees it; it gets a
    TaskCancelledError or a TaskTimeoutError.
    """


# ------------------------------------------------------------------ the token


class Token:
    """Whether a task is cancelled: to be asked, waited for and awaited, from any thread."""

    def __init__(self, run: Run | None) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._set = threading.Event()
        self._watchers: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        """Whether the task was cancelled, or its time is over."""
        return self._run is not None and self._run.cancelled

    __bool__ = is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, ``timeout`` seconds at most; say whether it is. For the threads
        that a task has started: the task itself is interrupted.
        """
        return self.is_set() or self._set.wait(timeout)

    def when_set(self, action: Callable[[], None]) -> None:
        """Have ``action`` called once it is set, by the thread that reads the sockets; at once if
        it is. It must not block.
        """
        with self._lock:
            if not self.is_set():
                self._watchers.append(action)
                return
        action()

    def __await__(self) -> Generator[Any, None, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        ready = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(ready.set)

        self.when_set(tell)
        await ready.wait()

    def _ring(self) -> None:
        """The run was cancelled."""
        with self._lock:
            watchers, self._watchers = self._watchers, []
        self._set.set()
        for action in watchers:
            action()


def token_of(run: Run) -> Token:
    """The token of a run, made when it is first asked for."""
    if run.token is None:
        run.token = Token(run)
    return run.token  # type: ignore[no-any-return]


def announce(run: Run) -> None:
    """Set the token of a cancelled run. Under the lock, and for a run of any kind."""
    if run.token is not None:
        run.token._ring()


# ------------------------------------------------------------------ the main thread


class MainThread:
    """Interrupts what a worker's main thread runs."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.ident = threading.get_ident()
        self.interruptible = False  # user code runs
        self.wanted: Run | None = None  # whom the signal that is on its way is meant for
        self.where = ""  # the line that a task was at when its time was over
        self.running: Callable[[], Run | None]  # the worker's
        self.whereabouts: Callable[[], str]  # the worker's: the line that user code is at

    def listen(self) -> None:
        """Take the signal. To be called by the main thread."""
        signal.signal(CANCEL, self.on_signal)

    def interrupt(self, run: Run) -> None:
        """Have it raised in the run. By any thread."""
        self.wanted = run
        self.where = ""
        signal.pthread_kill(self.ident, CANCEL)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """On the main thread, between two bytecodes of whatever it runs."""
        run = self.wanted
        if run is None or not self.interruptible or run is not self.running():
            return
        if not may_raise(frame, self.transport):
            again(CANCEL)
            return
        self.wanted = None
        self.where = self.whereabouts() if run.timeout else ""
        raise Interruption(function_name=run.message.name)


# ------------------------------------------------------------------ other threads, coroutines

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_raise_in.argtypes = [ctypes.c_ulong, ctypes.py_object]


def interrupt_thread(ident: int, still: Callable[[], bool]) -> None:
    """Raise Interruption in another thread that runs user code, as soon as it does not run this
    package's own. ``still``: whether the run that is meant goes on there; asked before each try.

    From the look at its stack to the raising the thread must not go on: nobody can ask for the
    interpreter for one switch interval (5 ms) after we have got it, and ``sleep(0)`` gets it anew.
    """
    time.sleep(0)
    if not still():
        return
    if may_raise(sys._current_frames().get(ident), None):
        _raise_in(ident, Interruption)
        return
    timer = threading.Timer(0.001, interrupt_thread, (ident, still))
    timer.daemon = True
    timer.start()


def interrupt_coroutine(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel a coroutine of a loop in whichever thread. Harmless when it or the loop has ended."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(task.cancel)
