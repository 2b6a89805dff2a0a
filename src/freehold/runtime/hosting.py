"""Hosting: the instance of an actor in its worker, and the threads or the loop that its calls run
on.

Which call may run is ``core.hosting``'s decision; this file runs it.

* **Serial** actors: on the main thread, on the same path as tasks (``Worker.run_ready``).
* **Threaded** actors (more than one call at a time, no coroutine methods): a thread for each call
  that runs, made when needed and kept. The main thread goes on reading the sockets.
* **Coroutine** actors: an event loop on the main thread, which reads the sockets itself (``aio``).
  Their plain methods run on one thread beside it, one at a time: they never block the loop, and
  never meet each other. (In a concurrency group of their own they run as that says.)

The life of one call outside of the main thread: ``start`` (under the core's lock, by whoever read
the message) -> its thread or coroutine -> ``Worker.run_one`` or ``run_coroutine`` -> answered.

The end in good order: no further call begins, those that run finish, ``__shutdown__`` is called,
the functions registered with ``atexit`` are, and the process exits.
"""

from __future__ import annotations

import atexit
import contextvars
import inspect
import queue
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from freehold.core.execution import Run
from freehold.core.hosting import Hosting
from freehold.ids import TaskId, return_id
from freehold.runtime import aio
from freehold.runtime.cancelling import interrupt_coroutine, interrupt_thread
from freehold.runtime.waking import Signal
from freehold.runtime.yielding import run_async_generator
from freehold.wire.actors import Place, packed
from freehold.wire.messages import ACTOR, Call, Creation, Value

if TYPE_CHECKING:
    import asyncio

    from freehold.runtime.worker import Worker

#: Replies wait for each other this long (seconds) while there is more to run: one system call for
#: many.
REPLY_EVERY: Final = 0.001

#: Called on the instance when the actor ends in good order.
SHUTDOWN = "__shutdown__"


class ActorExit(BaseException):
    """Raised by ``exit_actor``: no Exception, so that ``except Exception`` lets it pass."""


class Guard:
    """Stands for ``cancelling.MainThread`` on another thread: whether user code runs there."""

    __slots__ = ("ident", "interruptible", "run")

    def __init__(self) -> None:
        self.ident = threading.get_ident()
        self.interruptible = False
        self.run: Run | None = None

    def interrupt(self, run: Run) -> None:
        """Have an Interruption raised in the run, if it still goes on here."""
        interrupt_thread(self.ident, lambda: self.run is run and self.interruptible)


class Threads:
    """Threads that run calls: as many as there have ever been calls at once."""

    def __init__(self, host: Host, name: str) -> None:
        self.host = host
        self.name = name
        self.queue: queue.SimpleQueue[Run] = queue.SimpleQueue()
        self.running = 0  # runs that are queued or go on; under the core's lock
        self.made = 0

    def put(self, run: Run, most: int) -> None:
        """Run it. Under the core's lock."""
        self.running += 1
        if self.made < min(self.running, most):
            self.made += 1
            name = f"{self.name}-{self.made}"
            threading.Thread(target=self.serve, name=name, daemon=True).start()
        self.queue.put(run)

    def serve(self) -> None:
        """One thread: run calls for ever."""
        guard = Guard()
        host, worker = self.host, self.host.worker
        while True:
            run = self.queue.get()
            guard.run = run
            host.guards[run.message.task] = guard
            outcome = worker.run_one(run, guard)
            guard.run = None
            with worker.lock:
                self.running -= 1
                worker.answer(run, *outcome)
                host.guards.pop(run.message.task, None)
                worker.transport.flush()
            del run, outcome


class Over:
    """Done when everything has been handed over."""

    def __init__(self) -> None:
        self.done = False
        self.signal = Signal()

    def ring(self) -> None:
        """It has."""
        self.done = True
        self.signal.ring()


