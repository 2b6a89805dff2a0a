"""The counting of references, one event at a time: gates, and what becomes of a hand-over whose
giver dies. All orders of small programs: test_handoff.py.
"""

from __future__ import annotations

import pytest

from core.world import World, failed, inline, object_id, process, reference
from freehold.core.entries import Entry, Gate
from freehold.core.ownership import PATIENCE, Ownership
from freehold.ids import ProcessId
from freehold.wire.messages import (
    Address,
    AskGone,
    Gone,
    Introduce,
    Locate,
    Located,
    Provide,
    Release,
    Value,
)

OWNER, OTHER, GIVER, THIRD = (process(name) for name in ("owner", "other", "giver", "third"))
X, Y, P = object_id("x"), object_id("y"), object_id("p")


class Taker:
    """A gate that notes what becomes of it; as a Waiter, the value that came."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.gate = Gate(lambda: self.told.append("open"), self.shut)

    def shut(self, giver: ProcessId) -> None:
        self.told.append(f"lost by {giver.decode().rstrip('.')}")

    def resolved(self, entry: Entry) -> None:
        assert entry.value is not None
        self.told.append(entry.value.data.decode())


@pytest.fixture
def table(world: World) -> Ownership:
    made = Ownership(world)
    made.handover_lost = lambda giver: b"lost by " + giver.rstrip(b".")
    return made


def take(table: Ownership, name: str, owner: Address, giver: Address = GIVER) -> Taker:
    """A message from ``giver`` brings a reference, which is pinned for it."""
    taker = Taker()
    table.take_in([reference(name, owner)], giver, taker.gate)
    return taker


def waits_for(table: Ownership, name: str, owner: Address) -> Taker:
    """We hold a handle to ``owner``'s object and want its value."""
    entry = table.entries[object_id(name)] = Entry(object_id(name), owner)
    entry.handles, entry.received = 1, 1
    taker = Taker()
    table.wait_for(entry, taker)
    assert isinstance(table.world, World)
    assert table.world.take(Locate, owner)
    return taker


# -- gates -----------------------------------------------------------------------------------------


def test_gate_opens_with_the_last_introduction() -> None:
    """Goal: once, and not before. Method: two waits."""
    taker = Taker()
    taker.gate.waiting = 2
    taker.gate.introduced()
    assert taker.told == []
    taker.gate.introduced()
    assert taker.told == ["open"]
    taker.gate.broken(GIVER.process)
    assert taker.told == ["open"]


def test_broken_gate_stays_shut() -> None:
    """Goal: shut once, for the first loss; neither more losses nor late introductions count."""
    taker = Taker()
    taker.gate.waiting = 3
    taker.gate.introduced()
    taker.gate.broken(GIVER.process)
    taker.gate.broken(THIRD.process)
    taker.gate.introduced()
    assert taker.told == ["lost by giver"]


# -- the taker: asks ------------------------------------------------------------------------------


def test_each_owner_is_asked_once(table: Ownership, world: World) -> None:
    """Goal: whoever may still introduce on a dead giver's word is asked, and nobody else.

    Method: the giver gave two objects of one owner, one of another, one of its own; a third process
    gave one; one of the giver's has been introduced."""
    for name in "ab":
        take(table, name, OWNER)
    take(table, "c", OTHER)
    take(table, "d", THIRD)
    table.on_introduce(Introduce(reference("d", THIRD), GIVER.process))
    take(table, "e", GIVER)
    take(table, "f", OWNER, giver=THIRD)
    orphans = table.peer_lost(GIVER.process)
    assert [entry.object for entry in orphans] == [object_id("e")]
    world.expect((OWNER, AskGone(GIVER.process)), (OTHER, AskGone(GIVER.process)))


def test_gone_breaks_what_waits_for_that_owner_on_that_word(table: Ownership, world: World) -> None:
    """Goal: exactly those; an introduction that comes before Gone still counts.

    Method: two owners' objects from the giver, one of them also from a third process."""
    ours, theirs = take(table, "x", OWNER), take(table, "y", OTHER)
    third = take(table, "x", OWNER, giver=THIRD)
    again = take(table, "x", OWNER)
    table.peer_lost(GIVER.process)
    world.take(AskGone)
    table.on_introduce(Introduce(reference("x", OWNER), GIVER.process))
    table.on_gone(Gone(GIVER.process), OWNER.process)
    assert (ours.told, again.told, theirs.told, third.told) == (["open"], ["lost by giver"], [], [])
    table.on_introduce(Introduce(reference("y", OTHER), GIVER.process))
    table.on_gone(Gone(GIVER.process), OTHER.process)
    table.on_introduce(Introduce(reference("x", OWNER), THIRD.process))
    assert (theirs.told, third.told, table.gates) == (["open"], ["open"], {})
    for key in (X, X, X, Y):
        table.unpin(key)
    world.expect((OWNER, Release(X, 2)), (OTHER, Release(Y, 1)))
    assert table.entries == {}


