"""A dead owner's values come back, one event at a time: what the holder, the submitter and the
runner do. The other processes are played by the test. All orders of small programs:
test_afterlife.py.
"""

from __future__ import annotations

import pytest

from core.hand import BOSS, CHIEF, CHILD, DEAD, MADE, NEXT, OLD, THIRD, Hand, claim, named
from core.owners import worker
from core.world import World, failed, inline, lease, object_id, task_id
from freehold.core.lineage import CLAIM_SECONDS
from freehold.core.rebirth import NOBODY
from freehold.core.submission import Task
from freehold.ids import FunctionId, TaskId, return_id
from freehold.wire.messages import (
    Address,
    Argument,
    CancelTask,
    ChildrenGone,
    Claim,
    Claimed,
    ClaimFrom,
    ClaimObject,
    FreeObjects,
    LeaseGranted,
    Link,
    Locate,
    Located,
    PushTask,
    Reborn,
    Reference,
    Release,
    TaskDone,
    TaskReturned,
    Unclaimed,
    Value,
)
from freehold.wire.records import LONGEST_LINE

# -- the submitter --------------------------------------------------------------------------------


def children_at(hand: Hand, **options: object) -> tuple[Task, int]:
    """A task of ours that is done, and has children at its worker, named by its number."""
    task = hand.submit(**options)  # type: ignore[arg-type]
    number = hand.taken(task)
    hand.done(task, number, results=[inline()], children=True)
    return task, number


def on(task: Task, holder: Address = THIRD, dead: int = 1) -> Claim:
    """A claim on what a run of the task has made at a worker."""
    return Claim(OLD, holder, worker(dead).process, [task.id])


def test_two_holders_one_run(hand: Hand, world: World) -> None:
    """Goal: the task runs again once, with all claims on it; each holder is told where its lies.

    Method: two holders claim, one of them twice; then a third, when it has been pushed."""
    task, number = children_at(hand)
    hand.end(number)
    world.sent.clear()
    claims = [on(task, THIRD), on(task, NEXT)]
    for one in (*claims, claims[0]):
        hand.say(ClaimObject(one), one.holder)
    waits = [(one.holder, Claimed(OLD, hand.me)) for one in (*claims, claims[0])]
    assert [sent for sent in world.sent if isinstance(sent[1], Claimed)] == waits
    world.take(Claimed), hand.asked()
    hand.grant(2)
    push = world.one(PushTask)
    assert (push.task, push.attempt, push.claims) == (task.id, 1, claims)
    assert [(to, m) for to, m in world.sent if isinstance(m, Claimed)] == [
        (THIRD, Claimed(OLD, worker(2))),
        (NEXT, Claimed(OLD, worker(2))),
    ]
    world.sent.clear()
    late = on(task, BOSS)
    hand.say(ClaimObject(late), BOSS)
    world.expect(
        (BOSS, Claimed(OLD, hand.me)),
        (BOSS, Claimed(OLD, worker(2))),
        (worker(2), ClaimFrom(task.id, late)),
    )
    hand.done(task, 2, results=[inline()])
    world.expect()
    hand.drop(task)
    hand.rest()


def test_claim_on_a_run_that_is_over_elsewhere(hand: Hand, world: World) -> None:
    """Goal: if a later run is done, and its worker lives, the claim goes there; only if that has
    dropped the object already does the task run again, and each run counts as a retry.

    Method: the worker sends the claim back, naming itself as the dead owner."""
    task, number = children_at(hand, max_retries=1)
    stale = on(task, dead=9)
    hand.say(ClaimObject(stale), THIRD)
    assert world.take(Claimed) == [Claimed(OLD, worker(number))]
    assert world.take(ClaimFrom, worker(number)) == [ClaimFrom(task.id, stale)]
    assert task.attempt == 0
    hand.say(ClaimObject(on(task)), worker(number))
    assert (task.attempt, task.used_retries) == (1, 1)
    number = hand.taken(task)
    assert [message.at for message in world.take(Claimed, THIRD)] == [hand.me, worker(number)]
    hand.done(task, number, results=[inline()], children=True)
    hand.say(ClaimObject(on(task, dead=number)), worker(number))
    assert world.one(Unclaimed, THIRD).reason == "and its task t1() has used its 1 retries"
    hand.drop(task)
    hand.say(ChildrenGone(task.id), worker(number))
    hand.nothing_left()


