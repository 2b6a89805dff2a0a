"""The node role: its machines wired, with a recording world, shell and a real allocator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from core.making import Making
from core.world import (
    World,
    cpus,
    death,
    info,
    job,
    lease,
    node,
    object_id,
    process,
)
from freehold.core.attendance import FIRST_PAUSE
from freehold.core.news import REPORT_SECONDS
from freehold.core.workers import VACATE_SECONDS
from freehold.ids import ObjectId
from freehold.resources import Resources
from freehold.roles.node import Node
from freehold.store.allocator import Allocator
from freehold.wire.attendance import pack_reports
from freehold.wire.messages import (
    Address,
    AssignJob,
    Blocked,
    CreateObject,
    DescribeNode,
    Fenced,
    FetchObject,
    Heartbeat,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    KeepObject,
    LeaseEnded,
    LeaseGranted,
    LeaseRefused,
    Leave,
    Message,
    News,
    NodeChanged,
    NodeDescription,
    NodeKnown,
    NodeReport,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
    ProcessLost,
    Register,
    Registered,
    RequestLease,
    ReturnLease,
    SealObject,
    Unblocked,
    Vacate,
    Vacated,
)

ME, HEAD, NEAR = node("me"), node("head"), node("near")
DRIVER, OTHER_DRIVER = process("driver", "me"), process("driver2", "near")


class Shell(Making):
    """Notes what should be done to processes and bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[int] = []
        self.killed: list[int] = []
        self.ended: list[str] = []

    def fenced(self, reason: str) -> None:
        self.ended.append(reason)

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        self.started.append(start)

    def kill_worker(self, start: int) -> None:
        self.killed.append(start)

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        raise AssertionError("no test here fills the store")

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        raise AssertionError("nothing is spilled")

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        pass

    def discard(self, slot: Any) -> None:
        raise AssertionError("nothing is spilled")


class Bench:
    """A node of two CPUs, started and joined; its first two workers are on their way."""

    def __init__(self, world: World) -> None:
        world.address = ME
        self.world = world
        self.shell = Shell()
        self.room = Allocator(1 << 16)
        self.node = Node(
            world,
            self.shell,
            self.room,
            info(ME, cpus(2)),
            HEAD,
            infeasible_grace=5.0,
            maker=self.shell,
        )
        self.node.start()
        assert world.one(JoinCluster, HEAD).info.address == ME
        self.say(Joined([info(NEAR, cpus(1), {})]), HEAD)

    def say(self, message: Message, by: Address) -> None:
        self.node.handle(message, by)

    def driver(self, address: Address = DRIVER, name: str = "job") -> None:
        """A driver of this node registers."""
        self.say(Register(address, 5, job(name), 0, True, True, ["/src"], "/home"), address)
        self.world.one(Registered, address)
        assert self.world.one(JobStarted, HEAD).driver == address

    def worker(self, start: int) -> Address:
        """A worker comes up."""
        address = process(f"w{start}", "me")
        self.say(Register(address, 100 + start, job(""), start, False), address)
        self.world.one(Registered, address)
        return address

    def request(
        self,
        number: int,
        owner: Address = DRIVER,
        resources: Resources | None = None,
        name: str = "job",
    ) -> None:
        message = RequestLease(lease(number), owner, job(name), resources or cpus(1))
        self.say(message, owner)

    def lost(self, start: int) -> None:
        """A worker process ends: its stream, then its parent's word."""
        self.node.peer_lost(process(f"w{start}", "me"))
        self.node.worker_ended(start, death())

    def counts(self) -> dict[str, int]:
        self.say(DescribeNode(1), HEAD)
        return self.world.one(NodeDescription).counts


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_start_and_register(world: World) -> None:
    """Goal: a node joins, has a worker per CPU started, and tells who registers where it is."""
    bench = Bench(world)
    assert bench.shell.started == [1, 2]
    bench.say(Register(DRIVER, 5, job(), 0, True, True, ["/src"], "/home"), DRIVER)
    world.expect(
        (DRIVER, Registered(ME, HEAD, 1 << 16, cpus(2))),
        (HEAD, JobStarted(job(), DRIVER, 5, ["/src"], "/home", True)),
    )


