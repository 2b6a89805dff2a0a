"""Local mode: the whole of Freehold in one process, for debuggers and for tests of user code.

The owner is the real one (``roles.owner``), so that arguments, references, retries, actors, streams
and errors are what they are in a cluster. What it speaks to is played here, message by message: a
node that grants every lease that this machine could hold, and workers, which are only addresses.
A task is user code called while a message is delivered.

Messages are delivered when a cluster would send them (``Mail.flush``), that is before ``remote()``
returns. So a task has run, in the thread that called it and with the caller's frames above its
own, by the time one has its reference: ``breakpoint()`` in a task stops in the user's terminal, a
task runs whether or not anybody asks for its value, and two runs of a program are alike. Only a
stream waits for its consumer: each value is made when the one before has been taken and somebody
waits for the next.

Not as in a cluster: nothing runs beside anything else; a cancel finds its task done; ``timeout=``
is not enforced, because a person at a debugger would be timed out; what was printed is not marked.
``KeyboardInterrupt``, ``SystemExit`` and a debugger's quit are meant for the person, not for the
task: they pass through ``remote()``.

The life of one message: ``Mail.send`` -> ``mail`` -> delivered to the role, to the node or to a
worker, in the order sent. A task that submits others is called in the middle of a delivery, and
delivers in its turn what is there: the order stays, because each message is taken out first.

Races considered: none of its own. Threads of the user that call in at the same time are kept apart
by the interpreter lock alone.
"""

from __future__ import annotations

import asyncio
import bdb
import contextlib
import heapq
import inspect
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, Final, cast

from freehold import errors, resources
from freehold.core.entries import Origin
from freehold.core.execution import Run
from freehold.core.explaining import Inquiry
from freehold.core.world import Timer
from freehold.ids import FunctionId, JobId, NodeId, ObjectId, ProcessId, TaskId, return_id
from freehold.resources import Resources
from freehold.roles.owner import Owner
from freehold.runtime import current
from freehold.runtime.context import CONTEXT, NOTHING_GRANTED, Context, Granted, ObjectRef
from freehold.runtime.explainer import Explainer
from freehold.runtime.hosting import SHUTDOWN, ActorExit
from freehold.runtime.process import Process
from freehold.runtime.slots import Slot
from freehold.runtime.storing import inline
from freehold.runtime.system_errors import SystemErrors
from freehold.runtime.transport import Timed
from freehold.runtime.waking import Signal
from freehold.runtime.worker import split
from freehold.wire import serial
from freehold.wire.actors import Place, packed
from freehold.wire.environments import Environment
from freehold.wire.failures import dump_error
from freehold.wire.messages import (
    ACTOR,
    FAILED,
    ActorExited,
    Address,
    Call,
    CancelTask,
    CloseStream,
    Creation,
    Death,
    DefineFunction,
    Describe,
    Description,
    EndActor,
    KillLease,
    LeaseEnded,
    LeaseGranted,
    LeaseRefused,
    Message,
    NodeInfo,
    PushTask,
    Release,
    RequestLease,
    ReturnLease,
    StreamEnd,
    StreamItem,
    TaskDone,
    Value,
)

#: What ends the program, or the session at the debugger, and not the task.
FOR_THE_PERSON: Final = (KeyboardInterrupt, SystemExit, GeneratorExit, bdb.BdbQuit)
#: Seconds between two looks of a thread that waits for what another one is about.
LOOK: Final = 0.001
END: Final = object()


class Mail:
    """What a role sends goes here. Stands in for the transport: implements ``World``."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.lock = contextlib.nullcontext()
        self.peers: dict[ProcessId, Any] = {}
        self.mail: deque[tuple[Address, Message]] = deque()
        self.timers: list[tuple[float, int, Timed]] = []
        self.numbers = count()
        self.unsettled = False
        self.deliver: Callable[[Address, Message], None]
        self.settle: Callable[[], None]  # what Python has dropped

    def now(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def send(self, to: Address, message: Message) -> None:
        """Keep it for the next delivery."""
        self.mail.append((to, message))

    def fence(self, node: NodeId) -> None:
        """There is no other node."""

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Called by the first delivery after that moment."""
        timed = Timed(when, action)
        heapq.heappush(self.timers, (when, next(self.numbers), timed))
        return timed

    def new_id(self) -> bytes:
        """Eight random bytes."""
        return os.urandom(8)

    def flush(self) -> None:
        """Deliver what there is, and what comes of that; make the calls that are due."""
        self.settle()
        while True:
            if self.mail:
                self.deliver(*self.mail.popleft())
            elif self.timers and self.timers[0][0] <= self.now():
                action = heapq.heappop(self.timers)[2].action
                if action is not None:
                    action()
            else:
                return

    flush_soon = flush

    def wake(self) -> None:
        """Nobody sleeps. (A finalizer calls this, anywhere: nothing may happen here.)"""