def test_claim_while_the_task_waits(hand: Hand, world: World) -> None:
    """Goal: a task that waits or is queued takes the claim along when it goes.

    Method: a first run at a worker that died; the second waits for a grant."""
    task = hand.submit()
    hand.taken(task)
    hand.end(1)
    assert task.attempt == 1
    hand.say(ClaimObject(on(task)), THIRD)
    number, push = hand.push_of(task)
    assert push.claims == [on(task)]
    assert [one.at for one in world.take(Claimed, THIRD)] == [hand.me, worker(number)]
    hand.done(task, number)
    hand.rest()


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (inline(), "and running t1() again took another path, which did not make it"),
        (failed(), "and running t1() again has failed"),
    ],
)
def test_run_took_another_path(hand: Hand, world: World, result: Value, reason: str) -> None:
    """Goal: what the run did not make is refused by name, and only that; the reason tells a run
    that has failed from one that went another way.

    Method: two objects claimed; one is reported as not made."""
    task, number = children_at(hand)
    hand.end(number)
    other = Claim(named("y", "first"), NEXT, worker(number).process, [task.id])
    for one in (on(task), other):
        hand.say(ClaimObject(one), one.holder)
    number = hand.taken(task)
    world.sent.clear()
    hand.done(task, number, results=[result], unclaimed=[other.object])
    world.expect((NEXT, Unclaimed(other.object, reason)))
    hand.drop(task)
    hand.rest()


def test_run_fails(hand: Hand, world: World) -> None:
    """Goal: a run that raises and may be retried keeps the claims that it has not answered; when no
    retry is left they are refused.

    Method: the re-run raises, is tried once more, and its worker dies."""
    task, number = children_at(hand, max_retries=2, retry_exceptions=b"*")
    hand.end(number)
    hand.say(ClaimObject(on(task)), THIRD)
    number = hand.taken(task)
    hand.done(task, number, results=[failed(b"boom")], retry=True, unclaimed=[OLD])
    assert world.take(Unclaimed) == []
    number = hand.taken(task)
    assert (task.attempt, task.used_retries) == (2, 2)
    hand.end(number)
    reason = "and running t1() again has failed"
    assert world.take(Unclaimed, THIRD) == [Unclaimed(OLD, reason)]
    hand.drop(task)
    world.sent.clear()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_retries": 0}, "and the task that made it, t1(), may not run twice (max_retries=0)"),
        ({}, "and how to make it again is forgotten: nobody had asked for it in time"),
    ],
)
def test_claims_that_are_refused(
    hand: Hand, world: World, options: dict[str, int], reason: str
) -> None:
    """Goal: the holder learns why.

    Method: a task that may not run twice; one whose children are said to be gone."""
    task, number = children_at(hand, **options)
    if not options:
        hand.drop(task)
        hand.say(ChildrenGone(task.id), worker(number))
    hand.say(ClaimObject(on(task)), THIRD)
    assert world.take(Unclaimed, THIRD) == [Unclaimed(OLD, reason)]
    hand.rest()


def test_worker_that_is_dead_and_not_buried(hand: Hand, world: World) -> None:
    """Goal: a claim is not sent to a worker whose stream has ended; it goes along with the retry.

    Method: the task is at worker 1, which is lost; its node has not said how."""
    task = hand.submit()
    number = hand.taken(task)
    hand.owner.peer_lost(worker(number))
    hand.say(ClaimObject(on(task, dead=9)), THIRD)
    world.expect((THIRD, Claimed(OLD, hand.me)))
    world.advance(10)
    number = hand.taken(task)
    assert world.take(Claimed, THIRD) == [Claimed(OLD, worker(number))]
    hand.done(task, number)
    world.sent.clear()


