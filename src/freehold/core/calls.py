"""Calls, a caller's side: the queues of one process to each actor that it calls.

A call is a task like any other (``submission`` knows its arguments, results and pins), but it goes
to one process: where the actor lives. Life of a call: queued -> pushed -> done; or, when that
process ends first, queued again or failed.

* **Order.** To an actor that runs one call after the other, calls are pushed in the order in which
  they were submitted: one whose arguments are not there holds up those behind it, and nothing else
  does. All are pushed at once; the actor is their queue. The order is that of a *line*: of a
  program, of an actor, or of one task. What another task in the same worker has called before
  holds up nothing: it may wait for the very result of this one. To one that runs several at a time
  (in threads, or coroutines) a call goes when its arguments are there.
* **At most once.** A call that was pushed to a life that has ended may have run. It runs again only
  if the user allows it (``max_task_retries``), then before all that was not pushed. The queue is in
  the order of submission, so that no call waits for the result of one behind it. Else it fails: as
  unavailable if the actor lives on, as dead if not. Until we know which, it is *unsure*. A call
  that was not pushed waits for the next life. What an ended life still says is refused: its process
  is buried when its stream has ended, and its last results came before that.
* **Where it lives** is the value of the actor's object, asked of its owner as any value is. When we
  see a life end (the end of the stream, never a notice that could overtake results) we ask for the
  next one, naming the one that we saw end.

The actor is pinned while a call of ours is not done: so the last handle may go at once, and the
actor ends after its queued calls.

Not known here: who makes the actor again and whether (``actors``), what the worker does
(``hosting``).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from operator import attrgetter

from freehold.core.entries import Entry
from freehold.core.ownership import Ownership
from freehold.core.submission import DONE, PUSHED, QUEUED, WAITING, Placing, Submission, Task
from freehold.core.world import World
from freehold.ids import FunctionId, LeaseId, ObjectId, ProcessId
from freehold.wire.actors import Place, place_of
from freehold.wire.messages import FAILED, Call, CancelTask, Creation, LocateActor


class ActorTask(Task):
    """A task that makes an actor, or calls one. ``subject``: that actor, as ``actors`` or ``calls``
    knows it. ``line``: that of a call. ``counted``: among its callee's ``pending``. ``queued``: it
    stands in its callee's queue.
    """

    __slots__ = ("actor", "counted", "line", "placing", "queued", "subject")

    actor: Creation | Call
    line: bytes
    placing: Placing
    subject: object
    counted: bool
    queued: bool


class Everything(set[FunctionId]):
    """The functions that the host of an actor knows: calls name methods, there is nothing to
    define.
    """

    def __contains__(self, function: object) -> bool:
        return True


KNOWN = Everything()
_number = attrgetter("actor.number")
NO_LEASE = LeaseId(b"")


class Callee:
    """An actor that this process calls. ``count``: calls so far. ``pending``: those that are not
    done. ``place``: where calls are pushed, None while that is not known. ``gone``: whose end we
    asked about last. ``queues``: calls of each line by their numbers; none is empty for long.
    ``away``: calls that came back from ``place`` for an argument, and hold up those behind there.
    """

    __slots__ = (
        "away",
        "calls",
        "count",
        "entry",
        "gone",
        "ordered",
        "pending",
        "place",
        "pushed",
        "queues",
        "seeking",
        "unsure",
    )

    def __init__(self, calls: Calls, entry: Entry, ordered: bool) -> None:
        self.calls = calls
        self.entry = entry
        self.ordered = ordered
        self.count = 0
        self.pending = 0
        self.place: Place | None = None
        self.gone: ProcessId | None = None
        self.seeking = False
        self.queues: dict[bytes, deque[ActorTask]] = {}
        self.pushed: dict[bytes, ActorTask] = {}
        self.away: set[bytes] = set()
        self.unsure: list[ActorTask] = []

    def queue_of(self, task: ActorTask) -> deque[ActorTask]:
        """Where a call stands until it is pushed."""
        queue = self.queues.get(task.line)
        if queue is None:
            queue = self.queues[task.line] = deque()
        return queue

    def ahead_of(self, task: ActorTask) -> ActorTask | None:
        """The call that is to go before this one, if there is any."""
        queue = self.queues.get(task.line)
        return queue[0] if queue and queue[0] is not task else None

    def resolved(self, entry: Entry) -> None:
        """The actor's place, or its end, is known."""
        self.seeking = False
        self.calls.found(self, entry)

    def renamed(self, old: ObjectId, new: ObjectId) -> None:
        """Never: an actor is not made again under another id."""


