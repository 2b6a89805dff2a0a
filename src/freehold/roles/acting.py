"""Acting: what an owner has to do with actors, its own and others'.

The two machines, ``actors`` (those that this process has created) and ``calls`` (those that it
calls), are joined here to each other and to the rest of the owner; ``roles.owner`` hands over what
concerns them. Lease messages go by the lease's id: an actor's lease is not ``leasing``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from freehold.core.actors import Actor, Actors
from freehold.core.calls import ActorTask, Callee, Calls
from freehold.core.entries import Entry
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId
from freehold.wire.messages import (
    ActorExited,
    ActorLent,
    ActorRestarts,
    Address,
    BorrowActor,
    Creation,
    Death,
    KillActor,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LeaseWanted,
    LocateActor,
    Message,
    Reference,
    StillQueued,
    UnnameActor,
    Value,
)

if TYPE_CHECKING:
    from freehold.roles.owner import Owner

#: Ended actors whose names a head is told again to be free, 100 bytes each: one that was stopped or
#: starved when it died has not read what came last.
UNNAMED_KEPT: Final = 1000
#: Seconds until that is tried (again) once a stream to the head has ended: it is back within one.
TELL_AGAIN: Final = 0.5


class ActorErrors(Protocol):
    """The shipped forms of what calls of an actor may end in."""

    def actor_died(self, actor: str, death: Death, restarts: int) -> bytes:
        """Its process has ended and no restart is left."""

    def actor_ended(self, actor: str, how: str) -> bytes:
        """It has ended without an accident, and how."""

    def actor_failed(self, call: str, error: bytes) -> bytes:
        """The actor was ended by that error: what its calls raise."""

    def actor_group_removed(self, actor: str, group: bytes) -> bytes:
        """The placement group in which it lived, or was to live, is gone."""

    def actor_unavailable(self, call: str, why: str) -> bytes:
        """It lives on, but this call may or may not have been run."""


class Acting:
    """Actors and calls of one owner."""

    def __init__(self, owner: Owner, world: World, errors: ActorErrors) -> None:
        self.owner = owner
        self.world = world
        ownership, submission = owner.ownership, owner.submission
        self.calls = calls = Calls(world, ownership, submission)
        self.actors = actors = Actors(world, ownership, submission, owner.lineage, owner.leasing)
        calls.abandoned = owner.abandoned
        calls.dead = lambda task, error: errors.actor_failed(task.title, error)
        calls.unavailable = lambda task, why: errors.actor_unavailable(task.title, why)
        calls.orphaned = lambda task: errors.actor_ended(
            task.title.partition(".")[0],
            "the process that created it has ended, and it with that (a detached one may have "
            "been made again since: get_actor() finds that)",
        )
        actors.died = lambda task, death, count: errors.actor_died(task.title, death, count)
        actors.killed = lambda task: errors.actor_ended(task.title, "it was killed by kill()")
        actors.exited = lambda task: errors.actor_ended(task.title, "it has called exit_actor()")
        actors.forgotten = lambda task: errors.actor_ended(
            task.title, "it has restarts left, but its arguments were dropped to save memory"
        )
        actors.unplaceable = lambda task, why: owner.errors.unschedulable(task.title, why)
        actors.group_removed = lambda task, group: errors.actor_group_removed(task.title, group)
        actors.unprepared = lambda task, why: owner.errors.environment_failed(task.title, why)
        self.names: dict[ObjectId, Address] = {}  # named actors of ours, and where the names are
        self.unnamed: dict[ObjectId, Address] = {}  # the last that have ended; told again
        #: about to be made; who wants to be counted
        self.naming: dict[ObjectId, list[tuple[BorrowActor, Address]]] = {}
        self.borrowing: dict[ObjectId, list[Borrowing]] = {}
        actors.over = self.unname
        actors.restarting = calls.restarts
        actors.closed = calls.closed

    def handlers(
        self, leasing: dict[type[Message], Callable[[Any, Address], None]]
    ) -> dict[type[Message], Callable[[Any, Address], None]]:
        """What to do with messages. ``leasing``: with those about the leases of plain tasks."""
        actors, leases = self.actors, self.actors.leases
        ours: dict[type[Message], Callable[[Any, Address], None]] = {
            LeaseGranted: actors.on_granted,
            LeaseRedirected: lambda message, peer: actors.on_redirected(message),
            LeaseRefused: lambda message, peer: actors.on_refused(message),
            LeaseWanted: lambda message, peer: None,  # it is held for the actor's life
            LeaseEnded: lambda message, peer: actors.on_ended(message),
            StillQueued: lambda message, peer: actors.on_queued(message.lease, message.reason),
        }

        def either(kind: type[Message]) -> Callable[[Any, Address], None]:
            mine, plain = ours[kind], leasing[kind]

            def handle(message: Any, peer: Address) -> None:
                (mine if message.lease in leases else plain)(message, peer)

            return handle

        return {
            **{kind: either(kind) for kind in ours},
            KillActor: lambda message, peer: self.kill(message.object, restart=message.restart),
            ActorExited: lambda message, peer: actors.on_exited(peer.process),
            ActorRestarts: lambda message, peer: self.calls.restarts(message.object),
            LocateActor: actors.on_locate,
            BorrowActor: self.on_borrow,
            ActorLent: self.on_lent,
        }

    # ------------------------------------------------------------------ what user code asks for

    def create(self, task: ActorTask, restarts: int) -> ObjectId:
        """Have an actor made. Returns its object, which has one handle."""
        actor = self.actors.create(task, restarts).id
        for message, borrower in self.naming.pop(actor, ()):
            self.on_borrow(message, borrower)
        return actor

    def kill(self, object_id: ObjectId, *, restart: bool) -> None:
        """End an actor at once, or this life of it."""
        entry = self.owner.ownership.entries.get(object_id)
        if entry is not None and entry.owner is not None:
            self.world.send(entry.owner, KillActor(object_id, restart))
        else:
            self.actors.kill(object_id, restart=restart)

    # ------------------------------------------------------------------ names

    def begin_naming(self, object_id: ObjectId, head: Address) -> None:
        """An actor of ours is about to have a name, and then to be made."""
        self.naming[object_id] = []
        self.names[object_id] = head

    def not_named(self, object_id: ObjectId) -> None:
        """Another has the name: ours is not made."""
        del self.names[object_id]
        for _, borrower in self.naming.pop(object_id):
            self.world.send(borrower, ActorLent(object_id, False))

    def unname(self, object_id: ObjectId) -> None:
        """An actor of ours has ended: its name is free."""
        head = self.names.pop(object_id, None)
        if head is not None:
            self.world.send(head, UnnameActor(object_id))
            self.unnamed[object_id] = head
            if len(self.unnamed) > UNNAMED_KEPT:
                del self.unnamed[next(iter(self.unnamed))]

    def tell_again(self) -> None:
        """A head has ended, perhaps before it had read which names are free."""
        for object_id, head in self.unnamed.items():
            self.world.send(head, UnnameActor(object_id))

    def borrow(self, ref: Reference, wake: Callable[[], None], *, ended: bool = False) -> Borrowing:
        """Be counted for an actor of which we have the name only; ``ended``: also for one that
        has, to hear how.
        """
        ownership = self.owner.ownership
        borrowing = Borrowing(wake)
        if ref.owner.process == self.world.address.process:
            entry = ownership.entries.get(ref.object)
            actor = entry.task if entry is not None else None
            if entry is not None and isinstance(actor, Actor) and not actor.over:
                entry.handles += 1
                borrowing.alive = True
            borrowing.done = True
        elif ref.owner.process in ownership.lost:
            borrowing.done = True
        else:
            borrowing.ref = ref
            self.borrowing.setdefault(ref.object, []).append(borrowing)
            self.world.send(ref.owner, BorrowActor(ref.object, ended))
        return borrowing

    def give_back(self, object_id: ObjectId, borrowing: Borrowing) -> None:
        """Who wanted to borrow was interrupted: what it holds, or will, is dropped."""
        if borrowing.alive:
            self.owner.ownership.drop_handle(object_id)
        borrowing.wanted = False

    def on_borrow(self, message: BorrowActor, peer: Address) -> None:
        """Someone has found our actor by its name."""
        object_id = message.object
        if object_id in self.naming:
            self.naming[object_id].append((message, peer))
            return
        entry = self.owner.ownership.entries.get(object_id)
        actor = entry.task if entry is not None else None
        alive = isinstance(actor, Actor) and (message.ended or not actor.over)
        if alive:
            self.owner.ownership.hand_out(self.owner.ownership.reference(object_id), peer)
        self.world.send(peer, ActorLent(object_id, alive))

    def on_lent(self, message: ActorLent, owner: Address) -> None:
        """The owner's answer."""
        waiting = self.borrowing.get(message.object, [])
        borrowing = waiting.pop(0)
        if not waiting:
            del self.borrowing[message.object]
        if message.alive:
            entries = self.owner.ownership.entries
            entry = entries.get(message.object)
            if entry is None:
                entry = entries[message.object] = Entry(message.object, owner)
            entry.received += 1
            entry.handles += 1
            if not borrowing.wanted:
                self.owner.ownership.drop_handle(message.object)
        borrowing.answer(alive=message.alive)

    # ------------------------------------------------------------------ facts between machines

    def task_over(
        self, task: ActorTask, results: Sequence[Value], worker: Address | None
    ) -> bool | None:
        """A creation or a call is done. Whether its arguments stay held; None: as of any task."""
        if isinstance(task.actor, Creation):
            return self.actors.made(task, results, worker)
        self.calls.over(task)
        return None

    def freed(self, entry: Entry) -> Iterable[Entry] | None:
        """An object was freed. If it is an actor: what was held for it. None: it is not."""
        if isinstance(entry.task, Callee):
            self.calls.forget(entry.object)
            return ()
        if isinstance(entry.task, Actor):
            self.calls.forget(entry.object)
            return self.actors.dropped(entry.task)
        return None

    def peer_lost(self, process: ProcessId) -> None:
        """A stream has ended. (First the calls: they have to know by when the actor's fate is.)"""
        for object_id, waiting in list(self.borrowing.items()):
            for borrowing in [b for b in waiting if b.ref and b.ref.owner.process == process]:
                waiting.remove(borrowing)
                borrowing.answer(alive=False)
            if not waiting:
                del self.borrowing[object_id]
        if any(head.process == process for head in self.unnamed.values()):
            self.world.call_at(self.world.now() + TELL_AGAIN, self.tell_again)
        self.calls.worker_lost(process)
        self.actors.worker_drained(process)

    def busy(self) -> bool:
        """Whether actors of ours live or are being made: they would end with this process."""
        return bool(self.actors.leases) or any(
            isinstance(entry.task, Actor) and not entry.task.over
            for entry in self.owner.ownership.entries.values()
        )


class Borrowing:
    """A question to an actor's owner: done when it is answered. ``alive``: we are counted, and hold
    one handle, if it is still ``wanted``.
    """

    __slots__ = ("alive", "done", "ref", "wake", "wanted")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.alive = False
        self.done = False
        self.wanted = True
        self.ref: Reference | None = None
        self.wake = wake

    def answer(self, *, alive: bool) -> None:
        """It has come, or never will."""
        self.alive = alive
        self.done = True
        self.wake()
