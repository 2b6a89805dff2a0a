"""Fetching: values from the stores of nodes into the hands of this process, and the waits of
``get`` and ``wait``.

A stored value is read in place: this process asks its own node for the object (``FetchObject``),
the node brings it to this machine if need be, pins it and answers with its offset in the shared
arena. One pin at the node stands for all views in this process; when the last view is gone the
pin is returned; after a short rest if they were got by user code, which may get the same value
again in a loop, and the node cannot make room of the value without writing it: a store that is
full, as its disk is, lives by what can be dropped.

If the nodes that were thought to have the object do not, the owner is asked again, naming them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from freehold.core.entries import Entry
from freehold.core.ownership import Ownership
from freehold.core.world import Timer, World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.fetches import GET, WAIT
from freehold.wire.messages import (
    FAILED,
    STORED,
    AbortObject,
    Address,
    Argument,
    CancelFetch,
    CreateObject,
    FetchObject,
    FetchTogether,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
    UnpinObject,
    Value,
)

#: For how long a value that was got stays pinned after its last view is gone (seconds): a ``get``
#: of it meanwhile takes 58 us, with a request to the node 220. If the value is freed, no longer.
REST_SECONDS: Final = 0.05


class Fetcher(Protocol):
    """Anyone who wants an object's bytes at hand."""

    def fetched(self, object_id: ObjectId, offset: int, size: int) -> None:
        """They are here, pinned once for this fetcher."""

    def unfetched(self, object_id: ObjectId, value: Value) -> None:
        """There are no stored bytes after all: ``value`` is inline or an error."""

    def missing(self, object_id: ObjectId, tried: Sequence[NodeId]) -> bool:
        """None of the nodes that were tried has it. True: the fetcher gives up; False: it waits
        for what the owner says.
        """


class Local:
    """An object pinned here, or on its way."""

    __slots__ = ("fetchers", "may_rest", "offset", "owner", "pins", "priority", "size")

    def __init__(self, owner: Address, size: int, priority: int) -> None:
        self.owner = owner
        self.size = size
        self.priority = priority
        self.may_rest = False
        self.offset = -1
        self.pins = 0
        self.fetchers: list[Fetcher] = []


