"""Estate: what a worker owns survives its exit in good order."""

from __future__ import annotations

from typing import Any

import pytest

from core.owners import Errors
from core.world import World, inline, job, node, object_id, process, stored, task_id
from freehold.core.entries import Origin
from freehold.core.estate import LEAVE_SECONDS
from freehold.core.lineage import CLAIM_SECONDS
from freehold.ids import ObjectId
from freehold.roles.executor import Executor
from freehold.roles.owner import Owner
from freehold.wire.estate import Bequeath, Bequest, GiveObject, Inherited, ObjectsGiven
from freehold.wire.messages import (
    Address,
    ChildrenGone,
    Claim,
    ClaimObject,
    FreeObjects,
    Link,
    Locate,
    Located,
    ObjectAt,
    Reborn,
    Reference,
    Release,
    Stop,
    Value,
)

NODE, FAR, THIRD = node(), node("far"), node("third")
HEIR, GRAND, HOLDER = process("heir"), process("grand"), process("holder")
TASK, UPPER = task_id("task"), task_id("upper")
A, B = object_id("a"), object_id("b")


class Leaver:
    """A worker that ran TASK for HEIR, in a run of UPPER that GRAND submitted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.role = Executor(world, Errors(), NODE, job())  # type: ignore[arg-type]
        self.role.estate.gone = lambda: self.ends.append("gone")
        self.ends: list[str] = []
        line = (Link(UPPER, GRAND),)
        self.origin: Origin = self.role.rebirth.begin(TASK, HEIR, line, ())

    def own(self, name: ObjectId, value: Value, *, held_by: Address | None = HOLDER) -> None:
        """A value made in the run, which user code has let go of and ``held_by`` holds."""
        self.role.put(name, value, self.origin)
        if held_by is not None:
            self.role.ownership.hand_out(self.role.ownership.reference(name), held_by)
            self.role.ownership.drop_handle(name)

    def run_over(self) -> None:
        self.role.rebirth.run_over(TASK)

    def say(self, message: Any, by: Address) -> None:
        self.role.handle(message, by)


@pytest.fixture
def leaver(world: World) -> Leaver:
    return Leaver(world)


@pytest.fixture
def heir(world: World) -> Owner:
    return Owner(world, Errors(), NODE, job())  # type: ignore[arg-type]


def line() -> tuple[Link, ...]:
    return (Link(TASK, HEIR), Link(UPPER, GRAND))


def test_values_first_then_copies_then_the_end(leaver: Leaver, world: World) -> None:
    """Goal: the heir knows a value before a node speaks to it of a copy, and nodes know the heir
    before the old owner can be seen to die. Method: one inline and one stored value with two
    copies; a third copy comes to be in between."""
    leaver.own(A, inline(b"small"))
    leaver.own(B, stored(10, NODE, FAR))
    leaver.run_over()
    leaver.role.stop(Stop(hand_over=True))
    bequests = [Bequest(A, inline(b"small"), line()), Bequest(B, stored(10, NODE, FAR), line())]
    world.expect((HEIR, Bequeath(bequests)))
    news = ObjectAt(B, THIRD, True)
    leaver.say(news, THIRD)
    world.expect((HEIR, news), (THIRD, GiveObject([B], HEIR)))
    leaver.say(Inherited(), HEIR)
    world.expect((NODE, GiveObject([B], HEIR)), (FAR, GiveObject([B], HEIR)))
    leaver.say(ObjectsGiven(), THIRD)
    leaver.say(ObjectsGiven(), NODE)
    assert leaver.ends == []
    leaver.say(ObjectsGiven(), FAR)
    assert leaver.ends == ["gone"]


def test_a_release_on_the_way_out_frees_nothing(leaver: Leaver, world: World) -> None:
    """Goal: once handed over, the value is the heir's to free. Method: the last holder releases
    between the hand-over and the end; another asks for the value meanwhile."""
    leaver.own(A, stored(10, NODE))
    leaver.run_over()
    leaver.role.stop(Stop(hand_over=True))
    leaver.say(Inherited(), HEIR)
    world.one(GiveObject), world.one(Bequeath)
    leaver.say(Locate(A), GRAND)
    world.expect((GRAND, Located(A, stored(10, NODE))))
    leaver.say(Release(A, 1), HOLDER)
    assert world.take(FreeObjects) == []


@pytest.mark.parametrize("silent", [NODE, HEIR])
def test_nobody_keeps_a_leaver_waiting(leaver: Leaver, world: World, silent: Address) -> None:
    """Goal: it goes after LEAVE_SECONDS without an answer: lineage brings back what is lost."""
    leaver.own(A, stored(10, NODE))
    leaver.run_over()
    leaver.role.stop(Stop(hand_over=True))
    world.one(Bequeath)
    if silent is NODE:
        leaver.say(Inherited(), HEIR)
        world.one(GiveObject)
    world.advance(LEAVE_SECONDS)
    assert leaver.ends == ["gone"]


def test_the_next_up_the_line_inherits(leaver: Leaver, world: World) -> None:
    """Goal: the heir is whom the holders will ask: the nearest submitter that lives."""
    leaver.own(A, inline(b"x"))
    leaver.run_over()
    leaver.role.peer_lost(HEIR)
    leaver.role.stop(Stop(hand_over=True))
    world.expect((GRAND, Bequeath([Bequest(A, inline(b"x"), line())])))
    leaver.role.peer_lost(GRAND)  # as good as an answer: there is nobody to wait for
    assert leaver.ends == ["gone"]


def test_what_keeps_a_process(leaver: Leaver, world: World) -> None:
    """Goal: it stays as long as something cannot be handed over. Method: a handle in user code; a
    value without an origin; then neither, and it owns nothing: it goes at once."""
    leaver.own(A, inline(b"x"), held_by=None)
    leaver.role.put(B, inline(b"y"))
    leaver.role.ownership.hand_out(leaver.role.ownership.reference(B), HOLDER)
    leaver.role.ownership.drop_handle(B)
    leaver.run_over()
    leaver.role.stop(Stop(hand_over=True))
    leaver.role.ownership.drop_handle(A)
    world.sent.clear()
    leaver.role.stop(Stop(hand_over=True))
    assert leaver.ends == []
    leaver.say(Release(B, 1), HOLDER)
    leaver.role.stop(Stop(hand_over=True))
    assert leaver.ends == ["gone"]
    world.expect()


def test_the_idle_stay_with_what_they_own(leaver: Leaver, world: World) -> None:
    """Goal: nothing is handed over without need: here a lost value can be made again. Method: the
    plain request to stop, with a value held elsewhere, and without."""
    leaver.own(A, inline(b"x"))
    leaver.run_over()
    leaver.role.stop(Stop())
    world.expect()
    assert leaver.ends == []
    leaver.say(Release(A, 1), HOLDER)
    world.one(ChildrenGone)
    leaver.role.stop(Stop())
    assert leaver.ends == ["gone"]


def test_the_heir_gives_to_who_claims(heir: Owner, world: World) -> None:
    """Goal: after the old owner's end holders are given the value that is there; nothing runs
    again. When none is left and the time for claims is over, it is freed, with its copies."""
    leaver = process("leaver")
    heir.handle(Bequeath([Bequest(A, stored(10, NODE), line())]), leaver)
    world.expect((leaver, Inherited()))
    heir.peer_lost(leaver)
    heir.handle(ClaimObject(Claim(A, HOLDER, leaver.process, [TASK])), HOLDER)
    world.expect((HOLDER, Reborn(A, Reference(A, world.address, line()))))
    world.advance(CLAIM_SECONDS)
    assert world.take(FreeObjects) == []
    heir.handle(Release(A, 1), HOLDER)
    world.expect((NODE, FreeObjects([A])))
    assert heir.ownership.entries == {}


def test_an_heir_that_held_it_owns_it(heir: Owner, world: World) -> None:
    """Goal: what the heir had borrowed is its own from then on, also for whoever waits for it
    here; its reference names itself once the old owner is gone."""
    leaver = process("leaver")
    ref = Reference(A, leaver, line())
    inner = inline(b"outer", ref)
    heir.put(B, Value(inner.kind, inner.data))
    entry = heir.ownership.entries[B]
    assert entry.value is not None
    heir.ownership.accept(ref, leaver, gate=None)  # type: ignore[arg-type]  # the owner gave it
    heir.ownership.pin(A)
    woken: list[str] = []
    getting = heir.get([A], lambda: woken.append("woken"))
    world.expect((leaver, Locate(A)))
    heir.handle(Bequeath([Bequest(A, inline(b"value"), line())]), leaver)
    assert getting.done
    assert woken == ["woken"]
    heir.peer_lost(leaver)
    assert heir.ownership.current(ref) == Reference(A, world.address, line())
    world.take(Inherited)
    heir.ownership.unpin(A)
    world.advance(CLAIM_SECONDS)
    assert list(heir.ownership.entries) == [B]


def test_a_holder_under_the_same_name(heir: Owner, world: World) -> None:
    """Goal: an orphan that is given under its old id goes on as a plain borrowed reference of the
    new owner: what waits asks there, and its count goes back there."""
    old, new = process("old"), process("new")
    ref = Reference(A, old, line())
    heir.ownership.accept(ref, old, gate=None)  # type: ignore[arg-type]
    heir.ownership.pin(A)
    getting = heir.get([A], lambda: None)
    world.expect((old, Locate(A)))
    heir.peer_lost(old)
    claim = Claim(A, world.address, old.process, [TASK])
    world.expect((HEIR, ClaimObject(claim)))
    heir.handle(Reborn(A, Reference(A, new, line())), new)
    world.expect((new, Locate(A)))
    heir.handle(Located(A, inline(b"v")), new)
    assert getting.done
    heir.ownership.unpin(A)
    world.expect((new, Release(A, 1)))
