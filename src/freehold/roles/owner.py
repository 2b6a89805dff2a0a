"""The owner: what every driver and worker is made of. Owns references, submits tasks, holds
leases, gets values.

Machines: ownership (references and counts), submission (tasks), leasing (workers), fetching
(stored bytes), lineage (tasks that may have to run again), rebirth (what dead owners owned). They
meet here and nowhere else. A worker adds ``execution`` (roles/executor).

Every public method is an event: called under the process's core lock by whichever thread has it,
and never blocking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol

from freehold.core.awaiting import AwaitingGroups
from freehold.core.calls import ActorTask
from freehold.core.cancelling import GRACE, Cancelling
from freehold.core.entries import Entry, Origin
from freehold.core.estate import Estate
from freehold.core.fetching import Creating, Creation, Fetching, Get, Wait
from freehold.core.leasing import Lease, Leasing
from freehold.core.lineage import Lineage
from freehold.core.ownership import Ownership
from freehold.core.rebirth import Rebirth
from freehold.core.streams import Streams
from freehold.core.submission import Submission, Task
from freehold.core.telling import Telling
from freehold.core.world import World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId, TaskId, short
from freehold.roles.acting import Acting, ActorErrors
from freehold.wire.environments import DescribeEnvironment, Environment, EnvironmentDescribed
from freehold.wire.inquiry import Explain, Explanation
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    AskGone,
    Bequeath,
    CancelObject,
    ChildrenGone,
    Claimed,
    ClaimObject,
    Death,
    FreeObjects,
    Gone,
    GroupSettled,
    Introduce,
    KeepObject,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LeaseWanted,
    Locate,
    Located,
    Message,
    NodeChanged,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectMoved,
    ObjectReady,
    Provide,
    Reborn,
    Release,
    SealObject,
    StillQueued,
    StreamEnd,
    StreamItem,
    TaskBegun,
    TaskDone,
    TaskReturned,
    Unclaimed,
    Value,
)


class Errors(ActorErrors, Protocol):
    """Makes the shipped form of system errors; ``wire`` does it, the role only says which."""

    def worker_died(self, task: str, death: Death) -> bytes:
        """The worker that ran it is gone and no retry is left."""

    def cancelled(self, task: str) -> bytes:
        """The task was cancelled."""

    def timed_out(self, task: str, seconds: float) -> bytes:
        """The task has run for longer than it may."""

    def unschedulable(self, task: str, reason: str) -> bytes:
        """No node can ever run it."""

    def group_removed(self, task: str, group: bytes) -> bytes:
        """The placement group in which it was to run is gone; of a task, or of the group itself."""

    def environment_failed(self, task: str, reason: str) -> bytes:
        """Its runtime environment cannot be made."""

    def lost(self, object_id: ObjectId, reason: str, *, evicted: bool = False) -> bytes:
        """Every copy of a value is gone, and it cannot be made again; ``evicted``: because its
        lineage was dropped.
        """

    def replay_failed(self, task: str, before: int, now: int) -> bytes:
        """A task that yields was run again and has yielded fewer values than before."""

    def handover_lost(self, giver: ProcessId) -> bytes:
        """The process that handed a reference over died before its owner had counted it."""

    def store_full(self, reason: str, disk: bool) -> bytes:
        """There is no room in this node's store."""

    def owner_died(self, object_id: ObjectId, owner: Address, why: str) -> bytes:
        """The process that owned the value is gone, and why it does not come back."""


