"""The values of a drained node: which are offered, where to, and what becomes of each offer."""

from __future__ import annotations

import pytest

from core.test_objects import BLOCK, ME, OTHER, OWNER, READER, THIRD, Store, X, Y, Z
from core.world import World, cpus, info, job, object_id, process
from freehold.core import moving
from freehold.core.moving import AVOID, MOVES, RETRY, Moving
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.wire.messages import (
    Address,
    NodeInfo,
    ObjectCreated,
    ObjectMoved,
    ObjectReady,
    ObjectTaken,
    TakeObject,
)

DRIVER = process("driver")


class Bench:
    """A drained node's store of ten blocks, and two nodes of which THIRD has more room."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = Store(world)
        self.peers: dict[NodeId, NodeInfo] = {
            address.node: info(address, cpus(1), store_bytes=size)
            for address, size in ((OTHER, 5000), (THIRD, 6000))
        }
        self.moving = Moving(world, self.store.objects, self.peers)
        self.local: set[ProcessId] = set()
        self.moving.stays = self.local.__contains__

    def offers(self) -> list[tuple[Address, ObjectId]]:
        """Claim what was offered, and to whom."""
        sent = [(to, m.object) for to, m in self.world.sent if isinstance(m, TakeObject)]
        self.world.take(TakeObject)
        return sent

    def taken(self, key: ObjectId, by: Address, reason: str = "") -> None:
        self.moving.on_taken(ObjectTaken(key, reason), by)

    def freed(self, key: ObjectId) -> None:
        """The owner knows the new place."""
        self.store.objects.on_free(key)
        self.moving.freed()


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_the_way_of_one_value(bench: Bench, world: World) -> None:
    """Goal: offered with all that its new place must know, counted once its owner has freed it
    here, and never dropped before."""
    bench.store.sealed(X, 2)
    bench.moving.survey()
    world.expect((THIRD, TakeObject(X, 2 * BLOCK, OWNER, job())))
    assert bench.moving.left == (1, 2 * BLOCK)
    bench.taken(X, THIRD)
    assert (X in bench.store.objects.table, bench.moving.moved) == (True, 0)
    bench.freed(X)
    assert (bench.moving.moved, bench.moving.moved_bytes) == (1, 2 * BLOCK)
    bench.moving.survey()
    assert (bench.moving.left, bench.moving.moves) == ((0, 0), {})
    world.expect()


def test_the_owner_may_be_quicker_than_the_target(bench: Bench) -> None:
    """Goal: the value counts whichever of the two is heard first."""
    bench.store.sealed(X, 2)
    bench.moving.survey()
    bench.freed(X)
    assert bench.moving.moved == 0
    bench.taken(X, THIRD)
    assert (bench.moving.moved, bench.offers()) == (1, [(THIRD, X)])


def test_moved_here_and_on(bench: Bench, world: World) -> None:
    """Goal: a value goes on from here only when its owner knows of it here: else the word of the
    second move might overtake that of the first, and the owner would have both copies freed.

    Method: we take a value over, then we are drained; the owner answers late."""
    objects = bench.store.objects
    objects.on_take(TakeObject(X, BLOCK, OWNER, job()), OTHER)
    bench.store.mover.claim()
    objects.pulled(X, "")
    assert [type(message) for _, message in world.sent] == [ObjectMoved, ObjectTaken]
    world.sent.clear()
    bench.moving.survey()
    assert (bench.offers(), bench.moving.left) == ([], (1, BLOCK))
    objects.on_keep(X)
    bench.moving.survey()
    assert bench.offers() == [(THIRD, X)]


def test_freed_for_good(bench: Bench) -> None:
    """Goal: a value that dies on the way is not counted as moved."""
    bench.store.sealed(X, 2)
    bench.moving.survey()
    bench.freed(X)
    bench.taken(X, THIRD, "it was freed")
    assert (bench.moving.moved, bench.moving.moves, bench.offers()) == (0, {}, [(THIRD, X)])


def test_most_room_first(bench: Bench) -> None:
    """Goal: values go where most room is left, what we have sent there counted in.

    Method: THIRD has 1,000 bytes more than OTHER; three values of 640."""
    bench.peers[OTHER.node].store_bytes, bench.peers[THIRD.node].store_bytes = 2000, 3000
    for key in (X, Y, Z):
        bench.store.sealed(key, 3)
    for stored in bench.store.objects.table.values():
        stored.size = 640  # larger than this small store could tell
    bench.moving.survey()
    assert bench.offers() == [(THIRD, X), (THIRD, Y), (OTHER, Z)]


def test_not_offered(bench: Bench, world: World) -> None:
    """Goal: copies of others' values, half-written ones and those of a program here stay; what is
    in use counts as left. Method: one of each."""
    bench.store.copy(X, 1)
    bench.store.create(Y, 2)
    world.one(ObjectCreated)
    bench.local.add(OWNER.process)
    bench.store.sealed(Z, 3)
    bench.moving.survey()
    assert bench.offers() == []
    assert bench.moving.left == (2, 5 * BLOCK)
    bench.store.fetch(X, 1, ME)
    bench.local.clear()
    bench.moving.survey()
    assert bench.offers() == [(THIRD, Z)]
    assert bench.moving.left == (3, 6 * BLOCK)
    world.one(ObjectReady, READER)


def test_spilled_values_move_from_disk(bench: Bench) -> None:
    """Goal: no room is needed here to give a value away that lies on disk."""
    bench.store.on_disk(X, 3)
    bench.moving.survey()
    assert bench.offers() == [(THIRD, X)]
    served = bench.store.objects.serve(X, THIRD.process)
    assert served is not None
    assert (served.offset, served.slot) == (-1, "slot of x")


def test_who_refuses_is_avoided_for_a_while(bench: Bench, world: World) -> None:
    """Goal: a refusal leads to the next node, and the reason is kept; later both are asked."""
    bench.store.sealed(X, 1)
    bench.moving.survey()
    bench.taken(X, THIRD, "the store is full")
    bench.moving.survey()
    bench.taken(X, OTHER, "the store is full")
    bench.moving.survey()
    assert bench.offers() == [(THIRD, X), (OTHER, X)]
    assert bench.moving.note.endswith("did not take a value: the store is full")
    world.advance(AVOID)
    bench.moving.survey()
    assert [to for to, _ in bench.offers()] == [THIRD]


def test_no_store_is_large_enough(bench: Bench) -> None:
    """Goal: it stays and the reason is there to be told; drained nodes are not asked."""
    bench.store.sealed(X, 2)
    bench.peers[THIRD.node].draining = True
    bench.peers[OTHER.node].store_bytes = BLOCK
    bench.moving.survey()
    assert bench.offers() == []
    assert bench.moving.note == "no other node has a store for a value of 128 bytes"
    assert bench.moving.left == (1, 2 * BLOCK)


def test_a_target_dies(bench: Bench) -> None:
    """Goal: its value is offered to another node. What the dead still says is nothing."""
    bench.store.sealed(X, 1)
    bench.moving.survey()
    del bench.peers[THIRD.node]
    bench.moving.survey()
    assert bench.offers() == [(THIRD, X), (OTHER, X)]
    bench.taken(X, THIRD, "too late")
    assert bench.moving.moves[X].target == OTHER.node


def test_an_owner_that_does_not_know_it_yet(bench: Bench, world: World) -> None:
    """Goal: taken, and not freed here: offered again, each time after twice the pause.

    Method: the target takes it three times; the owner has it dropped there each time."""
    bench.store.sealed(X, 1)
    bench.moving.survey()
    offered = []
    for _ in range(3):
        assert [key for _, key in bench.offers()] == [X]
        bench.taken(X, THIRD)
        began = world.now()
        while not any(isinstance(m, TakeObject) for _, m in world.sent):
            world.advance(0.25)
            bench.moving.survey()
            assert world.now() - began < 2 * RETRY[1]
        offered.append(world.now() - began)
    assert offered == [RETRY[0], 2 * RETRY[0], 4 * RETRY[0]]
    bench.offers()


def test_pinned_by_a_reader(bench: Bench, world: World) -> None:
    """Goal: moved while somebody here still reads it: it counts as moved, and as left."""
    bench.store.sealed(X, 1)
    bench.store.fetch(X, 1, ME)
    world.one(ObjectReady, READER)
    bench.moving.survey()
    bench.taken(X, THIRD)
    bench.freed(X)
    bench.moving.survey()
    assert (bench.moving.moved, bench.moving.left) == (1, (1, BLOCK))
    bench.store.objects.unpin(X, READER.process)
    bench.moving.survey()
    assert (bench.moving.left, bench.offers()) == ((0, 0), [(THIRD, X)])


def test_a_few_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded by number and by bytes; one larger than the bound goes alone; each that ends
    makes room for the next. Method: bounds of two values, and of three blocks."""
    assert MOVES > 2
    monkeypatch.setattr(moving, "MOVES", 2)
    keys = [object_id(name) for name in "abcd"]
    for key in keys:
        bench.store.sealed(key, 2)
    bench.moving.survey()
    assert len(bench.offers()) == 2
    bench.taken(keys[0], THIRD)
    bench.freed(keys[0])
    assert [key for _, key in bench.offers()] == [keys[2]]
    monkeypatch.setattr(moving, "MOVES", 9)
    monkeypatch.setattr(moving, "MOVE_BYTES", BLOCK)
    bench.moving.end()
    bench.moving.survey()
    assert [key for _, key in bench.offers()] == [keys[1]]


def test_a_cancelled_drain_offers_no_more(bench: Bench) -> None:
    """Goal: what is under way may arrive, and means nothing to us."""
    bench.store.sealed(X, 1)
    bench.moving.survey()
    bench.moving.end()
    bench.taken(X, THIRD)
    bench.freed(X)
    assert (bench.moving.moved, bench.offers()) == (0, [(THIRD, X)])
