"""Two hundred placement groups in one run, while nodes come and go."""

from __future__ import annotations

from random import Random

import pytest

from freehold.sim.cluster import Cluster, knobs, run_case
from freehold.sim.generate import Case, Fault, NodeSpec, make_case
from freehold.sim.ops import Call, Function, Get, Group, Op, Program, Ready, Remove, Sleep
from freehold.wire.placement import PACK, SPREAD, STRICT_PACK, STRICT_SPREAD

pytestmark = pytest.mark.sim

GROUPS = 100  # of each of two programs
AT_ONCE = 4
LARGE = 4 << 20


def program(chance: Random) -> Program:
    """Makes groups and removes them, four at a time; each has a task in it, some a short wait."""
    ops: list[Op] = []
    for number in range(GROUPS):
        at = 10 * number
        bundles = tuple(chance.choice((0.5, 1.0, 1.0, 2.0)) for _ in range(chance.randint(1, 3)))
        strategy = chance.choice((PACK, SPREAD, STRICT_PACK, STRICT_SPREAD))
        ops.append(Group(at, f"g{number}", bundles, strategy))
        if chance.random() < 0.5:
            ops.append(Ready(at + 1, f"g{number}", 0.3))
        ops.append(Call(at + 2, f"v{number}", 1, cpus=0.5, within=f"g{number}"))
        if chance.random() < 0.3:
            ops.append(Get(at + 3, (f"v{number}",), 0.3))
        if number >= AT_ONCE:
            ops.append(Remove(at + 4, f"g{number - AT_ONCE}"))
    ops += [Remove(10 * number + 5, f"g{number}") for number in range(GROUPS - AT_ONCE, GROUPS)]
    ops.append(Get(10 * GROUPS, tuple(f"v{number}" for number in range(AT_ONCE)), 5.0))
    return Program((Function(tuple(ops)), Function((Sleep(1, 0.05),))))


def case(seed: int) -> Case:
    """Four nodes; one after the other is killed, cut off or drained, and as many begin anew."""
    chance = Random(seed)
    kinds = ("kill node", "new node", "long cut", "new node", "drain node", "kill head")
    faults = [
        Fault(0.3 + 0.7 * number, kinds[number % len(kinds)], chance.random(), 0.2)
        for number in range(18)
    ]
    return Case(
        seed=seed,
        profile="parcels",
        nodes=(NodeSpec(2, LARGE),) * 4,
        programs=(program(chance), program(chance)),
        homes=(0, 1),
        faults=tuple(faults),
    )


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_granted_twice(seed):
    """Goal: 200 groups come and go while nodes do, and every CPU of every node is granted once at
    most at each step, and free at the end. Method: one simulated run, whose checks look at every
    node after each of its turns (``resources``, ``all or nothing``, ``a bundle has one place``);
    many groups must have been placed, tasks run in them, and nodes have gone with bundles."""
    made = case(seed)
    with knobs(made):
        cluster = Cluster(made)
        cluster.run()
    watch, marks = cluster.watch.bundling, cluster.world.marks
    assert len(watch.removed) == 2 * GROUPS
    assert marks["a group is placed"] > GROUPS
    assert marks["a task runs in a group"] > GROUPS / 2
    assert marks["kill node"] == 3
    for node in cluster.live_nodes():
        own = node.role.scheduling.own
        assert own.free == own.total
    assert len(cluster.live_nodes()) >= 4


def test_a_removal_that_the_journal_lost():
    """Goal: a group that was removed stays so, although the head has lost the end of its journal
    before any node had heard of it. Method: the seed that found it: the program's node tells."""
    outcome = run_case(make_case(9300241, "parcels"))
    assert outcome.promise == "", outcome.detail