class Fetching:
    """What this process has pinned at its node, and what it is waiting for."""

    def __init__(self, world: World, node: Address) -> None:
        self.world = world
        self.node = node
        self.locals: dict[ObjectId, Local] = {}
        self.resting: dict[ObjectId, float] = {}  # without views, and until when; in that order
        self.timer: Timer | None = None
        self.missing: Callable[
            [ObjectId, Address, Sequence[NodeId]], None
        ]  # the role's: ask the owner
        self.full: Callable[[str, bool], bytes]  # the role's: the shipped form of "no room here"

    def fetch(
        self, object_id: ObjectId, owner: Address, value: Value, fetcher: Fetcher, priority: int
    ) -> None:
        """Bring a STORED value here for ``fetcher``."""
        local = self.locals.get(object_id)
        if local is not None and local.offset >= 0:
            local.pins += 1
            self.resting.pop(object_id, None)
            fetcher.fetched(object_id, local.offset, local.size)
            return
        if local is None:
            local = self.locals[object_id] = Local(owner, value.size, priority)
            self.ask(object_id, local, value)
        elif priority < local.priority:  # it may be waiting with all that some task needs
            local.priority = priority
            self.ask(object_id, local, value)
        local.fetchers.append(fetcher)

    def fetch_together(
        self, arguments: Sequence[Argument], fetcher: Fetcher, priority: int
    ) -> None:
        """Bring STORED values here that ``fetcher`` can use only together. It is told of each."""
        wishes = []
        for argument in arguments:
            object_id, value = argument.ref.object, argument.value
            local = self.locals.get(object_id)
            if local is None:
                local = self.locals[object_id] = Local(argument.ref.owner, value.size, priority)
                local.fetchers.append(fetcher)
                wishes.append(self.wish(object_id, local, value))
            else:
                self.fetch(object_id, argument.ref.owner, value, fetcher, priority)
        if wishes:
            self.world.send(self.node, wishes[0] if len(wishes) == 1 else FetchTogether(wishes))

    def ask(self, object_id: ObjectId, local: Local, value: Value) -> None:
        """Tell the node to bring the object."""
        self.world.send(self.node, self.wish(object_id, local, value))

    def wish(self, object_id: ObjectId, local: Local, value: Value) -> FetchObject:
        """What the node is told."""
        return FetchObject(object_id, value.size, local.owner, value.nodes, local.priority)

    def abandon(self, object_id: ObjectId, fetcher: Fetcher) -> None:
        """``fetcher`` waits no more."""
        local = self.locals.get(object_id)
        if local is None or fetcher not in local.fetchers:
            return
        local.fetchers.remove(fetcher)
        if not local.fetchers and local.offset < 0:
            del self.locals[object_id]
            self.world.send(self.node, CancelFetch(object_id))

    def release(self, object_id: ObjectId) -> None:
        """One fetcher's views are gone."""
        local = self.locals[object_id]
        local.pins -= 1
        if local.pins or local.fetchers:
            return
        if local.may_rest:
            self.resting[object_id] = self.world.now() + REST_SECONDS
            self.look_again()
        else:
            self.unpin(object_id)

    def look_again(self) -> None:
        """See to it that what rests is unpinned in time."""
        if self.resting and self.timer is None:
            self.timer = self.world.call_at(next(iter(self.resting.values())), self.rested)

    def rested(self) -> None:
        """Some have rested long enough."""
        self.timer = None
        for object_id, until in list(self.resting.items()):
            if until > self.world.now():
                break
            self.unpin(object_id)
        self.look_again()

    def freed(self, entry: Entry) -> None:
        """Nobody here can name the value any more."""
        if entry.object in self.resting:
            self.unpin(entry.object)

    def unpin(self, object_id: ObjectId) -> None:
        """The bytes may go."""
        del self.locals[object_id]
        self.resting.pop(object_id, None)
        self.world.send(self.node, UnpinObject(object_id))

    def on_ready(self, message: ObjectReady) -> None:
        """The node has it here."""
        local = self.locals.get(message.object)
        if local is None or local.offset >= 0:  # cancelled meanwhile: the node pinned it for nobody
            self.world.send(self.node, UnpinObject(message.object))
            return
        local.offset, local.size = message.offset, message.size
        local.may_rest = message.only and local.priority == GET
        fetchers, local.fetchers = local.fetchers, []
        local.pins += len(fetchers)
        for fetcher in fetchers:
            fetcher.fetched(message.object, local.offset, local.size)

    def on_missing(self, message: ObjectMissing) -> None:
        """The named nodes do not have it."""
        local = self.locals.get(message.object)
        if local is None or local.offset >= 0:
            return
        if message.full:
            self.relocated(message.object, Value(FAILED, self.full(message.reason, message.disk)))
            return
        self.nowhere(message.object, message.tried)
        if local.fetchers:
            self.missing(message.object, local.owner, message.tried)

    def nowhere(self, object_id: ObjectId, tried: Sequence[NodeId]) -> None:
        """No node has it. Who cannot wait for its owner to find it elsewhere gives up."""
        local = self.locals[object_id]
        fetchers, local.fetchers = local.fetchers, []  # (one that gives up abandons all it wants)
        local.fetchers = [fetcher for fetcher in fetchers if not fetcher.missing(object_id, tried)]
        if not local.fetchers:
            del self.locals[object_id]

    def withdraw(self, object_id: ObjectId) -> list[Fetcher]:
        """What is under way will not come. Returns those who wait for it and can go on waiting."""
        local = self.locals.get(object_id)
        if local is None or local.offset >= 0:
            return []
        self.world.send(self.node, CancelFetch(object_id))
        self.nowhere(object_id, ())
        local = self.locals.pop(object_id, None)
        return local.fetchers if local is not None else []

    def awaited_from(self, owner: ProcessId) -> list[ObjectId]:
        """Objects of an owner that are on their way here."""
        return [
            object_id
            for object_id, local in self.locals.items()
            if local.offset < 0 and local.owner.process == owner
        ]

    def relocated(self, object_id: ObjectId, value: Value) -> None:
        """The owner answered: look elsewhere, or there is nothing to fetch."""
        local = self.locals.get(object_id)
        if local is None or local.offset >= 0:
            return
        if value.kind == STORED:
            self.ask(object_id, local, value)
            return
        del self.locals[object_id]
        for fetcher in local.fetchers:
            fetcher.unfetched(object_id, value)


