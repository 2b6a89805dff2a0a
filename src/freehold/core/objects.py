"""Objects: what lies in one node's store, and the life of each.

creating -> sealed -> (spilling -> spilled -> restoring -> sealed ->)* freed. A copy brought from
another node begins as pulling instead. Bytes lie in the shared arena; this machine knows offsets,
never bytes. Who may have an object brought here is ``admission``'s; who gets room, and what goes
for it, ``spilling``'s.

* ``primary``: made here, kept until the owner frees it. Copies brought from elsewhere are
  secondary: dropped without asking when room is needed, as long as nobody has them pinned.
* ``pins``: how often each local process (or a transfer to another node) was told where the bytes
  are. A pinned object does not move.

A free that comes while the object is pinned or busy is remembered (``dying``) and done at the end
of that.

A node that is drained gives its primaries to others (``moving`` chooses where). Here is the taking
side: the object is pulled as any copy is, but as a primary from the first, so that it cannot be
evicted before its owner knows of it; then the owner is told in one message that the object has
moved from there to here, and it frees the copy there, or this one if it will not have it so. The
giver is told only so that it can try elsewhere what we could not take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from freehold.core.admission import Admission
from freehold.core.spilling import Spilling
from freehold.core.stored import (
    COMPLETE,
    CREATING,
    NOT_PINNED,
    PULLING,
    RESTORING,
    SEALED,
    SPILLED,
    SPILLING,
    Mover,
    Room,
    Stored,
)
from freehold.core.world import World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.messages import (
    Address,
    CreateObject,
    FetchAhead,
    FetchObject,
    FetchTogether,
    GiveObject,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectMoved,
    ObjectReady,
    ObjectsGiven,
    ObjectTaken,
    TakeObject,
)

#: Dead processes remembered: their last tasks may still store results for them, for milliseconds.
DEAD_KEPT: Final = 10_000
#: How often all sources are asked once more, and the first pause before that (seconds; doubles): a
#: connection may break. Together 0.6 s until a value counts as lost. A source where it is still
#: being written, as it hears of the seal after the owner did, is asked for longer.
PULL_ROUNDS: Final = 5
PULL_PAUSE: Final = 0.02


class Objects:
    """The table of one node's store."""

    def __init__(self, world: World, room: Room, mover: Mover) -> None:
        self.world = world
        self.room = room
        self.mover = mover
        self.table: dict[ObjectId, Stored] = {}
        self.spilling = Spilling(world, room, mover, self)
        self.admission = Admission(world, room, self.spilling, self)
        self.spilling.admit = self.admission.admit
        self.dead: dict[ProcessId, None] = {}  # nothing is kept for these any more
        # One of each that is named by many objects: a message brings its own, 230 bytes in all.
        self.owners: dict[ProcessId, Address] = {}
        self.jobs: dict[JobId, JobId] = {}

    # ------------------------------------------------------------------ create and seal

    def on_create(self, message: CreateObject, client: Address) -> None:
        """Room for a new object, please."""
        if message.owner.process in self.dead:
            self.refuse(client, message.object, "the process that would own it is gone")
            return
        old = self.table.get(message.object)
        if old is not None:
            if old.pins or old.state not in (SEALED, SPILLED):
                self.refuse(client, message.object, "exists")
                return
            self.drop(old)  # left behind by an attempt that died before it could report it
        if message.size > self.room.capacity:
            self.refuse(client, message.object, self.too_large(message.size))
            return
        stored = Stored(message.object, message.size, self.same(message.owner), CREATING)
        stored.job = self.jobs.setdefault(message.job, message.job)
        stored.primary = True
        stored.creator = client
        self.table[message.object] = stored
        self.spilling.create(stored, self.created)

    def created(self, stored: Stored) -> None:
        """There is room: the creator may write."""
        assert stored.creator is not None
        self.world.send(stored.creator, ObjectCreated(stored.id, stored.offset))

    def too_large(self, size: int) -> str:
        """Why an object can never lie here."""
        return (
            f"the object has {size:,} bytes, the store of this node {self.room.capacity:,}; start "
            "the node with a larger object_store_memory or make smaller objects"
        )

    def refuse(
        self, client: Address, object_id: ObjectId, reason: str, *, disk: bool = False
    ) -> None:
        """No room, ever."""
        self.world.send(client, ObjectCreated(object_id, -1, reason, disk))

    def on_seal(self, object_id: ObjectId, client: Address) -> None:
        """The bytes are complete."""
        stored = self.table.get(object_id)
        if stored is None or stored.creator != client or stored.state != CREATING:
            return  # its creator had been given up, or another attempt has taken its place
        self.settle(stored)
        self.spilling.make_room()  # now it can be spilled for who waits, or it was freed meanwhile
        self.spilling.begin_early()

    def on_abort(self, object_id: ObjectId, client: Address) -> None:
        """The creator gave up: it has not written the object, or nobody will hear of it."""
        stored = self.table.get(object_id)
        if stored is None or stored.creator != client:
            return  # another attempt has taken its place
        if stored.state == CREATING:
            self.drop(stored)
        else:
            self.free(stored)
        self.spilling.make_room()

    def settle(self, stored: Stored) -> None:
        """The bytes are in the arena and complete: serve those who wait."""
        stored.state = SEALED
        wants, stored.wants = stored.wants, ()
        for client in wants:
            self.hand(stored, client)
        if stored.dying:
            self.free(stored)
        elif not stored.pins:
            self.spilling.rest(stored)

    # ------------------------------------------------------------------ fetch and pin

    def on_fetch(self, message: FetchObject, client: Address) -> None:
        """A local process wants to read the object."""
        if self.may_be_had(message, client):
            self.admission.ask(client, [message])

    def on_fetch_together(self, message: FetchTogether, client: Address) -> None:
        """A local process wants to read these, all at the same time."""
        requests = [wish for wish in message.objects if self.may_be_had(wish, client)]
        if requests:
            self.admission.ask(client, requests)

    def on_fetch_ahead(self, message: FetchAhead) -> None:
        """Tasks that have not begun will read these here."""
        self.admission.ahead(message.objects)

    def bring_ahead(self, message: FetchObject) -> Stored | None:
        """Have an object here that nobody waits for yet, if it can be had and nobody uses it."""
        stored = self.table.get(message.object)
        if stored is None:
            if not self.sources(message) or message.owner.process in self.dead:
                return None
            stored = self.new_copy(
                message.object, message.size, message.owner, self.sources(message)
            )
            stored.expected = True
            self.spilling.bring(stored, self.begin_pull)
        elif stored.state == SPILLED and not stored.pins:
            stored.expected = True
            stored.state = RESTORING
            self.spilling.bring(stored, self.begin_restore)
        elif stored.id in self.spilling.droppable:
            stored.expected = True
            self.spilling.rest(stored)
        else:
            return None
        return stored

    def not_expected(self, stored: Stored) -> None:
        """It had to leave the arena before the task came for which it was brought."""
        self.admission.came(stored)

    def may_be_had(self, message: FetchObject, client: Address) -> bool:
        """Whether the object can be brought here, as far as we know; if not, the client is told.
        An earlier wish, less urgent than this, is none any more.
        """
        self.admission.cancel(message.object, client.process)
        stored = self.table.get(message.object)
        if stored is not None:
            return client not in stored.wants  # it wants it sooner now, and cannot have it sooner
        me = self.world.address.node
        if not self.sources(message) or message.owner.process in self.dead:
            reason = "no node is known to have it"
            self.world.send(client, ObjectMissing(message.object, reason, [me]))
        elif message.size > self.room.capacity:
            reason = self.too_large(message.size)
            self.world.send(client, ObjectMissing(message.object, reason, [], full=True))
        else:
            return True
        return False

    def sources(self, message: FetchObject) -> list[Address]:
        """Other nodes that are thought to have the object."""
        return [node for node in message.nodes if node.node != self.world.address.node]

    def bring(self, message: FetchObject, client: Address) -> None:
        """The client has its turn: pin the object for it, at once or when it is here."""
        stored = self.table.get(message.object)
        if stored is None:
            if not self.may_be_had(message, client):  # it was here when it was asked for
                return
            sources = self.sources(message)
            stored = self.new_copy(message.object, message.size, message.owner, sources)
            here = len(sources) < len(message.nodes)
            stored.tried = (self.world.address.node,) if here else ()
            stored.wants = (client,)
            self.spilling.bring(stored, self.begin_pull)
        elif stored.state in (SEALED, SPILLING):
            self.hand(stored, client)
        else:
            stored.wants = (*stored.wants, client)
            if stored.state == SPILLED:
                stored.state = RESTORING
                self.spilling.bring(stored, self.begin_restore)

    def new_copy(
        self, object_id: ObjectId, size: int, owner: Address, sources: Sequence[Address]
    ) -> Stored:
        """Begin to bring an object here."""
        stored = self.table[object_id] = Stored(object_id, size, self.same(owner), PULLING)
        stored.sources = stored.left = tuple(sources)
        return stored

    def same(self, owner: Address) -> Address:
        """The one copy of an owner's address."""
        if owner.process in self.dead:
            return owner
        return self.owners.setdefault(owner.process, owner)

    def hand(self, stored: Stored, client: Address) -> None:
        """Pin for the client and tell it where the bytes are."""
        self.pin(stored, client.process)
        only = stored.primary and stored.slot is None and stored.state == SEALED
        self.world.send(client, ObjectReady(stored.id, stored.offset, stored.size, only))

    def pin(self, stored: Stored, client: ProcessId) -> None:
        """The object may not move."""
        self.admission.came(stored)
        self.spilling.wake(stored)
        if not stored.pins:
            stored.pins = {}
        stored.pins[client] = stored.pins.get(client, 0) + 1

    def unpin(self, object_id: ObjectId, client: ProcessId) -> None:
        """One reader less."""
        stored = self.table.get(object_id)
        if stored is None or client not in stored.pins:
            return
        stored.pins[client] -= 1
        if not stored.pins[client]:
            del stored.pins[client]
            self.admission.discount(stored, client)
            if not stored.pins:
                stored.pins = NOT_PINNED
                self.unused(stored)
            self.spilling.make_room()  # (also if the others only hold no share of the arguments)

    def unused(self, stored: Stored) -> None:
        """Nobody has it pinned any more."""
        if stored.dying:
            self.free(stored)
        elif stored.state == SEALED:
            self.spilling.rest(stored)

    def on_cancel_fetch(self, object_id: ObjectId, client: Address) -> None:
        """The client waits no more."""
        self.admission.cancel(object_id, client.process)
        stored = self.table.get(object_id)
        if stored is not None and client in stored.wants:
            stored.wants = tuple(other for other in stored.wants if other != client)
            self.admission.discount(stored, client.process)
        self.spilling.make_room()  # it may have stood before others

    # ------------------------------------------------------------------ restore and pull

    def begin_restore(self, stored: Stored) -> None:
        """There is room for a spilled object."""
        self.mover.restore(stored.id, stored.slot, stored.offset, stored.size)

    def restored(self, object_id: ObjectId, error: str) -> None:
        """The mover has read it back, or could not."""
        stored = self.table[object_id]
        if error:
            self.fail(stored, f"its spilled copy cannot be read: {error}")
            return
        self.settle(stored)  # its copy on disk stays, so that evicting it again costs nothing
        self.spilling.make_room()

    def begin_pull(self, stored: Stored) -> None:
        """There is room for a copy: try the next source."""
        source, *left = stored.left
        stored.left = tuple(left)
        if source.node not in stored.tried:
            stored.tried = (*stored.tried, source.node)
        self.mover.pull(stored.id, source, stored.offset, stored.size)

    def pull_again(self, stored: Stored) -> None:
        """After a pause: all sources once more, if anyone still waits."""
        if stored.wanted() and not stored.dying:
            stored.left = stored.sources
            self.begin_pull(stored)
        else:
            self.fail(stored, "nobody waits for it")

    def pulled(self, object_id: ObjectId, error: str, soon: bool = False) -> None:
        """The mover has copied it, or could not. ``soon``: its source says that it is just being
        written there, and will have it or lose it (``being_written``).
        """
        stored = self.table[object_id]
        if not error:
            if stored.giver is None:
                self.world.send(stored.owner, ObjectAt(object_id, self.world.address, True))
            stored.sources = stored.left = stored.tried = ()
            self.settle(stored)
            self.taken(stored)
            self.spilling.make_room()
        elif not stored.wanted() or stored.dying:
            self.fail(stored, error)
        elif stored.left:
            self.begin_pull(stored)
        elif soon or stored.rounds < PULL_ROUNDS:
            pause = PULL_PAUSE * 2**stored.rounds
            stored.rounds = min(stored.rounds + 1, PULL_ROUNDS - soon)
            self.world.call_at(self.world.now() + pause, lambda: self.pull_again(stored))
        else:
            self.fail(stored, error)

    def fail(self, stored: Stored, reason: str, *, full: bool = False, disk: bool = False) -> None:
        """The object cannot be had here. Where it was freed we cannot say that it is not to be had
        from its sources: they did not have all their rounds.
        """
        me = self.world.address.node
        pulled = stored.state == PULLING and not stored.dying
        tried = list(stored.tried) if pulled else [me]
        for client in stored.wants:
            self.world.send(client, ObjectMissing(stored.id, reason, tried, full, disk))
        stored.wants = ()
        self.admission.discount_all(stored)
        self.admission.came(stored)
        self.not_taken(stored, reason)
        if full and stored.state == RESTORING:
            stored.state = SPILLED
            return
        self.drop(stored)
        self.spilling.make_room()

    # ------------------------------------------------------------------ serving other nodes

    def serve(self, object_id: ObjectId, client: ProcessId) -> Stored | None:
        """Another node wants a copy: pin it, in the arena or on disk. The caller unpins."""
        stored = self.table.get(object_id)
        if stored is None or stored.state not in (SEALED, SPILLING, SPILLED, RESTORING):
            return None
        self.pin(stored, client)
        return stored

    def being_written(self, object_id: ObjectId) -> bool:
        """Whether a process here is making it: that ends, by its seal or with the process."""
        stored = self.table.get(object_id)
        return stored is not None and stored.state == CREATING

    # ------------------------------------------------------------------ taking over

    def on_take(self, message: TakeObject, giver: Address) -> None:
        """A node that is drained has a primary to give away: bring it here."""
        stored = self.table.get(message.object)
        reason = self.why_not(message, stored, giver)
        if reason:
            self.world.send(giver, ObjectTaken(message.object, reason))
            return
        if stored is None:
            stored = self.new_copy(message.object, message.size, message.owner, [giver])
            stored.job = message.job
            stored.primary = True
            stored.giver = giver
            self.spilling.create(stored, self.begin_pull)
            return
        stored.primary = True
        stored.giver = giver
        if stored.state in COMPLETE:
            self.taken(stored)

    def why_not(self, message: TakeObject, stored: Stored | None, giver: Address) -> str:
        """Why an object cannot be taken over now, or nothing."""
        if message.owner.process in self.dead:
            return "the process that owned it is gone"
        if message.size > self.room.capacity:
            return self.too_large(message.size)
        if stored is not None and (stored.dying or stored.state not in (*COMPLETE, PULLING)):
            return "another copy of it comes or goes here"
        if stored is not None and stored.giver not in (None, giver):
            return "it is on its way here from another node"
        return ""

    def taken(self, stored: Stored) -> None:
        """All its bytes are here: tell the owner, who frees the giver's copy, and the giver."""
        giver, stored.giver = stored.giver, None
        if giver is not None:
            if stored.state == SEALED and not stored.pins:
                self.spilling.rest(stored)  # as a primary
            stored.told = True
            self.world.send(stored.owner, ObjectMoved(stored.id, giver, self.world.address))
            self.world.send(giver, ObjectTaken(stored.id))

    def not_taken(self, stored: Stored, reason: str) -> None:
        """It will not be had here: the giver may try elsewhere."""
        giver, stored.giver = stored.giver, None
        if giver is not None:
            self.world.send(giver, ObjectTaken(stored.id, reason))

    # ------------------------------------------------------------------ spilling

    def spilled(self, objects: Sequence[ObjectId], slots: Sequence[Any], error: str) -> None:
        """The mover has written a batch, or could not (then nothing of it is on disk)."""
        for index, object_id in enumerate(objects):
            stored = self.table[object_id]
            self.spilling.written(stored, None if error else slots[index])
            if stored.dying:
                self.free(stored)
        self.spilling.batch_over(error, len(objects))

    # ------------------------------------------------------------------ ends

    def on_free(self, object_id: ObjectId) -> None:
        """The owner says that nobody can name it."""
        stored = self.table.get(object_id)
        self.admission.gone(object_id)
        if stored is not None:
            self.free(stored)
        self.spilling.make_room()

    def free(self, stored: Stored) -> None:
        """Drop it, now or when nobody reads or moves it."""
        if stored.pins or stored.state in (SPILLING, CREATING) or self.moving(stored):
            stored.dying = True
        else:
            self.drop(stored)

    def moving(self, stored: Stored) -> bool:
        """Whether the mover is writing into its place in the arena."""
        return stored.state in (RESTORING, PULLING) and stored.offset >= 0

    def drop(self, stored: Stored) -> None:
        """Forget it and give its room back. Whoever still waits for it is told."""
        del self.table[stored.id]
        for client in stored.wants:
            me = self.world.address.node
            self.world.send(client, ObjectMissing(stored.id, "it was freed", [me]))
        self.admission.discount_all(stored)
        self.not_taken(stored, "it was freed")
        self.admission.came(stored)
        self.spilling.gone(stored)

    def on_give(self, message: GiveObject, former: Address) -> None:
        """Objects change their owner, and stay when the former one exits."""
        for object_id in message.objects:
            stored = self.table.get(object_id)
            if stored is not None:
                stored.owner = message.owner
        self.world.send(former, ObjectsGiven())

    def on_keep(self, object_id: ObjectId) -> None:
        """The owner knows of this copy, and that it is the primary."""
        stored = self.table.get(object_id)
        if stored is not None:
            stored.primary = True
            stored.told = False
            if stored.state == SEALED and self.spilling.may_go(stored):
                self.spilling.rest(stored)

    def waiting(self) -> int:
        """How many wait for room."""
        return len(self.admission) + sum(1 for _ in self.spilling.needs())

    def owners_on(self, node: NodeId) -> set[ProcessId]:
        """The owners on another node of objects here."""
        return {s.owner.process for s in self.table.values() if s.owner.node == node}

    def process_lost(self, process: ProcessId) -> None:
        """A process is gone: its pins, its half-written objects, and everything that it owned."""
        self.dead[process] = None
        if len(self.dead) > DEAD_KEPT:
            del self.dead[next(iter(self.dead))]
        self.owners.pop(process, None)
        self.admission.process_lost(process)
        for stored in list(self.table.values()):
            if stored.wants:
                wants = (client for client in stored.wants if client.process != process)
                stored.wants = tuple(wants)
            unpinned = stored.pins.pop(process, None)
            self.admission.discount(stored, process)
            made_it = stored.creator is not None and stored.creator.process == process
            if made_it and stored.state == CREATING:
                self.drop(stored)
            elif stored.owner.process == process:
                self.free(stored)
            elif unpinned and not stored.pins:
                self.unused(stored)
            elif made_it:  # its task may have died before it could report it
                here = ObjectAt(stored.id, self.world.address, True, remains=True)
                self.world.send(stored.owner, here)
        self.spilling.make_room()

    def job_ended(self, job: JobId) -> None:
        """A job is over: what its processes made goes."""
        for stored in list(self.table.values()):
            if stored.job == job:
                self.admission.gone(stored.id)
                self.free(stored)
        self.jobs.pop(job, None)
        self.spilling.make_room()
