"""Detached actors at the head: a steward for each, the name kept free for it, restarts counted."""

from __future__ import annotations

import pytest

from core.journals import Memory
from core.world import World, cpus, info, job, node, object_id, process
from freehold.core.detached import LEFT, PATIENCE, SOON
from freehold.roles.head import Head
from freehold.wire.detached import (
    Blueprint,
    BlueprintRead,
    MakeDetached,
    ReadBlueprint,
    RestartsLeft,
    StartSteward,
)
from freehold.wire.messages import (
    Address,
    Creation,
    JoinCluster,
    Message,
    NodeChanged,
    ProcessLost,
)
from freehold.wire.names import ActorsFound, FindActors, NameActor, NamedActor, UnnameActor

ONE, TWO = node("one"), node("two")
ANN, BOB = process("ann", "one"), process("bob", "two")
FIRST, SECOND, THIRD = (process(name, "one") for name in ("first", "second", "third"))
START = StartSteward(b"x")


def blueprint(name: str = "x", restarts: int = 1) -> Blueprint:
    return Blueprint(
        name.encode(),
        "space",
        name,
        b"kind",
        "Class",
        b"code",
        b"args",
        {},
        Creation(),
        restarts,
        None,
        None,
        ["/src"],
        "/",
    )


def actor(owner: Address, key: bytes = b"x") -> NamedActor:
    """The actor that a steward makes."""
    made = object_id(owner.process.decode())
    return NamedActor("space", key.decode(), made, owner, b"kind", key)


class Bench:
    """A head with two nodes."""

    def __init__(self, world: World, journal: Memory) -> None:
        self.world = world
        self.journal = journal
        world.address = node("head")
        self.head = Head(world, journal, 10.0)
        for address in (ONE, TWO):
            self.head.handle(JoinCluster(info(address, cpus(1))), address)
        world.sent.clear()

    def say(self, message: Message, peer: Address) -> None:
        self.head.handle(message, peer)

    def make(self, restarts: int = 1) -> None:
        """Ann asks for an actor, and its first steward has come up."""
        self.say(MakeDetached(1, job(), blueprint(restarts=restarts)), ANN)
        self.say(NameActor(2, job(), actor(FIRST)), FIRST)
        self.world.sent.clear()

    def restart_head(self, *nodes: Address) -> None:
        """Another head begins, and these nodes call it."""
        self.world.alarms.clear()
        self.head = Head(self.world, self.journal, 10.0)
        for address in nodes:
            self.say(JoinCluster(info(address, cpus(1))), address)
        self.world.sent.clear()

    def left(self) -> int | None:
        """The restarts that are left; None: there is no such actor."""
        self.say(ReadBlueprint(9, b"x"), BOB)
        found = self.world.one(BlueprintRead, BOB).blueprint
        return found.restarts if found is not None else None


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world, Memory())


def test_a_steward_is_started_and_everybody_waits_for_it(bench: Bench, world: World) -> None:
    """Goal: who asks for the actor, or for its name, is answered when it has an owner. Method: its
    program, the same once more (it may repeat its question), another that wants the name for a
    detached actor, one for a plain actor, and one that looks for it."""
    made = actor(FIRST)
    bench.say(MakeDetached(1, job(), blueprint()), ANN)
    world.expect((ONE, START))
    bench.say(MakeDetached(2, job(), blueprint()), ANN)
    other = blueprint()
    other.key = b"other"
    bench.say(MakeDetached(3, job(), other), BOB)
    plain = NamedActor("space", "x", object_id("plain"), BOB, b"kind")
    bench.say(NameActor(4, job(), plain), BOB)
    bench.say(FindActors(5, job(), "space", "x"), BOB)
    world.nothing_left()
    bench.say(ReadBlueprint(1, b"x"), FIRST)
    world.expect((FIRST, BlueprintRead(1, blueprint())))
    bench.say(NameActor(2, job(), made), FIRST)
    world.expect(
        (FIRST, ActorsFound(2, [made])),
        (ANN, ActorsFound(1, [made])),
        (ANN, ActorsFound(2, [made])),
        (BOB, ActorsFound(3, [made])),
        (BOB, ActorsFound(4, [made])),
        (BOB, ActorsFound(5, [made])),
    )
    assert b"other" not in bench.journal.kept
    world.advance(PATIENCE)
    assert world.take(StartSteward) == []


def test_a_steward_that_does_not_come_is_started_again(bench: Bench, world: World) -> None:
    """Goal: no lost message and no dead node leaves a program waiting; one steward too many does
    no harm. Method: nothing comes from the first, whose node dies; the next two come both."""
    bench.say(MakeDetached(1, job(), blueprint()), ANN)
    world.expect((ONE, START))
    bench.head.membership.lost(ONE.node, "lost power")
    world.sent.clear()
    world.advance(PATIENCE)
    world.expect((TWO, START))
    late, later = process("late", "two"), process("later", "two")
    bench.say(NameActor(1, job(), actor(late)), late)
    bench.say(NameActor(1, job(), actor(later)), later)
    assert world.take(ActorsFound, late) == [ActorsFound(1, [actor(late)])]
    assert world.take(ActorsFound, later) == [ActorsFound(1, [actor(late)])]
    world.sent.clear()