class Calls(Placing):
    """The actors that this process calls, and the calls."""

    def __init__(self, world: World, ownership: Ownership, submission: Submission) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.callees: dict[ObjectId, Callee] = {}
        self.at: dict[ProcessId, dict[ObjectId, Callee]] = {}
        self.by_task = False  # this process runs tasks: each has a line of its own
        # the role's: the shipped forms of what a call ends in
        self.dead: Callable[[Task, bytes], bytes]  # the actor has ended, by this error
        self.orphaned: Callable[[Task], bytes]  # its owner has
        self.unavailable: Callable[[Task, str], bytes]
        self.abandoned: Callable[[Task], None]  # the role's: cancelled, and not running any more

    # ------------------------------------------------------------------ calls in

    def callee(self, object_id: ObjectId, *, ordered: bool) -> Callee:
        """The actor, as one that we call."""
        callee = self.callees.get(object_id)
        if callee is None:
            entry = self.ownership.entries[object_id]
            callee = self.callees[object_id] = Callee(self, entry, ordered)
            if entry.task is None:
                entry.task = callee  # (so that we hear when it is freed; its owner has an Actor)
        return callee

    def submit(self, task: ActorTask, callee: Callee) -> None:
        """One more call."""
        call = task.actor
        assert type(call) is Call
        task.line = (task.parent or b"") if self.by_task else b""
        task.actor = Call(call.method, call.group, callee.count, task.line)
        task.subject = callee
        task.placing = self
        self.count(task, callee)
        callee.count += 1
        task.queued = callee.ordered and not self.may_go(task, callee)
        if task.queued:
            callee.queue_of(task).append(task)
        self.submission.submit(task)

    def may_go(self, task: ActorTask, callee: Callee) -> bool:
        """Whether a call needs no arguments and has no other before it: as most of them."""
        return not (task.deps or callee.place is None or task.line in callee.queues)

    def count(self, task: ActorTask, callee: Callee) -> None:
        """One more call is not done."""
        task.counted = True
        if not callee.pending:
            callee.entry.pins += 1
        callee.pending += 1

    def enqueue(self, task: Task) -> None:
        """The call has its arguments. (Its first time, or once more.)"""
        assert isinstance(task, ActorTask)
        callee = task.subject
        task.state = QUEUED
        if callee is None:  # (it has failed so before, and was claimed once more)
            self.submission.fail(task, self.unavailable(task, "nobody holds it any more"))
            return
        assert isinstance(callee, Callee)
        if not task.queued:
            if task.attempt:
                callee.pushed.pop(task.id, None)
            if not task.counted:  # a result was lost, and lineage has it made again
                if self.callees.get(callee.entry.object) is not callee:
                    task.subject = None
                    self.submission.fail(task, self.unavailable(task, "nobody holds it any more"))
                    return
                self.count(task, callee)
            if self.may_go(task, callee):
                assert callee.place is not None
                self.push(task, callee, callee.place)
                return
            task.queued = True
            insort(callee.queue_of(task), task, key=_number)
        self.fill(callee, task)

    def withdraw(self, task: Task) -> bool:
        """Nothing to do: a call that is over is passed over."""
        return task.state is not PUSHED

    def fill(self, callee: Callee, call: ActorTask) -> None:
        """Push what can be pushed of the line of a call."""
        queue = callee.queue_of(call)
        self.push_from(queue, callee)
        if not queue and callee.queues.get(call.line) is queue:
            del callee.queues[call.line]

    def push_from(self, queue: deque[ActorTask], callee: Callee) -> None:
        """Push what can be pushed of one line."""
        while queue:
            task = queue[0]
            if task.state is WAITING:
                return
            if task.state is DONE:
                queue.popleft()
            elif callee.place is None:
                self.seek(callee)
                return
            elif self.submission.still_ready(task):
                queue.popleft()
                self.push(task, callee, callee.place)
            elif task.state is QUEUED:
                return  # it is about to fail, and that brings us here again (``over``)

    def push(self, task: ActorTask, callee: Callee, place: Place) -> None:
        """Send a call."""
        task.queued = False
        task.lease = place
        callee.pushed[task.id] = task
        if callee.away:
            callee.away.discard(task.id)
        self.submission.push(task, place.worker, NO_LEASE, KNOWN)

    def returned(self, task: ActorTask) -> None:
        """The actor's process does not get an argument: the call will come again, or be over."""
        if isinstance(task.subject, Callee) and task.state is PUSHED:
            task.subject.away.add(task.id)

    # ------------------------------------------------------------------ where the actor is

    def seek(self, callee: Callee) -> None:
        """Find out where the actor lives."""
        if callee.seeking:
            return
        entry = callee.entry
        if entry.value is None:
            callee.seeking = True
            self.ownership.wait_for(entry, callee)
        else:
            self.found(callee, entry)

    def found(self, callee: Callee, entry: Entry) -> None:
        """Its owner says where, or that it is dead."""
        value = entry.value
        assert value is not None
        if value.kind == FAILED:
            self.fail_all(callee, lambda task: self.dead(task, value.data))
            return
        place = place_of(value)
        process = place.worker.process
        if process not in self.ownership.lost:
            callee.place = place
            self.at.setdefault(process, {})[entry.object] = callee
            self.lives_on(callee)
            for queue in list(callee.queues.values()):
                if queue:
                    self.fill(callee, queue[0])
        elif process != callee.gone or self.owner_lost(entry):
            self.ask(callee, process)
        else:
            why = "its process lives, but the connection to it was lost"
            callee.gone = None
            self.fail_all(callee, lambda task: self.unavailable(task, why))

    def ask(self, callee: Callee, gone: ProcessId) -> None:
        """The life that we know of has ended: ask for the next."""
        entry = callee.entry
        callee.gone = gone
        if entry.owner is None:  # we shall see to it ourselves (``actors``)
            callee.seeking = True
            entry.waiters = [*(entry.waiters or ()), callee]
        elif self.owner_lost(entry):
            self.fail_all(callee, self.orphaned)
        else:
            callee.seeking = True
            entry.value = None
            entry.waiters = [callee]
            self.world.send(entry.owner, LocateActor(entry.object, gone))

    def owner_lost(self, entry: Entry) -> bool:
        """Whether nobody is left to ask."""
        return entry.owner is not None and entry.owner.process in self.ownership.lost

    def restarts(self, object_id: ObjectId) -> None:
        """The actor has died and is being made again."""
        callee = self.callees.get(object_id)
        if callee is not None:
            self.lives_on(callee)

    def lives_on(self, callee: Callee) -> None:
        """The actor is not dead for good: what a former life may have run has failed for itself."""
        unsure, callee.unsure = callee.unsure, []
        for task in unsure:
            self.submission.fail(task, self.unavailable(task, "it died while the call was there"))

    # ------------------------------------------------------------------ ends

    def fail_all(self, callee: Callee, error: Callable[[Task], bytes]) -> None:
        """No call will be run."""
        tasks = [*callee.unsure, *chain.from_iterable(callee.queues.values())]
        callee.unsure.clear()
        callee.queues.clear()
        for task in tasks:
            if task.state is not DONE:
                task.queued = False
                self.submission.fail(task, error(task))

    def over(self, task: ActorTask) -> None:
        """A call is done, one way or another."""
        callee = task.subject
        if not isinstance(callee, Callee):
            return
        callee.pushed.pop(task.id, None)
        if callee.away and task.id in callee.away:  # it will not come again
            callee.away.discard(task.id)
            if callee.place is not None:
                self.world.send(callee.place.worker, CancelTask(task.id, False, False))
        if task.queued:  # it has failed, or was cancelled: those behind it go on
            task.queued = False
            self.fill(callee, task)
        if not task.counted:
            return  # it was to run again, and an argument cannot be made again
        task.counted = False
        callee.pending -= 1
        if not callee.pending:
            callee.entry.pins -= 1
            if not callee.entry.handles:
                self.ownership.collect(callee.entry)

    def closed(self, object_id: ObjectId) -> None:
        """The actor was ended: what is not pushed yet is not pushed any more."""
        callee = self.callees.get(object_id)
        if callee is not None:
            callee.place = None
            callee.away.clear()
            if callee.queues:
                self.seek(callee)

    def worker_lost(self, process: ProcessId) -> None:
        """The stream of a process has ended that hosted actors of which we know."""
        for callee in self.at.pop(process, {}).values():
            callee.place = None
            callee.away.clear()
            pushed = list(callee.pushed.values())
            callee.pushed.clear()
            for task in pushed:
                if task.over:
                    self.abandoned(task)
                elif self.submission.may_retry(task):
                    task.attempt += 1
                    task.state = QUEUED
                    task.queued = True
                    task.lease = None
                    insort(callee.queue_of(task), task, key=_number)
                else:
                    callee.unsure.append(task)
            if callee.unsure or callee.queues:
                self.seek(callee)

    def forget(self, object_id: ObjectId) -> Sequence[Entry]:
        """The actor's entry is gone."""
        callee = self.callees.pop(object_id, None)
        if callee is not None and callee.place is not None:
            at = self.at.get(callee.place.worker.process)
            if at is not None:
                at.pop(object_id, None)
                if not at:
                    del self.at[callee.place.worker.process]
        return ()
