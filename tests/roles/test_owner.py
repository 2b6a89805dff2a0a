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
from freehold.core.cancelling import GRACE
from freehold.core.entries import Entry
from freehold.core.hosting import Hosting
from freehold.core.leasing import ASK_AGAIN
from freehold.core.submission import PIPELINE_MICROS
from freehold.roles.executor import NO_JOB, Executor
from freehold.wire.actors import Creation as ActorCreation
from freehold.wire.fetches import GET
from freehold.wire.messages import (
    Address,
    Argument,
    AskGone,
    CancelFetch,
    CancelObject,
    CancelTask,
    CreateObject,
    FetchObject,
    FreeObjects,
    Gone,
    KeepObject,
    LeaseGranted,
    Locate,
    Located,
    Message,
    Missing,
    NodeChanged,
    ObjectAt,
    ObjectMissing,
    PushTask,
    Reference,
    RequestLease,
    ReturnLease,
    TaskReturned,
)

NODE, NEAR, FAR = node(), node("near"), node("far")
BORROWER, OWNER = process("borrower"), process("owner")
X = object_id("x")
X_LOST = failed(f"lost: {X}".encode())


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_unknown_message_is_not_ours(bench: Bench) -> None:
    """Goal: what is not for an owner goes to whoever runs it."""
    others: list[Message] = []
    bench.owner.unhandled = lambda message, peer: others.append(message)
    asked = RequestLease(lease(1), OWNER, bench.owner.job, {})
    bench.owner.handle(asked, OWNER)
    assert others == [asked]


def test_copies_come_and_go(bench: Bench, world: World) -> None:
    """Goal: the owner's value names every node that has it; with the last it is lost.

    Method: put on NEAR, copied to FAR; NEAR dies, so FAR is to keep the last copy; a reader does
    not find it there."""
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
    world.expect(
        (OWNER, Locate(X)),
        (NODE, FetchObject(object_id("y"), 100, OWNER, [NEAR], GET)),
        (NODE, CancelFetch(object_id("y"))),
    )


def executor(world: World, bench: Bench) -> Executor:
    made = Executor(world, bench.owner.errors, NODE, bench.owner.job)
    made.execution.interrupt = lambda run: None
    return made


@pytest.mark.parametrize("missed", [True, False])
def test_owner_of_an_argument_dies(bench: Bench, world: World, missed: bool) -> None:
    """Goal: a pushed task whose argument belongs to a third process that dies goes back to its
    owner once: it has to have the argument made again, and that may need our CPU.

    Method: the bytes are on their way; the owner dies, before or after our node found that nobody
    has them."""
    made = executor(world, bench)
    push = PushTask(bench.submit().id, 0, lease(1), bench.function("f").id, b"")
    world.take(RequestLease)
    push.deps = [Argument(Reference(X, OWNER), stored(100, NEAR))]
    made.handle(push, BORROWER)
    world.one(FetchObject)
    if missed:
        made.handle(ObjectMissing(X, "gone", [NEAR.node]), NODE)
    made.peer_lost(OWNER)
    assert world.take(CancelFetch) == ([] if missed else [CancelFetch(X)])
    tried = [NEAR.node] if missed else []
    world.expect((BORROWER, TaskReturned(push.task, 0, [Missing(X, tried)])))
    assert made.counts() == dict.fromkeys(made.counts(), 0)


def test_what_an_actor_returns_belongs_to_no_job(bench: Bench, world: World) -> None:
    """Goal: a caller's result stays when the actor's own job ends: the caller may be of another.
    Method: a worker of a plain task asks for room; then as the home of an actor, for its caller and
    for itself."""
    made = executor(world, bench)
    made.create(X, 100, OWNER, lambda: None)
    made.execution.hosting = Hosting(made.execution, ActorCreation(), BORROWER)
    made.create(X, 100, OWNER, lambda: None)
    made.create(X, 100, world.address, lambda: None)
    jobs = [message.job for message in world.take(CreateObject, NODE)]
    assert jobs == [made.job, NO_JOB, made.job]