def test_a_grant_binds_its_job_first(bench: Bench, world: World) -> None:
    """Goal: the worker knows whose task comes before the owner can push one."""
    worker = bench.worker(1)
    bench.driver()
    bench.request(1)
    world.expect(
        (worker, AssignJob(job(), DRIVER, ["/src"], "/home", cpus(1), lease=lease(1))),
        (DRIVER, LeaseGranted(lease(1), worker, 101)),
    )


def test_a_request_may_come_before_its_driver_is_announced(bench: Bench, world: World) -> None:
    """Goal: an owner of another node waits for the head's word, not for ever."""
    worker = bench.worker(1)
    bench.request(1, OTHER_DRIVER, name="job2")
    world.expect()
    bench.say(JobStarted(job("job2"), OTHER_DRIVER, 9, [], "/", True), HEAD)
    assert world.one(AssignJob, worker).driver == OTHER_DRIVER
    world.one(LeaseGranted, OTHER_DRIVER)


def test_worker_dies_with_a_lease(bench: Bench, world: World) -> None:
    """Goal: the owner learns how; resources come back; the cluster and who is here learn that it
    owns no more."""
    worker = bench.worker(1)
    bench.driver()
    bench.request(1)
    world.take(AssignJob), world.take(LeaseGranted)
    bench.lost(1)
    gone = ProcessLost(worker.process)
    world.expect((DRIVER, LeaseEnded(lease(1), death())), (HEAD, gone), (DRIVER, gone))
    assert bench.node.scheduling.free == cpus(2)


def test_a_worker_whose_stream_has_ended_gets_no_lease(bench: Bench, world: World) -> None:
    """Goal: between the end of a worker's stream and its parent's word nobody is sent there, and
    charged for its death. Method: an idle worker, and one whose lease comes back just then."""
    workers = [bench.worker(1), bench.worker(2)]
    bench.driver()
    bench.request(1)
    assert world.one(LeaseGranted).worker in workers
    world.take(AssignJob)
    for worker in workers:
        bench.node.peer_lost(worker)
    bench.say(ReturnLease(lease(1)), DRIVER)
    bench.request(2)
    bench.request(3)
    world.expect()
    for start in (1, 2):
        bench.node.worker_ended(start, death())
    assert len(bench.shell.started) == 4
    third = bench.worker(3)
    assert world.one(LeaseGranted).worker == third
    world.sent.clear()


def test_workers_that_cannot_start(bench: Bench, world: World) -> None:
    """Goal: the reason reaches the owner whose request waited."""
    bench.driver()
    bench.request(1)
    for start in (1, 2, 3):
        bench.node.worker_ended(start, death("no module named numpy"))
    assert "no module named numpy" in world.one(LeaseRefused, DRIVER).reason
    assert bench.node.scheduling.free == cpus(2)
    assert world.take(LeaseRefused) == []


@pytest.mark.parametrize("leaves", [True, False])
def test_driver_gone(bench: Bench, world: World, leaves: bool) -> None:
    """Goal: its job ends everywhere, whether it says so or dies: leases, workers, objects.

    Method: one lease, one queued request, one object; then Leave and the end of its stream. The
    worker here hears of it too (twice where the stream ends after Leave, which does no harm)."""
    worker = bench.worker(1)
    bench.driver()
    for number, amount in ((1, 1), (2, 2)):
        bench.request(number, resources=cpus(amount))
    bench.say(CreateObject(object_id("x"), 100, DRIVER, job()), DRIVER)
    bench.say(SealObject(object_id("x")), DRIVER)
    for kind in (AssignJob, LeaseGranted, ObjectCreated):
        world.one(kind)
    if leaves:
        bench.say(Leave(), DRIVER)
    bench.node.peer_lost(DRIVER)
    gone = ProcessLost(DRIVER.process)
    told = [(worker, gone)] * (2 if leaves else 1)
    world.expect((HEAD, JobEnded(job())), (HEAD, gone), *told)
    assert set(bench.shell.killed) == {1}
    bench.lost(1)
    world.expect((HEAD, ProcessLost(worker.process)))
    assert bench.counts() == {
        "objects": 0,
        "needs": 0,
        "granted": 0,
        "queued": 0,
        "workers": 1,
        "jobs": 0,
    }
    assert (bench.room.used, bench.node.scheduling.free) == (0, cpus(2))


