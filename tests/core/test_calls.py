"""Calls at a caller: order, at most once, retries, and where the actor is."""

from __future__ import annotations

import pytest

from core.owners import NEAR, NODE
from core.stage import Stage, place, worker
from core.world import World, failed, info, inline, object_id, process, stored, task_id
from freehold.core.entries import Entry
from freehold.core.streams import Stream, StreamCall
from freehold.ids import ObjectId, return_id
from freehold.wire.messages import (
    ActorLent,
    ActorRestarts,
    BorrowActor,
    Call,
    CancelTask,
    CloseStream,
    DefineFunction,
    EndActor,
    Locate,
    LocateActor,
    Located,
    NodeChanged,
    Reference,
    Release,
    RequestLease,
    ReturnLease,
    TaskDone,
    TaskReturned,
)

OWNER = process("owner")


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


def pending_value(stage: Stage) -> tuple[Reference, object]:
    """A value of ours that is not there yet, and its task."""
    task = stage.submit()
    stage.asked()
    return stage.owner.ownership.reference(return_id(task.id, 0)), task


def borrowed(stage: Stage) -> ObjectId:
    """An actor of another process, of which we hold a handle."""
    actor = object_id("theirs")
    entry = stage.owner.ownership.entries[actor] = Entry(actor, OWNER)
    entry.handles, entry.received = 1, 1
    return actor


def test_a_call_that_cannot_run_again_ends_nothing_else(stage: Stage, world: World) -> None:
    """Goal: an actor lives until the calls of it are done, whatever becomes of earlier ones.

    Method: a call's result and its argument, which was put, are lost with a node; another call
    goes on, and all handles are dropped."""
    actor = stage.living()
    stage.owner.put(object_id("x"), stored(100, NEAR))
    call = stage.call(actor, retries=3, deps=[stage.owner.ownership.reference(object_id("x"))])
    stage.answer(call, 1, stored(100, NEAR))
    other = stage.call(actor)
    assert stage.sent(1) == ["c1", "c2"]
    stage.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")), NODE)
    assert (stage.outcome(call) or b"").startswith(b"lost")
    stage.let_go(actor)
    assert world.take(EndActor) == []
    stage.answer(other, 1)
    assert len(world.take(EndActor, worker(1))) == 1


@pytest.mark.parametrize("found", [True, False])
def test_an_argument_is_lost_on_its_way_to_the_actor(
    stage: Stage, world: World, found: bool
) -> None:
    """Goal: the actor holds up what is behind such a call, so it hears when that will not come.

    Method: the call comes back; its argument is made again, or cannot be; what the actor is told,
    then and when the call is done."""
    actor = stage.living()
    stage.owner.put(object_id("x"), stored(100, NEAR))
    call = stage.call(actor, deps=[stage.owner.ownership.reference(object_id("x"))])
    behind = stage.call(actor)
    assert stage.sent(1) == ["c1", "c2"]
    entry = stage.entry_of(object_id("x"))
    entry.value = None
    stage.say(TaskReturned(call.id, 0), worker(1))
    assert stage.sent(1) == []
    stage.owner.ownership.resolve(entry, stored(100, NEAR) if found else failed(b"lost"))
    if found:
        assert stage.sent(1) == ["c1"]
        stage.answer(call, 1)
        assert world.take(CancelTask) == []
    else:
        assert stage.outcome(call) == b"lost"
        assert world.take(CancelTask, worker(1)) == [CancelTask(call.id, False, False)]
    stage.answer(behind, 1)
    assert stage.sent(1) == []


def test_all_are_pushed_at_once(stage: Stage) -> None:
    """Goal: no round trip per call. Method: three calls of a living actor leave without an answer;
    the answers come in, and nothing is left of them."""
    actor = stage.living()
    calls = [stage.call(actor) for _ in range(3)]
    assert stage.sent(1) == ["c1", "c2", "c3"]
    for call in calls:
        stage.answer(call, 1)
    assert [stage.outcome(call) for call in calls] == [b"value"] * 3
    assert stage.acting.calls.callees[actor].pending == 0


