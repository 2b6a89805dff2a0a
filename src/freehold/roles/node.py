"""The node: one per machine. Grants leases on its workers, keeps its store, knows the other nodes.

Machines: scheduling (lease requests), workers (the pool), objects (the store). Effects beyond
messages are asked of the shell through ``Starter`` (processes) and ``Mover`` (bytes).

A process of this machine that ends is known at once, by the end of its stream and by its parent;
what it held here is released, and the head tells the other nodes. What is said here about a
process of another machine comes from the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from freehold.core.objects import Mover, Objects, Room
from freehold.core.scheduling import Scheduling
from freehold.core.workers import Starter, Worker, Workers
from freehold.core.world import Timer, World
from freehold.ids import JobId, LeaseId, NodeId, ProcessId
from freehold.resources import CPU, UNIT, Resources
from freehold.wire.messages import (
    AbortObject,
    Address,
    AssignJob,
    Blocked,
    CancelFetch,
    CreateObject,
    Death,
    DescribeNode,
    FetchObject,
    FreeObjects,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    KeepObject,
    LeaseEnded,
    Leave,
    Message,
    NodeChanged,
    NodeDescription,
    NodeInfo,
    ProcessLost,
    Register,
    Registered,
    RequestLease,
    ReturnLease,
    SealObject,
    Unblocked,
    UnpinObject,
)

#: Seconds between reports of what is free: they serve only to choose between nodes.
REPORT_SECONDS = 0.1
#: Seconds to wait for the end of a dead worker's stream.
DRAIN_PATIENCE = 2.0


class Shell(Starter, Mover, Protocol):
    """What the node needs done besides messages."""


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
    ) -> None:
        self.world = world
        self.shell = shell
        self.info = info
        self.head = head
        self.scheduling = Scheduling(world, info.total, infeasible_grace)
        self.workers = Workers(world, shell, keep=max(1, info.total.get(CPU, 0) // UNIT))
        self.objects = Objects(world, room, shell)
        self.jobs: dict[JobId, JobStarted] = {}
        self.drivers: dict[ProcessId, JobId] = {}
        self.processes: dict[ProcessId, Address] = {}
        self.ending: dict[ProcessId, tuple[int, Death]] = {}  # ended, their streams not yet
        self.drained: set[ProcessId] = set()  # the other way round
        self.reporter: Timer | None = None
        self.reported: tuple[Resources, int, int, int, int] | None = None
        self.joined = False
        self.scheduling.job_known = self.jobs.__contains__
        self.scheduling.want_worker = self.workers.want
        self.scheduling.unwant_worker = self.workers.unwant
        self.scheduling.worker_free = self.worker_free
        self.workers.given = self.given
        self.workers.refused = self.no_worker
        self.handlers: dict[type[Message], Callable[[Any, Address], None]] = {
            RequestLease: lambda message, peer: self.scheduling.on_request(message),
            ReturnLease: lambda message, peer: self.scheduling.on_return(
                message.lease, peer.process
            ),
            Register: self.on_register,
            CreateObject: self.objects.on_create,
            SealObject: lambda message, peer: self.objects.on_seal(message.object, peer),
            AbortObject: lambda message, peer: self.objects.on_abort(message.object, peer),
            FetchObject: self.objects.on_fetch,
            CancelFetch: lambda message, peer: self.objects.on_cancel_fetch(message.object, peer),
            UnpinObject: lambda message, peer: self.objects.unpin(message.object, peer.process),
            FreeObjects: self.on_free,
            Blocked: lambda message, peer: self.on_blocked(peer, blocked=True),
            Unblocked: lambda message, peer: self.on_blocked(peer, blocked=False),
            Leave: lambda message, peer: self.driver_gone(peer.process),
            Joined: self.on_joined,
            NodeChanged: lambda message, peer: self.on_node_changed(message),
            JobStarted: lambda message, peer: self.on_job_started(message),
            JobEnded: lambda message, peer: self.on_job_ended(message.job),
            ProcessLost: lambda message, peer: self.process_gone(message.process),
            KeepObject: lambda message, peer: self.objects.on_keep(message.object),
            DescribeNode: self.on_describe,
        }

    def start(self) -> None:
        """Join the cluster and have a worker per CPU ready."""
        self.world.send(self.head, JoinCluster(self.info))
        self.workers.prestart(self.info.total.get(CPU, 0) // UNIT)

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message; afterwards, have what changed reported."""
        self.handlers[type(message)](message, peer)
        self.changed()

    # ------------------------------------------------------------------ processes of this machine

    def on_register(self, message: Register, peer: Address) -> None:
        """A driver or a worker is up."""
        self.processes[peer.process] = peer
        self.world.send(
            peer,
            Registered(self.world.address, self.head, self.objects.room.capacity, self.info.total),
        )
        if message.driver:
            job = JobStarted(
                message.job,
                peer,
                message.pid,
                message.python_path,
                message.cwd,
                message.log_to_driver,
            )
            self.drivers[peer.process] = message.job
            self.jobs[message.job] = job
            self.world.send(self.head, job)
            self.scheduling.dispatch()
        else:
            self.workers.registered(message.start, message.pid, peer)

    def given(self, lease: LeaseId, worker: Worker) -> None:
        """A grant has its worker: bind it to the job first, then tell the owner."""
        assert worker.address is not None
        assert worker.job is not None
        job = self.jobs[worker.job]
        self.world.send(
            worker.address,
            AssignJob(
                job.job,
                job.driver,
                job.python_path,
                job.cwd,
                self.scheduling.granted[lease].wire.resources,
            ),
        )
        self.scheduling.given(lease, worker)

    def worker_free(self, worker: Worker) -> None:
        """A lease was returned: its worker may serve another of the same job."""
        assert worker.address is not None
        if worker.start in self.workers.all and worker.address.process not in self.ending:
            self.workers.rest(worker)

    def no_worker(self, lease: LeaseId, death: Death) -> None:
        """Workers die as soon as they are started."""
        tail = "\n".join(death.stderr_tail)
        self.scheduling.refuse(
            lease, f"workers cannot be started on this node: {death.detail}\n{tail}"
        )

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

    def worker_gone(self, start: int, death: Death) -> None:
        """A worker is gone and has been heard out: give back what it held, tell who leased it."""
        worker = self.workers.ended(start, death)
        if worker is not None and worker.lease is not None:
            granted = self.scheduling.release(worker.lease)
            if granted is not None:
                self.world.send(granted.wire.owner, LeaseEnded(worker.lease, death))
        if worker is not None and worker.address is not None:
            self.drained.discard(worker.address.process)
            self.local_gone(worker.address.process)
        self.scheduling.dispatch()
        self.changed()

    def peer_lost(self, peer: Address) -> None:
        """A stream has ended. Workers' ends are told by ``worker_ended``; a driver's is known by
        this alone.
        """
        if peer.process in self.drivers:
            self.driver_gone(peer.process)
        elif peer.process in self.workers.by_process:
            self.stream_drained(peer.process)
        else:
            # Also one of another machine: the head's word may have overtaken its last requests.
            self.process_gone(peer.process)
        self.changed()

    def driver_gone(self, process: ProcessId) -> None:
        """A driver has left or died: its job is over, everywhere."""
        job = self.drivers.pop(process, None)
        if job is not None:
            self.world.send(self.head, JobEnded(job))
            self.on_job_ended(job)
            self.local_gone(process)

    def local_gone(self, process: ProcessId) -> None:
        """A process of this machine is gone: tell the others."""
        self.processes.pop(process, None)
        self.world.send(self.head, ProcessLost(process))
        self.process_gone(process)

    def process_gone(self, process: ProcessId) -> None:
        """A process, here or elsewhere, is gone: release what it held and free what it owned, and
        tell the processes here, which may wait for it without a connection to it.
        """
        self.processes.pop(process, None)
        for address in list(self.processes.values()):
            self.world.send(address, ProcessLost(process))
        for worker in self.scheduling.forget_owner(process):
            self.shell.kill_worker(worker.start)  # it may be running a task that nobody waits for
        self.objects.process_lost(process)

    # ------------------------------------------------------------------ jobs and nodes

    def on_job_started(self, message: JobStarted) -> None:
        """A driver of another node is up; its requests may be here already."""
        self.jobs[message.job] = message
        self.scheduling.dispatch()

    def on_job_ended(self, job: JobId) -> None:
        """A job is over."""
        if self.jobs.pop(job, None) is not None:
            self.workers.end_job(job)
            self.objects.job_ended(job)

    def on_joined(self, message: Joined, peer: Address) -> None:
        """The head took us in."""
        self.joined = True
        for info in message.nodes:
            self.on_node_changed(NodeChanged(info))

    def on_node_changed(self, message: NodeChanged) -> None:
        """News of another node; local processes need to know of deaths."""
        info = message.info
        node: NodeId = info.address.node
        if node == self.world.address.node:
            return
        if info.alive:
            self.scheduling.peers[node] = info
            self.scheduling.dispatch()
            return
        self.scheduling.peers.pop(node, None)
        for owner in sorted(self.scheduling.owners_on(node) | self.objects.owners_on(node)):
            self.process_gone(owner)
        for address in list(self.processes.values()):
            self.world.send(address, message)

    # ------------------------------------------------------------------ objects and reports

    def on_free(self, message: FreeObjects, peer: Address) -> None:
        """An owner frees its objects."""
        for object_id in message.objects:
            self.objects.on_free(object_id)

    def changed(self) -> None:
        """Have a report sent soon, if there is anything new to report."""
        if self.reporter is None and self.joined and self.state() != self.reported:
            self.reporter = self.world.call_at(self.world.now() + REPORT_SECONDS, self.report)

    def state(self) -> tuple[Resources, int, int, int, int]:
        """What others want to know, in steps that are worth a message."""
        return (
            dict(self.scheduling.free),
            len(self.scheduling.queue),
            len(self.workers.all),
            self.objects.room.used >> 20,
            self.objects.spilled_bytes >> 20,
        )

    def report(self) -> None:
        """Tell the head, which tells the others."""
        self.reporter = None
        self.reported = self.state()
        self.world.send(self.head, NodeChanged(self.snapshot()))

    def snapshot(self) -> NodeInfo:
        """This node as it is now."""
        info = self.info
        return NodeInfo(
            info.address,
            info.hostname,
            info.pid,
            info.total,
            {name: max(amount, 0) for name, amount in self.scheduling.free.items()},
            info.labels,
            len(self.scheduling.queue),
            self.objects.room.capacity,
            self.objects.room.used,
            self.objects.spilled_bytes,
            len(self.workers.all),
        )

    def on_describe(self, message: DescribeNode, peer: Address) -> None:
        """Someone asks what is in here."""
        counts = {
            "objects": len(self.objects.table),
            "needs": len(self.objects.needs),
            "granted": len(self.scheduling.granted),
            "queued": len(self.scheduling.queue),
            "workers": len(self.workers.all),
            "jobs": len(self.jobs),
        }
        self.world.send(peer, NodeDescription(message.request, self.snapshot(), counts))
