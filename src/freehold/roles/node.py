"""The node: one per machine. Grants leases on its workers, keeps its store, knows the other nodes.

Machines: scheduling (lease requests), workers (the pool), objects (the store), draining (its end
in good order) and moving (of its values, then). Effects beyond messages are asked of the shell
through ``Starter`` (processes) and ``Mover`` (bytes).

A process of this machine that ends is known at once, by the end of its stream and by its parent;
what it held here is released, and the head tells the other nodes. What is said here about a
process of another machine comes from the head. While the head is away all goes on; what it would
have been told it is told when it is back (``attendance``). A node or a process that was declared
dead stays dead: it is remembered, told to the processes here, and heard no more (``World.fence``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from freehold.core import news
from freehold.core.attendance import Attendance
from freehold.core.draining import Draining
from freehold.core.environments import Maker
from freehold.core.membership import GONE_KEPT, Ended
from freehold.core.moving import Moving
from freehold.core.objects import Objects
from freehold.core.reporting import Reporting
from freehold.core.scheduling import Scheduling
from freehold.core.stored import Mover, Room
from freehold.core.telling_node import NodeTelling
from freehold.core.workers import Starter, Worker, Workers
from freehold.core.world import World
from freehold.ids import JobId, LeaseId, NodeId, ProcessId
from freehold.resources import CPU, UNIT
from freehold.roles.preparing import Preparing
from freehold.wire.attendance import unpack_reports
from freehold.wire.inquiry import Explain, Explanation
from freehold.wire.messages import (
    AbortObject,
    Address,
    AssignJob,
    AwaitGroup,
    Blocked,
    CancelFetch,
    CreateObject,
    Death,
    DescribeNode,
    DrainNode,
    Fenced,
    FetchAhead,
    FetchObject,
    FetchTogether,
    FreeObjects,
    GiveObject,
    GroupChanged,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    KeepObject,
    KillLease,
    LeaseEnded,
    Leave,
    Message,
    News,
    NodeChanged,
    NodeDescription,
    NodeInfo,
    NodeKnown,
    ObjectTaken,
    ProcessLost,
    Register,
    Registered,
    ReleaseBundles,
    RequestLease,
    ReserveBundles,
    Retire,
    ReturnLease,
    SealObject,
    Stop,
    TakeObject,
    Unblocked,
    UnpinObject,
    Vacated,
)

#: Seconds to wait for the end of a dead worker's stream.
DRAIN_PATIENCE = 2.0


class Shell(Starter, Mover, Protocol):
    """What the node needs done besides messages."""

    def fenced(self, reason: str) -> None:
        """This node was declared dead: end it with all that it has, and begin as a new one."""


class Node:
    """The machines of one node."""

    def __init__(
        self,
        world: World,
        shell: Shell,
        room: Room,
        info: NodeInfo,
        head: Address,
        *,
        infeasible_grace: float,
        maker: Maker,
    ) -> None:
        self.world = world
        self.shell = shell
        self.info = info
        self.head = head
        self.scheduling = Scheduling(world, info.total, infeasible_grace)
        self.workers = Workers(world, shell, keep=max(1, info.total.get(CPU, 0) // UNIT))
        self.objects = Objects(world, room, shell)
        self.moving = Moving(world, self.objects, self.scheduling.peers)
        self.draining = Draining(world, self.moving)
        self.jobs: dict[JobId, JobStarted] = {}
        self.drivers: dict[ProcessId, JobId] = {}
        self.processes: dict[ProcessId, Address] = {}
        self.ending: dict[ProcessId, tuple[int, Death]] = {}  # ended, their streams not yet
        self.drained: set[ProcessId] = set()  # the other way round
        self.attendance = Attendance(world, head, self.facts)
        self.ended = Ended()
        self.gone: dict[NodeId, NodeInfo] = {}
        self.telling = NodeTelling(
            world, self.scheduling, self.workers, self.objects, self.jobs, self.drivers
        )
        self.telling.processes = self.processes
        self.bundles = self.scheduling.bundles
        self.reporting = Reporting(
            world, info, self.scheduling, self.workers, self.objects, self.attendance
        )
        self.bundles.tell_head = self.attendance.tell
        self.scheduling.labels = info.labels
        self.scheduling.gone = self.gone
        self.scheduling.end_worker = lambda worker: shell.kill_worker(worker.start)
        self.scheduling.job_known = self.jobs.__contains__
        self.scheduling.unwant_worker = self.workers.unwant
        self.scheduling.worker_free = self.worker_free
        self.workers.given = self.given
        self.workers.refused = self.no_worker
        self.objects.admission.runs = lambda process: self.scheduling.runs(
            self.workers.by_process.get(process)
        )
        self.moving.stays = self.drivers.__contains__
        self.draining.alone = self.alone
        self.draining.begin = self.begin_drain
        self.draining.stay = self.end_drain
        self.draining.tidy = self.workers.retire_all
        self.draining.kept_by = self.kept_by
        self.draining.leave = self.leave
        self.preparing = Preparing(world, maker, self.scheduling, self.workers)
        self.handlers = self.table()
        self.handlers.update(self.preparing.handlers())

    def table(self) -> dict[type[Message], Callable[[Any, Address], None]]:
        """Which message goes where."""
        return {
            RequestLease: lambda message, peer: self.scheduling.on_request(message),
            ReturnLease: lambda message, peer: self.scheduling.on_return(
                message.lease, peer.process
            ),
            KillLease: self.on_kill_lease,
            Register: self.on_register,
            CreateObject: self.objects.on_create,
            SealObject: lambda message, peer: self.objects.on_seal(message.object, peer),
            AbortObject: lambda message, peer: self.objects.on_abort(message.object, peer),
            FetchObject: self.objects.on_fetch,
            FetchTogether: self.objects.on_fetch_together,
            FetchAhead: lambda message, peer: self.objects.on_fetch_ahead(message),
            CancelFetch: lambda message, peer: self.objects.on_cancel_fetch(message.object, peer),
            UnpinObject: lambda message, peer: self.objects.unpin(message.object, peer.process),
            FreeObjects: self.on_free,
            Blocked: lambda message, peer: self.on_blocked(peer, blocked=True),
            Unblocked: lambda message, peer: self.on_blocked(peer, blocked=False),
            Leave: lambda message, peer: self.driver_gone(peer.process, left=True),
            Joined: self.on_joined,
            Fenced: self.on_fenced,
            NodeChanged: lambda message, peer: self.on_node_changed(message),
            News: lambda message, peer: self.on_news(message),
            JobStarted: lambda message, peer: self.on_job_started(message),
            JobEnded: lambda message, peer: self.on_job_ended(message.job),
            Vacated: self.on_vacated,
            Retire: self.on_retire,
            GiveObject: self.objects.on_give,
            KeepObject: lambda message, peer: self.objects.on_keep(message.object),
            DescribeNode: self.on_describe,
            Explain: self.on_explain,
            ReserveBundles: lambda message, peer: self.bundles.on_reserve(message),
            ReleaseBundles: lambda message, peer: self.bundles.on_release(message),
            GroupChanged: self.on_group_changed,
            AwaitGroup: lambda message, peer: self.bundles.on_await(message.group, peer),
            DrainNode: self.draining.on_drain,
            TakeObject: self.on_take,
            ObjectTaken: self.on_taken,
        }

    def start(self) -> None:
        """Join the cluster and have a worker per CPU ready."""
        self.attendance.call()
        self.workers.prestart(self.info.total.get(CPU, 0) // UNIT)

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message; afterwards, have what changed reported."""
        self.handlers[type(message)](message, peer)
        if isinstance(message, ReserveBundles | ReleaseBundles | GroupChanged):
            self.scheduling.dispatch()
        self.reporting.changed()

    # ------------------------------------------------------------------ processes of this machine

    def on_register(self, message: Register, peer: Address) -> None:
        """A driver or a worker is up."""
        self.processes[peer.process] = peer
        self.world.send(peer, self.registered())
        for info in self.gone.values():  # it may be given references to what was there
            self.world.send(peer, NodeChanged(info))
        if message.driver:
            job = JobStarted(
                message.job,
                peer,
                message.pid,
                message.python_path,
                message.cwd,
                message.log_to_driver,
                explain_after=message.explain_after,
                namespace=message.namespace,
                detached=message.detached,
            )
            self.drivers[peer.process] = message.job
            self.jobs[message.job] = job
            self.attendance.tell(job)
            self.scheduling.dispatch()
        else:
            self.workers.registered(message.start, message.pid, peer)

    def registered(self) -> Registered:
        """What a process of this machine is told of where it lives."""
        capacity, patience = self.objects.room.capacity, self.attendance.dead_after
        return Registered(self.world.address, self.head, capacity, self.info.total, patience)

    def given(self, lease: LeaseId, worker: Worker) -> None:
        """A grant has its worker: bind it to the job first, then tell the owner."""
        assert worker.address is not None
        assert worker.job is not None
        job = self.jobs[worker.job]
        granted = self.scheduling.granted[lease]
        self.world.send(
            worker.address,
            AssignJob(
                job.job,
                job.driver,
                job.python_path,
                job.cwd,
                granted.wire.resources,
                job.explain_after,
                sorted(granted.shares),
                granted.placement(),
                self.preparing.furnished(worker),
                lease,
            ),
        )
        self.scheduling.given(lease, worker)

    def worker_free(self, worker: Worker) -> None:
        """A lease was returned: its worker may serve another of the same job."""
        assert worker.address is not None
        process = worker.address.process
        ended = process in self.ending or process in self.drained
        if worker.start in self.workers.all and not ended:
            self.workers.rest(worker)

    def on_vacated(self, message: Vacated, peer: Address) -> None:
        """A worker of ours runs nothing of a dead owner any more."""
        worker = self.workers.vacated(peer.process, message.owner)
        if worker is not None:
            self.worker_free(worker)

    def on_kill_lease(self, message: KillLease, peer: Address) -> None:
        """An owner wants the worker of its lease dead."""
        granted = self.scheduling.granted.get(message.lease)
        if granted is not None and granted.worker is not None:
            if granted.wire.owner.process == peer.process:
                self.shell.kill_worker(granted.worker.start)  # its end is reported as any other
            return
        self.scheduling.on_return(message.lease, peer.process)
        unknown = Death(0, self.world.address.node, detail="its node knows of no such worker")
        self.world.send(peer, LeaseEnded(message.lease, unknown))

    def on_retire(self, message: Retire, peer: Address) -> None:
        """A worker of ours has run as many tasks as it may."""
        worker = self.workers.retire(peer.process)
        if worker is not None and worker.lease is not None:
            self.scheduling.want_back(worker.lease)

    def no_worker(self, lease: LeaseId, death: Death) -> None:
        """Workers die as soon as they are started."""
        tail = "\n".join(death.stderr_tail)
        self.scheduling.refuse(
            lease, f"workers cannot be started on this node: {death.detail}\n{tail}"
        )

    def on_group_changed(self, message: GroupChanged, peer: Address) -> None:
        """The head tells how a group is, or a process of ours whom it has told."""
        by_head = peer.process == self.head.process
        told = self.bundles.on_changed if by_head else self.bundles.on_told
        told(message.info)

    def on_blocked(self, peer: Address, *, blocked: bool) -> None:
        """A worker's task waits, or goes on."""
        worker = self.workers.by_process.get(peer.process)
        if worker is not None:
            (self.scheduling.block if blocked else self.scheduling.unblock)(worker)

    def worker_ended(self, start: int, death: Death) -> None:
        """A worker process is gone, and this is how: its parent says so.

        What it sent before it died may still be on its way to us, and counts. So we act when its
        stream has ended too, or ``DRAIN_PATIENCE`` later (a child of it may hold the stream open).
        """
        worker = self.workers.all.get(start)
        if worker is None:
            return
        process = worker.address.process if worker.address is not None else None
        if process is None or process in self.drained:
            self.worker_gone(start, death)
            return
        self.ending[process] = (start, death)
        self.workers.idle.pop(start, None)
        self.world.call_at(self.world.now() + DRAIN_PATIENCE, lambda: self.stream_drained(process))

    def stream_drained(self, process: ProcessId) -> None:
        """Nothing more comes from a worker of ours."""
        if process in self.ending:
            self.worker_gone(*self.ending.pop(process))
        elif process in self.workers.by_process:
            self.drained.add(process)
            # A task that was sent there would be charged for a death that it never saw.
            self.workers.idle.pop(self.workers.by_process[process].start, None)

    def worker_gone(self, start: int, death: Death) -> None:
        """A worker is gone and has been heard out: give back what it held, tell who leased it."""
        worker = self.workers.ended(start, death)
        if worker is not None and worker.lease is not None:
            granted = self.scheduling.release(worker.lease)
            if granted is not None:
                ended = LeaseEnded(worker.lease, death, granted.removed)
                self.world.send(granted.wire.owner, ended)
        if worker is not None and worker.address is not None:
            self.drained.discard(worker.address.process)
            self.telling.worker_ended(worker.pid, worker.address.process, death)
            self.local_gone(worker.address.process)
        self.scheduling.dispatch()
        self.reporting.changed()

    def peer_lost(self, peer: Address) -> None:
        """A stream has ended: all that we hear of a driver's end, not of a worker's."""
        self.draining.peer_lost(peer.process)
        if peer.process == self.head.process:
            self.attendance.lost()
        elif peer.process in self.drivers:
            self.driver_gone(peer.process)
        elif peer.process in self.workers.by_process:
            self.stream_drained(peer.process)
        else:
            # Also one of another machine: the head's word may have overtaken its last requests.
            self.process_gone(peer.process)
        self.reporting.changed()

    def driver_gone(self, process: ProcessId, *, left: bool = False) -> None:
        """A driver has left or died: its job is over, everywhere."""
        if process in self.drivers:
            self.telling.driver_ended(process, left=left)
        job = self.drivers.pop(process, None)
        if job is not None:
            self.attendance.tell(JobEnded(job))
            self.on_job_ended(job)
            self.local_gone(process)

    def local_gone(self, process: ProcessId) -> None:
        """A process of this machine is gone: tell the others."""
        self.processes.pop(process, None)
        self.ended.add(process)
        self.attendance.tell(ProcessLost(process))
        self.process_gone(process)

    def on_process_lost(self, process: ProcessId) -> None:
        """A process of another machine has ended, the head says. If it was a driver, so has its
        job: a head that comes back may never have known of that.
        """
        if self.ended.add(process):
            for job in [job for job in self.jobs.values() if job.driver.process == process]:
                self.on_job_ended(job.job)
            self.process_gone(process)

    def process_gone(self, process: ProcessId) -> None:
        """A process, here or elsewhere, is gone: release what it held and free what it owned, and
        tell the processes here, which may wait for it without a connection to it.
        """
        self.processes.pop(process, None)
        for address in list(self.processes.values()):
            self.world.send(address, ProcessLost(process))
        for worker in self.scheduling.forget_owner(process):
            if worker.job in self.jobs:  # (else it has been killed with its job)
                self.workers.vacate(worker, process)
        self.objects.process_lost(process)
        self.bundles.forget_process(process)
        self.preparing.environments.process_lost(process)

    # ------------------------------------------------------------------ jobs and nodes

    def on_job_started(self, message: JobStarted) -> None:
        """A driver of another node is up; its requests may be here already. (Of ours we know
        better: one may have ended while the head's answer was on its way.)
        """
        driver = message.driver
        if driver.node != self.world.address.node and driver.process not in self.ended.processes:
            self.jobs[message.job] = message
            self.scheduling.dispatch()

    def on_job_ended(self, job: JobId) -> None:
        """A job is over."""
        if self.jobs.pop(job, None) is not None:
            self.workers.end_job(job)
            self.objects.job_ended(job)

    @property
    def joined(self) -> bool:
        """Whether the head is there and has taken us in."""
        return self.attendance.joined

    def facts(self) -> JoinCluster:
        """All that the head may have missed of us, or forgotten."""
        jobs = [self.jobs[job] for job in self.drivers.values()]
        return JoinCluster(
            self.reporting.told(),
            jobs,
            list(self.ended.processes),
            list(self.gone.values()),
            self.bundles.facts(),
        )

    def on_joined(self, message: Joined, peer: Address) -> None:
        """The head took us in, and says all that we may have missed."""
        before = self.attendance.dead_after
        self.attendance.on_joined(message)
        if message.dead_after != before:
            for address in self.processes.values():
                self.world.send(address, self.registered())
        for info in (*message.nodes, *message.gone):
            self.on_node_changed(NodeChanged(info))
        named = {info.address.node for info in message.nodes}
        for node, info in self.scheduling.peers.items():
            if node not in named:
                self.attendance.tell(NodeKnown(info))
        for job in message.jobs:
            self.on_job_started(job)
        for process in message.ended:
            self.on_process_lost(process)
        self.bundles.reconcile(message.groups)
        self.scheduling.dispatch()

    def on_fenced(self, message: Fenced, peer: Address) -> None:
        """The others have given up what was here, and hear us no more. Drivers shall know why."""
        for process in self.drivers:
            self.world.send(self.processes[process], message)
        self.shell.fenced(message.reason)

    def on_node_changed(self, message: NodeChanged) -> None:
        """News of another node; local processes need to know of deaths."""
        info = message.info
        node: NodeId = info.address.node
        if node == self.world.address.node or node in self.gone:
            return
        if info.alive:
            self.scheduling.peers[node] = info
            self.scheduling.dispatch()
            return
        self.gone[node] = info
        if len(self.gone) > GONE_KEPT:
            del self.gone[next(iter(self.gone))]
        self.world.fence(node)
        self.scheduling.peers.pop(node, None)
        self.preparing.environments.node_lost(node)
        for owner in sorted(self.scheduling.owners_on(node) | self.objects.owners_on(node)):
            self.process_gone(owner)
        for job in [job for job in self.jobs.values() if job.driver.node == node]:
            self.on_job_ended(job.job)
        for address in list(self.processes.values()):
            self.world.send(address, message)

    def on_news(self, message: News) -> None:
        """What is free elsewhere, and which processes have ended."""
        for report in unpack_reports(message.reports):
            info = self.scheduling.peers.get(report.node)
            if info is not None:
                news.note(report, info)
        for process in message.ended:
            self.on_process_lost(process)
        self.scheduling.dispatch()

    # ------------------------------------------------------------------ objects

    def on_free(self, message: FreeObjects, peer: Address) -> None:
        """An owner frees its objects."""
        for object_id in message.objects:
            self.objects.on_free(object_id)
        if self.draining.on:
            self.moving.freed()

    # ------------------------------------------------------------------ draining

    def alone(self) -> bool:
        """Whether no other node would be left to take tasks and values."""
        return all(peer.draining for peer in self.scheduling.peers.values())

    def begin_drain(self, force: bool) -> None:
        """Nothing new is granted here from now on, and everybody learns of it."""
        self.mark_drained(True)
        for process in list(self.drivers) if force else ():
            self.world.send(self.processes[process], Stop())
            self.driver_gone(process)
        self.scheduling.drain()

    def end_drain(self) -> None:
        """As before."""
        self.mark_drained(False)
        self.scheduling.undrain()

    def mark_drained(self, drained: bool) -> None:
        """Say it at once: until others know, they send requests here that come straight back."""
        self.info.draining = drained
        self.attendance.tell(NodeChanged(self.reporting.snapshot()))

    def kept_by(self) -> tuple[int, int, int]:
        """Leases, workers and drivers that a drain waits for."""
        return len(self.scheduling.granted), len(self.workers.all), len(self.drivers)

    def leave(self, words: str) -> None:
        """Everything is given away, or time is over. The head tells the others, and us to stop."""
        info = self.reporting.snapshot()
        info.alive, info.reason = False, words
        self.attendance.tell(NodeChanged(info))

    def on_take(self, message: TakeObject, peer: Address) -> None:
        """A node that is drained wants us to take a value over."""
        if self.draining.on:
            self.world.send(peer, ObjectTaken(message.object, "it is being drained itself"))
        else:
            self.objects.on_take(message, peer)

    def on_taken(self, message: ObjectTaken, peer: Address) -> None:
        """The answer, when we are."""
        self.moving.on_taken(message, peer)
        if self.draining.on:
            self.moving.offer()

    # ------------------------------------------------------------------ questions

    def on_describe(self, message: DescribeNode, peer: Address) -> None:
        """Someone asks what is in here."""
        counts = self.telling.counts()
        self.world.send(peer, NodeDescription(message.request, self.reporting.snapshot(), counts))

    def on_explain(self, message: Explain, peer: Address) -> None:
        """Someone asks why a lease, an object or a process of ours is as it is."""
        findings = self.telling.explain(message.about, message.id)
        self.world.send(peer, Explanation(message.request, findings))
