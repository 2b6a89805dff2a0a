"""What one node sets aside for placement groups, its pools and their GPUs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.test_scheduling import OWNER, Bench
from core.world import World, cpus, info, job, lease, node, process
from freehold.core.bundles import Bundles, place_key
from freehold.core.pools import Pool
from freehold.core.scheduling import ASK_AFTER
from freehold.ids import GroupId
from freehold.resources import UNIT, Resources
from freehold.wire.messages import (
    Address,
    AwaitGroup,
    BundlesReserved,
    GroupSettled,
    LeaseRedirected,
    LeaseRefused,
    Placement,
    ReleaseBundles,
    RequestLease,
    ReserveBundles,
)
from freehold.wire.placement import CREATED, PENDING, REMOVED, GroupInfo, Place, grave

HEAD, ME, NEAR = node("head"), node(), node("near")
GROUP = GroupId(b"group...")
ROUND = b"round..."


class Bundled(Bench):
    """A node of four CPUs and two GPUs that speaks to the head."""

    def __init__(self, world: World) -> None:
        super().__init__(world, {"CPU": 4 * UNIT, "GPU": 2 * UNIT})
        self.killed: list[int] = []
        self.scheduling.end_worker = lambda worker: self.killed.append(worker.start)
        self.scheduling.bundles.tell_head = lambda message: world.send(HEAD, message)

    @property
    def bundles(self) -> Bundles:
        return self.scheduling.bundles

    def reserve(self, amounts: dict[int, Resources], round_: bytes = ROUND) -> str:
        self.bundles.on_reserve(ReserveBundles(GROUP, round_, amounts))
        answer = self.world.one(BundlesReserved, HEAD)
        assert (answer.group, answer.round) == (GROUP, round_)
        return answer.refused

    def place(
        self, *nodes: Address, amounts: Resources | None = None, state: str = CREATED
    ) -> None:
        """The head says where the group's bundles are."""
        places: list[Place | None] = [Place(address, ROUND) for address in nodes]
        each = [amounts or cpus(1)] * len(nodes)
        self.bundles.on_changed(GroupInfo(GROUP, job(), each, places=places, state=state))
        self.scheduling.dispatch()

    def remove(self) -> None:
        self.bundles.on_changed(GroupInfo(GROUP, job(), [], state=REMOVED))
        self.scheduling.dispatch()

    def ask(self, number: int, wanted: Resources, bundle: int = -1) -> None:
        message = RequestLease(lease(number), OWNER, job(), wanted)
        message.placement = Placement(GROUP, bundle)
        self.scheduling.on_request(message)


@pytest.fixture
def bench(world: World) -> Bundled:
    world.address = ME
    return Bundled(world)


def test_all_bundles_of_a_round_or_none(bench: Bundled) -> None:
    """Goal: a part of a round is never kept. Method: three bundles of which the third is too much;
    then two that fit; a repeated round is answered again and takes nothing more.
    """
    before = dict(bench.scheduling.free)
    assert "CPU 2 is needed" in bench.reserve({0: cpus(2), 1: cpus(1), 2: cpus(2)})
    assert bench.scheduling.free == before
    assert bench.reserve({0: cpus(2), 1: cpus(1)}) == ""
    assert bench.reserve({0: cpus(2), 1: cpus(1)}) == ""
    assert bench.scheduling.free["CPU"] == UNIT


def test_a_bundle_is_of_use_when_the_head_says_so(bench: Bundled) -> None:
    """Goal: reserved is not placed. Method: a request before and after the head's word; then the
    bundle is full and a second request waits, though the node has room.
    """
    bench.reserve({0: cpus(1)})
    bench.ask(1, cpus(1))
    assert bench.world.one(AwaitGroup, HEAD).group == GROUP
    bench.place(ME, state=PENDING)
    assert bench.granted() == [1]
    bench.ask(2, cpus(1), 0)
    assert bench.granted() == []
    bench.give_back(1)
    assert bench.granted() == [2]
    assert bench.scheduling.free["CPU"] == 3 * UNIT


