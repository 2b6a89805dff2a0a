"""One node's lease requests: which are granted, in what order, and what waiting ones are told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from core.world import World, cpus, info, job, lease, node, process
from freehold import resources
from freehold.core.scheduling import ASK_AFTER, EXPLAIN_AFTER, MAX_HOPS, PATIENCE, Scheduling
from freehold.core.workers import Worker
from freehold.ids import JobId, LeaseId
from freehold.resources import UNIT
from freehold.wire.messages import (
    Address,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LeaseWanted,
    RequestLease,
    StillQueued,
)

OWNER, RIVAL = process("owner"), process("rival")
NEAR, FAR = node("near"), node("far")
GRACE = 10.0


class Bench:
    """A node's scheduling; every grant gets a worker at once, unless ``hire`` is off."""

    def __init__(self, world: World, total: dict[str, int]) -> None:
        self.world = world
        self.scheduling = Scheduling(world, total, GRACE)
        self.jobs = {job()}
        self.hire = True
        self.unwanted: list[LeaseId] = []
        self.freed: list[Worker] = []
        self.workers: dict[LeaseId, Worker] = {}
        self.scheduling.job_known = self.jobs.__contains__
        self.scheduling.want_worker = self.want
        self.scheduling.unwant_worker = self.unwanted.append
        self.scheduling.worker_free = self.freed.append

    def want(self, wanted: LeaseId, job_id: JobId) -> None:
        if self.hire:
            worker = self.workers[wanted] = Worker(len(self.workers))
            worker.address, worker.lease = process(f"w{len(self.workers)}"), wanted
            self.scheduling.given(wanted, worker)

    def request(
        self,
        number: int,
        resources: dict[str, int],
        *,
        owner: Address = OWNER,
        depth: int = 0,
        hops: int = 0,
        job_id: JobId | None = None,
    ) -> None:
        message = RequestLease(lease(number), owner, job_id or job(), resources, depth, hops, "f")
        self.scheduling.on_request(message)

    def granted(self) -> list[int]:
        """Claim the grants."""
        return [number(message.lease) for message in self.world.take(LeaseGranted)]

    def give_back(self, which: int, owner: Address = OWNER) -> None:
        self.scheduling.on_return(lease(which), owner.process)

    def conserved(self) -> None:
        """total = free + held."""
        held: dict[str, int] = {}
        for granted in self.scheduling.granted.values():
            for name, amount in granted.held().items():
                held[name] = held.get(name, 0) + amount
        for name, amount in self.scheduling.total.items():
            assert self.scheduling.free[name] + held.get(name, 0) == amount


def number(lease_id: LeaseId) -> int:
    return int.from_bytes(lease_id, "big")


@pytest.fixture
def bench(world: World) -> Bench:
    world.address = node()
    return Bench(world, cpus(2))


def test_granted_while_free_then_queued_then_granted(bench: Bench, world: World) -> None:
    """Goal: requests wait in order for what is returned. Method: three of 1 CPU on two CPUs."""
    for n in (1, 2, 3):
        bench.request(n, cpus(1))
    assert bench.granted() == [1, 2]
    bench.give_back(1)
    assert bench.granted() == [3]
    assert bench.freed == [bench.workers[lease(1)]]
    bench.conserved()


def test_children_before_siblings(bench: Bench) -> None:
    """Goal: deeper first, then in order of arrival. Method: a mixed queue behind a full node."""
    bench.request(1, cpus(2))
    for n, depth in ((2, 0), (3, 2), (4, 1), (5, 2)):
        bench.request(n, cpus(2), depth=depth)
    order = bench.granted()
    while len(order) < 5:
        bench.give_back(order[-1])
        order += bench.granted()
    assert order == [1, 3, 5, 4, 2]


def test_small_pass_a_big_one_until_its_patience(bench: Bench, world: World) -> None:
    """Goal: a request that does not fit is passed for PATIENCE, then nothing it needs is granted.

    Method: 1 of 2 CPUs held; a request for both; small ones before and after its patience; one that
    needs no CPU passes at any time."""
    bench.request(1, cpus(1))
    bench.request(2, cpus(2))
    bench.request(3, cpus(1))
    assert bench.granted() == [1, 3]
    bench.give_back(3)
    world.advance(PATIENCE + 1)
    world.take(LeaseWanted), world.take(StillQueued)
    bench.request(4, cpus(1))
    bench.request(5, {})
    assert bench.granted() == [5]
    bench.give_back(1)
    assert bench.granted() == [2]
    bench.give_back(2)
    assert bench.granted() == [4]