def test_driver_elsewhere_gone(bench: Bench, world: World) -> None:
    """Goal: the same by the head's word, for a driver of another node and in either order."""
    bench.say(JobStarted(job("job2"), OTHER_DRIVER, 9, [], "/", True), HEAD)
    worker = bench.worker(1)
    bench.request(1, OTHER_DRIVER, name="job2")
    bench.request(2, OTHER_DRIVER, cpus(2), name="job2")
    world.take(AssignJob), world.take(LeaseGranted)
    bench.say(JobEnded(job("job2")), HEAD)
    bench.say(News(pack_reports([]), [OTHER_DRIVER.process]), HEAD)
    world.expect((worker, ProcessLost(OTHER_DRIVER.process)))
    assert set(bench.shell.killed) == {1}
    assert bench.node.scheduling.free == cpus(2)
    assert (bench.counts()["queued"], bench.counts()["granted"]) == (0, 0)


def test_worker_that_comes_up_after_its_job_ended(bench: Bench, world: World) -> None:
    """Goal: the daemon survives a start that outlives its job.

    Method: a nested owner's grant waits for a worker; the driver goes; the worker comes up."""
    bench.driver()
    bench.request(1, owner=process("w9", "near"))
    bench.node.peer_lost(DRIVER)
    bench.worker(1)
    assert world.take(AssignJob) == []
    assert list(bench.node.workers.idle) == [1]
    bench.say(News(pack_reports([]), [process("w9", "near").process]), HEAD)
    assert bench.node.scheduling.free == cpus(2)
    world.take(JobEnded), world.take(ProcessLost)


def test_process_gone_releases_its_leases(bench: Bench, world: World) -> None:
    """Goal: a nested owner's death ends its grants here, and the worker that ran them is free when
    it has ended the dead owner's task; it is killed only if it does not.

    Method: two owners' workers; one owner dies and its worker answers in time, then the other,
    whose worker is silent."""
    bench.driver()
    workers = [bench.worker(start) for start in (1, 2)]
    nested = process("w7", "near")
    bench.request(1, nested)
    bench.request(2)
    world.take(AssignJob), world.take(LeaseGranted)
    start = granted_to(bench, 1)
    vacating, other = workers[start - 1], process("w8", "near")
    bench.say(News(pack_reports([]), [nested.process]), HEAD)
    world.expect(
        *((local, ProcessLost(nested.process)) for local in (DRIVER, *workers)),
        (vacating, Vacate(nested.process)),
    )
    assert bench.node.scheduling.free == cpus(1)
    assert list(bench.node.scheduling.granted) == [lease(2)]
    assert not bench.node.workers.idle
    bench.say(Vacated(process("w9", "near").process), vacating)  # not the one that was meant
    assert not bench.node.workers.idle
    bench.say(Vacated(nested.process), vacating)
    assert list(bench.node.workers.idle) == [start]
    bench.request(3, other)
    world.take(AssignJob), world.take(LeaseGranted)
    bench.say(News(pack_reports([]), [other.process]), HEAD)
    assert bench.shell.killed == []
    world.advance(VACATE_SECONDS)
    assert bench.shell.killed == [start]
    for kind in (ProcessLost, Vacate, Heartbeat, NodeReport):
        world.take(kind)


def granted_to(bench: Bench, number: int) -> int:
    """Which worker a lease was granted."""
    worker = bench.node.scheduling.granted[lease(number)].worker
    assert worker is not None
    return worker.start


def test_a_new_process_is_told_which_nodes_are_gone(bench: Bench, world: World) -> None:
    """Goal: it answers for nothing that was there, to a node that lives on in its own opinion.

    Method: a node dies; a worker comes up."""
    gone = NodeChanged(info(NEAR, cpus(1), alive=False, reason="said nothing"))
    bench.say(gone, HEAD)
    world.take(JobEnded)
    assert world.take(NodeChanged, bench.worker(1)) == [gone]