def test_requests_follow_the_bundles(bench: Bundled) -> None:
    """Goal: a request goes to the node with its bundle; to one that is full here, one elsewhere is
    preferred if there is room as far as is known.
    """
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4))
    bench.reserve({0: cpus(1)})
    bench.place(ME, NEAR)
    bench.ask(1, cpus(1), 1)
    assert bench.world.one(LeaseRedirected).node == NEAR
    bench.ask(2, cpus(1))
    assert bench.granted() == [2]
    bench.ask(3, cpus(1))  # bundle 1 has been promised to the first: wait
    assert bench.world.sent == []
    full = {place_key(GROUP, 1): cpus(0.5)}
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4), bundles=full)
    bench.scheduling.dispatch()
    assert bench.world.sent == []
    bench.scheduling.peers[NEAR.node] = info(NEAR, cpus(4))
    bench.scheduling.dispatch()
    assert bench.world.one(LeaseRedirected).lease == lease(3)


def test_removal_ends_what_runs_and_what_waits(bench: Bundled) -> None:
    """Goal: leases in a removed group end with their workers, requests for it are refused, what was
    free of it is free at once, the rest when the worker is gone.
    """
    bench.reserve({0: cpus(2)})
    bench.place(ME, amounts=cpus(2))
    bench.ask(1, cpus(1))
    assert bench.granted() == [1]
    bench.ask(2, cpus(2))
    bench.remove()
    refused = bench.world.one(LeaseRefused)
    assert (refused.lease, refused.removed) == (lease(2), GROUP)
    assert bench.killed == [bench.workers[lease(1)].start]
    assert bench.scheduling.free["CPU"] == 3 * UNIT
    granted = bench.scheduling.release(lease(1))
    assert granted is not None
    assert granted.removed == GROUP
    assert bench.scheduling.free == {"CPU": 4 * UNIT, "GPU": 2 * UNIT}
    bench.ask(3, cpus(1))
    assert bench.world.one(LeaseRefused).removed == GROUP


def test_what_the_head_does_not_count_on_is_given_up(bench: Bundled) -> None:
    """Goal: after a new stream to the head, a bundle is kept if the head names it; the head is told
    of one that it does not name, which is kept until it says no; and a place that the head names
    and that is not held here is denied.
    """
    bench.reserve({0: cpus(1)})
    placed = GroupInfo(
        GROUP, job(), [cpus(1)] * 2, places=[Place(ME, ROUND), Place(ME, b"other...")]
    )
    bench.bundles.reconcile([placed])
    assert bench.world.one(BundlesReserved, HEAD).round == b"other..."
    assert bench.scheduling.free["CPU"] == 3 * UNIT
    bench.bundles.on_reserve(ReserveBundles(GroupId(b"unknown."), ROUND, {0: cpus(3)}))
    bench.world.one(BundlesReserved)
    assert bench.scheduling.free["CPU"] == 0
    bench.bundles.reconcile([placed])
    denied, told = bench.world.take(BundlesReserved, HEAD)
    assert (denied.round, bool(denied.refused)) == (b"other...", True)
    assert (told.group, told.round, told.refused) == (b"unknown.", ROUND, "")
    bench.bundles.on_release(ReleaseBundles(told.group, told.round))
    assert bench.scheduling.free["CPU"] == 3 * UNIT


def test_a_process_is_a_witness(bench: Bundled) -> None:
    """Goal: what a process has heard from the head of its group is told to the next head, unless
    this node knows better. Method: a group that nobody told us of; one that we know as placed; one
    that was removed, and its creation told after that."""
    asked, gone = GroupId(b"asked..."), GroupId(b"gone....")
    bench.bundles.on_told(GroupInfo(asked, job(), [cpus(1)], places=[None]))
    assert [info.group for info in bench.bundles.facts()] == [asked]
    bench.reserve({0: cpus(1)})
    bench.bundles.on_changed(GroupInfo(GROUP, job(), [cpus(1)], places=[Place(ME, ROUND)]))
    bench.bundles.on_told(GroupInfo(GROUP, job(), [cpus(1)], places=[None]))
    assert bench.bundles.held[GROUP][0].placed
    bench.bundles.on_told(grave(gone))
    bench.bundles.on_told(GroupInfo(gone, job(), [cpus(1)], places=[None]))
    assert [info.state for info in bench.bundles.facts() if info.group == gone] == [REMOVED]


def test_a_failed_round_is_let_go(bench: Bundled) -> None:
    """Goal: ReleaseBundles ends this round and no other."""
    bench.reserve({0: cpus(1)})
    bench.reserve({1: cpus(1)}, b"second..")
    bench.bundles.on_release(ReleaseBundles(GROUP, ROUND))
    assert list(bench.bundles.held[GROUP]) == [1]
    assert bench.scheduling.free["CPU"] == 3 * UNIT