def test_redirected_to_the_node_with_most_room(bench: Bench, world: World) -> None:
    """Goal: what does not fit now goes where it does; the picture of that node is debited at once.

    Method: two peers with 2 and 1 CPUs free; four requests of 1 CPU on a full node."""
    bench.scheduling.peers = {
        NEAR.node: info(NEAR, cpus(4), cpus(1)),
        FAR.node: info(FAR, cpus(4), cpus(2)),
    }
    bench.request(1, cpus(2))
    for n in (2, 3, 4, 5):
        bench.request(n, cpus(1), hops=n)
    assert bench.granted() == [1]
    world.expect(
        (OWNER, LeaseRedirected(lease(2), FAR, 3)),
        (OWNER, LeaseRedirected(lease(3), NEAR, 4)),
        (OWNER, LeaseRedirected(lease(4), FAR, 5)),
    )
    assert [number(queued.wire.lease) for queued in bench.scheduling.queue] == [5]


def test_one_look_at_the_peers_serves_all_requests_of_a_kind(
    bench: Bench, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: what a full node has to do does not grow with its requests times the nodes. Method: 17
    requests of one kind and one of another wait; the fits that an event looks at are counted."""
    for number in range(20):
        peer = node(f"peer{number}")
        bench.scheduling.peers[peer.node] = info(peer, cpus(4), cpus(0))
    for number in range(18):
        bench.request(number, cpus(1.5))
    looks: list[Mapping[str, int]] = []

    def counted(request: Mapping[str, int], free: Mapping[str, int]) -> bool:
        looks.append(request)
        return fits(request, free)

    fits = resources.fits
    monkeypatch.setattr(resources, "fits", counted)
    bench.request(18, cpus(1))
    assert len(looks) < 100  # two kinds, 20 peers, and what is asked of this node itself
    assert bench.granted() == [0]
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4), cpus(3))
    bench.scheduling.dispatch()
    assert len(world.take(LeaseRedirected)) == 2


def test_hops_are_limited(bench: Bench, world: World) -> None:
    """Goal: no endless tour. Method: at MAX_HOPS - 1 it is sent on, at MAX_HOPS it stays."""
    bench.scheduling.peers = {NEAR.node: info(NEAR, cpus(4))}
    bench.request(1, cpus(2))
    bench.request(2, cpus(1), hops=MAX_HOPS - 1)
    bench.request(3, cpus(1), hops=MAX_HOPS)
    assert bench.granted() == [1]
    world.expect((OWNER, LeaseRedirected(lease(2), NEAR, MAX_HOPS)))


def test_too_big_for_here_goes_to_a_busy_node_that_is_big_enough(
    bench: Bench, world: World
) -> None:
    """Goal: a request that can never fit here does not wait here. Method: the peer is full now."""
    bench.scheduling.peers = {NEAR.node: info(NEAR, cpus(8), {})}
    bench.request(1, cpus(4))
    world.expect((OWNER, LeaseRedirected(lease(1), NEAR, 1)))


def test_infeasible_waits_for_the_grace_then_fails(bench: Bench, world: World) -> None:
    """Goal: what no node can hold is explained at once and refused after the grace.

    Method: a GPU on a node without; the words name what is needed, what there is and what lacks."""
    bench.request(1, {"CPU": UNIT, "GPU": UNIT})
    world.advance(ASK_AFTER)
    why = world.one(StillQueued, OWNER).reason
    assert why.startswith("CPU 1, GPU 1 is needed; the node has CPU 2, short of GPU 1")
    world.advance(GRACE - 0.1)
    world.expect()
    world.advance(0.2)
    refused = world.one(LeaseRefused, OWNER)
    assert refused.reason == "CPU 1, GPU 1 is needed; the node has CPU 2, short of GPU 1"
    assert not bench.scheduling.queue


def test_infeasible_names_the_nearest_of_several(bench: Bench, world: World) -> None:
    """Goal: the nearest miss is the node that lacks least. Method: three nodes."""
    bench.scheduling.peers = {
        NEAR.node: info(NEAR, {"CPU": 4 * UNIT, "GPU": UNIT}),
        FAR.node: info(FAR, cpus(64)),
    }
    bench.request(1, {"CPU": 4 * UNIT, "GPU": 2 * UNIT})
    world.advance(ASK_AFTER)
    reason = world.one(StillQueued).reason
    assert "none of 3 nodes" in reason
    assert "the nearest has CPU 4, GPU 1, short of GPU 1" in reason


def test_node_that_joins_in_the_grace_saves_the_request(bench: Bench, world: World) -> None:
    """Goal: the grace is for nodes that are about to join, and it begins anew."""
    bench.request(1, cpus(4))
    world.advance(GRACE - 1)
    world.one(StillQueued)
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4))
    world.advance(2 * ASK_AFTER)
    world.take(StillQueued)
    world.expect((OWNER, LeaseRedirected(lease(1), NEAR, 1)))


def test_waiting_asks_for_leases_and_explains(bench: Bench, world: World) -> None:
    """Goal: holders are asked one by one to let go, and the waiting owner is told why it waits.

    Method: a rival waits for CPUs that OWNER holds. OWNER's own waiting asks nothing of itself."""
    bench.request(1, cpus(1))
    bench.request(2, cpus(1))
    bench.request(3, cpus(1))
    world.advance(1.5 * ASK_AFTER)
    assert bench.granted() == [1, 2]
    world.expect()
    bench.request(4, cpus(1), owner=RIVAL)
    world.advance(EXPLAIN_AFTER + 2 * ASK_AFTER)
    assert world.take(LeaseWanted, OWNER) == [LeaseWanted(lease(1)), LeaseWanted(lease(2))]
    told = world.take(StillQueued)
    assert [number(message.lease) for message in told] == [3, 4]
    assert "waits for CPU 1 to come free (CPU 0 free of CPU 2 here, 2 leases" in told[0].reason


def test_lent_cpus_are_taken_back_at_once(bench: Bench, world: World) -> None:
    """Goal: a blocked worker's CPUs serve others; on its return free goes below zero for a while.

    Method: block one of two, grant in its place, unblock; the next grant waits for two returns."""
    bench.request(1, cpus(2))
    bench.request(2, cpus(2))
    worker = bench.workers[lease(1)]
    bench.scheduling.block(worker)
    bench.scheduling.block(worker)
    assert bench.granted() == [1, 2]
    bench.scheduling.unblock(worker)
    bench.scheduling.unblock(worker)
    assert bench.scheduling.free == cpus(-2)
    bench.conserved()
    bench.request(3, cpus(1))
    bench.give_back(2)
    assert bench.granted() == []
    bench.give_back(1)
    assert bench.granted() == [3]
    bench.conserved()


def test_a_lent_lease_that_ends_returns_only_the_rest(world: World) -> None:
    """Goal: CPUs lent out are not returned twice. Method: block, then return the lease."""
    bench = Bench(world, {**cpus(2), "GPU": UNIT})
    bench.request(1, {"CPU": UNIT, "GPU": UNIT})
    bench.scheduling.block(bench.workers[lease(1)])
    assert bench.scheduling.free == {"CPU": 2 * UNIT, "GPU": 0}
    bench.give_back(1)
    assert bench.scheduling.free == {"CPU": 2 * UNIT, "GPU": UNIT}
    assert bench.granted() == [1]


def test_return_of_a_queued_request_and_by_a_stranger(bench: Bench, world: World) -> None:
    """Goal: a request is taken back while it waits; only its owner returns a lease."""
    bench.request(1, cpus(2))
    bench.request(2, cpus(1))
    bench.give_back(2)
    bench.give_back(1, RIVAL)
    bench.give_back(9)
    assert not bench.scheduling.queue
    assert list(bench.scheduling.granted) == [lease(1)]
    assert bench.granted() == [1]
    world.advance(PATIENCE)


def test_returned_before_its_worker_has_started(bench: Bench) -> None:
    """Goal: nobody starts a worker for a lease that is gone."""
    bench.hire = False
    bench.request(1, cpus(1))
    bench.give_back(1)
    assert (bench.unwanted, bench.freed, bench.scheduling.free) == ([lease(1)], [], cpus(2))


def test_no_worker_can_be_started(bench: Bench, world: World) -> None:
    """Goal: the owner is told, the resources come back. Method: refuse a grant, twice."""
    bench.hire = False
    bench.request(1, cpus(1))
    bench.scheduling.refuse(lease(1), "no")
    bench.scheduling.refuse(lease(1), "no")
    world.expect((OWNER, LeaseRefused(lease(1), "no")))
    bench.conserved()


def test_owner_gone(bench: Bench) -> None:
    """Goal: requests and grants of a dead owner go; its workers are named; others move up."""
    bench.request(1, cpus(2))
    bench.request(2, cpus(2))
    bench.request(3, cpus(2), owner=RIVAL)
    orphans = bench.scheduling.forget_owner(OWNER.process)
    assert orphans == [bench.workers[lease(1)]]
    assert bench.granted() == [1, 3]
    assert not bench.scheduling.queue
    bench.conserved()


def test_unknown_job_waits_and_holds_up_nobody(bench: Bench, world: World) -> None:
    """Goal: a request whose job is not known (yet, or no longer) is no obstacle to others.

    Method: it waits beyond PATIENCE; another owner's request is granted past it; then its job is
    announced and it is granted."""
    late = job("late")
    bench.request(1, cpus(1), job_id=late)
    world.advance(PATIENCE + 1)
    assert "waits for its driver" in world.one(StillQueued).reason
    bench.request(2, cpus(1), owner=RIVAL)
    assert bench.granted() == [2]
    bench.jobs.add(late)
    bench.scheduling.dispatch()
    assert bench.granted() == [1]


def test_owners_on_a_node(bench: Bench) -> None:
    """Goal: whom a node's death takes along, whether it holds a lease here or waits for one."""
    holder, waiter = process("holder", "near"), process("waiter", "near")
    bench.request(1, cpus(1), owner=holder)
    bench.request(2, cpus(1), owner=OWNER)
    bench.request(3, cpus(2), owner=waiter)
    bench.request(4, cpus(2), owner=holder)
    assert bench.granted() == [1, 2]
    assert bench.scheduling.owners_on(NEAR.node) == {holder.process, waiter.process}
    assert bench.scheduling.owners_on(FAR.node) == set()


# -- draining --------------------------------------------------------------------------------------


def test_a_drained_node_asks_for_every_lease(world: World) -> None:
    """Goal: once, whoever holds it; lent CPUs and leases asked for before make no difference."""
    bench = Bench(world, cpus(3))
    for key, owner in ((1, OWNER), (2, RIVAL), (3, OWNER)):
        bench.request(key, cpus(1), owner=owner)
    assert bench.granted() == [1, 2, 3]
    bench.scheduling.granted[lease(3)].wanted = True
    bench.scheduling.block(bench.workers[lease(1)])
    bench.scheduling.drain()
    world.expect((OWNER, LeaseWanted(lease(1))), (RIVAL, LeaseWanted(lease(2))))
    for key, owner in ((1, OWNER), (2, RIVAL), (3, OWNER)):
        bench.give_back(key, owner)
    bench.conserved()
    assert bench.scheduling.free == cpus(3)


def test_a_drained_node_sends_everything_on(world: World) -> None:
    """Goal: new requests, queued ones and those whose worker is still starting go to nodes that
    stay, whatever their hops and however full those are; free CPUs here are not granted.

    Method: NEAR is full, FAR is drained as well."""
    bench = Bench(world, cpus(1))
    bench.hire = False
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(2), cpus(0))
    bench.scheduling.peers[FAR.node] = info(FAR, cpus(8), draining=True)
    bench.request(1, cpus(1))
    bench.request(2, cpus(1))
    world.expect()
    bench.scheduling.drain()
    assert bench.unwanted == [lease(1)]
    bench.request(3, cpus(2), hops=MAX_HOPS)
    world.expect(
        (OWNER, LeaseRedirected(lease(2), NEAR, 1)),
        (OWNER, LeaseRedirected(lease(1), NEAR, 1)),
        (OWNER, LeaseRedirected(lease(3), NEAR, MAX_HOPS + 1)),
    )
    bench.conserved()
    assert (bench.scheduling.queue, bench.scheduling.granted) == ([], {})


