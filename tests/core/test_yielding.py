"""A stream at its worker: values go out in order, and not more than its owner has room for."""

from __future__ import annotations

import pytest

from core.world import World, function_id, inline, lease, node, process, reference, stored, task_id
from freehold.core.execution import Execution, Run
from freehold.core.fetching import Fetching
from freehold.core.ownership import Ownership
from freehold.core.streams import OPEN, STREAM_BYTES
from freehold.core.yielding import Outgoing, Yielding
from freehold.ids import ObjectId, TaskId
from freehold.wire.messages import (
    CloseStream,
    Provide,
    PushTask,
    StreamEnd,
    StreamItem,
    StreamTaken,
    StreamTerms,
    TaskDone,
)

NODE, BOSS, OWNER = node(), process("boss"), process("owner")
TASK = task_id("t")


class Bench:
    """A worker with one task that yields; its user code is the test."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = Ownership(world)
        self.execution = Execution(world, self.table, Fetching(world, NODE))
        self.execution.cancelled_error = lambda run: b"cancelled"
        self.execution.run_over = self.over
        self.interrupted: list[Run] = []
        self.execution.interrupt = self.interrupted.append
        self.yielding = Yielding(world, self.table, self.execution)
        self.woken = 0

    @staticmethod
    def over(task: TaskId) -> tuple[bool, list[ObjectId]]:
        return False, []

    def push(self, terms: StreamTerms) -> Run:
        message = PushTask(TASK, 0, lease(1), function_id("f"), b"", stream=terms)
        self.execution.on_push(message, BOSS)
        return self.execution.runs[TASK]

    def begin(self, window: int = 3, taken: int = 0, limit: int = -1) -> Outgoing:
        """The task runs."""
        self.push(StreamTerms(window, taken, limit))
        run = self.execution.next()
        assert run is not None
        return self.yielding.begin(run)

    def give(self, outgoing: Outgoing, count: int = 1, size: int = 1) -> None:
        """So many values, which are sent."""
        for _ in range(count):
            self.yielding.give(outgoing, stored(size, NODE))
        sent = [(item.task, item.attempt) for item in self.world.take(StreamItem, BOSS)]
        assert sent == [(TASK, 0)] * count

    def sleep(self, outgoing: Outgoing) -> None:
        """User code waits for room."""
        assert not outgoing.done
        outgoing.wake = self.rise

    def rise(self) -> None:
        self.woken += 1


@pytest.fixture
def bench(world: World) -> Bench:
    return Bench(world)


def test_values_are_numbered_and_counted(bench: Bench, world: World) -> None:
    """Goal: the owner can tell each value and knows when it has them all. Method: two, and the
    end; nothing is left.
    """
    outgoing = bench.begin()
    bench.yielding.give(outgoing, inline(b"a"))
    bench.yielding.give(outgoing, inline(b"b"))
    bench.yielding.end(outgoing)
    world.expect(
        (BOSS, StreamItem(TASK, 0, 1, inline(b"a"))),
        (BOSS, StreamItem(TASK, 0, 2, inline(b"b"))),
        (BOSS, StreamEnd(TASK, 0, 2)),
    )
    assert bench.yielding.streams == {}


def test_references_are_handed_out_before_the_value(bench: Bench, world: World) -> None:
    """Goal: count before name. Method: a value that carries a borrowed reference."""
    outgoing = bench.begin()
    x = reference("x", OWNER)
    value = inline(b"a", x)
    bench.yielding.give(outgoing, value)
    world.expect((OWNER, Provide(x.object, BOSS)), (BOSS, StreamItem(TASK, 0, 1, value)))


def test_a_full_window_waits_for_the_consumer(bench: Bench, world: World) -> None:
    """Goal: as many values as the window lie untaken, and no more; who waits is woken once, when
    there is room. Method: fill a window of three; two words of the owner, the first of old news.
    """
    outgoing = bench.begin(window=3)
    bench.give(outgoing, 2)
    assert outgoing.done
    bench.give(outgoing)
    bench.sleep(outgoing)
    bench.yielding.on_taken(StreamTaken(TASK, 0, 3))
    assert (outgoing.done, bench.woken) == (False, 0)
    bench.yielding.on_taken(StreamTaken(TASK, 2, 3))
    bench.yielding.on_taken(StreamTaken(TASK, 3, 3))
    assert (outgoing.done, bench.woken, outgoing.untaken) == (True, 1, 0)


def test_bytes_are_bounded_too(bench: Bench, world: World) -> None:
    """Goal: large values stop the run before their number does, one always may lie there. Method:
    one value of all the bytes there may be; then it is taken.
    """
    outgoing = bench.begin(window=100)
    bench.give(outgoing, size=STREAM_BYTES)
    bench.sleep(outgoing)
    bench.yielding.on_taken(StreamTaken(TASK, 1, 100))
    assert (outgoing.done, bench.woken) == (True, 1)


def test_an_open_window_never_closes(bench: Bench, world: World) -> None:
    """Goal: a consumer that waits for the end of it all does not wait for ever. Method: a full
    window is opened; neither number nor bytes stop the run then.
    """
    outgoing = bench.begin(window=1)
    bench.give(outgoing)
    bench.sleep(outgoing)
    bench.yielding.on_taken(StreamTaken(TASK, 0, OPEN))
    bench.give(outgoing, size=2 * STREAM_BYTES)
    assert (outgoing.done, bench.woken) == (True, 1)


def test_what_an_earlier_run_gave_counts_as_taken(bench: Bench, world: World) -> None:
    """Goal: a run that replaces another is not held back by values that were taken long ago.
    Method: five were taken, the window is one; the sixth value fills it, and its taking empties it.
    """
    outgoing = bench.begin(window=1, taken=5)
    bench.give(outgoing, 5)
    assert (outgoing.done, outgoing.untaken) == (True, 0)
    bench.give(outgoing)
    assert (outgoing.done, outgoing.untaken) == (False, 1)
    bench.yielding.on_taken(StreamTaken(TASK, 6, 1))
    assert (outgoing.done, outgoing.untaken) == (True, 0)


def test_words_of_the_owner_before_the_run_has_begun(bench: Bench, world: World) -> None:
    """Goal: what the owner says early is not lost. Method: it opens the window of a queued task."""
    bench.push(StreamTerms(1, 0))
    bench.yielding.on_taken(StreamTaken(TASK, 2, OPEN))
    run = bench.execution.next()
    assert run is not None
    outgoing = bench.yielding.begin(run)
    assert (outgoing.window, outgoing.taken) == (OPEN, 2)


def test_a_limit_ends_the_run(bench: Bench, world: World) -> None:
    """Goal: a re-run makes no more than is wanted. Method: a limit of two."""
    outgoing = bench.begin(window=1, taken=2, limit=2)
    bench.give(outgoing)
    assert not outgoing.unwanted
    bench.give(outgoing)
    assert (outgoing.unwanted, outgoing.done) == (True, True)


def test_close_wakes_and_interrupts(bench: Bench, world: World) -> None:
    """Goal: a consumer that is gone stops the run wherever it is. Method: close while it waits."""
    outgoing = bench.begin(window=1)
    bench.give(outgoing)
    bench.sleep(outgoing)
    bench.yielding.on_close(CloseStream(TASK))
    assert (outgoing.unwanted, bench.woken, bench.interrupted) == (True, 1, [outgoing.run])
    bench.yielding.end(outgoing)
    assert world.one(StreamEnd, BOSS) == StreamEnd(TASK, 0, 1)
    bench.yielding.on_close(CloseStream(TASK))  # late


def test_close_before_the_run_drops_it(bench: Bench, world: World) -> None:
    """Goal: nothing runs for nobody. Method: close a task that lies in the queue."""
    bench.push(StreamTerms(3))
    bench.yielding.on_close(CloseStream(TASK))
    assert world.one(TaskDone, BOSS).results[0].data == b"cancelled"
    assert bench.execution.next() is None


def test_a_cancelled_run_goes_on_to_its_end(bench: Bench, world: World) -> None:
    """Goal: a run that waits for room hears of its cancel. Method: cancel, and nudge as the role
    does.
    """
    outgoing = bench.begin(window=1)
    bench.give(outgoing)
    bench.sleep(outgoing)
    outgoing.run.cancelled = True
    bench.yielding.nudge(TASK)
    assert (outgoing.done, bench.woken) == (True, 1)


def test_a_dead_owner_wants_nothing(bench: Bench, world: World) -> None:
    """Goal: a run whose owner is gone ends, and says nothing to the dead. Method: the owner dies
    while the run waits; one more value is not sent.
    """
    outgoing = bench.begin(window=1)
    bench.give(outgoing)
    bench.sleep(outgoing)
    bench.table.peer_lost(BOSS.process)
    bench.yielding.peer_lost(BOSS.process)
    assert (outgoing.unwanted, bench.woken) == (True, 1)
    bench.yielding.give(outgoing, inline(b"late"))
    bench.yielding.end(outgoing)
    world.expect()
