"""One node's store: who gets room, what is moved for it, and what is left at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from core.world import World, job, node, object_id, process
from freehold.core.objects import DEAD_KEPT, PULL_ROUNDS, Objects
from freehold.core.spilling import PATIENCE
from freehold.core.stored import SEALED, SPILLED
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.store.allocator import Allocator
from freehold.wire.messages import (
    Address,
    CreateObject,
    FetchObject,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
)

ME, OTHER, THIRD = node("me"), node("other"), node("third")
OWNER, WRITER, READER = process("owner", "other"), process("writer"), process("reader")
X, Y, Z = object_id("x"), object_id("y"), object_id("z")
BLOCK = 64  # the allocator's unit
ROOM = 10 * BLOCK


class FakeMover:
    """Notes what it should move; a test says when it is done."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        self.calls.append(("spill", *(key for key, _, _ in batch)))

    def restore(self, key: ObjectId, slot: Any, offset: int, size: int) -> None:
        self.calls.append(("restore", key, slot))

    def pull(self, key: ObjectId, source: Address, offset: int, size: int) -> None:
        self.calls.append(("pull", key, source))

    def discard(self, slot: Any) -> None:
        self.calls.append(("discard", slot))

    def claim(self) -> list[tuple[Any, ...]]:
        calls, self.calls = self.calls, []
        return calls


class Store:
    """A store of ten blocks and shorthand for what processes ask of it."""

    def __init__(self, world: World) -> None:
        world.address = ME
        self.world = world
        self.room = Allocator(ROOM)
        self.mover = FakeMover()
        self.objects = Objects(world, self.room, self.mover)

    def create(self, key: ObjectId, blocks: int, creator: Address = WRITER) -> None:
        self.objects.on_create(CreateObject(key, blocks * BLOCK, OWNER, job()), creator)

    def sealed(self, key: ObjectId, blocks: int) -> None:
        """A complete primary."""
        self.create(key, blocks)
        assert self.world.one(ObjectCreated, WRITER).offset >= 0
        self.objects.on_seal(key, WRITER)

    def fetch(self, key: ObjectId, blocks: int, *nodes: Address, by: Address = READER) -> None:
        self.objects.on_fetch(FetchObject(key, blocks * BLOCK, OWNER, list(nodes)), by)

    def copy(self, key: ObjectId, blocks: int) -> None:
        """A complete secondary that nobody reads."""
        self.fetch(key, blocks, OTHER)
        self.objects.pulled(key, "")
        self.world.take(ObjectReady), self.world.take(ObjectAt), self.mover.claim()
        self.objects.unpin(key, READER.process)

    def spilled(self, *keys: ObjectId, error: str = "") -> None:
        """The mover is done with the batch that it was given."""
        assert self.mover.claim() == [("spill", *keys)]
        slots = [] if error else [slot(key) for key in keys]
        self.objects.spilled(keys, slots, error)

    def on_disk(self, key: ObjectId, blocks: int) -> None:
        """A primary on disk only: pushed out by one that fills the store, which is then freed."""
        self.sealed(key, blocks)
        self.create(Z, 10)
        self.spilled(key)
        self.world.take(ObjectCreated)
        self.objects.on_abort(Z, WRITER)

    def state(self, key: ObjectId) -> str:
        return self.objects.table[key].state


def slot(key: ObjectId) -> str:
    return f"slot of {key[:1].decode()}"


@pytest.fixture
def store(world: World) -> Store:
    return Store(world)


# -- create, seal, read ----------------------------------------------------------------------------


def test_create_seal_read_free(store: Store, world: World) -> None:
    """Goal: the plain life of an object. Method: write, read twice, free; nothing is left."""
    store.create(X, 2)
    world.expect((WRITER, ObjectCreated(X, 0)))
    store.fetch(X, 2, ME)  # before it is sealed: the reader waits
    world.expect()
    store.objects.on_seal(X, WRITER)
    store.fetch(X, 2, ME)
    world.expect(*[(READER, ObjectReady(X, 0, 2 * BLOCK, only=True))] * 2)

    store.objects.on_free(X)
    store.objects.unpin(X, READER.process)
    assert X in store.objects.table  # the second view is still open
    store.objects.unpin(X, READER.process)
    assert (store.objects.table, store.room.used) == ({}, 0)