def test_no_request_is_sent_to_a_drained_node(world: World) -> None:
    """Goal: it would come straight back. Method: here is no room, and only the drained one has."""
    bench = Bench(world, cpus(1))
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4), draining=True)
    bench.request(1, cpus(1))
    bench.request(2, cpus(1))
    assert bench.granted() == [1]
    world.expect()


@pytest.mark.parametrize("where", ["here", "there"])
def test_what_only_a_drained_node_has(world: World, where: str) -> None:
    """Goal: the request waits as long as an infeasible one, then fails with that reason; if the
    drain is cancelled in time it is granted."""
    bench = Bench(world, cpus(8) if where == "here" else cpus(1))
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(1), draining=where == "there")
    if where == "there":
        bench.scheduling.peers[NEAR.node].total = cpus(8)
    else:
        bench.scheduling.drain()
    bench.request(1, cpus(8))
    world.advance(ASK_AFTER)
    assert "the only node that has it is drained" in world.one(StillQueued).reason
    if where == "here":
        bench.scheduling.undrain()
        assert bench.granted() == [1]
    else:
        world.advance(GRACE + 1)
        assert "the only node that has it is drained" in world.one(LeaseRefused).reason


def test_when_every_node_is_drained(world: World) -> None:
    """Goal: a request that no node ever had says what is the case."""
    bench = Bench(world, cpus(1))
    bench.scheduling.drain()
    bench.request(1, {"GPU": UNIT})
    world.advance(ASK_AFTER)
    assert "GPU 1 is needed, and every node is drained" in world.one(StillQueued).reason