def test_node_gone_takes_its_owners_along(bench: Bench, world: World) -> None:
    """Goal: what owners of a dead node asked for or hold here goes, though nobody names each.

    Method: the head says that the node is gone; its driver held a lease, one worker of it waits,
    another owns a copy here; only that word comes, none of their streams ends. The process here
    hears of each owner, then of the node."""
    bench.say(JobStarted(job("job2"), OTHER_DRIVER, 9, [], "/", True), HEAD)
    worker = bench.worker(1)
    bench.request(1, OTHER_DRIVER, name="job2")
    waiting, owning = process("w7", "near"), process("w8", "near")
    bench.request(2, waiting, cpus(2), name="job2")
    bench.say(CreateObject(object_id("x"), 100, owning, job("job2")), worker)
    bench.say(SealObject(object_id("x")), worker)
    for kind in (AssignJob, LeaseGranted, ObjectCreated):
        world.one(kind)
    gone = info(NEAR, cpus(1))
    gone.alive = False
    bench.say(NodeChanged(gone), HEAD)
    owners = {message.process for message in world.take(ProcessLost, worker)}
    assert owners == {OTHER_DRIVER.process, waiting.process, owning.process}
    world.expect((worker, Vacate(OTHER_DRIVER.process)), (worker, NodeChanged(gone)))
    assert set(bench.shell.killed) == {1}
    assert bench.room.used == 0
    assert world.fenced == [NEAR.node]
    assert bench.node.jobs == {}
    assert bench.node.scheduling.free == cpus(2)
    assert not bench.node.scheduling.queue
    assert not bench.node.scheduling.peers


def test_local_processes_hear_of_a_dead_node(bench: Bench, world: World) -> None:
    """Goal: owners learn that copies and workers there are gone; a report alone is not
    passed on."""
    bench.driver()
    news = info(NEAR, cpus(1))
    bench.say(NodeChanged(news), HEAD)
    world.expect()
    news.alive = False
    bench.say(NodeChanged(news), HEAD)
    world.expect((DRIVER, NodeChanged(news)))


def test_blocked_lends_and_unblocked_takes_back(bench: Bench, world: World) -> None:
    """Goal: a task that waits for its child on a one-CPU share does not deadlock."""
    worker = bench.worker(1)
    bench.worker(2)
    bench.driver()
    bench.request(1, resources=cpus(2))
    bench.request(2, worker, cpus(2))
    assert len(world.take(LeaseGranted)) == 1
    bench.say(Blocked(), worker)
    assert world.one(LeaseGranted, worker).lease == lease(2)
    bench.say(Unblocked(), worker)
    assert bench.node.scheduling.free == cpus(-2)
    bench.say(ReturnLease(lease(2)), worker)
    assert bench.node.scheduling.free == cpus(0)
    world.take(AssignJob)


def test_reports(bench: Bench, world: World) -> None:
    """Goal: news go out at most every REPORT_SECONDS, and only news."""
    bench.driver()
    bench.worker(1)
    bench.worker(2)
    bench.request(1)
    bench.request(2)
    world.take(AssignJob), world.take(LeaseGranted)
    world.advance(REPORT_SECONDS)
    assert world.one(NodeReport, HEAD).free == cpus(0)
    world.advance(9 * REPORT_SECONDS)
    world.one(Heartbeat, HEAD)
    world.expect()
    bench.say(ReturnLease(lease(1)), DRIVER)
    bench.say(ReturnLease(lease(2)), DRIVER)
    world.advance(REPORT_SECONDS)
    assert world.one(NodeReport, HEAD).free == cpus(2)


def test_reader_of_a_dead_owners_object_is_answered(bench: Bench, world: World) -> None:
    """Goal: a fetch that waits for room ends when its object goes. Method: the store is full."""
    bench.driver()
    reader = bench.worker(1)
    bench.say(CreateObject(object_id("big"), 1 << 16, DRIVER, job()), DRIVER)
    owner = process("w7", "near")
    bench.say(FetchObject(object_id("x"), 100, owner, [NEAR]), reader)
    world.take(ObjectCreated)
    bench.say(News(pack_reports([]), [owner.process]), HEAD)
    world.expect(
        (DRIVER, ProcessLost(owner.process)),
        (reader, ProcessLost(owner.process)),
        (reader, ObjectMissing(object_id("x"), "it was freed", [ME.node])),
    )
    assert world.take(ObjectReady) == []


def test_keep_object(bench: Bench, world: World) -> None:
    """Goal: the role passes the owner's word on: a copy here becomes the primary."""
    reader, owner = bench.worker(1), process("w7", "near")
    bench.say(FetchObject(object_id("x"), 100, owner, [NEAR]), reader)
    assert not bench.node.objects.table[object_id("x")].primary
    bench.say(KeepObject(object_id("x")), owner)
    assert bench.node.objects.table[object_id("x")].primary