def test_a_stranger_cannot_unpin_or_abort(store: Store, world: World) -> None:
    """Goal: only who holds a pin gives it back, and only the creator aborts."""
    store.create(X, 1)
    store.objects.on_abort(X, READER)
    store.objects.on_seal(X, WRITER)
    store.fetch(X, 1, ME)
    store.objects.unpin(X, WRITER.process)
    store.objects.unpin(Y, WRITER.process)
    world.expect((WRITER, ObjectCreated(X, 0)), (READER, ObjectReady(X, 0, BLOCK, only=True)))
    assert store.objects.table[X].pins == {READER.process: 1}


def test_larger_than_the_store(store: Store, world: World) -> None:
    """Goal: what can never fit is refused at once, and nothing is evicted for it.

    Method: a new object, and a copy of one that another node's larger store holds."""
    store.sealed(Y, 1)
    store.create(X, 11)
    refusal = world.one(ObjectCreated)
    assert refusal.offset == -1
    assert "704 bytes" in refusal.reason
    assert "object_store_memory" in refusal.reason

    store.fetch(X, 11, OTHER)
    missing = world.one(ObjectMissing)
    assert missing.full
    assert "object_store_memory" in missing.reason
    assert (list(store.objects.table), store.mover.claim()) == ([Y], [])


@pytest.mark.parametrize("where", ["arena", "disk"])
def test_second_attempt_writes_its_object_anew(store: Store, world: World, where: str) -> None:
    """Goal: what an attempt sealed before it died does not stand in the way of the next.

    Method: the first attempt's object lies in the arena, or has been spilled meanwhile."""
    if where == "disk":
        store.on_disk(X, 3)
    else:
        store.sealed(X, 3)
    store.create(X, 4)
    assert world.one(ObjectCreated).offset >= 0
    assert store.mover.claim() == ([("discard", slot(X))] if where == "disk" else [])
    assert (store.room.used, store.objects.spilling.bytes) == (4 * BLOCK, 0)


def test_object_in_use_is_not_written_anew(store: Store, world: World) -> None:
    """Goal: an object that someone reads or writes stays. Method: create it again in both
    states."""
    store.create(X, 1)
    store.create(X, 1, READER)
    store.objects.on_seal(X, WRITER)
    store.fetch(X, 1, ME)
    store.create(X, 1, READER)
    world.take(ObjectReady)
    world.expect((WRITER, ObjectCreated(X, 0)), *[(READER, ObjectCreated(X, -1, "exists"))] * 2)


# -- room ------------------------------------------------------------------------------------------


def test_creators_wait_in_order(store: Store, world: World) -> None:
    """Goal: a small request does not overtake a big one. Method: full store; 5 blocks, then 1."""
    store.create(X, 8)
    store.create(Y, 5)
    store.create(Z, 1)
    world.expect((WRITER, ObjectCreated(X, 0)))
    store.objects.on_abort(X, WRITER)
    world.expect((WRITER, ObjectCreated(Y, 0)), (WRITER, ObjectCreated(Z, 5 * BLOCK)))


def test_secondary_copies_go_first_and_the_least_used_of_them(store: Store, world: World) -> None:
    """Goal: room is made by dropping unpinned copies, least recently used first, and telling
    owners.

    Method: copies x and y, x used again; then a need that one of them satisfies."""
    store.copy(X, 4)
    store.copy(Y, 4)
    store.fetch(X, 4)
    store.objects.unpin(X, READER.process)
    world.take(ObjectReady)
    store.create(Z, 4)
    world.expect((OWNER, ObjectAt(Y, ME, False)), (WRITER, ObjectCreated(Z, 4 * BLOCK)))
    assert store.mover.claim() == []