def test_two_claims_come_back(hand: Hand, world: World) -> None:
    """Goal: a claim that its runner sends back when it has the task again follows it there.

    Method: two claims come back from a worker that lives, the second after the new push."""
    task, number = children_at(hand)
    hand.say(ClaimObject(on(task, THIRD, number)), worker(number))
    again, push = hand.push_of(task)
    assert (again, push.claims) == (number, [Claim(OLD, THIRD, NOBODY, [task.id])])
    hand.say(ClaimObject(on(task, NEXT, number)), worker(number))
    assert world.one(ClaimFrom).claim == Claim(OLD, NEXT, NOBODY, [task.id])
    hand.done(task, number, results=[inline()], children=True)
    assert (task.attempt, task.claims) == (1, {})
    hand.say(ChildrenGone(task.id), worker(number))
    hand.drop(task)
    world.take(Claimed)
    hand.nothing_left()


def test_runner_dies_behind_its_answer(hand: Hand, world: World) -> None:
    """Goal: a claim by who has heard of a worker's death before we have that worker's answer is not
    settled by the answer: the task runs once more.

    Method: claim, answer, end; the attempt in between dies with the worker."""
    task = hand.submit()
    number = hand.taken(task)
    hand.say(ClaimObject(late := on(task, dead=number)), THIRD)
    hand.done(task, number, results=[inline()], children=True)
    assert hand.push_of(task)[1].claims == [late]
    hand.end(number)
    number, push = hand.push_of(task)
    assert (push.attempt, push.claims) == (2, [late])
    hand.done(task, number, results=[inline()])
    world.advance(CLAIM_SECONDS)
    hand.drop(task)
    world.take(Claimed)
    hand.nothing_left()


# -- the runner -----------------------------------------------------------------------------------


def test_made_again(hand: Hand, world: World) -> None:
    """Goal: in the moment in which it is made the holder is counted and told, so user code cannot
    free it first; another name is not given.

    Method: two claims on x; the run puts y, then x, and drops both."""
    run = hand.run(claim(THIRD), claim(NEXT))
    hand.put(run, named("y", "second"))
    world.expect()
    entry = hand.put(run)
    ref = Reference(MADE, hand.me, (Link(CHILD, BOSS),))
    world.expect((THIRD, Reborn(OLD, ref)), (NEXT, Reborn(OLD, ref)))
    assert entry.holders == {THIRD.process: 1, NEXT.process: 1}
    for key in (MADE, named("y", "second")):
        hand.let_go(key)
    assert list(hand.owner.ownership.entries) == [MADE]
    hand.finish(run)
    hand.answer(children=True)
    for holder in (THIRD, NEXT):
        hand.say(Release(MADE, 1), holder)
    world.expect((BOSS, ChildrenGone(CHILD)))
    hand.nothing_left()


def test_not_made_again(hand: Hand, world: World) -> None:
    """Goal: what was claimed from the run and not made is reported with its results."""
    run = hand.run(claim(THIRD))
    hand.finish(run)
    hand.answer(unclaimed=[OLD])
    hand.nothing_left()


@pytest.mark.parametrize(
    "when", ["before it begins", "before it is made", "when it is made", "after"]
)
def test_claim_comes_late(hand: Hand, world: World, when: str) -> None:
    """Goal: a claim may come at any time of the run, or after it while the object is there."""
    run = hand.run(begin=when != "before it begins")
    if when == "before it begins":
        hand.say(ClaimFrom(CHILD, claim()), BOSS)
        assert hand.hand.begin() is run
    if when == "before it is made":
        hand.say(ClaimFrom(CHILD, claim()), BOSS)
    hand.put(run)
    if when == "when it is made":
        hand.say(ClaimFrom(CHILD, claim()), BOSS)
    if when == "after":
        hand.finish(run)
        hand.answer(children=True)
        hand.say(ClaimFrom(CHILD, claim()), BOSS)
    assert world.one(Reborn, THIRD).object == OLD
    if when != "after":
        hand.finish(run)
        hand.answer(children=True)
    hand.let_go(MADE)
    hand.say(Release(MADE, 1), THIRD)
    world.expect((BOSS, ChildrenGone(CHILD)))
    hand.nothing_left()