def test_argument_lost_while_its_task_is_queued(bench: Bench, world: World) -> None:
    """Goal: the task fails with the loss; no worker is given an error in place of a value.

    Method: the only copy's node dies between the argument's arrival and the grant."""
    bench.owner.put(X, stored(100, NEAR))
    task = bench.submit(deps=[reference("x", world.address)])
    assert world.one(RequestLease, NEAR).lease == lease(1)
    bench.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")))
    world.advance(ASK_AGAIN)
    assert world.one(RequestLease, NODE).lease == lease(2)
    bench.grant(2)
    assert bench.pushed(2) == []
    value = bench.value(task)
    assert value is not None
    assert value.data.startswith(b"lost: ")


def lose(bench: Bench, name: str) -> None:
    """The only copy of a stored value goes with its node."""
    bench.owner.copy_gone(object_id(name), NEAR.node, "lost power", alive=False)


def test_argument_lost_at_an_idle_lease(bench: Bench, world: World) -> None:
    """Goal: a task whose argument goes while it is queued fails where it would be pushed, and takes
    its dependants along; those behind it and the lease are not held up.

    Method: one worker is busy; queued: one that needs x, one that needs that one, a plain one."""
    busy = bench.submit(micros=PIPELINE_MICROS)
    bench.grant(1)
    bench.owner.put(object_id("x"), stored(100, NEAR))
    x = reference("x", world.address)
    needs = bench.submit(deps=[x])
    after = bench.submit(deps=[reference("t2", world.address)])
    plain = bench.submit()
    assert bench.pushed(1) == [busy.id]
    requests = world.take(RequestLease)
    assert len(requests) == 3
    lose(bench, "x")
    at_near = [lease_id for lease_id, shape in bench.owner.leasing.asked.items() if shape.target]
    bench.say(LeaseGranted(at_near[0], worker(2), 1), NEAR)  # where x was
    assert bench.value(needs) == bench.value(after) == X_LOST
    assert bench.pushed(2) == []
    bench.done(busy, 1)
    assert bench.pushed(1) == [plain.id]
    bench.done(plain, 1)
    assert bench.owner.ownership.entries[object_id("x")].pins == 0
    bench.finished()


def test_retry_whose_argument_is_lost_is_not_pushed(bench: Bench, world: World) -> None:
    """Goal: a second attempt is not sent without its argument, also to a worker that is idle.

    Method: a task with x runs and is to be retried for its exception; x is lost meanwhile."""
    bench.owner.put(object_id("x"), stored(100, NEAR))
    task = bench.submit(deps=[reference("x", world.address)], retry_exceptions=b"*")
    bench.say(LeaseGranted(lease(1), worker(1), 1), NEAR)
    assert bench.pushed(1) == [task.id]
    lose(bench, "x")
    bench.done(task, 1, results=[failed(b"boom")], retry=True)
    assert bench.value(task) == X_LOST
    assert (bench.pushed(1), bench.asked()) == ([], 1)
    bench.finished()


def gone(address: Address) -> NodeChanged:
    return NodeChanged(info(address, {}, alive=False, reason="lost power"))


def test_each_lost_copy_leaves_a_primary(bench: Bench, world: World) -> None:
    """Goal: whoever has the last copy that we know of keeps it, however the others went.

    Method: three copies; one is evicted, one is not found by a reader; the last is lost."""
    third = node("third")
    bench.owner.put(X, stored(100, NEAR, FAR, third))
    bench.say(ObjectAt(X, NEAR, False), NEAR)
    world.expect((NEAR, FreeObjects([X])), (FAR, KeepObject(X)))
    bench.say(Locate(X, [FAR.node]), BORROWER)
    world.expect(
        (FAR, FreeObjects([X])),
        (third, KeepObject(X)),
        (BORROWER, Located(X, stored(100, third))),
    )
    bench.say(gone(third))
    world.expect()
    assert bench.owner.value(X).data.startswith(b"lost: ")