def test_primaries_are_spilled_and_restored(store: Store, world: World) -> None:
    """Goal: a primary leaves the arena for the disk and comes back for a reader, the disk copy
    kept.

    Method: x fills the store; y needs room; x is read again once y is gone; then z takes its room
    without a second write."""
    store.sealed(X, 8)
    store.create(Y, 5)
    store.spilled(X)
    world.expect((WRITER, ObjectCreated(Y, 0)))
    assert (store.state(X), store.objects.spilling.bytes) == (SPILLED, 8 * BLOCK)

    store.fetch(X, 8, ME)
    assert store.mover.claim() == []  # no room yet
    store.objects.on_abort(Y, WRITER)
    assert store.mover.claim() == [("restore", X, slot(X))]
    store.objects.restored(X, "")
    world.expect((READER, ObjectReady(X, 0, 8 * BLOCK)))
    store.objects.unpin(X, READER.process)

    store.create(Z, 5)
    assert store.mover.claim() == []  # its copy on disk is as good
    world.expect((WRITER, ObjectCreated(Z, 0)))
    store.objects.on_free(X)
    assert (store.mover.claim(), store.objects.spilling.bytes) == ([("discard", slot(X))], 0)


def test_object_on_disk_is_not_written_twice(store: Store, world: World) -> None:
    """Goal: spilling ahead of need passes over what is on disk already.

    Method: x restored, its disk copy kept; then y fills the store above the level of early
    spill."""
    store.on_disk(X, 4)
    store.fetch(X, 4, ME)
    store.mover.claim()
    store.objects.restored(X, "")
    store.objects.unpin(X, READER.process)
    world.take(ObjectReady)
    store.sealed(Y, 5)
    assert store.mover.claim() == [("spill", Y)]
    store.objects.spilled([Y], [slot(Y)], "")
    assert store.objects.spilling.bytes == 9 * BLOCK


def test_early_spill_before_anyone_waits(store: Store, world: World) -> None:
    """Goal: above 80 % full, primaries are written ahead. Method: 8 blocks not yet, 9 do."""
    store.sealed(X, 8)
    assert store.mover.claim() == []
    store.sealed(Y, 1)
    store.spilled(X, Y)
    assert store.room.used == 0


def test_read_while_it_is_being_spilled(store: Store, world: World) -> None:
    """Goal: a reader that comes during the write keeps the object in the arena; the slot goes."""
    store.sealed(X, 9)
    store.fetch(X, 9, ME)
    store.spilled(X)
    world.expect((READER, ObjectReady(X, 0, 9 * BLOCK)))
    assert (store.state(X), store.mover.claim()) == (SEALED, [("discard", slot(X))])


@pytest.mark.parametrize("freed", [True, False])
def test_a_seal_lets_the_waiting_in(store: Store, world: World, freed: bool) -> None:
    """Goal: what is complete can be spilled for who waits, at once and not after PATIENCE.

    Method: x is written, below the level of early spill; y waits; x is sealed, or freed and
    sealed."""
    store.create(X, 7)
    store.create(Y, 4)
    if freed:
        store.objects.on_free(X)
    store.objects.on_seal(X, WRITER)
    if not freed:
        store.spilled(X)
    world.expect((WRITER, ObjectCreated(X, 0)), (WRITER, ObjectCreated(Y, 0)))


def test_pinned_objects_do_not_move(store: Store, world: World) -> None:
    """Goal: what is read stays; the need waits, is explained and refused after PATIENCE."""
    store.sealed(X, 8)
    store.fetch(X, 8, ME)
    world.take(ObjectReady)
    store.create(Y, 5)
    world.advance(PATIENCE - 1)
    world.expect()
    world.advance(1)
    refusal = world.one(ObjectCreated)
    assert refusal.offset == -1
    assert "read 512 bytes and write 0" in refusal.reason
    assert (list(store.objects.table), store.mover.claim()) == ([X], [])


def test_unpin_lets_the_waiting_in(store: Store, world: World) -> None:
    """Goal: the end of a read wakes who waits for room. Method: as above, but in time."""
    store.sealed(X, 8)
    store.fetch(X, 8, ME)
    store.create(Y, 5)
    world.take(ObjectReady)
    store.objects.unpin(X, READER.process)
    store.spilled(X)
    world.expect((WRITER, ObjectCreated(Y, 0)))
    world.advance(2 * PATIENCE)