class Get:
    """One ``get``: done when every value is at hand, or when one turns out to be an error.

    ``found``: offset and size in the arena of the stored values, each pinned once for this get.
    ``failed``: the first error among the values. ``done``: nothing more to wait for.
    """

    __slots__ = ("done", "failed", "fetching", "found", "ownership", "pending", "wake")

    def __init__(
        self,
        ownership: Ownership,
        fetching: Fetching,
        objects: Sequence[ObjectId],
        wake: Callable[[], None],
    ) -> None:
        self.ownership = ownership
        self.fetching = fetching
        self.wake: Callable[[], None] = lambda: None  # nobody sleeps yet
        self.found: dict[ObjectId, tuple[int, int]] = {}
        self.failed: Value | None = None
        self.done = False
        entries = ownership.entries
        awaited: dict[ObjectId, Entry] = {}  # each once
        for object_id in objects:
            entry = entries[object_id]
            value = entry.value
            if value is None or value.kind == STORED:
                awaited[entry.object] = entry
            elif value.kind == FAILED and self.failed is None:
                self.failed = value
        # All that is awaited stands in ``pending`` before the first of it can arrive, which it
        # does at once when it is pinned here already.
        self.pending = dict.fromkeys(awaited)
        for entry in awaited.values():
            if entry.value is None:
                ownership.wait_for(entry, self)
            else:
                self.fetch(entry, entry.value)
        self.done = self.over()
        self.wake = wake

    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.failed is not None or not self.pending

    def fetch(self, entry: Entry, value: Value) -> None:
        """A stored value: bring it here."""
        owner = entry.owner or self.ownership.world.address
        self.fetching.fetch(entry.object, owner, value, self, GET)

    def resolved(self, entry: Entry) -> None:
        """A value is known."""
        value = entry.value
        assert value is not None
        if value.kind == STORED and not self.done:
            self.fetch(entry, value)
        else:
            self.settle(entry.object, value if value.kind == FAILED else None)

    def fetched(self, object_id: ObjectId, offset: int, size: int) -> None:
        """Its bytes are here."""
        if self.done or object_id in self.found:
            self.fetching.release(object_id)
            return
        self.found[object_id] = (offset, size)
        self.settle(object_id, None)

    def unfetched(self, object_id: ObjectId, value: Value) -> None:
        """It is not stored after all."""
        self.settle(object_id, value if value.kind == FAILED else None)

    def missing(self, object_id: ObjectId, tried: Sequence[NodeId]) -> bool:
        """The owner will find it, or have it made again."""
        return False

    def renamed(self, old: ObjectId, new: ObjectId) -> None:
        """What we wait for has another id now."""
        if old in self.pending:
            del self.pending[old]
            self.pending[new] = None

    def settle(self, object_id: ObjectId, failed: Value | None) -> None:
        """One object less to wait for."""
        self.pending.pop(object_id, None)
        if self.done:
            return
        if failed is not None:
            self.failed = failed
        if self.over():
            self.done = True
            self.wake()

    def close(self) -> None:
        """Stop waiting (timeout, or an error came first). Pins already given stay with
        ``found``.
        """
        self.done = True
        for object_id in self.pending:
            entry = self.ownership.entries.get(object_id)
            if entry is not None and entry.waiters and self in entry.waiters:
                entry.waiters.remove(self)
            self.fetching.abandon(object_id, self)
        self.pending.clear()


