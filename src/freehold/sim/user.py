"""The thread that runs user code in a driver or worker: what ``runtime.process`` and
``runtime.worker`` do around the role, with the same order of calls.

A body (``programs.run_body``) is a generator; this file performs its requests against the role and
resumes it. Between two requests a little virtual time passes, so that anything may happen there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from freehold.core.entries import Origin
from freehold.core.execution import Run
from freehold.core.fetching import Creation, Get, Wait
from freehold.core.submission import Function, Task
from freehold.core.yielding import Outgoing
from freehold.ids import (
    FunctionId,
    JobId,
    Names,
    NodeId,
    ObjectId,
    RunNames,
    TaskId,
    return_id,
)
from freehold.resources import vector
from freehold.roles.owner import Owner
from freehold.sim import errors, grouping, streaming
from freehold.sim.acting import Blob, Handle, call_actor, kill_actor, make_actor
from freehold.sim.asking import Question
from freehold.sim.bodies import Made, Read
from freehold.sim.errors import Failure
from freehold.sim.making import surround
from freehold.sim.ops import Call, Cancel, Invoke, Make, Program
from freehold.sim.process import Process
from freehold.sim.requests import FurtherRequests
from freehold.sim.world import MICRO, MILLI, Event, nanoseconds
from freehold.wire.actors import Call as ActorCall
from freehold.wire.messages import (
    FAILED,
    INLINE,
    STORED,
    ActorsFound,
    Address,
    Groups,
    Message,
    ProcessLost,
    Reference,
    Value,
)

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.node import NodeProcess

GRACE = 5 * MILLI  # as runtime.pump
LEND_AFTER = 2 * MILLI  # as runtime.process


class Context:
    """What user code is part of: ``runtime.context.Context``."""

    def __init__(self, task: TaskId, depth: int, fresh: bytes, run: Run | None = None) -> None:
        self.task = task
        self.depth = depth
        self.run = run
        self.names = Names(fresh) if run is None else RunNames(fresh, task)


class UserProcess(Process):
    """A driver or worker: the part that both share."""

    def __init__(self, cluster: Cluster, name: str, address: Address, node: NodeProcess) -> None:
        super().__init__(cluster, name, address)
        self.node = node
        self.dropped: list[ObjectId] = []
        self.released: list[ObjectId] = []
        self.role: Owner
        self.job: JobId
        self.thread: Thread | None = None
        self.kept: dict[int, Handle] = {}  # what tasks left in the globals of their modules
        self.node_gone = False
        self.questions: dict[int, Question] = {}  # to the head, by number
        self.asked = 0

    def settle(self) -> None:
        """Let the role know of what user code dropped."""
        dropped, self.dropped = self.dropped, []
        for object_id in dropped:
            self.role.ownership.drop_handle(object_id)
        released, self.released = self.released, []
        for object_id in released:
            self.role.fetching.release(object_id)

    def references(self, refs: Sequence[Reference]) -> list[Handle]:
        """Handles for references that were counted."""
        for ref in refs:
            self.cluster.watch.on_name(self, ref)
            self.role.ownership.add_handle(ref)
        return [Handle(ref, self.cluster.actors.get(ref.object)) for ref in refs]

    def on_message(self, message: Message, peer: Address) -> None:
        self.role.handle(message, peer)

    def unhandled(self, message: Message, peer: Address) -> None:
        """One that is not for the role."""
        if type(message) is ProcessLost:
            # Where we have a stream to it, its end is its death: this must not overtake it.
            if message.process not in self.peers:
                self.lost.add(message.process)
                self.on_lost(Address(message.process, NodeId(b""), "", 0))
        elif isinstance(message, ActorsFound | Groups):
            question = self.questions.pop(message.request, None)
            if question is not None:
                question.answered(message)
        else:
            self.other_message(message, peer)

    def forget(self, slots: Sequence[int]) -> None:
        """Drop what tasks have kept in these globals, if anything."""
        for slot in slots:
            handle = self.kept.pop(slot, None)
            if handle is not None:
                self.dropped.append(handle.ref.object)

    def other_message(self, message: Message, peer: Address) -> None:
        """What the role does not know."""
        raise NotImplementedError

    def on_lost(self, peer: Address) -> None:
        self.role.peer_lost(peer)
        if peer.process == self.node.address.process:
            self.node_gone = True
        if peer.process == self.cluster.head.address.process:
            for question in self.questions.values():
                question.head_lost()

    def computes(self) -> None:
        """User code goes on: nobody reads the sockets until it waits, or the background thread
        takes over."""
        self.deaf_until = self.world.now_ns + GRACE

    def cost(self) -> int:
        """What one call of the interpreter takes (ns)."""
        return int(self.world.stream("schedule").expovariate(1 / (10 * MICRO))) + MICRO


class Thread(FurtherRequests):
    """One body being run."""

    def __init__(
        self,
        process: UserProcess,
        context: Context,
        driver: int,
        body: Generator[tuple[Any, ...], Any, list[Made]],
        done: Callable[[list[Made], Failure | None], None],
        *,
        beside: bool = False,
    ) -> None:
        self.process = process
        self.beside = beside  # not on the main thread, which goes on reading the sockets
        self.world = process.world
        self.context = context
        self.driver = driver
        self.body = body
        self.done = done
        self.ended = False
        self.handles: list[Handle] = []
        self.views: list[tuple[ObjectId, int, int, bytes]] = []
        self.streams: list[streaming.Streaming] = []  # those that it consumes
        self.outgoing: Outgoing | None = None  # that which it makes
        self.waiting: Get | Wait | Creation | Outgoing | None = None
        self.asking: tuple[Any, ...] = ()
        self.lent = False
        self.rounds = 0  # grows with every wait, so that late wake-ups are told apart
        self.pause: Event | None = None

    # ------------------------------------------------------------------ running

    def soon(self, value: Any = None, failure: Failure | None = None, extra: int = 0) -> None:
        """Go on with the body after a moment."""
        self.pause = self.process.world.after(
            self.process.cost() + extra, lambda: self.resume(value, failure)
        )

    def resume(self, value: Any, failure: Failure | None) -> None:
        """Run user code until its next request."""
        process = self.process
        if self.ended or not process.alive:
            return
        if process.stopped_until > self.world.now_ns:
            self.pause = self.world.at(process.stopped_until, lambda: self.resume(value, failure))
            return
        try:
            request = self.body.throw(failure) if failure is not None else self.body.send(value)
        except StopIteration as stop:
            self.finish(stop.value, None)
        except Failure as raised:
            self.finish([], raised)
        else:
            process.turn(lambda: getattr(self, "do_" + request[0])(*request[1:]), f"{request[0]}()")

    def finish(self, made: list[Made], failure: Failure | None) -> None:
        """The body has ended. (Results are still to be stored.)"""
        self.ended = True
        self.done(made, failure)

    def let_go(self, but: Sequence[Handle] = ()) -> None:
        """What the body's variables held is dropped, but for what its results hold."""
        for object_id, offset, size, content in self.views:
            self.process.cluster.watch.read_again(self.process, object_id, offset, size, content)
            self.process.released.append(object_id)
        self.views.clear()
        for stream in list(self.streams):
            streaming.close(self, stream)
        for handle in self.handles:
            if handle not in but:
                self.drop(handle)
        self.handles = list(but)

    def drop(self, handle: Handle) -> None:
        """Python drops a handle: noted, and settled in the next turn."""
        if handle.live:
            handle.live = False
            self.process.dropped.append(handle.ref.object)

    def hold(self, refs: Sequence[Reference]) -> list[Handle]:
        """Handles that live until the body ends or drops them."""
        handles = self.process.references(refs)
        self.handles += handles
        return handles

    def origin(self) -> Origin | None:
        """Where what the body makes comes from."""
        run, role = self.context.run, self.process.role
        return role.origin(run) if run is not None else None  # type: ignore[attr-defined]

    # ------------------------------------------------------------------ requests

    def do_put(self, here: str, made: Made) -> None:
        object_id = self.context.names.next_put(made.content)
        self.process.settle()
        owner = self.process.address
        self.store(object_id, made, owner, lambda value: self.stored(object_id, here, value))

    def stored(self, object_id: ObjectId, here: str, value: Value) -> None:
        """The bytes of a put are where they will be read."""
        if value.kind == FAILED:
            self.soon(failure=errors.load(value.data))
            return
        self.process.cluster.named(object_id, self.driver, here)
        self.process.role.put(object_id, value, self.origin())
        handle = Handle(self.process.role.ownership.reference(object_id))
        self.handles.append(handle)
        self.soon(handle)

    def store(
        self, object_id: ObjectId, made: Made, owner: Address, then: Callable[[Value], None]
    ) -> None:
        """Bring a value to where it will be read: into the message, or the node's store."""
        contains = [handle.ref for handle in made.contains]
        process = self.process
        if made.size <= process.cluster.case.inline_bytes:
            then(Value(INLINE, made.content, contains=contains))
            return

        def room() -> None:
            creation = self.waiting
            assert isinstance(creation, Creation)
            self.waiting = None
            if creation.offset >= 0:
                process.node.arena.write(creation.offset, made.size, made.content)
                process.role.seal(object_id)
            elif creation.reason != "exists":
                then(Value(FAILED, errors.dump("store_full", creation.reason)))
                return
            then(Value(STORED, b"", made.size, [process.node.address], contains))

        self.waiting = process.role.create(
            object_id, made.size, owner, lambda: self.wake(room, "has room")
        )

    def wake(self, then: Callable[[], None], what: str) -> None:
        """What the thread waits for is there: it goes on in a turn of its own, soon."""
        rounds = self.rounds
        self.process.arrange(
            self.process.cost(),
            lambda: then() if rounds == self.rounds else None,
            what,
        )

    def do_call(
        self,
        here: str,
        op: Call,
        deps: list[Handle],
        nested: list[Handle],
        grouped: grouping.Grouped | None,
    ) -> None:
        process = self.process
        blob = msgspec.msgpack.encode(Blob(self.driver, here, op.function, list(op.sizes)))
        function = process.cluster.function(self.driver, op.function, process)
        resources = vector(num_cpus=op.cpus)
        task = Task(
            self.context.names.next_task(
                function.id, blob, [handle.ref.object for handle in (*deps, *nested)]
            ),
            function,
            blob,
            resources=resources,
            num_returns=len(op.sizes),
            deps=[handle.ref for handle in deps],
            borrowed=[handle.ref for handle in nested],
            max_retries=op.retries,
            retry_exceptions=b"*" if op.retry_exceptions else b"",
            depth=self.context.depth,
            parent=self.context.task,
            name=here,
            origin=self.origin(),
        )
        if process.cluster.profile.environments:
            surround(process.role, task, op.function)
        grouping.place(task, op, grouped)
        process.settle()
        process.cluster.watch.on_submit(process, task, op, here)
        objects = [return_id(task.id, index) for index in range(len(op.sizes))]
        for index, object_id in enumerate(objects):
            process.cluster.named(object_id, self.driver, f"{here}#{index}")
        process.role.submit(task)
        ownership = process.role.ownership
        handles = [Handle(ownership.reference(object_id)) for object_id in objects]
        self.handles += handles
        self.soon(handles)

    def do_make(
        self, here: str, op: Make, deps: list[Handle], nested: list[Handle], group: None
    ) -> None:
        self.handles.append(handle := make_actor(self, here, op, deps, nested))
        self.soon([handle])

    def do_invoke(
        self, here: str, op: Invoke, actor: Handle, deps: list[Handle], nested: list[Handle]
    ) -> None:
        handles = call_actor(self, here, op, actor, deps, nested)
        self.handles += handles
        self.soon(handles)

    def do_kill(self, here: str, actor: Handle, restart: bool) -> None:
        kill_actor(self, actor, restart=restart)
        self.soon()

    def do_quit(self) -> None:
        run = self.context.run
        called = run is not None and type(run.message.actor) is ActorCall
        self.soon(failure=Failure("quit") if called else None)

    def do_get(self, here: str, handles: list[Handle], timeout: float | None, hold: bool) -> None:
        process = self.process
        process.settle()
        objects = [handle.ref.object for handle in handles]
        getting = process.role.get(objects, lambda: self.wake(self.got, "get goes on"))
        self.await_it(getting, ("get", here, handles, hold), timeout)

    def do_wait(
        self, here: str, handles: list[Handle], needed: int, timeout: float | None, fetch: bool
    ) -> None:
        process = self.process
        process.settle()
        objects = list(dict.fromkeys(handle.ref.object for handle in handles))  # as api.wait asks
        needed = min(needed, len(objects))
        waiting = process.role.wait(
            objects, needed, fetch, lambda: self.wake(self.waited, "wait goes on")
        )
        self.await_it(waiting, ("wait", here, handles, needed), timeout)

    def await_it(
        self, awaited: Get | Wait | Outgoing, asking: tuple[Any, ...], timeout: float | None
    ) -> None:
        """Wait; after a moment lend the task's CPU out."""
        self.waiting, self.asking = awaited, asking
        go_on = {"get": self.got, "take": self.took, "ready": self.readied}.get(
            asking[0], self.waited
        )
        if awaited.done:
            go_on()
            return
        process, rounds = self.process, self.rounds
        if not self.beside:
            process.deaf_until = 0  # the waiting thread reads the sockets
        if timeout is not None:
            process.arrange(
                nanoseconds(timeout),
                lambda: go_on() if rounds == self.rounds else None,
                "time is over",
            )
        lends = self.context.depth and not self.beside
        if lends and (timeout is None or nanoseconds(timeout) > LEND_AFTER):
            deadline = None if timeout is None else process.now() + timeout
            process.arrange(LEND_AFTER, lambda: self.lend(rounds, deadline), "lends")

    def lend(self, rounds: int, deadline: float | None) -> None:
        """The wait takes long: lend the CPUs out."""
        if rounds == self.rounds and self.waiting is not None and not self.waiting.done:
            # (only tasks have a depth)
            self.process.role.block(self.waiting, deadline)  # type: ignore[attr-defined]
            self.lent = True

    def awake(self) -> None:
        """The wait is over."""
        self.rounds += 1
        self.waiting = None
        if self.lent:
            self.lent = False
            self.process.role.unblock()  # type: ignore[attr-defined]
        if not self.beside:
            self.process.computes()

    def got(self) -> None:
        """A get is done, or its time is over."""
        getting = self.waiting
        assert isinstance(getting, Get)
        _, here, handles, hold = self.asking
        process = self.process
        self.awake()
        failure = None
        if not getting.done:
            failure = Failure("timeout")
        elif getting.failed is not None:
            failure = errors.load(getting.failed.data)
        if failure is not None:
            if getting.found or getting.pending:
                getting.close()
                process.released.extend(getting.found)
            process.cluster.watch.get_failed(process, here, handles, failure)
            self.soon(failure=failure)
            return
        entries = [process.role.ownership.entries[handle.ref.object] for handle in handles]
        found, getting.found = getting.found, {}
        values = [entry.value for entry in entries]
        if any(
            value is None
            or value.kind == FAILED
            or (value.kind == STORED and entry.object not in found)
            for entry, value in zip(entries, values, strict=True)
        ):
            # Lost again, perhaps for good or made again elsewhere, before we came to take it.
            self.world.mark("get begins again")
            process.released.extend(found)
            self.do_get(here, handles, None, hold)
            return
        reads = []
        for handle, entry in zip(handles, entries, strict=True):
            value = entry.value
            assert value is not None
            content = self.bytes_of(entry.object, value, found)
            reads.append(Read(content, self.hold(value.contains)))
            process.cluster.watch.value_read(process, here, handle.ref.object, reads[-1])
        for object_id, (offset, size) in found.items():
            if hold:
                content = process.node.arena.read(offset, size)
                self.views.append((object_id, offset, size, content))
            else:
                process.released.append(object_id)
        self.soon(reads)

    def bytes_of(
        self, object_id: ObjectId, value: Value, found: dict[ObjectId, tuple[int, int]]
    ) -> bytes:
        """What a reader sees."""
        if value.kind == STORED:
            return self.process.node.arena.read(*found[object_id])
        return value.data

    def waited(self) -> None:
        """A wait is done, or its time is over."""
        waiting = self.waiting
        assert isinstance(waiting, Wait)
        done = waiting.done
        self.awake()
        waiting.close()
        self.process.cluster.watch.waited(self.asking[3], len(waiting.ready), done)
        self.soon()

    def do_drop(self, handle: Handle) -> None:
        self.drop(handle)  # (views of its value may live on)
        self.handles.remove(handle)
        self.soon()

    def do_cancel(self, here: str, handle: Handle, op: Cancel) -> None:
        process = self.process
        process.settle()
        if op.anyone or process.role.ownership.entries[handle.ref.object].owner is None:
            process.cluster.watch.cancels.on_cancel(process, handle, op)
            process.role.cancel(
                handle.ref.object, force=op.force, recursive=op.recursive, grace=op.grace
            )
        self.soon()

    def do_sleep(self, seconds: float) -> None:
        self.soon(extra=nanoseconds(seconds))

    def do_keep(self, handle: Handle, slot: int) -> None:
        process = self.process
        (kept,) = process.references([handle.ref])
        process.forget([slot])
        process.kept[slot] = kept
        self.world.mark("keep")
        self.soon()

    def do_kept(self, slot: int) -> None:
        kept = self.process.kept.get(slot)
        if kept is not None:
            self.world.mark("peek finds something")
            if self.beside:  # another thread may drop it meanwhile
                (kept,) = self.hold([kept.ref])
        self.soon(kept)

    def do_forget(self, slot: int) -> None:
        self.process.forget([slot])
        self.soon()

    def do_exit(self) -> None:
        self.process.die("exit 1")

    def interrupt(self, failure: Failure) -> None:
        """Raise in user code, wherever it is (a signal on the main thread)."""
        if self.ended:
            return
        if isinstance(self.waiting, Creation | Outgoing):
            return  # (our own code: the signal handler leaves it alone; see runtime.worker)
        if self.waiting is not None:
            waiting = self.waiting
            self.awake()
            waiting.close()
            if isinstance(waiting, Get):
                self.process.released.extend(waiting.found)
        if self.pause is not None:
            self.pause.cancel()
        self.rounds += 1
        self.soon(failure=failure)


def definition(driver: int, number: int) -> Function:
    """The function ``number`` of a driver's program, as its submitter knows it."""
    name = f"d{driver}f{number}"
    return Function(FunctionId(name.ljust(8).encode()[:8]), name, name.encode())


def load_program(programs: Sequence[Program], blob: bytes) -> tuple[Blob, Program]:
    """The call that a task's arguments stand for."""
    call = msgspec.msgpack.decode(blob, type=Blob)
    return call, programs[call.driver]
