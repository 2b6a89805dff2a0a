"""The head: who is in the cluster, who is told what, who is dead, and what outlives its process."""

from __future__ import annotations

import pytest

from core.journals import Memory
from core.world import World, cpus, info, job, node, process
from freehold.core.membership import BEATS, ENDED_KEPT, GONE_KEPT, Ended
from freehold.roles.head import GONE_SHOWN, Head
from freehold.wire.attendance import pack_reports
from freehold.wire.messages import (
    Address,
    Describe,
    Description,
    Fenced,
    Heartbeat,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    News,
    NodeChanged,
    NodeInfo,
    NodeKnown,
    NodeReport,
    ProcessLost,
    Stop,
)

ONE, TWO, THREE = node("one"), node("two"), node("three")
PATIENCE = 10.0
BEAT = PATIENCE / BEATS


@pytest.fixture
def journal() -> Memory:
    return Memory()


@pytest.fixture
def head(world: World, journal: Memory) -> Head:
    """A head with nodes one and two."""
    world.address = node("head")
    made = Head(world, journal, PATIENCE)
    for address in (ONE, TWO):
        made.handle(JoinCluster(info(address, cpus(1))), address)
    world.sent.clear()
    return made


def restarted(world: World, journal: Memory) -> Head:
    """The head after its process was killed: nothing is left but the journal."""
    for alarm in world.alarms:
        alarm.cancel()
    return Head(world, journal, PATIENCE)


def started(name: str, driver: Address) -> JobStarted:
    return JobStarted(job(name), driver, 1, [], "/", True)


def dead(address: Address, reason: str) -> NodeInfo:
    return info(address, cpus(1), alive=False, reason=reason)


def joined(*nodes: NodeInfo, gone: list[NodeInfo] | None = None, **others: object) -> Joined:
    return Joined(list(nodes), gone or [], dead_after=PATIENCE, **others)  # type: ignore[arg-type]


# --- joining and news ---------------------------------------------------------------------------


def test_join(head: Head, world: World) -> None:
    """Goal: a new node hears of the others and of the jobs, and they of it."""
    running = started("job", process("driver", "one"))
    head.handle(running, ONE)
    world.expect((TWO, running))
    new = info(THREE, cpus(2))
    head.handle(JoinCluster(new), THREE)
    world.expect(
        (THREE, joined(info(ONE, cpus(1)), info(TWO, cpus(1)), jobs=[running])),
        (ONE, NodeChanged(new)),
        (TWO, NodeChanged(new)),
    )


def test_reports_and_lost_processes_go_to_the_others(head: Head, world: World) -> None:
    """Goal: in one round, a death once, and nothing from a stranger; a drain at once and to all
    but the sender."""
    report = NodeReport(ONE.node, cpus(0))
    head.handle(report, ONE)
    for _ in range(2):
        head.handle(ProcessLost(process("w").process), TWO)
    head.handle(NodeReport(THREE.node, cpus(1)), THREE)
    world.advance(0.0)
    news = News(pack_reports([report]), [process("w").process])
    world.expect((ONE, news), (TWO, news))
    assert head.membership.members[ONE.node].info.free == cpus(0)
    drained = NodeChanged(info(ONE, cpus(1), {}))
    head.handle(drained, ONE)
    head.handle(NodeChanged(info(THREE, cpus(1))), THREE)
    world.expect((TWO, drained))


def test_job_ends(head: Head, world: World) -> None:
    """Goal: told once to the others. Method: end it twice."""
    head.handle(started("job", process("d", "one")), ONE)
    world.sent.clear()
    for _ in range(2):
        head.handle(JobEnded(job("job")), ONE)
    world.expect((TWO, JobEnded(job("job"))))


def test_describe(head: Head, world: World) -> None:
    """Goal: the living and the last of the gone, with the reason, and the jobs."""
    head.peer_lost(TWO)
    world.sent.clear()
    asker = process("cli")
    head.handle(Describe(7), asker)
    answer = world.one(Description, asker)
    assert answer.request == 7
    assert [(n.address, n.alive) for n in answer.nodes] == [(ONE, True), (TWO, False)]
    assert "connection" in answer.nodes[1].reason
    for number in range(GONE_SHOWN):
        late = node(f"n{number}")
        head.handle(JoinCluster(info(late, cpus(1))), late)
        head.peer_lost(late)
    world.sent.clear()
    head.handle(Describe(8), asker)
    shown = [n.address for n in world.one(Description, asker).nodes]
    assert len(shown) == 1 + GONE_SHOWN
    assert TWO not in shown


# --- deaths -------------------------------------------------------------------------------------


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
    gone = dead(ONE, "lost its connection to the head")
    world.expect((TWO, NodeChanged(gone)), (TWO, JobEnded(job("a"))))
    assert list(head.membership.jobs) == [job("b")]


