"""Actors at their creator: made, restarted, killed, ended; never two lives at once."""

from __future__ import annotations

import pytest

from core.owners import NEAR
from core.stage import NODE, Stage, place, worker
from core.world import World, failed, info, inline, lease, process
from freehold.core.actors import END_SECONDS, STILL_THERE
from freehold.core.leasing import REPORT_PATIENCE
from freehold.core.submission import Task
from freehold.ids import return_id
from freehold.wire.messages import (
    ActorExited,
    ActorRestarts,
    Creation,
    DefineFunction,
    EndActor,
    KillLease,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    Locate,
    LocateActor,
    Located,
    NodeChanged,
    PushTask,
    RequestLease,
    ReturnLease,
)

CALLER = process("caller")


@pytest.fixture
def stage(world: World) -> Stage:
    return Stage(world)


def test_the_life_of_an_actor(stage: Stage) -> None:
    """Goal: an actor is an object whose value is its place, with a lease for life; when its last
    handle goes its worker is told to end it, and all is forgotten when that is reaped. Method: one
    life, message by message."""
    task = stage.create()
    request = stage.world.one(RequestLease)
    assert (request.lease, request.label) == (lease(1), "a1")
    stage.grant(1)
    assert stage.world.one(PushTask).actor == Creation()
    stage.world.one(DefineFunction)
    actor = return_id(task.id, 0)
    stage.answer(task, 1, place(1))
    assert stage.entry_of(actor).value == place(1)
    stage.let_go(actor)
    assert stage.world.take(EndActor, worker(1)) == [EndActor()]
    stage.stream_ends(1)
    stage.reaped(1)
    stage.empty()


def test_the_constructor_runs_though_nobody_waits(stage: Stage) -> None:
    """Goal: the creation itself holds the actor. Method: the handle goes before a worker is there;
    the constructor is pushed, and the actor ended when it has run."""
    task = stage.create()
    stage.let_go(return_id(task.id, 0))
    stage.world.one(RequestLease)
    stage.grant(1)
    stage.made(task, 1)
    assert stage.world.take(EndActor, worker(1)) == [EndActor()]
    stage.stream_ends(1)
    stage.reaped(1)
    stage.empty()


def test_one_that_does_not_end_is_killed(stage: Stage) -> None:
    """Goal: a shutdown hook that hangs costs END_SECONDS. Method: the worker stays silent."""
    stage.let_go(stage.living())
    stage.world.one(EndActor)
    stage.world.advance(END_SECONDS - 1)
    assert stage.world.take(KillLease) == []
    stage.world.advance(2)
    assert stage.world.take(KillLease, NODE) == [KillLease(lease(1))]
    stage.stream_ends(1)
    stage.reaped(1)
    stage.empty()


@pytest.mark.parametrize("first", ["stream", "reaped"])
def test_the_next_life_waits_for_both_signs(stage: Stage, first: str) -> None:
    """Goal: no second life before the process of the first is reaped and its last words are read.
    Method: the two signs in either order; a lease is asked for only after the second."""
    actor = stage.living(restarts=1)
    signs = [lambda: stage.stream_ends(1), lambda: stage.reaped(1)]
    for sign in signs if first == "stream" else reversed(signs):
        assert stage.world.take(RequestLease) == []
        sign()
    assert stage.world.one(RequestLease).lease == lease(2)
    assert stage.entry_of(actor).value is None
    stage.grant(2)
    (push,) = stage.world.take(PushTask, worker(2))
    assert (push.attempt, push.actor) == (1, Creation(life=1))
    stage.answer(stage.entry_of(actor).task.task, 2, place(2, 1))  # type: ignore[union-attr]
    assert stage.entry_of(actor).value == place(2, 1)
    stage.world.take(DefineFunction)
    stage.world.advance(2 * REPORT_PATIENCE)
    assert stage.world.take(KillLease) == []


def test_a_lost_connection_is_made_a_death(stage: Stage) -> None:
    """Goal: an actor that cannot be reached, and whose node says nothing, is killed before it is
    made
    again: two could live otherwise. Method: only the stream ends."""
    stage.living(restarts=1)
    stage.stream_ends(1)
    stage.world.advance(REPORT_PATIENCE + 0.1)
    assert stage.world.take(KillLease, NODE) == [KillLease(lease(1))]
    assert stage.world.take(RequestLease) == []
    stage.reaped(1)
    stage.world.one(RequestLease)


