"""Fetching, Get, Wait and Creating: what a process asks of its node, and when its waits end."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from core.world import (
    World,
    failed,
    inline,
    job,
    node,
    object_id,
    process,
    stored,
)
from freehold.core.entries import Entry
from freehold.core.fetching import REST_SECONDS, Creating, Fetching, Get, Wait
from freehold.core.ownership import Ownership
from freehold.ids import NodeId, ObjectId
from freehold.wire.fetches import ARGUMENT, GET, WAIT
from freehold.wire.messages import (
    AbortObject,
    Address,
    CancelFetch,
    CreateObject,
    FetchObject,
    Locate,
    ObjectCreated,
    ObjectMissing,
    ObjectReady,
    UnpinObject,
    Value,
)

NODE, OTHER, ME = node(), node("other"), process("me")
X, Y, Z = object_id("x"), object_id("y"), object_id("z")


class Reader:
    """A fetcher that notes what it is told; ``patient``: it waits for the owner's word, as a get
    does and a task's argument does not.
    """

    def __init__(self, *, patient: bool = True) -> None:
        self.patient = patient
        self.told: list[tuple[object, ...]] = []

    def fetched(self, key: ObjectId, offset: int, size: int) -> None:
        self.told.append((key, offset, size))

    def unfetched(self, key: ObjectId, value: Value) -> None:
        self.told.append((key, value.kind, value.data))

    def missing(self, key: ObjectId, tried: Sequence[NodeId]) -> bool:
        if not self.patient:
            self.told.append((key, list(tried)))
        return not self.patient


class Bench:
    """The tables of one process that gets and waits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = Ownership(world)
        self.fetching = Fetching(world, NODE)
        self.asked: list[tuple[ObjectId, Address, list[NodeId]]] = []
        self.fetching.missing = lambda key, owner, tried: self.asked.append(
            (key, owner, list(tried))
        )
        self.fetching.full = lambda reason, disk: f"full: {reason}".encode()
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1

    def own(self, name: str, value: Value | None = None) -> Entry:
        entry = self.table.own(object_id(name))
        entry.handles, entry.value = 1, value
        return entry

    def get(self, *names: str) -> Get:
        return Get(self.table, self.fetching, [object_id(n) for n in names], self.wake)

    def wait(self, *names: str, needed: int = 1, fetch: bool = True) -> Wait:
        keys = [object_id(n) for n in names]
        return Wait(self.table, self.fetching, keys, needed, fetch, self.wake)

    def local(self, name: str, offset: int = 64) -> None:
        """Have a stored object pinned here already, for a reader that keeps it."""
        self.fetching.fetch(object_id(name), ME, stored(100, NODE), Reader(), GET)
        self.world.take(FetchObject)
        self.fetching.on_ready(ObjectReady(object_id(name), offset, 100))


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


# -- Fetching --------------------------------------------------------------------------------------


def test_one_request_and_one_pin_for_many_readers(bench: Bench, world: World) -> None:
    """Goal: a process asks its node once, and returns its pin when its last reader is done.

    Method: two readers before the answer, one after; three releases."""
    readers = [Reader(), Reader(), Reader()]
    for reader in readers[:2]:
        bench.fetching.fetch(X, ME, stored(100, OTHER), reader, ARGUMENT)
    world.expect((NODE, FetchObject(X, 100, ME, [OTHER], ARGUMENT)))
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    bench.fetching.fetch(X, ME, stored(100, OTHER), readers[2], GET)

    assert [r.told for r in readers] == [[(X, 64, 100)]] * 3
    bench.fetching.release(X)
    bench.fetching.release(X)
    world.expect()
    bench.fetching.release(X)
    world.expect((NODE, UnpinObject(X)))
    assert not bench.fetching.locals


def test_abandoned_fetch_whose_answer_is_on_its_way(bench: Bench, world: World) -> None:
    """Goal: a pin that the node made for nobody is returned.

    Method: ObjectReady crosses CancelFetch; then again with a new fetch in between, which takes the
    late answer, so that the second answer's pin is the one too many."""
    reader = Reader()
    bench.fetching.fetch(X, ME, stored(100, NODE), reader, GET)
    bench.fetching.abandon(X, reader)
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    world.expect(
        (NODE, FetchObject(X, 100, ME, [NODE], GET)), (NODE, CancelFetch(X)), (NODE, UnpinObject(X))
    )

    bench.fetching.fetch(X, ME, stored(100, NODE), reader, GET)
    bench.fetching.abandon(X, reader)
    bench.fetching.fetch(X, ME, stored(100, NODE), reader, GET)
    world.take(FetchObject), world.take(CancelFetch)
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    world.expect((NODE, UnpinObject(X)))
    assert reader.told == [(X, 64, 100)]


