"""On which nodes a request may be granted, and where the bundles of a group go."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.test_scheduling import OWNER, Bench
from core.world import World, cpus, info, job, lease, node
from freehold.core.fitting import fit, shortfall
from freehold.core.scheduling import ASK_AFTER, MAX_HOPS
from freehold.core.strategies import allowed, emptiest, satisfies
from freehold.ids import GroupId, NodeId
from freehold.resources import fits
from freehold.wire.messages import (
    LeaseRedirected,
    LeaseRefused,
    NodeInfo,
    Placement,
    RequestLease,
)
from freehold.wire.placement import (
    PACK,
    SPREAD,
    STRICT_PACK,
    STRICT_SPREAD,
    Clause,
    GroupInfo,
    Place,
)

ME, NEAR, FAR = node(), node("near"), node("far")


def wire(number: int = 1, placement: Placement | None = None, cpu: float = 1) -> RequestLease:
    amounts = cpus(cpu) if cpu else {}
    return RequestLease(lease(number), OWNER, job(), amounts, placement=placement)


# -- nodes for requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clause", "matching"),
    [
        (Clause("zone", ("a",)), "ME"),
        (Clause("zone", ("a", "b")), "ME NEAR"),
        (Clause("zone", ("a",), negated=True), "NEAR FAR"),
        (Clause("zone", ("a", "b"), negated=True), "FAR"),
        (Clause("none", ("x",)), ""),
        (Clause("freehold/node-id", (NEAR.node.hex(),)), "NEAR"),
    ],
)
def test_clauses(clause: Clause, matching: str) -> None:
    """Goal: the four operators, also on labels that are missing, and a node's own id."""
    nodes = {
        "ME": info(ME, cpus(1), labels={"zone": "a"}),
        "NEAR": info(NEAR, cpus(1), labels={"zone": "b"}),
        "FAR": info(FAR, cpus(1)),
    }
    assert [name for name, one in nodes.items() if satisfies([clause], one)] == matching.split()


def test_affinity_and_alternatives() -> None:
    """Goal: hard affinity allows one node, soft any if that is too small or drained; the first
    alternative is used that some node satisfies and that is big enough.
    """
    small, big = info(ME, cpus(1), labels={"zone": "a"}), info(NEAR, cpus(4), labels={"zone": "b"})
    nodes = [small, big]
    there = Placement(node=ME.node)
    assert allowed(wire(placement=there, cpu=2), nodes) == [small]
    soft = Placement(node=ME.node, soft=True)
    assert allowed(wire(placement=soft), nodes) == [small]
    assert allowed(wire(placement=soft, cpu=2), nodes) == nodes
    either = Placement(selectors=((Clause("zone", ("a",)),), (Clause("zone", ("b",)),)))
    assert allowed(wire(placement=either), nodes) == [small]
    assert allowed(wire(placement=either, cpu=2), nodes) == [big]
    small.draining = True
    assert allowed(wire(placement=either), nodes) == [big]


def test_the_emptiest_of_equals_takes_turns() -> None:
    """Goal: spread goes by the part that is free, and between equals to whom fewest were sent."""
    half, empty = info(ME, cpus(4), cpus(2)), info(NEAR, cpus(2))
    assert emptiest(wire(), [half, empty], {}) is empty  # (leaves 1 of 2; the other, 1 of 4)
    assert emptiest(wire(), [info(FAR, cpus(2)), empty], {FAR.node: 1}) is empty
    assert emptiest(wire(cpu=8), [half, empty], {}) is None


def test_what_takes_no_cpu_is_placed_as_if_it_took_one(world: World) -> None:
    """Goal: actors do not all end on the node of their creator: here while there is room, then in
    proportion to what nodes have; what CPUs are used for counts; so do other nodes' own actors; and
    no request waits. Method: a node of two CPUs, one of which is in use, and others of four and
    two; the report of another's actors; an end; then a node that is alone.
    """
    world.address = ME
    bench = Bench(world, cpus(2))
    four = bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4))
    two = bench.scheduling.peers[FAR.node] = info(FAR, cpus(2))
    bench.request(1, cpus(1))
    for number in range(2, 19):
        bench.request(number, {})
    here = bench.granted()
    sent = Counter(message.node for message in world.take(LeaseRedirected))
    assert here == [1, 2, 10, 14, 18]
    assert sent == {NEAR: 9, FAR: 4}
    assert (four.costless, two.costless, bench.scheduling.costless) == (9, 4, 4)
    four.costless = 100
    bench.request(19, {})
    assert world.one(LeaseRedirected).node == FAR
    for number in here:
        bench.give_back(number)
    assert bench.scheduling.costless == 0
    bench.request(20, {})
    bench.request(21, {}, hops=1)
    assert bench.granted() == [20, 21]
    bench.scheduling.peers.clear()
    for number in range(22, 30):
        bench.request(number, {})
    assert bench.granted() == list(range(22, 30))


def test_what_takes_no_cpu_stays_where_it_belongs(world: World) -> None:
    """Goal: being placed by load breaks no other rule: a node that was named, a label, a drain.
    Method: each on a full node beside an empty one.
    """
    world.address = ME
    bench = Bench(world, cpus(1))
    near = bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(1))
    bench.request(1, cpus(1))
    bench.scheduling.on_request(wire(2, Placement(node=ME.node), cpu=0))
    bench.scheduling.labels = {"zone": "a"}
    labelled = Placement(selectors=((Clause("zone", ("a",)),),))
    bench.scheduling.on_request(wire(3, labelled, cpu=0))
    assert bench.granted() == [1, 2, 3]
    near.draining = True
    bench.request(4, {})
    assert bench.granted() == [4]


