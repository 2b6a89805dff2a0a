"""Objects: what lies in one node's store, and who gets room when it is full.

The life of an object: creating -> sealed -> (spilling -> spilled -> restoring -> sealed ->)*
freed. A copy brought from another node begins as pulling instead. Bytes lie in the shared arena;
this machine knows offsets, never bytes.

* ``primary``: made here, kept until the owner frees it. Copies brought from elsewhere are
  secondary: dropped without asking when room is needed, as long as nobody has them pinned.
* ``pins``: how often each local process (or a transfer to another node) was told where the bytes
  are. A pinned object does not move.
* When room is needed: drop unpinned secondary copies, least recently used first; else spill
  unpinned primaries, in batches of at least ``FUSE_BYTES`` that become one file (Exoshuffle,
  section on spilling: fusing is worth 12x at 100 KB objects); else the one who needs room waits,
  first come first served. After ``PATIENCE`` without room it is refused, with the reason.

A free that comes while the object is pinned or busy is remembered (``dying``) and done at the end
of that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from freehold.core.world import Timer, World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.messages import (
    Address,
    CreateObject,
    FetchObject,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
)

CREATING: Final = "creating"
SEALED: Final = "sealed"
SPILLING: Final = "spilling"
SPILLED: Final = "spilled"
RESTORING: Final = "restoring"
PULLING: Final = "pulling"

FUSE_BYTES: Final = 100 << 20
#: Begin to spill before anyone has to wait, from this share of the arena.
SPILL_ABOVE: Final = 0.8
#: Seconds that a request for room may wait without any coming free.
PATIENCE: Final = 60.0
#: Dead processes remembered: their last tasks may still store results for them, for milliseconds.
DEAD_KEPT: Final = 10_000
#: How often all sources are asked once more, and the first pause before that (seconds; doubles): a
#: connection may break, and a source may hear that the bytes are complete after their owner did.
#: Together 0.6 s until a value counts as lost.
PULL_ROUNDS: Final = 5
PULL_PAUSE: Final = 0.02


class Room(Protocol):
    """The arena's allocator."""

    capacity: int
    used: int

    def allocate(self, size: int) -> int | None:
        """An offset, or None."""

    def free(self, offset: int) -> None:
        """Give a block back."""


class Mover(Protocol):
    """Moves bytes, in its own time; each call is answered by the event named after it."""

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        """Write (object, offset, size) to disk: ``spilled``."""

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        """Read a spilled object back: ``restored``."""

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        """Copy an object from another node: ``pulled``."""

    def discard(self, slot: Any) -> None:
        """A spilled object is no longer needed on disk."""


class Stored:
    """One object in this store."""

    __slots__ = (
        "creator",
        "dying",
        "id",
        "job",
        "left",
        "offset",
        "owner",
        "pins",
        "primary",
        "rounds",
        "size",
        "slot",
        "sources",
        "state",
        "tried",
        "wants",
    )

    def __init__(self, object_id: ObjectId, size: int, owner: Address, state: str) -> None:
        self.id = object_id
        self.size = size
        self.owner = owner
        self.job: JobId | None = None
        self.state = state
        self.primary = False
        self.offset = -1
        self.slot: Any = None
        self.pins: dict[ProcessId, int] = {}
        self.wants: list[Address] = []
        self.sources: list[Address] = []
        self.left: list[Address] = []  # sources not asked yet in this round
        self.tried: list[NodeId] = []
        self.rounds = 0  # how often every source has failed
        self.creator: Address | None = None
        self.dying = False


class Need:
    """Someone waits for room for an object."""

    __slots__ = ("since", "stored", "then")

    def __init__(self, stored: Stored, then: Callable[[Stored], None], since: float) -> None:
        self.stored = stored
        self.then = then
        self.since = since


