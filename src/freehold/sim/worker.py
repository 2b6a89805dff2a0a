"""Workers and drivers: ``runtime.worker`` and ``runtime.driver`` in the simulated world."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from freehold.core.execution import Run
from freehold.ids import JobId, NodeId, ObjectId, ProcessId, TaskId, return_id
from freehold.roles.executor import Executor
from freehold.roles.owner import Owner
from freehold.sim import errors
from freehold.sim.bodies import Made, Read
from freehold.sim.errors import Failure, ShippedErrors
from freehold.sim.hosting import Host
from freehold.sim.making import check
from freehold.sim.programs import run_body
from freehold.sim.steps import CLOSED
from freehold.sim.user import GRACE, Context, Thread, UserProcess, load_program
from freehold.sim.world import MICRO, MILLI
from freehold.wire.messages import (
    FAILED,
    Address,
    AssignJob,
    Creation,
    Fenced,
    Furnished,
    Leave,
    Message,
    Register,
    Registered,
    Stop,
    Value,
)

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.node import NodeProcess

REPLY_EVERY = MILLI  # as runtime.worker
DEAF = 0.25  # of the tasks do not hear when they are interrupted

Body: TypeAlias = Generator[tuple[Any, ...], Any, list[Made]]
View: TypeAlias = tuple[ObjectId, int, int, bytes]  # object, offset, size, what stood there


def process_address(node: Address, fresh: bytes) -> Address:
    """An address for a new process of a node."""
    return Address(ProcessId(fresh), NodeId(node.node), node.host, node.port)


def generator(body: Body) -> Body:
    """A body that was called for a stream: what it returned is iterated over."""
    yield ("open",)
    return (yield from body)


class WorkerProcess(UserProcess):
    """A worker: runs one task after another on its main thread."""

    kind = "worker"

    def __init__(self, cluster: Cluster, name: str, node: NodeProcess, start: int) -> None:
        fresh = cluster.world.stream("ids").randbytes(8)
        super().__init__(cluster, name, process_address(node.address, fresh), node)
        self.start = start
        self.job = JobId(self.new_id())
        self.executor = Executor(self, ShippedErrors(), node.address, self.job)
        self.role = self.executor
        self.role.unhandled = self.unhandled
        self.executor.execution.interrupt = self.interrupt
        self.executor.estate.gone = lambda: self.die("asked to stop")
        self.executor.end_actor = self.leave
        self.executor.abort_actor = lambda: self.die("its actor's owner is gone")
        self.host: Host | None = None
        self.stopping = False
        self.assigned = False
        self.furnished: Furnished | None = None
        self.running: Run | None = None
        self.begun_at = 0
        self.replied = 0
        self.looping = False
        self.hold_back = False
        register = Register(self.address, start, self.job, start, False)
        self.turn(lambda: self.send(node.address, register), "starts")

    # ------------------------------------------------------------------ the main thread

    def after_turn(self) -> None:
        """Wake the main thread if there is a task for it."""
        if self.assigned and self.executor.execution.ready and not self.looping:
            self.looping = True
            self.arrange(self.cost(), self.loop, "main thread wakes")

    def turn(self, action: Callable[[], None], what: str) -> None:
        """As any process; afterwards the main thread is woken if there is a task for it."""
        super().turn(action, what)
        if self.alive:
            self.after_turn()

    def loop(self) -> None:
        """Take the next task, or rest."""
        run = self.executor.begin()
        if run is None:
            self.looping = False
            self.deaf_until = 0
            return
        self.running = run
        if type(run.message.actor) is Creation:
            self.host = Host(self, run, self.begin_beside)
        self.computes()
        self.begun_at = self.world.now_ns
        self.arrange_grace(run)
        self.thread = self.begin(run)
        self.hold_back = bool(self.dirty)  # replies to earlier tasks wait for the next flush

    def begin_beside(self, run: Run) -> None:
        """A thread of its own runs a call."""
        assert self.host is not None
        self.host.beside[run.message.task] = self.begin(run, beside=True)

    def begin(self, run: Run, *, beside: bool = False) -> Thread:
        """Run a task's user code."""
        message = run.message
        call, program = load_program(self.cluster.case.programs, message.args)
        execution = self.cluster.watch.on_begin(self, run, call)
        if self.cluster.profile.environments and message.actor is None:
            check(self.furnished, call.function, message.name)
        started = self.world.now_ns
        context = Context(message.task, message.depth + 1, self.new_id(), run)
        args, views = self.arguments(run)
        nested = self.references(message.borrowed)
        body = run_body(program, call.function, call.path, call.sizes, args, nested, execution)
        if message.stream is not None:
            body = generator(body)
        thread = Thread(
            self,
            context,
            call.driver,
            body,
            lambda made, failure: self.body_ended(run, thread, made, failure, started),
            beside=beside,
        )
        thread.handles += nested
        for read in args:
            thread.handles += read.inner
        thread.views = views
        if run.cancelled:
            thread.pause = self.world.after(
                self.cost(), lambda: thread.finish([], Failure("cancelled", message.name))
            )
        else:
            thread.soon()
        return thread

    def arguments(self, run: Run) -> tuple[list[Read], list[View]]:
        """The values of the top-level references, and what is pinned for them."""
        found, run.found = run.found, {}
        views = [
            (object_id, *place, self.node.arena.read(*place)) for object_id, place in found.items()
        ]
        reads = []
        for argument in run.message.deps:
            value = argument.value
            place = found.get(argument.ref.object)
            content = value.data if place is None else self.node.arena.read(*place)
            read = Read(content, self.references(value.contains))
            self.cluster.watch.value_read(self, "an argument", argument.ref.object, read)
            reads.append(read)
        return reads, views

    def arrange_grace(self, run: Run) -> None:
        """When user code has run for a while, the background thread reads the sockets."""

        def grace() -> None:
            if self.running is run:
                self.executor.give_way()

        self.arrange(GRACE, grace, "grace is over")

    # ------------------------------------------------------------------ results

    def body_ended(
        self, run: Run, thread: Thread, made: list[Made], failure: Failure | None, started: int
    ) -> None:
        """User code is done: store its results one by one, then answer."""
        micros = (self.world.now_ns - started) // MICRO
        message = run.message
        results: list[Value] = []
        host = self.host
        if host is not None:
            host.ended(run, failure)
        outgoing = thread.outgoing
        if outgoing is not None:
            if outgoing.closed and failure is not None and failure.kind == "interrupted":
                made, failure = [CLOSED], None
            self.turn(lambda: self.executor.yielding.end(outgoing), "generator ends")
        if failure is not None:
            if run.cancelled:
                failure = Failure("cancelled", message.name)
            retry = bool(message.retry_exceptions) and failure.kind not in ("cancelled", "quit")
            if failure.kind == "quit":
                failure = Failure("actor_ended", f"{message.name}: quit")
            shipped = errors.dump(failure.kind, failure.about)
            results = [Value(FAILED, shipped) for _ in range(message.num_returns)]
            self.turn(lambda: self.answer(run, thread, results, micros, retry), "task raised")
            return

        if host is not None and type(message.actor) is Creation:
            place = [host.place()]
            self.turn(lambda: self.answer(run, thread, place, micros, False), "actor made")
            return

        def store_next(value: Value | None = None) -> None:
            if value is not None:
                results.append(value)
                for handle in made[len(results) - 1].contains:
                    self.executor.ownership.pin(handle.ref.object)
                    run.pinned.append(handle.ref)
            if len(results) == len(made):
                self.answer(run, thread, results, micros, False)
                return
            item = made[len(results)]
            object_id = return_id(message.task, len(results))
            thread.store(object_id, item, run.submitter, store_next)

        def returned() -> None:
            thread.let_go([handle for item in made for handle in item.contains])
            self.settle()  # (a stored result may need the room)
            store_next()

        self.turn(returned, "task returned")

    def answer(
        self, run: Run, thread: Thread, results: list[Value], micros: int, retry: bool
    ) -> None:
        """Reply; send at once unless more tasks are ready and the last sending was just now."""
        thread.let_go()
        if self.host is not None:
            self.host.beside.pop(run.message.task, None)
        if not thread.beside:
            self.running = None
            self.thread = None
        self.executor.finished(run, results, micros, retry)
        self.may_end(run)
        if thread.beside:
            return
        ready = self.executor.execution.ready
        self.hold_back = bool(ready) and self.world.now_ns - self.replied < REPLY_EVERY
        chance = self.world.stream("schedule")
        pause = self.cost()
        if chance.random() < 0.02:  # the main thread is preempted here
            pause += int(3 * MILLI * chance.random())
        self.world.after(pause, self.go_on)

    def may_end(self, run: Run) -> None:
        """A run was answered: perhaps the actor ends itself, or there is none, or it was only
        waited for.
        """
        host = self.host
        if host is None:
            return
        if host.exiting and not self.stopping:
            self.executor.exit_actor()
            self.leave()
        elif (type(run.message.actor) is Creation and not host.made) or self.stopping:
            self.leave()

    def leave(self) -> None:
        """The actor ends in good order: no further call begins, and those that run finish."""
        assert self.host is not None
        self.stopping = True
        self.host.stop()
        if self.running is None and not self.host.beside:
            self.arrange(self.cost(), lambda: self.die("asked to stop"), "the actor ends")

    def go_on(self) -> None:
        """The main thread goes on to the next task; it is not deaf to itself."""
        if not self.alive:
            return
        if self.stopped_until > self.world.now_ns:
            self.world.at(self.stopped_until, self.go_on)
        else:
            self.turn(self.loop, "main thread goes on")

    def settle(self) -> None:
        if not self.hold_back:
            super().settle()

    def flush(self) -> None:
        """Several replies may share a frame."""
        if self.hold_back:
            self.hold_back = False
            return
        self.replied = self.world.now_ns
        super().flush()

    def interrupt(self, run: Run) -> None:
        """Raise TaskCancelledError in the running task."""
        if self.host is not None and self.host.interrupt(run):
            return
        if run is self.running and self.thread is not None:
            if self.world.stream("deaf").random() < DEAF:  # (native code, or it swallows all)
                self.world.mark("a task does not hear")
                return
            self.thread.interrupt(Failure("interrupted", run.message.name))

    # ------------------------------------------------------------------ events

    def other_message(self, message: Message, peer: Address) -> None:
        """A job to belong to, or the end."""
        if type(message) is AssignJob:
            if not self.assigned:
                self.furnished = message.furnished
                self.executor.leasing.job = message.job
                self.executor.job = self.job = message.job
            self.assigned = True
        elif type(message) is Stop:
            self.executor.stop(message)
        elif type(message) is not Registered:
            raise AssertionError(f"a worker does not expect {type(message).__name__}")

    def on_lost(self, peer: Address) -> None:
        super().on_lost(peer)
        if peer.process == self.node.address.process:
            self.die("its node is gone")

    def die(self, how: str) -> None:
        """The zygote sees it, if there is one left."""
        if self.alive:
            super().die(how)
            self.cluster.watch.on_worker_death(self, how)
            self.node.report_end(self.start, how)


