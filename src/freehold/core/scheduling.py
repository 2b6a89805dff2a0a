"""Scheduling: which lease requests a node grants, and when; which it sends elsewhere, and where.

A request is granted here if its resources are free; else it is redirected to a node that seems to
have them free, else it waits in the queue. One that takes no CPU is granted here as long as this
node would be free if each such took one, then where most is free in proportion.

The queue is ordered by depth (a task's children before more of its siblings: otherwise a recursion
would fill the node with blocked parents), then by arrival, where each step of priority counts as
``STEP`` of waiting: so the urgent goes first, and nothing waits for ever. A request that does not
fit lets smaller ones pass, until it has waited ``PATIENCE``: then nothing that it could use is
granted past it.

A reservation for a placement group that has waited for long (``bundles``, "claims") comes before
all that: until it is served nothing that it could use is granted to requests of depth 0, and
holders of leases are asked for them. Deeper requests pass: who waits for their results may hold
what the reservation needs.

A request may say where it can run (``strategies``), or that it belongs in a bundle of a placement
group (``bundles``): then it is granted from the bundle's pool instead of the node's, here if the
bundle is here. One for a group without its places waits, however long that takes; one for a group
that was removed is refused, and the leases in it end with their workers.

What other nodes have is known from the head's news and may be stale: a redirection takes its
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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from freehold import resources
from freehold.core import strategies
from freehold.core.bundles import Bundle, Bundles, Source
from freehold.core.grants import Granted, Queued
from freehold.core.pools import Pool
from freehold.core.workers import Worker
from freehold.core.world import Timer, World
from freehold.ids import JobId, LeaseId, NodeId, ProcessId, short
from freehold.resources import CPU, Resources
from freehold.wire.messages import (
    Address,
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
#: Seconds of waiting that a step of priority is worth: longer than most queues are, short enough
#: that what always comes second does run.
STEP: Final = 60.0
#: Seconds a request waits before holders of leases are asked for them, and between such looks.
ASK_AFTER: Final = 0.05
#: Seconds after which a waiting owner is told why it waits.
EXPLAIN_AFTER: Final = 1.0


class Scheduling:
    """The queue and the grants of one node."""

    def __init__(self, world: World, total: Resources, grace: float) -> None:
        self.world = world
        self.own = Pool(total)
        self.total = self.own.total
        self.free = self.own.free
        self.plain: Source = (self.own, -1, None)
        self.grace = grace
        self.bundles = Bundles(world, self.own)
        self.bundles.evict = self.evict
        self.bundles.refusing = lambda: "it is being drained" if self.drained else ""
        self.labels: Mapping[str, str] = {}
        self.peers: dict[NodeId, NodeInfo] = {}
        self.gone: Mapping[NodeId, NodeInfo] = {}  # the role's
        self.spread: Counter[NodeId] = Counter()  # requests to be spread that went there
        self.queue: list[Queued] = []
        self.granted: dict[LeaseId, Granted] = {}
        self.costless = 0  # of these, outside of bundles: they take no CPU
        self.drained = False
        self.nowhere: set[tuple[tuple[str, int], ...]] = set()  # amounts that no peer has now
        self.arrivals = 0
        self.ticker: Timer | None = None
        self.job_known: Callable[[JobId], bool]
        self.want_worker: Callable[[LeaseId, JobId], None]
        self.unwant_worker: Callable[[LeaseId], None]
        self.environment_ready: Callable[[RequestLease], bool]
        self.environment_why: Callable[[bytes], str]
        self.worker_free: Callable[[Worker], None]
        self.end_worker: Callable[[Worker], None]

    # ------------------------------------------------------------------ requests

    def on_request(self, message: RequestLease) -> None:
        """An owner wants a lease."""
        self.arrivals += 1
        now = self.world.now()
        placement = message.placement
        came = now if placement is None else now - placement.priority * STEP
        queued = Queued(message, (-message.depth, came, self.arrivals), now)
        insort(self.queue, queued, key=lambda item: item.order)
        self.dispatch()

    def dispatch(self) -> None:
        """Grant, redirect, refuse or keep each queued request, in order."""
        claimed = self.bundles.serve_claims()
        if not self.queue and not claimed:
            return
        # resources (of the node, or of a group) that a request past its patience waits for
        blocked: set[tuple[bytes, str]] = set()
        keep = []
        self.nowhere.clear()  # (one look at all peers serves all requests of a kind)
        now = self.world.now()
        for queued in self.queue:
            wire = queued.wire
            group = wire.placement.group if wire.placement is not None else b""
            passed_by = claimed and not (wire.depth or group or claimed.isdisjoint(wire.resources))
            if (
                passed_by
                or (blocked and any((group, name) in blocked for name in wire.resources))
                or (wire.environment and self.unprepared(wire))
            ):
                keep.append(queued)
            elif self.can_grant(wire):
                self.grant(wire)
            elif not self.refuse_hopeless(wire) and not self.redirect(queued):
                keep.append(queued)
                if now - queued.since > PATIENCE and self.could_grant(wire):
                    blocked.update((group, name) for name in wire.resources)
        self.queue = keep
        if (keep or claimed) and self.ticker is None:
            self.ticker = self.world.call_at(now + ASK_AFTER, self.tick)

    def can_grant(self, wire: RequestLease) -> bool:
        """Whether the request can have what it needs here and now."""
        return not self.drained and self.job_known(wire.job) and self.source_for(wire) is not None

    def source_for(self, wire: RequestLease) -> Source | None:
        """What the request can be taken from now, if it may be granted here at all."""
        if wire.placement is not None and wire.placement.group:
            return self.bundles.source_for(wire)
        if not self.own.fits(wire.resources) or not self.may_run_here(wire):
            return None
        return None if self.belongs_elsewhere(wire) else self.plain

    def belongs_elsewhere(self, wire: RequestLease) -> bool:
        """Whether it could be granted here, and another node shall have it: that is for the first
        that is asked to say.
        """
        if wire.hops or not self.peers:
            return False
        me = self.me()
        spread = wire.placement is not None and wire.placement.spread
        if not spread and (CPU in wire.resources or strategies.room(me, wire.resources) >= 0):
            return False
        best = strategies.emptiest(wire, self.allowed(wire), self.spread)
        return best is not None and best.address.node != me.address.node

    def could_grant(self, wire: RequestLease) -> bool:
        """Whether resources are all that the request waits for. One whose job is not known (yet,
        or no longer) must not keep them from others.
        """
        return not self.drained and self.feasible_here(wire) and self.job_known(wire.job)

    def feasible_here(self, wire: RequestLease) -> bool:
        """Whether it may be granted here, and everything here would be enough for it."""
        placement = wire.placement
        if placement is not None and placement.group:
            return self.bundles.feasible_here(wire)
        return resources.fits(wire.resources, self.total) and self.may_run_here(wire)

    def may_run_here(self, wire: RequestLease) -> bool:
        """Whether its strategy allows this node."""
        if not strategies.is_bound(wire.placement):
            return True
        here = self.world.address.node
        return any(node.address.node == here for node in self.allowed(wire))

    def allowed(self, wire: RequestLease) -> Sequence[NodeInfo]:
        """The nodes that its strategy allows."""
        return strategies.allowed(wire, [self.me(), *self.peers.values()])

    def me(self) -> NodeInfo:
        """This node as its strategies see it."""
        address, labels = self.world.address, dict(self.labels)
        return NodeInfo(
            address,
            "",
            0,
            self.total,
            self.free,
            labels,
            draining=self.drained,
            costless=self.costless,
        )

    def grant(self, wire: RequestLease) -> None:
        """Take the resources and find a worker."""
        source = self.source_for(wire)
        assert source is not None
        if wire.placement is not None and wire.placement.spread:
            self.spread[self.world.address.node] += 1
        self.granted[wire.lease] = Granted(wire, self.world.now(), *source)
        self.costless += is_costless(self.granted[wire.lease])
        self.want_worker(wire.lease, wire.job)

    def unprepared(self, wire: RequestLease) -> bool:
        """Whether the request waits for its runtime environment alone; it takes nothing until that
        is ready.
        """
        return self.could_grant(wire) and not self.environment_ready(wire)

    def refuse_environment(self, key: bytes, reason: str) -> None:
        """The environment cannot be made: no request that waits here for it is granted."""
        waiting = [queued for queued in self.queue if queued.wire.environment == key]
        self.queue = [queued for queued in self.queue if queued.wire.environment != key]
        for queued in waiting:
            refusal = LeaseRefused(queued.wire.lease, reason, unprepared=True)
            self.world.send(queued.wire.owner, refusal)

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
        placement = wire.placement
        if placement is not None and placement.group:
            may_wait = wire.hops >= MAX_HOPS and self.world.now() < queued.since + ASK_AFTER
            to = None if may_wait else self.bundles.elsewhere(wire, self.peers)
            if to is not None:
                self.send_on(wire, to)
            return to is not None
        if wire.hops >= MAX_HOPS and not self.drained:
            young = self.world.now() < queued.since + ASK_AFTER
            if young or self.feasible_here(wire):  # (else it would wait here for ever, if who sent
                return False  # it was drained then, and is not any more)
        best = self.best_peer(wire)
        if best is None:
            return False
        resources.subtract(best.free, wire.resources)
        best.costless += CPU not in wire.resources
        self.send_on(wire, best.address)
        return True

    def best_peer(self, wire: RequestLease) -> NodeInfo | None:
        """To which node a request shall go that cannot be granted here now."""
        placement = wire.placement
        amounts = tuple(wire.resources.items())
        if placement is None and amounts in self.nowhere:
            return None
        peers: Iterable[NodeInfo] = self.peers.values()
        if placement is not None:
            here = self.world.address.node
            peers = [node for node in self.allowed(wire) if node.address.node != here]
        spread = placement is not None and placement.spread
        if (spread or CPU not in wire.resources) and not wire.hops:
            best = strategies.emptiest(wire, peers, self.spread)
            if best is not None:
                self.spread[best.address.node] += 1
                return best
        feasible = not self.drained and self.feasible_here(wire)
        best, best_room = None, None
        for peer in peers:
            if peer.draining:
                continue
            now = resources.fits(wire.resources, peer.free)
            if now or (not feasible and resources.fits(wire.resources, peer.total)):
                room = peer.free.get(CPU, 0) + (1 << 40 if now else 0)
                if best_room is None or room > best_room:
                    best, best_room = peer, room
        if best is None and placement is None:
            self.nowhere.add(amounts)
        return best

    def send_on(self, wire: RequestLease, to: Address) -> None:
        """The owner shall ask that node."""
        self.world.send(wire.owner, LeaseRedirected(wire.lease, to, wire.hops + 1))

    def refuse_hopeless(self, wire: RequestLease) -> bool:
        """Refuse what can never be granted, however the cluster grows: its group was removed or is
        too small, or the only node where it may run is gone.
        """
        placement = wire.placement
        if placement is None:
            return False
        if placement.group in self.bundles.removed:
            reason = f"placement group {short(placement.group)} was removed"
            self.world.send(wire.owner, LeaseRefused(wire.lease, reason, placement.group))
            return True
        reason = (
            self.bundles.too_small(wire)
            if placement.group
            else strategies.no_such_node(wire, self.gone)
        )
        if reason:
            self.world.send(wire.owner, LeaseRefused(wire.lease, reason))
        return bool(reason)

    # ------------------------------------------------------------------ waiting

    def tick(self) -> None:
        """Look after the requests that wait: ask for leases, explain, give up on the impossible."""
        self.ticker = None
        now = self.world.now()
        for queued in list(self.queue):
            if not self.feasible_somewhere(queued.wire):
                self.infeasible(queued, now)
                continue
            queued.infeasible_since = None
            waited = now - queued.since
            if waited >= ASK_AFTER and not self.drained:
                self.ask_for_lease(queued)
            if waited >= EXPLAIN_AFTER and not queued.told:
                queued.told = True
                self.world.send(
                    queued.wire.owner, StillQueued(queued.wire.lease, self.why(queued.wire))
                )
        if not self.drained:
            self.ask_for_claims()
        self.dispatch()

    def feasible_somewhere(self, wire: RequestLease) -> bool:
        """Whether any node of the cluster could ever grant it. What a placement group will have is
        not known here.
        """
        if wire.placement is not None and wire.placement.group:
            return True
        return any(
            resources.fits(wire.resources, total) for total in self.totals(wire, drained=False)
        )

    def totals(self, wire: RequestLease, *, drained: bool) -> list[Resources]:
        """What the nodes that it may run on have: those that are drained, or those that are not."""
        return [node.total for node in self.allowed(wire) if node.draining == drained]

    def infeasible(self, queued: Queued, now: float) -> None:
        """No node is big enough. Nodes may still join; after the grace time the request is
        refused.
        """
        reason = self.nearest_miss(queued.wire)
        if queued.infeasible_since is None:
            queued.infeasible_since = now
            note = f"{reason}; fails {self.grace:g} s after that began unless such a node joins"
            self.world.send(queued.wire.owner, StillQueued(queued.wire.lease, note))
        elif now - queued.infeasible_since >= self.grace:
            self.queue.remove(queued)
            self.world.send(queued.wire.owner, LeaseRefused(queued.wire.lease, reason))

    def nearest_miss(self, wire: RequestLease) -> str:
        """Why no node fits, by the one that lacks least."""
        request = wire.resources
        needed = strategies.describe_request(request, wire.placement)
        if any(resources.fits(request, total) for total in self.totals(wire, drained=True)):
            return f"{needed} is needed; the only node that has it is drained"
        totals = self.totals(wire, drained=False)
        if not totals and strategies.is_bound(wire.placement):
            return f"{needed} is needed; there is no such node among {1 + len(self.peers)}"
        if not totals:
            return f"{needed} is needed, and every node is drained"
        nearest = min(totals, key=lambda total: _lack(request, total))
        which = (
            f"none of {len(totals)} nodes has it: the nearest" if len(totals) > 1 else "the node"
        )
        return (
            f"{needed} is needed; {which} has {resources.describe(nearest)}, "
            f"short of {resources.describe(resources.missing(request, nearest))}"
        )

    def why(self, wire: RequestLease) -> str:
        """Why a feasible request waits."""
        if not self.job_known(wire.job):
            return f"waits for its driver, job {short(wire.job)}, to be announced on this node"
        if wire.environment and self.unprepared(wire):
            return self.environment_why(wire.environment)
        if wire.placement is not None and wire.placement.group:
            return self.bundles.why(wire)
        where = strategies.described(wire.placement) if wire.placement is not None else ""
        missing = resources.missing(wire.resources, self.free)
        whole = f"{resources.describe(wire.resources)} in one piece"  # two halves are not one GPU
        lacks = resources.describe(missing) if missing else whole
        aside = self.bundles.described()
        return (
            f"waits{' ' + where if where else ''} for {lacks} to come free "
            f"({resources.describe(self.free)} free of "
            f"{resources.describe(self.total)} here{aside}, {len(self.granted)} leases, "
            f"{len(self.queue)} requests queued)"
        )

    def ask_for_lease(self, queued: Queued) -> None:
        """Have one holder of what the request needs give it back once its pushed tasks are done.

        Not a lease of the same owner and shape: it would come straight back to the same queue. Nor
        one that is more urgent: it would come back before this.
        """
        wire = queued.wire
        if wire.environment and self.unprepared(wire):
            return
        now = self.world.now()
        for lease, granted in self.granted.items():
            other = granted.wire
            if granted.wanted or granted.worker is None or granted.lent:
                continue
            if (
                other.owner == wire.owner
                and other.resources == wire.resources
                and other.placement == wire.placement
            ):
                continue
            urgency = other.placement.priority if other.placement is not None else 0
            if now - urgency * STEP < queued.order[1] or not self.would_help(wire, granted):
                continue
            if not wire.resources.keys().isdisjoint(other.resources):
                self.want_back(lease)
                return

    def ask_for_claims(self) -> None:
        """Have one holder of what each waiting reservation needs give it back."""
        for amounts in self.bundles.claimed_amounts():
            for lease, granted in self.granted.items():
                free = granted.wanted or granted.worker is None or granted.lent
                if not free and granted.bundle is None:
                    if not amounts.keys().isdisjoint(granted.wire.resources):
                        self.want_back(lease)
                        break

    def would_help(self, wire: RequestLease, granted: Granted) -> bool:
        """Whether what a grant holds is of the kind that the request can be taken from."""
        if wire.placement is None or not wire.placement.group:
            return granted.bundle is None
        return any(bundle is granted.bundle for _, bundle in self.bundles.usable(wire.placement))

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
        self.costless -= is_costless(granted)
        granted.pool.give(granted.held(), granted.shares)
        if granted.worker is None:
            self.unwant_worker(lease)
        return granted

    def refuse(self, lease: LeaseId, reason: str) -> None:
        """A grant for which no worker could be started."""
        granted = self.release(lease)
        if granted is not None:
            self.world.send(granted.wire.owner, LeaseRefused(lease, reason, granted.removed))

    def evict(self, bundle: Bundle, removed: bytes) -> None:
        """A bundle is over: end what runs in it. What it holds goes back to the node with it."""
        for lease, granted in list(self.granted.items()):
            if granted.bundle is bundle:
                granted.pool, granted.bundle, granted.removed = self.own, None, removed
                if granted.worker is None:
                    group = granted.wire.placement.group if granted.wire.placement else b""
                    self.refuse(lease, f"placement group {short(group)} was removed")
                else:
                    self.end_worker(granted.worker)

    def block(self, worker: Worker) -> None:
        """The worker's task waits: lend its CPUs out."""
        granted = self.granted.get(worker.lease) if worker.lease else None
        if granted is not None and not granted.lent:
            resources.add(granted.pool.free, {CPU: granted.wire.resources.get(CPU, 0)})
            granted.lent = True
            self.dispatch()

    def unblock(self, worker: Worker) -> None:
        """The worker's task goes on: its CPUs are taken back at once."""
        granted = self.granted.get(worker.lease) if worker.lease else None
        if granted is not None and granted.lent:
            granted.lent = False
            resources.subtract(granted.pool.free, {CPU: granted.wire.resources.get(CPU, 0)})

    def runs(self, worker: Worker | None) -> bool:
        """Whether it is leased, and its task waits for nothing."""
        granted = self.granted.get(worker.lease) if worker and worker.lease else None
        return granted is not None and not granted.lent

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


def is_costless(granted: Granted) -> bool:
    """Whether it takes no CPU, and nothing of a bundle."""
    return granted.bundle is None and CPU not in granted.wire.resources