def test_no_restart_is_left(stage: Stage) -> None:
    """Goal: after the last restart the actor is dead, and its calls say of what. Method: one
    restart, two deaths; a call that waited fails too, and a later one at once."""
    actor = stage.living(restarts=1)
    stage.stream_ends(1)
    stage.reaped(1)
    stage.world.one(RequestLease)
    waiting = stage.call(actor)
    stage.grant(2)
    stage.pushed(2)
    stage.stream_ends(2)
    stage.reaped(2)
    assert stage.outcome(waiting) == b"actor_failed: c1"
    assert stage.entry_of(actor).value == failed(b"actor_died: a1")
    assert stage.outcome(stage.call(actor)) == b"actor_failed: c2"


def test_short_lives_make_pauses(stage: Stage) -> None:
    """Goal: a constructor that crashes for ever does not fork for ever as fast as it can. Method:
    three deaths in a row with no time between; the third life waits."""
    stage.living(restarts=-1)
    for number in (1, 2):
        stage.stream_ends(number)
        stage.reaped(number)
        if number == 1:
            stage.world.one(RequestLease)
            stage.grant(2)
            stage.pushed(2)
    assert stage.world.take(RequestLease) == []
    stage.world.advance(1.0)
    stage.world.one(RequestLease)


def test_a_constructor_that_raises(stage: Stage) -> None:
    """Goal: an exception is no accident: no restart, and calls have it as their cause. Method: a
    failed creation with restarts left; the process ends by itself."""
    task = stage.create(restarts=5)
    stage.world.one(RequestLease)
    actor = return_id(task.id, 0)
    call = stage.call(actor)
    stage.grant(1)
    stage.pushed(1)
    stage.answer(task, 1, failed(b"ValueError"))
    assert stage.outcome(call) == b"actor_failed: c1"
    stage.stream_ends(1)
    stage.reaped(1)
    assert stage.world.take(RequestLease) == []
    stage.let_go(actor)
    stage.drop(call)
    stage.empty()


def test_kill(stage: Stage) -> None:
    """Goal: a killed actor is dead at once for its callers, and its process killed by its node.
    Method: kill it with a call pushed and a restart left; nothing is made again."""
    actor = stage.living(restarts=1)
    pushed = stage.call(actor)
    assert stage.sent(1) == ["c1"]
    stage.acting.kill(actor, restart=False)
    assert stage.world.take(KillLease, NODE) == [KillLease(lease(1))]
    assert stage.outcome(stage.call(actor)) == b"actor_failed: c2"
    assert stage.outcome(pushed) is None  # its result may be on its way
    stage.stream_ends(1)
    assert stage.outcome(pushed) == b"actor_failed: c1"
    stage.reaped(1)
    assert stage.world.take(RequestLease) == []


def test_kill_one_life(stage: Stage) -> None:
    """Goal: with ``restart`` the next life begins as after any death. Method: kill, then the two
    signs."""
    actor = stage.living(restarts=1)
    stage.acting.kill(actor, restart=True)
    assert stage.world.take(KillLease, NODE) == [KillLease(lease(1))]
    stage.stream_ends(1)
    stage.reaped(1)
    assert stage.world.one(RequestLease).lease == lease(2)


def test_kill_before_there_is_a_worker(stage: Stage) -> None:
    """Goal: the request goes back, and a grant that crosses it is returned by its node's rules.
    Method: kill, then the late grant."""
    task = stage.create()
    stage.world.one(RequestLease)
    stage.acting.kill(return_id(task.id, 0), restart=False)
    assert stage.world.take(ReturnLease, NODE) == [ReturnLease(lease(1))]
    stage.grant(1)
    assert stage.world.take(PushTask) == []
    stage.let_go(return_id(task.id, 0))
    stage.empty()


def test_exit_is_no_accident(stage: Stage) -> None:
    """Goal: an actor that ends itself is not made again. Method: it says so, then its process
    ends."""
    actor = stage.living(restarts=-1)
    stage.say(ActorExited(), worker(1))
    stage.stream_ends(1)
    stage.reaped(1)
    assert stage.world.take(RequestLease) == []
    assert stage.entry_of(actor).value == failed(b"actor_ended: a1")


def test_nobody_can_place_it(stage: Stage) -> None:
    """Goal: a refusal is the actor's end. Method: the node refuses."""
    task = stage.create()
    stage.world.one(RequestLease)
    stage.say(LeaseRefused(lease(1), "too big"))
    assert stage.entry_of(return_id(task.id, 0)).value == failed(b"unschedulable: a1")


def made_near(stage: Stage) -> Task:
    """An actor with a restart, whose constructor was pushed to a worker of another node."""
    task = stage.create(restarts=1)
    stage.world.one(RequestLease)
    stage.say(LeaseRedirected(lease(1), NEAR, 1))
    assert stage.world.take(RequestLease, NEAR)[0].hops == 1
    stage.say(LeaseGranted(lease(1), process("w1", "near"), 7), NEAR)
    stage.world.take(PushTask)
    stage.world.take(DefineFunction)
    return task


