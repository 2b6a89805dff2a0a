"""A creator that gives up, or takes back what nobody has heard of."""

from __future__ import annotations

import pytest

from core.test_objects import ME, READER, WRITER, Store, X, Y, Z
from core.world import World
from freehold.wire.messages import ObjectCreated, ObjectReady


@pytest.fixture
def store(world: World) -> Store:
    return Store(world)


def test_it_leaves_nothing_behind(store: Store, world: World) -> None:
    """Goal: what was written for a message that is never sent leaves nothing behind: in memory, on
    disk, or once nobody reads it. Only its creator can take it back.

    Method: three objects, sealed, of which one is on disk and one is read."""
    store.on_disk(X, 1)
    store.sealed(Y, 1)
    store.sealed(Z, 1)
    store.fetch(Z, 1, ME)
    for key in (X, Y, Z):
        store.objects.on_abort(key, READER)
    assert set(store.objects.table) == {X, Y, Z}
    for key in (X, Y, Z):
        store.objects.on_abort(key, WRITER)
    assert set(store.objects.table) == {Z}, "somebody reads it"
    store.objects.unpin(Z, READER.process)
    assert (store.objects.table, store.room.used) == ({}, 0)
    world.take(ObjectCreated)
    world.take(ObjectReady)