def test_owners_die_with_their_node(bench: Bench, world: World) -> None:
    """Goal: a get of what was owned on a dead node ends, also where no stream to the owner was.

    Method: three borrowed objects: two owners there, one elsewhere."""
    owners = {"x": process("a", "near"), "y": process("b", "near"), "z": process("c", "far")}
    for name, owner in owners.items():
        bench.owner.ownership.entries[object_id(name)] = Entry(object_id(name), owner)
        bench.owner.ownership.entries[object_id(name)].handles = 1
    gets = {name: bench.owner.get([object_id(name)], lambda: None) for name in owners}
    assert len(world.take(Locate)) == 3
    bench.say(gone(NEAR))
    assert [getting.done for getting in gets.values()] == [True, True, False]
    for name in "xy":
        error = gets[name].failed
        assert error is not None
        assert error.data.startswith(b"owner_died: ")


def test_cancel_goes_through_the_owner(bench: Bench, world: World) -> None:
    """Goal: a borrower's cancel is the owner's, with its flags; on what is done, freed or put it
    does nothing.

    Method: as a borrower, of a third process's object; as the owner, of one pushed task, one queued
    task, a put value and an unknown object."""
    entry = bench.owner.ownership.entries[X] = Entry(X, OWNER)
    entry.handles = 1
    bench.owner.cancel(X, force=True, recursive=False)
    world.expect((OWNER, CancelObject(X, True, False, GRACE)))

    (pushed,) = bench.running(1)
    queued = bench.submit(micros=1e6, function="g")
    bench.owner.put(object_id("p"), inline())
    for name in ("t1", "t2", "p", "unknown"):
        bench.say(CancelObject(object_id(name), False, True), BORROWER)
    assert bench.asked() == 1
    world.expect((worker(1), CancelTask(pushed.id, False, True)))
    assert (bench.value(queued), bench.value(pushed)) == (failed(b"cancelled: t2"), None)
    bench.done(pushed, 1)
    bench.say(CancelObject(object_id("t1"), True, True), BORROWER)
    assert bench.value(pushed) == inline()
    bench.finished()


@pytest.mark.parametrize("wanted", [True, False])
def test_result_whose_reference_is_lost(bench: Bench, world: World, wanted: bool) -> None:
    """Goal: a result with a reference that its worker could not hand over fails by name, and so
    does what depends on it; its stored bytes are freed. Nobody is left to wait.

    Method: worker 1 replies with a third process's reference and dies; the owner has not heard of
    it. The result may have been dropped before."""
    (task,) = bench.running(1)
    after = bench.submit("g", deps=[reference("t1", world.address)]) if wanted else None
    if not wanted:
        bench.drop(task)
    result = stored(100, NODE, contains=[reference("y", OWNER)])
    bench.done(task, 1, results=[result])
    freed = (NODE, FreeObjects([object_id("t1")]))
    world.expect(*([] if wanted else [freed]))
    bench.end(1)
    world.expect((OWNER, AskGone(worker(1).process)))
    bench.say(Gone(worker(1).process), OWNER)
    world.expect(*([freed] if wanted else []))
    if after is not None:
        assert bench.value(task) == bench.value(after)
        assert bench.value(task) == failed(f"handover_lost: {worker(1).process!r}".encode())
        bench.drop(task, after)
    assert bench.owner.ownership.entries == {}
    bench.finished()


def test_ask_gone_is_answered(bench: Bench, world: World) -> None:
    """Goal: the role passes the question on. Method: it is asked, loses the peer, answers."""
    bench.say(AskGone(OWNER.process), BORROWER)
    world.expect()
    bench.owner.peer_lost(OWNER)
    world.expect((BORROWER, Gone(OWNER.process)))


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
    """Goal: the task is retried elsewhere. Method: the push fails, so the peer is lost at once; its
    node, which says nothing, gets the lease back."""
    task = bench.submit(max_retries=1)
    bench.grant(1)
    bench.owner.peer_lost(worker(1))
    world.advance(10)
    assert task.attempt == 1
    assert world.take(ReturnLease, NODE) == [ReturnLease(lease(1))]
    bench.pushed(1), bench.asked()
