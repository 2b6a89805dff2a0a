"""Telling, the part of nodes: why a request for a lease waits, what stands in the way of bytes, and
what has become of a process (``wire.inquiry``).

Pure questions over the tables of scheduling, pool and store. One thing is kept for explanations
alone: how processes of this machine have ended, the last ``ENDS_KEPT`` of them. Nobody else knows
it of an owner that has died, and it is asked for only after that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from freehold import resources
from freehold.core.grants import Granted, Queued
from freehold.core.objects import Objects
from freehold.core.scheduling import Scheduling
from freehold.core.stored import CREATING, PULLING, RESTORING, SPILLED
from freehold.core.telling import count, span
from freehold.core.workers import Workers
from freehold.core.world import World
from freehold.ids import GroupId, JobId, LeaseId, ObjectId, ProcessId, short
from freehold.resources import CPU
from freehold.wire.inquiry import (
    END,
    GROUP,
    LEASE,
    MAY,
    NAMED,
    ONE_OF,
    PROCESS,
    REQUEST,
    STORED,
    Finding,
    Question,
)
from freehold.wire.messages import Address, Death, JobStarted
from freehold.wording import manner_of_death

#: Dead processes whose end is remembered, about 200 bytes each.
ENDS_KEPT: Final = 1000
#: Of those who hold what a request waits for, so many are asked what they do with it: with more of
#: them it is a busy node, not a deadlock that a person could follow.
HOLDERS: Final = 8
#: Readers of a full store that are named.
READERS: Final = 3


class NodeTelling:
    """What one node can tell."""

    def __init__(
        self,
        world: World,
        scheduling: Scheduling,
        workers: Workers,
        objects: Objects,
        jobs: Mapping[JobId, JobStarted],
        drivers: Mapping[ProcessId, JobId],
    ) -> None:
        self.world = world
        self.scheduling = scheduling
        self.workers = workers
        self.objects = objects
        self.jobs = jobs
        self.drivers = drivers
        self.processes: Mapping[ProcessId, Address]  # the role's: all of this machine
        self.ends: dict[ProcessId, str] = {}
        self.answers: dict[str, Callable[[bytes], Finding]] = {
            REQUEST: self.of_request,
            STORED: self.of_stored,
            PROCESS: self.of_process,
            GROUP: self.of_group,
            END: lambda key: Finding(END, key, self.end_of(ProcessId(key))),
            NAMED: self.of_name,
        }

    def explain(self, about: str, key: bytes) -> list[Finding]:
        """The answer to a question: one finding."""
        tell = self.answers.get(about)
        return [tell(key) if tell is not None else Finding(about, key, "not known to this node")]

    def counts(self) -> dict[str, int]:
        """How much of each kind is here."""
        return {
            "objects": len(self.objects.table),
            "needs": self.objects.waiting(),
            "granted": len(self.scheduling.granted),
            "queued": len(self.scheduling.queue),
            "workers": len(self.workers.all),
            "jobs": len(self.jobs),
        }

    # ------------------------------------------------------------------ requests

    def of_request(self, key: bytes) -> Finding:
        """A lease that someone has asked for."""
        here = f" at node {short(self.world.address.node)}"
        for ahead, queued in enumerate(self.scheduling.queue):
            if queued.wire.lease == key:
                return self.of_queued(Finding(REQUEST, key, here), queued, ahead)
        granted = self.scheduling.granted.get(LeaseId(key))
        if granted is None:
            return Finding(
                REQUEST, key, f"{here}, which has just answered, or will get the request"
            )
        if granted.worker is None:
            waited = span(self.world.now() - granted.since)
            return Finding(
                REQUEST, key, f"{here}, where a worker for it has been starting for {waited}"
            )
        return Finding(
            REQUEST, key, f"{here}, which has just granted it worker {granted.worker.pid}"
        )

    def of_queued(self, finding: Finding, queued: Queued, ahead: int) -> Finding:
        """One that waits: because no node is big enough, or for others to end."""
        wire = queued.wire
        now = self.world.now()
        finding.text += f" for {span(now - queued.since)}"
        if not self.scheduling.feasible_somewhere(wire):
            since = queued.infeasible_since if queued.infeasible_since is not None else now
            left = span(self.scheduling.grace - (now - since))
            miss = self.scheduling.nearest_miss(wire)
            finding.text += f": {miss}; it fails in {left} unless such a node joins"
            return finding
        finding.text += f": {self.scheduling.why(wire)}"
        if ahead:
            finding.text += f"; {count(ahead, 'request')} before it"
        lacking = resources.missing(wire.resources, self.scheduling.free)
        scarce = lacking.keys() - {CPU} or lacking.keys()
        holders = [
            granted
            for granted in self.scheduling.granted.values()
            if not scarce.isdisjoint(granted.held())
        ]
        # Nothing else can help if no other node is big enough. CPUs are no such thing: a task that
        # is blocked lends its own, though its node may not have heard of it yet.
        elsewhere = any(
            resources.fits(wire.resources, peer.total) for peer in self.scheduling.peers.values()
        )
        sure = CPU not in scarce and not elsewhere and len(holders) <= HOLDERS
        how = ONE_OF if sure else MAY
        finding.questions = [self.holder(how, granted) for granted in holders[:HOLDERS]]
        return finding

    def holder(self, how: str, granted: Granted) -> Question:
        """To who holds a lease: what are you doing with it?"""
        return Question(how, granted.wire.owner, LEASE, granted.wire.lease)

    def of_group(self, key: bytes) -> Finding:
        """A placement group that someone waits for."""
        return Finding(GROUP, key, self.scheduling.bundles.tell(GroupId(key)))

    # ------------------------------------------------------------------ the store

    def of_stored(self, key: bytes) -> Finding:
        """An object that is, or shall be, in this node's store."""
        here = f"the store of node {short(self.world.address.node)}"
        admission, spilling = self.objects.admission, self.objects.spilling
        outside = admission.waiting.get(ObjectId(key))
        if outside:
            bundle = min(outside.values(), key=lambda bundle: bundle.since)
            many = len(bundle.requests)
            what = f"{bundle.size:,} bytes" + (f" of {many} arguments" if many > 1 else "")
            ahead = admission.before(bundle)
            return Finding(STORED, key, self.room_for(what, bundle.since, ahead, here))
        stored = self.objects.table.get(ObjectId(key))
        if stored is None:
            return Finding(STORED, key, f"; {here} knows nothing of it (yet, or any more)")
        for ahead, need in enumerate(spilling.needs()):
            if need.stored is stored:
                what = f"{stored.size:,} bytes"
                return Finding(STORED, key, self.room_for(what, need.since, ahead, here))
        size = f"{stored.size:,} bytes"
        if stored.state == CREATING:
            return Finding(STORED, key, f"; {size} are being written into {here}")
        if stored.state == PULLING:
            sources = ", ".join(short(node) for node in stored.tried)
            again = f", attempt {stored.rounds + 1}" if stored.rounds else ""
            text = f"; {size} are being copied to {here} from node {sources}{again}"
            return Finding(STORED, key, text)
        if stored.state in (SPILLED, RESTORING):
            return Finding(STORED, key, f"; {size} are being read back from disk into {here}")
        return Finding(STORED, key, f"; its {size} are in {here}")

    def room_for(self, what: str, since: float, ahead: int, here: str) -> str:
        """Someone waits for room: what the store is full of."""
        room, spilling = self.objects.room, self.objects.spilling
        waited = span(self.world.now() - since)
        text = (
            f"; it has waited for {waited} for room for {what} in {here}: "
            f"{room.used:,} of {room.capacity:,} bytes are in use"
        )
        readers: dict[ProcessId, int] = {}
        for other in self.objects.table.values():
            if other.offset >= 0:
                for process in other.pins:
                    readers[process] = readers.get(process, 0) + other.size
        most = sorted(readers.items(), key=lambda reader: -reader[1])[:READERS]
        if most:
            held = ", ".join(f"{size:,} bytes by {self.title(process)}" for process, size in most)
            text += f", and held by readers: {held}"
        if spilling.writing:
            text += f"; {count(len(spilling.writing), 'object')} are being written to disk"
        if ahead:
            text += f"; {count(ahead, 'request')} for room before it"
        return text

    # ------------------------------------------------------------------ processes

    def title(self, process: ProcessId) -> str:
        """What to call a process of this machine."""
        worker = self.workers.by_process.get(process)
        if worker is not None:
            return f"worker {worker.pid}"
        job = self.jobs.get(self.drivers[process]) if process in self.drivers else None
        return f"driver {job.pid}" if job is not None else f"process {short(process)}"

    def worker_ended(self, pid: int, process: ProcessId, death: Death) -> None:
        """A worker of this machine is gone: this is how."""
        manner = manner_of_death(death.signal, death.exit_code)
        self.ended(process, f"worker {pid} ended{at(death)}: {manner}")

    def driver_ended(self, process: ProcessId, *, left: bool) -> None:
        """A driver is gone: it said so, or its stream has ended."""
        how = "has left in good order" if left else "has ended without a word"
        self.ended(process, f"{self.title(process)} {how}")

    def ended(self, process: ProcessId, how: str) -> None:
        """Remember it, and forget the oldest."""
        self.ends[process] = how
        if len(self.ends) > ENDS_KEPT:
            del self.ends[next(iter(self.ends))]

    def end_of(self, process: ProcessId) -> str:
        """How it has ended, if it has and we know."""
        return f"; {self.ends[process]}" if process in self.ends else ""

    def of_process(self, key: bytes) -> Finding:
        """A process of this machine that someone cannot reach."""
        process = ProcessId(key)
        if process in self.ends:
            return Finding(PROCESS, key, self.end_of(process))
        if process in self.processes:
            return Finding(PROCESS, key, f"; it is {self.title(process)}, and runs")
        return Finding(PROCESS, key, "; its node knows no such process (any more)")

    def of_name(self, key: bytes) -> Finding:
        """Ids that begin with these digits: every process here is to be asked."""
        questions = [Question(MAY, process, NAMED, key) for process in self.processes.values()]
        return Finding(NAMED, key, "", questions=questions)


def at(death: Death) -> str:
    """When a process ended, on the clock of its node."""
    return f" at {death.when}" if death.when else ""
