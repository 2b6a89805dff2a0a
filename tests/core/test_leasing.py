"""Leasing and submission at one owner: how tasks reach workers, and what becomes of them.

The owner role joins the two machines, so it stands in the middle of these tests; its node and
workers are played by the test.
"""

from __future__ import annotations

import pytest

from core.owners import NEAR, NODE, Bench, worker
from core.world import (
    World,
    cpus,
    death,
    failed,
    function_id,
    inline,
    job,
    lease,
    object_id,
    stored,
)
from freehold.core.cancelling import GRACE
from freehold.core.leasing import (
    ASK_AGAIN,
    HANDFUL,
    HOLD,
    PIPELINE_TASKS,
    REPORT_PATIENCE,
    REQUESTS,
)
from freehold.core.submission import LEAST_MICROS, PIPELINE_MICROS, Task
from freehold.ids import ObjectId, TaskId
from freehold.wire.messages import (
    FAILED,
    CancelTask,
    DefineFunction,
    FreeObjects,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    LeaseWanted,
    NodeChanged,
    NodeInfo,
    PushTask,
    Reference,
    RequestLease,
    ReturnLease,
    StillQueued,
    TaskDone,
    TaskReturned,
)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def ids(*tasks: Task) -> list[TaskId]:
    return [task.id for task in tasks]


# -- one task, and many ----------------------------------------------------------------------------


def test_one_task(bench: Bench, world: World) -> None:
    """Goal: the messages of the plainest life, exactly."""
    task = bench.submit(depth=2)
    world.expect((NODE, RequestLease(lease(1), world.address, job(), cpus(1), 2, 0, "f")))
    bench.grant(1)
    world.expect(
        (worker(1), DefineFunction(function_id("f"), "f", b"code")),
        (worker(1), PushTask(task.id, 0, lease(1), function_id("f"), b"args", 1, 2, "t1")),
    )
    bench.done(task, 1)
    assert bench.value(task) == inline()
    world.expect()
    world.advance(HOLD)
    world.expect((NODE, ReturnLease(lease(1))))
    bench.finished()


def test_lease_is_reused_within_its_hold(bench: Bench, world: World) -> None:
    """Goal: a loop that waits for each result asks for one lease and sends the function once."""
    for n in range(5):
        task = bench.submit()
        if not n:
            bench.grant(1)
        assert bench.pushed(1) == [task.id]
        bench.done(task, 1)
        world.advance(HOLD / 2)
    assert bench.asked() == 1


def test_an_unmeasured_function_goes_alone(bench: Bench) -> None:
    """Goal: nothing waits behind a task that may take for ever. Method: three, one worker."""
    tasks = [bench.submit() for _ in range(3)]
    assert bench.asked() == 3
    bench.grant(1)
    assert bench.pushed(1) == ids(tasks[0])
    bench.grant(2)
    assert bench.pushed(2) == ids(tasks[1])


def test_short_ones_travel_by_the_hundred_once_measured(bench: Bench) -> None:
    """Goal: tasks queued before the first measurement are pipelined after it.

    Method: 1,000 of an unmeasured function; the first takes 5 us; what is then at the worker."""
    tasks = [bench.submit() for _ in range(1000)]
    bench.grant(1)
    assert bench.pushed(1) == ids(tasks[0])
    bench.done(tasks[0], 1, micros=5)
    sent = bench.pushed(1)
    assert 50 <= len(sent) <= PIPELINE_TASKS
    assert sent == ids(*tasks[1 : 1 + len(sent)])
    bench.asked()


def test_queued_tasks_are_weighed_when_they_are_sent(bench: Bench) -> None:
    """Goal: a function that turns out slow goes alone, though its tasks were queued as short ones.

    Method: 20 queued as 1 us; measured at a full pipeline before the next worker comes."""
    tasks = [bench.submit(micros=1.0, resources=cpus(2)) for _ in range(20)]
    bench.function("f", PIPELINE_MICROS)
    bench.grant(1)
    assert bench.pushed(1) == ids(tasks[0])
    assert tasks[0].estimate == PIPELINE_MICROS
    bench.asked()


