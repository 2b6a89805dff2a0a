"""Who may have objects brought and pinned when the store is short: in what order, all or none."""

from __future__ import annotations

import pytest

from core.test_objects import BLOCK, ME, OTHER, OWNER, READER, WRITER, Store, X, Y, Z, slot
from core.world import World, object_id, process
from freehold.core.admission import BEND, PATIENCE
from freehold.ids import ObjectId
from freehold.wire.fetches import ARGUMENT, CALL, GET, WAIT
from freehold.wire.messages import (
    Address,
    FetchAhead,
    FetchObject,
    FetchTogether,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
)

ONE, TWO = process("one"), process("two")
A, B, C, D = (object_id(name) for name in "abcd")


@pytest.fixture
def store(world: World) -> Store:
    return Store(world)


def wish(key: ObjectId, blocks: int, priority: int) -> FetchObject:
    return FetchObject(key, blocks * BLOCK, OWNER, [OTHER], priority)


def task(store: Store, worker: Address, *keys: ObjectId, blocks: int = 5) -> None:
    """A task at a worker needs these arguments."""
    wishes = [wish(key, blocks, ARGUMENT) for key in keys]
    store.objects.on_fetch_together(FetchTogether(wishes), worker)


def arrive(store: Store) -> list[ObjectId]:
    """All that is being pulled or read back is here now. Returns what that was."""
    moved = []
    for kind, key, _ in store.mover.claim():
        moved.append(key)
        (store.objects.pulled if kind == "pull" else store.objects.restored)(key, "")
    store.world.take(ObjectAt)
    return moved


def ready(world: World, client: Address) -> list[ObjectId]:
    """What a process was given to read."""
    return [message.object for message in world.take(ObjectReady, client)]


@pytest.mark.parametrize("where", ["elsewhere", "on disk", "half here"])
def test_two_tasks_do_not_each_hold_half(store: Store, world: World, where: str) -> None:
    """Goal: two tasks, each with two arguments of half the store, both run, one after the other,
    at once and without an error.

    Method: the arguments are on another node; spilled here; or one of each task lies here, which
    used to be pinned at once."""
    for key in (A, B, C, D) if where == "on disk" else ():
        store.on_disk(key, 5)
    for key in (A, C) if where == "half here" else ():
        store.copy(key, 5)
    task(store, ONE, A, B)
    task(store, TWO, C, D)
    assert arrive(store) == ([B] if where == "half here" else [A, B])
    assert (ready(world, ONE), ready(world, TWO)) == ([A, B], [])
    store.objects.unpin(A, ONE.process)
    assert store.mover.claim() == []  # half is not enough for the other
    store.objects.unpin(B, ONE.process)
    world.take(ObjectAt)  # (copies have gone for it)
    assert arrive(store) == [C, D]
    assert ready(world, TWO) == [C, D]
    assert not store.objects.waiting()


def test_nothing_is_pinned_before_its_turn(store: Store, world: World) -> None:
    """Goal: what lies here already is not held for a bundle that waits: it can go for others.

    Method: a bundle of a copy here and one that does not fit; a creator takes the copy's room."""
    store.create(X, 6)
    store.copy(A, 2)
    task(store, ONE, A, B)
    store.create(Y, 4)
    world.take(ObjectAt)
    assert [message.object for message in world.take(ObjectCreated)] == [X, Y]
    assert (ready(world, ONE), A in store.objects.table) == ([], False)
    store.objects.on_abort(X, WRITER)
    store.objects.on_abort(Y, WRITER)
    assert arrive(store) == [A, B]
    assert ready(world, ONE) == [A, B]


def test_get_before_wait_before_arguments(store: Store, world: World) -> None:
    """Goal: the more urgent are let in first, whenever they came; equals in the order they came.

    Method: a full store; wishes from the least urgent up; then room for one at a time."""
    store.create(Z, 10)
    world.take(ObjectCreated)
    for key, priority in ((A, CALL), (B, ARGUMENT), (C, WAIT), (D, GET), (X, GET)):
        store.objects.on_fetch(wish(key, 7, priority), READER)
    store.objects.on_abort(Z, WRITER)
    order = []
    for _ in range(5):
        (came,) = arrive(store)
        order.append(came)
        store.objects.unpin(came, READER.process)
    assert order == [D, X, C, A, B]
    world.take(ObjectReady), world.take(ObjectAt)


def test_wanted_sooner(store: Store, world: World) -> None:
    """Goal: a get of what a waiting task needs too does not wait with the task, and is answered
    once. Method: a bundle waits; one of its objects is asked for again, with more urgency."""
    store.create(Z, 5)
    world.take(ObjectCreated)
    task(store, ONE, A, B)
    store.objects.on_fetch(wish(A, 5, GET), ONE)
    assert arrive(store) == [A]
    assert ready(world, ONE) == [A]
    store.objects.on_abort(Z, WRITER)
    assert arrive(store) == [B]
    assert ready(world, ONE) == [B]
    assert store.objects.table[A].pins == {ONE.process: 1}