# --- the head goes away, and says that we are dead ----------------------------------------------


def test_what_the_head_missed_is_told_when_it_is_back(bench: Bench, world: World) -> None:
    """Goal: while the head is away nothing is sent to it and all goes on; the next call says it
    all: who ended, which jobs run, who is known to be dead, what is free now. Method: one driver
    leaves, another comes, a worker dies, a lease is granted, all without a head."""
    bench.driver()
    bench.say(NodeChanged(info(node("dead"), cpus(1), alive=False)), HEAD)
    world.sent.clear()
    bench.node.peer_lost(HEAD)
    late = process("driver3", "me")
    bench.say(Register(late, 6, job("late"), 0, True), late)
    bench.say(Leave(), DRIVER)
    worker = bench.worker(1)
    bench.lost(2)
    bench.request(1, late, name="late")
    world.one(LeaseGranted, late)
    world.advance(FIRST_PAUSE / 2)
    assert [message for to, message in world.sent if to == HEAD] == []
    world.advance(FIRST_PAUSE / 2)
    call = world.one(JoinCluster, HEAD)
    assert [running.job for running in call.jobs] == [job("late")]
    assert call.ended == [DRIVER.process]
    assert [gone.address for gone in call.gone] == [node("dead")]
    assert (call.info.free, call.info.workers) == (cpus(1), 1)
    assert worker.process in bench.node.workers.by_process
    world.sent.clear()


def test_what_we_missed_is_in_the_heads_answer(bench: Bench, world: World) -> None:
    """Goal: deaths, ends and jobs that we were not told of take effect when the head is back;
    what we know better does not. Method: NEAR's driver holds a lease here; the answer says that it
    has ended and NEAR is gone, names a new node, a new job, and a job of ours that is over."""
    bench.driver()
    ours = bench.node.jobs[job()]
    bench.say(JobStarted(job("job2"), OTHER_DRIVER, 9, [], "/", True), HEAD)
    bench.worker(1)
    bench.request(1, OTHER_DRIVER, name="job2")
    bench.say(Leave(), DRIVER)
    bench.node.peer_lost(HEAD)
    world.advance(FIRST_PAUSE)
    world.sent.clear()
    far = info(node("far"), cpus(4))
    new = JobStarted(job("new"), process("d9", "far"), 1, [], "/", True)
    gone = info(NEAR, cpus(1), alive=False, reason="said nothing for 10 s")
    bench.say(Joined([far], [gone], [ours, new], [OTHER_DRIVER.process]), HEAD)
    assert set(bench.node.jobs) == {job("new")}
    assert set(bench.node.scheduling.peers) == {node("far").node}
    assert bench.shell.killed
    assert bench.node.scheduling.free == cpus(2)
    assert world.fenced == [NEAR.node]
    bench.say(NodeChanged(info(NEAR, cpus(1))), HEAD)
    assert set(bench.node.scheduling.peers) == {node("far").node}
    world.sent.clear()


def test_a_node_that_the_head_forgot(bench: Bench, world: World) -> None:
    """Goal: a head that lost a record hears of the node from those who knew it. Method: the
    answer to our second call does not name NEAR."""
    bench.node.peer_lost(HEAD)
    world.advance(FIRST_PAUSE)
    world.one(JoinCluster, HEAD)
    bench.say(Joined([]), HEAD)
    world.expect((HEAD, NodeKnown(info(NEAR, cpus(1), {}))))


def test_declared_dead(bench: Bench, world: World) -> None:
    """Goal: the shell ends a node that was declared dead, and its drivers hear why."""
    bench.driver()
    bench.say(Fenced("said nothing for 10 s"), HEAD)
    world.expect((DRIVER, Fenced("said nothing for 10 s")))
    assert bench.shell.ended == ["said nothing for 10 s"]


def test_the_heads_patience_is_passed_on(bench: Bench, world: World) -> None:
    """Goal: processes know how long a node may be silent. Method: the head of another patience
    comes back; one process is here, another comes later."""
    bench.driver()
    bench.say(Joined([info(NEAR, cpus(1), {})], dead_after=30.0), HEAD)
    assert world.one(Registered, DRIVER).dead_after == 30.0
    late = process("w1", "me")
    bench.say(Register(late, 101, job(""), 1, False), late)
    assert world.one(Registered, late).dead_after == 30.0