class DriverProcess(UserProcess):
    """A driver: runs function 0 of its program."""

    kind = "driver"

    def __init__(self, cluster: Cluster, number: int, node: NodeProcess) -> None:
        fresh = cluster.world.stream("ids").randbytes(8)
        super().__init__(cluster, f"d{number}", process_address(node.address, fresh), node)
        self.number = number
        self.job = JobId(self.new_id())
        self.role = Owner(self, ShippedErrors(), node.address, self.job)
        self.role.unhandled = self.unhandled
        self.root = TaskId(self.new_id() * 2)
        self.finished = False
        register = Register(self.address, 0, self.job, 0, True)
        self.turn(lambda: self.send(node.address, register), "starts")

    def other_message(self, message: Message, peer: Address) -> None:
        if type(message) not in (Registered, Fenced):
            raise AssertionError(f"a driver does not expect {type(message).__name__}")
        if type(message) is Fenced or self.thread is not None:
            return  # its stream ends with that; or the head's patience is news
        program = self.cluster.case.programs[self.number]
        body = run_body(program, 0, f"d{self.number}", (), [], [], 1)
        self.thread = Thread(
            self, Context(self.root, 0, self.new_id()), self.number, body, self.main_ended
        )
        self.thread.soon()

    def main_ended(self, made: list[Made], failure: Failure | None) -> None:
        """The main program is over; its variables go."""
        del made
        assert failure is None, failure
        assert self.thread is not None
        self.deaf_until = 0
        self.finished = True
        self.turn(self.thread.let_go, "main ends")
        if self.cluster.case.hasty:
            self.leave()

    def on_lost(self, peer: Address) -> None:
        """Its own node: the program hears ClusterUnreachableError everywhere, and ends."""
        super().on_lost(peer)
        if self.alive and peer.process == self.node.address.process:
            self.die("its node is gone")

    def leave(self) -> None:
        """End the job and let go of the cluster."""
        self.turn(lambda: self.send(self.node.address, Leave()), "leaves")
        self.die("left")

    def pending(self) -> str:
        """Why the main program is not over, for people."""
        thread = self.thread
        if thread is None:
            return f"{self.name} has not been registered by its node"
        asking = thread.asking
        if thread.waiting is None or not asking:
            return f"{self.name} is between two operations"
        lines = [f"{self.name} waits in {asking[0]} at {asking[1]}:"]
        missing = getattr(thread.waiting, "pending", ())
        for handle in asking[2]:
            if handle.ref.object in missing:
                lines += self.role.explain(handle.ref.object)
        return "\n".join(lines)