def test_a_silent_node_is_dead(head: Head, world: World) -> None:
    """Goal: silence of more than the patience is a death, of less is nothing, and any word will
    do. Method: one sends heartbeats, then a report, then nothing; two says something all along."""
    for step in range(12):
        world.advance(BEAT)
        head.handle(Heartbeat(), TWO)
        if step < 9:
            head.handle(Heartbeat() if step % 2 else NodeReport(ONE.node, cpus(1)), ONE)
    world.take(News)
    world.advance(PATIENCE - 3.5 * BEAT)
    head.handle(Heartbeat(), TWO)
    world.expect()
    world.advance(2 * BEAT)
    world.expect((TWO, NodeChanged(dead(ONE, "said nothing for 10 s"))))
    world.advance(PATIENCE + BEAT)
    assert head.membership.members == {}


def test_a_head_that_slept_judges_nobody(head: Head, world: World) -> None:
    """Goal: a head that was stopped has not read what was said meanwhile. Method: its clock jumps
    by a minute between two looks; from then on it waits as ever."""
    world.clock += 60.0
    world.advance(BEAT)
    world.expect()
    assert list(head.membership.members) == [ONE.node, TWO.node]
    world.advance(PATIENCE + BEAT)
    assert head.membership.members == {}
    world.sent.clear()


def test_the_dead_are_fenced(head: Head, world: World) -> None:
    """Goal: what a node says after it was declared dead changes nothing, and it is told so every
    time. Method: reports, a job, a death and a second join under the same id."""
    head.peer_lost(ONE)
    world.sent.clear()
    void = [
        Heartbeat(),
        NodeChanged(info(ONE, cpus(1))),
        started("late", process("d", "one")),
        ProcessLost(process("w").process),
        NodeKnown(info(THREE, cpus(1))),
        JoinCluster(info(ONE, cpus(1))),
    ]
    for message in void:
        head.handle(message, ONE)
    world.expect(*[(ONE, Fenced("lost its connection to the head"))] * len(void))
    assert (list(head.membership.members), head.membership.jobs) == ([TWO.node], {})


def test_a_drained_node_may_leave(head: Head, world: World) -> None:
    """Goal: who leaves in good order is told that it may, also when it asks again, and is no
    fenced node that has to begin anew."""
    leaves = NodeChanged(dead(ONE, "left: drained"))
    head.handle(leaves, ONE)
    world.expect((TWO, leaves), (ONE, Stop()))
    head.handle(leaves, ONE)
    world.expect((ONE, Stop()))


def test_memory_of_the_dead_is_bounded(head: Head, world: World, journal: Memory) -> None:
    """Goal: nodes and processes that come and go for ever fill neither memory nor disk. Method:
    more of each than are kept."""
    for number in range(GONE_KEPT + 10):
        late = node(f"n{number}")
        head.handle(JoinCluster(info(late, cpus(1))), late)
        head.peer_lost(late)
    world.sent.clear()
    assert len(head.membership.gone) == GONE_KEPT
    assert len(journal.kept) == GONE_KEPT + 2
    ended = Ended()
    for number in range(ENDED_KEPT + 10):
        assert ended.add(process(f"p{number}").process)
    assert len(ended.processes) == ENDED_KEPT
    assert not ended.add(process(f"p{ENDED_KEPT}").process)


# --- the head comes back ------------------------------------------------------------------------


def test_what_a_new_head_knows(head: Head, world: World, journal: Memory) -> None:
    """Goal: nodes, deaths and jobs outlive the head's process. Method: one of each kind, and one
    that is over; then a new head on the same journal."""
    head.handle(JoinCluster(info(THREE, cpus(1))), THREE)
    head.handle(started("a", process("d1", "one")), ONE)
    head.handle(started("b", process("d2", "two")), TWO)
    head.handle(started("over", process("d3", "two")), TWO)
    head.handle(JobEnded(job("over")), TWO)
    head.peer_lost(TWO)
    world.sent.clear()
    again = restarted(world, journal).membership
    assert list(again.members) == [ONE.node, THREE.node]
    assert not any(member.present for member in again.members.values())
    assert [(n, i.reason) for n, i in again.gone.items()] == [
        (TWO.node, "lost its connection to the head")
    ]
    assert list(again.jobs) == [job("a")]


def test_nodes_that_come_back(head: Head, world: World, journal: Memory) -> None:
    """Goal: who calls again is no new node, and is told only what it can have missed; who has not
    called yet is told nothing, for there is no stream. Method: one calls, then two."""
    new = restarted(world, journal)
    one, two = info(ONE, cpus(1)), info(TWO, cpus(1))
    new.handle(JoinCluster(one), ONE)
    world.expect((ONE, joined(two)))
    new.handle(JoinCluster(two), TWO)
    world.expect((TWO, joined(one)), (ONE, NodeChanged(two)))