class Wait:
    """One ``wait``: done when ``needed`` of the objects are finished, and here if ``fetch`` asks
    for it. ``ready``: their ids as the table has them now.
    """

    __slots__ = ("done", "fetching", "needed", "ownership", "pending", "ready", "wake")

    def __init__(
        self,
        ownership: Ownership,
        fetching: Fetching,
        objects: Sequence[ObjectId],
        needed: int,
        fetch: bool,
        wake: Callable[[], None],
    ) -> None:
        self.ownership = ownership
        self.fetching: Fetching | None = fetching if fetch else None
        self.needed = needed
        self.wake = wake
        self.ready: set[ObjectId] = set()
        self.pending: dict[ObjectId, None] = {}
        self.done = False
        entries = ownership.entries
        for asked in objects:
            if len(self.ready) >= needed:  # (a loop of waits on n references would take n * n)
                break
            entry = entries[asked]
            if entry.object in self.pending or entry.object in self.ready:
                continue  # (two that were asked for are one by now)
            if entry.value is None:
                self.pending[entry.object] = None
                ownership.wait_for(entry, self)
            else:
                self.known(entry)
        self.needed = min(needed, len(self.pending) + len(self.ready))
        self.done = len(self.ready) >= self.needed

    def known(self, entry: Entry) -> None:
        """A value is known: that is enough, or it has to come here first."""
        value = entry.value
        assert value is not None
        if (
            self.fetching is not None
            and value.kind == STORED
            and self.fetching.node not in value.nodes
            and not self.done
        ):
            self.pending[entry.object] = None
            owner = entry.owner or self.ownership.world.address
            self.fetching.fetch(entry.object, owner, value, self, WAIT)
        else:
            self.settle(entry.object)

    def resolved(self, entry: Entry) -> None:
        """A value is known."""
        self.known(entry)

    def fetched(self, object_id: ObjectId, offset: int, size: int) -> None:
        """It is here; a later get will find it. We do not keep it pinned."""
        assert self.fetching is not None
        self.fetching.release(object_id)
        self.settle(object_id)

    def unfetched(self, object_id: ObjectId, value: Value) -> None:
        """It is not stored after all."""
        self.settle(object_id)

    def missing(self, object_id: ObjectId, tried: Sequence[NodeId]) -> bool:
        """The owner will find it, or have it made again."""
        return False

    def renamed(self, old: ObjectId, new: ObjectId) -> None:
        """What we wait for has another id now."""
        if old in self.pending:
            del self.pending[old]
            if new in self.pending or new in self.ready:  # two that were asked for are one now
                self.needed = min(self.needed, len(self.pending) + len(self.ready))
            self.pending[new] = None

    def settle(self, object_id: ObjectId) -> None:
        """One more is ready."""
        self.pending.pop(object_id, None)
        self.ready.add(object_id)
        if not self.done and len(self.ready) >= self.needed:
            self.done = True
            self.wake()

    def close(self) -> None:
        """Stop waiting."""
        self.done = True
        for object_id in self.pending:
            entry = self.ownership.entries.get(object_id)
            if entry is not None and entry.waiters and self in entry.waiters:
                entry.waiters.remove(self)
            if self.fetching is not None:
                self.fetching.abandon(object_id, self)
        self.pending.clear()
        entries = self.ownership.entries  # what was ready may have another id since then
        self.ready = {entries[key].object if key in entries else key for key in self.ready}


class Creation:
    """Room asked for in this node's store. ``offset`` is where to write; negative: refused, see
    ``reason``.
    """

    __slots__ = ("disk", "done", "offset", "reason", "wake")

    def __init__(self, wake: Callable[[], None]) -> None:
        self.done = False
        self.offset = -1
        self.reason = ""
        self.disk = False  # refused because nothing more can be spilled
        self.wake = wake


class Creating:
    """Values that this process is about to write into its node's store."""

    def __init__(self, world: World, node: Address) -> None:
        self.world = world
        self.node = node
        self.pending: dict[ObjectId, Creation] = {}

    def create(
        self, object_id: ObjectId, size: int, owner: Address, job: JobId, wake: Callable[[], None]
    ) -> Creation:
        """Ask for room."""
        creation = self.pending[object_id] = Creation(wake)
        self.world.send(self.node, CreateObject(object_id, size, owner, job))
        return creation

    def on_created(self, message: ObjectCreated) -> None:
        """The node's answer."""
        creation = self.pending.pop(message.object, None)
        if creation is None:
            if message.offset >= 0:
                self.world.send(self.node, AbortObject(message.object))
            return
        creation.offset, creation.reason = message.offset, message.reason
        creation.disk = message.disk
        creation.done = True
        creation.wake()

    def take_back(self, object_id: ObjectId) -> None:
        """A value that we have written, and of which nobody has been told, is not wanted."""
        self.world.send(self.node, AbortObject(object_id))

    def node_lost(self) -> None:
        """Nobody will answer."""
        for creation in self.pending.values():
            creation.reason = "this machine's node daemon is gone"
            creation.done = True
            creation.wake()
        self.pending.clear()
