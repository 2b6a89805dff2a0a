"""Submission: the life of a task at its owner, from ``f.remote()`` to its results.

waiting (for the values of its top-level references) -> queued (for a worker) -> pushed -> done.
A task that is tried again may be delayed in between (``limits``).
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
from functools import partial
from typing import TYPE_CHECKING, Final

from freehold.core.entries import Entry, Origin
from freehold.core.limits import Clock, Limits
from freehold.core.ownership import Ownership
from freehold.core.results import Results
from freehold.core.world import World
from freehold.ids import FunctionId, ObjectId, ProcessId, TaskId, return_ids
from freehold.resources import Resources
from freehold.wire.fetches import ARGUMENT
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    Argument,
    Call,
    CancelTask,
    Claim,
    Claimed,
    Creation,
    DefineFunction,
    FetchObject,
    Placement,
    PushTask,
    Reference,
    TaskDone,
    Value,
)

if TYPE_CHECKING:
    from freehold.core.streams import Stream

WAITING: Final = "waiting for its arguments"
QUEUED: Final = "queued for a worker"
DELAYED: Final = "waiting to be tried again"
PUSHED: Final = "sent to a worker"
DONE: Final = "done"

#: Work that may lie at one worker: 5 ms hides the round trip and a thread switch (at most 5 ms
#: under the interpreter lock) and is the longest that a short task can wait behind others.
PIPELINE_MICROS: Final = 5_000.0
#: A measured task never counts for less: below this the messages cost more than the work.
LEAST_MICROS: Final = 8.0


class Function:
    """A remote function as its owner knows it. ``micros``: running mean of its time in user code,
    None unmeasured. ``share``: what one task of it takes of a worker's ``PIPELINE_MICROS``.
    ``fingerprint``: by which other processes know it again. ``max_calls``: tasks of it that one
    worker runs before it exits, 0 for any number.
    """

    __slots__ = ("captured", "fingerprint", "id", "max_calls", "micros", "name", "pickled", "share")

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
        self.share = PIPELINE_MICROS  # all of it: the first task goes alone

    def measured(self, micros: float) -> None:
        """Take one more measurement in, weighing it 1/4: settles in a few tasks, forgets an
        outlier as fast.
        """
        before = self.micros
        if before is not None:
            micros = before + (micros - before) / 4
        self.micros = micros
        self.share = max(LEAST_MICROS, micros)


class Task:
    """One submitted task. ``returns``: the objects that it makes. ``lease``: where it was pushed,
    if it was. ``origin``: the run in which it was submitted (None in a driver). ``claims``: what
    its next run shall bring back. ``ran_at``, ``homes``, ``kept`` and ``live`` are lineage's.
    ``actor`` and ``placing`` are those of a task that makes an actor or calls one
    (``calls.ActorTask``): what its push says more, and who finds it a worker instead of
    ``leasing``. ``environment``: the key of its runtime environment, or b"". ``limits`` and
    ``clock``: its time, if the user has limited it (``limits``).
    """

    actor: Creation | Call | None = None
    placing: Placing | None = None
    stream: Stream | None = None  # of a task that yields its values (``streams.StreamTask``)

    __slots__ = (
        "announced",
        "args",
        "attempt",
        "borrowed",
        "cancelled",
        "claims",
        "clock",
        "deps",
        "depth",
        "environment",
        "estimate",
        "function",
        "homes",
        "id",
        "kept",
        "lease",
        "limits",
        "live",
        "max_retries",
        "name",
        "origin",
        "parent",
        "placement",
        "ran_at",
        "resources",
        "retry_exceptions",
        "returns",
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
        resources: Resources,
        num_returns: int = 1,
        deps: Sequence[Reference] = (),
        borrowed: Sequence[Reference] = (),
        max_retries: int = 3,
        retry_exceptions: bytes = b"",
        depth: int = 0,
        parent: TaskId | None = None,
        name: str = "",
        limits: Limits | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.id = task
        self.function = function
        self.args = args
        self.resources = resources
        self.returns = return_ids(task, num_returns)
        self.deps = deps
        self.borrowed = borrowed
        self.max_retries = max_retries
        self.retry_exceptions = retry_exceptions
        self.depth = depth
        self.parent = parent
        self.name = name
        self.origin = origin
        self.limits = limits
        self.environment = b""
        self.placement: Placement | None = None
        self.clock: Clock | None = None
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
        self.announced = False  # a node was told what it will read there
        self.suspect = max_retries == 0  # see leasing: a suspect shares no worker
        self.cancelled = False
        self.target: Address | None = None
        self.lease: object | None = None

    @property
    def ending(self) -> bool:
        """Whether its end was asked for: it was cancelled, or the time of its attempt is over."""
        return self.cancelled or (self.clock is not None and self.clock.expired)

    @property
    def over(self) -> bool:
        """Whether nothing that a further run could bring is wanted."""
        return self.cancelled or (self.stream is not None and self.stream.spent)

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


class Submission(Results):
    """Tasks that this process has submitted and that are not done."""

    def __init__(self, world: World, ownership: Ownership) -> None:
        super().__init__(world, ownership)
        self.tasks: dict[TaskId, Task] = {}
        self.placing: Placing
        self.doomed: deque[Task] = deque()  # an argument has failed, and so do they
        # the role's (lineage): the task may have to run again. True: its arguments stay held
        self.keep: Callable[[Task, Sequence[Value], Address | None], bool]
        self.submitted: Callable[[Task], None]  # the role's: in a run that someone claims from
        self.stream_over: Callable[[Task, list[Value]], list[Value]]  # the role's (streams)

    # ------------------------------------------------------------------ submit

    def submit(self, task: Task) -> None:
        """Begin. The entries of its returns exist from here on, without a value."""
        ownership = self.ownership
        origin = task.origin
        if origin is not None:
            origin.alive += 1
        for object_id in task.returns:
            entry = ownership.own(object_id, origin)
            entry.task = task
            entry.handles += 1  # the handle that the caller is about to make
        self.tasks[task.id] = task
        for ref in task.borrowed:
            ownership.pin(ref.object)
        for ref in task.deps:
            ownership.pin(ref.object)
        if origin is not None and origin.claims:
            self.submitted(task)
        if task.deps:
            self.await_values(task)
        else:
            self.arguments_ready(task)

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
        if task.state is DONE or (task.deps and not self.still_ready(task)):
            return
        if task.deps:
            self.choose_target(task)
        (task.placing or self.placing).enqueue(task)

    def choose_target(self, task: Task) -> None:
        """The node that holds most of the stored arguments is asked first for a worker."""
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

    def wishes(self, task: Task) -> list[FetchObject]:
        """What a task will read, for the node on which it will probably run."""
        wishes = []
        for ref in task.deps:
            entry = self.ownership.entries[ref.object]
            value = entry.value
            if value is not None and value.kind == STORED:
                owner = entry.owner or self.world.address
                wishes.append(FetchObject(entry.object, value.size, owner, value.nodes, ARGUMENT))
        return wishes

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
        world, function = self.world, task.function
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
            len(task.returns),
            task.depth,
            task.name,
        )
        if task.deps:
            message.deps = self.arguments(task, worker)
        if task.borrowed:
            message.borrowed = self.ownership.handed_out(task.borrowed, worker)
        if task.retry_exceptions:
            message.retry_exceptions = task.retry_exceptions
        if function.max_calls:
            message.max_calls = function.max_calls
        if task.origin is not None:
            message.line = task.origin.line
        if task.actor is not None:
            message.actor = task.actor
        if task.stream is not None:
            message.stream = task.stream.terms()
        if task.limits is not None and task.limits.timeout:
            message.timed = True
        if task.claims:
            message.claims = list(task.claims.values())
            for claim in message.claims:
                world.send(claim.holder, Claimed(claim.object, worker))
        world.send(worker, message)

    def arguments(self, task: Task, worker: Address) -> list[Argument]:
        """The top-level references with their values, as pushed to ``worker``."""
        ownership = self.ownership
        arguments = []
        for ref in task.deps:
            value = ownership.entries[ref.object].value
            assert value is not None
            arguments.append(Argument(ownership.current(ref), ownership.for_peer(value, worker)))
        return arguments

    # ------------------------------------------------------------------ results

    def on_done(self, task: Task, message: TaskDone, worker: Address) -> None:
        """Results of its newest attempt came."""
        if task.state is not PUSHED:
            self.discard(message, worker, free=False)
            return
        if message.retry and not task.over and self.may_retry(task):
            self.try_again(task)
        else:
            self.finish(task, message.results, worker)

    def finish(self, task: Task, results: list[Value], giver: Address | None = None) -> None:
        """The task is over: hand its results to their entries and let the arguments go, unless
        it may have to run again.
        """
        task.state = DONE
        if task.clock is not None:
            self.stop_clock(task)
        del self.tasks[task.id]
        if task.stream is not None:
            results = self.stream_over(task, results)
        kept = self.keep(task, results, giver)
        entries = self.ownership.entries
        for object_id, value in zip(task.returns, results):
            entry = entries.get(object_id)
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

    # ------------------------------------------------------------------ retries and cancellation

    def may_retry(self, task: Task) -> bool:
        """Whether one more attempt is allowed; counts it. ``max_retries=-1`` is without end."""
        if task.max_retries >= 0 and task.used_retries >= task.max_retries:
            return False
        task.used_retries += 1
        return True

    def retry(self, task: Task) -> None:
        """Begin a new attempt under the same ids."""
        if task.clock is not None:
            self.stop_clock(task)
        task.attempt += 1
        task.lease = None
        (task.placing or self.placing).enqueue(task)

    def try_again(self, task: Task) -> None:
        """An attempt has failed and there is to be another, after the pause that the user asked
        for.
        """
        limits = task.limits
        if limits is None or not limits.delay:
            self.retry(task)
            return
        if task.clock is not None:
            self.stop_clock(task)
        task.state = DELAYED
        task.attempt += 1
        task.lease = None
        chance = self.world.new_id() if limits.jitter else b""
        pause = limits.pause(task.used_retries, chance)
        task.since = self.world.now() + pause
        self.world.call_at(task.since, partial(self.pause_over, task, task.attempt))

    def pause_over(self, task: Task, attempt: int) -> None:
        """The pause before a new attempt is over. An argument may have been lost meanwhile."""
        if task.state is DELAYED and task.attempt == attempt:
            self.arguments_ready(task)

    def stop_clock(self, task: Task) -> None:
        """The attempt whose time was measured has ended."""
        assert task.clock is not None
        task.clock.timer.cancel()
        task.clock = None

    def fail(self, task: Task, error: bytes) -> None:
        """The task ends in a system error."""
        self.finish(task, [Value(FAILED, error)] * len(task.returns))

    def cancel(
        self, task: Task, *, force: bool, recursive: bool, error: bytes, grace: float = 0.0
    ) -> None:
        """The user wants the task to end: at once if it has not been pushed, else its worker is
        told.
        """
        task.cancelled = True
        if task.state is PUSHED:
            worker = task.lease.worker  # type: ignore[attr-defined]  # a leasing.Lease
            self.world.send(worker, CancelTask(task.id, force, recursive, grace))
        elif task.state is not DONE:
            if task.state is QUEUED:
                (task.placing or self.placing).withdraw(task)
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
