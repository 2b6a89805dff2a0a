"""The end of a node in good order: who may ask for it, what keeps it, when it leaves."""

from __future__ import annotations

import pytest

from core.test_objects import OTHER, Store, X
from core.world import World, cpus, info, process
from freehold.core.draining import SAY_AGAIN, TICK, Draining
from freehold.core.moving import Moving
from freehold.wire.draining import CANCELLED, GOES_ON, LEAVES, REFUSED
from freehold.wire.messages import DrainNode, DrainProgress, ObjectTaken, TakeObject

ASKER, SECOND = process("cli"), process("cli 2")


class Bench:
    """A drain whose surroundings a test sets: ``kept`` are leases, workers and drivers."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = Store(world)
        peers = {OTHER.node: info(OTHER, cpus(1), store_bytes=1 << 20)}
        self.moving = Moving(world, self.store.objects, peers)
        self.moving.stays = lambda owner: False
        self.kept = (0, 0, 0)
        self.alone = False
        self.did: list[str] = []
        self.draining = Draining(world, self.moving)
        self.draining.alone = lambda: self.alone
        self.draining.begin = lambda force: self.did.append("force" if force else "begin")
        self.draining.stay = lambda: self.did.append("stay")
        self.draining.tidy = lambda: None
        self.draining.kept_by = lambda: self.kept
        self.draining.leave = self.did.append

    def ask(self, timeout: float = 60.0, *, force: bool = False, cancel: bool = False) -> None:
        self.draining.on_drain(DrainNode(7, timeout, force, cancel), ASKER)

    def told(self) -> DrainProgress:
        return self.world.one(DrainProgress, ASKER)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_an_empty_node_leaves_at_once(bench: Bench, world: World) -> None:
    """Goal: nothing to wait for: begun and over in one step; the head is told until it answers."""
    bench.ask()
    told = bench.told()
    assert (told.request, told.state, told.moved, told.seconds) == (7, LEAVES, 0, 0.0)
    assert bench.did == ["begin", "has left: drained"]
    world.advance(2 * SAY_AGAIN)
    assert bench.did[2:] == ["has left: drained"] * 2


@pytest.mark.parametrize("kept", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_it_waits_for_each_kind(bench: Bench, world: World, kept: tuple[int, int, int]) -> None:
    """Goal: a lease, a worker, a program each keep it; who asked is told at every look."""
    bench.kept = kept
    bench.ask()
    told = bench.told()
    assert (told.state, (told.leases, told.workers, told.drivers)) == (GOES_ON, kept)
    bench.kept = (0, 0, 0)
    world.advance(TICK)
    assert (bench.told().state, bench.did) == (LEAVES, ["begin", "has left: drained"])


def test_it_waits_for_values(bench: Bench, world: World) -> None:
    """Goal: a value keeps it until its owner has freed it here, and the answer has come."""
    bench.store.sealed(X, 2)
    bench.ask()
    assert (bench.told().values, len(world.take(TakeObject, OTHER))) == (1, 1)
    bench.store.objects.on_free(X)
    world.advance(TICK)
    assert bench.told().state == GOES_ON
    bench.moving.on_taken(ObjectTaken(X), OTHER)
    world.advance(TICK)
    told = bench.told()
    assert (told.state, told.moved, told.moved_bytes, told.values) == (LEAVES, 1, 128, 0)


def test_the_end_of_the_time(bench: Bench, world: World) -> None:
    """Goal: it leaves anyway, and everybody is told with what."""
    bench.kept = (2, 1, 0)
    bench.ask(timeout=2 * TICK)
    world.advance(3 * TICK)
    states = [message.state for message in world.take(DrainProgress, ASKER)]
    assert states == [GOES_ON, GOES_ON, LEAVES]
    words = "has left: drained; its time was over, with 2 running tasks, 1 workers still there"
    assert bench.did == ["begin", words]


def test_cancel(bench: Bench, world: World) -> None:
    """Goal: the node stays, who asked first is told, no timer is left; then it can be drained
    anew."""
    bench.kept = (1, 0, 0)
    bench.ask()
    bench.told()
    bench.draining.on_drain(DrainNode(8, 0.0, cancel=True), SECOND)
    assert bench.told().state == CANCELLED
    assert world.one(DrainProgress, SECOND).state == CANCELLED
    assert bench.did == ["begin", "stay"]
    world.advance(100)
    world.expect()
    bench.ask()
    assert bench.told().state == GOES_ON


def test_what_is_refused(bench: Bench, world: World) -> None:
    """Goal: twice, the last node, a cancel of nothing: each a reason, and nothing changes."""
    bench.ask(cancel=True)
    assert bench.told().reason == "it is not being drained"
    bench.alone = True
    bench.ask()
    told = bench.told()
    assert (told.state, "no other node is left" in told.reason) == (REFUSED, True)
    assert bench.did == []
    bench.kept = (0, 0, 1)
    bench.ask(force=True)
    assert (bench.told().state, bench.did) == (GOES_ON, ["force"])
    world.advance(TICK)
    bench.told()
    bench.ask()
    assert "being drained already, since 0 s" in bench.told().reason


def test_too_late_to_cancel(bench: Bench) -> None:
    """Goal: once the head has been told, nobody is promised that the node stays."""
    bench.ask()
    bench.told()
    bench.ask(cancel=True)
    assert "about to leave" in bench.told().reason


def test_who_asked_may_go(bench: Bench, world: World) -> None:
    """Goal: the drain goes on without its asker, and says nothing to nobody."""
    bench.kept = (1, 0, 0)
    bench.ask()
    bench.told()
    bench.draining.peer_lost(ASKER.process)
    bench.kept = (0, 0, 0)
    world.advance(TICK)
    world.expect()
    assert bench.did == ["begin", "has left: drained"]