def test_arguments_leave_room_for_results(store: Store, world: World) -> None:
    """Goal: arguments of several tasks hold at most 7 of 10 blocks, one task's may hold more, and
    a call to an actor, which may keep what it reads for good, is not counted.

    Method: tasks with 4 blocks each, a call among them; then one with 9."""
    for key, priority in ((A, ARGUMENT), (B, ARGUMENT)):
        store.objects.on_fetch(wish(key, 4, priority), READER)
    assert arrive(store) == [A]
    store.create(X, 3)
    assert world.one(ObjectCreated).offset >= 0
    store.objects.on_abort(X, WRITER)
    store.objects.unpin(A, READER.process)
    assert arrive(store) == [B]
    store.objects.unpin(B, READER.process)
    store.objects.on_fetch(wish(C, 4, CALL), READER)
    store.objects.on_fetch(wish(D, 4, ARGUMENT), READER)
    assert arrive(store) == [C, D]
    for key in (C, D):
        store.objects.unpin(key, READER.process)
    store.objects.on_fetch(wish(Y, 9, ARGUMENT), READER)
    assert arrive(store) == [Y]
    world.take(ObjectReady)


def test_the_share_bends(store: Store, world: World) -> None:
    """Goal: a task does not wait for ever on a share that nobody gives back: a function has kept
    its argument. Method: the room is there, the share is not; then time passes."""
    store.objects.on_fetch(wish(A, 4, ARGUMENT), ONE)
    arrive(store)
    store.objects.on_fetch(wish(B, 4, ARGUMENT), TWO)
    world.advance(BEND - 1)
    assert store.mover.claim() == []
    world.advance(1)
    assert arrive(store) == [B]
    assert (ready(world, ONE), ready(world, TWO)) == ([A], [B])


def test_a_creator_goes_first_if_it_waits(store: Store, world: World) -> None:
    """Goal: arguments do not take the room that the first creator in line waits for: its task holds
    arguments of its own until it has it.

    Method: a reader holds 6; a creator needs 5, a task 4, for which there is room now; then the
    reader ends, and there is room for both."""
    store.sealed(A, 6)
    store.fetch(A, 6, ME)
    ready(world, READER)
    store.create(X, 5)
    store.objects.on_fetch(wish(B, 4, ARGUMENT), ONE)
    assert store.mover.claim() == []
    store.objects.unpin(A, READER.process)
    assert store.mover.claim() == [("pull", B, OTHER), ("spill", A)]
    store.objects.spilled([A], [slot(A)], "")
    assert world.one(ObjectCreated).object == X


def test_a_reader_does_not_wait_for_a_creator(store: Store, world: World) -> None:
    """Goal: no circle of a creator that waits for a reader to end, and the reader, that wants one
    more value, behind it. Method: 6 blocks are read; a creator needs 5; the reader gets 2 more."""
    store.sealed(A, 6)
    store.fetch(A, 6, ME)
    store.create(X, 5)
    store.fetch(B, 2, OTHER)
    assert arrive(store) == [B]
    assert ready(world, READER) == [A, B]
    store.objects.unpin(A, READER.process)
    store.objects.unpin(B, READER.process)
    world.take(ObjectAt)
    store.spilled(A)
    assert world.one(ObjectCreated).offset >= 0


def test_who_waits_for_too_long_is_refused(store: Store, world: World) -> None:
    """Goal: waiting ends by name, and not while a task that runs holds arguments: it will end.

    Method: a task's argument is held, first by one that runs, then by one that is blocked."""
    runs = {ONE.process}
    store.objects.admission.runs = runs.__contains__
    store.objects.on_fetch(wish(A, 6, ARGUMENT), ONE)
    arrive(store)
    task(store, TWO, B, C)
    world.advance(10 * PATIENCE)
    assert world.take(ObjectMissing) == []
    runs.clear()
    world.advance(PATIENCE)
    refusals = world.take(ObjectMissing, TWO)
    assert [refusal.object for refusal in refusals] == [B, C]
    assert all(refusal.full for refusal in refusals)
    assert "no room for 640 bytes" in refusals[0].reason
    assert not store.objects.waiting()
    ready(world, ONE)


def test_arguments_that_no_store_holds(store: Store, world: World) -> None:
    """Goal: a task whose arguments are larger than the store is refused at once, with the sum."""
    task(store, ONE, A, B, C)
    refusals = world.take(ObjectMissing, ONE)
    assert [refusal.full for refusal in refusals] == [True] * 3
    assert "3 stored arguments of the task have 960 bytes together" in refusals[0].reason


