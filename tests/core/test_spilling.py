"""Who goes when room is needed: in what order, and at what cost when the store is large."""

from __future__ import annotations

import pytest

from core.test_objects import ME, READER, WRITER, Store, X, Y, Z, slot
from core.world import World, object_id
from freehold.core.stored import SEALED, SPILLED
from freehold.wire.messages import ObjectAt, ObjectCreated, ObjectReady


@pytest.fixture
def store(world: World) -> Store:
    return Store(world)


def test_last_used_goes_last(store: Store, world: World) -> None:
    """Goal: of copies, the one that nobody has read for longest goes first; a read counts until
    its view is gone. Method: two copies, the older is read once more."""
    store.copy(X, 4)
    store.copy(Y, 4)
    store.fetch(X, 4, ME)
    store.objects.unpin(X, READER.process)
    store.create(Z, 4)
    assert [message.object for message in world.take(ObjectAt)] == [Y]
    world.take(ObjectReady), world.take(ObjectCreated)
    assert list(store.objects.table) == [X, Z]


def test_each_rests_in_one_place(store: Store, world: World) -> None:
    """Goal: the tables of what nobody uses follow every change. Method: a primary is sealed, read,
    written, restored, made room of; a copy becomes the primary."""
    spilling = store.objects.spilling

    def resting() -> tuple[list[bytes], list[bytes]]:
        return list(spilling.droppable), list(spilling.spillable)

    store.sealed(X, 6)
    assert resting() == ([], [X])
    store.fetch(X, 6, ME)
    assert resting() == ([], [])
    store.objects.unpin(X, READER.process)
    assert resting() == ([], [X])
    store.create(Y, 6)
    assert resting() == ([], [])
    store.spilled(X)
    store.objects.on_abort(Y, WRITER)
    store.fetch(X, 6, ME)
    assert store.mover.claim() == [("restore", X, slot(X))]
    store.objects.restored(X, "")
    store.objects.unpin(X, READER.process)
    assert resting() == ([X], [])
    store.copy(Y, 2)
    assert resting() == ([X, Y], [])
    store.objects.on_keep(Y)
    assert resting() == ([X], [Y])
    store.objects.on_free(Y)
    store.objects.on_free(X)
    assert resting() == ([], [])
    assert store.room.used == 0
    world.take(ObjectCreated), world.take(ObjectReady)
    store.mover.claim()


def test_the_dead_reader_lets_go(store: Store, world: World) -> None:
    """Goal: a pin that ends with its process leaves the object evictable, as any last pin does."""
    store.sealed(X, 6)
    store.fetch(X, 6, ME)
    world.take(ObjectReady)
    store.objects.process_lost(READER.process)
    assert list(store.objects.spilling.spillable) == [X]


def test_a_failed_batch_may_be_tried_again(store: Store, world: World) -> None:
    """Goal: what could not be written is still here, whole, and can go later."""
    store.sealed(X, 6)
    store.create(Y, 6)
    store.spilled(X, error="disk full")
    assert "disk full" in world.one(ObjectCreated, WRITER).reason
    assert (store.state(X), list(store.objects.spilling.spillable)) == (SEALED, [X])


def test_the_rest_of_a_disk_is_used(store: Store, world: World) -> None:
    """Goal: where a batch does not fit the disk any more, one value may. Method: two values to be
    written; both do not fit, the first does; then not even one."""
    store.sealed(X, 4)
    store.sealed(Y, 4)
    store.create(Z, 4)
    assert store.mover.claim() == [("spill", X, Y)]
    store.objects.spilled([X, Y], [], "disk full")
    store.spilled(X)
    assert world.one(ObjectCreated, WRITER).object == Z
    store.create(object_id("a"), 4)
    store.spilled(Y, error="disk full")
    refusal = world.one(ObjectCreated, WRITER)
    assert (refusal.disk, "disk full" in refusal.reason) == (True, True)


class Counted(dict):  # type: ignore[type-arg]
    """A table that counts the walks through it."""

    walks = 0

    def values(self):  # type: ignore[no-untyped-def]
        Counted.walks += 1
        return super().values()


def finish(store: Store) -> None:
    """Whatever is being written is written."""
    for call in store.mover.claim():
        assert call[0] == "spill"
        store.objects.spilled(call[1:], [slot(key) for key in call[1:]], "")


def test_room_is_found_without_a_walk(world: World) -> None:
    """Goal: among many objects on disk, making room looks at none of them.

    Method: two hundred objects go through a store of ten blocks, two at a time; the table of all
    objects, which would be walked through for each, is never walked through."""
    store = Store(world)
    store.objects.table = Counted()
    for number in range(200):
        store.create(object_id(f"o{number}"), 5)
        finish(store)
        store.objects.on_seal(object_id(f"o{number}"), WRITER)
        finish(store)
    assert len(world.take(ObjectCreated)) == 200
    states = [stored.state for stored in dict.values(store.objects.table)]
    assert states.count(SPILLED) >= 198
    assert Counted.walks == 0
