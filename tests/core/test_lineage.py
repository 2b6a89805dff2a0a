"""Lost values are made again: which tasks run again, in which order, how often, and what is kept
for it. The node and the workers are played by the test; the owner is the real one.
"""

from __future__ import annotations

from typing import Any

import pytest

from core.owners import NEAR, NODE, Home, worker
from core.world import World, failed, inline, node, object_id, process, reference, stored
from freehold.core import lineage
from freehold.core.cancelling import GRACE
from freehold.core.entries import Entry
from freehold.core.leasing import ASK_AGAIN
from freehold.core.lineage import CLAIM_SECONDS, TASK_BYTES
from freehold.core.submission import Task
from freehold.ids import return_id
from freehold.wire.messages import (
    CancelTask,
    ChildrenGone,
    FreeObjects,
    KeepObject,
    Locate,
    Located,
    Missing,
    ObjectAt,
    Reference,
    Release,
    ReturnLease,
    TaskDone,
    TaskReturned,
)

FAR, OWNER = node("far"), process("owner")
X = object_id("x")


@pytest.fixture
def home(world: World) -> Home:
    return Home(world)


def why(value: Any) -> str:
    """The words of a failed value."""
    assert value is not None
    assert value.kind == failed().kind
    return str(value.data.decode())


LOST = "lost: node 6e656172 on machine lost power, and "


# -- one value ------------------------------------------------------------------------------------


def test_one_of_two_copies_is_lost(home: Home, world: World) -> None:
    """Goal: nothing runs again while a copy is left. Method: two copies; one node dies."""
    task = home.made()
    home.say(ObjectAt(return_id(task.id, 0), FAR, True), FAR)
    home.node_dies()
    world.expect((FAR, KeepObject(return_id(task.id, 0))))
    assert home.value(task) == stored(100, FAR)
    assert home.owner.submission.tasks == {}


def test_last_copy_is_lost(home: Home, world: World) -> None:
    """Goal: the task runs once more under the same id, and those who wait get the new value.

    Method: a get that waits for the bytes and a borrower, when the last copy goes."""
    task = home.made(max_retries=1)
    home.owner.ownership.hand_out(home.ref(task), OWNER)
    home.node_dies()
    getting = home.owner.get([return_id(task.id, 0)], lambda: None)
    home.say(Locate(return_id(task.id, 0)), OWNER)
    assert (task.attempt, task.used_retries, home.value(task)) == (1, 1, None)
    home.work(task, results=[inline(b"again")])
    assert (getting.done, getting.failed, home.value(task)) == (True, None, inline(b"again"))
    world.expect((OWNER, Located(return_id(task.id, 0), inline(b"again"))))


def test_retries_are_spent(home: Home, world: World) -> None:
    """Goal: a re-run counts as a retry; without one left the value is lost, with the reason."""
    task = home.made(max_retries=1)
    home.node_dies()
    home.work(task, at=FAR)
    home.node_dies(FAR)
    reason = "lost: node 6661722e on machine lost power, and its task t1() has used its 1 retries"
    assert why(home.value(task)) == reason


def test_task_that_may_not_run_twice(home: Home) -> None:
    """Goal: it does not, and the error says so."""
    task = home.made(max_retries=0)
    home.node_dies()
    assert why(home.value(task)) == LOST + "its task t1() has max_retries=0"
    assert home.lineage.tasks == {}


def test_result_that_came_before_its_cancel(home: Home, world: World) -> None:
    """Goal: a task that its user has cancelled does not run again; the error says so."""
    task = home.submit()
    number = home.taken(task)
    home.owner.cancel(return_id(task.id, 0), force=False, recursive=False)
    assert world.take(CancelTask) == [CancelTask(task.id, False, False, GRACE)]
    home.done(task, number, results=[stored(100, NEAR)])
    home.node_dies()
    assert why(home.value(task)) == LOST + "its task t1() was cancelled"


def test_put_is_lost(home: Home) -> None:
    """Goal: what no task made cannot be made again, and the error says so."""
    home.owner.put(X, stored(100, NEAR))
    home.node_dies()
    reason = LOST + "it was put, not made by a task: nothing can make it again"
    assert why(home.owner.value(X)) == reason


