"""A dead owner's values come back, one event at a time: what the holder, the submitter and the
runner do. The other processes are played by the test. All orders of small programs:
test_afterlife.py.
"""

from __future__ import annotations

import pytest

from core.hand import (
    BOSS,
    CHIEF,
    CHILD,
    DEAD,
    LINE,
    MADE,
    NEW,
    NEXT,
    OLD,
    PARENT,
    REBORN,
    THIRD,
    Hand,
    X,
    mine,
    named,
)
from core.owners import NEAR, NODE, worker
from core.world import World, inline, lease, object_id, stored
from freehold.ids import FunctionId
from freehold.wire.fetches import GET
from freehold.wire.messages import (
    Argument,
    CancelFetch,
    Claim,
    ClaimObject,
    FetchObject,
    Gone,
    Introduce,
    Link,
    Locate,
    Located,
    Provide,
    PushTask,
    Reborn,
    Reference,
    Release,
    TaskDone,
    Unclaimed,
)

# -- the holder -----------------------------------------------------------------------------------


def test_claim_goes_to_the_nearest_submitter(hand: Hand, world: World) -> None:
    """Goal: at the owner's death each holder claims once, from who submitted the task that made the
    object; what the dead owner does not own is left alone.

    Method: two references of the dead owner, one of another."""
    hand.hold()
    hand.hold(Reference(object_id("y"), THIRD, LINE))
    hand.owner.peer_lost(DEAD)
    world.expect((BOSS, mine(CHILD)))
    hand.owner.peer_lost(DEAD)
    world.expect()
    assert hand.owner.ownership.entries[OLD].asked == BOSS.process


def test_next_in_line(hand: Hand, world: World) -> None:
    """Goal: if the submitter is dead too, the one above it runs the way down again; if all are, the
    value fails and says so.

    Method: they die one after the other, the first before the owner."""
    hand.hold()
    hand.owner.peer_lost(BOSS)
    hand.owner.peer_lost(DEAD)
    world.expect((CHIEF, mine(PARENT, CHILD)))
    hand.owner.peer_lost(CHIEF)
    world.expect()
    assert hand.error() == f"owner_died: {OLD!r}"
    assert hand.rebirth.orphans == {}


def test_a_drivers_values_end_with_it(hand: Hand, world: World) -> None:
    """Goal: what no task has made cannot come back, and what is known of it stays good.

    Method: two references without a line; the value of one is known."""
    hand.hold(Reference(OLD, DEAD))
    hand.hold(Reference(MADE, DEAD), inline(b"known"))
    hand.owner.peer_lost(DEAD)
    world.expect()
    assert hand.error() == f"owner_died: {OLD!r}"
    assert hand.owner.value(MADE) == inline(b"known")
    for key in (OLD, MADE):
        hand.let_go(key)
    hand.nothing_left()
    world.expect()


def test_bytes_in_a_store_go_with_their_owner(hand: Hand, world: World) -> None:
    """Goal: a stored value of a dead owner is forgotten, with the references in it, and a get that
    was fetching it waits for the new one; one that has the bytes keeps them.

    Method: a value that contains y of a third process, on its way here for a get."""
    y = Reference(object_id("y"), THIRD)
    hand.hold(X, stored(100, NEAR, contains=[y]))
    hand.hold(y).handles = 0
    hand.owner.ownership.pin(y.object)
    getting = hand.owner.get([OLD], lambda: None)
    hand.owner.peer_lost(DEAD)
    world.expect(
        (NODE, FetchObject(OLD, 100, DEAD, [NEAR], GET)),
        (THIRD, Release(y.object, 1)),
        (NODE, CancelFetch(OLD)),
        (BOSS, mine(CHILD)),
    )
    hand.say(Reborn(OLD, REBORN), NEW)
    world.expect((NEW, Locate(MADE)))
    hand.say(Located(MADE, inline()), NEW)
    assert (getting.done, getting.failed) == (True, None)


def test_claim_moves_on(hand: Hand, world: World) -> None:
    """Goal: we claim again when the process dies with which our claim lies.

    Method: the submitter says that it lies with itself, then with a worker, which dies."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.claimed(BOSS, by=BOSS)
    hand.claimed(NEW, by=BOSS)
    world.expect((BOSS, mine(CHILD)))
    hand.owner.peer_lost(THIRD)
    world.expect()
    hand.owner.peer_lost(NEW)
    world.expect((BOSS, mine(CHILD)))


def test_sponsor_dies(hand: Hand, world: World) -> None:
    """Goal: when the submitter dies, its run elsewhere is dropped or its answer is lost, so we
    claim again from the next in line although the worker with our claim lives.

    Method: the claim has moved on to a worker; then the submitter dies."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.claimed(NEW, by=BOSS)
    world.expect((BOSS, mine(CHILD)))
    hand.owner.peer_lost(BOSS)
    world.expect((CHIEF, mine(PARENT, CHILD)))


