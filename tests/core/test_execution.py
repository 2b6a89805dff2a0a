"""The tasks that lie at a worker: order, gates, arguments, giving back, cancelling, answers."""

from __future__ import annotations

import pytest

from core.world import (
    World,
    failed,
    function_id,
    inline,
    lease,
    node,
    object_id,
    process,
    reference,
    stored,
    task_id,
)
from freehold.core.execution import Execution, Needs, Run
from freehold.core.fetching import Fetching
from freehold.core.ownership import Ownership
from freehold.ids import ObjectId, TaskId
from freehold.wire.fetches import ARGUMENT
from freehold.wire.messages import (
    Address,
    Argument,
    AskGone,
    CancelFetch,
    CancelTask,
    DefineFunction,
    FetchObject,
    FetchTogether,
    Gone,
    Introduce,
    ObjectReady,
    Provide,
    PushTask,
    Reference,
    Release,
    TaskDone,
    TaskReturned,
    UnpinObject,
    Value,
)

NODE, FAR = node(), node("far")
BOSS, THIRD = process("boss"), process("third")
X = object_id("x")


class Bench:
    """A worker whose user code is the test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = Ownership(world)
        self.fetching = Fetching(world, NODE)
        self.execution = Execution(world, self.table, self.fetching)
        self.execution.cancelled_error = lambda run: b"cancelled"
        self.interrupted: list[Run] = []
        self.execution.interrupt = self.interrupted.append
        self.left: dict[TaskId, tuple[bool, list[ObjectId]]] = {}  # what the role knows of a run
        self.execution.run_over = lambda task: self.left.get(task, (False, []))

    def push(
        self,
        name: str,
        *,
        attempt: int = 0,
        deps: list[Argument] | None = None,
        borrowed: list[Reference] | None = None,
        returns: int = 1,
    ) -> None:
        message = PushTask(task_id(name), attempt, lease(1), function_id("f"), b"", returns)
        message.deps, message.borrowed = deps or [], borrowed or []
        self.execution.on_push(message, BOSS)

    def next(self) -> str:
        """The name of the task that user code would run now, or nothing."""
        run = self.execution.next()
        return run.message.task.rstrip(b".").decode() if run is not None else ""

    def finish(self, *results: Value) -> None:
        run = self.execution.current
        assert run is not None
        self.execution.finished(run, list(results) or [inline()], 5, False)


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def done(name: str, *results: Value, attempt: int = 0) -> tuple[Address, TaskDone]:
    return BOSS, TaskDone(task_id(name), attempt, list(results) or [inline()], 5)


def test_in_order_and_answered_once(bench: Bench, world: World) -> None:
    """Goal: first come, first run; a repeated push is the same task; each is answered once."""
    bench.execution.on_define(DefineFunction(function_id("f"), "f", b"code"))
    for name in ("a", "b", "a"):
        bench.push(name)
    assert [bench.next(), bench.finish()] == ["a", None]
    assert [bench.next(), bench.finish()] == ["b", None]
    assert bench.next() == ""
    world.expect(done("a"), done("b"))
    assert (bench.execution.runs, list(bench.execution.functions)) == ({}, [function_id("f")])


def test_a_task_waits_for_its_introductions(bench: Bench, world: World) -> None:
    """Goal: user code sees no reference that its owner has not counted; others may run meanwhile.

    Method: a task with two of THIRD's references and one of BOSS's own; introductions come in
    turn."""
    borrowed = [reference("x", THIRD), reference("y", THIRD), reference("z", BOSS)]
    bench.push("a", borrowed=borrowed)
    bench.push("b")
    assert bench.next() == "b"
    bench.finish()
    for ref in borrowed[:2]:
        assert bench.next() == ""
        bench.table.on_introduce(Introduce(ref, BOSS.process))
    assert bench.next() == "a"
    bench.finish()
    world.expect(
        done("b"),
        done("a"),
        (THIRD, Release(object_id("x"), 1)),
        (THIRD, Release(object_id("y"), 1)),
        (BOSS, Release(object_id("z"), 1)),
    )
    assert bench.table.entries == {}


def test_a_task_waits_for_its_stored_arguments(bench: Bench, world: World) -> None:
    """Goal: it runs when the bytes are here, fetched once though named twice, and keeps one pin."""
    argument = Argument(reference("x", BOSS), stored(100, FAR))
    bench.push("a", deps=[argument, argument])
    world.expect((NODE, FetchObject(X, 100, BOSS, [FAR], ARGUMENT)))
    assert bench.next() == ""
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    assert bench.next() == "a"
    run = bench.execution.current
    assert run is not None
    assert run.found == {X: (64, 100)}
    assert bench.fetching.locals[X].pins == 1
    bench.finish()
    bench.fetching.release(X)  # the task's last view of it is gone
    world.expect(done("a"), (NODE, UnpinObject(X)))


def test_a_lost_argument_fails_the_task(bench: Bench, world: World) -> None:
    """Goal: two arguments lost, one answer; what had arrived is let go."""
    arguments = [Argument(reference(n, BOSS), stored(100, FAR)) for n in "xyz"]
    bench.push("a", deps=arguments, returns=2)
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    (together,) = world.take(FetchTogether)
    assert [wish.object for wish in together.objects] == [object_id(n) for n in "xyz"]
    for name in "yz":
        bench.fetching.relocated(object_id(name), failed(b"lost"))
    lost = TaskDone(task_id("a"), 0, [failed(b"lost")] * 2)
    cancelled = (NODE, CancelFetch(object_id("z")))
    world.expect((NODE, UnpinObject(X)), cancelled, (BOSS, lost))
    assert (bench.next(), bench.execution.runs, bench.fetching.locals) == ("", {}, {})


def test_give_back(bench: Bench, world: World) -> None:
    """Goal: what has not begun goes back to its owner, ready or not; what arrives later is let go.

    Method: one runs, one is ready, one waits for bytes, one for an introduction."""
    for name in ("a", "b"):
        bench.push(name)
    bench.push("c", deps=[Argument(reference("x", BOSS), stored(100, FAR))])
    bench.push("d", borrowed=[reference("y", THIRD)])
    assert bench.next() == "a"
    world.take(FetchObject)
    bench.execution.give_back()
    b, c, d = ((BOSS, TaskReturned(task_id(name), 0)) for name in "bcd")
    world.expect(b, (NODE, CancelFetch(X)), c, d)
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    bench.table.on_introduce(Introduce(reference("y", THIRD), BOSS.process))
    world.expect((NODE, UnpinObject(X)), (THIRD, Release(object_id("y"), 1)))
    bench.push("b", attempt=1)
    bench.finish()
    assert bench.next() == "b"
    bench.finish()
    world.expect(done("a"), done("b", attempt=1))
    assert (bench.table.entries, bench.fetching.locals) == ({}, {})


def test_cancel(bench: Bench, world: World) -> None:
    """Goal: a waiting task is answered as cancelled; a running one is interrupted, by force or
    not, and again only when the grace is over; one that is gone is left alone."""
    for name in ("a", "b"):
        bench.push(name)
    bench.next()
    for name, force in (("b", False), ("a", False), ("a", True), ("c", True)):
        bench.execution.on_cancel(CancelTask(task_id(name), force, True, 1.0))
    world.expect((BOSS, TaskDone(task_id("b"), 0, [failed(b"cancelled")])))
    assert bench.interrupted == [bench.execution.current]
    world.advance(1.0)
    bench.execution.on_cancel(CancelTask(task_id("a"), False, True, 1.0))
    assert bench.interrupted == [bench.execution.current] * 2
    bench.finish(failed(b"cancelled"))
    world.expect(done("a", failed(b"cancelled")))
    assert bench.next() == ""


def test_owner_of_tasks_dies(bench: Bench, world: World) -> None:
    """Goal: nobody waits for them: what runs is interrupted, what waits is dropped in silence."""
    for name in ("a", "b"):
        bench.push(name)
    bench.next()
    bench.execution.peer_lost(BOSS.process)
    assert len(bench.interrupted) == 1
    assert list(bench.execution.runs) == [task_id("a")]
    bench.finish()
    world.take(TaskDone)
    assert bench.next() == ""


def test_results_hand_out_their_references(bench: Bench, world: World) -> None:
    """Goal: a reference in a result is counted before the answer leaves, or its owner is told.

    Method: one of ours and one that came with the task."""
    bench.push("a", borrowed=[reference("x", THIRD)])
    bench.table.on_introduce(Introduce(reference("x", THIRD), BOSS.process))
    bench.next()
    mine = reference("mine", world.address)
    bench.table.own(mine.object).handles = 1
    result = inline(b"r", mine, reference("x", THIRD))
    bench.finish(result)
    bench.table.drop_handle(mine.object)
    world.expect(
        (THIRD, Provide(X, BOSS)),
        done("a", result),
        (THIRD, Release(X, 1)),
    )
    assert bench.table.entries[mine.object].holders == {BOSS.process: 1}


def test_argument_that_was_lost_on_the_way(bench: Bench, world: World) -> None:
    """Goal: an argument that failed between the task's submission and its push is the answer, and
    user code never sees it; what had been asked for is let go.

    Method: three arguments: one pinned here, one to be fetched, one failed; and a reference."""
    bench.fetching.fetch(X, BOSS, stored(100, FAR), Needs(bench.execution, other_run()), ARGUMENT)
    bench.fetching.on_ready(ObjectReady(X, 64, 100))
    arguments = [Argument(reference(n, BOSS), stored(100, FAR)) for n in "xy"]
    arguments.append(Argument(reference("z", BOSS), failed(b"lost")))
    bench.push("a", deps=arguments, borrowed=[reference("r", THIRD)], returns=2)
    world.take(FetchObject)
    lost = TaskDone(task_id("a"), 0, [failed(b"lost")] * 2)
    world.expect((NODE, CancelFetch(object_id("y"))), (BOSS, lost))
    assert (bench.next(), bench.execution.runs, bench.fetching.locals[X].pins) == ("", {}, 1)
    bench.fetching.on_ready(ObjectReady(object_id("y"), 192, 100))
    bench.table.on_introduce(Introduce(reference("r", THIRD), BOSS.process))
    world.expect((NODE, UnpinObject(object_id("y"))), (THIRD, Release(object_id("r"), 1)))
    assert bench.table.entries == {}


def other_run() -> Run:
    return Run(PushTask(task_id("other"), 0, lease(1), function_id("f"), b""), BOSS)


def test_submitter_dies_while_it_hands_a_task_over(bench: Bench, world: World) -> None:
    """Goal: a task whose references nobody will introduce is dropped, and nothing is left of it.

    Method: the submitter's stream ends before the owner has heard of the reference; the owner says
    that it will not."""
    bench.push("a", borrowed=[reference("x", THIRD)])
    bench.table.peer_lost(BOSS.process)
    bench.execution.peer_lost(BOSS.process)
    world.expect((THIRD, AskGone(BOSS.process)))
    bench.table.on_gone(Gone(BOSS.process), THIRD.process)
    assert (bench.next(), bench.execution.runs) == ("", {})
    assert (bench.table.entries, bench.table.gates) == ({}, {})