class LocalExplainer(Explainer):
    """Asks nobody."""

    def walk(
        self, inquiry: Inquiry, seconds: float, unwanted: Callable[[], bool] = lambda: False
    ) -> None:
        """There is nobody else to ask."""
        del seconds, unwanted
        inquiry.begin()


class Producer:
    """A generator in the middle of its task."""

    __slots__ = ("iterator", "made", "run", "worker")

    def __init__(self, run: Run, worker: Address, iterator: Iterator[Any]) -> None:
        self.run = run
        self.worker = worker
        self.iterator = iterator
        self.made = 0


class Local(Process):
    """One process that is everything. (Its parent's ``__init__`` would connect it.)"""

    sockets = False

    def __init__(self, offer: Resources, namespace: str) -> None:
        self.node_id = NodeId(os.urandom(8))
        self.address = self.fresh_address()
        self.node = self.head = Address(ProcessId(bytes(self.node_id)), self.node_id, "local", 0)
        self.session = "local"  # type: ignore[assignment]  # where others have a folder
        self.namespace = namespace
        self.offer = offer
        mail = Mail(self.address)
        mail.deliver = self.delivered
        mail.settle = self.settle
        self.transport = mail  # type: ignore[assignment]  # stands in for one
        self.lock = mail.lock  # type: ignore[assignment]
        stand_in: Any = SimpleNamespace(lead=threading.Lock(), send_soon=mail.flush)
        self.pump = stand_in
        self.make_ref = current.ref_type()
        self.role = Owner(mail, SystemErrors(), self.node, JobId(os.urandom(8)))
        self.role.unhandled = self.other_message
        self.root = Context(TaskId(os.urandom(16)))
        self.dropped = deque()
        self.released = deque()
        self.finalizers = deque()
        self.readers = {}
        self.closed = False
        self.node_gone = False
        self.environment = None
        self.environment_key = b""
        self.environments = {}
        self.explainer = LocalExplainer(self)
        self.explainer.after = None
        self.functions: dict[FunctionId, DefineFunction] = {}
        self.loaded: dict[FunctionId, Any] = {}
        self.instances: dict[ProcessId, Any] = {}  # of actors, by the address of their worker
        self.actors: dict[ProcessId, ObjectId] = {}  # what those are the instances of
        self.calls: dict[TaskId, ObjectId] = {}  # the calls of actors that run, and their actors
        self.workers: dict[bytes, Address] = {}  # by lease
        self.producers: dict[TaskId, Producer] = {}

    def fresh_address(self) -> Address:
        """An address of a process of this node."""
        return Address(ProcessId(os.urandom(8)), self.node_id, "local", 0)

    def leave(self) -> None:
        """The session is over. Actors end in good order."""
        instances, self.instances = self.instances, {}
        for instance in instances.values():
            getattr(instance, SHUTDOWN, lambda: None)()
        self.closed = True

    def abandon(self) -> None:
        """In a forked child: references of the parent have no meaning in it."""
        self.closed = True

    @property
    def actor_id(self) -> ObjectId | None:
        """The actor of which this thread runs a method."""
        return self.calls.get(self.context().task)

    def origin(self, run: Run) -> Origin:
        """Nobody here survives anybody, to claim something from a run."""
        del run
        return cast("Origin", None)

    def use_environment(self, environment: Environment) -> bytes:
        """There is no other process that could run in it."""
        raise errors.NotInitializedError(
            "runtime_env needs a cluster, and this program runs in local mode"
        )

    def store(self, object_id: ObjectId, packed: serial.Serialized, owner: Address) -> Value:
        """Values of any size are kept by their owner."""
        del object_id, owner
        return inline(packed)

    def ask(self, peer: Address, make: Callable[[int], Message], timeout: float = 10.0) -> Any:
        """What the head would say. Raises NotInitializedError for what only a cluster has."""
        del peer, timeout
        question = make(0)
        if not isinstance(question, Describe):
            raise errors.NotInitializedError(
                f"{type(question).__name__} needs a cluster, and this program runs in local mode"
            )
        info = NodeInfo(self.node, "local", os.getpid(), self.offer, dict(self.offer))
        return Description(0, [info], [])

    def await_it(self, awaited: Any, signal: Signal, timeout: float | None) -> None:
        """Make what is waited for: the next value of a stream, or what is due at some time."""
        del signal
        deadline = None if timeout is None else time.monotonic() + timeout
        while not awaited.done and (deadline is None or time.monotonic() < deadline):
            self.transport.flush()
            wanted = [TaskId(key[:16]) for key in awaited.pending]
            producer = next(filter(None, map(self.producers.get, wanted)), None)
            if producer is not None:
                self.produce(producer)
            elif not awaited.done:
                time.sleep(LOOK)

    # ------------------------------------------------------------------ the post

    def delivered(self, to: Address, message: Message) -> None:
        """One message, to whom it is for."""
        if to.process == self.address.process:
            self.role.handle(message, self.address)
        elif to.process == self.node.process:
            self.at_node(message)
        else:
            self.at_worker(to, message)

    def say(self, message: Message, by: Address) -> None:
        """A node or a worker says something to the role."""
        self.role.handle(message, by)

    def at_node(self, message: Message) -> None:
        """A node grants what it can hold, however much it has granted."""
        if isinstance(message, RequestLease):
            if resources.fits(message.resources, self.offer):
                worker = self.workers[message.lease] = self.fresh_address()
                self.say(LeaseGranted(message.lease, worker, os.getpid()), self.node)
            else:
                wanted = resources.describe(message.resources)
                has = resources.describe(self.offer)
                reason = f"{wanted} is needed; this process, in local mode, offers {has}"
                self.say(LeaseRefused(message.lease, reason), self.node)
        elif isinstance(message, ReturnLease):
            self.workers.pop(message.lease, None)
        elif isinstance(message, KillLease):
            self.instances.pop(self.workers[message.lease].process, None)
            self.end_worker(message.lease, Death(os.getpid(), self.node_id, signal=9))

    def end_worker(self, lease: bytes, death: Death) -> None:
        """A worker ends: its stream does, and its node says how."""
        worker = self.workers.pop(lease, None)
        if worker is not None:
            self.actors.pop(worker.process, None)
            self.role.peer_lost(worker)
            self.say(LeaseEnded(lease, death), self.node)  # type: ignore[arg-type]

    def at_worker(self, worker: Address, message: Message) -> None:
        """A worker runs what it is sent."""
        if isinstance(message, DefineFunction):
            self.functions[message.function] = message
        elif isinstance(message, PushTask):
            self.run(Run(message, self.address), worker)
        elif isinstance(message, CancelTask | CloseStream):
            producer = self.producers.pop(message.task, None)
            if producer is not None:
                close = getattr(producer.iterator, "close", lambda: None)
                self.inside(producer.run, close)
                self.ended(producer)
        elif isinstance(message, EndActor):
            self.end_actor(worker)

    def end_actor(self, worker: Address) -> None:
        """An actor ends in good order, and its worker with it."""
        instance = self.instances.pop(worker.process, None)
        getattr(instance, SHUTDOWN, lambda: None)()
        lease = next(key for key, place in self.workers.items() if place == worker)
        self.end_worker(lease, Death(os.getpid(), self.node_id, exit_code=0))

    # ------------------------------------------------------------------ tasks

    def run(self, run: Run, worker: Address) -> None:
        """Run a task to its end, or, if it makes a stream, to where that begins."""
        message = run.message
        if isinstance(message.actor, Creation):
            self.actors[worker.process] = return_id(message.task, 0)
        if message.actor is not None:
            self.calls[message.task] = self.actors[worker.process]
        try:
            value = self.inside(run, partial(self.called, run, worker))
            if message.stream is not None:
                self.producers[message.task] = Producer(run, worker, iter(value))
                return
            if isinstance(message.actor, Creation):
                results = [Value(ACTOR, packed(Place(worker, message.actor.life)))]
            else:
                results = self.results(run, value)
            self.answer(run, worker, results)
        except BaseException as error:
            self.failed(run, worker, error)

    def inside(self, run: Run, code: Callable[[], Any]) -> Any:
        """Run user code as part of a task."""
        message = run.message
        task = self.role.submission.tasks.get(message.task)
        granted = Granted(task.resources) if task is not None else NOTHING_GRANTED
        context = Context(message.task, message.depth + 1, self.title(message), run, granted)
        outer = CONTEXT.set(context)
        try:
            return code()
        finally:
            CONTEXT.reset(outer)

    def called(self, run: Run, worker: Address) -> Any:
        """Load the function and its arguments, and call it."""
        message, actor = run.message, run.message.actor
        inner = self.references(message.borrowed)
        args, kwargs = serial.deserialize(message.args, inner)
        values = [
            serial.deserialize(argument.value.data, self.references(argument.value.contains))
            for argument in message.deps
        ]
        args = [values[arg.index] if type(arg) is Slot else arg for arg in args]
        kwargs = {
            name: values[arg.index] if type(arg) is Slot else arg for name, arg in kwargs.items()
        }
        if isinstance(actor, Call):
            instance = self.instances[worker.process]
            if actor.method == "__call_with__":
                return finished(args[0], [instance, *args[1:]], kwargs)
            return finished(getattr(instance, actor.method), args, kwargs)
        value = finished(self.function(message, inner), args, kwargs)
        if isinstance(actor, Creation):
            self.instances[worker.process] = value
        return value

    def function(self, message: PushTask, inner: Sequence[ObjectRef]) -> Any:
        """The function, or the class, as it arrives elsewhere: unpickled, once."""
        if message.function not in self.loaded:
            definition = self.functions[message.function]
            captured = inner[len(inner) - definition.references :] if definition.references else ()
            self.loaded[message.function] = serial.load_function(definition.pickled, captured)
        return self.loaded[message.function]

    def results(self, run: Run, value: Any) -> list[Value]:
        """What a task has returned, ready to go."""
        message = run.message
        items = list(split(value, message.num_returns, self.loaded.get(message.function)))
        return [
            self.result(run, return_id(message.task, index), item)
            for index, item in enumerate(items)
        ]

    def result(self, run: Run, object_id: ObjectId, value: Any) -> Value:
        """One value. The references in it are pinned until it has arrived."""
        packed = serial.serialize(value, "the return value")
        for ref in packed.refs:
            self.role.ownership.pin(ref._ref.object)
            run.pinned.append(ref._ref)
        return self.store(object_id, packed, self.address)

    def failed(self, run: Run, worker: Address, error: BaseException) -> None:
        """A task has raised."""
        message, title = run.message, self.title(run.message)
        if isinstance(error, ActorExit):
            self.say(ActorExited(), worker)
        retry = self.wants_retry(error, message.retry_exceptions)
        shipped = dump_error(error, function_name=title, pid=os.getpid(), node_id="local")
        self.answer(run, worker, [Value(FAILED, shipped)] * message.num_returns, retry=retry)
        if isinstance(message.actor, Creation):  # there is no actor
            self.end_worker(message.lease, Death(os.getpid(), self.node_id, exit_code=0))
        if isinstance(error, ActorExit):
            self.end_actor(worker)
        elif isinstance(error, FOR_THE_PERSON):
            raise error

    def wants_retry(self, error: BaseException, wanted: bytes) -> bool:
        """Whether the user asked to have this exception retried."""
        kinds = pickle.loads(wanted) if wanted not in (b"", b"*") else Exception
        return bool(wanted) and isinstance(error, kinds)

    def answer(
        self, run: Run, worker: Address, results: list[Value], *, retry: bool = False
    ) -> None:
        """A task is over: say so, and release what was held for it."""
        message = run.message
        self.calls.pop(message.task, None)
        self.settle()
        self.say(TaskDone(message.task, message.attempt, results, 0, retry), worker)
        for ref in run.pinned:
            self.role.ownership.unpin(ref.object)
        taken = [*message.borrowed]
        for argument in message.deps:
            taken += argument.value.contains
        for ref in taken:
            self.say(Release(ref.object, 1), worker)

    def title(self, message: PushTask) -> str:
        """What to call a task."""
        return message.name or self.functions[message.function].name

    # ------------------------------------------------------------------ streams

    def produce(self, producer: Producer) -> None:
        """Make one more value of a stream, or come to its end."""
        run, message = producer.run, producer.run.message
        try:
            item = self.inside(run, lambda: next(producer.iterator, END))
            if item is END:
                del self.producers[message.task]
                self.ended(producer)
                return
            producer.made += 1
            value = self.result(run, return_id(message.task, producer.made), item)
        except BaseException as error:
            del self.producers[message.task]
            self.failed(run, producer.worker, error)
            return
        self.say(StreamItem(message.task, message.attempt, producer.made, value), producer.worker)

    def ended(self, producer: Producer) -> None:
        """A stream is complete."""
        run, message = producer.run, producer.run.message
        self.say(StreamEnd(message.task, message.attempt, producer.made), producer.worker)
        total = self.result(run, return_id(message.task, 0), producer.made)
        self.answer(run, producer.worker, [total])


def finished(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a function returns. A coroutine is run to its end, on a thread of its own if a loop
    runs on this one; of an asynchronous generator all values are made at once.
    """
    value = function(*args, **kwargs)
    if hasattr(value, "__aiter__") and not hasattr(value, "__await__"):
        return iter(run_coroutine(listed(value)))
    return run_coroutine(value) if inspect.iscoroutine(value) else value


async def listed(values: Any) -> list[Any]:
    """What an asynchronous generator yields."""
    return [value async for value in values]


def run_coroutine(coroutine: Any) -> Any:
    """The value of a coroutine."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[Callable[[], Any]] = []
    context = CONTEXT.get()

    def run() -> None:
        CONTEXT.set(context)
        try:
            value = asyncio.run(coroutine)
            outcome.append(lambda: value)
        except BaseException as error:
            outcome.append(partial(_raise, error))

    thread = threading.Thread(target=run, name="freehold-local")
    thread.start()
    thread.join()
    return outcome[0]()


def _raise(error: BaseException) -> None:
    raise error