def test_abandon_leaves_other_readers(bench: Bench, world: World) -> None:
    """Goal: one reader's timeout cancels nothing for another. Method: two readers, one abandons."""
    one, two = Reader(), Reader()
    bench.fetching.fetch(X, ME, stored(100, NODE), one, GET)
    bench.fetching.fetch(X, ME, stored(100, NODE), two, GET)
    bench.fetching.abandon(X, one)
    bench.fetching.abandon(X, one)
    world.expect((NODE, FetchObject(X, 100, ME, [NODE], GET)))
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    assert (one.told, two.told) == ([], [(X, 64, 100)])


def test_missing_then_elsewhere_then_nowhere(bench: Bench, world: World) -> None:
    """Goal: a node that lacks the object sends us back to the owner, until it is had or lost.

    Method: missing twice; the owner names another node, then an error."""
    reader = Reader()
    bench.fetching.fetch(X, ME, stored(100, NODE), reader, GET)
    bench.fetching.on_missing(ObjectMissing(X, "gone", [NODE.node]))
    bench.fetching.relocated(X, stored(100, OTHER))
    bench.fetching.on_missing(ObjectMissing(X, "gone", [OTHER.node]))
    bench.fetching.relocated(X, failed(b"lost"))
    bench.fetching.relocated(X, failed(b"late"))
    bench.fetching.on_missing(ObjectMissing(X, "late", [OTHER.node]))

    world.expect(
        (NODE, FetchObject(X, 100, ME, [NODE], GET)), (NODE, FetchObject(X, 100, ME, [OTHER], GET))
    )
    assert bench.asked == [(X, ME, [NODE.node]), (X, ME, [OTHER.node])]
    assert reader.told == [(X, failed().kind, b"lost")]
    assert not bench.fetching.locals


def test_no_room_here_is_an_error_of_its_own(bench: Bench, world: World) -> None:
    """Goal: a full store ends the fetch with its reason, and does not ask the owner."""
    reader = Reader()
    bench.fetching.fetch(X, ME, stored(100, OTHER), reader, GET)
    bench.fetching.on_missing(ObjectMissing(X, "no room", [], full=True))
    world.take(FetchObject)
    assert (reader.told, bench.asked) == ([(X, failed().kind, b"full: no room")], [])


def test_missing_for_who_cannot_wait(bench: Bench, world: World) -> None:
    """Goal: a task's argument that no node has is given up at once, so that the task can go back to
    its owner; who can wait does, and the owner is asked only for them.

    Method: two such readers and a patient one of x; an impatient one alone of y."""
    hasty, other, patient = Reader(patient=False), Reader(patient=False), Reader()
    for key, reader in ((X, hasty), (X, patient), (Y, other)):
        bench.fetching.fetch(key, ME, stored(100, NODE), reader, ARGUMENT)
    world.take(FetchObject)
    for key in (X, Y):
        bench.fetching.on_missing(ObjectMissing(key, "gone", [NODE.node]))
    assert (hasty.told, other.told) == ([(X, [NODE.node])], [(Y, [NODE.node])])
    assert bench.asked == [(X, ME, [NODE.node])]
    assert list(bench.fetching.locals) == [X]
    bench.fetching.relocated(X, inline())
    assert patient.told == [(X, inline().kind, b"value")]


def test_withdraw(bench: Bench, world: World) -> None:
    """Goal: when a fetch can come to nothing any more the node is told, who cannot wait gives up,
    and the others are handed back. What is here already stays.

    Method: x on its way for two; y pinned here; z never asked for."""
    hasty, patient = Reader(patient=False), Reader()
    for reader in (hasty, patient):
        bench.fetching.fetch(X, ME, stored(100, NODE), reader, GET)
    world.take(FetchObject)
    bench.local("y")
    assert bench.fetching.withdraw(X) == [patient]
    assert (hasty.told, patient.told) == ([(X, [])], [])
    assert bench.fetching.withdraw(Y) == bench.fetching.withdraw(Z) == []
    world.expect((NODE, CancelFetch(X)))
    assert list(bench.fetching.locals) == [Y]


