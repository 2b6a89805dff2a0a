"""The owner's side of ending tasks: graces, killings, clocks, pauses before retries."""

from __future__ import annotations

from typing import Any

import pytest

from core.owners import NODE, Bench, worker
from core.world import World, death, failed, inline, lease, task_id
from freehold.core.cancelling import GRACE
from freehold.core.limits import LONGEST_PAUSE, Limits
from freehold.core.submission import DELAYED, PUSHED, Task
from freehold.ids import return_id
from freehold.wire.messages import (
    CancelTask,
    ChildrenGone,
    KillLease,
    LeaseEnded,
    ReturnLease,
    TaskBegun,
    TaskReturned,
)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def cancel(bench: Bench, task: Task, **how: Any) -> None:
    options = {"force": True, "recursive": True} | how
    bench.owner.cancel(return_id(task.id, 0), **options)


def killed(bench: Bench, number: int) -> None:
    """The node does what it was asked for: worker ``number`` is dead."""
    bench.world.expect((NODE, KillLease(lease(number))))
    bench.end(number)


# -- by force -------------------------------------------------------------------------------------


def test_by_force_the_worker_is_killed_when_the_grace_is_over(bench: Bench, world: World) -> None:
    """Goal: the task is told at once, its node is asked for its worker's death exactly when the
    grace is over, and it ends as cancelled, not as a victim."""
    (task,) = bench.running(1)
    cancel(bench, task, grace=3.0)
    world.expect((worker(1), CancelTask(task.id, True, True, 3.0)))
    world.advance(2.999)
    world.expect()
    world.advance(0.001)
    killed(bench, 1)
    assert bench.value(task) == failed(b"cancelled: t1")
    assert task.used_retries == 0
    bench.finished()


def test_what_an_ended_child_has_left_is_cancelled(bench: Bench, world: World) -> None:
    """Goal: recursive reaches everything below. Method: a task's child is done, and its worker
    owns something that it has made; then that is gone."""
    (child,) = bench.running(1, parent=task_id("above"))
    bench.done(child, 1, children=True)
    bench.owner.cancel_children(task_id("above"), force=True, grace=3.0)
    world.expect((worker(1), CancelTask(child.id, True, True, 3.0)))
    bench.say(ChildrenGone(child.id), worker(1))
    bench.owner.cancel_children(task_id("above"), force=True, grace=3.0)
    world.expect()
    bench.finished()


def test_what_an_earlier_run_has_left_is_cancelled(bench: Bench, world: World) -> None:
    """Goal: the same of a task that runs again elsewhere. Method: its first run fails, and leaves
    something at the first worker, which gives the second run back; another worker has that."""
    task, _ = bench.running(2, max_retries=1, retry_exceptions=b"*")
    bench.done(task, 1, children=True, retry=True, results=[failed(b"no luck")])
    assert bench.pushed(1) == [task.id]
    bench.say(TaskReturned(task.id, task.attempt), worker(1))
    bench.grant(2)
    assert (bench.pushed(2), bench.asked()) == ([task.id], 1)
    cancel(bench, task, grace=3.0)
    told = CancelTask(task.id, True, True, 3.0)
    world.expect((worker(2), told), (worker(1), told))


def test_without_grace_it_is_killed_at_once(bench: Bench, world: World) -> None:
    """Goal: grace=0 waits for nothing. Method: both messages are out before time moves."""
    (task,) = bench.running(1)
    cancel(bench, task, grace=0.0)
    assert world.one(CancelTask).grace == 0.0
    killed(bench, 1)
    assert bench.value(task) == failed(b"cancelled: t1")


def test_without_force_nobody_is_killed(bench: Bench, world: World) -> None:
    """Goal: a task that does not hear runs on, and its value counts."""
    (task,) = bench.running(1)
    cancel(bench, task, force=False)
    world.take(CancelTask)
    world.advance(100 * GRACE)
    world.expect()
    bench.done(task, 1)
    assert bench.value(task) == inline()
    bench.finished()


def test_who_ends_in_time_is_not_killed(bench: Bench, world: World) -> None:
    """Goal: the killing is for this attempt at this worker. Method: the task answers in its grace,
    and the next one runs at the same worker when the grace is over."""
    (task,) = bench.running(1)
    cancel(bench, task)
    world.take(CancelTask)
    bench.done(task, 1, results=[failed(b"cancelled")])
    after = bench.submit()
    assert bench.pushed(1) == [after.id]
    world.advance(2 * GRACE)
    world.expect()
    bench.done(after, 1)
    assert bench.value(after) == inline()