def test_the_order_is_that_of_submission(stage: Stage) -> None:
    """Goal: a call that waits for an argument holds up those behind it, of an ordered actor only.
    Method: the same three calls of each kind, the first with an argument that is late."""
    actor = stage.living()
    ref, maker = pending_value(stage)
    stage.call(actor, deps=[ref])
    stage.call(actor)
    assert stage.sent(1) == []
    stage.grant(2)
    stage.pushed(2)
    stage.done(maker, 2)  # type: ignore[arg-type]
    assert stage.sent(1) == ["c2", "c3"]
    stage.world.take(ReturnLease)


def test_those_of_a_concurrent_actor_pass_each_other(stage: Stage) -> None:
    """Goal: a call goes when its arguments are there. Method: the first waits, the second goes."""
    actor = stage.living()
    ref, maker = pending_value(stage)
    stage.call(actor, ordered=False, deps=[ref])
    stage.call(actor, ordered=False)
    assert stage.sent(1) == ["c3"]
    stage.grant(2)
    stage.pushed(2)
    stage.done(maker, 2)  # type: ignore[arg-type]
    assert stage.sent(1) == ["c2"]


def test_a_call_holds_the_actor(stage: Stage) -> None:
    """Goal: the last handle dropped ends the actor after its queued calls. Method: drop it with two
    calls on their way; the end is told after the second answer."""
    actor = stage.living()
    calls = [stage.call(actor) for _ in range(2)]
    stage.sent(1)
    stage.let_go(actor)
    stage.answer(calls[0], 1)
    assert stage.world.take(EndActor) == []
    stage.answer(calls[1], 1)
    assert stage.world.take(EndActor, worker(1)) == [EndActor()]


def test_at_most_once(stage: Stage) -> None:
    """Goal: a pushed call whose life has ended is not run again; it is unavailable if a restart
    follows. One that was not pushed waits for it. Method: one of each kind at the death."""
    actor = stage.living(restarts=1)
    pushed = stage.call(actor)
    ref, maker = pending_value(stage)
    waiting = stage.call(actor, deps=[ref])
    assert stage.sent(1) == ["c1"]
    stage.stream_ends(1)
    assert stage.outcome(pushed) is None  # nobody knows yet
    stage.reaped(1)
    assert stage.outcome(pushed) == b"actor_unavailable: c1"
    stage.world.take(RequestLease)
    stage.grant(2)
    stage.pushed(2)
    stage.done(maker, 2)  # type: ignore[arg-type]
    stage.grant(3)
    stage.made(stage.entry_of(actor).task.task, 3, 1)  # type: ignore[union-attr]
    assert stage.sent(3) == ["c3"]
    stage.answer(waiting, 3)
    assert stage.outcome(waiting) == b"value"
    stage.world.take(ReturnLease)


def test_a_closed_stream_of_a_dead_actor_is_not_called_again(stage: Stage) -> None:
    """Goal: nothing is made for nobody. Method: a call that streams and may be retried; its stream
    is closed, then the process of the actor dies; the next life is not called."""
    actor = stage.living(restarts=1)
    call = StreamCall(
        task_id("s"), stage.function("A", 1.0), b"", resources={}, name="s", max_retries=-1
    )
    call.actor, call.stream = Call("m"), Stream(call, 0)
    stage.named[call.id] = "s"
    stage.acting.calls.submit(call, stage.acting.calls.callee(actor, ordered=True))
    assert stage.sent(1) == ["s"]
    stage.owner.streams.close(call.stream)
    stage.world.one(CloseStream, worker(1))
    stage.stream_ends(1)
    stage.reaped(1)
    stage.world.one(RequestLease)
    assert call.id not in stage.owner.submission.tasks
    stage.grant(2)
    stage.made(stage.entry_of(actor).task.task, 2, 1)  # type: ignore[union-attr]
    assert stage.sent(2) == []


