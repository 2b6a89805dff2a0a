"""A drain, seen from the three roles that take part in it: the node, the owner, the head."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from core.journals import Memory
from core.owners import Bench as OwnerBench
from core.world import World, cpus, failed, info, job, lease, node, object_id, process, stored
from freehold.ids import ObjectId
from freehold.roles.head import Head
from freehold.wire.draining import GOES_ON, LEAVES
from freehold.wire.messages import (
    Address,
    AssignJob,
    CreateObject,
    DrainNode,
    DrainProgress,
    FreeObjects,
    JobEnded,
    JobStarted,
    JoinCluster,
    KeepObject,
    LeaseGranted,
    LeaseWanted,
    NodeChanged,
    NodeReport,
    ObjectCreated,
    ObjectMoved,
    ObjectTaken,
    ProcessLost,
    ReturnLease,
    SealObject,
    Stop,
    TakeObject,
)
from roles.test_node import DRIVER, HEAD, NEAR, OTHER_DRIVER
from roles.test_node import Bench as NodeBench

ASKER = process("cli")
X = object_id("x")


# --- the node ------------------------------------------------------------------------------------


@pytest.fixture
def bench(world: World) -> NodeBench:
    """A node with another one beside it, and a driver there."""
    made = NodeBench(world)
    made.say(NodeChanged(info(NEAR, cpus(1), store_bytes=1 << 20)), HEAD)
    made.say(JobStarted(job("job2"), OTHER_DRIVER, 9, [], "/", True), HEAD)
    return made


def test_from_the_first_word_to_the_last(bench: NodeBench, world: World) -> None:
    """Goal: the whole of it in order: everybody knows at once, the lease comes back, the value
    moves, the worker goes, the head is told, and nothing else is said.

    Method: one lease of a driver elsewhere, one value of its."""
    one, two = bench.worker(1), bench.worker(2)
    bench.request(1, OTHER_DRIVER, name="job2")
    leased = world.one(LeaseGranted, OTHER_DRIVER).worker
    idle = two if leased == one else one
    bench.say(CreateObject(X, 100, OTHER_DRIVER, job("job2")), leased)
    bench.say(SealObject(X), leased)
    world.take(AssignJob), world.take(ObjectCreated)

    bench.say(DrainNode(1, 60.0), ASKER)
    assert world.one(NodeChanged, HEAD).info.draining
    assert world.one(DrainProgress, ASKER).state == GOES_ON
    world.expect(
        (OTHER_DRIVER, LeaseWanted(lease(1))),
        (NEAR, TakeObject(X, 100, OTHER_DRIVER, job("job2"))),
        (idle, Stop(hand_over=True)),
    )
    bench.say(ObjectTaken(X), NEAR)
    bench.say(ReturnLease(lease(1)), OTHER_DRIVER)
    bench.say(FreeObjects([X]), OTHER_DRIVER)
    world.advance(0.25)
    assert world.one(Stop, leased) == Stop(hand_over=True)
    for start in (1, 2):
        bench.lost(start)
    world.take(ProcessLost)
    world.sent.clear()
    world.advance(0.25)
    last = world.one(DrainProgress, ASKER)
    assert (last.state, last.moved, last.moved_bytes) == (LEAVES, 1, 100)
    said = world.take(NodeChanged, HEAD)[-1].info
    assert (said.alive, said.reason, said.draining) == (False, "has left: drained", True)
    world.take(NodeReport)


def test_a_drained_node_takes_nothing_over(bench: NodeBench, world: World) -> None:
    """Goal: two drained nodes do not hand a value to and fro."""
    bench.worker(1)
    bench.say(DrainNode(1, 60.0), ASKER)
    world.sent.clear()
    bench.say(TakeObject(X, 100, OTHER_DRIVER, job("job2")), NEAR)
    world.expect((NEAR, ObjectTaken(X, "it is being drained itself")))
    bench.say(DrainNode(2, 0.0, cancel=True), ASKER)
    world.sent.clear()
    bench.say(TakeObject(X, 100, OTHER_DRIVER, job("job2")), NEAR)
    assert X in bench.node.objects.table
    assert not bench.node.reporting.snapshot().draining


def test_force_ends_the_programs_here(bench: NodeBench, world: World) -> None:
    """Goal: each is told, and its job ends as if it had left."""
    bench.driver()
    bench.say(DrainNode(1, 60.0, force=True), ASKER)
    world.one(Stop, DRIVER)
    assert world.one(JobEnded, HEAD).job == job()
    assert bench.node.drivers == {}
    world.sent.clear()


def test_the_values_of_a_program_here_stay(bench: NodeBench, world: World) -> None:
    """Goal: they would come back with its next get. Method: a value of our own driver."""
    bench.driver()
    bench.say(CreateObject(X, 100, DRIVER, job()), DRIVER)
    bench.say(SealObject(X), DRIVER)
    bench.say(DrainNode(1, 60.0), ASKER)
    assert world.take(TakeObject) == []
    assert world.one(DrainProgress).drivers == 1
    world.sent.clear()


# --- the owner -----------------------------------------------------------------------------------

FROM, TO, THIRD = node("from"), node("to"), node("third")


@dataclass
class Story:
    """What the owner knows of X when it hears of the move, and what becomes of the copies."""

    nodes: list[Address]
    then: list[Address]
    freed: list[Address]


STORIES = {
    "known there": Story([FROM], [TO], [FROM]),
    "one of several": Story([THIRD, FROM], [TO, THIRD], [FROM]),
    "known in both places": Story([FROM, TO], [TO], [FROM]),
    "told twice": Story([TO], [TO], [FROM]),
    "known elsewhere": Story([THIRD], [THIRD], [TO, FROM]),
}


@pytest.mark.parametrize("name", STORIES)
def test_a_value_has_moved(world: World, name: str) -> None:
    """Goal: the value names its new place, which is told so, and every copy that it does not name
    is freed."""
    bench, story = OwnerBench(world), STORIES[name]
    bench.owner.put(X, stored(100, *story.nodes))
    bench.say(ObjectMoved(X, FROM, TO), TO)
    assert bench.owner.value(X).nodes == story.then
    kept = [] if TO in story.freed else [(TO, KeepObject(X))]
    world.expect(*kept, *((place, FreeObjects([X])) for place in story.freed))


def test_a_move_of_what_is_not_known_yet(world: World) -> None:
    """Goal: the copy that a coming answer or put will name is not freed; the other one is.

    Method: a put that has room and is not entered; then a result whose task is not answered."""
    bench = OwnerBench(world)
    bench.owner.create(X, 100, bench.owner.world.address, lambda: None)
    assert bench.owner.making == {X}
    world.take(CreateObject)
    bench.say(ObjectMoved(X, FROM, TO), TO)
    bench.owner.put(X, stored(100, FROM))
    world.expect((TO, FreeObjects([X])))
    assert not bench.owner.making

    result = ObjectId(object_id("result"))
    bench.owner.ownership.own(result)
    bench.say(ObjectMoved(result, FROM, TO), TO)
    world.expect((TO, FreeObjects([result])))


@pytest.mark.parametrize("what", ["freed", "an error"])
def test_a_move_of_what_is_no_more(world: World, what: str) -> None:
    """Goal: both copies go. Method: the value was freed meanwhile, or is an error now."""
    bench = OwnerBench(world)
    if what == "an error":
        bench.owner.put(X, failed())
    bench.say(ObjectMoved(X, FROM, TO), TO)
    world.expect((TO, FreeObjects([X])), (FROM, FreeObjects([X])))


def test_a_put_without_room_is_not_awaited(world: World) -> None:
    """Goal: nothing is remembered of a put that was refused."""
    bench = OwnerBench(world)
    bench.owner.create(X, 100, bench.owner.world.address, lambda: None)
    world.take(CreateObject)
    bench.say(ObjectCreated(X, -1, "full"), FROM)
    assert not bench.owner.making


# --- the head ------------------------------------------------------------------------------------


def test_a_node_that_was_drained_leaves(world: World) -> None:
    """Goal: the others hear that it has left, and why; it is told to stop, as often as it asks.

    Method: two nodes, one leaves, twice."""
    world.address = node("head")
    head = Head(world, Memory(), 10.0)
    for address in (FROM, TO):
        head.handle(JoinCluster(info(address, cpus(1))), address)
    world.sent.clear()
    leaving = info(FROM, cpus(1), draining=True)
    head.handle(NodeChanged(leaving), FROM)
    world.expect((TO, NodeChanged(leaving)))
    last = info(FROM, cpus(1), draining=True, alive=False, reason="has left: drained")
    head.handle(NodeChanged(last), FROM)
    told = world.one(NodeChanged, TO).info
    assert (told.alive, told.reason, told.draining) == (False, "has left: drained", True)
    world.expect((FROM, Stop()))
    head.handle(NodeChanged(last), FROM)
    world.expect((FROM, Stop()))
    assert list(head.membership.members) == [TO.node]