def test_a_task_given_back_is_not_killed_elsewhere(bench: Bench, world: World) -> None:
    """Goal: a cancel that crosses TaskReturned ends the task, and the worker lives."""
    _, task = bench.running(2)
    cancel(bench, task)
    world.take(CancelTask)
    bench.say(TaskReturned(task.id, 0), worker(1))
    assert bench.value(task) == failed(b"cancelled: t2")
    world.advance(2 * GRACE)
    world.expect()


def test_the_innocent_run_again_at_no_cost(bench: Bench, world: World) -> None:
    """Goal: tasks behind the cancelled one go on elsewhere, with all their retries, suspected of
    nothing; nothing is pushed to a worker that is about to die."""
    guilty, *others = bench.running(3)
    cancel(bench, guilty)
    world.take(CancelTask)
    world.advance(GRACE)
    bench.submit()
    assert (bench.pushed(1), bench.asked()) == ([], 1)
    killed(bench, 1)
    assert bench.value(guilty) == failed(b"cancelled: t1")
    bench.asked()
    bench.grant(2)
    assert bench.pushed(2) == [task.id for task in others]
    assert [(t.used_retries, t.suspect) for t in others] == [(0, False)] * 2


def test_the_guilty_ends_while_its_killing_is_on_its_way(bench: Bench, world: World) -> None:
    """Goal: its value counts; the one that began behind it and dies with the worker is not blamed,
    though it is the only one there."""
    guilty, other = bench.running(2)
    cancel(bench, guilty)
    world.take(CancelTask)
    world.advance(GRACE)
    bench.done(guilty, 1)
    killed(bench, 1)
    assert bench.value(guilty) == inline()
    assert (other.used_retries, bench.value(other)) == (0, None)
    bench.asked()
    bench.grant(2)
    assert bench.pushed(2) == [other.id]


def test_an_empty_lease_that_is_being_killed_is_not_used(bench: Bench, world: World) -> None:
    """Goal: neither for new tasks nor for a return to the pool, from which the node would lease it
    to others."""
    (task,) = bench.running(1)
    cancel(bench, task)
    world.take(CancelTask)
    world.advance(GRACE)
    bench.done(task, 1)
    late = bench.submit()
    world.advance(5.0)
    assert (world.take(ReturnLease), bench.pushed(1), bench.asked()) == ([], [], 1)
    killed(bench, 1)
    bench.grant(2)
    assert bench.pushed(2) == [late.id]


def test_cancels_by_force_of_many_graces_kill_once(bench: Bench, world: World) -> None:
    """Goal: the shortest grace decides. Method: three cancels, ten seconds."""
    (task,) = bench.running(1)
    for grace in (5.0, 1.0, 2.0):
        cancel(bench, task, grace=grace)
    assert len(world.take(CancelTask)) == 3
    world.advance(1.0)
    world.expect((NODE, KillLease(lease(1))))
    world.advance(10.0)
    world.expect()
    bench.end(1)
    assert bench.value(task) == failed(b"cancelled: t1")


# -- the clock ------------------------------------------------------------------------------------


def begun(bench: Bench, task: Task, number: int = 1) -> None:
    bench.say(TaskBegun(task.id, task.attempt), worker(number))


def test_the_clock_starts_with_user_code(bench: Bench, world: World) -> None:
    """Goal: a minute in a queue costs nothing; then the task is told, with its timeout, exactly
    when its time is over, and what the worker answers is the result."""
    (task,) = bench.running(1, limits=Limits(2.0))
    world.advance(60.0)
    world.expect()
    begun(bench, task)
    begun(bench, task)
    world.advance(1.999)
    world.expect()
    world.advance(0.001)
    world.expect((worker(1), CancelTask(task.id, True, True, GRACE, 2.0)))
    bench.done(task, 1, results=[failed(b"timed out there")])
    assert bench.value(task) == failed(b"timed out there")
    world.advance(2 * GRACE)
    bench.finished()


def test_who_ends_in_time_is_not_told(bench: Bench, world: World) -> None:
    """Goal: the clock stops with the result, and of a later attempt it is another."""
    (task,) = bench.running(1, limits=Limits(2.0))
    begun(bench, task)
    bench.done(task, 1)
    assert task.clock is None
    world.advance(10.0)
    bench.finished()


