"""The store's accounting under any sequence of events: a stateful property test.

The real allocator, a mover that finishes when the test says so, a few objects, clients and sizes,
all small so that everything collides. Checked after every step: bytes in use are those of objects
with a place; no two overlap; a pinned object neither moves nor goes; what is on disk is what the
table says. At the end everything is freed and nothing is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.world import World, job, node, object_id, process
from freehold.core.objects import Objects
from freehold.core.stored import CREATING, PULLING, RESTORING, SEALED, SPILLING
from freehold.ids import ObjectId
from freehold.store.allocator import Allocator
from freehold.wire.fetches import ARGUMENT, CALL, GET, WAIT
from freehold.wire.messages import (
    CreateObject,
    FetchAhead,
    FetchObject,
    FetchTogether,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
)

BLOCK = 64
ME, OTHER = node("me"), node("other")
OWNER = process("owner", "other")
CLIENTS = [process(name) for name in ("one", "two")]
KEYS = [object_id(name) for name in "abcd"]

keys = st.sampled_from(KEYS)
clients = st.sampled_from(CLIENTS)
pick = st.integers(0, 9)


class SlowMover:
    """Keeps what it was asked until the test finishes it; keeps account of the disk."""

    def __init__(self) -> None:
        self.spills: list[Sequence[ObjectId]] = []
        self.moves: list[tuple[str, ObjectId]] = []
        self.disk: dict[int, ObjectId] = {}
        self.slots = 0

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        assert not self.spills, "one batch at a time"
        self.spills.append([key for key, _, _ in batch])

    def write(self, batch: Sequence[ObjectId]) -> list[int]:
        made = range(self.slots, self.slots + len(batch))
        self.slots += len(batch)
        self.disk.update(zip(made, batch, strict=True))
        return list(made)

    def restore(self, key: ObjectId, slot: Any, offset: int, size: int) -> None:
        assert self.disk[slot] == key
        self.moves.append(("restored", key))

    def pull(self, key: ObjectId, source: Any, offset: int, size: int) -> None:
        self.moves.append(("pulled", key))

    def discard(self, slot: Any) -> None:
        del self.disk[slot]  # a second discard is a KeyError


class Accounting(RuleBasedStateMachine):
    """One store of ten blocks and all that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(ME)
        self.room = Allocator(10 * BLOCK)
        self.mover = SlowMover()
        self.objects = Objects(self.world, self.room, self.mover)
        self.pinned: dict[ObjectId, int] = {}  # object -> offset told to readers
        self.views: list[tuple[ObjectId, Any]] = []
        self.waiting: list[tuple[ObjectId, Any]] = []  # fetches without an answer
        self.writing: dict[ObjectId, Any] = {}

    @initialize(blocks=st.tuples(*[st.integers(1, 4)] * 3, st.integers(1, 7)))
    def fill(self, blocks: tuple[int, ...]) -> None:
        """A store under pressure from the start. (Every attempt makes values of the same size.)"""
        self.size = {key: count * BLOCK for key, count in zip(KEYS, blocks, strict=True)}
        for key in KEYS[:3]:
            self.create(key, CLIENTS[0])
            self.objects.on_seal(key, CLIENTS[0])
        self.world.sent.clear()

    @rule(key=keys, client=clients)
    def create(self, key: ObjectId, client: Any) -> None:
        self.objects.on_create(CreateObject(key, self.size[key], OWNER, job()), client)

    @precondition(lambda self: self.writing)
    @rule(which=pick, abort=st.booleans())
    def finish_writing(self, which: int, abort: bool) -> None:
        key = sorted(self.writing)[which % len(self.writing)]
        client = self.writing.pop(key)
        (self.objects.on_abort if abort else self.objects.on_seal)(key, client)

    @rule(key=keys, client=clients)
    def take_back(self, key: ObjectId, client: Any) -> None:
        """Whether it has made it or not, and whatever has become of it since."""
        if key not in self.writing:
            self.objects.on_abort(key, client)

    @rule(
        key=keys,
        client=clients,
        remote=st.booleans(),
        priority=st.sampled_from([GET, WAIT, ARGUMENT, CALL]),
    )
    def fetch(self, key: ObjectId, client: Any, remote: bool, priority: int) -> None:
        self.note(key, client)
        nodes = [OTHER] if remote else [ME]
        wish = FetchObject(key, self.size[key], OWNER, nodes, priority)
        self.objects.on_fetch(wish, client)

    @rule(
        names=st.sets(keys, min_size=2, max_size=3),
        client=clients,
        priority=st.sampled_from([ARGUMENT, CALL]),
    )
    def fetch_together(self, names: set[ObjectId], client: Any, priority: int) -> None:
        wishes = []
        for key in sorted(names):
            self.note(key, client)
            wishes.append(FetchObject(key, self.size[key], OWNER, [OTHER], priority))
        self.objects.on_fetch_together(FetchTogether(wishes), client)

    @rule(key=keys)
    def announce(self, key: ObjectId) -> None:
        wish = FetchObject(key, self.size[key], OWNER, [OTHER], ARGUMENT)
        self.objects.on_fetch_ahead(FetchAhead([wish]))

    def note(self, key: ObjectId, client: Any) -> None:
        """It waits from now on, or has a wish already that this one replaces."""
        if (key, client) not in self.waiting:
            self.waiting.append((key, client))

    @precondition(lambda self: self.waiting)
    @rule(which=pick)
    def cancel(self, which: int) -> None:
        key, client = self.waiting.pop(which % len(self.waiting))
        self.objects.on_cancel_fetch(key, client)

    @precondition(lambda self: self.views)
    @rule(which=pick)
    def unpin(self, which: int) -> None:
        key, client = self.views.pop(which % len(self.views))
        self.objects.unpin(key, client.process)

    @rule(key=keys, seldom=pick)
    def free(self, key: ObjectId, seldom: int) -> None:
        if seldom < 3:
            self.objects.on_free(key)

    @precondition(lambda self: self.mover.spills)
    @rule(fails=st.sampled_from([False, False, True]))
    def spill_done(self, fails: bool) -> None:
        batch = self.mover.spills.pop()
        slots = [] if fails else self.mover.write(batch)
        self.objects.spilled(batch, slots, "disk full" if fails else "")

    @precondition(lambda self: self.mover.moves)
    @rule(which=pick, fails=st.sampled_from([False, False, True]))
    def move_done(self, which: int, fails: bool) -> None:
        kind, key = self.mover.moves.pop(which % len(self.mover.moves))
        getattr(self.objects, kind)(key, "broken" if fails else "")

    @rule(client=clients, seldom=pick)
    def client_lost(self, client: Any, seldom: int) -> None:
        if seldom:
            return
        self.views = [view for view in self.views if view[1] != client]
        self.waiting = [want for want in self.waiting if want[1] != client]
        self.writing = {key: who for key, who in self.writing.items() if who != client}
        self.objects.process_lost(client.process)

    @rule(seconds=st.sampled_from([1, 1, 1, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.advance(seconds)

    @invariant()
    def answers_are_noted(self) -> None:
        """Each answer goes to someone who waits for it; nobody gets two."""
        for client, message in self.world.sent:
            match message:
                case ObjectCreated(offset=offset) if offset >= 0:
                    self.writing[message.object] = client
                case ObjectReady():
                    self.waiting.remove((message.object, client))
                    self.views.append((message.object, client))
                case ObjectMissing():
                    self.waiting.remove((message.object, client))
        self.world.sent.clear()

    @invariant()
    def accounts_agree(self) -> None:
        """Bytes used are those of placed objects; states say who has a place and a slot."""
        self.room.check()
        table = self.objects.table.values()
        placed = [stored for stored in table if stored.offset >= 0]
        assert self.room.used == sum(stored.size for stored in placed)
        offsets = {stored.offset for stored in placed}
        assert len(offsets) == len(placed)
        for stored in table:
            match stored.state:
                case "sealed" | "spilling":
                    assert stored.offset >= 0
                case "spilled":
                    assert stored.offset < 0
                    assert stored.slot is not None
            if stored.dying:
                busy = stored.state in (CREATING, SPILLING, RESTORING, PULLING)
                assert stored.pins or busy, "a freed object that nothing holds is still here"
        slots = {stored.slot: stored.id for stored in table if stored.slot is not None}
        assert slots == self.mover.disk
        sizes = sum(stored.size for stored in table if stored.slot is not None)
        assert self.objects.spilling.bytes == sizes

    @invariant()
    def pinned_objects_stay(self) -> None:
        """Where a reader was told the bytes are, there they are until it is done."""
        held = {key for key, _ in self.views}
        self.pinned = {key: at for key, at in self.pinned.items() if key in held}
        for key in held:
            stored = self.objects.table[key]
            assert stored.state in (SEALED, SPILLING)
            assert self.pinned.setdefault(key, stored.offset) == stored.offset
            assert sum(stored.pins.values()) == sum(1 for other, _ in self.views if other == key)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        """A fetch without an answer waits outside, or has an object that knows of it."""
        outside = self.objects.admission.waiting
        for key, client in self.waiting:
            stored = self.objects.table.get(key)
            inside = stored is not None and client in stored.wants
            assert inside != (client.process in outside.get(key, {}))
        first = self.objects.spilling.first()
        if first is not None and not self.mover.spills:
            stored = first.stored
            assert self.objects.table.get(stored.id) is stored
            assert stored.wanted() or stored.state == CREATING, "the first in line wants nothing"
            assert self.room.largest_free < stored.size, "room for the first in line"

    @invariant()
    def no_more_is_promised_than_there_is(self) -> None:
        """What is held and what was promised fit into the store together; the sums are right."""
        spilling, admission = self.objects.spilling, self.objects.admission
        assert spilling.promised == sum(need.stored.size for need in spilling.pulls)
        free_to_go = [stored for stored in self.objects.table.values() if spilling.may_go(stored)]
        assert spilling.resting == sum(stored.size for stored in free_to_go)
        assert spilling.held + spilling.promised <= self.room.capacity
        expected = [stored for stored in self.objects.table.values() if stored.expected]
        assert {stored.id: stored for stored in expected} == admission.expected
        assert admission.expected_bytes == sum(stored.size for stored in expected)
        read = [stored for stored in self.objects.table.values() if stored.readers]
        assert admission.argument_bytes == sum(stored.size for stored in read)
        first = admission.first()
        if first is not None and first.requests:
            assert not admission.fits(first), "room for the first in line"

    def teardown(self) -> None:
        """Everything ends: clients die, moves finish, owners free. Nothing may be left."""
        for client in CLIENTS:
            self.objects.process_lost(client.process)
        for _ in range(20):
            while self.mover.spills:
                batch = self.mover.spills.pop()
                self.objects.spilled(batch, self.mover.write(batch), "")
            while self.mover.moves:
                kind, key = self.mover.moves.pop()
                getattr(self.objects, kind)(key, "")
            self.world.advance(1)
        for key in KEYS:
            self.objects.on_free(key)
        while self.mover.spills:
            batch = self.mover.spills.pop()
            self.objects.spilled(batch, self.mover.write(batch), "")
        assert (self.objects.table, self.room.used, self.mover.disk) == ({}, 0, {})
        assert (self.objects.waiting(), self.objects.admission.waiting) == (0, {})
        assert self.objects.admission.argument_bytes == 0
        assert self.objects.spilling.bytes == 0


# A failure is told in seconds; without the last argument it is made small, which takes minutes.
Accounting.TestCase.settings = settings(
    max_examples=200, stateful_step_count=50, phases=[Phase.generate]
)
TestAccounting = Accounting.TestCase