def test_who_was_interrupted_borrows_nothing(stage: Stage) -> None:
    """Goal: a process that looked an actor up by its name, and was interrupted before the owner's
    answer or just after it, is not counted for it in the end. Method: once each; the owner gets
    its count back."""
    actor = object_id("theirs")
    ref = Reference(actor, OWNER)
    for answered in (False, True):
        borrowing = stage.acting.borrow(ref, lambda: None)
        assert stage.world.one(BorrowActor, OWNER).object == actor
        if not answered:
            stage.acting.give_back(actor, borrowing)
        stage.say(ActorLent(actor, True), OWNER)
        if answered:
            stage.acting.give_back(actor, borrowing)
        assert actor not in stage.owner.ownership.entries
        (given,) = stage.world.take(Release, OWNER)
        assert given == Release(actor, 1)


def test_retries_come_first_and_in_order(stage: Stage) -> None:
    """Goal: calls that may run again do so before what was not pushed, in the old order, each as
    often as allowed. Method: three pushed calls, one answered; two deaths."""
    actor = stage.living(restarts=2)
    calls = [stage.call(actor, retries=1) for _ in range(3)]
    stage.sent(1)
    stage.answer(calls[0], 1)
    stage.stream_ends(1)
    late = stage.call(actor)
    stage.reaped(1)
    stage.world.one(RequestLease)
    stage.grant(2)
    stage.made(stage.entry_of(actor).task.task, 2, 1)  # type: ignore[union-attr]
    assert stage.sent(2) == ["c2", "c3", "c4"]
    stage.answer(calls[1], 1)  # (what the dead one still says is refused)
    assert stage.outcome(calls[1]) is None
    stage.stream_ends(2)
    stage.reaped(2)
    stage.world.advance(1.0)
    assert [stage.outcome(call) for call in (calls[1], calls[2], late)] == [
        b"actor_unavailable: c2",
        b"actor_unavailable: c3",
        b"actor_unavailable: c4",
    ]
    stage.world.take(RequestLease)


def test_none_waits_for_one_behind_it(stage: Stage) -> None:
    """Goal: calls that run again do so in the order of submission, whatever the order in which they
    were pushed last, for the later ones may need what the earlier ones return.

    Method: the result of the first call is lost while the second runs, so it is pushed after that;
    then the process dies with both."""
    actor = stage.living(restarts=1)
    first = stage.call(actor, retries=2, ordered=False)
    assert stage.sent(1) == ["c1"]
    stage.answer(first, 1, stored(100, NEAR))
    stage.call(actor, retries=2, ordered=False)
    stage.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")))
    assert stage.sent(1) == ["c2", "c1"]
    stage.stream_ends(1)
    queue = stage.acting.calls.callees[actor].queues[b""]
    assert [stage.named[call.id] for call in queue] == ["c1", "c2"]


def test_tasks_in_one_worker_do_not_hold_each_other_up(stage: Stage) -> None:
    """Goal: a call does not wait for one whose argument may depend on it. Method: in a worker, one
    task leaves a call behind that waits for a value; another task calls the same actor, twice; then
    the value comes. Nothing is left of the lines."""
    actor = stage.living()
    stage.acting.calls.by_task = True
    ref, maker = pending_value(stage)
    stage.call(actor, deps=[ref], parent="one")
    stage.call(actor, parent="one")
    stage.call(actor, parent="two")
    stage.call(actor, parent="two")
    assert stage.sent(1) == ["c4", "c5"]
    stage.grant(2)
    stage.pushed(2)
    stage.done(maker, 2)  # type: ignore[arg-type]
    assert stage.sent(1) == ["c2", "c3"]  # (c1 is the task that makes the value)
    assert stage.acting.calls.callees[actor].queues == {}


def test_an_argument_that_failed(stage: Stage) -> None:
    """Goal: the call fails under the argument's error, and those behind it go on. Method: an
    argument fails between two calls."""
    actor = stage.living()
    ref, maker = pending_value(stage)
    doomed = stage.call(actor, deps=[ref])
    stage.call(actor)
    stage.grant(2)
    stage.pushed(2)
    stage.done(maker, 2, results=[failed(b"KeyError")])  # type: ignore[arg-type]
    assert stage.outcome(doomed) == b"KeyError"
    assert stage.sent(1) == ["c3"]