def test_inline_values_keep_no_task(home: Home) -> None:
    """Goal: most tasks, whose results are small and plain, leave no lineage and no pins."""
    home.owner.put(X, inline())
    task = home.submit(deps=[reference("x", home.world.address)])
    home.work(task, results=[inline()])
    assert (home.lineage.tasks, home.entry(task).task) == ({}, None)
    assert home.owner.ownership.entries[X].pins == 0


def test_second_result_that_is_still_good_stays(home: Home, world: World) -> None:
    """Goal: a re-run for one result does not touch another, which may be being read; its surplus
    copy is freed.

    Method: two results, one copied to FAR before its node died; the re-run stores both on NODE."""
    task = home.made(num_returns=2)
    good = return_id(task.id, 1)
    home.say(ObjectAt(good, FAR, True), FAR)
    home.node_dies()
    assert world.take(KeepObject, FAR) == [KeepObject(good)]
    home.work(task, at=NODE)
    assert (home.value(task, 0), home.value(task, 1)) == (stored(100, NODE), stored(100, FAR))
    world.expect((NODE, FreeObjects([good])))


def test_good_result_outlives_a_failed_re_run(home: Home, world: World) -> None:
    """Goal: when the re-run raises, only what was lost fails; the task is kept for the other
    result, which may be lost later.

    Method: as above, and the re-run raises; then FAR dies too."""
    task = home.made(num_returns=2)
    home.say(ObjectAt(return_id(task.id, 1), FAR, True), FAR)
    home.node_dies()
    world.take(KeepObject)
    home.work(task, results=[failed(b"boom")] * 2)
    assert (home.value(task, 0), home.value(task, 1)) == (failed(b"boom"), stored(100, FAR))
    home.node_dies(FAR)
    home.work(task, at=NODE)
    assert (home.value(task, 0), home.value(task, 1)) == (failed(b"boom"), stored(100, NODE))
    assert task.attempt == 2
    world.expect((NODE, FreeObjects([return_id(task.id, 0)])))


def test_result_dropped_while_its_task_runs_again(home: Home, world: World) -> None:
    """Goal: nobody can name it: freed on arrival, and nothing is kept."""
    task = home.made()
    home.node_dies()
    number = home.taken(task)
    home.drop(task)
    world.expect()
    home.done(task, number, results=[stored(100, FAR)])
    world.expect((FAR, FreeObjects([return_id(task.id, 0)])))
    home.nothing_kept()


def test_stray_copies_of_an_earlier_run(home: Home, world: World) -> None:
    """Goal: a copy of which we hear while its task runs again is freed when that is done, unless
    the new value lies there: it took its place.

    Method: copies turn up on FAR and NODE; the new value is on NODE."""
    task = home.made()
    key = return_id(task.id, 0)
    home.node_dies()
    number = home.taken(task)
    for place in (FAR, NODE):
        home.say(ObjectAt(key, place, True), place)
    world.expect()
    home.done(task, number, results=[stored(100, NODE)])
    world.expect((FAR, FreeObjects([key])))
    assert home.lineage.strays == {}


def test_late_answer_of_an_earlier_attempt_frees_nothing_good(home: Home, world: World) -> None:
    """Goal: a stale answer's copy is freed, but not where the good value lies under the same id.

    Method: worker 1 is taken for dead and answers all the same; the second attempt had stored its
    result on the same node."""
    task = home.submit(max_retries=1)
    number = home.taken(task)
    stale = TaskDone(task.id, 0, [stored(100, NEAR, FAR)])
    home.owner.leasing.node_lost(NODE.node, "taken for dead")
    home.work(task)
    assert home.value(task) == stored(100, NEAR)
    home.say(stale, worker(number))
    world.expect((FAR, FreeObjects([return_id(task.id, 0)])))


# -- arguments ------------------------------------------------------------------------------------


def test_chain_of_thousands(home: Home, world: World) -> None:
    """Goal: a chain is made again from its beginning, each task once, without recursion.

    Method: 2,000 tasks, each with the one before as its argument; all but the last dropped, so that
    only lineage holds them; the last one's node dies."""
    chain: list[Task] = []
    for _ in range(2_000):
        chain.append(home.submit(deps=[home.ref(chain[-1])] if chain else []))
        home.work(chain[-1])
    home.drop(*chain[:-1])
    assert len(world.take(FreeObjects, NEAR)) == 1_999
    assert {home.value(task) for task in chain[:-1]} == {None}
    home.node_dies()
    home.work(*chain, at=FAR)
    assert {task.attempt for task in chain} == {1}
    assert home.value(chain[-1]) == stored(100, FAR)
    assert len(world.take(FreeObjects, FAR)) == 1_999
    home.drop(chain[-1])
    world.one(FreeObjects, FAR)
    home.nothing_kept()