@pytest.mark.parametrize("again", [True, False])
def test_who_does_not_hear_is_killed(bench: Bench, world: World, again: bool) -> None:
    """Goal: a grace after its time is over its worker dies; that counts as a retry if such are
    wanted for timeouts, else the task fails as timed out, and not for its worker's death."""
    (task,) = bench.running(1, limits=Limits(2.0, retry_timeout=again), max_retries=1)
    begun(bench, task)
    world.advance(2.0 + GRACE)
    world.take(CancelTask)
    killed(bench, 1)
    assert bench.value(task) == (None if again else failed(b"timed_out: t1"))
    if again:
        assert (task.used_retries, task.clock, bench.asked()) == (1, None, 1)
        bench.grant(2)
        assert bench.pushed(2) == [task.id]
        bench.say(TaskBegun(task.id, 0), worker(1))  # of the attempt that is buried
        assert task.clock is None
        begun(bench, task, 2)
        world.advance(2.0 + GRACE)
        world.take(CancelTask)
        killed(bench, 2)
        assert bench.value(task) == failed(b"timed_out: t1")


def test_a_cancelled_task_has_no_time_to_run_out(bench: Bench, world: World) -> None:
    """Goal: cancelled is cancelled. Method: its time is over while it does not hear."""
    (task,) = bench.running(1, limits=Limits(2.0))
    begun(bench, task)
    cancel(bench, task, force=False)
    assert len(world.take(CancelTask)) == 1
    world.advance(60.0)
    world.expect()
    bench.end(1)
    assert bench.value(task) == failed(b"cancelled: t1")


# -- pauses before retries ------------------------------------------------------------------------


def test_a_retry_waits_for_its_pause(bench: Bench, world: World) -> None:
    """Goal: a worker's death and a wanted exception alike; each pause is longer by the factor;
    cancelled meanwhile it never runs again."""
    (task,) = bench.running(1, limits=Limits(0.0, 1.0, 2.0), max_retries=5)
    bench.done(task, 1, results=[failed(b"mine")], retry=True)
    assert task.state is DELAYED
    world.advance(0.999)
    assert bench.pushed(1) == []
    world.advance(0.001)
    bench.asked(), world.take(ReturnLease)
    bench.grant(2)
    assert bench.pushed(2) == [task.id]
    bench.end(2)
    world.advance(1.999)
    assert (bench.asked(), task.state) == (0, DELAYED)
    world.advance(0.001)
    assert bench.asked() == 1
    bench.grant(3)
    assert bench.pushed(3) == [task.id]
    assert (task.state, task.attempt) == (PUSHED, 2)
    bench.end(3)
    cancel(bench, task)
    assert bench.value(task) == failed(b"cancelled: t1")
    world.advance(100.0)
    bench.finished()


def test_the_innocent_do_not_wait(bench: Bench, world: World) -> None:
    """Goal: a pause is for one's own failures. Method: two tasks at a worker that dies."""
    tasks = bench.running(2, limits=Limits(0.0, 10.0))
    bench.end(1)
    assert bench.asked() == 2
    assert [task.used_retries for task in tasks] == [0, 0]


def test_lengths_of_pauses() -> None:
    """Goal: the formula, its cap, and jitter that is spread over its range, whatever the source of
    chance. Method: a counter as the source."""
    fixed = Limits(0.0, 2.0, 3.0)
    assert [fixed.pause(n, b"") for n in (1, 2, 3)] == [2.0, 6.0, 18.0]
    assert fixed.pause(100_000, b"") == LONGEST_PAUSE
    jittery = Limits(0.0, 10.0, 1.0, 0.5)
    drawn = [jittery.pause(1, n.to_bytes(8, "big")) for n in range(1000)]
    assert 5.0 <= min(drawn) < 5.1
    assert 14.9 < max(drawn) <= 15.0
    assert 9.5 < sum(drawn) / 1000 < 10.5


def test_node_says_that_it_knows_no_such_lease(bench: Bench, world: World) -> None:
    """Goal: KillLease to a node that has forgotten the lease ends the task too. Method: the answer
    comes, then the worker's stream ends."""
    (task,) = bench.running(1)
    cancel(bench, task, grace=0.0)
    world.take(CancelTask), world.take(KillLease)
    bench.say(LeaseEnded(lease(1), death("its node knows of no such worker")))
    assert bench.value(task) is None
    bench.owner.peer_lost(worker(1))
    assert bench.value(task) == failed(b"cancelled: t1")