@pytest.mark.parametrize("with_node", [False, True])
def test_an_actor_outlives_its_steward_by_a_restart(
    bench: Bench, world: World, with_node: bool
) -> None:
    """Goal: a steward that dies is followed by another, which counts as one restart; with none left
    the actor is gone, and its name free. Method: two stewards die, by themselves or with their
    node; a finder in between waits."""
    bench.make(restarts=1)
    if with_node:
        bench.say(NodeChanged(info(ONE, {}, alive=False, reason="drained")), ONE)
    else:
        bench.say(ProcessLost(FIRST.process), ONE)
    assert world.take(StartSteward, TWO if with_node else ONE) == [START]
    bench.say(FindActors(5, job(), "space", "x"), BOB)
    assert world.take(ActorsFound) == []
    assert bench.left() == 0
    second = process("second", "two")
    bench.say(NameActor(2, job(), actor(second)), second)
    assert world.one(ActorsFound, BOB).actors == [actor(second)]
    world.sent.clear()
    bench.say(ProcessLost(second.process), TWO)
    assert world.take(StartSteward) == []
    bench.say(FindActors(6, job(), "space", "x"), BOB)
    assert world.one(ActorsFound, BOB).actors == []
    assert bench.left() is None
    assert not {b"x", b"x" + LEFT} & bench.journal.kept.keys()
    world.sent.clear()


def test_restarts_by_the_steward_count_too(bench: Bench, world: World) -> None:
    """Goal: no more restarts than were allowed, whoever makes them. Method: the steward uses two of
    three; the head is restarted, the steward dies; the next may do none."""
    bench.make(restarts=3)
    bench.say(RestartsLeft(b"x", 2), FIRST)
    bench.say(RestartsLeft(b"x", 1), FIRST)
    bench.restart_head(ONE)
    bench.say(ProcessLost(FIRST.process), ONE)
    world.expect((ONE, START))
    assert bench.left() == 0


def test_endless_restarts_stay_endless(bench: Bench, world: World) -> None:
    """Goal: -1 is not a number to count down. Method: three stewards."""
    bench.make(restarts=-1)
    for before, after in ((FIRST, SECOND), (SECOND, THIRD)):
        bench.say(ProcessLost(before.process), ONE)
        bench.say(NameActor(2, job(), actor(after)), after)
        assert bench.left() == -1
        world.sent.clear()


def test_only_the_steward_says_that_it_has_ended(bench: Bench, world: World) -> None:
    """Goal: a finder that cannot reach the steward does not end the actor, nor make it twice; the
    steward's word ends it for good. Method: the same message from both; then a late steward."""
    bench.make()
    bench.say(UnnameActor(actor(FIRST).object), BOB)
    bench.say(FindActors(5, job(), "space", "x"), BOB)
    world.expect((BOB, ActorsFound(5, [actor(FIRST)])))
    bench.say(UnnameActor(actor(FIRST).object), FIRST)
    bench.say(ProcessLost(FIRST.process), ONE)
    assert world.take(StartSteward) == []
    world.sent.clear()
    assert bench.left() is None
    bench.say(NameActor(2, job(), actor(SECOND)), SECOND)
    world.expect((SECOND, ActorsFound(2, [])))
    assert bench.journal.kept.keys() == {ONE.node, TWO.node}


def test_a_new_head_knows_its_detached_actors(bench: Bench, world: World) -> None:
    """Goal: a restart of the head neither loses an actor nor makes one twice. Method: one has its
    steward, whose word goes on; of the other nothing is known but that it was asked for."""
    bench.make()
    other = blueprint("y")
    bench.say(MakeDetached(1, job(), other), BOB)
    bench.restart_head()
    world.advance(SOON)
    world.nothing_left()
    bench.say(JoinCluster(info(TWO, cpus(1))), TWO)
    world.sent.clear()
    world.advance(SOON)
    world.expect((TWO, StartSteward(b"y")))
    bench.say(FindActors(5, job(), "space", "x"), BOB)
    world.expect((BOB, ActorsFound(5, [actor(FIRST)])))


def test_stewards_that_died_without_a_head(bench: Bench, world: World) -> None:
    """Goal: a steward's death that a node tells afterwards is a death; so is that of a node which
    the journal has as gone, with the rest of the record torn off. Method: both."""
    bench.make()
    again = Head(world, bench.journal, 10.0)
    again.handle(JoinCluster(info(ONE, cpus(1)), ended=[FIRST.process]), ONE)
    assert world.take(StartSteward, ONE) == [START]
    world.sent.clear()
    bench.journal.put(ONE.node, NodeChanged(info(ONE, {}, alive=False, reason="lost power")))
    bench.journal.put(actor(FIRST).object, NameActor(1, job(), actor(FIRST)))
    third = Head(world, bench.journal, 10.0)
    assert third.names.actors == {}
    assert [kept.left for kept in third.detached.kept.values()] == []


def test_a_drained_node_gets_no_steward(bench: Bench, world: World) -> None:
    """Goal: it would have to leave again. Method: the older node is drained; then both are."""
    info_one, info_two = info(ONE, cpus(1)), info(TWO, cpus(1))
    info_one.draining = True
    bench.say(NodeChanged(info_one), ONE)
    world.sent.clear()
    bench.say(MakeDetached(1, job(), blueprint()), ANN)
    world.expect((TWO, START))
    info_two.draining = True
    bench.say(NodeChanged(info_two), TWO)
    world.sent.clear()
    world.advance(PATIENCE)
    world.expect((ONE, START))