def test_cancel(stage: Stage) -> None:
    """Goal: a call that waits never goes and does not hold up others; one that was pushed is told.
    Method: cancel one of each."""
    actor = stage.living()
    ref, _ = pending_value(stage)
    waiting = stage.call(actor, deps=[ref])
    stage.owner.cancel_task(waiting, force=False, recursive=False)
    assert stage.outcome(waiting) == b"cancelled: c2"
    pushed = stage.call(actor)
    assert stage.sent(1) == ["c3"]
    stage.owner.cancel_task(pushed, force=False, recursive=False)
    assert stage.world.one(CancelTask, worker(1)).task == pushed.id


def test_an_actor_of_another(stage: Stage) -> None:
    """Goal: a borrower asks its owner for the place, calls it there, and after its end for the
    next,
    naming the one that has ended. Method: two lives, as a borrower sees them."""
    actor = borrowed(stage)
    call = stage.call(actor)
    stage.world.expect((OWNER, Locate(actor)))
    stage.say(Located(actor, place(1)), OWNER)
    assert stage.sent(1) == ["c1"]
    stage.stream_ends(1)
    stage.world.expect((OWNER, LocateActor(actor, worker(1).process)))
    stage.say(ActorRestarts(actor), OWNER)
    assert stage.outcome(call) == b"actor_unavailable: c1"
    later = stage.call(actor)
    stage.say(Located(actor, place(2, 1)), OWNER)
    assert stage.sent(2) == ["c2"]
    stage.answer(later, 2)
    stage.drop(call, later)
    stage.let_go(actor)
    stage.world.expect((OWNER, Release(actor, 1)))
    stage.empty()


def test_it_lives_but_cannot_be_reached(stage: Stage) -> None:
    """Goal: calls end with an error that says so, instead of going round. Method: the owner says
    that the life goes on whose stream has ended here; the next call asks once more."""
    actor = borrowed(stage)
    call = stage.call(actor)
    stage.world.one(Locate)
    stage.say(Located(actor, place(1)), OWNER)
    stage.sent(1)
    stage.stream_ends(1)
    stage.world.one(LocateActor)
    stage.say(Located(actor, place(1)), OWNER)
    assert stage.outcome(call) == b"actor_unavailable: c1"
    stage.call(actor)
    stage.world.one(LocateActor)


def test_its_owner_dies(stage: Stage) -> None:
    """Goal: an actor ends with its creator, and callers are told. Method: the owner's stream ends
    before and after the actor's own."""
    actor = borrowed(stage)
    call = stage.call(actor)
    stage.world.one(Locate)
    stage.say(Located(actor, place(1)), OWNER)
    stage.sent(1)
    stage.owner.peer_lost(OWNER)
    assert stage.outcome(call) is None  # its result may still come
    stage.stream_ends(1)
    assert stage.outcome(call) == b"actor_ended: c1"
    assert stage.outcome(stage.call(actor)) == b"actor_ended: c2"


def test_a_result_that_holds_the_actor(stage: Stage) -> None:
    """Goal: a method may return a handle of its own actor. Method: the last handle is dropped while
    such a call runs; the actor lives on in the result."""
    actor = stage.living()
    call = stage.call(actor)
    stage.sent(1)
    stage.let_go(actor)
    ref = stage.owner.ownership.reference(actor)
    stage.owner.ownership.hand_out(ref, worker(1))  # (it came to the actor in an argument)
    stage.answer(call, 1, inline(b"me", ref))
    stage.say(Release(actor, 1), worker(1))
    assert stage.world.take(EndActor) == []
    stage.drop(call)
    assert stage.world.take(EndActor, worker(1)) == [EndActor()]
    stage.world.take(DefineFunction)


def test_what_cannot_run_again_says_so_each_time(stage: Stage) -> None:
    """Goal: nothing that is asked for twice raises. Method: a call whose run has left children at
    its worker, and whose actor nobody holds any more, is claimed and claimed again."""
    actor = stage.living()
    call = stage.call(actor, retries=3)
    assert stage.sent(1) == ["c1"]
    stage.say(TaskDone(call.id, 0, [inline()], 10, children=True), worker(1))
    stage.let_go(actor)
    stage.world.one(EndActor)
    stage.stream_ends(1)
    stage.reaped(1)
    for _ in range(2):
        stage.owner.lineage.run_again(call)
        assert call.id in stage.owner.lineage.tasks
    assert stage.sent(1) == []
