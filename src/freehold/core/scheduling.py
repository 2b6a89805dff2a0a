"""Scheduling: which lease requests a node grants, and when; which it sends elsewhere, and where.

A request is granted here if its resources are free; else it is redirected to a node that seems to
have them free, else it waits in the queue. The queue is ordered by depth (a task's children
before more of its siblings: otherwise a recursion would fill the node with blocked parents), then
by arrival. A request that does not fit lets smaller ones pass, until it has waited ``PATIENCE``:
then nothing that it could use is granted past it.

What other nodes have is known from the head's reports and may be stale: a redirection takes its
amount off our picture at once, a request is redirected at most ``MAX_HOPS`` times.

Resources lent out: a worker that blocks in ``get`` lends its CPUs; when it goes on they are taken
back at once, so that ``free`` may be below zero for a while and nothing is granted until it is
not. Waiting for the CPU instead could wait for ever on a task that waits for this one.

A node that is drained grants nothing: it sends every request on, whatever its hops (else it would
keep it for ever), to a node that is not drained itself, and asks for every lease that it has
granted. What only a drained node could grant waits as the infeasible does, and is refused with
that reason.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Final

from freehold import resources
from freehold.core.workers import Worker
from freehold.core.world import Timer, World
from freehold.ids import JobId, LeaseId, NodeId, ProcessId, short
from freehold.resources import CPU, Resources
from freehold.wire.messages import (
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LeaseWanted,
    NodeInfo,
    RequestLease,
    StillQueued,
)

MAX_HOPS: Final = 8
#: Seconds a request lets others pass.
PATIENCE: Final = 5.0
#: Seconds a request waits before holders of leases are asked for them, and between such looks.
ASK_AFTER: Final = 0.05
#: Seconds after which a waiting owner is told why it waits.
EXPLAIN_AFTER: Final = 1.0


class Queued:
    """A request that waits."""

    __slots__ = ("infeasible_since", "order", "since", "told", "wire")

    def __init__(self, wire: RequestLease, order: tuple[int, int], since: float) -> None:
        self.wire = wire
        self.order = order
        self.since = since
        self.told = False
        self.infeasible_since: float | None = None


class Granted:
    """A request that was granted; ``worker`` is None while one is being started for it."""

    __slots__ = ("lent", "since", "wanted", "wire", "worker")

    def __init__(self, wire: RequestLease, since: float) -> None:
        self.wire = wire
        self.since = since
        self.worker: Worker | None = None
        self.wanted = False
        self.lent = False

    def held(self) -> Resources:
        """What the grant holds now."""
        if not self.lent:
            return self.wire.resources
        return {name: amount for name, amount in self.wire.resources.items() if name != CPU}


class Scheduling:
    """The queue and the grants of one node."""

    def __init__(self, world: World, total: Resources, grace: float) -> None:
        self.world = world
        self.total = dict(total)
        self.free = dict(total)
        self.grace = grace
        self.peers: dict[NodeId, NodeInfo] = {}
        self.queue: list[Queued] = []
        self.granted: dict[LeaseId, Granted] = {}
        self.drained = False
        self.arrivals = 0
        self.ticker: Timer | None = None
        self.job_known: Callable[[JobId], bool]
        self.want_worker: Callable[[LeaseId, JobId], None]
        self.unwant_worker: Callable[[LeaseId], None]
        self.worker_free: Callable[[Worker], None]

    # ------------------------------------------------------------------ requests

    def on_request(self, message: RequestLease) -> None:
        """An owner wants a lease."""
        self.arrivals += 1
        queued = Queued(message, (-message.depth, self.arrivals), self.world.now())
        insort(self.queue, queued, key=lambda item: item.order)
        self.dispatch()

    def dispatch(self) -> None:
        """Grant, redirect or keep each queued request, in order."""
        if not self.queue:
            return
        blocked: set[str] = set()  # resources that a request past its patience waits for
        keep = []
        now = self.world.now()
        for queued in self.queue:
            wire = queued.wire
            if blocked and not blocked.isdisjoint(wire.resources):
                keep.append(queued)
            elif self.can_grant(wire):
                self.grant(wire)
            elif not self.redirect(queued):
                keep.append(queued)
                if now - queued.since > PATIENCE and self.could_grant(wire):
                    blocked.update(wire.resources)
        self.queue = keep
        if keep and self.ticker is None:
            self.ticker = self.world.call_at(now + ASK_AFTER, self.tick)

    def can_grant(self, wire: RequestLease) -> bool:
        """Whether the request can have what it needs here and now."""
        return resources.fits(wire.resources, self.free) and self.could_grant(wire)

    def could_grant(self, wire: RequestLease) -> bool:
        """Whether resources are all that the request waits for. One whose job is not known (yet,
        or no longer) must not keep them from others.
        """
        return (
            not self.drained
            and resources.fits(wire.resources, self.total)
            and self.job_known(wire.job)
        )

    def grant(self, wire: RequestLease) -> None:
        """Take the resources and find a worker."""
        resources.subtract(self.free, wire.resources)
        self.granted[wire.lease] = Granted(wire, self.world.now())
        self.want_worker(wire.lease, wire.job)

    def given(self, lease: LeaseId, worker: Worker) -> None:
        """The grant has its worker: tell the owner."""
        granted = self.granted[lease]
        granted.worker = worker
        assert worker.address is not None
        self.world.send(granted.wire.owner, LeaseGranted(lease, worker.address, worker.pid))

    def redirect(self, queued: Queued) -> bool:
        """Send the request to a node where it fits now, or, if it can never fit here, to one
        where it can.
        """
        wire = queued.wire
        if wire.hops >= MAX_HOPS and not self.drained:
            return False
        feasible = not self.drained and resources.fits(wire.resources, self.total)
        best, best_room = None, None
        for peer in self.peers.values():
            if peer.draining:
                continue
            now = resources.fits(wire.resources, peer.free)
            if now or (not feasible and resources.fits(wire.resources, peer.total)):
                room = peer.free.get(CPU, 0) + (1 << 40 if now else 0)
                if best_room is None or room > best_room:
                    best, best_room = peer, room
        if best is None:
            return False
        resources.subtract(best.free, wire.resources)
        self.world.send(wire.owner, LeaseRedirected(wire.lease, best.address, wire.hops + 1))
        return True

    # ------------------------------------------------------------------ waiting

    def tick(self) -> None:
        """Look after the requests that wait: ask for leases, explain, give up on the impossible."""
        self.ticker = None
        now = self.world.now()
        for queued in list(self.queue):
            if not self.feasible_somewhere(queued.wire.resources):
                self.infeasible(queued, now)
                continue
            queued.infeasible_since = None
            waited = now - queued.since
            if waited >= ASK_AFTER and not self.drained:
                self.ask_for_lease(queued.wire)
            if waited >= EXPLAIN_AFTER and not queued.told:
                queued.told = True
                self.world.send(
                    queued.wire.owner, StillQueued(queued.wire.lease, self.why(queued.wire))
                )
        self.dispatch()
        if self.queue and self.ticker is None:
            self.ticker = self.world.call_at(now + ASK_AFTER, self.tick)

    def feasible_somewhere(self, request: Resources) -> bool:
        """Whether any node of the cluster could ever grant it."""
        return any(resources.fits(request, total) for total in self.totals(drained=False))

    def totals(self, *, drained: bool) -> list[Resources]:
        """What the nodes that are drained have, or those that are not."""
        mine = [self.total] if self.drained == drained else []
        return mine + [peer.total for peer in self.peers.values() if peer.draining == drained]

    def infeasible(self, queued: Queued, now: float) -> None:
        """No node is big enough. Nodes may still join; after the grace time the request is
        refused.
        """
        reason = self.nearest_miss(queued.wire.resources)
        if queued.infeasible_since is None:
            queued.infeasible_since = now
            note = f"{reason}; fails {self.grace:g} s after that began unless such a node joins"
            self.world.send(queued.wire.owner, StillQueued(queued.wire.lease, note))
        elif now - queued.infeasible_since >= self.grace:
            self.queue.remove(queued)
            self.world.send(queued.wire.owner, LeaseRefused(queued.wire.lease, reason))

    def nearest_miss(self, request: Resources) -> str:
        """Why no node fits, by the one that lacks least."""
        if any(resources.fits(request, total) for total in self.totals(drained=True)):
            return f"{resources.describe(request)} is needed; the only node that has it is drained"
        totals = self.totals(drained=False)
        if not totals:
            return f"{resources.describe(request)} is needed, and every node is drained"
        nearest = min(totals, key=lambda total: _lack(request, total))
        which = (
            f"none of {len(totals)} nodes has it: the nearest" if len(totals) > 1 else "the node"
        )
        return (
            f"{resources.describe(request)} is needed; {which} has {resources.describe(nearest)}, "
            f"short of {resources.describe(resources.missing(request, nearest))}"
        )

    def why(self, wire: RequestLease) -> str:
        """Why a feasible request waits."""
        if not self.job_known(wire.job):
            return f"waits for its driver, job {short(wire.job)}, to be announced on this node"
        lacks = resources.describe(resources.missing(wire.resources, self.free))
        return (
            f"waits for {lacks} to come free ({resources.describe(self.free)} free of "
            f"{resources.describe(self.total)} here, {len(self.granted)} leases, "
            f"{len(self.queue)} requests queued)"
        )

    def ask_for_lease(self, wire: RequestLease) -> None:
        """Have one holder of what the request needs give it back once its pushed tasks are done.

        Not a lease of the same owner and shape: it would come straight back to the same queue.
        """
        for lease, granted in self.granted.items():
            other = granted.wire
            if granted.wanted or granted.worker is None or granted.lent:
                continue
            if other.owner == wire.owner and other.resources == wire.resources:
                continue
            if not wire.resources.keys().isdisjoint(other.resources):
                self.want_back(lease)
                return

    def want_back(self, lease: LeaseId) -> None:
        """The lease shall be returned once its pushed tasks are done."""
        granted = self.granted.get(lease)
        if granted is not None and not granted.wanted:
            granted.wanted = True
            self.world.send(granted.wire.owner, LeaseWanted(lease))

    # ------------------------------------------------------------------ draining

    def drain(self) -> None:
        """Grant nothing more: send on what waits, also for a worker to start, and ask for the
        leases.
        """
        self.drained = True
        for lease, granted in list(self.granted.items()):
            if granted.worker is None:
                self.release(lease)
                self.on_request(granted.wire)
            else:
                self.want_back(lease)
        self.dispatch()

    def undrain(self) -> None:
        """Grant again."""
        self.drained = False
        self.dispatch()

    # ------------------------------------------------------------------ ends of leases

    def on_return(self, lease: LeaseId, owner: ProcessId) -> None:
        """The owner needs the lease no more, or takes its request back."""
        granted = self.granted.get(lease)
        if granted is None:
            self.queue = [queued for queued in self.queue if queued.wire.lease != lease]
        elif granted.wire.owner.process == owner:
            worker = granted.worker
            self.release(lease)
            if worker is not None:
                self.worker_free(worker)
        self.dispatch()

    def release(self, lease: LeaseId) -> Granted | None:
        """Give the grant's resources back."""
        granted = self.granted.pop(lease, None)
        if granted is None:
            return None
        resources.add(self.free, granted.held())
        if granted.worker is None:
            self.unwant_worker(lease)
        return granted

    def refuse(self, lease: LeaseId, reason: str) -> None:
        """A grant for which no worker could be started."""
        granted = self.release(lease)
        if granted is not None:
            self.world.send(granted.wire.owner, LeaseRefused(lease, reason))

    def block(self, worker: Worker) -> None:
        """The worker's task waits: lend its CPUs out."""
        granted = self.granted.get(worker.lease) if worker.lease else None
        if granted is not None and not granted.lent:
            resources.add(self.free, {CPU: granted.wire.resources.get(CPU, 0)})
            granted.lent = True
            self.dispatch()

    def unblock(self, worker: Worker) -> None:
        """The worker's task goes on: its CPUs are taken back at once."""
        granted = self.granted.get(worker.lease) if worker.lease else None
        if granted is not None and granted.lent:
            granted.lent = False
            resources.subtract(self.free, {CPU: granted.wire.resources.get(CPU, 0)})

    def owners_on(self, node: NodeId) -> set[ProcessId]:
        """The owners on another node that have leases or requests here."""
        wires = [queued.wire for queued in self.queue]
        wires += [granted.wire for granted in self.granted.values()]
        return {wire.owner.process for wire in wires if wire.owner.node == node}

    def forget_owner(self, owner: ProcessId) -> list[Worker]:
        """An owner is gone: drop its requests and grants. Returns workers that may still run its
        tasks.
        """
        self.queue = [queued for queued in self.queue if queued.wire.owner.process != owner]
        orphans = []
        for lease, granted in list(self.granted.items()):
            if granted.wire.owner.process == owner:
                self.release(lease)
                if granted.worker is not None:
                    orphans.append(granted.worker)
        self.dispatch()
        return orphans


def _lack(request: Resources, total: Resources) -> tuple[int, int]:
    """How far ``total`` is from covering ``request``: kinds of resources short, and the sum."""
    lacks = resources.missing(request, total)
    return len(lacks), sum(lacks.values())
