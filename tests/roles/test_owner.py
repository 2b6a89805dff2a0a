"""The owner role: facts that travel between its machines, and what other processes tell it."""

from __future__ import annotations

import pytest

from core.owners import Bench, worker
from core.world import (
    World,
    failed,
    info,
    inline,
    lease,
    node,
    object_id,
    process,
    reference,
    stored,
)
from freehold.core.ownership import Entry
from freehold.roles.executor import Executor
from freehold.wire.messages import (
    Argument,
    FetchObject,
    FreeObjects,
    KeepObject,
    Locate,
    Located,
    NodeChanged,
    ObjectAt,
    ObjectMissing,
    PushTask,
    Reference,
    RequestLease,
    TaskDone,
)

NODE, NEAR, FAR = node(), node("near"), node("far")
BORROWER, OWNER = process("borrower"), process("owner")
X = object_id("x")


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_unknown_message_is_not_ours(bench: Bench) -> None:
    """Goal: the caller learns that it must look elsewhere."""
    assert not bench.owner.handle(RequestLease(lease(1), OWNER, bench.owner.job, {}), OWNER)


def test_copies_come_and_go(bench: Bench, world: World) -> None:
    """Goal: the owner's value names every node that has it; with the last it is lost.

    Method: put on NEAR, copied to FAR; NEAR dies, so FAR is to keep the last copy; a reader does not
    find it on FAR."""
    bench.owner.put(X, stored(100, NEAR))
    bench.say(ObjectAt(X, FAR, True), FAR)
    bench.say(ObjectAt(X, FAR, True), FAR)
    value = bench.owner.value(X)
    assert value.nodes == [NEAR, FAR]
    gone = info(NEAR, {}, alive=False, reason="lost power")
    bench.say(NodeChanged(gone))
    assert value.nodes == [FAR]
    world.expect((FAR, KeepObject(X)))
    bench.say(Locate(X, [FAR.node]), BORROWER)
    assert world.take(FreeObjects, FAR) == [FreeObjects([X])]
    told = world.one(Located, BORROWER)
    assert told.value.kind == failed().kind
    assert told.value.data.startswith(b"lost: ")


def test_copy_that_comes_after_the_free_is_freed(bench: Bench, world: World) -> None:
    """Goal: no copy is left behind. Method: freed while a node was pulling it."""
    bench.owner.put(X, stored(100, NEAR))
    bench.owner.ownership.drop_handle(X)
    bench.say(ObjectAt(X, FAR, True), FAR)
    world.expect((NEAR, FreeObjects([X])), (FAR, FreeObjects([X])))


def test_locate_of_what_is_freed(bench: Bench, world: World) -> None:
    """Goal: an answer, not silence."""
    bench.say(Locate(X), BORROWER)
    assert world.one(Located, BORROWER).value.data.startswith(b"lost: ")


def test_missing_here_is_asked_of_the_owner(bench: Bench, world: World) -> None:
    """Goal: a get of a borrowed value follows it to where it is now.

    Method: our node finds nothing on NEAR; the owner says FAR."""
    entry = bench.owner.ownership.entries[X] = Entry(X, OWNER)
    entry.handles, entry.value = 1, stored(100, NEAR)
    getting = bench.owner.get([X], lambda: None)
    bench.say(ObjectMissing(X, "gone", [NEAR.node]))
    bench.say(Located(X, stored(100, FAR)), OWNER)
    assert [message.nodes for message in world.take(FetchObject)] == [[NEAR], [FAR]]
    assert world.take(Locate, OWNER) == [Locate(X, [NEAR.node])]
    assert not getting.done


def test_owner_dies_under_a_get(bench: Bench, world: World) -> None:
    """Goal: a waiting get ends with the owner's death, whether it waited for the value or its
    bytes."""
    for name, value in (("x", None), ("y", stored(100, NEAR))):
        entry = bench.owner.ownership.entries[object_id(name)] = Entry(object_id(name), OWNER)
        entry.handles, entry.value = 1, value
    gets = [bench.owner.get([object_id(name)], lambda: None) for name in "xy"]
    bench.owner.peer_lost(OWNER)
    for getting in gets:
        assert getting.done
        assert getting.failed is not None
        assert getting.failed.data.startswith(b"owner_died: ")
    world.take(FetchObject), world.take(Locate)


def executor(world: World, bench: Bench) -> Executor:
    made = Executor(world, bench.owner.errors, NODE, bench.owner.job)
    made.execution.interrupt = lambda run: None
    return made


def test_owner_of_an_argument_dies(bench: Bench, world: World) -> None:
    """Goal: a pushed task whose argument belongs to a third process that dies is answered.

    Method: the bytes are on their way; our node finds them nowhere, and the owner is gone."""
    made = executor(world, bench)
    push = PushTask(bench.submit().id, 0, lease(1), bench.function("f").id, b"")
    world.take(RequestLease)
    push.deps = [Argument(Reference(X, OWNER), stored(100, NEAR))]
    made.handle(push, BORROWER)
    made.handle(ObjectMissing(X, "gone", [NEAR.node]), NODE)
    world.take(FetchObject), world.take(Locate)
    made.peer_lost(OWNER)
    done = world.one(TaskDone, BORROWER)
    assert done.results[0].data.startswith(b"owner_died: ")


def test_argument_lost_while_its_task_is_queued(bench: Bench, world: World) -> None:
    """Goal: the task fails with the loss; no worker is given an error in place of a value.

    Method: the only copy's node dies between the argument's arrival and the grant."""
    bench.owner.put(X, stored(100, NEAR))
    task = bench.submit(deps=[reference("x", world.address)])
    assert world.one(RequestLease, NEAR).lease == lease(1)
    bench.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")))
    assert world.one(RequestLease, NODE).lease == lease(2)
    bench.grant(2)
    assert bench.pushed(2) == []
    value = bench.value(task)
    assert value is not None
    assert value.data.startswith(b"lost: ")


def test_borrower_dies(bench: Bench, world: World) -> None:
    """Goal: what only it held is freed, also what it was told of and never saw.

    Method: a put value with a reference inside is located by a borrower, which dies."""
    bench.owner.put(object_id("y"), inline())
    bench.owner.put(X, inline(b"x", reference("y", world.address)))
    bench.owner.ownership.hand_out(reference("x", world.address), BORROWER)
    bench.say(Locate(X), BORROWER)
    world.one(Located, BORROWER)
    for name in "xy":
        bench.owner.ownership.drop_handle(object_id(name))
    assert len(bench.owner.ownership.entries) == 2
    bench.owner.peer_lost(BORROWER)
    assert bench.owner.ownership.entries == {}


def test_grant_of_a_worker_that_cannot_be_reached(bench: Bench, world: World) -> None:
    """Goal: the task is retried elsewhere. Method: the push fails, so the peer is lost at once."""
    task = bench.submit(max_retries=1)
    bench.grant(1)
    bench.owner.peer_lost(worker(1))
    world.advance(10)
    assert task.attempt == 1
    bench.pushed(1), bench.asked()