def test_who_waits_for_a_group_is_told(bench: Bundled) -> None:
    """Goal: AwaitGroup is answered when the group is placed or removed, at once if it is; a process
    that has ended is not told.
    """
    one, two = process("one"), process("two")
    bench.bundles.on_await(GROUP, one)
    bench.bundles.on_await(GROUP, two)
    bench.world.one(AwaitGroup, HEAD)
    bench.bundles.forget_process(two.process)
    bench.reserve({0: cpus(1)})
    bench.place(ME, state=PENDING)
    assert bench.world.sent == []
    bench.place(ME)
    assert bench.world.one(GroupSettled, one) == GroupSettled(GROUP)
    bench.remove()
    bench.bundles.on_await(GROUP, two)
    assert bench.world.one(GroupSettled, two) == GroupSettled(GROUP, removed=True)
    bench.world.nothing_left()


def test_plain_requests_do_not_ask_for_leases_in_bundles(bench: Bundled) -> None:
    """Goal: a lease in a bundle does not help who waits for the node's own CPUs."""
    bench.reserve({0: cpus(1)})
    bench.place(ME)
    bench.ask(1, cpus(1))
    bench.request(2, cpus(3), owner=process("rival"))
    assert bench.granted() == [1, 2]
    bench.request(3, cpus(3))
    bench.world.advance(2 * ASK_AFTER)
    (wanted,) = {message.lease for _, message in bench.world.sent}  # type: ignore[attr-defined]
    assert wanted == lease(2)
    bench.world.sent.clear()


def test_the_urgent_first_but_not_for_ever(world: World) -> None:
    """Goal: priority moves a request ahead by a minute of waiting for each step, and no further."""
    world.address = ME
    bench = Bench(world, cpus(1))
    bench.request(1, cpus(1))
    assert bench.granted() == [1]

    def ask(number: int, priority: int) -> None:
        message = RequestLease(lease(number), OWNER, job(), cpus(1))
        message.placement = Placement(priority=priority) if priority else None
        bench.scheduling.on_request(message)

    ask(2, 0)
    ask(3, 1)
    ask(4, -1)
    world.clock += 61
    ask(5, 1)
    order = [queued.wire.lease for queued in bench.scheduling.queue]
    assert order == [lease(3), lease(2), lease(5), lease(4)]
    world.sent.clear()


amounts = st.sampled_from([UNIT // 4, UNIT // 2, 3 * UNIT // 4, UNIT, 2 * UNIT, 3 * UNIT])


@given(st.lists(st.one_of(amounts, st.integers(0, 5).map(lambda n: -1 - n)), max_size=60))
def test_no_gpu_is_out_for_more_than_one(steps: list[int]) -> None:
    """Goal: whatever is taken and given back, no GPU is granted above 1.0, whole requests get GPUs
    of their own, and in the end each is whole again. Method: takes, and returns of an earlier one.
    """
    pool = Pool({"GPU": 4 * UNIT})
    out: list[tuple[int, dict[int, int]]] = []
    for step in steps:
        if step < 0 and out:
            amount, shares = out.pop((-1 - step) % len(out))
            pool.give({"GPU": amount}, shares)
        elif step > 0 and pool.fits({"GPU": step}):
            shares = pool.take({"GPU": step})
            assert sum(shares.values()) == step
            assert len(shares) == max(1, step // UNIT)
            out.append((step, shares))
        used = [sum(shares.get(n, 0) for _, shares in out) for n in range(4)]
        assert max(used) <= UNIT
        assert pool.gpus == {n: UNIT - used[n] for n in range(4)}
        assert pool.free["GPU"] == sum(pool.gpus.values())
    for amount, shares in out:
        pool.give({"GPU": amount}, shares)
    assert pool.gpus == dict.fromkeys(range(4), UNIT)


def test_two_halves_are_not_one_gpu() -> None:
    """Goal: a whole GPU is not granted from the rests of two; shares fill one before the next."""
    pool = Pool({"GPU": 2 * UNIT})
    first, second = pool.take({"GPU": 3 * UNIT // 4}), pool.take({"GPU": UNIT // 2})
    assert (first, second) == ({0: 3 * UNIT // 4}, {1: UNIT // 2})
    assert pool.take({"GPU": UNIT // 4}) == {0: UNIT // 4}
    assert not pool.fits({"GPU": UNIT})
    assert pool.fits({"GPU": UNIT // 2})