def test_disk_error_is_told_to_who_needs_room(store: Store, world: World) -> None:
    """Goal: a full disk is an error with its reason, soon, and not an endless rewriting.

    Method: every spill fails; a creator and a reader wait."""
    store.on_disk(Y, 2)
    store.sealed(X, 8)
    store.create(Z, 5)
    store.fetch(Y, 2, ME)
    full = "no space left on device"
    assert store.mover.claim() == [("spill", X), ("restore", Y, slot(Y))]  # for it there is room
    store.objects.spilled([X], [], full)
    refusal = world.one(ObjectCreated)
    assert refusal.offset == -1
    assert full in refusal.reason
    store.objects.restored(Y, "")
    world.one(ObjectReady)
    world.advance(2 * PATIENCE)
    assert (store.state(X), store.mover.claim()) == (SEALED, [])


def test_disk_error_refuses_every_waiter_in_turn(store: Store, world: World) -> None:
    """Goal: nobody waits behind a refused one for a full PATIENCE. Method: three creators wait."""
    store.sealed(X, 8)
    for key in "abc":
        store.create(object_id(key), 5)
    for _ in range(10):
        for call in store.mover.claim():
            store.objects.spilled(call[1:], [], "disk full")
        world.advance(0.1)
    assert [answer.offset for answer in world.take(ObjectCreated)] == [-1] * 3
    assert list(store.objects.table) == [X]


def test_cancelled_need_lets_the_next_in(store: Store, world: World) -> None:
    """Goal: a big fetch that nobody wants any more does not hold up a small one behind it."""
    store.create(X, 8)
    store.fetch(Y, 5, OTHER)
    store.fetch(Z, 1, OTHER)
    world.take(ObjectCreated)
    store.objects.on_cancel_fetch(Y, READER)
    assert store.mover.claim() == [("pull", Z, OTHER)]
    assert Y not in store.objects.table


# -- copies from other nodes -----------------------------------------------------------------------


def test_pull_tries_each_source(store: Store, world: World) -> None:
    """Goal: a failed source is followed by the next; the owner learns of the copy."""
    store.fetch(X, 2, OTHER, THIRD)
    store.fetch(X, 2, OTHER, THIRD, by=WRITER)
    assert store.mover.claim() == [("pull", X, OTHER)]
    store.objects.pulled(X, "refused")
    assert store.mover.claim() == [("pull", X, THIRD)]
    store.objects.pulled(X, "")
    ready = ObjectReady(X, 0, 2 * BLOCK)
    world.expect((OWNER, ObjectAt(X, ME, True)), (READER, ready), (WRITER, ready))


def test_pull_fails_everywhere(store: Store, world: World) -> None:
    """Goal: missing names every node that was tried, ours included if it was thought to have it.

    Method: the only source fails in every round; an object that should be here is not."""
    store.fetch(X, 2, ME, OTHER)
    for _ in range(PULL_ROUNDS + 1):
        world.expect()
        assert store.mover.claim() == [("pull", X, OTHER)]
        store.objects.pulled(X, "refused")
        world.advance(1)
    world.expect((READER, ObjectMissing(X, "refused", [ME.node, OTHER.node])))
    store.fetch(Y, 2, ME)
    world.expect((READER, ObjectMissing(Y, "no node is known to have it", [ME.node])))
    assert (store.objects.table, store.room.used) == ({}, 0)


def test_pull_waits_for_what_is_being_written(store: Store, world: World) -> None:
    """Goal: a value is not lost because its node hears late that it is complete. Method: the node
    says so for many rounds, then twice that it has lost it. It says so because it is asked of what
    has been created and not sealed."""
    store.fetch(X, 2, OTHER)
    for _ in range(3 * PULL_ROUNDS):
        assert store.mover.claim() == [("pull", X, OTHER)]
        store.objects.pulled(X, "not yet", soon=True)
        world.expect()
        world.advance(1)
    for _ in range(2):
        world.expect()
        assert store.mover.claim() == [("pull", X, OTHER)]
        store.objects.pulled(X, "not any more")
        world.advance(1)
    world.expect((READER, ObjectMissing(X, "not any more", [OTHER.node])))
    store.objects.on_create(CreateObject(Y, 2 * BLOCK, OWNER, job()), WRITER)
    world.one(ObjectCreated)
    assert [store.objects.being_written(key) for key in (X, Y)] == [False, True]
    store.objects.on_seal(Y, WRITER)
    assert not store.objects.being_written(Y)


