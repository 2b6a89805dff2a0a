"""Rare paths: places in the machines that campaigns must have been to (``reach``), as a table.

Each row names a place: a method of a machine, perhaps with a condition on how it is called; about
one in how many seeds comes there, and of which profiles. What the simulator marks itself, faults
and what they do, stands below."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from freehold.core.actors import Actors
from freehold.core.admission import Admission
from freehold.core.bundles import Bundles
from freehold.core.calls import Calls
from freehold.core.execution import Execution, Needs
from freehold.core.fetching import Fetching
from freehold.core.grants import Queued
from freehold.core.hosting import Hosting
from freehold.core.leasing import Leasing
from freehold.core.lineage import Lineage
from freehold.core.objects import Objects
from freehold.core.ownership import Ownership
from freehold.core.placement import Placing
from freehold.core.rebirth import Rebirth
from freehold.core.scheduling import Scheduling
from freehold.core.spilling import Spilling
from freehold.core.stored import CREATING, PULLING, SPILLED, Stored
from freehold.core.streams import Streams
from freehold.core.submission import PUSHED, QUEUED, WAITING, Submission
from freehold.core.workers import Workers
from freehold.core.yielding import Yielding
from freehold.ids import ObjectId
from freehold.roles.executor import Executor
from freehold.roles.head import Head
from freehold.roles.node import Node
from freehold.roles.owner import Owner
from freehold.sim.generate import NAMES
from freehold.wire.messages import FAILED

Condition = Callable[..., Any]
ANY: Final = NAMES
DRAINS: Final = ("drains", "nodes", "storm")
LIVES: Final = ("lives", "tours")
TORRENTS: Final = ("torrents",)
STREAMS: Final = ("streams", *TORRENTS)
PARCELS: Final = ("parcels",)
GUILDS: Final = ("guilds",)
GRACES: Final = ("graces",)
RELAYS: Final = ("relays",)
ACTS: Final = ("actors", *LIVES)


@dataclass(frozen=True)
class Path:
    """One place. ``one_in``: about how many seeds of ``profiles`` it takes to come there once."""

    name: str
    owner: type
    method: str
    one_in: int
    profiles: tuple[str, ...] = ANY
    when: Condition | None = None


# Conditions: the machine before the call, and the call's arguments.


def early(self: Ownership, message: Any) -> bool:
    return (message.ref.object, message.giver) not in self.gates


def late(self: Ownership, message: Any) -> bool:
    return (message.ref.object, message.giver) in self.gates


def partial(self: Ownership, message: Any, peer: Any) -> bool:
    return bool((self.entries[message.object].holders or {}).get(peer, 0) > message.count)


def came_home(self: Ownership, ref: Any, giver: Any, gate: Any) -> bool:
    me = self.world.address.process
    return bool(ref.owner.process == me != giver.process)


def orphan_passed_on(self: Ownership, ref: Any, to: Any) -> bool:
    return ref.owner.process in self.lost


def breaks_gates(self: Ownership, message: Any, owner: Any) -> bool:
    return any(giver == message.process for _, giver in self.gates)


def in_state(state: str) -> Condition:
    return lambda self, task, **rest: task.state is state


def argument_lost(self: Submission, task: Any) -> bool:
    values = [self.ownership.entries[ref.object].value for ref in task.deps]
    return any(value is not None and value.kind == FAILED for value in values)


def retries_spent(self: Submission, task: Any) -> bool:
    return bool(0 <= task.max_retries <= task.used_retries)


def not_asked(self: Leasing, message: Any, *rest: Any) -> bool:
    return message.lease not in self.asked


def several(self: Leasing, lease: Any) -> bool:
    return len(lease.tasks) > 1


def half_dead(self: Leasing, lease: Any) -> bool:
    return lease.id in self.leases


def last_hop(self: Scheduling, queued: Queued) -> bool:
    from freehold.core import scheduling

    return bool(queued.wire.hops >= scheduling.MAX_HOPS)


def overdrawn(self: Scheduling, worker: Any) -> bool:
    granted = self.granted.get(worker.lease)
    needed = granted.wire.resources if granted is not None and granted.lent else {}
    return any(self.free.get(name, 0) < amount for name, amount in needed.items())


def known(self: Objects, message: Any, client: Any) -> bool:
    return message.object in self.table


def dead_owner(self: Objects, message: Any, client: Any) -> bool:
    return message.owner.process in self.dead


def busy(self: Objects, stored: Any) -> bool:
    return bool(stored.pins) or self.moving(stored)


def state_is(state: str) -> Condition:
    def there(self: Objects, message: Any, *rest: Any) -> bool:
        stored = self.table.get(message.object)
        return stored is not None and stored.state == state

    return there


def was_expected(self: Admission, stored: Stored) -> bool:
    return stored.expected


def on_disk(self: Spilling, table: dict[ObjectId, Stored]) -> bool:
    first = next(iter(table.values()), None)
    return first is not None and first.slot is not None


def not_on_disk(self: Spilling, table: dict[ObjectId, Stored]) -> bool:
    first = next(iter(table.values()), None)
    return first is not None and first.slot is None


def before_stream(self: Node, start: int, death: Any) -> bool:
    worker = self.workers.all.get(start)
    return bool(worker and worker.address and worker.address.process not in self.drained)


def unborn(self: Workers, start: int, death: Any) -> bool:
    worker = self.all.get(start)
    return worker is not None and worker.address is None


def from_drained(self: Objects, stored: Any, *rest: Any) -> bool:
    return stored.giver is not None


def served_from_disk(self: Objects, object_id: Any, client: Any) -> bool:
    stored = self.table.get(object_id)
    return stored is not None and stored.state == SPILLED


def too_soon(self: Owner, message: Any, peer: Any) -> bool:
    entry = self.ownership.entries.get(message.object)
    return entry is not None and entry.value is None


def unknown(self: Owner, message: Any, peer: Any) -> bool:
    return message.object not in self.ownership.entries


def drained(self: Scheduling, *rest: Any) -> bool:
    return self.drained


def running(self: Execution, message: Any) -> bool:
    run = self.runs.get(message.task)
    return run is not None and run.begun


def waiting(self: Execution, message: Any) -> bool:
    run = self.runs.get(message.task)
    return run is not None and not run.begun


def has_tasks_of(self: Execution, process: Any) -> bool:
    return any(run.submitter.process == process for run in self.runs.values())


def buried(self: Owner, message: Any, peer: Any) -> bool:
    return peer.process in self.ownership.lost


def remains(self: Owner, message: Any, peer: Any) -> bool:
    return bool(message.remains)


def from_scratch(self: Lineage, task: Any) -> bool:
    return any(entry.value is None for entry in task.kept or ())


def has_children(self: Lineage, worker: Any) -> bool:
    return worker in self.homes


def claimed_from(self: Rebirth, process: Any) -> bool:
    return any(entry.asked == process for entry in self.orphans.values())


def is_node(self: Head, peer: Any) -> bool:
    return bool(peer.is_node())


def may_have_run(self: Calls, callee: Any) -> bool:
    return bool(callee.unsure)


def has_calls_there(self: Calls, process: Any) -> bool:
    return any(callee.pushed for callee in self.at.get(process, {}).values())


def without_worker(self: Actors, object_id: Any, **rest: Any) -> bool:
    actor: Any = self.ownership.entries[object_id].task
    return not actor.over and actor.worker is None


def in_constructor(self: Actors, actor: Any) -> bool:
    return actor.task.id in self.submission.tasks


def short_lived(self: Actors, actor: Any) -> bool:
    return bool(actor.short_lives > 1)


def has_actors_there(self: Actors, node: Any, detail: str, *, fenced: bool) -> bool:
    return any(actor.node.node == node for actor in self.leases.values())


def head_is_late(self: Hosting, caller: Any) -> bool:
    lane = self.lanes[caller]
    return bool(lane and lane[0].missing)


def again(self: Streams, message: Any, worker: Any) -> bool:
    task = self.submission.tasks.get(message.task)
    return bool(task is not None and task.stream and message.number <= task.stream.arrived)


def not_begun(self: Yielding, message: Any) -> bool:
    return message.task in self.execution.runs and message.task not in self.streams


def under_way(self: Yielding, message: Any) -> bool:
    return message.task in self.streams


def round_refused(self: Placing, message: Any, peer: Any) -> bool:
    return bool(message.refused and message.round in self.rounds)


def in_a_round(self: Placing, node: Any) -> bool:
    return any(one.on(node) for one in self.rounds.values())


def has_bundles(self: Placing, node: Any) -> bool:
    places = [place for info in self.groups.values() for place in info.places if place]
    return any(place.node.node == node for place in places)


def in_use(self: Scheduling, bundle: Any, removed: bytes) -> bool:
    return any(granted.bundle is bundle for granted in self.granted.values())


def insists(self: Bundles, message: Any) -> bool:
    return bool(message.insist)


def unplaced(self: Bundles, groups: Any) -> bool:
    return any(not b.placed for held in self.held.values() for b in held.values())


def group_is_full(self: Hosting, run: Any) -> bool:
    group = self.group_of(run)
    return not self.ordered and group.running >= group.limit


PATHS: Final = (
    Path("introduced before the reference came", Ownership, "on_introduce", 7, ANY, early),
    Path("introduced after the reference came", Ownership, "on_introduce", 5, ANY, late),
    Path("a release crosses a hand-out", Ownership, "on_release", 9, ANY, partial),
    Path("a reference comes home", Ownership, "accept", 5, ANY, came_home),
    Path("a worker leases itself", Ownership, "count_back", 8),
    Path(
        "a dead owner's reference is passed on",
        Ownership,
        "hand_out",
        50,
        ("crash", "handoff"),
        orphan_passed_on,
    ),
    Path("a late introduction is knocked for", Ownership, "probe", 6),
    Path("a cut hand-off is given up", Ownership, "on_gone", 120, ("handoff",), breaks_gates),
    Path("a borrower asks for a value", Ownership, "on_locate", 3),
    Path("cancelled while it waits", Submission, "cancel", 15, ("cancel",), in_state(WAITING)),
    Path("cancelled while queued", Submission, "cancel", 5, ("cancel",), in_state(QUEUED)),
    Path("cancelled after its push", Submission, "cancel", 25, ("cancel",), in_state(PUSHED)),
    Path(
        "a task's argument is lost while queued", Submission, "still_ready", 8, ANY, argument_lost
    ),
    Path("another attempt", Submission, "retry", 15),
    Path("no retries left", Submission, "may_retry", 15, ANY, retries_spent),
    Path("a request is redirected", Leasing, "on_redirected", 3),
    Path("a request is refused", Leasing, "on_refused", 30),
    Path("a grant crosses the return of its request", Leasing, "on_granted", 15, ANY, not_asked),
    Path("a lease is asked for", Leasing, "on_wanted", 5),
    Path("a task is given back", Leasing, "on_returned", 10),
    Path("several suspects at a dead worker", Leasing, "bury", 150, ("crash", "handoff"), several),
    Path("half of a death is never told", Leasing, "stop_waiting", 255, ("handoff",), half_dead),
    Path("a node dies with requests", Leasing, "node_lost", 5, ("nodes", "drains", "homes")),
    Path("a request at its last hop", Scheduling, "redirect", 15, ANY, last_hop),
    Path("more CPUs taken back than are free", Scheduling, "unblock", 7, ANY, overdrawn),
    Path("a request that no node can hold", Scheduling, "infeasible", 25),
    Path("a grant without a worker is refused", Scheduling, "refuse", 130, ("crash",)),
    Path("an idle worker is asked to stop", Executor, "may_leave", 3),
    Path("a worker dies before it is up", Workers, "ended", 15, ("crash", "handoff"), unborn),
    Path("a job ends", Workers, "end_job", 2),
    Path(
        "a worker's death comes before its last words", Node, "worker_ended", 3, ANY, before_stream
    ),
    Path(
        "an object is written for the dead",
        Objects,
        "on_create",
        220,
        ("drivers", "handoff", "storm"),
        dead_owner,
    ),
    Path(
        "an attempt finds what an earlier one left",
        Objects,
        "on_create",
        110,
        ("crash", "handoff"),
        known,
    ),
    Path("a value is freed while it is read", Objects, "free", 5, ANY, busy),
    Path(
        "a reader finds it on disk",
        Objects,
        "bring",
        10,
        ("pressure", "drivers", "homes"),
        state_is(SPILLED),
    ),
    Path("a reader finds it on its way", Objects, "bring", 30, ANY, state_is(PULLING)),
    Path("a reader finds it half written", Objects, "bring", 20, ANY, state_is(CREATING)),
    Path("a reader waits no more", Objects, "on_cancel_fetch", 25),
    Path("all sources are asked once more", Objects, "pull_again", 20, ("pressure",)),
    Path(
        "a copy becomes the only one",
        Objects,
        "on_keep",
        35,
        ("pressure", "nodes", "drains", "drivers", "homes"),
    ),
    Path("a value is taken over", Objects, "taken", 80, ("nodes", "drains"), from_drained),
    Path("a value is taken over that is here already", Objects, "on_take", 130, ("drains",), known),
    Path("a value will not be taken over", Objects, "not_taken", 340, ("drains",), from_drained),
    Path(
        "a spilled value is given away",
        Objects,
        "serve",
        35,
        ("pressure", "nodes", "drains", "drivers", "homes"),
        served_from_disk,
    ),
    Path(
        "a value moves before its owner knows it",
        Owner,
        "on_object_moved",
        900,
        ("drains",),
        too_soon,
    ),
    Path("a value moves that nobody knows", Owner, "on_object_moved", 300, ("drains",), unknown),
    Path(
        "a drained node sends requests on", Scheduling, "redirect", 20, ("nodes", "drains"), drained
    ),
    Path("only a drained node has it", Scheduling, "infeasible", 70, ("drains",), drained),
    Path("remains of a dead attempt", Owner, "on_object_at", 25, ANY, remains),
    Path("a value is made again", Lineage, "begin_again", 30, ("crash", "handoff")),
    Path(
        "and first what it was made of",
        Lineage,
        "begin_again",
        170,
        ("nodes", "handoff"),
        from_scratch,
    ),
    Path(
        "a value cannot be made again",
        Lineage,
        "obstacle",
        170,
        ("pressure", "crash", "homes", "handoff"),
    ),
    Path("copies of an earlier run go", Lineage, "clear_up", 510, ("handoff",)),
    Path(
        "a worker dies with children",
        Lineage,
        "worker_lost",
        15,
        ("crash", "handoff"),
        has_children,
    ),
    Path("a reference outlives its owner", Rebirth, "orphaned", 30),
    Path("a claim is passed on", Rebirth, "pass_on", 190, ("crash", "handoff")),
    Path("a claim is made anew", Rebirth, "peer_lost", 1395, ANY, claimed_from),
    Path("a claim comes to a run", Rebirth, "on_claim_from", 255, ("crash", "handoff")),
    Path("a value is reborn", Rebirth, "on_reborn", 35, ("crash", "handoff")),
    Path("what was claimed is not made", Rebirth, "on_unclaimed", 60, ("crash", "handoff")),
    Path(
        "a copy is dropped for room",
        Spilling,
        "evict_one",
        35,
        ("pressure", "nodes", "drivers", "homes"),
        not_on_disk,
    ),
    Path(
        "what is on disk leaves the arena",
        Spilling,
        "evict_one",
        20,
        ("pressure", "drivers", "homes"),
        on_disk,
    ),
    Path(
        "who waits for room is refused",
        Spilling,
        "refuse_first",
        20,
        ("pressure", "drains", "drivers"),
    ),
    Path("who waited outside is let in", Admission, "unlist", 20, ("pressure", "drains")),
    Path("what a task will read is brought ahead", Admission, "came", 20, when=was_expected),
    Path("arguments wait for each other", Objects, "on_fetch_together", 20),
    Path("a fetch is given up", Fetching, "abandon", 5),
    Path("a fetched value has moved", Fetching, "on_missing", 25, ("pressure", "nodes", "drivers")),
    Path("a running task is cancelled", Execution, "on_cancel", 50, ("cancel",), running),
    Path("a waiting task is cancelled", Execution, "on_cancel", 65, ("cancel",), waiting),
    Path("a task's owner dies", Execution, "peer_lost", 45, ANY, has_tasks_of),
    Path(
        "an argument is not stored after all",
        Needs,
        "unfetched",
        40,
        ("pressure", "nodes", "drivers"),
    ),
    Path("a message from the buried", Owner, "handle", 185, ("drains", "handoff"), buried),
    Path("a call may have run", Calls, "lives_on", 40, LIVES, may_have_run),
    Path("a host dies with calls", Calls, "worker_lost", 12, LIVES, has_calls_there),
    Path("a caller asks for the next life", Actors, "on_locate", 150, LIVES),
    Path("killed before there is a worker", Actors, "kill", 20, ("lives",), without_worker),
    Path("an actor dies in its constructor", Actors, "bury", 20, LIVES, in_constructor),
    Path("short lives in a row", Actors, "make_again", 50, LIVES, short_lived),
    Path("a node dies with actors", Actors, "node_lost", 80, ("tours",), has_actors_there),
    Path("a call waits for one before it", Hosting, "advance", 20, ACTS, head_is_late),
    Path("a call waits for room", Hosting, "arrived", 20, ACTS, group_is_full),
    Path("a value of a stream comes again", Streams, "on_item", 8, TORRENTS, again),
    Path("a stream is closed before it begins", Yielding, "on_close", 60, STREAMS, not_begun),
    Path("a stream is closed under way", Yielding, "on_close", 10, STREAMS, under_way),
    Path("a round is refused", Placing, "on_reserved", 12, PARCELS, round_refused),
    Path("a node goes in a round", Placing, "node_gone", 100, PARCELS, in_a_round),
    Path("a node goes with bundles", Placing, "node_gone", 12, PARCELS, has_bundles),
    Path("a group ends with tasks in it", Scheduling, "evict", 12, PARCELS, in_use),
    Path("a node is asked to insist", Bundles, "on_reserve", 100, PARCELS, insists),
    Path("a node comes back in a round", Bundles, "reconcile", 200, PARCELS, unplaced),
    Path("a node is gone", Head, "peer_lost", 5, ("nodes", "drains", "homes"), is_node),
)

#: Places that the simulator marks itself.
MARKS: Final = {
    "spill": (4, ("pressure",)),
    "restore": (4, ("pressure",)),
    "spill fails": (60, ("pressure",)),
    "restore fails": (60, ("pressure",)),
    "pull": (4, ANY),
    "pull fails": (30, ("pressure", "storm")),
    "start fails": (15, ("crash", "storm")),
    "keep": (15, ANY),
    "peek finds something": (60, ANY),
    "kept until the job's end": (100, ANY),
    "a worker dies of Provide": (10, ("handoff",)),
    "a worker dies of SealObject": (10, ("crash", "storm")),
    "declared dead": (6, ("nodes", "drains", "homes", "fence")),
    "a fenced node begins anew": (5, ("fence",)),
    "an actor is called": (2, ACTS),
    "an actor is killed": (20, ("lives",)),
    "an actor ends itself": (40, ("lives",)),
    "an actor ends that owns something": (20, ACTS),
    "another life": (20, LIVES),
    "a host dies of a call": (20, ("lives",)),
    "a stream begins": (2, STREAMS),
    "a value of a stream is taken": (2, STREAMS),
    "a stream is read to its end": (4, STREAMS),
    "a stream is closed early": (5, STREAMS),
    "a generator waits for room": (4, STREAMS),
    "the next value is late": (5, STREAMS),
    "a worker dies of StreamItem": (8, TORRENTS),
    "a group is placed": (3, PARCELS),
    "a group is removed": (2, PARCELS),
    "a group is waited for": (5, PARCELS),
    "a task runs in a group": (5, PARCELS),
    "the head does not answer": (60, PARCELS),
    "an actor has a name": (3, GUILDS),
    "an actor is found by its name": (3, GUILDS),
    "a stale name is given back": (8, GUILDS),
    "a pull is sent on": (12, RELAYS),
    "a node passes on what arrives": (12, RELAYS),
    "a relay fails": (100, RELAYS),
    "a worker is killed for a cancel": (30, GRACES),
    "what another owns is cancelled": (8, GRACES),
    "torn journal": (10, ("head", "fence")),
}
#: A fault strikes in about one of so many seeds of the profiles that have it.
FAULT_IN: Final = 12