def test_diamond(home: Home, world: World) -> None:
    """Goal: an argument of two lost arguments is made once.

    Method: b and c of a, d of both; all lost but d's waiters."""
    a = home.made()
    b, c = (home.made(deps=[home.ref(a)]) for _ in range(2))
    d = home.made(deps=[home.ref(b), home.ref(c), home.ref(b)])
    home.drop(a, b, c)
    world.take(FreeObjects)
    home.node_dies()
    home.work(a, at=FAR)
    first = home.taken(b)
    second = home.taken(c)
    home.done(b, first, results=[stored(100, FAR)])
    home.done(c, second, results=[stored(100, FAR)])
    home.work(d, at=FAR)
    assert [task.attempt for task in (a, b, c, d)] == [1, 1, 1, 1]
    assert sorted(world.take(FreeObjects), key=str) == sorted(
        (FreeObjects([return_id(task.id, 0)]) for task in (a, b, c)), key=str
    )
    home.drop(d)
    world.one(FreeObjects)
    home.nothing_kept()


def test_argument_that_cannot_be_made_again(home: Home, world: World) -> None:
    """Goal: the task that would need it fails under that error, which says what went with what.

    Method: a put value whose last reference was dropped when the task that used it was done."""
    home.owner.put(X, stored(100, NEAR))
    task = home.made(deps=[reference("x", world.address)])
    home.owner.ownership.drop_handle(X)
    assert world.take(FreeObjects) == [FreeObjects([X])]
    home.node_dies()
    reason = "lost: its value went with its last reference, and it was put, not made by a task"
    assert why(home.value(task)).startswith(reason)
    home.drop(task)
    home.nothing_kept()


@pytest.mark.parametrize("inside", [True, False], ids=["inside a value", "on its own"])
def test_one_of_two_lost_arguments_is_lost_for_good(home: Home, world: World, inside: bool) -> None:
    """Goal: a task that fails for want of one argument holds nothing of the other; one that it
    does not wait for (a reference inside a value) is not made again for nobody.

    Method: a put value and a result, both gone with their last handles, and their task's result
    lost."""
    home.owner.put(X, stored(100, NEAR))
    other = home.made()
    put, ref = reference("x", world.address), home.ref(other)
    task = home.submit(deps=[put], borrowed=[ref]) if inside else home.submit(deps=[put, ref])
    number = home.taken(task)
    home.done(task, number, results=[stored(100, NEAR)])
    if inside:  # the worker was given it
        home.say(Release(ref.object, 1), worker(number))
    home.owner.ownership.drop_handle(X)
    home.drop(other)
    assert len(world.take(FreeObjects)) == 2
    home.node_dies()
    if not inside:
        home.work(other, at=NODE)
        assert world.take(FreeObjects) == [FreeObjects([ref.object])]
    assert why(home.value(task)).startswith("lost: its value went with its last reference, and it")
    home.drop(task)
    home.nothing_kept()


def test_queued_task_whose_argument_is_lost_waits_again(home: Home, world: World) -> None:
    """Goal: it is not pushed without its argument, and it is when that is there again.

    Method: lost between the argument's arrival and the grant."""
    argument = home.made()
    task = home.submit("g", deps=[home.ref(argument)])
    home.node_dies()
    home.work(argument, at=FAR)
    world.advance(ASK_AGAIN)
    home.work(task, at=FAR)
    assert (argument.attempt, task.attempt) == (1, 0)
    home.rest()


@pytest.mark.parametrize("copies", [1, 2])
def test_returned_for_want_of_an_argument(home: Home, world: World, copies: int) -> None:
    """Goal: a copy that a worker could not get is none; if it was the last, the value is made again
    before the task is pushed again, under the next attempt.

    Method: one or two copies; the worker tried NEAR."""
    argument = home.made()
    key = return_id(argument.id, 0)
    if copies == 2:
        home.say(ObjectAt(key, FAR, True), FAR)
    task = home.submit("g", deps=[home.ref(argument)])
    number = home.taken(task)
    home.say(TaskReturned(task.id, 0, [Missing(key, [NEAR.node])]), worker(number))
    assert world.take(FreeObjects, NEAR) == [FreeObjects([key])]
    if copies == 2:
        assert world.take(KeepObject, FAR) == [KeepObject(key)]
    else:
        home.work(argument, at=FAR)
    home.work(task, at=FAR)
    assert (argument.attempt, task.attempt) == (2 - copies, 1)
    home.rest()