def test_claim_moves_to_the_dead(hand: Hand, world: World) -> None:
    """Goal: news that is older than the death it does not know of does not make us wait."""
    hand.hold()
    hand.owner.peer_lost(NEW)
    hand.owner.peer_lost(DEAD)
    world.expect((BOSS, mine(CHILD)))
    hand.claimed(NEW, by=BOSS)
    world.expect((BOSS, mine(CHILD)))


def test_reborn(hand: Hand, world: World) -> None:
    """Goal: who holds the old reference holds the new one: handles, waiting gets, waits and tasks.
    One release, of the new one, ends it, under either id.

    Method: a get, a wait and a task's argument wait when the owner dies."""
    hand.hold()
    getting = hand.owner.get([OLD], lambda: None)
    waiting = hand.owner.wait([OLD], 1, False, lambda: None)
    task = hand.submit(deps=[X])
    world.expect((DEAD, Locate(OLD)))
    hand.owner.peer_lost(DEAD)
    world.expect((BOSS, mine(CHILD)))
    hand.say(Reborn(OLD, REBORN), NEW)
    world.expect((NEW, Locate(MADE)))
    hand.say(Located(MADE, inline(b"again")), NEW)
    assert getting.done
    assert waiting.ready == {MADE}
    number = hand.taken(task)
    hand.done(task, number)
    hand.owner.ownership.add_handle(X)
    hand.let_go(MADE)
    hand.rest()
    world.expect()
    hand.let_go(OLD)
    world.expect((NEW, Release(MADE, 1)))
    hand.drop(task)
    hand.nothing_left()


def test_holder_has_dropped_it(hand: Hand, world: World) -> None:
    """Goal: the count goes back at once."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.let_go(OLD)
    hand.say(Reborn(OLD, REBORN), NEW)
    world.expect((BOSS, mine(CHILD)), (NEW, Release(MADE, 1)))
    hand.nothing_left()


def test_holder_has_dropped_it_and_the_claim_dies(hand: Hand, world: World) -> None:
    """Goal: nothing is claimed again for nobody."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.let_go(OLD)
    hand.owner.peer_lost(BOSS)
    world.expect((BOSS, mine(CHILD)))
    hand.nothing_left()


def test_counted_twice(hand: Hand, world: World) -> None:
    """Goal: a claim that was answered twice, by one owner or by two, leaves one count.

    Method: the same object twice; then another made by yet another run."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    other = Reference(named("x", "third"), NEXT)
    for ref in (REBORN, REBORN, other):
        hand.say(Reborn(OLD, ref), ref.owner)
    world.expect((BOSS, mine(CHILD)), (NEXT, Release(other.object, 1)))
    hand.let_go(OLD)
    world.expect((NEW, Release(MADE, 2)))
    hand.nothing_left()


def test_unclaimed(hand: Hand, world: World) -> None:
    """Goal: it fails, with the submitter's reason; once reborn, an older refusal is nothing."""
    hand.rebirth.owner_died = lambda entry, why: why.encode()
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.say(Unclaimed(OLD, "and so it is"), BOSS)
    assert hand.error() == "and so it is"
    world.expect((BOSS, mine(CHILD)))
    hand.let_go(OLD)
    hand.hold()
    hand.owner.ownership.lost.discard(DEAD.process)
    hand.owner.peer_lost(DEAD)
    hand.say(Reborn(OLD, REBORN), NEW)
    hand.say(Unclaimed(OLD, "late"), BOSS)
    world.expect((BOSS, mine(CHILD)))
    assert hand.owner.ownership.entries[OLD].value is None
    hand.let_go(OLD)
    world.expect((NEW, Release(MADE, 1)))
    hand.nothing_left()


