"""A process of the cluster that runs user code: the core that drivers and workers share.

It joins a role (an owner, or an executor) to a transport, a pump and the node's arena, and offers
what ``api`` needs: submit, put, get, wait, cancel. User code's thread does the work: it takes the
lock, calls the role, and sends what the role wants sent before it lets go.

References and views that Python drops are noted without the lock (a finalizer runs anywhere, even
inside our own code) and settled at the start of the next turn.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from freehold import errors
from freehold.core.entries import Origin
from freehold.core.execution import Run
from freehold.core.fetching import Get, Wait
from freehold.ids import (
    JobId,
    NodeId,
    ObjectId,
    ProcessId,
)
from freehold.roles.owner import Owner
from freehold.runtime import aio, places
from freehold.runtime.context import CONTEXT, INLINE_BYTES, Context, ObjectRef
from freehold.runtime.descriptors import ARENA, DescriptorChannel
from freehold.runtime.explainer import Explainer
from freehold.runtime.pump import Pump
from freehold.runtime.storing import inline, store_all
from freehold.runtime.transport import Transport
from freehold.runtime.waking import Signal
from freehold.store.arena import Arena
from freehold.wire import serial
from freehold.wire.environments import Environment, key_of
from freehold.wire.failures import load_error
from freehold.wire.handshake import Hello
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    Message,
    ProcessLost,
    Reference,
    Register,
    Registered,
    Value,
)

#: How long a ``get`` whose time is over may go on for values in this node's own store (seconds).
IN_STORE: Final = 0.5
#: How long a ``get`` inside a task may wait before its CPU is lent out (seconds): longer than most
#: answers, much shorter than any task that is worth another worker.
LEND_AFTER: Final = 0.002


class Process:
    """The core of a driver or worker."""

    sockets = True  # False: everything is in this process (``local``)

    def __init__(
        self, folder: Path, node: places.NodeFile, address: Address, make_ref: type[ObjectRef]
    ) -> None:
        self.session = folder.parent
        self.folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.node = node.address
        self.head = node.head
        token = places.read_token(folder.parent)
        self.transport = Transport(address, token, self.folder_fd)
        self.transport.on_lost = self.on_lost
        self.transport.on_turn = self.settle
        self.pump = Pump(self.transport)
        self.lock = self.transport.lock
        self.address = address
        self.make_ref = make_ref
        self.role: Owner
        self.registered: Registered | None = None
        self.channel: DescriptorChannel | None = None
        self._arena: Arena | None = None
        self.dropped: deque[ObjectId] = deque()
        self.released: deque[ObjectId] = deque()
        self.finalizers: deque[Callable[[], None]] = deque()  # what collected objects leave to do
        self.readers: dict[Any, aio.LoopReader] = {}  # by event loop
        self.pump.on_overdue = lambda: aio.sweep(self)
        self.root: Context
        self.closed = False
        self.replies: dict[int, Reply] = {}
        self.requests = 0
        self.node_gone = False
        self.explainer = Explainer(self)
        self.environment: Environment | None = None  # the job's, or that which this worker is in
        self.environment_key = b""
        #: What functions ask for, as written -> held as such, and its key.
        self.environments: dict[str, tuple[object, bytes]] = {}

    # ------------------------------------------------------------------ joining

    def play(self, role: Owner) -> None:
        """Be an owner, or an executor: it hears what comes, and passes on what is not for it."""
        self.role = role
        self.transport.on_message = role.handle
        role.unhandled = self.other_message

    def join(self, register: Register) -> None:
        """Register with the node and wait for its answer. Raises ClusterUnreachableError if none
        comes.
        """
        try:
            self.transport.listen_unix()
        except FileNotFoundError:
            raise errors.ClusterUnreachableError(
                "the node that was to connect this program has just ended, and its folder is gone"
            ) from None
        self.channel = DescriptorChannel(
            self.transport.token, self.folder_fd, self.address, self.node.process
        )
        with self.lock:
            self.transport.send(self.node, register)
            self.transport.flush()
        deadline = time.monotonic() + 10.0
        while self.registered is None:
            self.transport.poll(0.5)
            if self.node_gone or time.monotonic() > deadline:
                raise errors.ClusterUnreachableError(
                    f"the node daemon (pid in {self.folder_fd}) does not answer; is it stopping?"
                )
        with self.lock:
            self.channel.watch(self.transport, self.on_descriptor)

    def on_descriptor(self, hello: Hello, descriptor: int) -> None:
        """Our node passes a connection on to us."""
        self.transport.take_over(socket.socket(fileno=descriptor), hello)

    @property
    def arena(self) -> Arena:
        """The node's shared memory, mapped at first use."""
        if self._arena is None:
            assert self.channel is not None
            assert self.registered is not None
            with self.lock:
                if self._arena is None:
                    descriptor = self.channel.wait_for(ARENA)
                    self._arena = Arena.attach(descriptor, self.registered.arena_bytes)
        return self._arena

    def adopt_environment(self, environment: Environment) -> None:
        """From now on what this process submits runs in it, unless it says otherwise."""
        self.environment = environment
        self.environment_key = self.use_environment(environment)

    def use_environment(self, environment: Environment) -> bytes:
        """The key by which an environment may be asked for: we can describe it to nodes."""
        key = key_of(environment)
        self.role.environments[key] = environment
        return key

    # ------------------------------------------------------------------ turns

    def other_message(self, message: Message, peer: Address) -> None:
        """A message that is not for the role; workers and drivers take more."""
        if type(message) is Registered:
            self.registered = message
            self.transport.be_patient(message.dead_after)
        elif type(message) is ProcessLost:
            # Where we have a stream to it, its end is its death: this must not overtake it.
            if message.process not in self.transport.peers:
                self.on_lost(Address(message.process, NodeId(b""), "", 0))
        else:  # an answer to a question of ours
            request = getattr(message, "request", None)
            reply = self.replies.pop(request, None) if request is not None else None
            if reply is not None:
                reply.answer(message)

    def on_lost(self, peer: Address) -> None:
        """A peer's last stream has ended."""
        self.role.peer_lost(peer)
        if peer.process == self.node.process:
            self.node_gone = True
        for reply in [r for r in self.replies.values() if r.peer == peer.process]:
            reply.answer(None)

    def settle(self) -> None:
        """Let the role know of what Python has dropped. Under the lock."""
        self.transport.unsettled = False
        dropped, released = self.dropped, self.released
        drop_handle = self.role.ownership.drop_handle
        while dropped:
            drop_handle(dropped.popleft())
        while released:
            self.role.fetching.release(released.popleft())
        while self.finalizers:
            self.finalizers.popleft()()

    @property
    def actor_id(self) -> ObjectId | None:
        """The actor of which this thread runs a method; None elsewhere."""
        return None

    def context(self) -> Context:
        """What this thread or coroutine is part of."""
        return CONTEXT.get() or self.root

    def ask(self, peer: Address, make: Callable[[int], Message], timeout: float = 10.0) -> Any:
        """Send a question and wait for its answer. Raises ClusterUnreachableError if none comes."""
        with self.lock:
            self.requests += 1
            reply = self.replies[self.requests] = Reply(peer.process)
            self.transport.send(peer, make(self.requests))
            self.transport.flush()
        self.pump.wait(reply, reply.signal, time.monotonic() + timeout)
        if reply.message is None:
            raise errors.ClusterUnreachableError(
                f"no answer from {peer.host}:{peer.port} within {timeout:g} s"
            )
        return reply.message

    # ------------------------------------------------------------------ references

    def references(self, refs: Iterable[Reference]) -> list[ObjectRef]:
        """Handles for references that were counted. Under the lock."""
        add_handle = self.role.ownership.add_handle
        handles = []
        for ref in refs:
            add_handle(ref)
            handles.append(self.make_ref(self, ref))
        return handles

    # ------------------------------------------------------------------ put

    def put(self, value: Any) -> ObjectRef:
        """Store a value under a new reference of ours."""
        context = self.context()
        packed = serial.serialize(value)
        object_id = context.names.next_put(packed.fingerprint() if context.run else b"")
        stored = self.store(object_id, packed, self.address)
        if stored.kind == FAILED:
            raise load_error(stored.data)
        with self.lock:
            origin = self.origin(context.run) if context.run is not None else None
            self.role.put(object_id, stored, origin)
            self.transport.flush()
        line = origin.line if origin is not None else ()
        return self.make_ref(self, Reference(object_id, self.address, line))

    def origin(self, run: Run) -> Origin:
        """What a running task makes comes from there. Under the lock; only workers run tasks."""
        raise NotImplementedError

    def store(self, object_id: ObjectId, packed: serial.Serialized, owner: Address) -> Value:
        """Bring a serialised value to where it will be read: into the message, or the node's
        store.
        """
        if packed.size <= INLINE_BYTES:
            return inline(packed)
        return store_all(self, [(object_id, packed)], owner)[0]

    # ------------------------------------------------------------------ get and wait

    def get(
        self, refs: Sequence[ObjectRef], timeout: float | None, *, writable: bool = False
    ) -> list[Any]:
        """The values, in order. Raises the first error among them, or GetTimeoutError."""
        objects = [ref._ref.object for ref in refs]
        signal = Signal()
        with self.lock:
            self.settle()
            getting = self.role.get(objects, signal.ring)
            self.transport.flush()
        try:
            if not getting.done:
                self.await_it(getting, signal, timeout)
            if not getting.done and self.role.all_here(getting.pending):
                # They are in this node's store: a timeout is about values that do not exist yet.
                self.await_it(getting, signal, IN_STORE)
            if not getting.done:
                raise self.explainer.timed_out(objects, timeout, getting.pending)
            taken = self.taken(getting, objects, writable=writable)
        finally:
            self.let_go(getting)
        if taken is None:  # lost again, perhaps for good, before we came for it
            return self.get(refs, timeout, writable=writable)
        return taken

    def taken(
        self, getting: Get, objects: Sequence[ObjectId], *, writable: bool = False
    ) -> list[Any] | None:
        """The values of a get that is done, in order; None if one is lost again. Raises the first
        error among them.
        """
        if getting.failed is not None:
            raise self.explainer.error(getting.failed, objects)
        known: list[tuple[ObjectId, Value, Sequence[ObjectRef]]] = []
        with self.lock:
            entries = self.role.ownership.entries
            for asked in objects:
                entry = entries[asked]
                value = entry.value
                if value is None or value.kind == FAILED:
                    return None
                if value.kind == STORED and entry.object not in getting.found:
                    return None  # made again elsewhere meanwhile, perhaps under another id
                refs: Sequence[ObjectRef] = ()
                if value.contains:
                    refs = self.references(value.contains)
                known.append((entry.object, value, refs))
            found, getting.found = getting.found, {}
        views: dict[ObjectId, memoryview] = {}
        for object_id, place in found.items():
            views[object_id] = self.view(object_id, *place, writable=writable)
        taken = []
        for object_id, value, refs in known:
            blob: bytes | memoryview = value.data
            if value.kind == STORED:
                blob = views[object_id]
            elif writable:
                blob = memoryview(bytearray(blob))
            taken.append(serial.deserialize(blob, refs, writable=writable))
        return taken

    def let_go(self, awaited: Get | Wait) -> None:
        """A get or wait is over, done or not."""
        found = awaited.found if type(awaited) is Get else ()
        if found or awaited.pending:
            with self.lock:
                awaited.close()
                self.released.extend(found)
                self.settle()
                self.transport.flush()

    def view(
        self, object_id: ObjectId, offset: int, size: int, *, writable: bool = False
    ) -> memoryview:
        """A view of a pinned object; the pin goes when the last view of it does. A writable one
        is private: its pages are copied as they are written.
        """
        make = self.arena.private_view if writable else self.arena.read_view
        return make(offset, size, lambda: self.view_gone(object_id))

    def view_gone(self, object_id: ObjectId) -> None:
        """A finalizer's note."""
        self.released.append(object_id)
        if not self.transport.unsettled:
            self.unsettle()

    def unsettle(self) -> None:
        """In a finalizer: the next turn has something to ``settle``. Who reads the sockets may
        sleep already; who begins to looks whether there is anything first.
        """
        self.transport.unsettled = True
        if self.pump.lead.locked():
            self.transport.wake()

    def await_it(self, awaited: Any, signal: Signal, timeout: float | None) -> None:
        """Wait for a get or wait to be done."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait_long(awaited, signal, deadline)

    def wait_long(self, awaited: Any, signal: Signal, deadline: float | None) -> None:
        """Wait; a get without an end says after a while what it waits for, and again each time
        that it has waited twice as long.
        """
        patience = self.explainer.patience()
        if deadline is not None or patience is None or type(awaited) is not Get:
            self.pump.wait(awaited, signal, deadline)
            return
        began = time.monotonic()
        while not self.pump.wait(awaited, signal, began + patience):
            self.explainer.say_why(awaited, patience)
            patience *= 2

    def ready(
        self, objects: Sequence[ObjectId], needed: int, timeout: float | None, *, fetch: bool
    ) -> list[int]:
        """Once ``needed`` of the objects are ready, or the time is over: where the first of these
        stand, ``needed`` at most.
        """
        signal = Signal()
        with self.lock:
            self.settle()
            waiting = self.role.wait(objects, needed, fetch, signal.ring)
            self.transport.flush()
        if not waiting.done:
            self.await_it(waiting, signal, timeout)
        with self.lock:
            return self.found_ready(waiting, objects, needed)

    def found_ready(self, waiting: Wait, objects: Sequence[ObjectId], needed: int) -> list[int]:
        """A wait is over: where what it has found stands. Under the lock."""
        waiting.close()
        self.transport.flush()
        known, ready = self.role.ownership.entries.get, waiting.ready
        found = (  # (one that has no entry any more was ready when it was freed)
            index
            for index, key in enumerate(objects)
            if (entry := known(key)) is None or entry.object in ready
        )
        return list(islice(found, needed))  # (the rest of a thousand need not be looked at)

    def when_done(self, ref: ObjectRef, action: Callable[[], None]) -> None:
        """Have ``action`` called, by whichever thread, once the value is there or has failed."""
        with self.lock:
            getting = self.role.get([ref._ref.object], lambda: None)

            def finished() -> None:
                self.released.extend(getting.found)
                action()

            if not getting.done:
                getting.wake = finished
                self.transport.flush()
                return
        finished()

    def cancel(self, ref: ObjectRef, *, force: bool, recursive: bool, grace: float) -> None:
        """Cancel the task that makes the value."""
        with self.lock:
            self.settle()
            self.role.cancel(ref._ref.object, force=force, recursive=recursive, grace=grace)
            self.transport.flush()

    # ------------------------------------------------------------------ the end

    def abandon(self) -> None:
        """In a forked child: hold nothing that the parent uses (a peer sees our parent's end by
        the end of its streams), and make every use an error.
        """
        self.closed = True
        self.lock = Severed()  # type: ignore[assignment]
        self.transport.lock = threading.RLock()  # a thread that is not here may have had the old
        self.transport.close()
        if self.channel is not None:
            self.channel.close()
        os.close(self.folder_fd)

    def close(self) -> None:
        """Leave: stop reading, close every connection."""
        self.closed = True
        self.pump.stop()
        for found in list(self.readers.values()):
            found.retire()
        self.transport.close()
        if self.channel is not None:
            self.channel.close()
        if self._arena is not None:
            self._arena.close()
        os.close(self.folder_fd)


class Severed:
    """Takes the place of the lock in a process that was forked from a connected one."""

    def __enter__(self) -> None:
        raise errors.NotInitializedError(
            "this process was forked from one that is connected, and connections cannot be shared; "
            "call init() here. References of the parent have no meaning in it"
        )

    def __exit__(self, *_: object) -> None:
        raise AssertionError("never entered")


class Reply:
    """An answer that is waited for."""

    __slots__ = ("done", "message", "peer", "signal")

    def __init__(self, peer: ProcessId) -> None:
        self.peer = peer
        self.done = False
        self.message: Message | None = None
        self.signal = Signal()

    def answer(self, message: Message | None) -> None:
        """It has come; None: it never will."""
        self.message = message
        self.done = True
        self.signal.ring()


def process_address(node: Address) -> Address:
    """An address for a new process of a node."""
    return Address(ProcessId(os.urandom(8)), node.node, node.host, node.port)


def read_node_file(folder: Path) -> places.NodeFile:
    """The node file in a node's folder."""
    return msgspec.json.decode((folder / "node.json").read_bytes(), type=places.NodeFile)


def new_job() -> JobId:
    """An id for a new job."""
    return JobId(os.urandom(8))