def test_what_is_awaited_from_an_owner(bench: Bench, world: World) -> None:
    """Goal: its objects that are on their way; not what is here already, not those of others."""
    for name, owner in (("x", ME), ("y", ME), ("z", OTHER)):
        bench.fetching.fetch(object_id(name), owner, stored(100, OTHER), Reader(), GET)
    bench.fetching.on_ready(ObjectReady(Y, 64, 100))
    world.take(FetchObject)
    assert bench.fetching.awaited_from(ME.process) == [X]
    assert bench.fetching.awaited_from(OTHER.process) == [Z]


# -- Get -------------------------------------------------------------------------------------------


def test_get_of_values_that_are_here(bench: Bench) -> None:
    """Goal: nothing to wait for. Method: inline values; no wake, because nobody sleeps yet."""
    bench.own("x", inline())
    bench.own("y", inline())
    getting = bench.get("x", "y", "x")
    assert (getting.done, getting.failed, bench.woken) == (True, None, 0)


def test_get_is_not_done_while_a_later_value_is_unknown(bench: Bench) -> None:
    """Goal: get([x, y]) waits for y although x, stored, is pinned here already.

    Method: x is at hand at once; y is made later."""
    bench.local("x")
    bench.own("x", stored(100, NODE))
    entry = bench.own("y")
    getting = bench.get("x", "y")
    assert (getting.done, bench.woken) == (False, 0)

    bench.table.resolve(entry, inline())
    assert (getting.done, bench.woken, getting.found) == (True, 1, {X: (64, 100)})


def test_get_keeps_every_pin_of_values_at_hand(bench: Bench) -> None:
    """Goal: two stored values that are both pinned here are both found, without a wake."""
    for name in "xy":
        bench.local(name)
        bench.own(name, stored(100, NODE))
    getting = bench.get("x", "y")
    assert getting.done
    assert sorted(getting.found) == [X, Y]
    assert bench.woken == 0


def test_get_fetches_what_turns_out_to_be_stored(bench: Bench, world: World) -> None:
    """Goal: done when the bytes are here, not when the place is known. Method: resolve, then
    ready."""
    entry = bench.own("x")
    getting = bench.get("x")
    bench.table.resolve(entry, stored(100, OTHER))
    assert not getting.done
    world.expect((NODE, FetchObject(X, 100, ME, [OTHER], GET)))
    bench.fetching.on_ready(ObjectReady(X, 0, 100))
    assert (getting.done, bench.woken, getting.found) == (True, 1, {X: (0, 100)})


def test_get_asks_the_owner_of_a_borrowed_object_once(bench: Bench, world: World) -> None:
    """Goal: two gets of one borrowed object send one Locate."""
    owner = process("owner")
    entry = bench.table.entries[X] = Entry(X, owner)
    entry.handles = 1
    gets = [bench.get("x"), bench.get("x")]
    world.expect((owner, Locate(X)))
    bench.table.resolve(entry, inline())
    assert all(getting.done for getting in gets)


@pytest.mark.parametrize("known_first", [True, False])
def test_get_ends_at_the_first_error(bench: Bench, world: World, known_first: bool) -> None:
    """Goal: an error ends the get at once; close then cancels the rest and leaves nothing behind.

    Method: x on its way, y unknown, z fails before or after the get began."""
    bench.own("x", stored(100, OTHER))
    entry = bench.own("y")
    bad = bench.own("z", failed(b"bad") if known_first else None)
    getting = bench.get("x", "y", "z")
    if not known_first:
        bench.table.resolve(bad, failed(b"bad"))
    assert getting.done
    assert getting.failed == failed(b"bad")
    assert bench.woken == (0 if known_first else 1)

    getting.close()
    world.take(FetchObject)
    world.expect((NODE, CancelFetch(X)))
    assert (entry.waiters, bench.fetching.locals, getting.found) == ([], {}, {})


def test_late_arrival_after_close_is_returned(bench: Bench, world: World) -> None:
    """Goal: a get that timed out keeps no pin, and one that is shared stays with the other get."""
    bench.own("x", stored(100, OTHER))
    late, patient = bench.get("x"), bench.get("x")
    late.close()
    bench.fetching.on_ready(ObjectReady(X, 0, 100))
    world.expect((NODE, FetchObject(X, 100, ME, [OTHER], GET)))
    assert (late.found, patient.found) == ({}, {X: (0, 100)})
    bench.fetching.release(X)
    world.expect((NODE, UnpinObject(X)))