def test_old_reference_is_passed_on_as_the_new_one(hand: Hand, world: World) -> None:
    """Goal: whoever is given a reference that has changed is given the one that is good now,
    counted by its new owner: in a task's arguments, at its top and inside, and in a value that is
    told.

    Method: the user's variable still has the old one; a put value contains it."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.say(Reborn(OLD, REBORN), NEW)
    hand.owner.put(object_id("p"), inline(b"p", X))
    hand.owner.ownership.hand_out(hand.owner.ownership.reference(object_id("p")), THIRD)
    world.expect((BOSS, mine(CHILD)))
    hand.say(Locate(object_id("p")), THIRD)
    world.expect(
        (NEW, Provide(MADE, THIRD)), (THIRD, Located(object_id("p"), inline(b"p", REBORN)))
    )
    task = hand.submit(deps=[X], borrowed=[X])
    world.expect((NEW, Locate(MADE)))
    hand.say(Located(MADE, inline()), NEW)
    hand.asked()
    hand.grant(1)
    push = world.one(PushTask, worker(1))
    assert (push.deps, push.borrowed) == ([Argument(REBORN, inline())], [REBORN])
    assert world.take(Provide, NEW) == [Provide(MADE, worker(1))]
    hand.done(task, 1)
    hand.pushed(1)


def test_old_reference_is_returned_as_the_new_one(hand: Hand, world: World) -> None:
    """Goal: the same for the results of a task.

    Method: the task came with x; its owner dies and x is reborn while the task runs; it returns
    x."""
    push = PushTask(CHILD, 0, lease(1), FunctionId(b"function"), b"", borrowed=[X])
    hand.say(push, BOSS)
    hand.say(Introduce(X, BOSS.process), DEAD)
    run = hand.hand.begin()
    assert run is not None
    hand.owner.peer_lost(DEAD)
    hand.say(Reborn(OLD, REBORN), NEW)
    world.expect((BOSS, mine(CHILD)))
    hand.finish(run, inline(b"r", X))
    done = TaskDone(CHILD, 0, [inline(b"r", REBORN)], 5)
    world.expect((NEW, Provide(MADE, BOSS)), (BOSS, done), (NEW, Release(MADE, 1)))
    hand.nothing_left()


def test_new_owner_dies_too(hand: Hand, world: World) -> None:
    """Goal: a value may come back more than once; every id that it had still names it.

    Method: reborn, its new owner dies, reborn again."""
    hand.hold()
    hand.owner.peer_lost(DEAD)
    hand.say(Reborn(OLD, REBORN), NEW)
    hand.owner.peer_lost(NEW)
    again = Claim(MADE, world.address, NEW.process, [CHILD])
    world.expect((BOSS, mine(CHILD)), (BOSS, ClaimObject(again)))
    third = Reference(named("x", "third"), NEXT, (Link(CHILD, BOSS),))
    hand.say(Reborn(MADE, third), NEXT)
    table = hand.owner.ownership
    assert table.current(X) == table.current(REBORN) == third
    assert len(table.entries) == 3
    assert table.entries[OLD] is table.entries[MADE] is table.entries[third.object]
    hand.let_go(OLD)
    world.expect((NEXT, Release(third.object, 1)))
    hand.nothing_left()


def test_orphan_that_arrives_late(hand: Hand, world: World) -> None:
    """Goal: a reference that comes after its owner's death is claimed at once, and usable at once.

    Method: pushed to us by a process that has not heard."""
    hand.owner.peer_lost(DEAD)
    push = PushTask(CHILD, 0, lease(1), FunctionId(b"function"), b"", borrowed=[X])
    hand.say(push, BOSS)
    world.expect((BOSS, mine(CHILD)))
    run = hand.hand.begin()
    assert run is not None
    hand.finish(run)
    hand.answer()
    hand.say(Unclaimed(OLD, "for nobody"), BOSS)
    hand.nothing_left()


@pytest.mark.parametrize("kind", ["inline", "stored"])
@pytest.mark.parametrize("end", ["opens", "breaks", "opens late", "breaks late"])
def test_owner_dies_behind_a_value(hand: Hand, world: World, kind: str, end: str) -> None:
    """Goal: a value that the owner told just before it died counts if it is small, and is nothing
    if it is stored, or if a reference in it is lost: the object comes back. Whether the references
    are introduced before or after that, or never, no count is left behind.

    Method: Located with y of a third process; the owner dies; the introduction comes, or the word
    that none will, before Reborn or after."""
    y = Reference(object_id("y"), THIRD)
    entry = hand.hold()
    getting = hand.owner.get([OLD], lambda: None)
    told = inline(b"told", y) if kind == "inline" else stored(100, NEAR, contains=[y])
    hand.say(Located(OLD, told), DEAD)
    hand.owner.peer_lost(DEAD)
    world.sent.clear()
    if "late" in end:
        hand.say(Reborn(OLD, REBORN), NEW)
    if end.startswith("opens"):
        hand.say(Introduce(y, DEAD.process), THIRD)
    else:
        hand.say(Gone(DEAD.process), THIRD)
    known = kind == "inline" and end == "opens"
    assert getting.done == known
    assert world.take(FetchObject) == []
    if "late" not in end:
        assert hand.owner.ownership.entries[OLD] is entry
        hand.say(Reborn(OLD, REBORN), NEW)
    if not known:
        hand.say(Located(MADE, inline()), NEW)
    assert getting.done
    assert hand.owner.ownership.entries[OLD].pins == 0
    hand.let_go(OLD)
    assert world.take(Release, NEW) == [Release(MADE, 1)]
    assert world.take(Release, THIRD) == ([Release(y.object, 1)] if "opens" in end else [])
    hand.nothing_left()
    world.take(Locate)


def test_wait_counts_what_has_changed(hand: Hand, world: World) -> None:
    """Goal: an object that was ready stays so for a wait that goes on, under the id that it has
    when the wait ends.

    Method: x is known, y not; x's owner dies and x is reborn; then y comes."""
    hand.hold(X, inline())
    y = hand.hold(Reference(object_id("y"), THIRD))
    waiting = hand.owner.wait([OLD, y.object], 2, False, lambda: None)
    hand.owner.peer_lost(DEAD)
    hand.say(Reborn(OLD, REBORN), NEW)
    hand.say(Located(y.object, inline()), THIRD)
    assert waiting.done
    waiting.close()
    entries = hand.owner.ownership.entries
    assert waiting.ready == {entries[OLD].object, y.object}
    world.take(Locate), world.take(ClaimObject)