def test_a_request_goes_to_its_node_and_waits_there(world: World) -> None:
    """Goal: hard affinity is sent on however busy the node is, and never back; to a node that is
    gone it is refused at once, with the reason.
    """
    world.address = ME
    bench = Bench(world, cpus(1))
    near = bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(1), {})
    bench.scheduling.on_request(wire(1, Placement(node=NEAR.node)))
    assert world.one(LeaseRedirected).node == NEAR
    bench.request(2, cpus(1))
    assert bench.granted() == [2]
    near.free = cpus(1)
    bench.scheduling.on_request(wire(3, Placement(node=ME.node)))
    assert world.sent == []
    gone = info(FAR, cpus(1), alive=False, reason="said nothing for 10 s")
    bench.scheduling.gone = {FAR.node: gone}
    bench.scheduling.on_request(wire(4, Placement(node=FAR.node)))
    assert "gone: it said nothing for 10 s" in world.one(LeaseRefused).reason


def test_one_that_has_come_too_far_to_a_wrong_place_goes_on(world: World) -> None:
    """Goal: hops are limited, but nothing waits where it can never be granted. Method: a request
    for the other node, which was drained when it was asked, comes at MAX_HOPS; it is sent on, not
    more often than every ASK_AFTER."""
    world.address = ME
    bench = Bench(world, cpus(1))
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(1))
    request = wire(1, Placement(node=NEAR.node, soft=True))
    request.hops = MAX_HOPS
    bench.scheduling.on_request(request)
    assert world.sent == []
    world.advance(ASK_AFTER)
    world.expect((OWNER, LeaseRedirected(lease(1), NEAR, MAX_HOPS + 1)))


# -- nodes for bundles ----------------------------------------------------------------------------


def group(strategy: str, *sizes: float) -> GroupInfo:
    return GroupInfo(
        GroupId(b"group..."),
        job(),
        [cpus(size) for size in sizes],
        strategy,
        places=[None] * len(sizes),
    )


def cluster(*sizes: float) -> dict[NodeId, NodeInfo]:
    nodes = [node(f"n{number}") for number in range(len(sizes))]
    return {address.node: info(address, cpus(size)) for address, size in zip(nodes, sizes)}


def test_each_strategy_in_its_way() -> None:
    """Goal: pack on few, spread on many, strict ones or not at all."""
    nodes = cluster(4, 4, 2)
    every = [0, 1]
    packed = fit(group(PACK, 1, 1), every, nodes)
    assert packed is not None
    assert len(set(packed.values())) == 1
    spread = fit(group(SPREAD, 1, 1), every, nodes)
    assert spread is not None
    assert len(set(spread.values())) == 2
    assert fit(group(STRICT_PACK, 3, 2), every, nodes) is None
    assert fit(group(PACK, 3, 2), every, nodes) is not None
    four = group(STRICT_SPREAD, 1, 1, 1, 1)
    assert fit(four, [0, 1, 2, 3], nodes) is None
    assert "STRICT_SPREAD cannot be met by 3 nodes" in shortfall(four, [0, 1, 2, 3], nodes)
    assert fit(group(SPREAD, 1, 1, 1, 1), [0, 1, 2, 3], nodes) is not None
    assert "no node has what bundle 1 needs (CPU 5)" in shortfall(group(PACK, 1, 5), every, nodes)


def test_lost_bundles_keep_to_the_strategy() -> None:
    """Goal: a bundle that is placed anew goes apart from the others of a spread group, and with the
    others of a packed one.
    """
    nodes = cluster(4, 4, 4)
    first, second, _ = (info.address for info in nodes.values())
    for strategy in (STRICT_SPREAD, SPREAD):
        apart = group(strategy, 1, 1, 1)
        apart.places = [Place(first, b""), None, Place(second, b"")]
        assert fit(apart, [1], nodes) == {1: list(nodes)[2]}
    for strategy in (STRICT_PACK, PACK):
        together = group(strategy, 1, 1)
        together.places = [Place(second, b""), None]
        assert fit(together, [1], nodes) == {1: second.node}


def test_a_hopeless_search_ends_soon() -> None:
    """Goal: bundles that fit in sum but in no way are given up after a bounded number of steps."""
    nodes = cluster(*[1.5] * 12)
    assert fit(group(PACK, *[1.0] * 13), list(range(13)), nodes) is None
    assert fit(group(STRICT_SPREAD, *[1.0] * 13), list(range(13)), nodes) is None


sizes = st.lists(st.sampled_from([0.5, 1, 1.5, 2]), min_size=1, max_size=4)


@settings(max_examples=200, deadline=None)
@given(sizes, sizes, st.sampled_from([PACK, SPREAD, STRICT_PACK, STRICT_SPREAD]))
def test_found_if_there_is_a_way(nodes: list[float], bundles: list[float], strategy: str) -> None:
    """Goal: small groups are placed exactly when they can be, and never on top of each other.
    Method: against every assignment of bundles to nodes.
    """
    around = cluster(*nodes)
    names = list(around)

    def good(places: tuple[int, ...]) -> bool:
        if strategy == STRICT_PACK and len(set(places)) > 1:
            return False
        if strategy == STRICT_SPREAD and len(set(places)) < len(places):
            return False
        return all(
            fits(cpus(sum(b for b, at in zip(bundles, places) if at == n)), cpus(size))
            for n, size in enumerate(nodes)
        )

    ways = product(range(len(nodes)), repeat=len(bundles))
    found = fit(group(strategy, *bundles), list(range(len(bundles))), around)
    assert (found is not None) == any(good(way) for way in ways)
    if found is not None:
        assert good(tuple(names.index(found[index]) for index in range(len(bundles))))
    assert all(one.free == one.total for one in around.values())
