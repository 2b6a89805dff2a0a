"""Actors, the creator's side: an actor is made, lives, dies, is made again, ends.

An actor IS an object: handles are references to it, and who may name it, across how many processes,
is ``ownership``'s business as for any value. Its value (kind ACTOR) says where it lives. It is the
result of its *creation task*, which runs the constructor and then stays at its worker, as that
worker's only business, until the process ends. The creator is the owner; it alone decides about
restarts, so no two decide differently.

The life of one actor: wanted -> (lease requested -> granted -> pushed ->) alive -> ended. When its
process ends and a restart is left, the creation task runs again under the same ids with a higher
attempt number (its *life*), with arguments that ``lineage`` keeps as for any task that may have to
run again. It is *over* when its constructor raised, when it was killed or has exited, when no
restart is left, and when nobody can name it any more: then the worker is told to end it in good
order, which by construction is after its calls (``calls`` pins it while one is not done).

**Never two lives at once.** The next begins only when the process of the last is known to be reaped
(``LeaseEnded``), or to have ended with its node (both our streams have), or its node has been
declared dead and is fenced. If our stream to it ends and the node says nothing, we have the node
kill it. The stream must have ended too, or ``REPORT_PATIENCE`` be over: its last words (a result of
the constructor, that it exits on purpose) count.

An actor is not made again when its owner dies: its state would be lost without a word. Its
references carry no line, so nobody can claim it, and its worker ends when it sees the end of its
owner.

Races considered: all handles dropped while the constructor runs (it runs to its end: the creation
pins the actor); a kill that crosses a grant (the lease is returned); an actor that dies while it is
told to end (it has ended); a worker that cannot get the constructor's arguments (another lease).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from freehold.core.calls import ActorTask
from freehold.core.entries import Entry, Maker
from freehold.core.leasing import ASK_AGAIN, REPORT_PATIENCE, Leasing
from freehold.core.lineage import Lineage
from freehold.core.ownership import Ownership
from freehold.core.submission import QUEUED, Placing, Submission, Task
from freehold.core.world import World
from freehold.ids import LeaseId, NodeId, ObjectId, ProcessId
from freehold.wire.actors import place_of
from freehold.wire.messages import (
    ACTOR,
    FAILED,
    ActorRestarts,
    Address,
    Creation,
    Death,
    EndActor,
    KillLease,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LocateActor,
    Located,
    RequestLease,
    ReturnLease,
    Value,
)

#: Seconds that an actor has to end in good order before it is killed: Ray's figure for the same.
END_SECONDS: Final = 30.0
#: A life shorter than this (seconds) makes the next one wait: a constructor that crashes would else
#: take a fork and a lease every 10 ms for ever.
SHORT_LIFE: Final = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 10.0
#: Seconds after which one who asks for the next life of an actor is told that the last goes on.
STILL_THERE: Final = 5.0


class Actor(Maker):
    """One actor of ours. ``restarts``: left, -1 for any number. ``lease``: the one that is
    requested or held, whose request lies at ``node``. ``over``: it will not be made again.
    ``short_lives``: how many there were in a row.
    """

    __slots__ = (
        "began",
        "death",
        "drained",
        "id",
        "lease",
        "node",
        "over",
        "pid",
        "restarts",
        "short_lives",
        "task",
        "why",
        "worker",
    )

    def __init__(self, task: ActorTask, restarts: int) -> None:
        self.id = task.returns[0]
        self.task = task
        self.restarts = restarts
        self.lease: LeaseId | None = None
        self.node: Address
        self.worker: Address | None = None
        self.pid = 0
        self.death: Death | None = None
        self.drained = False
        self.over = False
        self.why = ""  # the node's last word on why the request waits
        self.began = 0.0
        self.short_lives = 0


class Actors(Placing):
    """The actors that this process has created."""

    def __init__(
        self,
        world: World,
        ownership: Ownership,
        submission: Submission,
        lineage: Lineage,
        leasing: Leasing,
    ) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.lineage = lineage
        self.leasing = leasing
        self.leases: dict[LeaseId, Actor] = {}
        self.by_worker: dict[ProcessId, Actor] = {}
        # the role's: the shipped forms of errors
        self.died: Callable[[Task, Death, int], bytes]  # it had so many restarts, or -1
        self.killed: Callable[[Task], bytes]
        self.exited: Callable[[Task], bytes]
        self.forgotten: Callable[[Task], bytes]  # how to make it again is
        self.unplaceable: Callable[[Task, str], bytes]
        self.unprepared: Callable[[Task, str], bytes]
        self.group_removed: Callable[[Task, bytes], bytes]
        self.over: Callable[[ObjectId], None]  # the role's: it will not be made again
        self.spent: Callable[[Actor], None] = lambda actor: None  # the role's: a restart was
        # the role's: calls of this process shall hear of it
        self.restarting: Callable[[ObjectId], None]
        self.closed: Callable[[ObjectId], None]

    # ------------------------------------------------------------------ making

    def create(self, task: ActorTask, restarts: int) -> Actor:
        """Begin: the entry exists from here on, with one handle, and its value is to come."""
        actor = Actor(task, restarts)
        task.subject = actor
        task.placing = self
        task.queued = False
        ownership = self.ownership
        entry = ownership.own(actor.id)
        entry.task = actor
        entry.handles += 1
        entry.pins += 1  # until the constructor has run
        self.submission.tasks[task.id] = task
        for ref in (*task.deps, *task.borrowed):
            ownership.pin(ref.object)
        self.submission.await_values(task)
        return actor

    def enqueue(self, task: Task) -> None:
        """The constructor's arguments are there: request a worker."""
        assert isinstance(task, ActorTask)
        actor = task.subject
        assert isinstance(actor, Actor)
        if actor.worker is not None:  # it could not get an argument: let it go
            self.world.send(actor.node, ReturnLease(self.forget_lease(actor)))
        task.state = QUEUED
        task.since = self.world.now()
        self.request(actor, task.target or self.leasing.node)

    def request(self, actor: Actor, node: Address, hops: int = 0) -> None:
        """Ask a node for a worker, which will be the actor's for life."""
        if not hops:
            actor.lease = LeaseId(self.world.new_id())
            self.leases[actor.lease] = actor
        assert actor.lease is not None
        task = actor.task
        actor.node = node
        request = RequestLease(
            actor.lease,
            self.world.address,
            self.leasing.job,
            task.resources,
            task.depth,
            hops,
            task.title,
            task.placement,
            environment=task.environment,
        )
        self.world.send(node, request)

    def withdraw(self, task: Task) -> bool:
        """The creation was cancelled before it had a worker."""
        assert isinstance(task, ActorTask)
        actor = task.subject
        assert isinstance(actor, Actor)
        if actor.lease is not None and actor.worker is None:
            self.world.send(actor.node, ReturnLease(self.forget_lease(actor)))
        return True

    def forget_lease(self, actor: Actor) -> LeaseId:
        """The actor has no worker, and none is on its way."""
        lease = actor.lease
        assert lease is not None
        del self.leases[lease]
        if actor.worker is not None:
            self.by_worker.pop(actor.worker.process, None)
        actor.lease = actor.worker = actor.death = None
        actor.drained = False
        actor.why = ""
        return lease

    def made(self, task: ActorTask, results: Sequence[Value], worker: Address | None) -> bool:
        """The constructor has run, or never will. Whether it may have to run again."""
        actor = task.subject
        assert isinstance(actor, Actor)
        entry = self.ownership.entries[actor.id]
        entry.pins -= 1  # (who calls this goes on to the entry, and collects it if nobody holds it)
        if worker is None or any(value.kind == FAILED for value in results):
            actor.over = True  # (a constructor that raises is no accident: it would raise again)
            self.over(actor.id)
            if actor.worker is not None:  # which ends by itself, if it can
                self.later(END_SECONDS, actor, self.kill_lease)
            return False
        return actor.restarts != 0 and self.lineage.keep_creation(task, worker)

    # ------------------------------------------------------------------ events from nodes

    def on_granted(self, message: LeaseGranted, node: Address) -> None:
        """A worker is ours: push the constructor's call."""
        actor = self.leases[message.lease]
        task = actor.task
        actor.node, actor.pid, actor.worker = node, message.pid, message.worker
        self.by_worker[message.worker.process] = actor
        if not self.submission.still_ready(task):
            if actor.worker is not None:  # (an argument is lost; or the task has failed for it)
                self.world.send(node, ReturnLease(self.forget_lease(actor)))
            return
        actor.began = self.world.now()
        task.lease = actor
        assert isinstance(task.actor, Creation)
        task.actor.life = task.attempt
        self.submission.push(task, message.worker, message.lease, set())

    def on_redirected(self, message: LeaseRedirected) -> None:
        """Ask the named node instead."""
        self.request(self.leases[message.lease], message.node, message.hops)

    def on_refused(self, message: LeaseRefused) -> None:
        """No node can ever host it."""
        actor = self.leases[message.lease]
        self.forget_lease(actor)
        words = self.unprepared if message.unprepared else self.unplaceable
        if message.removed:
            error = self.group_removed(actor.task, message.removed)
        else:
            error = words(actor.task, message.reason)
        self.submission.fail(actor.task, error)

    def on_queued(self, lease: LeaseId, reason: str) -> None:
        """A node says why our request waits."""
        self.leases[lease].why = reason

    def on_ended(self, message: LeaseEnded) -> None:
        """The actor's process is reaped."""
        actor = self.leases[message.lease]
        actor.death = message.death
        if message.removed and not actor.over:  # nothing that it restarts in is left
            self.forget_lease(actor)
            self.end(actor, self.group_removed(actor.task, message.removed))
        elif actor.drained or actor.worker is None:
            self.bury(actor)
        else:
            self.later(REPORT_PATIENCE, actor, self.bury)

    def worker_drained(self, process: ProcessId) -> None:
        """A stream has ended. If it is an actor's of ours, it is dead or cannot be reached."""
        actor = self.by_worker.get(process)
        if actor is None:
            return
        actor.drained = True
        if actor.death is not None:
            self.bury(actor)
        else:
            self.later(REPORT_PATIENCE, actor, self.kill_lease)

    def node_lost(self, node: NodeId, detail: str, *, fenced: bool) -> None:
        """A node is gone, and our requests that wait there. So are its actors if it is fenced; else
        each ends with the node, but a moment later: when its own stream has ended.
        """
        for actor in list(self.leases.values()):
            if actor.node.node != node:
                continue
            if actor.worker is None:
                self.forget_lease(actor)
                self.world.call_at(self.world.now() + ASK_AGAIN, partial(self.ask_again, actor))
            else:
                actor.death = actor.death or Death(actor.pid, node, detail=detail)
                if fenced or actor.drained:
                    self.bury(actor)

    def ask_again(self, actor: Actor) -> None:
        """Some time has gone by since a node died with a request of ours."""
        if actor.lease is None and actor.task.state is QUEUED:
            self.request(actor, self.leasing.node)

    def later(self, seconds: float, actor: Actor, action: Callable[[Actor], None]) -> None:
        """Do it after a while, unless the actor has another lease, or none, by then."""
        lease = actor.lease

        def due() -> None:
            if lease is not None and actor.lease == lease:
                action(actor)

        self.world.call_at(self.world.now() + seconds, due)

    def kill_lease(self, actor: Actor) -> None:
        """Have the actor's process killed. The node says when it is reaped."""
        assert actor.lease is not None
        self.world.send(actor.node, KillLease(actor.lease))

    # ------------------------------------------------------------------ deaths

    def bury(self, actor: Actor) -> None:
        """An actor's process has ended: make it again, or let it be dead."""
        death, task = actor.death, actor.task
        assert death is not None
        lived = self.world.now() - actor.began
        self.forget_lease(actor)
        if actor.over:
            return
        if actor.restarts == 0:
            self.end(actor, self.died(task, death, task.attempt))
            return
        making = task.id in self.submission.tasks
        if not making and task.id not in self.lineage.tasks:
            self.end(actor, self.forgotten(task))
            return
        if actor.restarts > 0:
            actor.restarts -= 1
            self.spent(actor)
        if not making:
            entry = self.ownership.entries[actor.id]
            entry.value = None
            entry.pins += 1  # as in ``create``
            self.restarting(actor.id)
            for watcher in entry.watchers or ():
                self.world.send(watcher, ActorRestarts(actor.id))
        actor.short_lives = actor.short_lives + 1 if lived < SHORT_LIFE else 0
        again = partial(self.make_again, actor)
        if actor.short_lives > 1:
            pause = min(FIRST_PAUSE * 2**actor.short_lives, LONGEST_PAUSE)
            self.world.call_at(self.world.now() + pause, again)
        else:
            again()

    def make_again(self, actor: Actor) -> None:
        """The next life begins."""
        task = actor.task
        if actor.over:  # it was killed, or nobody can name it, while this waited
            return
        if task.id in self.submission.tasks:  # the constructor was running, or had not begun
            task.attempt += 1
            task.lease = None
            self.submission.arguments_ready(task)
        elif task.id in self.lineage.tasks:
            self.lineage.run_again(task)
        else:
            self.end(actor, self.forgotten(task))

    def end(self, actor: Actor, error: bytes) -> None:
        """It is dead for good: who calls it gets this error."""
        actor.over = True
        self.over(actor.id)
        task = actor.task
        if task.id in self.submission.tasks:
            self.submission.fail(task, error)
            self.closed(actor.id)
            return
        held = self.lineage.forget(task) if task.id in self.lineage.tasks else []
        entry = self.ownership.entries.get(actor.id)
        if entry is not None:
            if entry.value is None:  # it waited to be made again
                entry.pins -= 1
            self.ownership.resolve(entry, Value(FAILED, error))
            if not entry.handles and not entry.pins:
                held.append(entry)
        for argument in held:
            self.ownership.collect(argument)
        self.closed(actor.id)

    def dropped(self, actor: Actor) -> Sequence[Entry]:
        """Nobody can name it any more: it ends in good order. Returns what its creation held, for
        the caller to collect.
        """
        if not actor.over:
            actor.over = True
            self.over(actor.id)
            if actor.worker is not None:
                self.world.send(actor.worker, EndActor())
                self.later(END_SECONDS, actor, self.kill_lease)
        task = actor.task
        return self.lineage.forget(task) if task.id in self.lineage.tasks else ()

    def kill(self, object_id: ObjectId, *, restart: bool) -> None:
        """The user wants this life to end at once, and, unless ``restart``, the actor."""
        entry = self.ownership.entries.get(object_id)
        actor = entry.task if entry is not None else None
        if not isinstance(actor, Actor) or actor.over:
            return
        if actor.lease is not None and actor.worker is not None:
            self.kill_lease(actor)
        elif actor.lease is not None and not restart:
            self.world.send(actor.node, ReturnLease(self.forget_lease(actor)))
        if not restart:
            self.end(actor, self.killed(actor.task))

    def on_exited(self, worker: ProcessId) -> None:
        """An actor of ours has ended itself, on purpose."""
        actor = self.by_worker.get(worker)
        if actor is not None and not actor.over:
            self.end(actor, self.exited(actor.task))

    # ------------------------------------------------------------------ who asks where it is

    def on_locate(self, message: LocateActor, peer: Address) -> None:
        """A caller has seen a life end: tell it of the next, when that has begun."""
        entry = self.ownership.entries[message.object]
        value = entry.value
        if value is not None and (
            value.kind != ACTOR or place_of(value).worker.process != message.gone
        ):
            self.world.send(peer, Located(message.object, value))
            return
        if entry.watchers is None:
            entry.watchers = []
        watchers = entry.watchers
        watchers.append(peer)
        if value is None:
            self.world.send(peer, ActorRestarts(message.object))
            return

        def still_there() -> None:
            if entry.watchers is watchers and peer in watchers and entry.value is value:
                watchers.remove(peer)
                self.world.send(peer, Located(message.object, value))

        self.world.call_at(self.world.now() + STILL_THERE, still_there)
