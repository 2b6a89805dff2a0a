"""Admission: when what processes want to read is brought into the store, and pinned for them.

What this file knows: who wants which objects together, in order of urgency, and how much of the
store can not be taken from those who have it. What it must not know: how room is made
(``spilling``), and where bytes come from (``objects``).

A *bundle* is what one process can use only together: the object of a ``get`` or a ``wait``, all the
stored arguments of a task. It waits outside, holding nothing, until it is let in; then each of its
objects is pinned if it is here, and brought here and pinned if not.

A bundle is let in when what is *held* (pinned, half written, on its way), what is *promised* (let
in, without a place yet) and what the bundle would add fit into the store together. So pulls under
way never ask for more than there is, and whoever was let in gets all that it was let in for, by
dropping and spilling alone, whatever the others do: two tasks cannot each hold half of a full store
and wait for the other half.

The more urgent go first, get before wait before arguments, and within a kind first come, first
served: a big bundle must not starve behind small ones. Two exceptions, neither of which keeps
anybody waiting for long: what is held by others already costs nothing and is pinned at once; and so
is the object of a get that lies here, if it fits.

The arguments of all tasks of this node, running or not, may hold ``ARGUMENT_SHARE`` of the store:
the rest is for what running tasks make. The share bends: a task whose arguments are larger alone is
let in when no other holds any, and one that has waited for ``BEND`` for nothing else is let in.
(A function that keeps its argument in a global holds its share for good.) Arguments of calls to
actors are not counted, since actors often keep them.

What tasks will read that have not been sent to a worker yet is brought *ahead*, if nobody waits and
it fits: not pinned, but among what can go the last to go (``spilling``). Up to ``AHEAD_SHARE`` of
the store is kept for it; what was expected longest gives way.

Who has stood first in line for ``PATIENCE`` is refused, with the reason, unless a task that holds
arguments runs: then room comes when it ends, however long it takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from freehold.core.spilling import Spilling
from freehold.core.stored import SEALED, SPILLED, SPILLING, Room, Stored
from freehold.core.world import Timer, World
from freehold.ids import ObjectId, ProcessId
from freehold.wire.fetches import ARGUMENT, GET
from freehold.wire.messages import Address, FetchObject, ObjectMissing

#: Of the store, for arguments. The same as Ray's (papers.md, section on memory).
ARGUMENT_SHARE: Final = 0.7
#: Of the store, for what is brought ahead of its task.
AHEAD_SHARE: Final = 0.3
#: Seconds after which the share is no reason to wait any more: most tasks have ended by then.
BEND: Final = 5.0
#: Seconds that the first in line may wait, as long as creators may (``spilling``).
PATIENCE: Final = 60.0


class Table(Protocol):
    """What this machine asks of the one that leads the objects through their lives."""

    @property
    def table(self) -> Mapping[ObjectId, Stored]:
        """Every object here."""

    def bring(self, request: FetchObject, client: Address) -> None:
        """Pin it for the client, at once or when it is here."""

    def bring_ahead(self, request: FetchObject) -> Stored | None:
        """Have it here, if it can be had."""


class Bundle:
    """Objects that one process wants together. ``first_since``: when it came to stand first."""

    __slots__ = ("client", "first_since", "priority", "requests", "since", "size")

    def __init__(
        self, client: Address, requests: Iterable[FetchObject], size: int, since: float
    ) -> None:
        self.client = client
        self.requests = {request.object: request for request in requests}
        self.priority = next(iter(self.requests.values())).priority
        self.size = size  # of all of it, whatever is here already
        self.since = since
        self.first_since: float | None = None


class Admission:
    """Those who want to read something in one node's store, and are not let in yet."""

    def __init__(self, world: World, room: Room, spilling: Spilling, objects: Table) -> None:
        self.world = world
        self.room = room
        self.spilling = spilling
        self.objects = objects
        self.queues: tuple[deque[Bundle], ...] = (deque(), deque(), deque())
        self.waiting: dict[ObjectId, dict[ProcessId, Bundle]] = {}
        self.argument_bytes = 0  # of objects that were let in as arguments of tasks
        self.expected: dict[ObjectId, Stored] = {}  # brought ahead, by age
        self.expected_bytes = 0
        self.looks_ahead = True
        self.timer: Timer | None = None
        self.looks_at = 0.0
        self.runs: Callable[[ProcessId], bool] = lambda process: False  # the role's: not blocked

    def __len__(self) -> int:
        return sum(len(queue) for queue in self.queues)

    # ------------------------------------------------------------------ events

    def ask(self, client: Address, requests: Sequence[FetchObject]) -> None:
        """A process wants these together, now or as soon as it can be."""
        size = sum(self.room.block(request.size) for request in requests)
        bundle = Bundle(client, requests, size, self.world.now())
        if size > self.room.capacity:
            self.refuse(bundle, self.too_large(bundle))
        elif self.may_pass(bundle):
            self.let_in(bundle)
            self.spilling.make_room()
        else:
            self.queues[min(bundle.priority, ARGUMENT)].append(bundle)
            for key in bundle.requests:
                self.waiting.setdefault(key, {})[client.process] = bundle
            self.spilling.make_room()  # (what it waits for may have to be written first)

    def gone(self, object_id: ObjectId) -> None:
        """The object was freed: whoever waits for it here is told."""
        me = self.world.address.node
        for bundle in list(self.waiting.get(object_id, {}).values()):
            self.cancel(object_id, bundle.client.process)
            self.world.send(bundle.client, ObjectMissing(object_id, "it was freed", [me]))

    def process_lost(self, process: ProcessId) -> None:
        """A process is gone: nobody waits for what it waited for, and what it owned goes."""
        for object_id, bundles in list(self.waiting.items()):
            self.cancel(object_id, process)
            wishes = [bundle.requests[object_id] for bundle in bundles.values()]
            if any(wish.owner.process == process for wish in wishes):
                self.gone(object_id)

    def cancel(self, object_id: ObjectId, process: ProcessId) -> None:
        """It waits no more for the object. A bundle of which nothing is left is dropped when its
        turn comes.
        """
        bundles = self.waiting.get(object_id)
        bundle = bundles.pop(process, None) if bundles is not None else None
        if bundle is not None:
            del bundle.requests[object_id]
            if not bundles:
                del self.waiting[object_id]

    # ------------------------------------------------------------------ who is let in

    def admit(self) -> None:
        """Let in who fits, in order."""
        for queue in self.queues:
            while queue:
                bundle = queue[0]
                if bundle.requests and not self.fits(bundle):
                    if bundle.first_since is None:
                        bundle.first_since = self.world.now()
                    self.watch()
                    return
                queue.popleft()
                for key in list(bundle.requests):
                    self.unlist(key, bundle)
                self.let_in(bundle)

    def unlist(self, key: ObjectId, bundle: Bundle) -> None:
        """It waits outside no more."""
        bundles = self.waiting[key]
        del bundles[bundle.client.process]
        if not bundles:
            del self.waiting[key]

    def may_pass(self, bundle: Bundle) -> bool:
        """Whether a bundle need not stand in line."""
        first = not any(self.queues[: min(bundle.priority, ARGUMENT) + 1])
        if not first and bundle.priority == GET:
            stored = self.objects.table.get(next(iter(bundle.requests)))
            first = stored is not None and stored.state in (SEALED, SPILLING)
        return self.fits(bundle) if first else self.adds(bundle) == 0

    def fits(self, bundle: Bundle) -> bool:
        """Whether room for all of it can be made without anyone's help."""
        spilling = self.spilling
        free = self.room.capacity - spilling.held - spilling.promised
        if bundle.priority >= ARGUMENT and spilling.creators:
            free -= self.room.block(spilling.creators[0].stored.size)
        if bundle.size > free:  # at most so much, and less if some of it is held by others
            added = self.adds(bundle)
            if added and added > free:
                return False
        return bundle.priority != ARGUMENT or self.within_share(bundle)

    def adds(self, bundle: Bundle) -> int:
        """Bytes of it that nobody holds yet."""
        added = 0
        for request in bundle.requests.values():
            stored = self.objects.table.get(request.object)
            if stored is None:
                added += self.room.block(request.size)
            elif stored.state == SPILLED or self.spilling.may_go(stored):
                added += self.room.block(stored.size)
        return added

    def within_share(self, bundle: Bundle) -> bool:
        """Whether arguments hold no more than their share with these."""
        if not self.argument_bytes or self.world.now() - bundle.since >= BEND:
            return True
        return self.argument_bytes + bundle.size <= ARGUMENT_SHARE * self.room.capacity

    def let_in(self, bundle: Bundle) -> None:
        """Bring and pin all of it."""
        for request in bundle.requests.values():
            self.objects.bring(request, bundle.client)
            if bundle.priority == ARGUMENT:
                stored = self.objects.table.get(request.object)
                if stored is not None:
                    self.count(stored, bundle.client.process)

    # ------------------------------------------------------------------ the arguments' share

    def count(self, stored: Stored, process: ProcessId) -> None:
        """The object is an argument of a task of that process."""
        if stored.readers is None:
            stored.readers = set()
            self.argument_bytes += self.room.block(stored.size)
        stored.readers.add(process)

    def discount(self, stored: Stored, process: ProcessId) -> None:
        """The process has let go of it, or will not get it."""
        if stored.readers is not None:
            stored.readers.discard(process)
            if not stored.readers:
                self.discount_all(stored)

    def discount_all(self, stored: Stored) -> None:
        """Nobody has it as an argument any more."""
        if stored.readers is not None:
            stored.readers = None
            self.argument_bytes -= self.room.block(stored.size)

    # ------------------------------------------------------------------ what is brought ahead

    def ahead(self, requests: Sequence[FetchObject]) -> None:
        """Tasks that have not begun will read these here."""
        for request in requests:
            size = self.room.block(request.size)
            free = self.room.capacity - self.spilling.held - self.spilling.promised
            most = AHEAD_SHARE * self.room.capacity
            if not self.looks_ahead or any(self.queues) or size > min(free, most):
                break
            if request.object in self.expected:
                continue
            while self.expected_bytes + size > most:
                self.give_way(next(iter(self.expected.values())))
            stored = self.objects.bring_ahead(request)
            if stored is not None:
                self.expected[stored.id] = stored
                self.expected_bytes += self.room.block(stored.size)
        self.spilling.make_room()

    def came(self, stored: Stored) -> None:
        """Someone reads it now, or it is gone: nobody is expected any more."""
        if stored.expected:
            stored.expected = False
            del self.expected[stored.id]
            self.expected_bytes -= self.room.block(stored.size)

    def give_way(self, stored: Stored) -> None:
        """It was expected to be read for too long."""
        self.came(stored)
        if self.spilling.may_go(stored) and stored.state == SEALED:
            self.spilling.rest(stored)

    # ------------------------------------------------------------------ the first in line

    def first(self) -> Bundle | None:
        """For whom the others wait."""
        for queue in self.queues:
            if queue:
                return queue[0]
        return None

    def before(self, bundle: Bundle) -> int:
        """How many stand before it in line."""
        ahead = 0
        for queue in self.queues:
            for other in queue:
                if other is bundle:
                    return ahead
                ahead += bool(other.requests)
        return ahead

    def watch(self) -> None:
        """Look again when the share bends, and when the first in line has waited for too long."""
        bundle = self.first()
        if bundle is None or bundle.first_since is None:
            return
        bends, late = bundle.since + BEND, bundle.first_since + PATIENCE
        when = min(bends, late) if bends > self.world.now() else late
        if self.timer is not None and when < self.looks_at:
            self.timer.cancel()  # it was set for one that waited before this
            self.timer = None
        if self.timer is None:
            self.looks_at = when
            self.timer = self.world.call_at(when, self.look)

    def look(self) -> None:
        """Time is over for the first in line, if it still is the same and cannot be let in now."""
        self.timer = None
        self.spilling.make_room()
        bundle = self.first()
        if bundle is None or bundle.first_since is None:
            return
        if self.world.now() - bundle.first_since >= PATIENCE:
            if self.others_run(bundle):
                bundle.first_since = self.world.now()
            else:
                for key in list(bundle.requests):
                    self.unlist(key, bundle)
                self.refuse(bundle, self.spilling.why_full(bundle.size))
                bundle.requests.clear()
                self.spilling.make_room()
        self.watch()

    def others_run(self, bundle: Bundle) -> bool:
        """Whether a task that runs, and is not this one, holds arguments."""
        readers = {
            process
            for stored in self.objects.table.values()
            for process in stored.readers or ()
            if process != bundle.client.process
        }
        return any(self.runs(process) for process in readers)

    def refuse(self, bundle: Bundle, reason: str) -> None:
        """It is not let in, ever."""
        for key in bundle.requests:
            self.world.send(bundle.client, ObjectMissing(key, reason, [], full=True))

    def too_large(self, bundle: Bundle) -> str:
        """Why a bundle can never be let in."""
        return (
            f"the {len(bundle.requests)} stored arguments of the task have {bundle.size:,} bytes "
            f"together, the store of this node {self.room.capacity:,}; pass fewer of them to one "
            "task or start the node with a larger object_store_memory"
        )