def test_a_node_that_does_not_come_back(head: Head, world: World, journal: Memory) -> None:
    """Goal: a node that died while there was no head is found dead. Method: only one calls."""
    head.handle(started("b", process("d2", "two")), TWO)
    world.sent.clear()
    new = restarted(world, journal)
    new.handle(JoinCluster(info(ONE, cpus(1))), ONE)
    world.sent.clear()
    for _ in range(BEATS + 2):
        world.advance(BEAT)
        new.handle(Heartbeat(), ONE)
    gone = dead(TWO, "did not come back to the head for 10 s")
    world.expect((ONE, NodeChanged(gone)), (ONE, JobEnded(job("b"))))
    new.handle(JoinCluster(info(TWO, cpus(1))), TWO)
    world.expect((TWO, Fenced(gone.reason)))


def test_what_happened_meanwhile(head: Head, world: World, journal: Memory) -> None:
    """Goal: jobs and processes that ended, and jobs that began, while there was no head. Method:
    two's job has ended and another has begun there; one is told by two's call, three by the
    answer to its own."""
    head.handle(JoinCluster(info(THREE, cpus(1))), THREE)
    head.handle(started("old", process("d1", "two")), TWO)
    world.sent.clear()
    new = restarted(world, journal)
    one, two, three = (info(address, cpus(1)) for address in (ONE, TWO, THREE))
    new.handle(JoinCluster(one), ONE)
    world.sent.clear()
    fresh = started("new", process("d2", "two"))
    new.handle(JoinCluster(two, jobs=[fresh], ended=[process("d1").process]), TWO)
    world.expect(
        (ONE, JobEnded(job("old"))),
        (ONE, fresh),
        (TWO, joined(one, three, jobs=[fresh], ended=[process("d1").process])),
        (ONE, NodeChanged(two)),
    )
    new.handle(JoinCluster(three, ended=[process("d1").process]), THREE)
    answer = world.one(Joined, THREE)
    assert (answer.jobs, answer.ended) == ([fresh], [process("d1").process])
    world.take(NodeChanged)
    world.advance(0.0)
    assert world.one(News, ONE).ended == [process("d1").process]
    world.take(News)


def test_a_death_that_the_journal_lost(head: Head, world: World, journal: Memory) -> None:
    """Goal: a node that was declared dead stays dead although the record was torn: whoever was
    told of it says so. Method: two's death is struck from the journal; two is back first."""
    before = dict(journal.kept)
    head.peer_lost(TWO)
    world.sent.clear()
    journal.kept = before
    new = restarted(world, journal)
    new.handle(JoinCluster(info(TWO, cpus(1))), TWO)
    world.take(Joined)
    gone = dead(TWO, "lost its connection to the head")
    new.handle(JoinCluster(info(ONE, cpus(1)), gone=[gone]), ONE)
    world.expect((ONE, NodeChanged(gone)), (ONE, joined(gone=[gone])))
    new.handle(Heartbeat(), TWO)
    world.expect((TWO, Fenced(gone.reason)))
    assert list(restarted(world, journal).membership.gone) == [TWO.node]


def test_a_jobs_end_that_the_journal_lost(head: Head, world: World, journal: Memory) -> None:
    """Goal: a dead node's job is over also where only the node's death was written down. Method:
    the record of the job is put back after the node has died."""
    head.handle(started("b", process("d2", "two")), TWO)
    before = dict(journal.kept)
    head.peer_lost(TWO)
    world.sent.clear()
    journal.kept = before | journal.kept
    assert job("b") in journal.kept
    assert restarted(world, journal).membership.jobs == {}
    assert job("b") not in journal.kept
    world.expect()


def test_a_join_that_the_journal_lost(head: Head, world: World, journal: Memory) -> None:
    """Goal: a node of which no record is left, and which died meanwhile, is found dead, because
    another node knew it. Method: two's record is struck; one says that it misses it."""
    journal.delete(TWO.node)
    new = restarted(world, journal)
    new.handle(JoinCluster(info(ONE, cpus(1))), ONE)
    world.expect((ONE, joined()))
    for _ in range(2):
        new.handle(NodeKnown(info(TWO, cpus(1))), ONE)
    for _ in range(BEATS + 2):
        world.advance(BEAT)
        new.handle(Heartbeat(), ONE)
    world.expect((ONE, NodeChanged(dead(TWO, "did not come back to the head for 10 s"))))


def test_a_second_stream_is_no_second_node(head: Head, world: World) -> None:
    """Goal: a node whose stream broke may call before the head has seen the end of the old one.
    Method: it joins twice; a third node sees one of it."""
    head.handle(JoinCluster(info(ONE, cpus(1))), ONE)
    world.expect((ONE, joined(info(TWO, cpus(1)))), (TWO, NodeChanged(info(ONE, cpus(1)))))
    assert list(head.membership.members) == [ONE.node, TWO.node]
