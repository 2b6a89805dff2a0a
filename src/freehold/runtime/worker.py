"""The worker: runs tasks on its main thread, which reads its own tasks from the socket with no
hand-off between.

While user code runs, the pump's background thread reads the sockets; when it takes over, the
running task has been at it for ``pump.GRACE``, and tasks that lie behind it are given back
(``Executor.slow``).

Cancellation interrupts the main thread by a signal, so that ``time.sleep`` and blocking system
calls end too.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CoroutineType
from typing import Any, Final, TypeAlias

from freehold import errors
from freehold.core.entries import Origin
from freehold.core.execution import Run
from freehold.ids import FunctionId, ObjectId, TaskId, return_id, short
from freehold.roles.executor import Executor
from freehold.runtime import current, importing, places
from freehold.runtime.actor_errors import constructor_raised
from freehold.runtime.cancelling import Interruption, MainThread, announce
from freehold.runtime.context import (
    CONTEXT,
    INLINE_BYTES,
    NOTHING_GRANTED,
    Context,
    Granted,
    ObjectRef,
)
from freehold.runtime.coroutines import Coroutines
from freehold.runtime.devices import Devices
from freehold.runtime.hosting import REPLY_EVERY, ActorExit, Guard, Host
from freehold.runtime.importing import DriverFinder
from freehold.runtime.interrupts import BOOKKEEPERS
from freehold.runtime.process import (
    LEND_AFTER,
    Process,
    new_job,
    process_address,
    read_node_file,
)
from freehold.runtime.pump import GRACE
from freehold.runtime.slots import Slot
from freehold.runtime.storing import store_all
from freehold.runtime.surroundings import Surroundings
from freehold.runtime.system_errors import SystemErrors
from freehold.runtime.waking import Signal
from freehold.runtime.yielding import carry_on
from freehold.wire import serial
from freehold.wire.failures import dump_error
from freehold.wire.messages import (
    FAILED,
    INLINE,
    STORED,
    Address,
    AssignJob,
    Call,
    Creation,
    Message,
    PushTask,
    Register,
    Stop,
    Value,
)

#: Seconds to wait for the node's word on a lease whose task is here: it was sent first.
LEASE_PATIENCE: Final = 1.0
#: Where this file lies.
RUNTIME: Final = f"{Path(__file__).parent}{os.sep}"
#: Files that are not the user's own.
LIBRARY: Final = re.compile(
    rf"<frozen|{re.escape(str(Path(os.__file__).parent))}/|.*/site-packages/"
)


#: How a run has ended: its results, microseconds in user code, whether to try it again.
Outcome: TypeAlias = tuple[list[Value], int, bool]


class Awake:
    """The main thread waits until there is a task to run."""

    __slots__ = ("worker",)

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    @property
    def done(self) -> bool:
        """Whether there is."""
        worker = self.worker
        return bool(worker.assigned and worker.executor.execution.ready) or worker.stopping


class Assigned:
    """The main thread waits for its node's word on a lease: that to the owner was quicker."""

    __slots__ = ("lease", "worker")

    def __init__(self, worker: Worker, lease: bytes) -> None:
        self.worker = worker
        self.lease = lease

    @property
    def done(self) -> bool:
        """Whether it is here."""
        return self.worker.lease == self.lease or self.worker.stopping