def test_what_is_got_again_and_again_stays_at_hand(bench: Bench, world: World) -> None:
    """Goal: a loop of gets asks the node once; what rests is unpinned in time, each in its own, and
    at once when it is freed. Method: X is got, let go, got again and let go; Y is let go later; Z
    is freed while it rests."""
    for name in ("x", "y", "z"):
        bench.own(name, stored(100, NODE))
        bench.get(name)
        bench.fetching.on_ready(ObjectReady(object_id(name), 0, 100, only=True))
    world.take(FetchObject)
    bench.fetching.release(X)
    world.advance(0.6 * REST_SECONDS)
    assert bench.get("x").done
    bench.fetching.release(X)
    bench.fetching.release(Y)
    bench.fetching.release(object_id("z"))
    world.advance(0.6 * REST_SECONDS)
    world.expect()
    bench.fetching.freed(bench.table.entries[object_id("z")])
    world.expect((NODE, UnpinObject(object_id("z"))))
    world.advance(0.6 * REST_SECONDS)
    world.expect((NODE, UnpinObject(X)), (NODE, UnpinObject(Y)))
    assert not bench.fetching.locals


def test_get_of_a_value_that_moves_into_an_error(bench: Bench, world: World) -> None:
    """Goal: lost while being fetched is an error of the get. Method: relocated with a failure."""
    bench.own("x", stored(100, OTHER))
    getting = bench.get("x")
    bench.fetching.relocated(X, failed(b"lost"))
    world.take(FetchObject)
    assert (getting.done, getting.failed) == (True, failed(b"lost"))


# -- Wait ------------------------------------------------------------------------------------------


def test_wait_counts_failures_and_values(bench: Bench) -> None:
    """Goal: a failed object is a finished one. Method: two needed of three; one fails,
    one comes."""
    bench.own("x", failed())
    entry = bench.own("y")
    other = bench.own("z")
    waiting = bench.wait("x", "y", "z", needed=2)
    assert not waiting.done
    bench.table.resolve(entry, inline())
    assert (waiting.done, waiting.ready, bench.woken) == (True, {X, Y}, 1)
    waiting.close()
    assert other.waiters == []


def test_wait_with_fetch_brings_values_here_and_lets_them_go(bench: Bench, world: World) -> None:
    """Goal: ready means here; the wait itself pins nothing."""
    bench.own("x", stored(100, OTHER))
    waiting = bench.wait("x")
    assert not waiting.done
    bench.fetching.on_ready(ObjectReady(X, 0, 100))
    world.expect((NODE, FetchObject(X, 100, ME, [OTHER], WAIT)), (NODE, UnpinObject(X)))
    assert waiting.done


def test_wait_without_fetch_needs_only_the_place(bench: Bench) -> None:
    """Goal: fetch_local=False asks nothing of the node."""
    bench.own("x", stored(100, OTHER))
    assert bench.wait("x", fetch=False).done


def test_wait_close_cancels_its_fetches(bench: Bench, world: World) -> None:
    """Goal: a wait that timed out leaves no request behind."""
    bench.own("x", stored(100, OTHER))
    bench.wait("x").close()
    world.expect((NODE, FetchObject(X, 100, ME, [OTHER], WAIT)), (NODE, CancelFetch(X)))
    assert not bench.fetching.locals


# -- Creating --------------------------------------------------------------------------------------


def test_creating(bench: Bench, world: World) -> None:
    """Goal: room, refusal and the node's end each wake the writer once; a late answer is given
    back."""
    creating = Creating(world, NODE)
    creations = [creating.create(key, 10, ME, job(), bench.wake) for key in (X, Y, Z)]
    world.expect(*((NODE, CreateObject(key, 10, ME, job())) for key in (X, Y, Z)))
    creating.on_created(ObjectCreated(X, 64))
    creating.on_created(ObjectCreated(Y, -1, "full"))
    creating.node_lost()
    assert [c.offset for c in creations] == [64, -1, -1]
    assert [c.reason for c in creations] == ["", "full", "this machine's node daemon is gone"]
    assert (bench.woken, all(c.done for c in creations)) == (3, True)

    creating.on_created(ObjectCreated(Z, 0))
    creating.on_created(ObjectCreated(Z, -1, "no"))
    world.expect((NODE, AbortObject(Z)))