def test_returned_for_want_of_a_borrowed_argument(home: Home, world: World) -> None:
    """Goal: its owner is asked, naming who does not have it, and the task waits for the answer.

    Method: a second TaskReturned of the same attempt changes nothing."""
    entry = home.owner.ownership.entries[X] = Entry(X, OWNER)
    entry.handles, entry.received, entry.value = 1, 1, stored(100, NEAR)
    task = home.submit(deps=[Reference(X, OWNER)])
    number = home.taken(task)
    for _ in range(2):
        home.say(TaskReturned(task.id, 0, [Missing(X, [NEAR.node])]), worker(number))
    assert world.take(Locate) == [Locate(X, [NEAR.node])]
    assert (task.state, task.attempt, home.asked()) == ("waiting for its arguments", 1, 0)
    home.say(Located(X, stored(100, FAR)), OWNER)
    home.work(task, results=[inline()])
    home.owner.ownership.drop_handle(X)
    home.rest()
    world.expect((OWNER, Release(X, 1)))


def test_lineage_holds_the_name_and_not_the_bytes(home: Home, world: World) -> None:
    """Goal: what only kept tasks need loses its bytes at once and its entry with the last of them.

    Method: an argument of two tasks, named twice by one; handles and tasks go one by one."""
    argument = home.made()
    ref = home.ref(argument)
    first, second = home.made(deps=[ref, ref]), home.submit(borrowed=[ref])
    number = home.taken(second)
    home.done(second, number, results=[stored(100, NEAR)])
    home.say(Release(ref.object, 1), worker(number))  # (the reference that came with the task)
    entry = home.entry(argument)
    home.rest()
    assert (entry.lineage, entry.pins, entry.handles) == (3, 0, 1)
    home.drop(argument)
    world.expect((NEAR, FreeObjects([entry.object])))
    assert (entry.value, home.owner.ownership.entries[entry.object]) == (None, entry)
    home.drop(first)
    world.expect((NEAR, FreeObjects([return_id(first.id, 0)])))
    assert entry.lineage == 1
    home.drop(second)
    world.expect((NEAR, FreeObjects([return_id(second.id, 0)])))
    home.nothing_kept()


def test_borrowed_argument_stays_held(home: Home, world: World) -> None:
    """Goal: only its owner could make it again, so a kept task keeps its value alive."""
    entry = home.owner.ownership.entries[X] = Entry(X, OWNER)
    entry.handles, entry.received, entry.value = 1, 1, inline()
    task = home.made(deps=[Reference(X, OWNER)])
    home.owner.ownership.drop_handle(X)
    world.expect()
    assert entry.pins == 1
    home.drop(task)
    world.expect((NEAR, FreeObjects([return_id(task.id, 0)])), (OWNER, Release(X, 1)))
    home.nothing_kept()


# -- a limit on what is kept ----------------------------------------------------------------------


