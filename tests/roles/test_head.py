"""The head: who is in the cluster, and who is told what."""

from __future__ import annotations

import pytest

from core.world import World, cpus, info, job, node, process
from freehold.roles.head import Head
from freehold.wire.messages import (
    Address,
    Describe,
    Description,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    NodeChanged,
    NodeInfo,
    ProcessLost,
    Stop,
)

ONE, TWO, THREE = node("one"), node("two"), node("three")


@pytest.fixture
def head(world: World) -> Head:
    """A head with nodes one and two."""
    world.address = node("head")
    made = Head(world)
    for address in (ONE, TWO):
        made.handle(JoinCluster(info(address, cpus(1))), address)
    world.sent.clear()
    return made


def started(name: str, driver: Address) -> JobStarted:
    return JobStarted(job(name), driver, 1, [], "/", True)


def test_join(head: Head, world: World) -> None:
    """Goal: a new node hears of the others and of the jobs, and they of it."""
    running = started("job", process("driver", "one"))
    head.handle(running, ONE)
    world.expect((TWO, running))
    new = info(THREE, cpus(2))
    head.handle(JoinCluster(new), THREE)
    world.expect(
        (THREE, Joined([info(ONE, cpus(1)), info(TWO, cpus(1))])),
        (THREE, running),
        (ONE, NodeChanged(new)),
        (TWO, NodeChanged(new)),
    )


def test_reports_and_lost_processes_go_to_the_others(head: Head, world: World) -> None:
    """Goal: everyone but the sender, and nothing from a stranger."""
    news = NodeChanged(info(ONE, cpus(1), {}))
    head.handle(news, ONE)
    head.handle(ProcessLost(process("w").process), TWO)
    head.handle(NodeChanged(info(THREE, cpus(1))), THREE)
    world.expect((TWO, news), (ONE, ProcessLost(process("w").process)))


def test_node_lost_takes_its_drivers_along(head: Head, world: World) -> None:
    """Goal: the others hear that it is gone and which jobs end with it; its process's end alone
    counts, not that of a worker there.

    Method: jobs of both nodes; a worker's stream ends, then the node's, twice."""
    head.handle(started("a", process("d1", "one")), ONE)
    head.handle(started("b", process("d2", "two")), TWO)
    world.sent.clear()
    head.peer_lost(process("w", "one"))
    world.expect()
    head.peer_lost(ONE)
    head.peer_lost(ONE)
    gone = info(ONE, cpus(1))
    gone.alive, gone.reason = False, "lost its connection to the head"
    world.expect((TWO, NodeChanged(gone)), (TWO, JobEnded(job("a"))))
    assert list(head.membership.jobs) == [job("b")]


def test_a_gone_node_is_fenced(head: Head, world: World) -> None:
    """Goal: what a node says after it was declared gone changes nothing; it is told to stop.

    Method: report, job and a second join under the same id, while the others have moved on."""
    head.peer_lost(ONE)
    world.sent.clear()
    head.handle(NodeChanged(info(ONE, cpus(1))), ONE)
    head.handle(started("late", process("d", "one")), ONE)
    world.expect()
    head.handle(JoinCluster(info(ONE, cpus(1))), ONE)
    world.expect((ONE, Stop()))
    assert (list(head.membership.nodes), head.membership.jobs) == ([TWO.node], {})


def test_job_ends(head: Head, world: World) -> None:
    """Goal: told once to the others. Method: end it twice."""
    head.handle(started("job", process("d", "one")), ONE)
    world.sent.clear()
    for _ in range(2):
        head.handle(JobEnded(job("job")), ONE)
    world.expect((TWO, JobEnded(job("job"))))


def test_describe(head: Head, world: World) -> None:
    """Goal: the living and the gone, with the reason, and the jobs."""
    head.peer_lost(TWO)
    world.sent.clear()
    asker = process("cli")
    head.handle(Describe(7), asker)
    answer = world.one(Description, asker)
    assert answer.request == 7
    assert [(n.address, n.alive) for n in answer.nodes] == [(ONE, True), (TWO, False)]
    assert isinstance(answer.nodes[1], NodeInfo)
    assert "connection" in answer.nodes[1].reason