def test_introduction_after_the_end_of_its_giver(table: Ownership, world: World) -> None:
    """Goal: counted for a reference that never came: given back at once, whether its giver's end or
    the owner's word was seen before it.

    Method: one introduced before the end, one after it, one after Gone had broken its gate."""
    table.on_introduce(Introduce(reference("x", OWNER), GIVER.process))
    broken = take(table, "p", OWNER)
    table.peer_lost(GIVER.process)
    world.expect((OWNER, Release(X, 1)), (OWNER, AskGone(GIVER.process)))
    table.on_introduce(Introduce(reference("y", OWNER), GIVER.process))
    world.expect((OWNER, Release(Y, 1)))
    table.on_gone(Gone(GIVER.process), OWNER.process)
    assert broken.told == ["lost by giver"]
    table.unpin(P)
    table.on_introduce(Introduce(reference("p", OWNER), GIVER.process))
    world.expect((OWNER, Release(P, 1)))
    assert table.entries == {}


def test_value_whose_reference_is_lost_fails_by_name(table: Ownership, world: World) -> None:
    """Goal: who waits for a value is told that its giver died, and what did come is given back.

    Method: a located value with three references: one counted, one lost, one introduced after."""
    taker = waits_for(table, "p", GIVER)
    inner = [reference("x", GIVER), reference("y", OWNER), reference("z", OTHER)]
    table.on_located(Located(P, inline(b"value", *inner)), GIVER)
    assert taker.told == []
    table.lost.add(GIVER.process)  # (its own objects are the role's business)
    table.ask_owners(GIVER.process)
    world.expect((OWNER, AskGone(GIVER.process)), (OTHER, AskGone(GIVER.process)))
    table.on_gone(Gone(GIVER.process), OWNER.process)
    assert taker.told == ["lost by giver"]
    assert table.entries[P].value == failed(b"lost by giver")
    table.on_introduce(Introduce(inner[2], GIVER.process))
    assert taker.told == ["lost by giver"]
    table.drop_handle(P)
    world.expect(
        (GIVER, Release(X, 1)), (OTHER, Release(inner[2].object, 1)), (GIVER, Release(P, 1))
    )
    assert table.entries == {}


def test_known_value_outlives_a_lost_update(table: Ownership, world: World) -> None:
    """Goal: news of a value that cannot be used does not spoil what is known already.

    Method: located twice; the second time with a reference whose introduction is lost."""
    taker = waits_for(table, "p", OTHER)
    table.on_located(Located(P, inline(b"old")), OTHER)
    table.on_located(Located(P, inline(b"new", reference("x", OWNER))), OTHER)
    table.on_gone(Gone(OTHER.process), OWNER.process)
    assert (taker.told, table.entries[P].value) == (["old"], inline(b"old"))
    table.drop_handle(P)
    world.expect((OTHER, Release(P, 1)))
    assert table.entries == {}


def test_late_owner_is_knocked_at(table: Ownership, world: World) -> None:
    """Goal: a taker that has no stream to a dead owner, and came too late to be told, finds out.

    Method: two objects of one owner wait, one of another; a knock at each every PATIENCE, until the
    introductions are in or the knock fails. The owner does not answer a knock."""
    late, never = take(table, "x", OWNER), take(table, "y", OTHER)
    take(table, "p", OWNER)
    world.advance(PATIENCE)
    world.expect((OWNER, AskGone(OWNER.process)), (OTHER, AskGone(OTHER.process)))
    for name in "xp":
        table.on_introduce(Introduce(reference(name, OWNER), GIVER.process))
    world.advance(PATIENCE)
    world.expect((OTHER, AskGone(OTHER.process)))
    table.peer_lost(OTHER.process)
    world.advance(3 * PATIENCE)
    assert (late.told, never.told, table.prober) == (["open"], ["open"], None)
    table.on_ask_gone(AskGone(world.address.process), THIRD)
    world.advance(PATIENCE)
    world.expect()