@pytest.mark.parametrize("end", ["cancel", "free"])
def test_pull_ends_between_two_rounds(store: Store, world: World, end: str) -> None:
    """Goal: no further round for who has left or for what is freed, and the room comes back."""
    store.fetch(X, 2, OTHER)
    store.objects.pulled(X, "refused")
    store.mover.claim()
    if end == "cancel":
        store.objects.on_cancel_fetch(X, READER)
    else:
        store.objects.on_free(X)
    world.advance(1)
    blamed = [message.tried for message in world.take(ObjectMissing)]
    assert blamed == ([[ME.node]] if end == "free" else [])
    assert (store.objects.table, store.room.used, store.mover.claim()) == ({}, 0, [])


def test_a_free_during_a_pull_that_fails_blames_no_source(store: Store, world: World) -> None:
    """Goal: a free meant for an earlier copy loses no value. Method: one, and a cut connection."""
    store.fetch(X, 2, OTHER)
    store.objects.on_free(X)
    store.objects.pulled(X, "broken")
    world.expect((READER, ObjectMissing(X, "broken", [ME.node])))
    assert (store.mover.claim(), store.objects.table) == ([("pull", X, OTHER)], {})


def test_restore_fails(store: Store, world: World) -> None:
    """Goal: a spill file that cannot be read makes the object missing here, with the reason."""
    store.on_disk(X, 4)
    store.fetch(X, 4, ME)
    store.objects.restored(X, "checksum")
    missing = world.one(ObjectMissing)
    assert missing.tried == [NodeId(ME.node)]
    assert "checksum" in missing.reason
    assert (store.objects.table, store.room.used, store.objects.spilling.bytes) == ({}, 0, 0)


def test_serve_pins_in_the_arena_and_on_disk(store: Store, world: World) -> None:
    """Goal: a transfer to another node holds the object where it is, freed or not."""
    store.on_disk(X, 4)
    store.sealed(Y, 2)
    store.mover.claim()
    assert store.objects.serve(Z, OTHER.process) is None
    for key in (X, Y):
        assert store.objects.serve(key, OTHER.process) is store.objects.table[key]
        store.objects.on_free(key)
    assert sorted(store.objects.table) == [X, Y]
    for key in (X, Y):
        store.objects.unpin(key, OTHER.process)
    assert (store.objects.table, store.mover.claim()) == ({}, [("discard", slot(X))])


# -- ends ------------------------------------------------------------------------------------------


def test_freed_while_it_is_spilled_pulled_or_restored(store: Store, world: World) -> None:
    """Goal: the mover's place in the arena is not given away under it.

    Method: free during each kind of move; the end of the move frees."""
    store.on_disk(X, 4)
    store.fetch(X, 4, ME)
    store.mover.claim()
    store.objects.on_free(X)
    assert store.room.used == 4 * BLOCK
    store.objects.restored(X, "")
    store.objects.unpin(X, READER.process)
    assert store.mover.claim() == [("discard", slot(X))]

    store.fetch(Y, 2, OTHER)
    store.objects.on_free(Y)
    store.objects.pulled(Y, "")
    store.objects.unpin(Y, READER.process)
    assert store.mover.claim() == [("pull", Y, OTHER)]

    store.sealed(X, 9)
    store.objects.on_free(X)
    store.spilled(X)
    world.take(ObjectReady), world.take(ObjectAt)
    assert store.mover.claim() == [("discard", slot(X))]
    assert (store.objects.table, store.room.used) == ({}, 0)


def test_freed_while_readers_wait_for_room(store: Store, world: World) -> None:
    """Goal: nobody waits in silence for an object that is gone.

    Method: a copy and a spilled primary wait for room with readers; their owner dies."""
    store.on_disk(X, 4)
    store.create(Z, 10)
    store.fetch(X, 4, ME)
    store.fetch(Y, 2, OTHER)
    world.take(ObjectCreated)
    store.objects.process_lost(OWNER.process)
    assert sorted(message.object for message in world.take(ObjectMissing, READER)) == [X, Y]
    assert list(store.objects.table) == [Z]  # being written: it goes when it is sealed
    store.objects.on_seal(Z, WRITER)
    assert (store.objects.table, store.room.used) == ({}, 0)