class Owner:
    """The machines of one owner and the facts that travel between them."""

    def __init__(self, world: World, errors: Errors, node: Address, job: JobId) -> None:
        self.world = world
        self.errors = errors
        self.node = node
        self.ownership = Ownership(world)
        self.submission = Submission(world, self.ownership)
        self.submit = self.submission.submit  # a task begins
        self.leasing = Leasing(world, self.submission, node, job)
        self.submission.placing = self.leasing
        self.leasing.worker_died = self.worker_died
        self.leasing.unplaceable = self.unplaceable
        self.leasing.unprepared = self.unprepared
        self.leasing.group_removed = self.group_removed
        self.awaiting = AwaitingGroups(world, self.ownership, node)
        self.awaiting.removed_error = lambda group: errors.group_removed("", group)
        self.leasing.abandoned = self.abandoned
        self.cancelling = Cancelling(world, self.submission)
        self.ownership.handover_lost = errors.handover_lost
        self.fetching = Fetching(world, node)
        self.fetching.missing = self.find_elsewhere
        self.ownership.on_free = self.fetching.freed
        self.fetching.full = errors.store_full
        self.creating = Creating(world, node)
        self.making: set[ObjectId] = set()  # puts that have room in the store and no entry yet
        self.lineage = Lineage(world, self.ownership, self.submission)
        self.rebirth = Rebirth(world, self.ownership, self.submission, self.lineage)
        self.estate = Estate(world, self.ownership, self.submission, self.lineage)
        self.acting = Acting(self, world, errors)
        self.environments: dict[bytes, Environment] = {}  # by key: those that we ask workers for
        self.streams = Streams(world, self.ownership, self.submission, self.lineage)
        self.join_machines()
        self.telling = Telling(
            world, self.ownership, self.submission, self.leasing, self.fetching, self.creating
        )
        self.telling.group_awaited = self.awaiting.group_of
        self.job = job
        self.handlers = self.table()
        self.handlers.update(self.acting.handlers(self.handlers))
        self.unhandled: Callable[[Message, Address], None]  # the shell's: it is not for the role

    def table(self) -> dict[type[Message], Callable[[Any, Address], None]]:
        """Which message goes where."""
        return {
            TaskDone: self.on_task_done,
            TaskReturned: self.on_task_returned,
            TaskBegun: lambda message, peer: self.cancelling.on_begun(message),
            LeaseGranted: self.leasing.on_granted,
            LeaseRedirected: lambda message, peer: self.leasing.on_redirected(message),
            LeaseRefused: lambda message, peer: self.leasing.on_refused(message),
            LeaseWanted: lambda message, peer: self.leasing.on_wanted(message.lease),
            LeaseEnded: lambda message, peer: self.leasing.on_ended(message),
            StillQueued: lambda message, peer: self.leasing.on_queued(
                message.lease, message.reason
            ),
            Locate: self.on_locate,
            Located: self.on_located,
            Release: lambda message, peer: self.ownership.on_release(message, peer.process),
            Provide: lambda message, peer: self.ownership.on_provide(message, peer.process),
            Introduce: lambda message, peer: self.ownership.on_introduce(message),
            AskGone: self.ownership.on_ask_gone,
            Gone: lambda message, peer: self.ownership.on_gone(message, peer.process),
            CancelObject: self.on_cancel_object,
            ChildrenGone: lambda message, peer: self.lineage.on_children_gone(
                message, peer.process
            ),
            ClaimObject: lambda message, peer: self.rebirth.on_claim(message.claim, peer.process),
            Claimed: lambda message, peer: self.rebirth.on_claimed(message, peer.process),
            Reborn: lambda message, peer: self.rebirth.on_reborn(message),
            Bequeath: self.estate.on_bequeath,
            Unclaimed: lambda message, peer: self.rebirth.on_unclaimed(message),
            ObjectReady: lambda message, peer: self.fetching.on_ready(message),
            ObjectMissing: lambda message, peer: self.fetching.on_missing(message),
            ObjectCreated: self.on_object_created,
            ObjectAt: self.on_object_at,
            ObjectMoved: self.on_object_moved,
            NodeChanged: self.on_node_changed,
            GroupSettled: lambda message, peer: self.awaiting.on_settled(message),
            DescribeEnvironment: self.on_describe_environment,
            Explain: self.on_explain,
            StreamItem: self.streams.on_item,
            StreamEnd: lambda message, peer: self.streams.on_end(message),
        }

    def join_machines(self) -> None:
        """What lineage and rebirth are told, and what they ask for."""
        ownership, submission = self.ownership, self.submission
        ownership.result_gone = self.result_gone
        ownership.origin_spent = self.rebirth.origin_spent
        ownership.orphaned = self.rebirth.orphaned
        ownership.born = self.rebirth.born
        submission.keep = self.task_over
        submission.submitted = self.rebirth.submitted
        submission.stream_over = self.streams.over
        self.lineage.stream_lost = self.streams.lost
        self.lineage.unclaimed = self.rebirth.actor_over
        self.streams.cancel = partial(self.cancel_task, force=False, recursive=False)
        self.streams.replay_failed = lambda task, before, now: self.errors.replay_failed(
            task.title, before, now
        )
        self.lineage.lost = lambda entry, reason, evicted: self.errors.lost(
            entry.object, reason, evicted=evicted
        )
        self.rebirth.owner_died = self.owner_died
        self.rebirth.stop_fetching = self.wait_anew

    # ------------------------------------------------------------------ what user code asks for

    def put(self, object_id: ObjectId, value: Value, origin: Origin | None = None) -> None:
        """A finished value of ours, with one handle; ``origin``: the run that makes it. Its
        references are pinned by their handles until here.
        """
        self.making.discard(object_id)
        entry = self.ownership.own(object_id, origin)
        entry.handles += 1
        for ref in value.contains:
            self.ownership.pin(ref.object)
        self.ownership.resolve(entry, value)

    def create(
        self, object_id: ObjectId, size: int, owner: Address, wake: Callable[[], None]
    ) -> Creation:
        """Room for a value in this node's store."""
        if owner.process == self.world.address.process:
            self.making.add(object_id)
        return self.creating.create(object_id, size, owner, self.job, wake)

    def seal(self, object_id: ObjectId) -> None:
        """The value has been written."""
        self.world.send(self.node, SealObject(object_id))

    def get(self, objects: Sequence[ObjectId], wake: Callable[[], None]) -> Get:
        """Wait for values; ``wake`` is called once, under the lock, when the result's ``done``
        turns true later.
        """
        return Get(self.ownership, self.fetching, objects, wake)

    def wait(
        self, objects: Sequence[ObjectId], needed: int, fetch: bool, wake: Callable[[], None]
    ) -> Wait:
        """Wait for ``needed`` of the values."""
        return Wait(self.ownership, self.fetching, objects, needed, fetch, wake)

    def all_here(self, objects: Iterable[ObjectId]) -> bool:
        """Whether the values of all these objects lie in this node's store."""
        return all(
            value is not None and value.kind == STORED and self.node in value.nodes
            for value in (self.ownership.entries[object_id].value for object_id in objects)
        )

    def value(self, object_id: ObjectId) -> Value:
        """A value that is known."""
        value = self.ownership.entries[object_id].value
        assert value is not None
        return value

    def cancel(
        self, object_id: ObjectId, *, force: bool, recursive: bool, grace: float = GRACE
    ) -> None:
        """Cancel the task that makes an object. Finished tasks, plain values, and what a process
        owned that is gone: nothing to do.
        """
        entry = self.ownership.entries[object_id]
        if entry.owner is not None:
            if entry.value is None and entry.owner.process not in self.ownership.lost:
                self.world.send(entry.owner, CancelObject(object_id, force, recursive, grace))
        elif isinstance(entry.task, Task) and entry.value is None:
            self.cancel_task(entry.task, force=force, recursive=recursive, grace=grace)

    def cancel_task(
        self, task: Task, *, force: bool, recursive: bool, grace: float = GRACE
    ) -> None:
        """Cancel a task of ours; with ``recursive`` also what earlier runs of it have left."""
        error = self.errors.cancelled(task.title)
        self.submission.cancel(task, force=force, recursive=recursive, error=error, grace=grace)
        if force:
            self.cancelling.insist(task, grace)
        if recursive and task.homes:
            self.lineage.cancel_children(task, force=force, grace=grace)

    def cancel_children(self, parent: TaskId, *, force: bool, grace: float = GRACE) -> None:
        """Cancel every task that ``parent`` has submitted from here, and what those have left."""
        for task in list(self.submission.tasks.values()):
            if task.parent == parent:
                self.cancel_task(task, force=force, recursive=True, grace=grace)
        for task in self.lineage.ended(parent):
            self.lineage.cancel_children(task, force=force, grace=grace)

    def explain(self, object_id: ObjectId) -> list[str]:
        """What the object waits for, line by line, as far as this process knows."""
        return self.telling.lines(object_id)

    # ------------------------------------------------------------------ events

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message."""
        handler = self.handlers.get(type(message))
        if handler is None:
            self.unhandled(message, peer)
        elif peer.process not in self.ownership.lost:  # (it may dial just before it dies)
            handler(message, peer)

    def on_task_done(self, message: TaskDone, peer: Address) -> None:
        task = self.submission.tasks.get(message.task)
        kept = task or self.lineage.tasks.get(message.task)
        if kept is not None and (message.children or kept.homes):
            self.lineage.children(kept, peer, any_left=message.children)
        if task is None or task.attempt != message.attempt:
            self.submission.discard(message, peer, free=task is None)
            return
        lease = task.lease
        if task.actor is None:
            task.function.measured(message.micros)
            self.leasing.task_left(task)
        late = self.rebirth.ran(task, message.unclaimed, peer.process) if task.claims else ()
        self.submission.on_done(task, message, peer)
        for claim in late:
            self.rebirth.on_claim(claim, claim.holder.process)
        if isinstance(lease, Lease):
            self.leasing.refill(lease)

    def on_task_returned(self, message: TaskReturned, peer: Address) -> None:
        task = self.submission.tasks.get(message.task)
        if task is not None and task.attempt == message.attempt:
            if isinstance(task, ActorTask):
                self.acting.calls.returned(task)
            for missing in message.missing:
                self.value_missing(missing.object, missing.tried)
        self.leasing.on_returned(message, task)

    def value_missing(self, object_id: ObjectId, tried: Sequence[NodeId]) -> None:
        """An argument of a task of ours was not to be had from the nodes that it was said to be
        on.
        """
        entry = self.ownership.entries.get(object_id)
        if entry is None or entry.value is None or entry.value.kind != STORED:
            return
        if entry.owner is not None:
            self.ownership.ask_again(entry, tried)
        for node in tried:
            self.copy_gone(object_id, node, "the node that held it does not have it any more")

    def on_cancel_object(self, message: CancelObject, peer: Address) -> None:
        if message.object in self.ownership.entries:
            self.cancel(
                message.object,
                force=message.force,
                recursive=message.recursive,
                grace=message.grace,
            )

    def on_locate(self, message: Locate, peer: Address) -> None:
        entry = self.ownership.entries.get(message.object)
        if entry is None or entry.owner is not None:
            error = self.errors.lost(message.object, "its owner has freed it")
            self.world.send(peer, Located(message.object, Value(FAILED, error)))
            return
        for node in message.stale:
            self.copy_gone(message.object, node, "the node that held it does not have it any more")
        self.ownership.on_locate(message, peer)

    def on_located(self, message: Located, peer: Address) -> None:
        self.ownership.on_located(message, peer)
        self.fetching.relocated(message.object, message.value)

    def on_object_at(self, message: ObjectAt, peer: Address) -> None:
        entry = self.ownership.entries.get(message.object)
        if entry is None or entry.value is None or entry.value.kind != STORED:
            if not message.present:
                return
            if entry is not None and self.lineage.running(entry):
                self.lineage.strays.setdefault(message.object, []).append(message.node)
            else:  # freed, or given up, while the copy was on its way
                self.world.send(message.node, FreeObjects([message.object]))
            return
        if not message.present:
            self.copy_gone(message.object, message.node.node, "its last copy was dropped")
        elif all(node.node != message.node.node for node in entry.value.nodes):
            if message.remains:  # of an earlier attempt
                self.world.send(message.node, FreeObjects([message.object]))
            else:
                entry.value.nodes.append(message.node)

    def on_object_created(self, message: ObjectCreated, peer: Address) -> None:
        if message.offset < 0:
            self.making.discard(message.object)
        self.creating.on_created(message)

    def on_object_moved(self, message: ObjectMoved, peer: Address) -> None:
        object_id, giver, taker = message.object, message.giver, message.taker
        entry = self.ownership.entries.get(object_id)
        value = entry.value if entry is not None else None
        if object_id in self.making or (entry is not None and value is None):
            self.world.send(taker, FreeObjects([object_id]))  # where it is we shall hear soon
            return
        places = value.nodes if value is not None and value.kind == STORED else []
        if any(place.node == giver.node for place in places):
            assert value is not None
            both = (giver.node, taker.node)
            value.nodes = [taker, *(place for place in places if place.node not in both)]
            self.world.send(taker, KeepObject(object_id))
        elif any(place.node == taker.node for place in places):
            self.world.send(taker, KeepObject(object_id))
        else:
            self.world.send(taker, FreeObjects([object_id]))
        self.world.send(giver, FreeObjects([object_id]))

    def on_node_changed(self, message: NodeChanged, peer: Address) -> None:
        if not message.info.alive:
            node = message.info.address.node
            self.world.fence(node)
            reason = f"node {short(node)} on {message.info.hostname} {message.info.reason}"
            self.leasing.node_lost(node, reason)
            self.acting.actors.node_lost(node, reason, fenced=True)
            for object_id in list(self.ownership.entries):
                self.copy_gone(object_id, node, reason, alive=False)
            for owner in self.ownership.owners_on(node):
                self.peer_lost(owner)

    def peer_lost(self, peer: Address) -> None:
        """A process is gone and its stream drained."""
        if peer.process == self.node.process:
            self.creating.node_lost()
        elif peer.is_node():
            # We may hear of a node again after we heard that it died: in another's redirection, or
            # as the place of a value. What we asked of it then ends here.
            reason = f"node {short(peer.node)} cannot be reached"
            self.leasing.node_lost(peer.node, reason)
            self.acting.actors.node_lost(peer.node, reason, fenced=False)
        self.leasing.worker_drained(peer.process)
        self.lineage.worker_lost(peer.process)
        for entry in self.ownership.peer_lost(peer.process):
            if self.ownership.entries.get(entry.object) is entry:  # (one may have held another)
                self.rebirth.orphaned(entry)
        self.rebirth.peer_lost(peer.process)
        self.acting.peer_lost(peer.process)
        for object_id in self.fetching.awaited_from(peer.process):
            moved = self.ownership.entries.get(object_id)
            if moved is not None:  # it has another owner by now, perhaps ourselves
                self.wait_anew(moved, object_id)
            else:  # an argument: these have no entry
                self.fetching.withdraw(object_id)

    def on_explain(self, message: Explain, peer: Address) -> None:
        """Someone asks what we know of an object, a task or a lease."""
        findings = self.telling.explain(message.about, message.id)
        self.world.send(peer, Explanation(message.request, findings))

    # ------------------------------------------------------------------ facts between machines

    def find_elsewhere(self, object_id: ObjectId, owner: Address, tried: Sequence[NodeId]) -> None:
        """Our node could not get an object from ``tried``: ask its owner again, which may be us."""
        if owner.process != self.world.address.process:
            self.world.send(owner, Locate(object_id, list(tried)))
            return
        for node in tried:
            self.copy_gone(object_id, node, "the node that held it does not have it any more")
        entry = self.ownership.entries.get(object_id)
        if entry is None:  # freed meanwhile: whoever asked for it does not wait any more
            error = self.errors.lost(object_id, "its owner has freed it")
            self.fetching.relocated(object_id, Value(FAILED, error))
        elif entry.value is not None:
            self.fetching.relocated(object_id, entry.value)
        else:
            self.wait_anew(entry)

    def wait_anew(self, entry: Entry, fetched_as: ObjectId | None = None) -> None:
        """What is under way will not come: who waits for it here waits for what is made anew."""
        for fetcher in self.fetching.withdraw(fetched_as or entry.object):
            assert isinstance(fetcher, Get | Wait)
            if entry.value is None:
                self.ownership.wait_for(entry, fetcher)
            else:
                fetcher.resolved(entry)

    def copy_gone(
        self, object_id: ObjectId, node: NodeId, reason: str, *, alive: bool = True
    ) -> None:
        """One copy of a value of ours is gone. If it was the last, the value is lost."""
        entry = self.ownership.entries.get(object_id)
        if entry is None or entry.owner is not None or entry.value is None:
            return
        value = entry.value
        if value.kind != STORED or all(copy.node != node for copy in value.nodes):
            return
        if alive:  # it may have it after all, and would keep it for ever
            for copy in value.nodes:
                if copy.node == node:
                    self.world.send(copy, FreeObjects([object_id]))
        value.nodes = [copy for copy in value.nodes if copy.node != node]
        if value.nodes:
            self.world.send(value.nodes[0], KeepObject(object_id))
        else:
            self.lineage.recover(entry, reason)
            self.wait_anew(entry)

    def task_over(self, task: Task, results: Sequence[Value], worker: Address | None) -> bool:
        """A task is done. Whether its arguments stay held, because it may have to run again."""
        if task.claims:
            failed = worker is None or any(value.kind == FAILED for value in results)
            self.rebirth.task_over(task, failed=failed)
        if isinstance(task, ActorTask):
            kept = self.acting.task_over(task, results, worker)
            if kept is not None:
                return kept
        return self.lineage.keep(task, results, worker)

    def result_gone(self, entry: Entry) -> Iterable[Entry]:
        """An object that a task has made was freed, or an actor."""
        held = self.acting.freed(entry)
        return self.lineage.result_gone(entry) if held is None else held

    def owner_died(self, entry: Entry, why: str) -> bytes:
        """The shipped form of the error."""
        assert entry.owner is not None
        return self.errors.owner_died(entry.object, entry.owner, why)

    def abandoned(self, task: Task) -> None:
        """A task of which nobody wants more is not running any more."""
        self.submission.fail(task, self.errors.cancelled(task.title))

    def worker_died(self, task: Task, death: Death) -> None:
        """The task that a dead worker was running."""
        if task.over:
            self.abandoned(task)
        elif task.ending:
            self.timed_out(task)
        elif self.submission.may_retry(task):
            self.submission.try_again(task)
        else:
            self.submission.fail(task, self.errors.worker_died(task.title, death))

    def timed_out(self, task: Task) -> None:
        """A task's worker was killed because the task did not end when its time was over."""
        assert task.limits is not None
        if task.limits.retry_timeout and self.submission.may_retry(task):
            self.submission.try_again(task)
        else:
            self.submission.fail(task, self.errors.timed_out(task.title, task.limits.timeout))

    def unplaceable(self, task: Task, reason: str) -> None:
        """No node can ever run the task."""
        self.submission.fail(task, self.errors.unschedulable(task.title, reason))

    def group_removed(self, task: Task, group: bytes) -> None:
        """The placement group in which the task ran or was to run is gone."""
        self.submission.fail(task, self.errors.group_removed(task.title, group))

    def unprepared(self, task: Task, reason: str) -> None:
        """The runtime environment of the task cannot be made."""
        self.submission.fail(task, self.errors.environment_failed(task.title, reason))

    def on_describe_environment(self, message: DescribeEnvironment, peer: Address) -> None:
        """A node that is to find us workers does not know an environment yet."""
        known = self.environments[message.key]
        self.world.send(peer, EnvironmentDescribed(message.key, known))

    def counts(self) -> dict[str, int]:
        """Sizes of the tables, for tests of leaks."""
        return {
            "objects": len(self.ownership.entries),
            "tasks": len(self.submission.tasks),
            "kept tasks": len(self.lineage.tasks),
            "homes": len(self.lineage.homes),
            "origins": len(self.rebirth.origins),
            "leases": len(self.leasing.leases),
            "pinned": len(self.fetching.locals),
            "actors": len(self.acting.actors.leases),
            "callees": len(self.acting.calls.callees),
        }