def test_orphan_is_introduced_by_its_giver(table: Ownership, world: World) -> None:
    """Goal: a reference whose owner is dead can still be handed on: its taker need not have heard.

    Method: we know of the death, the taker does not; then the taker's side, both ways round."""
    orphan = reference("x", OWNER)
    table.peer_lost(OWNER.process)
    table.hand_out(orphan, THIRD)
    word = Introduce(orphan, world.address.process)
    world.expect((THIRD, word))
    orphans: list[Entry] = []
    table.orphaned = orphans.append  # (here rebirth takes over)
    assert take(table, "x", OWNER).gate.waiting == 0  # here it is known
    assert orphans == [table.entries[X]]
    table.on_introduce(Introduce(orphan, GIVER.process))
    table.unpin(X)
    assert table.entries == {}

    taker = Ownership(World(THIRD))
    taker.on_introduce(word)
    assert take(taker, "x", OWNER, giver=world.address).gate.waiting == 0


# -- the owner: answers ----------------------------------------------------------------------------


@pytest.fixture
def owning(table: Ownership) -> Ownership:
    """We own x and count the giver for it."""
    entry = table.own(X)
    entry.handles, entry.holders = 1, {GIVER.process: 1}
    return table


def test_owner_answers_when_it_has_heard_the_giver_out(owning: Ownership, world: World) -> None:
    """Goal: Gone follows every introduction on the giver's word; each asker is told once.

    Method: two ask; the giver's last message comes; then its end; then a third asks."""
    for asker in (OTHER, THIRD):
        owning.on_ask_gone(AskGone(GIVER.process), asker)
    owning.on_provide(Provide(X, OTHER), GIVER.process)
    owning.peer_lost(GIVER.process)
    gone = Gone(GIVER.process)
    introduced = Introduce(reference("x", world.address), GIVER.process)
    world.expect((OTHER, introduced), (OTHER, gone), (THIRD, gone))
    owning.on_ask_gone(AskGone(GIVER.process), OWNER)
    world.expect((OWNER, gone))
    world.advance(2 * PATIENCE)
    world.expect()
    assert (owning.askers, owning.entries[X].holders) == ({}, {OTHER.process: 1})


def test_owner_without_a_stream_to_the_giver_answers_in_time(
    table: Ownership, world: World
) -> None:
    """Goal: a taker does not wait for an end that never comes. Method: PATIENCE, and not less."""
    table.on_ask_gone(AskGone(GIVER.process), OTHER)
    world.advance(PATIENCE - 0.1)
    world.expect()
    world.advance(0.1)
    world.expect((OTHER, Gone(GIVER.process)))
    table.peer_lost(GIVER.process)
    world.expect()


def test_patience_counts_from_the_first_asker(table: Ownership, world: World) -> None:
    """Goal: the giver was dead when the first one asked, so later askers need not wait longer.

    Method: a second asks just before the first one's time is over; its own timer tells nobody."""
    table.on_ask_gone(AskGone(GIVER.process), OTHER)
    world.advance(PATIENCE - 0.1)
    table.on_ask_gone(AskGone(GIVER.process), THIRD)
    world.advance(0.1)
    world.expect((OTHER, Gone(GIVER.process)), (THIRD, Gone(GIVER.process)))
    world.advance(PATIENCE)
    world.expect()


def test_owner_dies_before_it_answers(table: Ownership, world: World) -> None:
    """Goal: two deaths leave nobody waiting: with its owner gone a reference is usable at once."""
    taker = take(table, "x", OWNER)
    table.peer_lost(GIVER.process)
    (orphan,) = table.peer_lost(OWNER.process)
    assert (orphan.object, taker.told, table.gates) == (X, ["open"], {})
    world.expect((OWNER, AskGone(GIVER.process)))


# -- places ----------------------------------------------------------------------------------------


def test_owners_on_a_node(table: Ownership) -> None:
    """Goal: whom a node's death takes along, each once; not ourselves, not those elsewhere."""
    here, there = process("a", "near"), process("b", "far")
    for name, owner in (("x", here), ("y", here), ("z", there)):
        table.entries[object_id(name)] = Entry(object_id(name), owner)
    table.own(P).value = Value(0)
    assert table.owners_on(here.node) == [here]
    assert table.owners_on(there.node) == [there]
    assert table.owners_on(OWNER.node) == []
