"""Taking over a value from a node that is drained, as the store of the new place sees it."""

from __future__ import annotations

import pytest

from core.test_objects import (
    BLOCK,
    ME,
    OTHER,
    OWNER,
    READER,
    ROOM,
    THIRD,
    WRITER,
    Store,
    X,
    Y,
    slot,
)
from core.world import World, job
from freehold.core.objects import PULL_ROUNDS
from freehold.ids import ObjectId
from freehold.wire.messages import (
    Address,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectMoved,
    ObjectReady,
    ObjectTaken,
    TakeObject,
)


@pytest.fixture
def store(world: World) -> Store:
    return Store(world)


def take(store: Store, key: ObjectId, blocks: int, giver: Address = OTHER) -> None:
    store.objects.on_take(TakeObject(key, blocks * BLOCK, OWNER, job()), giver)


def moved(key: ObjectId) -> list[tuple[Address, object]]:
    """What is said once the bytes are here."""
    return [(OWNER, ObjectMoved(key, OTHER, ME)), (OTHER, ObjectTaken(key))]


def test_it_is_pulled_and_kept(store: Store, world: World) -> None:
    """Goal: a value taken over is a primary, known to its owner by one message and to its giver.

    Method: take; the bytes come; then others need the room, and it is written, not dropped."""
    take(store, X, 4)
    world.expect()
    assert store.mover.claim() == [("pull", X, OTHER)]
    store.objects.pulled(X, "")
    world.expect(*moved(X))
    assert store.objects.table[X].job == job()
    store.create(Y, 8)
    store.spilled(X)
    assert world.one(ObjectCreated, WRITER).offset == 0


def test_what_is_here_already_is_taken_at_once(store: Store, world: World) -> None:
    """Goal: a copy that lies here, in the arena or on disk, becomes the primary without a pull."""
    store.on_disk(Y, 2)
    take(store, Y, 2)
    world.expect(*moved(Y))
    store.copy(X, 2)
    take(store, X, 2)
    world.expect(*moved(X))
    assert list(store.objects.spilling.spillable) == [X]
    assert store.mover.claim() == []


def test_a_reader_has_begun_to_pull_it(store: Store, world: World) -> None:
    """Goal: one pull serves both, and the owner hears of one place, not two."""
    store.fetch(X, 2, OTHER)
    take(store, X, 2)
    assert store.mover.claim() == [("pull", X, OTHER)]
    store.objects.pulled(X, "")
    world.expect((READER, ObjectReady(X, 0, 2 * BLOCK, only=True)), *moved(X))


def test_the_giver_is_answered_when_it_cannot_be(store: Store, world: World) -> None:
    """Goal: too large, half written here, on its way from a third node, or of a dead owner: a
    reason at once. Method: one of each."""
    take(store, X, 11)
    assert "object_store_memory" in world.one(ObjectTaken, OTHER).reason
    store.create(X, 1)
    world.take(ObjectCreated)
    take(store, X, 1)
    assert "comes or goes" in world.one(ObjectTaken, OTHER).reason
    take(store, Y, 1)
    take(store, Y, 1, THIRD)
    assert "from another node" in world.one(ObjectTaken, THIRD).reason
    store.objects.process_lost(OWNER.process)
    take(store, Y, 1, THIRD)
    assert "gone" in world.one(ObjectTaken, THIRD).reason


def test_a_source_that_fails(store: Store, world: World) -> None:
    """Goal: the giver is asked as often as any source, then told; nothing is left here."""
    take(store, X, 2)
    for _ in range(PULL_ROUNDS + 1):
        assert store.mover.claim() == [("pull", X, OTHER)]
        store.objects.pulled(X, "connection reset")
        world.advance(1)
    world.expect((OTHER, ObjectTaken(X, "connection reset")))
    assert (store.objects.table, store.room.used) == ({}, 0)


@pytest.mark.parametrize("when", ["waits for room", "is pulled"])
def test_freed_on_the_way(store: Store, world: World, when: str) -> None:
    """Goal: the owner frees it while it comes: it goes, and the giver is told."""
    if when == "waits for room":
        store.create(Y, 10)
        world.take(ObjectCreated)
    take(store, X, 2)
    store.objects.on_free(X)
    if when == "is pulled":
        store.objects.pulled(X, "")
    world.expect((OTHER, ObjectTaken(X, "it was freed")))
    assert X not in store.objects.table


def test_no_room_at_all(store: Store, world: World) -> None:
    """Goal: where all is pinned the giver hears why after the same patience as anybody."""
    store.create(Y, 10)
    world.take(ObjectCreated)
    take(store, X, 2)
    world.advance(61)
    assert "no room for 128 bytes" in world.one(ObjectTaken, OTHER).reason
    assert store.room.used == ROOM


def test_the_owner_will_not_have_it(store: Store, world: World) -> None:
    """Goal: it goes by the owner's answer. Method: a reader holds it meanwhile."""
    take(store, X, 2)
    store.objects.pulled(X, "")
    store.fetch(X, 2, ME)
    world.take(ObjectMoved), world.take(ObjectTaken), world.take(ObjectReady)
    store.objects.on_free(X)
    take(store, X, 2)
    assert "comes or goes" in world.one(ObjectTaken, OTHER).reason
    store.objects.unpin(X, READER.process)
    assert (store.objects.table, store.room.used) == ({}, 0)
    world.expect()


def test_a_reader_who_gives_up_does_not_end_it(store: Store, world: World) -> None:
    """Goal: the pull goes on for the giver alone. Method: the reader cancels while it waits for
    room."""
    store.create(Y, 10)
    world.take(ObjectCreated)
    store.fetch(X, 2, OTHER)
    take(store, X, 2)
    store.objects.on_cancel_fetch(X, READER)
    store.objects.on_abort(Y, WRITER)
    assert store.mover.claim() == [("pull", X, OTHER)]
    store.objects.pulled(X, "")
    world.expect(*moved(X))
    assert world.take(ObjectAt) == world.take(ObjectMissing) == []
    assert slot(X) not in store.mover.calls