def test_process_lost(store: Store, world: World) -> None:
    """Goal: a process's end releases its pins, its half-written objects and its wishes.

    Method: the reader reads x, waits for y and writes z; then it dies."""
    store.sealed(X, 2)
    store.fetch(X, 2, ME)
    store.fetch(X, 2, ME)
    store.fetch(Y, 2, OTHER)
    store.create(Z, 2, READER)
    world.take(ObjectReady), world.take(ObjectCreated)
    store.objects.on_free(X)
    store.objects.process_lost(READER.process)
    assert list(store.objects.table) == [Y]
    store.objects.pulled(Y, "")  # nobody wants it any more, but it is here: a copy to drop at need
    assert world.take(ObjectAt) == [ObjectAt(Y, ME, True)]
    assert (store.state(Y), store.objects.table[Y].pins) == (SEALED, {})


def test_last_known_copy_is_kept(store: Store, world: World) -> None:
    """Goal: once its owner says that it is the last, a copy is spilled and not dropped.

    Method: a copy and a kept copy; then a need for the room of both. A word about an object that is
    not here changes nothing."""
    store.copy(X, 4)
    store.copy(Y, 4)
    store.objects.on_keep(X)
    store.objects.on_keep(Z)
    store.create(Z, 8)
    assert world.take(ObjectAt) == [ObjectAt(Y, ME, False)]
    store.spilled(X)
    assert store.state(X) == SPILLED
    world.expect((WRITER, ObjectCreated(Z, 0)))


def test_copy_on_its_way_is_kept(store: Store, world: World) -> None:
    """Goal: the word may come before the bytes. Method: keep while it is pulled; then fill."""
    store.fetch(X, 4, OTHER)
    store.objects.on_keep(X)
    store.objects.pulled(X, "")
    world.take(ObjectReady), world.take(ObjectAt), store.mover.claim()
    store.objects.unpin(X, READER.process)
    store.create(Z, 8)
    store.spilled(X)
    world.expect((WRITER, ObjectCreated(Z, 0)))


def test_nothing_is_kept_for_the_dead(store: Store, world: World) -> None:
    """Goal: what comes after its owner's end is refused, or it would stay for ever.

    Method: create and fetch for a dead owner; the store remembers DEAD_KEPT of them."""
    store.objects.process_lost(OWNER.process)
    store.create(X, 1)
    store.fetch(Y, 1, OTHER)
    refused = ObjectCreated(X, -1, "the process that would own it is gone")
    nowhere = ObjectMissing(Y, "no node is known to have it", [ME.node])
    world.expect((WRITER, refused), (READER, nowhere))
    assert (store.objects.table, store.mover.claim()) == ({}, [])
    for number in range(DEAD_KEPT):
        store.objects.process_lost(ProcessId(number.to_bytes(8, "big")))
    assert len(store.objects.dead) == DEAD_KEPT
    assert OWNER.process not in store.objects.dead


def test_owners_on_a_node(store: Store, world: World) -> None:
    """Goal: whom a node's death takes along: each once."""
    store.sealed(X, 1)
    store.sealed(Y, 1)
    assert store.objects.owners_on(OTHER.node) == {OWNER.process}
    assert store.objects.owners_on(THIRD.node) == set()


def test_job_ended(store: Store, world: World) -> None:
    """Goal: what the processes of a job made goes with it, read or not, busy or not."""
    store.on_disk(X, 4)
    store.sealed(Y, 2)
    store.fetch(Y, 2, ME)
    store.create(Z, 2)
    world.take(ObjectReady), world.take(ObjectCreated)
    store.objects.job_ended(job())
    assert sorted(store.objects.table) == [Y, Z]
    store.objects.process_lost(READER.process)
    store.objects.process_lost(WRITER.process)
    assert (store.objects.table, store.room.used) == ({}, 0)
    assert store.mover.claim() == [("discard", slot(X))]