def test_claim_on_what_is_made_and_gone(hand: Hand, world: World) -> None:
    """Goal: a claim that comes after the run has dropped the object goes back to the submitter,
    which runs the task again with the claim from the start. It is not refused as never made.

    Method: put and dropped; the claim comes when the run is over."""
    run = hand.run()
    hand.put(run)
    hand.let_go(MADE)
    hand.finish(run)
    hand.answer()
    hand.say(ClaimFrom(CHILD, claim()), BOSS)
    world.expect((BOSS, ClaimObject(claim(dead=hand.me))))
    hand.nothing_left()


def test_claim_on_what_is_made_and_gone_while_the_run_goes_on(hand: Hand, world: World) -> None:
    """Goal: the claim is answered, one way or the other, when the run ends: with a refusal, because
    it cannot be told from one on what the run was never to make.

    Method: put and dropped; then the claim; then the run ends."""
    run = hand.run()
    hand.put(run)
    hand.let_go(MADE)
    hand.say(ClaimFrom(CHILD, claim()), BOSS)
    hand.finish(run)
    hand.answer(unclaimed=[OLD])
    hand.nothing_left()


def test_claim_goes_on_to_a_child(hand: Hand, world: World) -> None:
    """Goal: a claim whose path goes on waits for the run to submit the next task, and goes with its
    push; the runner is that task's submitter then. One that comes later is sent after it.

    Method: path CHILD, then a task of the name that the run gives; a second claim while that task
    is at its worker, and once more when it is done."""
    inner = TaskId(b"inner..." + b"first...")
    run = hand.run(claim(THIRD, CHILD, inner))
    again = TaskId(b"inner..." + b"second..")
    task = hand.call(again, run)
    assert world.take(Claimed, THIRD) == [Claimed(OLD, hand.me)]
    number, push = hand.push_of(task)
    assert push.claims == [Claim(OLD, THIRD, DEAD.process, [again])]
    assert push.line == (Link(CHILD, BOSS),)
    assert world.take(Claimed, THIRD) == [Claimed(OLD, worker(number))]
    late = Claim(OLD, NEXT, DEAD.process, [CHILD, inner])
    hand.say(ClaimFrom(CHILD, late), BOSS)
    moved = Claim(OLD, NEXT, DEAD.process, [again])
    assert world.take(ClaimFrom, worker(number)) == [ClaimFrom(again, moved)]
    world.take(Claimed)
    hand.done(task, number, results=[inline()], children=True)
    hand.say(ClaimFrom(CHILD, late), BOSS)
    assert world.take(ClaimFrom, worker(number)) == [ClaimFrom(again, moved)]
    world.take(Claimed)
    hand.let_go(return_id(again, 0))
    hand.finish(run)
    hand.answer(children=True)
    hand.say(ChildrenGone(again), worker(number))
    world.expect((BOSS, ChildrenGone(CHILD)))
    hand.nothing_left()


def test_lineage_only_object_is_made_again_for_its_holder(hand: Hand, world: World) -> None:
    """Goal: an object of ours of which only lineage knows, and whose value is gone, is made again
    when it is given to a holder; nobody waits for ever.

    Method: a task's result, used by a kept task and dropped; then it is claimed."""
    run = hand.run()
    again = TaskId(b"x......." + b"second..")
    maker = hand.call(again, run)
    hand.work(maker)
    user = hand.submit(deps=[Reference(MADE, hand.me)])
    hand.work(user)
    hand.let_go(MADE)
    assert world.take(FreeObjects) == [FreeObjects([MADE])]
    hand.say(ClaimFrom(CHILD, claim()), BOSS)
    assert world.one(Reborn, THIRD).ref.object == MADE
    hand.say(Locate(MADE), THIRD)
    hand.work(maker, results=[inline(b"again")])
    assert world.take(Located, THIRD) == [Located(MADE, inline(b"again"))]
    hand.rest()


