"""Spilling: who gets room in a full store, and what has to go for it.

What this file knows: who waits for room, in order; which objects nobody uses right now, in the
order of their last use, and whether they can go at once or have to be written first; the batch
that is being written. What it must not know: who wants an object and why; ``objects`` does.

An object *rests* while it lies complete in the arena and nobody has it pinned. A resting object is
either *droppable* (a copy of what another node has, or on disk already: it goes without a write)
or *spillable* (the only copy that we answer for). Of the droppable, those that a task is expected
to read soon go when nothing else can. When room is needed: the droppable go first,
least recently used first; else the spillable are written, in batches of at least ``fuse_bytes``
that become one file (Exoshuffle, section on spilling: fusing is worth 12x at 100 KB objects); else
the one who needs room waits, first come first served: a big object must not starve behind small
ones. After ``PATIENCE`` without room it is refused, with the reason.

There are two lines for room. What is to be brought here has been promised its room before
(``admission``), so that it can be had by dropping and spilling alone; it goes first, and waits only
for the disk. Whoever makes a new object was promised nothing, and may have to wait for others to
end.

Both kinds have a table of their own, so that finding the next one to go does not take a walk past
all that cannot: such walks cost 1.4 ms for each object that is read back from among 20,000 on disk;
now it is 15 us from among 100,000.

Races considered: whoever waits for room may be freed or stop wanting it meanwhile (looked at when
its turn comes); an object in a batch may be pinned or freed before it is written (then its slot is
given back and it stays, or goes).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from freehold.core.stored import (
    CREATING,
    RESTORING,
    SEALED,
    SPILLED,
    SPILLING,
    Mover,
    Room,
    Stored,
)
from freehold.core.world import Timer, World
from freehold.ids import ObjectId
from freehold.wire.messages import Address, ObjectAt

#: Bytes of values that are written into one file.
FUSE_BYTES: Final = 100 << 20
#: Begin to spill before anyone has to wait, from this share of the arena.
SPILL_ABOVE: Final = 0.8
#: Seconds that a request for room may wait without any coming free.
PATIENCE: Final = 60.0


class Table(Protocol):
    """What this machine asks of the one that leads the objects through their lives."""

    @property
    def table(self) -> Mapping[ObjectId, Stored]:
        """Every object here."""

    def drop(self, stored: Stored) -> None:
        """Forget it and give its room back."""

    def not_expected(self, stored: Stored) -> None:
        """It was brought ahead of a task, and is not in the arena any more."""

    def fail(self, stored: Stored, reason: str, *, full: bool = False, disk: bool = False) -> None:
        """It cannot be had here: tell who waits for it."""

    def refuse(
        self, client: Address, object_id: ObjectId, reason: str, *, disk: bool = False
    ) -> None:
        """No room for a new object, ever."""


class Need:
    """Someone waits for room for an object."""

    __slots__ = ("since", "stored", "then")

    def __init__(self, stored: Stored, then: Callable[[Stored], None], since: float) -> None:
        self.stored = stored
        self.then = then
        self.since = since


class Spilling:
    """The room of one node's store."""

    def __init__(self, world: World, room: Room, mover: Mover, objects: Table) -> None:
        self.world = world
        self.room = room
        self.mover = mover
        self.objects = objects
        self.pulls: deque[Need] = deque()
        self.creators: deque[Need] = deque()
        self.promised = 0  # bytes of the first
        self.fuse_bytes = FUSE_BYTES
        self.one_by_one = False  # the last batch could not be written: less may still fit
        self.droppable: dict[ObjectId, Stored] = {}
        self.spillable: dict[ObjectId, Stored] = {}
        self.expected: dict[ObjectId, Stored] = {}  # droppable, and soon to be read
        self.leaving: dict[ObjectId, Stored] = {}  # being written, and nobody uses them
        self.resting = 0  # bytes of those four
        self.admit: Callable[[], None] = lambda: None  # the store's: promise what can be
        self.writing: set[ObjectId] = set()
        self.patience: Timer | None = None
        self.error = ""  # why the last batch could not be written, until somebody was told
        self.bytes = 0  # on disk

    # ------------------------------------------------------------------ what nobody uses

    def rest(self, stored: Stored) -> None:
        """Nobody uses the object from now on: it may go, after those that rest already."""
        assert stored.state == SEALED
        assert not stored.pins
        self.wake(stored)
        at_once = stored.slot is not None or not stored.primary
        table = self.droppable if at_once else self.spillable
        if at_once and stored.expected:
            table = self.expected
        table[stored.id] = stored
        self.resting += self.room.block(stored.size)

    def wake(self, stored: Stored) -> None:
        """The object is used, or no longer here."""
        for table in (self.droppable, self.spillable, self.expected, self.leaving):
            if table.pop(stored.id, None) is not None:
                self.resting -= self.room.block(stored.size)
                return

    def may_go(self, stored: Stored) -> bool:
        """Whether it is in the arena, and nobody uses it."""
        tables = (self.droppable, self.spillable, self.expected, self.leaving)
        return any(stored.id in table for table in tables)

    @property
    def held(self) -> int:
        """Bytes of the arena that cannot be had by dropping and spilling."""
        return self.room.used - self.resting

    # ------------------------------------------------------------------ who needs room

    def create(self, stored: Stored, then: Callable[[Stored], None]) -> None:
        """Room for what is made here; then ``then``."""
        self.creators.append(Need(stored, then, self.world.now()))
        self.make_room()

    def bring(self, stored: Stored, then: Callable[[Stored], None]) -> None:
        """Room for what was promised some, when it is next made (``make_room``); then ``then``."""
        self.pulls.append(Need(stored, then, self.world.now()))
        self.promised += self.room.block(stored.size)

    def needs(self) -> Iterator[Need]:
        """Those who wait for room, in order."""
        yield from self.pulls
        yield from self.creators

    def first(self) -> Need | None:
        """Who is to have the next room."""
        return next(self.needs(), None)

    def pop(self) -> Need:
        """The first need waits no more."""
        if not self.pulls:
            return self.creators.popleft()
        need = self.pulls.popleft()
        self.promised -= self.room.block(need.stored.size)
        return need

    def make_room(self) -> None:
        """Serve those who wait for room as far as it goes, evicting and spilling for them."""
        self.admit()
        while (need := self.first()) is not None and self.serve(need):
            if not self.pulls:
                self.admit()  # what creators wait for is less now

    def serve(self, need: Need) -> bool:
        """Give the first in line its room, or see to it that there will be some. True: go on."""
        stored = need.stored
        if self.objects.table.get(stored.id) is not stored:
            self.pop()  # freed while it waited
        elif stored.state != CREATING and not stored.wanted():
            self.pop()
            self.abandon(stored)
        elif (offset := self.room.allocate(stored.size)) is not None:
            self.pop()
            stored.offset = offset
            need.then(stored)
        elif self.evict_one(self.droppable):
            pass
        elif self.error:
            reason, self.error = self.error, ""
            self.refuse_first(f"the store is full, and {reason}", disk=True)
        elif self.writing or self.spill_some(stored.size):
            return False
        elif not self.evict_one(self.expected):
            self.watch()
            return False
        return True

    def abandon(self, stored: Stored) -> None:
        """Nobody waits for this copy any more."""
        if stored.state == RESTORING:
            stored.state = SPILLED
        else:
            self.objects.drop(stored)

    # ------------------------------------------------------------------ what goes for it

    def evict_one(self, table: Mapping[ObjectId, Stored]) -> bool:
        """Make room without writing. False if nothing in the table can go so."""
        stored = next(iter(table.values()), None)
        if stored is None:
            return False
        if stored.slot is not None:
            self.leave_arena(stored)
        else:
            self.world.send(stored.owner, ObjectAt(stored.id, self.world.address, False))
            self.objects.drop(stored)
        return True

    def leave_arena(self, stored: Stored) -> None:
        """Its bytes are on disk: give the room back."""
        self.wake(stored)
        self.objects.not_expected(stored)
        stored.state = SPILLED
        self.room.free(stored.offset)
        stored.offset = -1

    def begin_early(self) -> None:
        """Begin to write before anyone has to wait."""
        if self.room.used > SPILL_ABOVE * self.room.capacity and not self.writing:
            self.spill_some(0)

    def spill_some(self, wanted: int) -> bool:
        """Write the least recently used, enough for a good file and for who waits."""
        batch = []
        total = 0
        for stored in self.spillable.values():
            batch.append(stored)
            total += stored.size
            if total >= (0 if self.one_by_one else max(wanted, self.fuse_bytes)):
                break
        if not batch:
            return False
        for stored in batch:
            self.wake(stored)
            stored.state = SPILLING
            self.writing.add(stored.id)
            self.leaving[stored.id] = stored
            self.resting += self.room.block(stored.size)
        self.mover.spill([(stored.id, stored.offset, stored.size) for stored in batch])
        return True

    def written(self, stored: Stored, slot: Any) -> None:
        """One of a batch is on disk, or could not be written (no slot)."""
        self.writing.discard(stored.id)
        self.wake(stored)
        stored.state = SEALED
        if slot is not None:
            if stored.pins or stored.dying:
                self.mover.discard(slot)
            else:
                stored.slot = slot
                self.bytes += stored.size
                self.leave_arena(stored)
        elif not stored.pins:
            self.rest(stored)

    def batch_over(self, error: str, count: int) -> None:
        """All of a batch has been dealt with. If it could not be written, the values are tried one
        by one: what is left of a disk or a quota may be less than a batch. If one could not, who
        waits is told why.
        """
        self.one_by_one = bool(error)
        if self.first() is not None and count == 1:
            self.error = error
        self.make_room()

    # ------------------------------------------------------------------ when nothing can go

    def watch(self) -> None:
        """Nothing can be evicted or spilled now. Someone will unpin or free; if not in time, say
        so.
        """
        need = self.first()
        if self.patience is None and need is not None:
            self.patience = self.world.call_at(need.since + PATIENCE, self.give_up)

    def give_up(self) -> None:
        """Refuse whoever has waited longest, if it is still the case that there is no room."""
        self.patience = None
        self.make_room()
        need = self.first()
        if need is None or self.writing:
            return
        if self.world.now() - need.since < PATIENCE:
            self.watch()
            return
        self.refuse_first(self.why_full(need.stored.size))
        self.make_room()

    def refuse_first(self, reason: str, *, disk: bool = False) -> None:
        """Whoever has waited longest gets no room."""
        stored = self.pop().stored
        if stored.state == CREATING and stored.creator is not None:
            self.objects.refuse(stored.creator, stored.id, reason, disk=disk)
            self.objects.drop(stored)
        else:
            self.objects.fail(stored, reason, full=True, disk=disk)

    def why_full(self, size: int) -> str:
        """What holds the store."""
        placed = [other for other in self.objects.table.values() if other.offset >= 0]
        reading = sum(other.size for other in placed if other.pins)
        writing = sum(other.size for other in placed if other.state == CREATING)
        return (
            f"no room for {size:,} bytes in a store of {self.room.capacity:,} for "
            f"{PATIENCE:.0f} s: running tasks read {reading:,} bytes and write {writing:,}; run "
            "fewer of them at a time, drop arrays sooner, or enlarge object_store_memory"
        )

    # ------------------------------------------------------------------ ends

    def gone(self, stored: Stored) -> None:
        """An object leaves the store: its room and its place on disk come back."""
        self.wake(stored)
        if stored.offset >= 0:
            self.room.free(stored.offset)
        if stored.slot is not None:
            self.bytes -= stored.size
            self.mover.discard(stored.slot)