class Worker(Process):
    """A worker process."""

    def __init__(self, folder: Path, node: places.NodeFile, start: int) -> None:
        super().__init__(folder, node, process_address(node.address), current.ref_type())
        self.start_number = start
        self.executor = Executor(self.transport, SystemErrors(), self.node, new_job())
        self.play(self.executor)
        self.executor.execution.interrupt = self.interrupt
        self.executor.estate.gone = self.leave
        self.executor.end_actor = self.leave
        self.executor.abort_actor = lambda: os._exit(0)
        self.host: Host | None = None
        self.assigned = False  # a job's
        self.surroundings: Surroundings | None = None
        self.finder: DriverFinder | None = None
        self.devices = Devices()
        self.granted = NOTHING_GRANTED
        self.lease = b""  # the one that we were told of last
        self.stopping = False
        self.root = Context(TaskId(os.urandom(16)), depth=1)
        self.functions: dict[FunctionId, Any] = {}
        self.running: Run | None = None
        self.main_thread = threading.get_ident()
        self.interrupts = MainThread(self.transport)
        self.coroutines = Coroutines(self)
        self.interrupts.running = lambda: self.running
        self.interrupts.whereabouts = self.whereabouts
        self.pump.on_turn = self.look_after_queue
        self.executor.telling.title = f"worker {os.getpid()}"
        self.executor.telling.whereabouts = self.whereabouts

    def run(self) -> None:
        """Join the node and run tasks until told to stop."""
        self.interrupts.listen()
        self.join(Register(self.address, os.getpid(), self.executor.job, self.start_number, False))
        self.pump.start()
        idle = Signal()
        awake = Awake(self)
        while not self.stopping:
            self.pump.wait(awake, idle, None)
            self.run_ready()
            if self.host is not None and self.host.loop is not None and not self.stopping:
                self.host.run_loop()
        if self.host is not None:
            self.host.shutdown()
            with self.lock:
                self.transport.flush()
        self.close()

    def run_ready(self) -> None:
        """Run what is ready; send replies together while there is more to run."""
        execution = self.executor.execution
        sent = time.monotonic()
        with self.lock:
            run = self.executor.begin()
        while run is not None:
            if run.message.lease != self.lease and run.message.actor is None:
                self.pump.wait(
                    Assigned(self, run.message.lease), Signal(), time.monotonic() + LEASE_PATIENCE
                )
            self.running = run
            outcome = self.run_one(run, self.interrupts)
            self.running = None
            now = time.monotonic()
            with self.lock:
                self.answer(run, *outcome)
                if now - sent > REPLY_EVERY or not execution.ready:
                    sent = now
                    self.settle()
                    self.transport.flush()
                run = self.executor.begin()

    # ------------------------------------------------------------------ one task

    def enter(self, run: Run) -> None:
        """What this thread or coroutine does from now on belongs to a run."""
        message = run.message
        name = message.name or self.executor.execution.functions[message.function].name
        CONTEXT.set(Context(message.task, message.depth + 1, name, run, self.granted))

    def run_one(self, run: Run, interrupts: MainThread | Guard) -> Outcome:
        """Run a task's user code on this thread. Returns what ``answer`` is to be given."""
        message = run.message
        self.enter(run)
        retry = False
        started = time.perf_counter()
        try:
            function, args, kwargs = self.load(run)
            if message.timed:
                with self.lock:
                    self.executor.execution.user_code_begins(run)
                    self.transport.flush()
            try:
                interrupts.interruptible = True
                if run.cancelled:
                    raise errors.TaskCancelledError(function_name=message.name)
                value = function(*args, **kwargs)
            finally:
                interrupts.interruptible = False
            if message.stream is not None or type(value) is CoroutineType:
                value = carry_on(self, run, value, interrupts)
            micros = int((time.perf_counter() - started) * 1e6)
            del args, kwargs
            results = self.results(run, value, function)
            del value
        except BaseException as error:
            interrupts.interruptible = False
            micros = int((time.perf_counter() - started) * 1e6)
            results, retry = self.failed(run, error)
        CONTEXT.set(None)
        return results, micros, retry

    def results(self, run: Run, value: Any, function: Callable[..., Any]) -> list[Value]:
        """What a run has returned, brought to where it will be read."""
        message = run.message
        if message.num_returns == 1:
            if type(value) in serial.PLAIN:
                blob = serial.NONE if value is None else serial.plain_blob(value)
                if len(blob) <= INLINE_BYTES:
                    return [Value(INLINE, blob)]
            return [self.result(return_id(message.task, 0), value, run)]
        return store_all(self, self.serialized(run, value, function), run.submitter)

    def serialized(
        self, run: Run, value: Any, function: Callable[..., Any]
    ) -> Iterator[tuple[ObjectId, serial.Serialized]]:
        """Each of several return values, ready to be stored. Handles to its references live until
        the reply is out.
        """
        message = run.message
        for index, item in enumerate(split(value, message.num_returns, function)):
            packed = serial.serialize(item, "the return value")
            if packed.refs:
                self.keep_until_sent(packed.refs, run)
            yield return_id(message.task, index), packed

    def failed(self, run: Run, error: BaseException) -> tuple[list[Value], bool]:
        """What is answered instead if it has raised, and whether it may be tried again."""
        if isinstance(error, ActorExit) and self.host is not None:
            self.host.exiting = True
        elif run.message.num_returns == 0:
            traceback.print_exception(error)
        retry = self.wants_retry(error, run)
        return [Value(FAILED, self.pack_error(error, run))] * run.message.num_returns, retry

    def answer(self, run: Run, results: list[Value], micros: int, retry: bool) -> None:
        """User code has ended: tell the owner, and whoever waits for it here. Under the lock."""
        if self.dropped:
            self.settle()  # or what the task has dropped would count as its children
        self.executor.finished(run, results, micros, retry)
        if run.message.actor is None:
            return
        host = self.host
        if host is not None and host.exiting:
            if not self.stopping:
                self.executor.exit_actor()
                self.leave()
        elif type(run.message.actor) is Creation and (host is None or host.instance is None):
            self.stopping = True  # there is no actor

    @property
    def actor_id(self) -> ObjectId | None:
        """The actor that lives here."""
        return self.host.actor if self.host is not None else None

    def origin(self, run: Run) -> Origin:
        """What a running task makes comes from there."""
        return self.executor.origin(run)

    def load(self, run: Run) -> tuple[Callable[..., Any], Sequence[Any], dict[str, Any]]:
        """The function and arguments of a task."""
        if self.surroundings is not None:
            self.surroundings.set_up()
        message = run.message
        inner: list[ObjectRef] = []
        if message.borrowed:
            with self.lock:
                inner = self.references(message.borrowed)
        actor = message.actor
        if actor is None:
            function = self.functions.get(message.function)
            if function is None:
                function = self.define(message, inner)
        elif type(actor) is Call:
            assert self.host is not None
            function = self.host.method(actor.method)
        else:
            self.host = Host(self, run)
            function = partial(self.host.construct, self.define(message, inner))
        if message.args == serial.NO_ARGUMENTS:
            return function, (), {}
        args, kwargs = serial.deserialize(message.args, inner)
        if message.deps:
            values = self.arguments(run)
            args = [values[arg.index] if type(arg) is Slot else arg for arg in args]
            kwargs = {
                name: values[arg.index] if type(arg) is Slot else arg
                for name, arg in kwargs.items()
            }
        return function, args, kwargs

    def define(self, message: PushTask, inner: Sequence[ObjectRef]) -> Any:
        """A function or class that this process has not used yet."""
        definition = self.executor.execution.functions[message.function]
        captured = inner[len(inner) - definition.references :] if definition.references else ()
        function = serial.load_function(definition.pickled, captured)
        self.functions[message.function] = function
        return function

    def arguments(self, run: Run) -> list[Any]:
        """The values of the top-level references, in slot order."""
        views: dict[ObjectId, memoryview] = {}
        found, run.found = run.found, {}
        for object_id, place in found.items():
            views[object_id] = self.view(object_id, *place)
        values = []
        for argument in run.message.deps:
            value = argument.value
            inner: Sequence[ObjectRef] = ()
            if value.contains:
                with self.lock:
                    inner = self.references(value.contains)
            blob = views[argument.ref.object] if value.kind == STORED else value.data
            values.append(serial.deserialize(blob, inner))
        return values

    def result(self, object_id: ObjectId, value: Any, run: Run) -> Value:
        """A return value, brought to where it will be read. Handles to its references live until
        the reply is out.
        """
        if type(value) is Value:  # an actor's place
            return value
        packed = serial.serialize(value, "the return value")
        stored = self.store(object_id, packed, run.submitter)
        if packed.refs:
            self.keep_until_sent(packed.refs, run)
        return stored

    def keep_until_sent(self, refs: list[Any], run: Run) -> None:
        """Pin returned references until the reply has handed them out: ``drop`` unpins them."""
        with self.lock:
            for ref in refs:
                self.executor.ownership.pin(ref._ref.object)
                run.pinned.append(ref._ref)

    def wants_retry(self, error: BaseException, run: Run) -> bool:
        """Whether the user asked to have this exception retried."""
        wanted = run.message.retry_exceptions
        if run.timeout:
            error = errors.TaskTimeoutError()
        if not wanted or isinstance(error, Interruption | errors.TaskCancelledError):
            return False
        if wanted == b"*":
            return isinstance(error, Exception)
        with contextlib.suppress(Exception):
            return isinstance(error, pickle.loads(wanted))
        return False

    def pack_error(self, error: BaseException, run: Run) -> bytes:
        """The shipped form of what the task raised."""
        importing.explain(error, self.finder)
        message = run.message
        definition = self.executor.execution.functions.get(message.function)
        name = message.name or (definition.name if definition else "task")
        if run.timeout:
            return SystemErrors().timed_out(name, run.timeout, self.interrupts.where)
        if run.cancelled:
            return SystemErrors().cancelled(name)
        if isinstance(error, ActorExit):
            return SystemErrors().actor_ended(name, "it has called exit_actor()")
        node = short(self.node.node)
        if type(message.actor) is Creation:
            return constructor_raised(name, error, node)
        return dump_error(error, function_name=name, pid=os.getpid(), node_id=node)

    # ------------------------------------------------------------------ waiting inside a task

    def await_it(self, awaited: Any, signal_: Signal, timeout: float | None) -> None:
        """Wait; after a moment lend the task's CPU out and give back what lies behind it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        soon = time.monotonic() + LEND_AFTER
        if threading.get_ident() != self.main_thread or (deadline is not None and deadline < soon):
            self.wait_long(awaited, signal_, deadline)
            return
        if self.pump.wait(awaited, signal_, soon):
            return
        with self.lock:
            self.executor.block(awaited, deadline)
            self.transport.flush()
        try:
            self.wait_long(awaited, signal_, deadline)
        finally:
            with self.lock:
                self.executor.unblock()
                self.transport.flush()

    def whereabouts(self) -> str:
        """The line of the user's own code that the running task is at, not of a library that it
        has called, unless there is no other. (While the task is being loaded there may be none.)
        """
        frames = []
        frame = sys._current_frames().get(self.main_thread)
        while frame is not None:
            ours = frame.f_globals.get("__name__", "").startswith(BOOKKEEPERS)
            if not ours and not frame.f_code.co_filename.startswith(RUNTIME):  # (as __main__)
                frames.append(frame)
            frame = frame.f_back
        own = [frame for frame in frames if not LIBRARY.match(frame.f_code.co_filename)]
        for frame in (own or (frames if self.interrupts.interruptible else []))[:1]:
            code = frame.f_code
            return f"line {frame.f_lineno} of {code.co_filename}, in {code.co_name}()"
        return ""

    def look_after_queue(self) -> float | None:
        """On the background thread: once the running task has been at it for GRACE, nothing waits
        behind it. Returns the seconds until then.
        """
        if self.running is None or self.executor.execution.slow:
            return None
        left = self.executor.execution.began + GRACE - time.monotonic()
        if left > 0:
            return left
        with self.lock:
            self.executor.give_way()
            self.transport.flush()
        return None

    # ------------------------------------------------------------------ events

    def other_message(self, message: Message, peer: Address) -> None:
        """A job to belong to, or the end."""
        if type(message) is AssignJob:
            self.use(message)
            if not self.assigned:
                self.bind(message)
            self.assigned = True
        elif type(message) is Stop:
            self.executor.stop(message)
        else:
            super().other_message(message, peer)

    def leave(self) -> None:
        """Nothing keeps us: the main thread ends the process."""
        self.stopping = True
        if self.host is not None:
            self.host.stop()
        self.transport.wake()

    def use(self, lease: AssignJob) -> None:
        """What the next tasks may use of the machine."""
        assert self.registered is not None
        self.devices.apply(lease.resources, lease.gpus, self.registered.resources)
        gpus = self.devices.named(lease.gpus) if lease.gpus else ()
        self.granted = Granted(lease.resources, lease.placement, gpus)
        self.lease = lease.lease

    def bind(self, job: AssignJob) -> None:
        """From now on this process is the job's: it imports what the driver imports."""
        self.executor.leasing.job = job.job
        self.executor.job = job.job
        self.explainer.after = job.explain_after
        self.finder = DriverFinder(self, job.driver)
        sys.meta_path.append(self.finder)
        serial.why_missing = self.finder.why
        for path in reversed(job.python_path):
            if path not in sys.path:
                sys.path.insert(0, path)
        with contextlib.suppress(OSError):
            os.chdir(job.cwd)
        if job.furnished is not None:
            self.surroundings = Surroundings(job.furnished)
            self.adopt_environment(job.furnished.environment)
            self.surroundings.move_in()

    def on_lost(self, peer: Address) -> None:
        """Without its node a worker has no place to be."""
        super().on_lost(peer)
        if peer.process == self.node.process:
            os._exit(0)

    def interrupt(self, run: Run) -> None:
        """A task that has begun is cancelled: set its token, and raise Interruption in it."""
        announce(run)
        if self.host is not None and self.host.interrupt(run):
            return
        if run is self.running:
            self.coroutines.interrupt(run)
            self.interrupts.interrupt(run)


def split(value: Any, count: int, function: Any) -> Iterator[Any]:
    """A task's return values, one per reference. A generator's are taken one by one, so that each
    may be stored and dropped before the next is made.
    """
    if count == 1:
        yield value
        return
    if count == 0:
        return
    name = getattr(function, "__name__", "the task")
    try:
        values = iter(value)
    except TypeError:
        kind = type(value).__name__
        raise ValueError(
            f"{name}() has num_returns={count} but returned one {kind}, not {count} values"
        ) from None
    made = 0
    for item in values:
        made += 1
        if made > count:
            raise ValueError(f"{name}() has num_returns={count} but returned more values")
        yield item
    if made != count:
        raise ValueError(f"{name}() has num_returns={count} but returned {made} values")


def main(folder: Path, start: int) -> None:
    """Entry point of a forked worker."""
    node = read_node_file(folder)
    worker = Worker(folder, node, start)
    current.set_process(worker)
    gc.freeze()
    try:
        worker.run()
    except errors.ClusterUnreachableError:
        pass  # the node went away while we were starting
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