@pytest.mark.parametrize(
    ("micros", "depth"),
    [(1.0, PIPELINE_TASKS), (100.0, 50), (2000.0, 2), (PIPELINE_MICROS, 1), (1e6, 1)],
)
def test_depth_follows_the_measured_time(bench: Bench, micros: float, depth: int) -> None:
    """Goal: as many as make PIPELINE_MICROS, never more than PIPELINE_TASKS.

    Method: one busy worker; submit until nothing more is pushed; at, below and above the limits."""
    bench.submit(micros=micros)
    bench.grant(1)
    for _ in range(PIPELINE_TASKS + 1):
        bench.submit()
    assert len(bench.pushed(1)) == depth
    assert min(PIPELINE_TASKS, PIPELINE_MICROS // max(micros, LEAST_MICROS) or 1) == depth
    bench.asked()


@pytest.mark.parametrize(
    ("micros", "handful"), [(10.0, int(HANDFUL // 10)), (HANDFUL, 1), (20 * HANDFUL, 1)]
)
def test_short_tasks_are_dealt_out_in_handfuls(bench: Bench, micros: float, handful: int) -> None:
    """Goal: a worker is not woken for less than a handful; nothing longer waits while one is idle.

    Method: three idle workers, three handfuls, each of which is to be at one of them; then the
    second has done a task, so that it has the least and gets the next."""
    first = [bench.submit(micros=None) for _ in range(3)]
    for number in range(1, 4):
        bench.grant(number)
    for number, task in enumerate(first, 1):
        assert bench.pushed(number) == ids(task)
        bench.done(task, number)
    bench.asked()
    tasks = [bench.submit(micros=micros) for _ in range(3 * handful)]
    for number in range(1, 4):
        assert bench.pushed(number) == ids(*tasks[(number - 1) * handful : number * handful])
    bench.done(tasks[handful], 2, micros=int(micros))
    assert ids(bench.submit()) == bench.pushed(2)


def test_queue_is_shared_among_workers(bench: Bench) -> None:
    """Goal: the first worker does not take everything when more are on their way.

    Method: 40 queued, four requests under way; each grant in turn gets about its share."""
    tasks = [bench.submit(micros=None) for _ in range(40)]
    bench.function("f", 10.0)
    for task in tasks:
        task.estimate = 10.0
    bench.asked()
    taken = []
    for number in range(1, 5):
        bench.grant(number)
        taken.append(len(bench.pushed(number)))
    bench.asked()
    assert max(taken) <= 40 // 4 + 1
    assert min(taken) >= 1


def test_requests_under_way_are_limited(bench: Bench) -> None:
    """Goal: REQUESTS at a time, the next when one is granted. Method: twice as many tasks."""
    for _ in range(2 * REQUESTS):
        bench.submit()
    assert bench.asked() == REQUESTS
    bench.grant(1)
    assert len(bench.pushed(1)) == 1
    assert bench.asked() == 1


def test_granted_too_late(bench: Bench, world: World) -> None:
    """Goal: when the work is done, requests are taken back; a grant that crosses is left alone.

    Method: two requests; the first worker does everything; the second grant comes after."""
    tasks = [bench.submit() for _ in range(2)]
    bench.grant(1)
    bench.done(tasks[0], 1)
    bench.done(tasks[1], 1)
    assert len(bench.pushed(1)) == 2
    assert bench.asked() == 2
    world.expect((NODE, ReturnLease(lease(2))))
    bench.grant(2)
    world.expect()
    bench.finished()


def test_idle_lease_makes_way_for_another_shape(bench: Bench, world: World) -> None:
    """Goal: a program does not wait for the CPU that it holds idle itself."""
    first = bench.submit()
    bench.grant(1)
    bench.done(first, 1)
    bench.pushed(1), bench.asked()
    bench.submit(resources=cpus(2))
    assert world.one(ReturnLease) == ReturnLease(lease(1))
    assert bench.asked() == 1


def test_wanted_lease_is_given_back_when_empty(bench: Bench, world: World) -> None:
    """Goal: what was pushed is finished, nothing more is pushed; an idle one goes at once."""
    tasks = bench.running(2)
    bench.say(LeaseWanted(lease(1)))
    bench.say(LeaseWanted(lease(1)))
    late = bench.submit()
    assert bench.asked() == 1
    bench.done(tasks[0], 1)
    world.expect()
    bench.done(tasks[1], 1)
    assert world.take(ReturnLease) == [ReturnLease(lease(1))]
    bench.grant(2)
    assert bench.pushed(2) == [late.id]
    bench.done(late, 2)
    bench.say(LeaseWanted(lease(2)))
    assert world.take(ReturnLease) == [ReturnLease(lease(2))]
    bench.say(LeaseWanted(lease(9)))
    bench.asked()
    bench.finished()


def test_redirected_and_refused(bench: Bench, world: World) -> None:
    """Goal: the request follows the redirection under its id; a refusal fails what is queued."""
    task = bench.submit(max_retries=5)
    world.take(RequestLease)
    bench.say(LeaseRedirected(lease(1), NEAR, 3))
    world.expect((NEAR, RequestLease(lease(1), world.address, job(), cpus(1), 0, 3, "f")))
    bench.say(StillQueued(lease(1), "waits for CPU"), NEAR)
    assert "waits for CPU" in bench.owner.explain(object_id("t1"))[0]
    bench.say(LeaseRefused(lease(1), "no GPU"), NEAR)
    assert bench.value(task) == failed(b"unschedulable: t1")
    for late in (LeaseRefused(lease(1), "again"), LeaseRedirected(lease(1), NEAR, 4)):
        bench.say(late, NEAR)
    bench.finished()


# -- arguments -------------------------------------------------------------------------------------


def test_dependencies(bench: Bench, world: World) -> None:
    """Goal: a task waits for its arguments, goes where most of their bytes are, carries small ones.

    Method: two producers, one inline, one stored on another node; then both are let go."""
    small, large = bench.submit(), bench.submit()
    refs = [Reference(object_id(name), world.address) for name in ("t1", "t2")]
    task = bench.submit("g", deps=refs)
    bench.grant(1), bench.grant(2)
    bench.done(small, 1, results=[inline(b"s")])
    bench.drop(small, large)
    assert bench.asked() == 2
    bench.done(large, 2, results=[stored(10**6, NEAR)])
    assert [to for to, message in world.sent if isinstance(message, RequestLease)] == [NEAR]
    bench.asked(), world.take(ReturnLease)
    bench.pushed(1), bench.pushed(2)
    bench.say(LeaseGranted(lease(3), worker(3), 1), NEAR)
    world.one(DefineFunction)
    push = world.one(PushTask)
    assert [argument.value for argument in push.deps] == [inline(b"s"), stored(10**6, NEAR)]
    bench.done(task, 3)
    world.expect((NEAR, FreeObjects([object_id("t2")])))
    assert list(bench.owner.ownership.entries) == [object_id("t3")]


def test_failed_dependency_fails_the_task(bench: Bench) -> None:
    """Goal: the argument's own error passes on, through a chain, and nothing of it is
    ever pushed."""
    first = bench.submit(max_retries=0)
    refs = [Reference(object_id("t1"), bench.world.address)]
    second = bench.submit(deps=refs, num_returns=2)
    third = bench.submit(deps=[Reference(object_id("t2"), bench.world.address)])
    bench.grant(1)
    bench.done(first, 1, results=[failed(b"boom")])
    assert bench.pushed(1) == [first.id]
    assert bench.value(second, 0) == bench.value(second, 1) == failed(b"boom")
    assert bench.value(third) == failed(b"boom")
    late = bench.submit(deps=refs)
    assert bench.value(late) == failed(b"boom")
    bench.asked()
    bench.finished()


def test_results_that_nobody_wants_are_freed(bench: Bench, world: World) -> None:
    """Goal: a dropped task runs on; its stored results are freed on arrival, each of them."""
    tasks = bench.running(2)
    bench.drop(*tasks)
    bench.done(tasks[0], 1, results=[stored(10**6, NODE)])
    world.expect((NODE, FreeObjects([ObjectId(tasks[0].id + bytes(4))])))
    own = Reference(object_id("own"), world.address)
    bench.owner.put(own.object, inline())
    bench.done(tasks[1], 1, results=[stored(10**6, NODE, contains=[own])])
    world.expect((NODE, FreeObjects([ObjectId(tasks[1].id + bytes(4))])))
    assert bench.owner.ownership.entries[own.object].pins == 0


# -- given back, cancelled -------------------------------------------------------------------------


def test_returned_tasks_go_elsewhere(bench: Bench, world: World) -> None:
    """Goal: what a slow worker gives back is placed anew, first in line, and not on that worker.

    Method: three at one worker, two come back; its next results end its slowness."""
    tasks = bench.running(3)
    for task in tasks[1:]:
        bench.say(TaskReturned(task.id, 0), worker(1))
    assert bench.pushed(1) == []
    assert bench.asked() == 2
    bench.say(TaskReturned(tasks[1].id, 0), worker(1))  # a stale one changes nothing
    bench.grant(2)
    assert tasks[1].attempt == tasks[2].attempt == 1
    sent = bench.pushed(2)
    bench.done(tasks[0], 1)
    sent += bench.pushed(1)
    assert sorted(sent) == sorted(ids(*tasks[1:]))
    assert [task.used_retries for task in tasks] == [0, 0, 0]
    world.take(ReturnLease), bench.asked()


def test_stale_attempt_is_refused(bench: Bench, world: World) -> None:
    """Goal: exactly one attempt is visible. Method: results of attempt 0 after it was given back,
    then of the current one, twice; the late stored ones are freed when no attempt is about."""
    (task,) = bench.running(1)
    old = TaskDone(task.id, 0, [inline(b"old")], 1)
    bench.say(TaskReturned(task.id, 0), worker(1))
    bench.say(old, worker(1))
    assert bench.value(task) is None
    assert bench.pushed(1) == [task.id]
    bench.done(task, 1, results=[inline(b"new")])
    assert bench.value(task) == inline(b"new")
    bench.say(TaskDone(task.id, 1, [stored(10**6, NODE)], 1), worker(1))
    world.expect((NODE, FreeObjects([ObjectId(task.id + bytes(4))])))
    assert bench.value(task) == inline(b"new")
    bench.asked()


def cancel(bench: Bench, task: Task, force: bool = False) -> None:
    key = ObjectId(task.id + bytes(4))
    bench.owner.cancel(key, force=force, recursive=True)


def test_cancel_waiting_and_queued(bench: Bench, world: World) -> None:
    """Goal: what has not been sent ends at once and is never sent."""
    queued = bench.submit()
    waiting = bench.submit(deps=[Reference(object_id("t1"), world.address)])
    other = bench.submit()
    cancel(bench, waiting)
    cancel(bench, queued)
    cancel(bench, queued)
    assert bench.value(queued) == failed(b"cancelled: t1")
    assert bench.value(waiting) == failed(b"cancelled: t2")
    bench.grant(1)
    assert bench.pushed(1) == [other.id]
    bench.asked(), world.take(ReturnLease)


def test_cancel_pushed(bench: Bench, world: World) -> None:
    """Goal: the worker is told; the answer decides. Method: one that had finished, one
    cancelled."""
    one, two = bench.running(2)
    cancel(bench, one), cancel(bench, two, force=True)
    world.expect(
        (worker(1), CancelTask(one.id, False, True, GRACE)),
        (worker(1), CancelTask(two.id, True, True, GRACE)),
    )
    bench.done(one, 1)
    assert bench.value(one) == inline()
    bench.done(two, 1, results=[failed(b"cancelled")], retry=True)
    assert bench.value(two) == failed(b"cancelled")
    cancel(bench, two)
    world.expect()


def test_cancelled_task_that_is_given_back_is_not_run(bench: Bench, world: World) -> None:
    """Goal: a cancel that crosses TaskReturned still takes effect."""
    _, two = bench.running(2)
    cancel(bench, two)
    world.take(CancelTask)
    bench.say(TaskReturned(two.id, 0), worker(1))
    assert bench.value(two) == failed(b"cancelled: t2")
    assert (bench.asked(), bench.pushed(1)) == (0, [])


def test_cancelled_task_on_a_dying_worker_is_not_retried(bench: Bench, world: World) -> None:
    """Goal: force=True kills the worker; the cancelled task ends, its neighbours run again."""
    one, two = bench.running(2)
    cancel(bench, one, force=True)
    world.take(CancelTask)
    bench.end(1)
    assert bench.value(one) == failed(b"cancelled: t1")
    assert bench.asked() == 1
    bench.grant(2)
    assert bench.pushed(2) == [two.id]


def test_every_cancelled_task_of_a_dying_worker_is_abandoned(bench: Bench, world: World) -> None:
    """Goal: whether one or all were cancelled, no retry is asked for and the lease is gone."""
    one, two = bench.running(2)
    cancel(bench, one), cancel(bench, two)
    world.take(CancelTask)
    bench.end(1)
    assert [bench.value(t) for t in (one, two)] == [
        failed(b"cancelled: t1"),
        failed(b"cancelled: t2"),
    ]
    assert (bench.asked(), one.used_retries, two.used_retries) == (0, 0, 0)
    bench.finished()


def test_last_task_given_back_and_cancelled_frees_its_lease(bench: Bench, world: World) -> None:
    """Goal: a lease whose only task was cancelled and came back is used again, then returned."""
    (task,) = bench.running(1)
    cancel(bench, task)
    world.take(CancelTask)
    bench.say(TaskReturned(task.id, 0), worker(1))
    assert bench.value(task) == failed(b"cancelled: t1")
    late = bench.submit()
    assert bench.pushed(1) == [late.id]
    bench.done(late, 1)
    bench.finished()


# -- deaths ----------------------------------------------------------------------------------------


def test_one_in_flight_is_blamed(bench: Bench, world: World) -> None:
    """Goal: max_retries=2 means three attempts, then the error. Method: three workers die."""
    task = bench.submit(max_retries=2)
    for number in (1, 2, 3):
        assert bench.asked() == 1
        bench.grant(number)
        assert bench.pushed(number) == [task.id]
        assert task.attempt == number - 1
        bench.end(number)
    assert bench.value(task) == failed(b"worker_died: t1")
    bench.finished()


def test_without_limit(bench: Bench) -> None:
    """Goal: max_retries=-1 is retried without end."""
    task = bench.submit(max_retries=-1)
    for number in range(1, 30):
        bench.grant(number)
        bench.end(number)
    assert task.attempt == 29
    bench.world.sent.clear()


def test_several_in_flight_are_suspects_and_run_alone(bench: Bench, world: World) -> None:
    """Goal: a death among several costs nobody a retry; the culprit is found, the innocent finish.

    Method: three at one worker, which dies. Each then runs alone; the second kills its worker."""
    tasks = bench.running(3, max_retries=1)
    bench.end(1)
    assert [task.used_retries for task in tasks] == [0, 0, 0]
    assert all(task.suspect for task in tasks)
    assert bench.asked() == 3
    bench.grant(2)
    assert bench.pushed(2) == ids(tasks[0])
    bench.done(tasks[0], 2)
    assert bench.pushed(2) == ids(tasks[1])
    bench.submit()
    assert bench.pushed(2) == []  # nothing behind a suspect, however short
    bench.end(2)
    assert (tasks[1].used_retries, tasks[2].used_retries) == (1, 0)
    world.take(RequestLease)


def test_no_retries_never_shares_a_worker(bench: Bench) -> None:
    """Goal: a task that may not run twice is alone from the start, so its death is certain."""
    one, two = bench.submit(micros=1.0, max_retries=0), bench.submit(max_retries=0)
    three = bench.submit()
    bench.grant(1)
    assert bench.pushed(1) == [one.id]
    bench.done(one, 1)
    assert bench.pushed(1) == [two.id]
    bench.end(1)
    assert bench.value(two) == failed(b"worker_died: t2")
    assert bench.value(three) is None
    bench.asked()


@pytest.mark.parametrize("report_first", [True, False])
def test_results_sent_before_the_death_count(bench: Bench, report_first: bool) -> None:
    """Goal: death is the end of the stream, whichever of its two signs comes first.

    Method: two at a worker; the node's report; then the first one's result, then the end. Only the
    second is blamed."""
    one, two = bench.running(2)
    if report_first:
        bench.say(LeaseEnded(lease(1), death()))
    bench.done(one, 1)
    bench.owner.peer_lost(worker(1))
    if not report_first:
        bench.say(LeaseEnded(lease(1), death()))
    assert bench.value(one) == inline()
    assert (two.used_retries, two.attempt) == (1, 1)
    assert bench.asked() == 1


@pytest.mark.parametrize("sign", ["stream", "report"])
def test_one_sign_is_enough_after_a_while(bench: Bench, sign: str) -> None:
    """Goal: a missing report or a stream that never ends does not hold a task for ever.

    Method: one sign, then REPORT_PATIENCE. A node that did not report the death may think that we
    have its worker still: it gets the lease back."""
    (task,) = bench.running(1, max_retries=0)
    if sign == "stream":
        bench.owner.peer_lost(worker(1))
    else:
        bench.say(LeaseEnded(lease(1), death()))
    late = bench.submit()
    assert bench.pushed(1) == []  # nothing more for a worker that is gone
    bench.world.advance(REPORT_PATIENCE)
    assert bench.value(task) == failed(b"worker_died: t1")
    returned = bench.world.take(ReturnLease, NODE)
    assert returned == ([ReturnLease(lease(1))] if sign == "stream" else [])
    bench.end(1)
    bench.asked()
    assert bench.value(late) is None


def test_idle_worker_dies(bench: Bench, world: World) -> None:
    """Goal: no blame, no return of a lease that is gone, and no push to the dead."""
    (task,) = bench.running(1)
    bench.done(task, 1)
    bench.say(LeaseEnded(lease(1), death()))
    bench.owner.peer_lost(worker(1))
    bench.submit()
    assert bench.asked() == 1
    world.advance(1)
    world.expect()


def test_node_lost(bench: Bench, world: World) -> None:
    """Goal: a node's end is its workers' end, and requests that waited there go to our own node.

    Method: a worker of the lost node runs a task; another request waits there. Both go out anew,
    after a pause: others may not know yet, and send us there again. What the dead node still
    answers to the old one is for nobody."""
    one, two = bench.submit(), bench.submit()
    world.take(RequestLease)
    bench.say(LeaseGranted(lease(1), worker(1), 1), NEAR)
    bench.say(LeaseRedirected(lease(2), NEAR, 1))
    assert bench.pushed(1) == [one.id]
    world.take(RequestLease, NEAR)
    gone = NodeInfo(NEAR, "near", 1, {}, {}, alive=False, reason="lost power")
    bench.say(NodeChanged(gone))
    assert (one.used_retries, one.attempt) == (1, 1)
    assert world.take(RequestLease) == []
    world.advance(ASK_AGAIN)
    requests = world.take(RequestLease, NODE)
    assert {request.lease for request in requests} == {lease(3), lease(4)}
    bench.owner.peer_lost(worker(1))
    bench.say(LeaseGranted(lease(2), worker(2), 1), NEAR)
    assert bench.pushed(2) == []
    bench.grant(3)
    bench.grant(4)
    assert sorted(bench.pushed(3) + bench.pushed(4)) == sorted(ids(one, two))


def test_retry_exceptions(bench: Bench) -> None:
    """Goal: an exception that the user asked to retry counts like a death; then it is the value."""
    task = bench.submit(max_retries=1, retry_exceptions=b"*")
    bench.grant(1)
    bench.done(task, 1, results=[failed(b"boom")], retry=True)
    assert bench.value(task) is None
    assert bench.pushed(1) == [task.id, task.id]
    assert task.attempt == 1
    bench.done(task, 1, results=[failed(b"boom")], retry=True)
    assert bench.value(task) == failed(b"boom")
    assert bench.value(task).kind == FAILED  # type: ignore[union-attr]
    bench.asked()
    bench.finished()