class Host:
    """The actor that lives in this worker."""

    def __init__(self, worker: Worker, run: Run) -> None:
        creation = run.message.actor
        assert isinstance(creation, Creation)
        self.worker = worker
        self.creation = creation
        self.name = run.message.name
        self.actor = return_id(run.message.task, 0)
        self.instance: Any = None
        with worker.lock:
            self.hosting: Hosting = worker.executor.host(run)
        self.hosting.start = self.start
        self.guards: dict[TaskId, Guard] = {}
        self.tasks: dict[TaskId, asyncio.Task[None]] = {}
        self.coroutines: dict[str, bool] = {}  # methods that were called: whether they are such
        self.threads = Threads(self, "freehold-call")
        self.beside = Threads(self, "freehold-beside")  # plain methods of a coroutine actor
        self.loop: asyncio.AbstractEventLoop | None = None
        self.serving = False  # the loop runs
        self.sending = False  # answers wait for the end of the loop's turn
        self.answered = 0.0  # when one has left at once
        self.exiting = False
        if creation.coroutines:
            import asyncio

            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
            self.reader = aio.reader(worker, self.loop)
            self.stopped = asyncio.Event()

    def construct(self, kind: type, *args: Any, **kwargs: Any) -> Value:
        """Make the instance. Returns the actor's place."""
        self.instance = kind(*args, **kwargs)
        return Value(ACTOR, packed(Place(self.worker.address, self.creation.life)))

    def method(self, name: str) -> Callable[..., Any]:
        """A method of the instance."""
        if name == "__call_with__":
            return self.call_with
        return getattr(self.instance, name)  # type: ignore[no-any-return]

    def call_with(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a caller's function on the instance."""
        return function(self.instance, *args, **kwargs)

    # ------------------------------------------------------------------ beside the main thread

    def start(self, run: Run) -> None:
        """Run a call beside those that run. Under the core's lock, by any thread."""
        if self.loop is None:
            self.threads.put(run, 1 << 16)
        elif self.is_coroutine(run):
            here = self.serving and threading.get_ident() == self.worker.main_thread
            if here and self.loop.get_task_factory() is None:  # (a user's may run the coroutine)
                self.begin(run)
            else:
                self.reader.call_soon(partial(self.begin, run))
        elif run.message.actor.group:  # type: ignore[union-attr]  # a Call
            self.threads.put(run, 1 << 16)
        else:
            self.beside.put(run, 1)

    def is_coroutine(self, run: Run) -> bool:
        """Whether the method that is called has to run on the loop."""
        call = run.message.actor
        assert isinstance(call, Call)
        known = self.coroutines.get(call.method)
        if known is None:  # (to ask takes 3 us, a tenth of a call)
            method = getattr(type(self.instance), call.method, None)
            known = inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
            self.coroutines[call.method] = known
        return known

    def begin(self, run: Run) -> None:
        """In the loop's thread: one more coroutine. What it finds in context variables is the
        constructor's and not that of the call that made room for it.
        """
        assert self.loop is not None
        coroutine = self.run_coroutine(run)
        task = self.context.copy().run(self.loop.create_task, coroutine)
        self.tasks[run.message.task] = task

    async def run_coroutine(self, run: Run) -> None:
        """A call on the loop, from its arguments to its answer."""
        import asyncio

        worker = self.worker
        worker.enter(run)
        started = time.perf_counter()
        try:
            method, args, kwargs = worker.load(run)
            if run.cancelled:
                raise asyncio.CancelledError
            value = method(*args, **kwargs)
            if run.message.stream is not None:
                value = run_async_generator(worker, run, value, self.reader)
            value = await value
            micros = int((time.perf_counter() - started) * 1e6)
            del args, kwargs
            results = worker.results(run, value, method)
            retry = False
        except BaseException as error:
            micros = int((time.perf_counter() - started) * 1e6)
            results, retry = worker.failed(run, error)
        self.tasks.pop(run.message.task, None)
        with worker.lock:
            worker.answer(run, results, micros, retry)
        self.send_answers()

    def send_answers(self) -> None:
        """An answer is ready. It leaves at once after a pause, or if no other call is here; else
        with those that become ready in the same turn of the loop.
        """
        assert self.loop is not None
        now = time.monotonic()
        if not self.tasks or now - self.answered > REPLY_EVERY:
            self.answered = now
            self.flush()
        elif not self.sending:
            self.sending = True
            self.loop.call_soon(self.send_now)

    def send_now(self) -> None:
        """In the loop: a turn is over."""
        self.sending = False
        self.flush()

    def flush(self) -> None:
        """Send what is queued."""
        with self.worker.lock:
            self.worker.transport.flush()

    def run_loop(self) -> None:
        """On the main thread, from the constructor's end to the actor's."""
        assert self.loop is not None
        self.context = contextvars.copy_context()
        self.loop.run_until_complete(self.serve())

    async def serve(self) -> None:
        """Read the sockets and run calls until the actor ends, and those calls to their ends."""
        import asyncio

        self.serving = True
        self.reader.hold()
        self.reader.alert = True
        with self.worker.lock:
            self.worker.transport.flush()
        await self.stopped.wait()
        while self.tasks:
            await asyncio.wait(list(self.tasks.values()))
        self.serving = False
        self.flush()

    def stop(self) -> None:
        """No further call begins. By any thread."""
        with self.worker.lock:
            self.hosting.closing = True
            self.worker.executor.execution.ready.clear()
        if self.loop is not None:
            self.reader.call_soon(self.stopped.set)

    # ------------------------------------------------------------------ ends

    def interrupt(self, run: Run) -> bool:
        """A call that has begun is cancelled. False if it does not run beside the main thread."""
        task = self.tasks.get(run.message.task)
        if task is not None:
            assert self.loop is not None
            interrupt_coroutine(self.loop, task)
            return True
        guard = self.guards.get(run.message.task)
        if guard is not None:
            guard.interrupt(run)
        return guard is not None

    def shutdown(self) -> None:
        """The actor ends in good order: its calls first, then its own hook, then the program's."""
        while self.threads.running or self.beside.running:
            time.sleep(0.001)
        hook = getattr(self.instance, SHUTDOWN, None)
        try:
            if hook is not None:
                answer = hook()
                if inspect.iscoroutine(answer):
                    import asyncio

                    (self.loop or asyncio.new_event_loop()).run_until_complete(answer)
        except BaseException:
            traceback.print_exc()  # to the log: nobody waits for it
        atexit._run_exitfuncs()
        self.instance = None
        self.hand_over()

    def hand_over(self) -> None:
        """What this process owns goes to those who would ask for it, if that can be done."""
        worker = self.worker
        executor = worker.executor
        over = Over()
        with worker.lock:
            worker.settle()
            executor.estate.gone = over.ring
            wanted = executor.ownership.entries and executor.may_leave()
            begun = bool(wanted) and executor.estate.leave()
            worker.transport.flush()
        if begun:
            worker.pump.wait(over, over.signal, None)  # (a second at most)
