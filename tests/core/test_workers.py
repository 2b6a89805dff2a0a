"""The pool of one node: who is started, bound, kept, stopped, and what happens when they die."""

from __future__ import annotations

import pytest

from core.world import World, death, job, lease, process
from freehold.core.workers import FAILED_STARTS, IDLE_SECONDS, STOP_SECONDS, Worker, Workers
from freehold.ids import LeaseId
from freehold.wire.messages import Death, Stop

JOB, OTHER_JOB = job("one"), job("two")


class Bench:
    """A pool that keeps two idle workers; notes starts, kills, bindings and refusals."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pool = Workers(world, self, keep=2)
        self.pool.given = lambda lease_id, worker: self.bound.append(
            (number(lease_id), worker.start)
        )
        self.pool.refused = lambda lease_id, end: self.refused.append((number(lease_id), end))
        self.bound: list[tuple[int, int]] = []
        self.refused: list[tuple[int, Death]] = []
        self.started: list[int] = []
        self.zygotes: dict[int, bytes] = {}
        self.killed: list[int] = []

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        self.started.append(start)
        if zygote:
            self.zygotes[start] = zygote

    def kill_worker(self, start: int) -> None:
        self.killed.append(start)

    def up(self, *starts: int) -> None:
        for start in starts:
            assert self.pool.registered(start, 100 + start, process(f"w{start}"))

    def want(self, lease_number: int, job_id: bytes = JOB) -> None:
        self.pool.want(lease(lease_number), job_id)  # type: ignore[arg-type]

    def rest(self, *starts: int) -> None:
        for start in starts:
            self.pool.rest(self.pool.all[start])


def number(lease_id: LeaseId) -> int:
    return int.from_bytes(lease_id, "big")


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_prestarted_workers_serve_the_first_grants(bench: Bench) -> None:
    """Goal: a grant takes an idle worker, else one that is starting, else a new one.

    Method: two prestarted, one of them up; three grants."""
    bench.pool.prestart(2)
    bench.up(1)
    for n in (1, 2, 3):
        bench.want(n)
    assert (bench.started, bench.bound) == ([1, 2, 3], [(1, 1)])
    bench.up(3, 2)
    assert bench.bound == [(1, 1), (2, 3), (3, 2)]


def test_a_worker_serves_one_job_only(bench: Bench) -> None:
    """Goal: what one job imported, another never sees.

    Method: a worker of job one rests; a grant of job two gets a new worker, one of job one the
    old."""
    bench.want(1)
    bench.up(1)
    bench.rest(1)
    bench.want(2, OTHER_JOB)
    bench.want(3)
    assert bench.bound == [(1, 1), (3, 1)]
    bench.up(2)
    assert bench.bound[-1] == (2, 2)


def test_freed_worker_goes_to_the_first_that_waits_for_its_job(bench: Bench) -> None:
    """Goal: a freed worker is not idle while a grant of its job waits."""
    bench.want(1)
    bench.up(1)
    bench.want(2, OTHER_JOB)
    bench.want(3)
    bench.rest(1)
    assert bench.bound == [(1, 1), (3, 1)]
    assert list(bench.pool.wanting) == [lease(2)]


def test_last_used_first(bench: Bench) -> None:
    """Goal: the worker with the warmest caches is used again."""
    for n in (1, 2):
        bench.want(n)
    bench.up(1, 2)
    bench.rest(2, 1)
    bench.want(3)
    assert bench.bound[-1] == (3, 1)


def test_unknown_or_twice_registered(bench: Bench) -> None:
    """Goal: a stranger is no worker of ours. Method: an unknown number, then a known one twice."""
    assert not bench.pool.registered(9, 1, process("stranger"))
    bench.pool.prestart(1)
    bench.up(1)
    assert not bench.pool.registered(1, 1, process("again"))


def test_unwanted_grant_leaves_its_worker_idle(bench: Bench) -> None:
    """Goal: a lease returned before its worker was up costs nobody the worker."""
    bench.want(1)
    bench.pool.unwant(lease(1))
    bench.up(1)
    assert (bench.bound, list(bench.pool.idle)) == ([], [1])


def test_failing_starts_are_refused_with_the_last_words(bench: Bench) -> None:
    """Goal: after FAILED_STARTS deaths in a row before registration, the waiting are told how.

    Method: one grant; each start dies; a later grant tries anew, and a success resets the count."""
    bench.want(1)
    for start in range(1, FAILED_STARTS + 1):
        assert bench.refused == []
        bench.pool.ended(start, death("no numpy"))
    assert bench.refused == [(1, death("no numpy"))]
    assert bench.started == [1, 2, 3]

    bench.want(2)
    bench.pool.ended(4, death())
    bench.up(5)
    assert bench.bound == [(2, 5)]
    assert bench.pool.failures == 0


def test_failing_starts_refuse_those_for_whom_nobody_comes(bench: Bench) -> None:
    """Goal: a node that can have no more workers refuses no grant for which one is on its way.
    Method: five grants; of five starts the last three fail, and so does what replaces them."""
    for number_ in range(1, 6):
        bench.want(number_)
    for start in (3, 4, 5):
        bench.pool.ended(start, death("no room"))
    assert [refused for refused, _ in bench.refused] == [5]
    for start in (6, 7, 8):
        bench.pool.ended(start, death("no room"))
    assert [refused for refused, _ in bench.refused] == [5, 4]
    bench.up(1, 2)
    assert bench.bound == [(1, 1), (2, 2)]


def test_worker_dies(bench: Bench) -> None:
    """Goal: a dead worker is forgotten and said to have held its lease; nothing is
    started for it."""
    bench.want(1)
    bench.up(1)
    gone = bench.pool.ended(1, death())
    assert isinstance(gone, Worker)
    assert (gone.lease, bench.pool.all, bench.pool.by_process) == (lease(1), {}, {})
    assert bench.pool.ended(1, death()) is None
    assert bench.started == [1]


def test_idle_workers_beyond_the_keep_are_stopped(bench: Bench, world: World) -> None:
    """Goal: the longest idle go first, after IDLE_SECONDS, and no more than are spare.

    Method: four rest one after another; two are kept."""
    for n in range(1, 5):
        bench.want(n)
    bench.up(1, 2, 3, 4)
    for start in (3, 1, 4, 2):
        bench.rest(start)
        world.advance(1)
    world.advance(IDLE_SECONDS - 2)
    world.expect((process("w3"), Stop()), (process("w1"), Stop()))
    world.advance(IDLE_SECONDS - 1)
    world.expect()


def test_a_worker_asked_to_stop_gets_no_lease(bench: Bench, world: World) -> None:
    """Goal: no task is sent to a worker that is about to exit, or it would be blamed for its death.

    Method: three idle, one is asked to stop; three grants at once. It declines (it owns values):
    later it serves again, and is asked again when it has been idle for long."""
    for n in (1, 2, 3):
        bench.want(n)
    bench.up(1, 2, 3)
    bench.rest(1, 2, 3)
    world.advance(IDLE_SECONDS)
    world.expect((process("w1"), Stop()))
    for n in (4, 5, 6):
        bench.want(n)
    assert bench.bound[3:] == [(4, 3), (5, 2)]
    assert bench.started == [1, 2, 3, 4]

    bench.up(4)
    bench.rest(2, 3)
    world.advance(IDLE_SECONDS)
    world.expect((process("w1"), Stop()))
    world.advance(IDLE_SECONDS / 2)
    for n in (7, 8, 9):
        bench.want(n)
    assert bench.bound[-1] == (9, 1)


def test_job_ends(bench: Bench) -> None:
    """Goal: its workers are killed, leased or idle; others are not; a worker that comes up later is
    not bound to a job that is over.

    Method: two workers of the job, one of another, and a grant of the job that waits."""
    for n in (1, 2):
        bench.want(n)
    bench.want(3, OTHER_JOB)
    bench.up(1, 2, 3)
    bench.rest(2)
    bench.want(4)
    bench.want(5)
    bench.pool.end_job(JOB)
    assert bench.killed == [1, 2]
    assert list(bench.pool.idle) == []
    bench.up(4)
    assert bench.bound == [(1, 1), (2, 2), (3, 3), (4, 2)]
    assert list(bench.pool.idle) == [4]


def test_all_retire(bench: Bench, world: World) -> None:
    """Goal: every idle worker is asked to stop, below the keep too, and again if it declines; one
    at work is not. Method: two idle and one leased worker, asked in quick succession and later."""
    bench.pool.prestart(3)
    bench.up(1, 2, 3)
    bench.want(1)
    bench.pool.retire_all()
    bench.pool.retire_all()
    world.expect((process("w2"), Stop(hand_over=True)), (process("w3"), Stop(hand_over=True)))
    world.advance(STOP_SECONDS)
    bench.rest(1)
    bench.pool.retire_all()
    world.expect(*((process(name), Stop(hand_over=True)) for name in ("w2", "w3", "w1")))
