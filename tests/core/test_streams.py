"""Streams at their owner: values that arrive one by one, are taken in order, lost, made again.

The node and the workers are played by the test; the owner is the real one.
"""

from __future__ import annotations

import pytest

from core.owners import NEAR, NODE, Home, worker
from core.world import World, failed, info, inline, process, reference, stored, task_id
from freehold.core.entries import Entry
from freehold.core.streams import NO_MORE, OPEN, STREAM_BYTES, WINDOW, Stream, StreamTask
from freehold.core.submission import DONE
from freehold.wire.messages import (
    CloseStream,
    FreeObjects,
    Introduce,
    NodeChanged,
    ObjectAt,
    PushTask,
    Release,
    ReturnLease,
    StreamEnd,
    StreamItem,
    StreamTaken,
    StreamTerms,
    TaskDone,
    Value,
)


class Source(Home):
    """An owner with one stream; the test is the worker that makes it."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.streams = self.owner.streams
        self.at_worker = 0

    def stream(self, window: int = 0, **options: int) -> Stream:
        """A stream whose task has come to a worker."""
        self.count += 1
        name = f"t{self.count}"
        task = StreamTask(
            task_id(name),
            self.function("f", 1.0),
            b"args",
            resources={"CPU": 10_000},
            name=name,
            **options,  # type: ignore[arg-type]
        )
        task.stream = Stream(task, window)
        self.owner.submit(task)
        return task.stream

    def push(self, stream: Stream) -> StreamTerms:
        """The task comes to a worker: on what terms."""
        self.at_worker, message = self.push_of(stream.task)
        assert isinstance(message, PushTask)
        assert message.stream is not None
        return message.stream

    def item(self, stream: Stream, number: int, value: Value | None = None) -> None:
        task = stream.task
        value = value or inline(b"v%d" % number)
        self.say(StreamItem(task.id, task.attempt, number, value), worker(self.at_worker))

    def over(self, stream: Stream, made: int, result: Value | None = None) -> None:
        """The run ends, having made so many."""
        task = stream.task
        self.say(StreamEnd(task.id, task.attempt, made), worker(self.at_worker))
        self.done(task, self.at_worker, results=[result or inline(b"%d" % made)])

    def next(self, stream: Stream) -> Entry | None:
        return self.streams.next(stream)

    def take(self, stream: Stream) -> Value | None:
        """What a consumer gets that takes the next value and keeps its reference."""
        entry = self.next(stream)
        assert entry is not None
        if entry.value is None:
            return None
        self.streams.take(stream, entry)
        return entry.value

    def entry(self, stream: Stream, number: int) -> Entry | None:
        return self.owner.ownership.entries.get(stream.id(number))

    def forget(self, stream: Stream, *numbers: int) -> None:
        """The consumer drops references that it has taken."""
        for number in numbers:
            self.owner.ownership.drop_handle(stream.id(number))

    def node_dies(self) -> None:
        self.say(NodeChanged(info(NEAR, {}, alive=False, reason="lost power")))


@pytest.fixture
def source(world: World) -> Source:
    return Source(world)


# -- one run --------------------------------------------------------------------------------------


def test_values_are_taken_in_order_until_the_end(source: Source, world: World) -> None:
    """Goal: each value once, in order, then the end, and nothing left. Method: two values; take
    them, ask for a third before the task is over, and let it end without one.
    """
    stream = source.stream()
    assert source.push(stream) == StreamTerms(WINDOW, 0, -1)
    source.item(stream, 1)
    source.item(stream, 2)
    assert source.take(stream) == inline(b"v1")
    assert source.take(stream) == inline(b"v2")
    assert source.take(stream) is None
    third = source.entry(stream, 3)
    assert third is not None
    source.over(stream, 2)
    assert source.next(stream) is None
    assert (third.value, source.entry(stream, 3)) == (NO_MORE, None)
    assert source.value(stream.task) == inline(b"2")
    source.forget(stream, 1, 2, 0)
    assert source.owner.ownership.entries == {}
    source.rest()


def test_a_value_may_be_awaited_before_it_comes(source: Source, world: World) -> None:
    """Goal: to wait for the next value is to wait for an object. Method: a wait on what
    ``awaited`` names is done when the value arrives, another when the stream ends, and a third
    is done at once, because there is nothing more to wait for.
    """
    stream = source.stream()
    source.push(stream)
    rung: list[str] = []
    first = source.owner.wait([source.streams.awaited(stream)], 1, False, lambda: rung.append("1"))
    assert not first.done
    source.item(stream, 1)
    assert (first.done, rung) == (True, ["1"])
    source.take(stream)
    second = source.owner.wait([source.streams.awaited(stream)], 1, False, lambda: rung.append("2"))
    source.over(stream, 1)
    assert (second.done, rung) == (True, ["1", "2"])
    third = source.owner.wait([source.streams.awaited(stream)], 1, False, lambda: None)
    assert third.done
    source.forget(stream, 1, 0)
    source.rest()


@pytest.mark.parametrize("taken", [0, 1])
def test_an_error_is_the_last_value(source: Source, world: World, taken: int) -> None:
    """Goal: what came before an error stays, the error stands in its place, then comes the end.
    Method: one value, then the task fails; the value was taken before or not.
    """
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1)
    if taken:
        source.take(stream)
        assert source.take(stream) is None  # somebody waits for what will be the error
    source.over(stream, 1, failed(b"boom"))
    if not taken:
        assert source.take(stream) == inline(b"v1")
    assert source.take(stream) == failed(b"boom")
    assert source.next(stream) is None
    assert source.value(stream.task) == failed(b"boom")
    source.forget(stream, 1, 2, 0)
    assert source.owner.ownership.entries == {}
    source.rest()


def test_a_task_that_is_cancelled_before_it_ran(source: Source, world: World) -> None:
    """Goal: a failure from outside reaches the consumer as any error. Method: cancel it while it
    is queued.
    """
    stream = source.stream()
    source.owner.cancel(stream.id(0), force=False, recursive=False)
    assert source.take(stream) == failed(b"cancelled: t1")
    assert source.next(stream) is None
    source.forget(stream, 1, 0)
    source.grant(1)
    source.rest()


def test_a_value_with_references_is_ready_when_they_are_known(source: Source, world: World) -> None:
    """Goal: count before name, also in a stream, and in order. Method: the first value carries a
    borrowed reference that its owner has not introduced yet; the second is plain.
    """
    stream = source.stream()
    source.push(stream)
    owner = process("owner")
    x = reference("x", owner)
    source.item(stream, 1, inline(b"v1", x))
    source.item(stream, 2)
    assert source.take(stream) is None
    source.say(Introduce(x, worker(source.at_worker).process), owner)
    assert source.take(stream) == inline(b"v1", x)
    assert source.take(stream) == inline(b"v2")
    source.over(stream, 2)
    source.forget(stream, 1, 2, 0)
    assert world.one(Release, owner) == Release(x.object, 1)
    source.rest()


# -- not too many ---------------------------------------------------------------------------------


def test_the_worker_hears_of_half_a_window(source: Source, world: World) -> None:
    """Goal: one message for half of the window. Method: a window of six; take six, one by one."""
    stream = source.stream(window=6)
    assert source.push(stream) == StreamTerms(6, 0, -1)
    heard = []
    for number in range(1, 7):
        source.item(stream, number)
        source.take(stream)
        heard += world.take(StreamTaken, worker(source.at_worker))
    task = stream.task.id
    assert heard == [StreamTaken(task, 3, 6), StreamTaken(task, 6, 6)]
    source.over(stream, 6)
    source.forget(stream, *range(7))
    source.rest()


def test_large_values_count_by_their_bytes(source: Source, world: World) -> None:
    """Goal: a few large values do not fill the store. Method: the worker hears of each value that
    is half of what may lie untaken.
    """
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1, stored(STREAM_BYTES // 2, NEAR))
    source.take(stream)
    assert world.one(StreamTaken) == StreamTaken(stream.task.id, 1, WINDOW)
    source.over(stream, 1)
    source.forget(stream, 1, 0)
    assert world.one(FreeObjects, NEAR) == FreeObjects([stream.id(1)])
    source.rest()


def test_who_waits_for_the_end_opens_the_window(source: Source, world: World) -> None:
    """Goal: to wait for the whole without taking anything does not wait for ever. Method: open the
    window while the task runs, and look at what the worker and a later run are told.
    """
    stream = source.stream()
    source.push(stream)
    source.streams.open(stream)
    assert world.one(StreamTaken) == StreamTaken(stream.task.id, 0, OPEN)
    source.end(source.at_worker)
    assert source.push(stream) == StreamTerms(OPEN, 0, -1)
    source.over(stream, 0)
    source.forget(stream, 0)
    source.rest()


# -- nobody wants more ----------------------------------------------------------------------------


def test_close_frees_what_was_not_taken_and_stops_the_worker(source: Source, world: World) -> None:
    """Goal: an early end keeps what was taken, frees the rest, also what arrives late. Method:
    three stored values, one taken; close; a fourth arrives.
    """
    stream = source.stream()
    source.push(stream)
    for number in (1, 2, 3):
        source.item(stream, number, stored(100, NEAR))
    source.take(stream)
    source.streams.close(stream)
    assert source.next(stream) is None
    world.expect(
        (NEAR, FreeObjects([stream.id(2)])),
        (NEAR, FreeObjects([stream.id(3)])),
        (worker(source.at_worker), CloseStream(stream.task.id)),
    )
    source.item(stream, 4, stored(100, NEAR))
    world.expect((NEAR, FreeObjects([stream.id(4)])))
    source.over(stream, 4)
    assert source.owner.lineage.tasks == {stream.task.id: stream.task}
    source.forget(stream, 0, 1)
    world.expect((NEAR, FreeObjects([stream.id(1)])))
    assert (source.owner.lineage.tasks, source.owner.ownership.entries) == ({}, {})
    source.rest()


def test_close_wakes_who_waits(source: Source, world: World) -> None:
    """Goal: nobody waits for a value that will not come. Method: wait for the next one; close."""
    stream = source.stream()
    source.push(stream)
    waiting = source.owner.wait([source.streams.awaited(stream)], 1, False, lambda: None)
    source.streams.close(stream)
    assert waiting.done
    world.take(CloseStream)
    source.over(stream, 0)
    source.forget(stream, 0)
    source.rest()


def test_close_of_what_was_never_sent_cancels_it(source: Source, world: World) -> None:
    """Goal: a stream dropped while its task is queued costs nothing. Method: close it there."""
    stream = source.stream()
    source.streams.close(stream)
    assert source.owner.submission.tasks == {}
    source.forget(stream, 0)
    source.grant(1)
    source.rest()


def test_a_closed_stream_whose_worker_dies_does_not_run_again(source: Source, world: World) -> None:
    """Goal: nothing is made for nobody. Method: close, then the worker dies before it has heard."""
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1)
    source.streams.close(stream)
    world.take(CloseStream)
    source.end(source.at_worker)
    assert source.owner.submission.tasks == {}
    source.forget(stream, 0)
    source.rest()


# -- further runs ---------------------------------------------------------------------------------


def test_a_second_run_goes_on_where_the_first_ended(source: Source, world: World) -> None:
    """Goal: exactly once, in order, over the death of a worker. Method: three values, two taken;
    the worker dies; the next run yields the same and one more, and the terms tell it what was
    taken.
    """
    stream = source.stream()
    source.push(stream)
    for number in (1, 2, 3):
        source.item(stream, number)
    source.take(stream)
    source.take(stream)
    source.end(source.at_worker)
    assert source.push(stream) == StreamTerms(WINDOW, 2, -1)
    for number in (1, 2, 3, 4):
        source.item(stream, number, inline(b"again %d" % number))
    assert source.take(stream) == inline(b"v3")
    assert source.take(stream) == inline(b"again 4")
    source.over(stream, 4)
    assert source.next(stream) is None
    source.forget(stream, *range(5))
    source.rest()


def test_a_second_copy_of_a_value_is_freed(source: Source, world: World) -> None:
    """Goal: a re-run leaves no copies behind. Method: a stored value comes a second time, on
    another node, while the first is held; and one that was dropped meanwhile.
    """
    stream = source.stream()
    source.push(stream)
    for number in (1, 2):
        source.item(stream, number, stored(100, NEAR))
        source.take(stream)
    source.forget(stream, 2)
    world.expect((NEAR, FreeObjects([stream.id(2)])))
    source.end(source.at_worker)
    source.push(stream)
    for number in (1, 2):
        source.item(stream, number, stored(100, NODE))
    world.expect((NODE, FreeObjects([stream.id(1)])), (NODE, FreeObjects([stream.id(2)])))
    source.over(stream, 2)
    source.forget(stream, 0, 1)
    world.take(FreeObjects)
    source.rest()


def test_a_run_that_yields_fewer_is_an_error(source: Source, world: World) -> None:
    """Goal: a function that does not yield the same again is told so, in place. Method: two
    values; the worker dies; the next run ends after one.
    """
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1)
    source.item(stream, 2)
    source.end(source.at_worker)
    source.push(stream)
    source.item(stream, 1)
    source.over(stream, 1)
    assert [source.take(stream) for _ in range(3)] == [
        inline(b"v1"),
        inline(b"v2"),
        failed(b"replay_failed: t1"),
    ]
    assert source.next(stream) is None
    source.forget(stream, *range(4))
    source.rest()


def test_a_stale_run_is_refused(source: Source, world: World) -> None:
    """Goal: what a buried worker said cannot count. Method: an item of the first attempt after the
    second has begun, and one after all is over.
    """
    stream = source.stream()
    source.push(stream)
    old = stream.task.attempt
    source.end(source.at_worker)
    source.push(stream)
    source.say(StreamItem(stream.task.id, old, 1, stored(9, NEAR)), worker(9))
    assert stream.arrived == 0
    source.over(stream, 0)
    source.say(StreamItem(stream.task.id, old, 1, stored(9, NEAR)), worker(9))
    assert world.one(FreeObjects, NEAR) == FreeObjects([stream.id(1)])
    source.forget(stream, 0)
    source.rest()


# -- lost values ----------------------------------------------------------------------------------


def finished_stream(source: Source, world: World, *, taken: int) -> Stream:
    """A stream of three stored values at NEAR, of which some were taken; the task is over."""
    stream = source.stream()
    source.push(stream)
    for number in (1, 2, 3):
        source.item(stream, number, stored(100, NEAR))
    for _ in range(taken):
        source.take(stream)
    source.over(stream, 3)
    world.take(ReturnLease)
    return stream


def test_lost_values_are_made_again(source: Source, world: World) -> None:
    """Goal: lineage brings values of a stream back under their ids. Method: three values, two
    taken; their node dies; the task runs again and brings all three.
    """
    stream = finished_stream(source, world, taken=2)
    source.node_dies()
    source.push(stream)
    for number in (1, 2, 3):
        source.item(stream, number, stored(100, NODE))
    source.over(stream, 3)
    for number in (1, 2):
        entry = source.entry(stream, number)
        assert entry is not None
        assert entry.value == stored(100, NODE)
    assert source.take(stream) == stored(100, NODE)
    assert source.next(stream) is None
    source.forget(stream, *range(4))
    assert len(world.take(FreeObjects, NODE)) == 3
    source.rest()


def test_what_a_second_run_does_not_bring_is_an_error(source: Source, world: World) -> None:
    """Goal: a lost value that cannot be made again says so. Method: the re-run brings two of three
    lost values, or fails after one.
    """
    stream = finished_stream(source, world, taken=3)
    source.node_dies()
    source.push(stream)
    source.item(stream, 1, stored(100, NODE))
    source.item(stream, 2, stored(100, NODE))
    source.over(stream, 2)
    values = [entry.value for n in (1, 2, 3) if (entry := source.entry(stream, n)) is not None]
    assert values == [stored(100, NODE), stored(100, NODE), failed(b"replay_failed: t1")]
    source.forget(stream, *range(4))
    world.take(FreeObjects, NODE)
    source.rest()


def test_a_closed_stream_that_raises_does_not_run_again(source: Source, world: World) -> None:
    """Goal: nobody wants what a further attempt would bring. Method: a stream that may be retried
    is closed; its run, which had not heard of that yet, ends with an exception to retry."""
    stream = source.stream(max_retries=3, retry_exceptions=b"*")
    source.push(stream)
    source.item(stream, 1)
    source.streams.close(stream)
    world.sent.clear()
    task = stream.task
    source.say(StreamEnd(task.id, task.attempt, 1), worker(source.at_worker))
    done = TaskDone(task.id, task.attempt, [failed(b"KeyError")], 10, True)
    source.say(done, worker(source.at_worker))
    assert (task.state, task.attempt) == (DONE, 0)
    assert world.take(PushTask) == []


def test_a_closed_stream_runs_again_only_as_far_as_needed(source: Source, world: World) -> None:
    """Goal: a value taken before the close comes back, and no more is made. Method: close after one
    of three, lose it, and read the terms of the new run.
    """
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1, stored(100, NEAR))
    source.take(stream)
    source.streams.close(stream)
    world.take(CloseStream)
    source.over(stream, 1)
    source.node_dies()
    assert source.push(stream) == StreamTerms(WINDOW, 1, 1)
    source.item(stream, 1, stored(100, NODE))
    source.over(stream, 1)
    source.forget(stream, 0, 1)
    assert world.one(FreeObjects, NODE) == FreeObjects([stream.id(1)])
    source.rest()


def test_lost_after_the_run_has_brought_it(source: Source, world: World) -> None:
    """Goal: a value that is lost while its task still runs is waited for without a deadlock.
    Method: the copy of the first value goes while the run is at the second: the window opens, and
    when the run is over the task runs once more.
    """
    stream = source.stream()
    source.push(stream)
    source.item(stream, 1, stored(100, NEAR))
    source.take(stream)
    source.item(stream, 2)
    source.say(ObjectAt(stream.id(1), NEAR, False), NEAR)
    first = source.entry(stream, 1)
    assert first is not None
    assert first.value is None
    assert world.one(StreamTaken) == StreamTaken(stream.task.id, 1, OPEN)
    source.over(stream, 2)
    world.advance(0.0)
    assert source.push(stream) == StreamTerms(OPEN, 1, -1)
    source.item(stream, 1, stored(100, NODE))
    source.item(stream, 2)
    source.over(stream, 2)
    assert first.value == stored(100, NODE)
    assert source.take(stream) == inline(b"v2")
    source.forget(stream, *range(3))
    world.take(FreeObjects)
    source.rest()
