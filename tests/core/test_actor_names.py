"""The head's names of actors: first come first served, free at the end, durable."""

from __future__ import annotations

import pytest

from core.journals import Memory
from core.owners import Bench
from core.world import World, cpus, info, job, node, object_id, process
from freehold.roles.acting import TELL_AGAIN
from freehold.roles.head import Head
from freehold.wire.messages import Address, JobStarted, JoinCluster, NodeChanged, ProcessLost
from freehold.wire.names import ActorsFound, FindActors, NameActor, NamedActor, UnnameActor

ONE, TWO = node("one"), node("two")
ANN, BOB = process("ann", "one"), process("bob", "two")


@pytest.fixture
def journal() -> Memory:
    return Memory()


@pytest.fixture
def head(world: World, journal: Memory) -> Head:
    """A head with two nodes, and a job with a namespace."""
    world.address = node("head")
    made = Head(world, journal, 10.0)
    for address in (ONE, TWO):
        made.handle(JoinCluster(info(address, cpus(1))), address)
    made.handle(JobStarted(job("j"), ANN, 1, [], "/", True, namespace="space"), ONE)
    world.sent.clear()
    return made


def actor(name: str, owner: Address, key: str, namespace: str = "space") -> NamedActor:
    return NamedActor(namespace, name, object_id(key), owner, b"kind")


def found(head: Head, namespace: str = "space", name: str = "", **how: bool) -> list[NamedActor]:
    """What the head finds."""
    head.handle(FindActors(1, job("j"), namespace, name, **how), BOB)
    return head.world.one(ActorsFound, BOB).actors  # type: ignore[attr-defined,no-any-return]


def test_the_first_has_it(head: Head, world: World) -> None:
    """Goal: of two that ask for a name one gets it, and the other learns whose it is. Method: two
    owners; a namespace of its own; the job's is meant if none is said."""
    head.handle(NameActor(7, job("j"), actor("x", ANN, "a", "")), ANN)
    head.handle(NameActor(8, job("j"), actor("x", BOB, "b")), BOB)
    head.handle(NameActor(9, job("j"), actor("x", BOB, "c", "other")), BOB)
    first, other = actor("x", ANN, "a"), actor("x", BOB, "c", "other")
    world.expect(
        (ANN, ActorsFound(7, [first])),
        (BOB, ActorsFound(8, [first])),
        (BOB, ActorsFound(9, [other])),
    )
    assert found(head, "", "x") == [first]
    assert found(head, everywhere=True) == [first, other]
    assert found(head, "other") == [other]
    assert found(head, name="y") == []


def test_it_is_free_when_the_actor_has_ended(head: Head, world: World, journal: Memory) -> None:
    """Goal: a name ends by its owner's word, with the owner's process, or with its node; a late
    word
    does not take it from the next. Method: each in turn."""
    for name, owner in (("x", ANN), ("y", ANN), ("z", BOB)):
        head.handle(NameActor(1, job("j"), actor(name, owner, name)), owner)
    head.handle(UnnameActor(object_id("x")), ANN)
    head.handle(NameActor(1, job("j"), actor("x", BOB, "new")), BOB)
    head.handle(UnnameActor(object_id("x")), ANN)
    world.sent.clear()
    assert [a.object for a in found(head, name="x")] == [object_id("new")]
    head.handle(ProcessLost(ANN.process), ONE)
    assert found(head, name="y") == []
    head.handle(NodeChanged(info(TWO, {}, alive=False, reason="drained")), TWO)
    world.sent.clear()
    assert found(head, everywhere=True) == []
    assert not any(key in journal.kept for key in map(object_id, ("x", "y", "z", "new")))


def test_a_dead_owner_gets_no_name(head: Head, world: World, journal: Memory) -> None:
    """Goal: no name stays for ever. Method: an owner's last word comes after the word of its end,
    and one after that of its node's."""
    head.handle(ProcessLost(ANN.process), ONE)
    head.handle(NameActor(1, job("j"), actor("x", ANN, "a")), ANN)
    head.handle(NodeChanged(info(TWO, {}, alive=False, reason="drained")), TWO)
    head.handle(NameActor(1, job("j"), actor("y", BOB, "b")), BOB)
    assert world.take(ActorsFound) == []
    world.sent.clear()
    assert found(head, everywhere=True) == []
    assert not any(key in journal.kept for key in map(object_id, ("a", "b")))


def test_names_outlive_the_head(head: Head, world: World, journal: Memory) -> None:
    """Goal: a head that begins again has the names, less those of processes that ended meanwhile.
    Method: two names; one owner ends while there is no head, and its node tells that."""
    head.handle(NameActor(1, job("j"), actor("x", ANN, "a")), ANN)
    head.handle(NameActor(1, job("j"), actor("y", BOB, "b")), BOB)
    again = Head(world, journal, 10.0)
    again.handle(JoinCluster(info(TWO, cpus(1)), ended=[BOB.process]), TWO)
    world.sent.clear()
    assert found(again, everywhere=True) == [actor("x", ANN, "a")]


def test_the_end_of_a_name_is_told_to_the_next_head(world: World) -> None:
    """Goal: a head that ends before it has read that a name is free leaves no name behind. Method:
    an owner's actor has ended; the owner's stream to the head ends, and again; each time it tells
    the head after a while, and nobody when another stream has ended."""
    owner, head = Bench(world).owner, node("head")
    ended = object_id("a")
    owner.acting.begin_naming(ended, head)
    owner.acting.unname(ended)
    world.expect((head, UnnameActor(ended)))
    for _ in range(2):
        owner.peer_lost(head)
        world.expect()
        world.advance(TELL_AGAIN)
        world.expect((head, UnnameActor(ended)))
    owner.peer_lost(BOB)
    world.advance(TELL_AGAIN)
    world.expect()