def test_nobody_waits_in_line_for_nothing(store: Store, world: World) -> None:
    """Goal: a wish that is taken back, a reader and an owner that die, and a value that is freed
    leave the line, and those behind them go on.

    Method: one of each before a small fetch."""
    store.create(Z, 10)
    world.take(ObjectCreated)
    stranger = process("stranger")
    store.objects.on_fetch(wish(A, 10, GET), ONE)
    store.objects.on_fetch(wish(B, 10, GET), TWO)
    store.objects.on_fetch(wish(C, 10, GET), READER)
    store.objects.on_fetch(FetchObject(D, 64, stranger, [OTHER]), READER)
    store.fetch(X, 1, OTHER)
    store.objects.on_cancel_fetch(A, ONE)
    store.objects.process_lost(TWO.process)
    store.objects.on_free(C)
    store.objects.process_lost(stranger.process)
    assert [message.object for message in world.take(ObjectMissing, READER)] == [C, D]
    store.objects.on_abort(Z, WRITER)
    assert arrive(store) == [X]
    assert ready(world, READER) == [X]
    assert (store.objects.waiting(), store.objects.admission.waiting) == (0, {})


def test_what_is_promised_comes_back(store: Store, world: World) -> None:
    """Goal: room that was promised to a reader who leaves is there for the next, and a restored
    value is given back to the disk. Method: full of what has to be written first; the reader of a
    spilled value leaves before that is done."""
    store.on_disk(A, 6)
    store.sealed(B, 6)
    store.fetch(A, 6, ME)
    assert store.objects.spilling.promised == 6 * BLOCK
    store.objects.on_cancel_fetch(A, READER)
    store.spilled(B)
    assert (store.objects.spilling.promised, store.state(A)) == (0, "spilled")
    store.fetch(B, 6, ME)
    assert store.mover.claim() == [("restore", B, slot(B))]
    store.objects.restored(B, "")
    assert ready(world, READER) == [B]


# -- ahead of their tasks --------------------------------------------------------------------------


def ahead(store: Store, *keys: ObjectId, blocks: int = 3) -> None:
    """A task that has not begun will read these."""
    store.objects.on_fetch_ahead(FetchAhead([wish(key, blocks, ARGUMENT) for key in keys]))


def test_brought_ahead_of_its_task(store: Store, world: World) -> None:
    """Goal: what a task will read is here when it comes; nobody has it pinned, and of what can go
    it goes last: after a copy that was used later, and after a write.

    Method: x on disk is announced; a copy is used; a primary is made; creators want room."""
    store.on_disk(X, 3)
    ahead(store, X)
    assert arrive(store) == [X]
    assert (store.state(X), store.objects.table[X].pins) == ("sealed", {})
    store.copy(A, 3)
    store.sealed(B, 2)
    store.create(C, 3)
    assert [message.object for message in world.take(ObjectAt)] == [A]
    assert world.one(ObjectCreated).object == C
    store.create(D, 4)
    store.spilled(B)
    store.objects.on_abort(C, WRITER)
    assert world.one(ObjectCreated).object == D
    store.fetch(X, 3, ME)
    assert ready(world, READER) == [X]
    assert store.mover.claim() == []
    assert (store.objects.admission.expected, store.objects.admission.expected_bytes) == ({}, 0)


def test_it_goes_if_nothing_else_can(store: Store, world: World) -> None:
    """Goal: nobody waits for room that is kept for a task which may never come."""
    store.on_disk(X, 3)
    ahead(store, X)
    arrive(store)
    store.create(A, 10)
    assert world.one(ObjectCreated).object == A
    assert (store.state(X), store.objects.admission.expected_bytes) == ("spilled", 0)


def test_only_so_much_is_brought_ahead(store: Store, world: World) -> None:
    """Goal: three blocks of ten are kept for what will be read; what was announced first makes way
    for what was announced last, and is an ordinary copy then. Method: three of two blocks each."""
    for key in (A, B, C):
        ahead(store, key, blocks=2)
    assert arrive(store) == [A, B, C]
    assert list(store.objects.spilling.expected) == [C]
    assert list(store.objects.spilling.droppable) == [A, B]
    ahead(store, D, blocks=4)  # more than may be kept at all
    assert store.mover.claim() == []


def test_nothing_is_brought_ahead_of_those_who_wait(store: Store, world: World) -> None:
    """Goal: an announcement takes nothing from anyone: not while someone waits for room, not where
    all room is held, not what nobody has, and not where it is switched off."""
    store.create(Z, 8)
    world.take(ObjectCreated)
    ahead(store, A)
    store.objects.on_fetch(wish(B, 5, ARGUMENT), ONE)
    ahead(store, C, blocks=1)
    store.objects.on_cancel_fetch(B, ONE)
    store.objects.on_fetch_ahead(FetchAhead([FetchObject(D, BLOCK, OWNER, [ME], ARGUMENT)]))
    store.objects.admission.looks_ahead = False
    ahead(store, C, blocks=1)
    assert (store.mover.claim(), list(store.objects.table)) == ([], [Z])


def test_an_announced_value_is_freed(store: Store, world: World) -> None:
    """Goal: nothing is left of an announcement. Method: free before it is here, and after."""
    ahead(store, A, B, blocks=1)
    store.objects.on_free(A)
    assert arrive(store) == [A, B]
    store.objects.on_free(B)
    assert (store.objects.table, store.room.used) == ({}, 0)
    assert (store.objects.admission.expected, store.objects.admission.expected_bytes) == ({}, 0)