@pytest.mark.parametrize("how", ["cancelled", "argument failed"])
def test_claims_on_a_run_that_never_begins(hand: Hand, world: World, how: str) -> None:
    """Goal: a task that ends before it has begun here says which claims it had, or their holders
    would wait for ever; and that children of an earlier run are still here, if they are.

    Method: an earlier run left a child; the next comes with a claim and is cancelled, or comes with
    an argument that has failed."""
    run = hand.run()
    hand.put(run)
    hand.finish(run)
    hand.answer(children=True)
    push = PushTask(CHILD, 1, lease(1), FunctionId(b"function"), b"", claims=[claim()])
    if how == "argument failed":
        push.deps = [Argument(Reference(object_id("a"), BOSS), failed(b"lost"))]
    hand.say(push, BOSS)
    if how == "cancelled":
        hand.say(CancelTask(CHILD, False, False), BOSS)
    error = failed(b"lost") if how == "argument failed" else failed(b"cancelled: ")
    done = TaskDone(CHILD, 1, [error], children=True, unclaimed=[OLD])
    world.expect((BOSS, done))
    hand.let_go(MADE)
    world.expect((BOSS, ChildrenGone(CHILD)))
    hand.nothing_left()


def test_holder_dies(hand: Hand, world: World) -> None:
    """Goal: its claims are void: nothing is counted for it."""
    run = hand.run(claim(THIRD))
    hand.owner.peer_lost(THIRD)
    assert hand.put(run).holders is None
    hand.let_go(MADE)
    hand.finish(run)
    hand.answer()
    hand.nothing_left()


def test_given_back_with_claims(hand: Hand, world: World) -> None:
    """Goal: a task that goes back unbegun takes nothing along: its submitter has the claims, and a
    claim that crosses it goes back too."""
    hand.run(claim(), begin=False)
    hand.hand.give_way()
    hand.say(ClaimFrom(CHILD, claim()), BOSS)
    world.expect((BOSS, TaskReturned(CHILD, 0)), (BOSS, ClaimObject(claim(dead=hand.me))))
    hand.nothing_left()


def test_line_is_bounded(hand: Hand, world: World) -> None:
    """Goal: references name at most LONGEST_LINE ancestors, the nearest first."""
    line = tuple(Link(task_id(f"t{depth}"), CHIEF) for depth in range(LONGEST_LINE))
    run = hand.run(line=line)
    entry = hand.put(run)
    assert entry.line == (Link(CHILD, BOSS), *line[:-1])
    hand.let_go(MADE)
    hand.finish(run)
    hand.answer()


# -- all at once ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dropped", [True, False])
def test_holder_submitter_and_runner(hand: Hand, world: World, dropped: bool) -> None:
    """Goal: one worker may claim from itself, run the task itself and be given its own object.

    Method: it holds what a worker made in a task of its own; that worker dies; the lease that it is
    granted is on itself. It may have dropped the reference by then."""
    task, number = children_at(hand)
    ref = Reference(OLD, worker(number), (Link(task.id, hand.me),))
    hand.hold(ref)
    hand.end(number)
    if dropped:
        hand.let_go(OLD)
    hand.asked()
    hand.say(LeaseGranted(lease(2), hand.me, 1))
    hand.loop()
    run = hand.hand.begin()
    assert run is not None
    entry = hand.put(run)
    assert (entry.handles, entry.holders) == (1 if dropped else 2, None)
    hand.finish(run)
    hand.loop()
    if not dropped:
        assert hand.owner.ownership.entries[OLD] is entry
        hand.let_go(OLD)
    hand.let_go(MADE)
    hand.loop()
    hand.drop(task)
    world.sent.clear()
    world.advance(CLAIM_SECONDS)  # (the dead worker had children of the task)
    hand.nothing_left()