class Objects:
    """The table of one node's store."""

    def __init__(self, world: World, room: Room, mover: Mover) -> None:
        self.world = world
        self.room = room
        self.mover = mover
        self.table: dict[ObjectId, Stored] = {}  # in order of last use
        self.needs: deque[Need] = deque()
        self.spilling: set[ObjectId] = set()
        self.dead: dict[ProcessId, None] = {}  # nothing is kept for these any more
        self.patience: Timer | None = None
        self.spill_error = ""
        self.spilled_bytes = 0

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
        stored = Stored(message.object, message.size, message.owner, CREATING)
        stored.job = message.job
        stored.primary = True
        stored.creator = client
        self.table[message.object] = stored
        self.need(stored, self.created)

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

    def refuse(self, client: Address, object_id: ObjectId, reason: str) -> None:
        """No room, ever."""
        self.world.send(client, ObjectCreated(object_id, -1, reason))

    def on_seal(self, object_id: ObjectId, client: Address) -> None:
        """The bytes are complete."""
        stored = self.table.get(object_id)
        if stored is None or stored.creator != client or stored.state != CREATING:
            return  # its creator had been given up, or another attempt has taken its place
        stored.creator = None
        self.settle(stored)
        self.make_room()  # now it can be spilled for who waits, or it was freed meanwhile
        if self.room.used > SPILL_ABOVE * self.room.capacity and not self.spilling:
            self.spill_some(0)

    def on_abort(self, object_id: ObjectId, client: Address) -> None:
        """The creator gave up."""
        stored = self.table.get(object_id)
        if stored is not None and stored.creator == client:
            self.drop(stored)
            self.make_room()

    def settle(self, stored: Stored) -> None:
        """The bytes are in the arena and complete: serve those who wait."""
        stored.state = SEALED
        self.touch(stored)
        wants, stored.wants = stored.wants, []
        for client in wants:
            self.hand(stored, client)
        if stored.dying:
            self.free(stored)

    def touch(self, stored: Stored) -> None:
        """Used just now: last to be evicted."""
        del self.table[stored.id]
        self.table[stored.id] = stored

    # ------------------------------------------------------------------ fetch and pin

    def on_fetch(self, message: FetchObject, client: Address) -> None:
        """A local process wants to read the object."""
        stored = self.table.get(message.object)
        me = self.world.address.node
        if stored is None:
            sources = [node for node in message.nodes if node.node != me]
            if not sources or message.owner.process in self.dead:
                self.world.send(
                    client,
                    ObjectMissing(message.object, "no node is known to have it", [me]),
                )
                return
            if message.size > self.room.capacity:
                reason = self.too_large(message.size)
                self.world.send(client, ObjectMissing(message.object, reason, [], full=True))
                return
            stored = Stored(message.object, message.size, message.owner, PULLING)
            stored.sources = sources
            stored.left = list(sources)
            stored.tried = [me] if len(sources) < len(message.nodes) else []
            stored.wants.append(client)
            self.table[message.object] = stored
            self.need(stored, self.begin_pull)
        elif stored.state in (SEALED, SPILLING):
            self.touch(stored)
            self.hand(stored, client)
        else:
            stored.wants.append(client)
            if stored.state == SPILLED:
                stored.state = RESTORING
                self.need(stored, self.begin_restore)

    def hand(self, stored: Stored, client: Address) -> None:
        """Pin for the client and tell it where the bytes are."""
        self.pin(stored, client.process)
        self.world.send(client, ObjectReady(stored.id, stored.offset, stored.size))

    def pin(self, stored: Stored, client: ProcessId) -> None:
        """The object may not move."""
        stored.pins[client] = stored.pins.get(client, 0) + 1

    def unpin(self, object_id: ObjectId, client: ProcessId) -> None:
        """One reader less."""
        stored = self.table.get(object_id)
        if stored is None or client not in stored.pins:
            return
        stored.pins[client] -= 1
        if not stored.pins[client]:
            del stored.pins[client]
            if not stored.pins:
                if stored.dying:
                    self.free(stored)
                self.make_room()

    def on_cancel_fetch(self, object_id: ObjectId, client: Address) -> None:
        """The client waits no more."""
        stored = self.table.get(object_id)
        if stored is not None and client in stored.wants:
            stored.wants.remove(client)
            self.make_room()  # it may have stood before others

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
        self.make_room()

    def begin_pull(self, stored: Stored) -> None:
        """There is room for a copy: try the next source."""
        source = stored.left.pop(0)
        if source.node not in stored.tried:
            stored.tried.append(source.node)
        self.mover.pull(stored.id, source, stored.offset, stored.size)

    def pull_again(self, stored: Stored) -> None:
        """After a pause: all sources once more, if anyone still waits."""
        if stored.wants and not stored.dying:
            stored.left = list(stored.sources)
            self.begin_pull(stored)
        else:
            self.fail(stored, "nobody waits for it")

    def pulled(self, object_id: ObjectId, error: str) -> None:
        """The mover has copied it, or could not."""
        stored = self.table[object_id]
        if not error:
            self.world.send(stored.owner, ObjectAt(object_id, self.world.address, True))
            self.settle(stored)
            self.make_room()
        elif not stored.wants or stored.dying:
            self.fail(stored, error)
        elif stored.left:
            self.begin_pull(stored)
        elif stored.rounds < PULL_ROUNDS:
            pause = PULL_PAUSE * 2**stored.rounds
            stored.rounds += 1
            self.world.call_at(self.world.now() + pause, lambda: self.pull_again(stored))
        else:
            self.fail(stored, error)

    def fail(self, stored: Stored, reason: str, full: bool = False) -> None:
        """The object cannot be had here."""
        me = self.world.address.node
        tried = stored.tried if stored.state == PULLING else [me]
        for client in stored.wants:
            self.world.send(client, ObjectMissing(stored.id, reason, tried, full))
        stored.wants = []
        if full and stored.state == RESTORING:
            stored.state = SPILLED
            return
        self.drop(stored)
        self.make_room()

    # ------------------------------------------------------------------ serving other nodes

    def serve(self, object_id: ObjectId, client: ProcessId) -> Stored | None:
        """Another node wants a copy: pin it, in the arena or on disk. The caller unpins."""
        stored = self.table.get(object_id)
        if stored is None or stored.state not in (SEALED, SPILLING, SPILLED, RESTORING):
            return None
        self.pin(stored, client)
        return stored

    # ------------------------------------------------------------------ room

    def need(self, stored: Stored, then: Callable[[Stored], None]) -> None:
        """Room for ``stored``; then ``then``. In order: a big object must not starve behind small
        ones.
        """
        self.needs.append(Need(stored, then, self.world.now()))
        self.make_room()

    def make_room(self) -> None:
        """Serve those who wait for room as far as it goes, evicting and spilling for them."""
        while self.needs:
            need = self.needs[0]
            stored = need.stored
            if self.table.get(stored.id) is not stored:
                self.needs.popleft()  # freed while it waited
                continue
            if not stored.wants and stored.state != CREATING and not self.abandon(stored):
                self.needs.popleft()
                continue
            offset = self.room.allocate(stored.size)
            if offset is None:
                if self.evict_one():
                    continue
                if self.spill_error:
                    reason, self.spill_error = self.spill_error, ""
                    self.refuse_first(f"the store is full and spilling failed: {reason}")
                    continue
                if not self.spilling and not self.spill_some(stored.size):
                    self.watch()
                return
            self.needs.popleft()
            stored.offset = offset
            need.then(stored)

    def abandon(self, stored: Stored) -> bool:
        """Nobody waits for this copy any more."""
        if stored.state == RESTORING:
            stored.state = SPILLED
        else:
            self.drop(stored)
        return False

    def evict_one(self) -> bool:
        """Make room without writing: the least recently used object that is a secondary copy or
        also on disk.
        """
        for stored in self.table.values():
            if stored.state != SEALED or stored.pins:
                continue
            if stored.slot is not None:
                self.leave_arena(stored)
                return True
            if not stored.primary:
                self.world.send(stored.owner, ObjectAt(stored.id, self.world.address, False))
                self.drop(stored)
                return True
        return False

    def leave_arena(self, stored: Stored) -> None:
        """Its bytes are on disk: give the room back."""
        stored.state = SPILLED
        self.room.free(stored.offset)
        stored.offset = -1

    def spill_some(self, wanted: int) -> bool:
        """Write the least recently used primaries to disk, enough for a good file and for who
        waits.
        """
        batch = []
        total = 0
        for stored in self.table.values():
            if stored.state != SEALED or stored.pins or stored.dying:
                continue
            if stored.primary and stored.slot is None:  # (with a slot it can leave unwritten)
                batch.append(stored)
                total += stored.size
                if total >= max(wanted, FUSE_BYTES):
                    break
        if not batch:
            return False
        for stored in batch:
            stored.state = SPILLING
            self.spilling.add(stored.id)
        self.mover.spill([(stored.id, stored.offset, stored.size) for stored in batch])
        return True

    def spilled(self, objects: Sequence[ObjectId], slots: Sequence[Any], error: str) -> None:
        """The mover has written a batch, or could not (then nothing of it is on disk)."""
        for index, object_id in enumerate(objects):
            self.spilling.discard(object_id)
            stored = self.table[object_id]
            stored.state = SEALED
            if error:
                pass
            elif stored.pins or stored.dying:
                self.mover.discard(slots[index])
            else:
                stored.slot = slots[index]
                self.spilled_bytes += stored.size
                self.leave_arena(stored)
            if stored.dying:
                self.free(stored)
        if self.needs:
            self.spill_error = error
        self.make_room()

    def watch(self) -> None:
        """Nothing can be evicted or spilled now. Someone will unpin or free; if not in time, say
        so.
        """
        if self.patience is None and self.needs:
            self.patience = self.world.call_at(self.needs[0].since + PATIENCE, self.give_up)

    def give_up(self) -> None:
        """Refuse whoever has waited longest, if it is still the case that there is no room."""
        self.patience = None
        self.make_room()
        if not self.needs or self.spilling:
            return
        need = self.needs[0]
        if self.world.now() - need.since < PATIENCE:
            self.watch()
            return
        self.refuse_first(self.why_full(need.stored))
        self.make_room()

    def refuse_first(self, reason: str) -> None:
        """Whoever has waited longest gets no room."""
        stored = self.needs.popleft().stored
        if stored.state == CREATING and stored.creator is not None:
            self.refuse(stored.creator, stored.id, reason)
            self.drop(stored)
        else:
            self.fail(stored, reason, full=True)

    def why_full(self, stored: Stored) -> str:
        """What holds the store."""
        placed = [other for other in self.table.values() if other.offset >= 0]
        reading = sum(other.size for other in placed if other.pins)
        writing = sum(other.size for other in placed if other.state == CREATING)
        return (
            f"no room for {stored.size:,} bytes in a store of {self.room.capacity:,} for "
            f"{PATIENCE:.0f} s: running tasks read {reading:,} bytes and write {writing:,}; run "
            "fewer of them at a time, drop arrays sooner, or enlarge object_store_memory"
        )

    # ------------------------------------------------------------------ ends

    def on_free(self, object_id: ObjectId) -> None:
        """The owner says that nobody can name it."""
        stored = self.table.get(object_id)
        if stored is not None:
            self.free(stored)
            self.make_room()

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
        if stored.offset >= 0:
            self.room.free(stored.offset)
        if stored.slot is not None:
            self.spilled_bytes -= stored.size
            self.mover.discard(stored.slot)

    def on_keep(self, object_id: ObjectId) -> None:
        """The owner knows of no other copy: this one is the primary now."""
        stored = self.table.get(object_id)
        if stored is not None:
            stored.primary = True

    def owners_on(self, node: NodeId) -> set[ProcessId]:
        """The owners on another node of objects here."""
        return {s.owner.process for s in self.table.values() if s.owner.node == node}

    def process_lost(self, process: ProcessId) -> None:
        """A process is gone: its pins, its half-written objects, and everything that it owned."""
        self.dead[process] = None
        if len(self.dead) > DEAD_KEPT:
            del self.dead[next(iter(self.dead))]
        for stored in list(self.table.values()):
            stored.wants = [client for client in stored.wants if client.process != process]
            unpinned = stored.pins.pop(process, None)
            if stored.creator is not None and stored.creator.process == process:
                stored.creator = None
                self.drop(stored)
            elif stored.owner.process == process or (unpinned and stored.dying):
                self.free(stored)
        self.make_room()

    def job_ended(self, job: JobId) -> None:
        """A job is over: what its processes made goes."""
        for stored in list(self.table.values()):
            if stored.job == job:
                self.free(stored)
        self.make_room()