def test_lineage_is_bounded(home: Home, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Goal: the oldest tasks are forgotten first, with what they held; the error of a value that
    would have needed one says so, in the form that tells it from others.

    Method: room for ten tasks of four bytes of arguments; eleven, the first with an argument. When
    it is too much, a tenth of the room is made, so one of the ten goes along."""
    monkeypatch.setattr(lineage, "LINEAGE_BYTES", 10 * (TASK_BYTES + 4))
    home.owner.put(X, inline())
    tasks = [home.made(deps=[reference("x", world.address)])]
    home.owner.ownership.drop_handle(X)
    tasks += [home.made() for _ in range(9)]
    assert len(home.lineage.tasks) == 10
    assert X in home.owner.ownership.entries
    tasks.append(home.made())
    assert list(home.lineage.tasks) == [task.id for task in tasks[2:]]
    assert home.lineage.size == 9 * (TASK_BYTES + 4)
    assert X not in home.owner.ownership.entries
    home.node_dies()
    reason = "the lineage of t1() was dropped to keep within 5,040 bytes"
    assert why(home.value(tasks[0])) == LOST.replace("lost:", "evicted:") + reason
    home.work(*tasks[2:], at=FAR)
    home.drop(*tasks)
    assert len(world.take(FreeObjects, FAR)) == 9
    home.nothing_kept()


def test_evicted_task_says_so_to_who_claims_from_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    """Goal: a claim on the children of a task whose lineage was dropped is refused for that reason.

    Method: room for one; the first has children at its worker."""
    monkeypatch.setattr(lineage, "LINEAGE_BYTES", TASK_BYTES + 4)
    task = home.submit()
    home.work(task, children=True)
    home.made()
    assert task.id not in home.lineage.tasks
    reason = home.lineage.why_not(task.id, worker(1).process)
    assert reason == "and the lineage of the task that made it, t1(), was dropped"
    home.say(ChildrenGone(task.id), worker(1))
    assert home.lineage.homes == {}
    home.rest()


# -- children -------------------------------------------------------------------------------------


def test_children_keep_the_task(home: Home, world: World) -> None:
    """Goal: while its worker owns what the run has made, the task is kept, results or no results.

    Method: an inline result, dropped; then the children go. An unknown worker's word is nothing."""
    task = home.submit()
    home.work(task, results=[inline()], children=True)
    home.drop(task)
    assert list(home.lineage.tasks) == [task.id]
    home.say(ChildrenGone(task.id), worker(2))
    assert list(home.lineage.tasks) == [task.id]
    home.say(ChildrenGone(task.id), worker(1))
    home.nothing_kept()


def test_results_keep_the_task_when_the_children_are_gone(home: Home, world: World) -> None:
    """Goal: the other way round."""
    task = home.submit()
    home.work(task, children=True)
    home.say(ChildrenGone(task.id), worker(1))
    assert list(home.lineage.tasks) == [task.id]
    home.drop(task)
    world.expect((NEAR, FreeObjects([return_id(task.id, 0)])))
    home.nothing_kept()


def test_worker_with_children_dies(home: Home, world: World) -> None:
    """Goal: holders have CLAIM_SECONDS to claim what it owned; then the task is forgotten."""
    task = home.submit()
    home.work(task, results=[inline()], children=True)
    home.drop(task)
    home.end(1)
    world.take(ReturnLease)
    world.advance(CLAIM_SECONDS - 1)
    assert list(home.lineage.tasks) == [task.id]
    world.advance(2)
    home.nothing_kept()


def test_children_of_two_runs(home: Home, world: World) -> None:
    """Goal: each worker's are told apart: the task is kept until those of the last are gone.

    Method: the value is lost; the second run, at another worker, leaves children too; then the
    first worker says twice that it has none."""
    task = home.submit(max_retries=1)
    home.work(task, children=True)
    home.rest()
    home.node_dies()
    number = home.taken(task)
    assert number == 2
    home.done(task, number, results=[inline()], children=True)
    home.drop(task)
    for _ in range(2):
        home.say(ChildrenGone(task.id), worker(1))
    assert list(home.lineage.tasks) == [task.id]
    home.say(ChildrenGone(task.id), worker(number))
    home.nothing_kept()


def test_children_gone_while_the_task_runs_again(home: Home, world: World) -> None:
    """Goal: the running task is not forgotten under way, and the answer's word counts."""
    task = home.submit()
    home.work(task, children=True)
    home.node_dies()
    number = home.taken(task)
    home.say(ChildrenGone(task.id), worker(1))
    home.drop(task)
    home.done(task, number, results=[inline()])
    home.nothing_kept()


def test_stale_answer_reports_children(home: Home, world: World) -> None:
    """Goal: an attempt that was given up may have left children: the task is kept for them.

    Method: worker 1 is taken for dead; its answer comes when the second attempt is done."""
    task = home.submit(max_retries=1)
    number = home.taken(task)
    home.owner.leasing.node_lost(NODE.node, "taken for dead")
    home.work(task)
    home.say(TaskDone(task.id, 0, [inline()], children=True), worker(number))
    home.drop(task)
    world.take(FreeObjects)
    assert list(home.lineage.tasks) == [task.id]
    home.say(ChildrenGone(task.id), worker(number))
    home.nothing_kept()