def test_its_node_dies(stage: Stage) -> None:
    """Goal: a node that is declared dead is fenced, so that the next life may begin without a word
    from it. Method: the node goes; a lease is asked for elsewhere."""
    task = made_near(stage)
    stage.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")))
    assert stage.world.fenced == [NEAR.node]
    assert stage.world.one(RequestLease, NODE).lease == lease(2)
    assert task.attempt == 1


@pytest.mark.parametrize("first", ["node", "worker"])
def test_it_ends_with_its_node(stage: Stage, first: str) -> None:
    """Goal: the end of a node's stream is not yet that of its actors, which end a moment later.
    Method: both streams end, in either order; the next life is asked for after the second."""
    task = made_near(stage)
    ends = [NEAR, process("w1", "near")]
    for gone in ends if first == "node" else reversed(ends):
        stage.world.nothing_left()
        stage.owner.peer_lost(gone)
    assert stage.world.one(RequestLease, NODE).lease == lease(2)
    assert task.attempt == 1


def test_its_arguments_are_kept_for_the_next_life(stage: Stage) -> None:
    """Goal: a restart has the same arguments, held as those of any task that may run again, and let
    go with the actor. Method: an actor made from a value whose handle is dropped."""
    value = stage.submit()
    stage.asked()
    stage.grant(1)
    stage.pushed(1)
    stage.done(value, 1, results=[inline(b"v")])
    ref = stage.owner.ownership.reference(return_id(value.id, 0))
    stage.world.take(ReturnLease)
    task = stage.create(restarts=1, deps=[ref])
    stage.world.one(RequestLease)
    stage.drop(value)
    stage.grant(2)
    stage.made(task, 2)
    stage.stream_ends(2)
    stage.reaped(2)
    stage.world.one(RequestLease)
    stage.grant(3)
    (push,) = stage.world.take(PushTask, worker(3))
    assert push.deps[0].value == inline(b"v")
    stage.answer(task, 3, place(3, 1))
    stage.let_go(return_id(task.id, 0))
    stage.world.one(EndActor)
    assert ref.object not in stage.owner.ownership.entries
    stage.world.take(DefineFunction)
    stage.world.take(ReturnLease)


def test_the_next_life_lets_other_actors_be(stage: Stage) -> None:
    """Goal: an actor that is not made yet is no lost value. Method: an actor whose constructor was
    given the handle of one that waits for a worker dies and is made again; the other waits on."""
    waiting = stage.create()
    stage.world.one(RequestLease)
    actor = return_id(waiting.id, 0)
    handle = stage.owner.ownership.reference(actor)
    task = stage.task("a2", Creation(), max_retries=-1, borrowed=[handle])
    stage.acting.create(task, 1)
    stage.world.one(RequestLease)
    stage.grant(2)
    stage.made(task, 2)
    stage.stream_ends(2)
    stage.reaped(2)
    assert stage.world.one(RequestLease).label == "a2"
    assert stage.entry_of(actor).value is None
    stage.grant(1)
    stage.made(waiting, 1)
    assert stage.entry_of(actor).value == place(1)


def test_who_asks_for_the_next_life(stage: Stage) -> None:
    """Goal: a caller that has seen a life end is told of the restart at once and of the next place
    when there is one; one that asks about a life that goes on is told so after a while. Method: the
    same question before and after the owner has noticed."""
    actor = stage.living(restarts=1)
    stage.owner.ownership.entries[actor].holders = {CALLER.process: 1}
    stage.say(LocateActor(actor, worker(1).process), CALLER)
    stage.world.expect()
    stage.stream_ends(1)
    stage.reaped(1)
    assert stage.world.take(ActorRestarts, CALLER) == [ActorRestarts(actor)]
    stage.world.one(RequestLease)
    stage.grant(2)
    stage.made(stage.entry_of(actor).task.task, 2, 1)  # type: ignore[union-attr]
    assert stage.world.take(Located, CALLER) == [Located(actor, place(2, 1))]
    stage.say(LocateActor(actor, worker(1).process), CALLER)  # of an older life: told at once
    assert stage.world.take(Located, CALLER) == [Located(actor, place(2, 1))]
    stage.say(LocateActor(actor, worker(2).process), CALLER)
    stage.world.advance(STILL_THERE + 0.1)
    assert stage.world.take(Located, CALLER) == [Located(actor, place(2, 1))]
    stage.say(Locate(actor), CALLER)
    assert stage.world.take(Located, CALLER) == [Located(actor, place(2, 1))]
