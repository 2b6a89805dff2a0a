"""Submission: the life of a task at its owner, from ``f.remote()`` to its results.

waiting (for the values of its top-level references) -> queued (for a worker) -> pushed -> done.
Queued and pushed are ``leasing``'s business; this file knows arguments, results, retries and
cancellation.

A task is *pushed again* under the same ids with a higher attempt number when its worker dies or,
if the user asked for it, when it raises. A result of an older attempt is refused. While the task
may still need them its arguments are pinned; when the results are in, the pins go, or become
``lineage``'s if the task may have to run again. A task that does run again begins here anew
(``await_values``); the values of it that are still good stay.

An argument's value may be lost while the task is queued or at its worker, and is then on its way
to be made again: the task goes back to waiting for it.

Races considered: a result that crosses a cancel (the result wins if it arrives first); all
references to the results dropped while the task runs (it runs on, its results are freed on
arrival); a worker that dies after its last result was sent (results first: a death is the end of
the stream).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from freehold.core.entries import Entry, Gate, Origin
from freehold.core.ownership import Ownership
from freehold.core.world import World
from freehold.ids import FunctionId, ObjectId, ProcessId, TaskId, return_id
from freehold.resources import Resources
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    Argument,
    CancelTask,
    Claim,
    Claimed,
    DefineFunction,
    FreeObjects,
    PushTask,
    Reference,
    Release,
    TaskDone,
    Value,
)

WAITING: Final = "waiting for its arguments"
QUEUED: Final = "queued for a worker"
PUSHED: Final = "sent to a worker"
DONE: Final = "done"


class Function:
    """A remote function as its owner knows it. ``micros``: running mean of its time in user code,
    None unmeasured. ``fingerprint``: by which other processes know it again. ``max_calls``: tasks
    of it that one worker runs before it exits, 0 for any number.
    """

    __slots__ = ("captured", "fingerprint", "id", "max_calls", "micros", "name", "pickled")

    def __init__(
        self,
        function: FunctionId,
        name: str,
        pickled: bytes,
        captured: Sequence[Reference] = (),
        fingerprint: bytes = b"",
        max_calls: int = 0,
    ) -> None:
        self.id = function
        self.fingerprint = fingerprint
        self.max_calls = max_calls
        self.name = name
        self.pickled = pickled
        self.captured = captured
        self.micros: float | None = None

    def measured(self, micros: int) -> None:
        """Take one more measurement in, weighing it 1/4: settles in a few tasks, forgets an
        outlier as fast.
        """
        before = self.micros
        self.micros = micros if before is None else before + (micros - before) / 4


class Task:
    """One submitted task. ``lease`` is where it was pushed, if it was. ``origin``: the run in which
    it was submitted (None in a driver). ``claims``: what its next run shall bring back. ``ran_at``,
    ``homes``, ``kept`` and ``live`` are lineage's.
    """

    __slots__ = (
        "args",
        "attempt",
        "borrowed",
        "cancelled",
        "claims",
        "deps",
        "depth",
        "estimate",
        "function",
        "homes",
        "id",
        "kept",
        "lease",
        "live",
        "max_retries",
        "name",
        "num_returns",
        "origin",
        "parent",
        "ran_at",
        "resources",
        "retry_exceptions",
        "since",
        "state",
        "suspect",
        "target",
        "unready",
        "used_retries",
    )

    def __init__(
        self,
        task: TaskId,
        function: Function,
        args: bytes,
        *,
        resources: Resources,
        num_returns: int = 1,
        deps: Sequence[Reference] = (),
        borrowed: Sequence[Reference] = (),
        max_retries: int = 3,
        retry_exceptions: bytes = b"",
        depth: int = 0,
        parent: TaskId | None = None,
        name: str = "",
        origin: Origin | None = None,
    ) -> None:
        self.id = task
        self.function = function
        self.args = args
        self.resources = resources
        self.num_returns = num_returns
        self.deps = deps
        self.borrowed = borrowed
        self.max_retries = max_retries
        self.retry_exceptions = retry_exceptions
        self.depth = depth
        self.parent = parent
        self.name = name
        self.origin = origin
        self.claims: dict[tuple[ObjectId, ProcessId], Claim] | None = None
        self.ran_at: Address | None = None
        self.homes: set[ProcessId] | None = None
        self.kept: list[Entry] | None = None
        self.live = 0
        self.attempt = 0
        self.used_retries = 0
        self.unready = 0
        self.estimate = 0.0
        self.state = WAITING
        self.since = 0.0
        self.suspect = max_retries == 0  # see leasing: a suspect shares no worker
        self.cancelled = False
        self.target: Address | None = None
        self.lease: object | None = None

    @property
    def title(self) -> str:
        """What to call it in messages."""
        return self.name or self.function.name


class Placing:
    """What submission needs of leasing."""

    def enqueue(self, task: Task) -> None:
        """Find the task a worker."""
        raise NotImplementedError

    def withdraw(self, task: Task) -> bool:
        """Take a queued task back. False if it has been pushed."""
        raise NotImplementedError


class Submission:
    """Tasks that this process has submitted and that are not done."""

    def __init__(self, world: World, ownership: Ownership) -> None:
        self.world = world
        self.ownership = ownership
        self.tasks: dict[TaskId, Task] = {}
        self.placing: Placing
        self.doomed: deque[Task] = deque()  # an argument has failed, and so do they
        # the role's (lineage): the task may have to run again. True: its arguments stay held
        self.keep: Callable[[Task, Sequence[Value], Address | None], bool]
        self.submitted: Callable[[Task], None]  # the role's: in a run that someone claims from

    # ------------------------------------------------------------------ submit

    def submit(self, task: Task) -> None:
        """Begin. The entries of its returns exist from here on, without a value."""
        ownership = self.ownership
        origin = task.origin
        if origin is not None:
            origin.alive += 1
        for index in range(task.num_returns):
            entry = ownership.own(return_id(task.id, index), origin)
            entry.task = task
            entry.handles += 1  # the handle that the caller is about to make
        self.tasks[task.id] = task
        for ref in task.borrowed:
            ownership.pin(ref.object)
        for ref in task.deps:
            ownership.pin(ref.object)
        if origin is not None and origin.claims:
            self.submitted(task)
        self.await_values(task)

    def await_values(self, task: Task) -> None:
        """Wait for those arguments whose values are not there yet, or not any more."""
        ownership = self.ownership
        waiter = None
        for ref in task.deps:
            entry = ownership.entries[ref.object]
            if entry.value is None:
                waiter = waiter or Dependency(self, task)
                task.state = WAITING
                task.unready += 1
                ownership.wait_for(entry, waiter)
        if waiter is None:
            self.arguments_ready(task)

    def arguments_ready(self, task: Task) -> None:
        """All values have been known; any may be lost again by now. A failed argument fails the
        task, under the argument's own error.
        """
        if task.state is DONE or not self.still_ready(task):
            return
        here: dict[ProcessId, int] = {}
        best = 0
        for ref in task.deps:
            value = self.ownership.entries[ref.object].value
            assert value is not None
            if value.kind == STORED:
                for node in value.nodes:
                    here[node.process] = here.get(node.process, 0) + value.size
                    if here[node.process] > best:
                        best, task.target = here[node.process], node
        self.placing.enqueue(task)

    # ------------------------------------------------------------------ push

    def still_ready(self, task: Task) -> bool:
        """Whether all arguments are there. If not, the task waits for those that are lost, or fails
        under the error of one.
        """
        lost = False
        for ref in task.deps:
            value = self.ownership.entries[ref.object].value
            if value is None:
                lost = True
            elif value.kind == FAILED:
                self.doom(task)
                return False
        if lost:
            self.await_values(task)
        return not lost

    def doom(self, task: Task) -> None:
        """An argument has failed. A worklist, because the task's own results may be arguments of
        the next, ten thousand deep.
        """
        self.doomed.append(task)
        if len(self.doomed) > 1:
            return  # a call above this one sees to it
        while self.doomed:
            task = self.doomed[0]
            if task.state is not DONE:
                values = [self.ownership.entries[ref.object].value for ref in task.deps]
                error = next(v.data for v in values if v is not None and v.kind == FAILED)
                self.fail(task, error)
            self.doomed.popleft()

    def push(self, task: Task, worker: Address, lease: bytes, known: set[FunctionId]) -> None:
        """Send the task to a worker, its function first if that worker has not seen it."""
        world, function, ownership = self.world, task.function, self.ownership
        if function.id not in known:
            known.add(function.id)
            world.send(
                worker,
                DefineFunction(
                    function.id, function.name, function.pickled, len(function.captured)
                ),
            )
        task.state = PUSHED
        message = PushTask(
            task.id,
            task.attempt,
            lease,  # type: ignore[arg-type]  # bytes on the wire
            function.id,
            task.args,
            task.num_returns,
            task.depth,
            task.name,
        )
        if task.deps:
            message.deps = [self.argument(ref, worker) for ref in task.deps]
        if task.borrowed:
            message.borrowed = [ownership.current(ref) for ref in task.borrowed]
            for ref in message.borrowed:
                ownership.hand_out(ref, worker)
        if task.retry_exceptions:
            message.retry_exceptions = task.retry_exceptions
        if function.max_calls:
            message.max_calls = function.max_calls
        if task.origin is not None:
            message.line = task.origin.line
        if task.claims:
            message.claims = list(task.claims.values())
            for claim in message.claims:
                world.send(claim.holder, Claimed(claim.object, worker))
        world.send(worker, message)

    def argument(self, ref: Reference, worker: Address) -> Argument:
        """A top-level reference with its value, as pushed to ``worker``."""
        value = self.ownership.entries[ref.object].value
        assert value is not None
        return Argument(self.ownership.current(ref), self.ownership.for_peer(value, worker))

    # ------------------------------------------------------------------ results

    def on_done(self, message: TaskDone, worker: Address) -> Task | None:
        """Results came. Returns the task if they end this attempt, None if they are stale."""
        task = self.tasks.get(message.task)
        if task is None or task.attempt != message.attempt or task.state is not PUSHED:
            self.discard(message, worker, free=task is None)
            return None
        task.function.measured(message.micros)
        if message.retry and not task.cancelled and self.may_retry(task):
            self.retry(task)
            return task
        self.finish(task, message.results, worker)
        return task

    def finish(self, task: Task, results: list[Value], giver: Address | None = None) -> None:
        """The task is over: hand its results to their entries and let the arguments go, unless
        it may have to run again.
        """
        task.state = DONE
        del self.tasks[task.id]
        kept = self.keep(task, results, giver)
        for index, value in enumerate(results):
            object_id = return_id(task.id, index)
            entry = self.ownership.entries.get(object_id)
            if entry is None:
                self.unwanted(object_id, value, giver, spare=value.nodes)
                continue
            if not kept and entry.task is task:
                entry.task = None  # (unless it says by now why it cannot run again)
            self.result(entry, value, giver)
        if kept:
            return
        if task.origin is not None:
            self.ownership.one_less(task.origin)
        for ref in task.deps:
            self.ownership.unpin(ref.object)
        for ref in task.borrowed:
            self.ownership.unpin(ref.object)

    def result(self, entry: Entry, value: Value, giver: Address | None) -> None:
        """One result. A value from an earlier run that is still good stays: someone may be reading
        it.
        """
        old = entry.value
        if old is not None and (value.kind == FAILED or not self.stale(old)):
            known = [node.process for node in old.nodes]
            spare = [node for node in value.nodes if node.process not in known]
            self.unwanted(entry.object, value, giver, spare)
        elif value.contains:
            assert giver is not None
            self.gated(entry.object, value, giver, free=True)
        else:
            self.renew(entry, value)

    def unwanted(
        self, object_id: ObjectId, value: Value, giver: Address | None, spare: list[Address]
    ) -> None:
        """A result that nobody can name, or that is there already: its copies on ``spare`` go."""
        if value.contains:
            assert giver is not None
            self.gated(object_id, value, giver, free=False)
        if value.kind == STORED:
            self.free(object_id, spare)

    def stale(self, value: Value) -> bool:
        """Whether a value names objects whose owner has died."""
        lost = self.ownership.lost
        return any(inner.owner.process in lost for inner in value.contains)

    def renew(self, entry: Entry, value: Value) -> None:
        """A result is known, the first time or after a re-run."""
        old = entry.value
        self.ownership.resolve(entry, value)
        if old is not None:
            kept = [node.process for node in value.nodes]
            self.free(entry.object, [node for node in old.nodes if node.process not in kept])
            self.ownership.forget(old)
        if not entry.handles and not entry.pins:
            self.ownership.collect(entry)  # (a by-product of a re-run)

    def gated(self, object_id: ObjectId, value: Value, giver: Address, *, free: bool) -> None:
        """A result with references inside: it is known once each of them has been introduced.

        If nobody can name it any more it is forgotten then, and its bytes too if ``free``."""
        ownership = self.ownership
        entry = ownership.entries.get(object_id) if free else None

        def opened() -> None:
            if entry is not None and ownership.entries.get(entry.object) is entry:
                self.renew(entry, value)
                entry.pins -= 1
                ownership.collect(entry)
            else:
                ownership.forget(value)
                if free and value.kind == STORED:
                    self.free(object_id, value.nodes)

        def give_up(lost: ProcessId) -> None:
            ownership.forget(value)
            if entry is not None:
                self.renew(entry, Value(FAILED, ownership.handover_lost(lost)))
                entry.pins -= 1
                ownership.collect(entry)
            if free and value.kind == STORED:
                self.free(object_id, value.nodes)

        gate = Gate(opened, give_up)
        if entry is not None:
            entry.pins += 1
        ownership.take_in(value.contains, giver, gate)
        if not gate.waiting:
            opened()

    def discard(self, message: TaskDone, worker: Address, *, free: bool) -> None:
        """A stale attempt's results: nobody will name them.

        They are freed only when no newer attempt is about, because that one writes under the same
        ids.
        """
        me = self.world.address.process
        for index, value in enumerate(message.results):
            object_id = return_id(message.task, index)
            entry = self.ownership.entries.get(object_id)
            good = entry.value.nodes if entry is not None and entry.value is not None else ()
            if worker.process != me:
                # What a stale attempt owns bears the names of what the new one makes: it must not
                # enter the table, where that may stand already.
                for ref in value.contains:
                    if ref.owner.process == worker.process:
                        self.world.send(worker, Release(ref.object, 1))
                value.contains = [
                    ref for ref in value.contains if ref.owner.process != worker.process
                ]
            if value.contains:
                self.gated(object_id, value, worker, free=False)
            if free and value.kind == STORED:
                self.free(object_id, [node for node in value.nodes if node not in good])

    def free(self, object_id: ObjectId, nodes: Sequence[Address]) -> None:
        """Have these copies of a value dropped."""
        for node in nodes:
            self.world.send(node, FreeObjects([object_id]))

    # ------------------------------------------------------------------ retries and cancellation

    def may_retry(self, task: Task) -> bool:
        """Whether one more attempt is allowed; counts it. ``max_retries=-1`` is without end."""
        if task.max_retries >= 0 and task.used_retries >= task.max_retries:
            return False
        task.used_retries += 1
        return True

    def retry(self, task: Task) -> None:
        """Begin a new attempt under the same ids."""
        task.attempt += 1
        task.lease = None
        self.placing.enqueue(task)

    def fail(self, task: Task, error: bytes) -> None:
        """The task ends in a system error."""
        self.finish(task, [Value(FAILED, error)] * task.num_returns)

    def cancel(self, task: Task, *, force: bool, recursive: bool, error: bytes) -> None:
        """The user wants the task to end: at once if it has not been pushed, else its worker is
        told.
        """
        task.cancelled = True
        if task.state is PUSHED:
            worker = task.lease.worker  # type: ignore[attr-defined]  # a leasing.Lease
            self.world.send(worker, CancelTask(task.id, force, recursive))
        elif task.state is not DONE:
            if task.state is QUEUED:
                self.placing.withdraw(task)
            self.fail(task, error)


class Dependency:
    """Waits for a task's arguments."""

    __slots__ = ("submission", "task")

    def __init__(self, submission: Submission, task: Task) -> None:
        self.submission = submission
        self.task = task

    def renamed(self, old: ObjectId, new: ObjectId) -> None:
        """An argument has another id now; the entry is found under both."""

    def resolved(self, entry: Entry) -> None:
        """One more argument has a value."""
        del entry
        self.task.unready -= 1
        if not self.task.unready:
            self.submission.arguments_ready(self.task)
