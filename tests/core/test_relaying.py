"""Relaying: the tree in which one large object goes to many nodes."""

from __future__ import annotations

import random

import pytest

from core.test_objects import BLOCK, ME, OTHER, READER, WRITER, Store, X, Y, Z, slot
from core.world import World, node
from freehold.core import relaying
from freehold.core.objects import Objects
from freehold.core.relaying import DIRECT, FANOUT, FIRST, RELAYED, Relaying, Sending
from freehold.core.stored import PULLING, SEALED, Stored
from freehold.ids import NodeId
from freehold.wire.messages import (
    Address,
    FetchObject,
    ObjectAt,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
)

A, B, C, D = node("a"), node("b"), node("c"), node("d")


@pytest.fixture
def store(world: World, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(relaying, "RELAY_BYTES", 2 * BLOCK)
    return Store(world)


@pytest.fixture
def relays(store: Store) -> Relaying:
    return Relaying(store.objects)


def sending(answer: Sending | Address | None) -> Sending:
    assert isinstance(answer, Sending)
    return answer


def pulling(store: Store, world: World) -> Stored:
    """A copy of X that is just being received here."""
    store.objects.on_fetch(FetchObject(X, 2 * BLOCK, WRITER, [OTHER], 0), READER)
    store.mover.claim()
    assert store.state(X) == PULLING
    return store.objects.table[X]


def test_the_third_is_sent_to_the_first(store: Store, relays: Relaying) -> None:
    """Goal: two copies leave a node at once; the others are sent on to those two in turn, until one
    of the two is over. A small object goes to everybody.
    """
    store.sealed(X, 2)
    store.sealed(Y, 1)
    to_a = sending(relays.ask(X, A, FIRST))
    sending(relays.ask(X, B, FIRST))
    assert [relays.ask(X, C, FIRST) for _ in range(4)] == [A, B, A, B]
    for asker in (A, B, C, D):
        relays.over(sending(relays.ask(Y, asker, FIRST)))
        sending(relays.ask(Y, asker, FIRST))

    relays.over(to_a)
    sending(relays.ask(X, C, FIRST))
    assert relays.ask(X, D, FIRST) == C  # to B two were sent, to C none yet


def test_who_was_sent_in_vain_gets_it_here(store: Store, relays: Relaying) -> None:
    """Goal: a node that comes back because the one it was sent to had failed is not sent on."""
    store.sealed(X, 2)
    for asker in (A, B):
        sending(relays.ask(X, asker, FIRST))
    assert relays.ask(X, C, FIRST) == A
    sending(relays.ask(X, C, DIRECT))


def test_who_asks_again_is_not_named_for_its_old_link(store: Store, relays: Relaying) -> None:
    """Goal: a node whose link broke unnoticed is never sent to itself, nor others to it; the end of
    the old link does not end the new one.
    """
    store.sealed(X, 2)
    old = sending(relays.ask(X, A, FIRST))
    sending(relays.ask(X, B, FIRST))
    sending(relays.ask(X, A, FIRST))
    relays.over(old)
    assert [relays.ask(X, C, FIRST) for _ in range(2)] == [B, A]
    assert store.objects.table[X].pins == {A.process: 1, B.process: 1}


def test_only_who_was_sent_here_gets_half_a_copy(
    store: Store, relays: Relaying, world: World
) -> None:
    """Goal: what is still arriving goes to nodes that were sent here, and to no others: two that
    take each other for complete must not wait for each other.
    """
    assert relays.ask(X, A, RELAYED) is None
    pulling(store, world)
    assert relays.ask(X, A, FIRST) is None
    assert relays.ask(X, A, DIRECT) is None
    half = sending(relays.ask(X, A, RELAYED))
    assert half.arriving()
    assert not half.from_disk
    sending(relays.ask(X, B, RELAYED))
    assert relays.ask(X, C, RELAYED) == A  # and so the tree goes on

    store.objects.pulled(X, "")
    assert not half.arriving()
    assert store.objects.table[X].pins == dict.fromkeys([A.process, B.process, READER.process], 1)
    world.take(ObjectAt)
    world.take(ObjectReady)


def test_a_copy_without_room_yet_is_not_passed_on(
    store: Store, relays: Relaying, world: World
) -> None:
    """Goal: a copy that waits for room has no place in the arena to send from."""
    store.create(Z, 10)
    world.take(ObjectCreated)
    store.objects.on_fetch(FetchObject(X, 2 * BLOCK, WRITER, [OTHER], 0), READER)
    assert relays.ask(X, A, RELAYED) is None


def test_a_relay_that_fails_leaves_no_pin_behind(
    store: Store, relays: Relaying, world: World
) -> None:
    """Goal: the pins of a copy that failed go with it; the next copy of the same object is not
    unpinned by the end of the old one's links.
    """
    pulling(store, world)
    half = sending(relays.ask(X, A, RELAYED))
    store.objects.fail(store.objects.table[X], "its source is gone")
    world.take(ObjectMissing)
    assert (store.objects.table, store.room.used) == ({}, 0)
    pulling(store, world)
    again = sending(relays.ask(X, A, RELAYED))
    relays.over(half)
    assert store.objects.table[X].pins == {A.process: 1}
    relays.over(again)
    assert store.objects.table[X].pins == {}
    assert relays.sendings == {}


def test_freed_while_it_is_sent(store: Store, relays: Relaying) -> None:
    """Goal: an object stays where it is, in the arena or on disk, until its last copy is sent."""
    store.on_disk(X, 4)
    store.sealed(Y, 2)
    store.mover.claim()
    both = [sending(relays.ask(key, A, FIRST)) for key in (X, Y)]
    assert [one.from_disk for one in both] == [True, False]
    for one in both:
        store.objects.on_free(one.stored.id)
    assert sorted(store.objects.table) == [X, Y]
    for one in both:
        relays.over(one)
    assert (store.objects.table, store.mover.claim()) == ({}, [("discard", slot(X))])


class Forest:
    """Many nodes that all want one object, their links, and what each has received."""

    def __init__(self, store: Store, count: int) -> None:
        self.root = ME
        self.relays = {ME.node: Relaying(store.objects)}
        self.addresses = [node(f"n{index}") for index in range(count)]
        for address in self.addresses:
            other = Objects(World(address), store.room, store.mover)
            self.relays[address.node] = Relaying(other)
        self.links: dict[NodeId, tuple[NodeId, Sending]] = {}

    def ask(self, asker: Address, manner: int = FIRST) -> None:
        """Follow the answers until one sends."""
        asked = self.root
        for _ in range(len(self.addresses) + 1):
            answer = self.relays[asked.node].ask(X, asker, manner)
            if isinstance(answer, Sending):
                self.links[asker.node] = (asked.node, answer)
                copy = Stored(X, 2 * BLOCK, WRITER, PULLING)
                copy.offset = 0
                self.relays[asker.node].objects.table[X] = copy
                return
            assert answer is not None
            asked, manner = answer, RELAYED
        raise AssertionError("sent from one to the next without end")

    def done(self, child: NodeId) -> None:
        """All of it has arrived there."""
        self.relays[child].objects.table[X].state = SEALED
        parent, answer = self.links.pop(child)
        self.relays[parent].over(answer)

    def broken(self, child: NodeId) -> list[NodeId]:
        """Its link breaks, and those of all behind it. Returns all that have to ask again."""
        parent, answer = self.links.pop(child)
        self.relays[parent].over(answer)
        lost = [child]
        for other in [key for key, (above, _) in self.links.items() if above == child]:
            lost += self.broken(other)
        self.relays[child].objects.table.pop(X)
        return lost

    def depth(self, child: NodeId) -> int:
        """Links to the next complete copy. Raises KeyError if there is none."""
        steps = 0
        while self.relays[child].objects.table[X].state == PULLING:
            child, steps = self.links[child][0], steps + 1
            assert steps <= len(self.addresses), "a circle"
        return steps


def test_eight_nodes_form_a_balanced_tree(store: Store) -> None:
    """Goal: eight nodes that ask at once get a tree of three levels, with two links from each."""
    store.sealed(X, 2)
    forest = Forest(store, 8)
    for address in forest.addresses:
        forest.ask(address)
    assert [forest.depth(a.node) for a in forest.addresses] == [1, 1, 2, 2, 2, 2, 3, 3]


@pytest.mark.parametrize("seed", range(20))
def test_every_order_of_questions_ends_and_breaks(store: Store, seed: int) -> None:
    """Goal: whoever asks when, whatever arrives or breaks: a way leads to a complete copy, nobody
    waits in a circle, and nobody sends to more than ``FANOUT`` but those that came back.

    Method: 30 nodes, random steps; when a link breaks, all behind it ask again, some directly.
    """
    store.sealed(X, 2)
    forest, rng = Forest(store, 30), random.Random(seed)
    waiting = list(forest.addresses)
    came_back = 0
    while waiting or forest.links:
        step = rng.random()
        if waiting and step < 0.6:
            address = waiting.pop(rng.randrange(len(waiting)))
            direct = came_back < 10 and rng.random() < 0.1
            came_back += direct
            forest.ask(address, DIRECT if direct else FIRST)
        elif forest.links and step < 0.9:
            first = [child for child in forest.links if forest.depth(child) == 1]
            forest.done(rng.choice(first))
        elif forest.links and came_back < 10:
            lost = forest.broken(rng.choice(list(forest.links)))
            waiting += [a for a in forest.addresses if a.node in lost]
            came_back += 1
        for child in forest.links:
            forest.depth(child)
        for relays in forest.relays.values():
            assert len(relays.sendings.get(X, {})) <= FANOUT + came_back
    assert all(relays.sendings == {} for relays in forest.relays.values())
