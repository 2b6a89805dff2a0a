"""Which errors a run may show: each kind only if something in the run caused it.

A program without chance has one outcome, which the oracle knows; this file judges the others. It
knows what struck, who died, which calls no node can hold and how often each call has begun; it does
not look into the machines that it judges.

``RECOVERY`` is the one switch. Off: a value may be lost with its node or its owner. On: such a
value is made again by running its task again, and the error is in order only where that cannot
be: the value, or something needed to make it, was put and not computed, or a task that must run
again has no retries left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from freehold.ids import GroupId, ProcessId
from freehold.sim.errors import Failure
from freehold.sim.ops import Call, Make, Stream

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster

RECOVERY: Final = True

NODE_DEATHS: Final = frozenset({"kill node", "kill home", "cut node"})
#: What must have struck for a value to be lost while its owner lives.
LOSING: Final = frozenset({*NODE_DEATHS, "disk unreadable", "disk full"})
#: What may keep a node from hearing of the others, or from starting workers, for the grace time.
PARTING: Final = frozenset(
    {
        "kill head",
        "stop head",
        "long cut",
        "long stop",
        "kill worker",
        "kill giver",
        "kill writer",
        "kill yielder",
        "kill node",
        "kill home",
        "cut node",
        "fail start",
        "partition",
        "stop node",
        "slow node",
        "drain node",
    }
)


class Causes:
    """What has happened in one run that errors may come from."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.deaths: list[str] = []
        self.estates: set[ProcessId] = set()  # of actors that ended in good order, owning something
        self.begun: Counter[str] = Counter()  # by the call's place in its program
        self.begun_in: set[tuple[ProcessId, str]] = set()
        self.pushed_to: dict[str, list[ProcessId]] = {}

    def missing(self, failure: Failure) -> str:
        """Why the error cannot be, or nothing."""
        match failure.kind:
            case "freed":
                return "a value that could be named was freed"
            case "lost":
                if not self.losing():
                    return "no node died and no disk failed"
                return self.could_be_made(failure.about.partition(":")[0])
            case "owner_died" | "handover_lost":
                process, _, about = failure.about.partition(" ")
                blamed = self.cluster.processes[ProcessId(bytes.fromhex(process))]
                if blamed.alive and blamed.address.node not in self.cluster.declared:
                    return f"{blamed.name} is alive"
                return self.could_be_made(about) if about else ""
            case "worker_died":
                if not self.deaths and not self.node_died():
                    return "no worker died"
            case "actor_died" | "actor_ended" | "actor_unavailable":
                return self.cluster.watch.acts.missing(failure)
            case "store_full":
                if not self.cluster.case.tight:
                    return "the stores are large"
            case "cancelled":
                return self.cluster.watch.cancels.missing(failure.about)
            case "group_removed":
                group = GroupId(bytes.fromhex(failure.about.rpartition(": ")[2]))
                gone = self.cluster.watch.bundling.may_be_gone(group)
                return "" if gone else "nobody has removed the group"
            case "unschedulable":
                return self.has_room(failure.about.partition(":")[0])
        return ""

    def node_died(self) -> bool:
        """Whether a node has died, or passes for dead."""
        return bool(NODE_DEATHS & self.cluster.struck or self.cluster.declared)

    def losing(self) -> bool:
        """Whether anything has happened that a value may be lost by: a worker that is killed may
        have reported a value and not sealed it. A node that was drained and has left is no such
        thing.
        """
        dead = self.cluster.declared - self.cluster.operator.left
        return bool(LOSING & self.cluster.struck or dead or self.deaths or self.estates)

    def went_with_an_actor(self, failure: Failure) -> bool:
        """Whether it is about what an actor owned that has ended in good order: that goes with it,
        also in a run without chance (when it ends is chance).
        """
        if failure.kind != "owner_died":
            return False
        return ProcessId(bytes.fromhex(failure.about.partition(" ")[0])) in self.estates

    def has_room(self, call: str) -> str:
        """Why the call at this place can be scheduled, or nothing."""
        if PARTING & self.cluster.struck:
            return ""
        op = self.cluster.lenient[driver_of(call)].calls[call]
        assert isinstance(op, Call | Make | Stream)
        group = self.cluster.lenient[driver_of(call)].groups.get(call)
        if group is not None and isinstance(op, Call):
            usable = group.bundles if op.bundle < 0 else group.bundles[op.bundle : op.bundle + 1]
            return "" if max(usable) < op.cpus else "there is a bundle for it"
        return "" if op.cpus > self.cluster.case.most_cpus else "there was a node for it"

    def could_be_made(self, object_id: str) -> str:
        """With recovery: why a value could have been made again, or nothing."""
        if not RECOVERY:
            return ""
        names = self.cluster.names.items()
        known = [name for known_id, (_, name) in names if known_id.hex() == object_id]
        if not known or self.unmade(known[0]):
            return ""
        return f"{known[0]} could have been made again"

    def unmade(self, name: str) -> bool:
        """Whether something on the way to this value cannot be made again."""
        oracle = self.cluster.lenient[driver_of(name)]
        left, seen = [name], {name}
        while left:
            call, computed, _ = left.pop().partition("#")
            if not computed:
                return True  # it was put
            op = oracle.calls[call]
            if isinstance(op, Make):
                return True  # (what an actor has made is made again if it lives; which is chance)
            if op.retries == 0 or 0 <= op.retries < self.charged(call):
                return True
            needed = list(oracle.needs[call])
            parent = call.rpartition("/")[0]
            if parent in oracle.calls:  # whose task owns it, and would have to run again
                needed.append(f"{parent}#0")
            left += [new for new in needed if new not in seen]
            seen.update(needed)
        return False

    def charged(self, call: str) -> int:
        """How many attempts of a call may have been counted: those that began, and those that lay
        at a worker when it died.
        """
        processes = self.cluster.processes
        return self.begun[call] + sum(
            not processes[worker].alive and (worker, call) not in self.begun_in
            for worker in self.pushed_to.get(call, ())
        )


def driver_of(place: str) -> int:
    """The driver whose program a place such as ``d1/7/3`` stands in."""
    return int(place.partition("/")[0].partition("#")[0].removeprefix("d"))
