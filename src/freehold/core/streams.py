"""Streams, the owner's side: generator tasks whose values become objects one by one.

A stream is a task like any other (``submission``, ``leasing``, ``lineage``), whose one return
value, number 0, is how many values it has yielded. Besides, each value that it yields arrives in a
message of its own and is an object ``return_id(task, number)``, numbered from 1.

The life of one value: (asked for ->) arrived -> taken -> freed as any object. Until it is taken,
the stream holds its entry by a pin; the consumer who takes it gets a handle. The entry of the next
value may be made before the value arrives, if somebody wants to wait for it: then to wait for the
next value is to wait for an object, by the machinery of ``get`` and ``wait``. When the stream ends
without that value, the entry is resolved with ``NO_MORE``, which nobody reads.

*Exactly once, in order.* A run that replaces another (its worker has died, it raised and shall be
retried, or a stored value was lost) yields under the same numbers. What is there already stays;
what is lost is put in its place; the rest is new. A run that ends before all numbers were there
again is an error, which stands in the place of what is missing.

*Not too many.* The worker goes on as long as fewer than ``window`` values, and less than
``STREAM_BYTES``, lie untaken (``yielding``). We tell it what was taken when that is half of either:
a message for 500 values, and the producer never waits for a consumer that keeps pace.

*Errors in place.* What the task fails with, for whatever reason, becomes one more value, the last.

*Nobody wants more* (``close``): what was not taken is freed, and the producer stopped. The task is
not cancelled by that: what was taken from it can be made again if it is lost, up to that number.

Races considered: values that arrive after the close (freed); a value that is lost while a run is on
its way (it will bring it), or after that run has brought it (the run goes on to its end, unhindered
by the window, and then the task runs once more); a value of a stale attempt (refused); references
inside a value that are introduced late (the value is not ready before; later ones may be, but are
taken after it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from freehold.core.calls import ActorTask
from freehold.core.entries import Entry
from freehold.core.lineage import Lineage
from freehold.core.ownership import Ownership
from freehold.core.submission import DONE, PUSHED, Submission, Task
from freehold.core.world import World
from freehold.ids import ObjectId, return_id
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    CloseStream,
    FreeObjects,
    Reference,
    StreamEnd,
    StreamItem,
    StreamTaken,
    StreamTerms,
    Value,
)

#: Values that may lie untaken, unless the user says otherwise: at 100,000 a second, which is what
#: one worker makes, they last for 10 ms, a hundred times as long as it takes to ask for more.
WINDOW: Final = 1000
#: Bytes of values that may lie untaken, whatever their number; one value always may.
STREAM_BYTES: Final = 64 << 20
#: A window that never closes.
OPEN: Final = 1 << 31

NO_MORE: Final = Value(FAILED)


class Stream:
    """One stream at its owner.

    ``arrived``, ``taken``: so many values were seen and handed out, in order; ``told``: so many of
    these the worker knows to be taken, ``bytes``: what they had together since. ``attempt``,
    ``brought``: the last run that we have heard of, and the number of the last value that it
    brought. ``total``: how many there are, None until known. ``firm``: the user has set the window.
    ``stored``: whether any was too large for a message. ``lost``: values that are to be made again.
    """

    __slots__ = (
        "arrived",
        "attempt",
        "brought",
        "bytes",
        "closed",
        "firm",
        "lost",
        "stored",
        "taken",
        "task",
        "told",
        "total",
        "window",
    )

    def __init__(self, task: Task, window: int) -> None:
        self.task = task
        self.firm = window > 0
        self.window = window or WINDOW
        self.arrived = 0
        self.taken = 0
        self.told = 0
        self.bytes = 0
        self.attempt = 0
        self.brought = 0
        self.total: int | None = None
        self.closed = False
        self.stored = False
        self.lost: set[ObjectId] = set()

    def id(self, number: int) -> ObjectId:
        """The object that is value number ``number``."""
        return return_id(self.task.id, number)

    def objects(self) -> list[ObjectId]:
        """All values that have arrived, if any of them was stored: others cannot be lost."""
        if not self.stored:
            return []
        return [self.id(number) for number in range(1, self.arrived + 1)]

    @property
    def spent(self) -> bool:
        """Whether nothing that a further run could bring is wanted."""
        return self.closed and not self.lost

    def progress(self, attempt: int, number: int) -> None:
        """A run has come so far."""
        self.attempt = attempt
        self.brought = number

    def brought_now(self) -> int:
        """How far the task's present run has come."""
        return self.brought if self.attempt == self.task.attempt else 0

    def terms(self) -> StreamTerms:
        """What the next run of the task is told."""
        self.told, self.bytes = self.taken, 0
        return StreamTerms(self.window, self.taken, self.arrived if self.closed else -1)


class StreamTask(Task):
    """A task that yields its values."""

    __slots__ = ("stream",)

    stream: Stream


class StreamCall(ActorTask):
    """A call of an actor's method that yields its values."""

    __slots__ = ("stream",)

    stream: Stream


class Streams:
    """The streams of one owner."""

    def __init__(
        self, world: World, ownership: Ownership, submission: Submission, lineage: Lineage
    ) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.lineage = lineage
        self.cancel: Callable[[Task], None]  # the role's: a task that was not pushed yet
        self.replay_failed: Callable[[Task, int, int], bytes]  # the role's: an error's shipped form

    # ------------------------------------------------------------------ the consumer

    def next(self, stream: Stream) -> Entry | None:
        """The next value to be taken, there already or not; None: there are no more."""
        if stream.closed or stream.taken == stream.total:
            return None
        object_id = stream.id(stream.taken + 1)
        entry = self.ownership.entries.get(object_id)
        return self.expect(stream, object_id) if entry is None else entry

    def expect(self, stream: Stream, object_id: ObjectId) -> Entry:
        """A value that comes next, or has come: held by the stream until it is taken."""
        entry = self.ownership.own(object_id, stream.task.origin)
        entry.task = stream.task
        entry.pins += 1
        return entry

    def awaited(self, stream: Stream) -> ObjectId:
        """What to wait for if one wants to know that ``next`` has an answer."""
        entry = self.next(stream)
        return stream.id(0) if entry is None else entry.object

    def take(self, stream: Stream, entry: Entry) -> Reference:
        """Hand the next value out, which is there: the caller makes a handle of it."""
        value = entry.value
        assert value is not None
        assert not stream.closed
        entry.handles += 1
        entry.pins -= 1
        stream.taken += 1
        stream.bytes += value.size or len(value.data)
        if stream.total is None and (
            2 * (stream.taken - stream.told) >= stream.window or 2 * stream.bytes >= STREAM_BYTES
        ):
            self.tell(stream)
        return Reference(entry.object, self.world.address, entry.line)

    def tell(self, stream: Stream) -> None:
        """The worker may go on."""
        stream.told, stream.bytes = stream.taken, 0
        worker = self.worker(stream)
        if worker is not None:
            self.world.send(worker, StreamTaken(stream.task.id, stream.taken, stream.window))

    def worker(self, stream: Stream) -> Address | None:
        """Where the task is, if it was pushed."""
        task = stream.task
        if task.state is not PUSHED or task.id not in self.submission.tasks:
            return None
        return task.lease.worker  # type: ignore[attr-defined,no-any-return]  # a leasing.Lease

    def open(self, stream: Stream) -> None:
        """The producer is held back no more: somebody waits for what comes after all the rest."""
        stream.window = OPEN
        self.tell(stream)

    def close(self, stream: Stream) -> None:
        """Nobody wants more of it."""
        if stream.closed:
            return
        stream.closed = True
        for number in range(stream.taken + 1, stream.arrived + 2):
            self.withdraw(stream, number)
        if stream.total is not None:
            return
        worker = self.worker(stream)
        if worker is not None:
            self.world.send(worker, CloseStream(stream.task.id))
        elif stream.task.state is not DONE:
            self.cancel(stream.task)

    def withdraw(self, stream: Stream, number: int) -> None:
        """A value that will not be taken, or will not come."""
        entry = self.ownership.entries.get(stream.id(number))
        if entry is None:
            return
        if number > stream.arrived:
            entry.task = None
        if entry.value is None:  # someone may wait for it
            self.ownership.resolve(entry, NO_MORE)
        entry.pins -= 1
        self.ownership.collect(entry)

    # ------------------------------------------------------------------ the producer

    def on_item(self, message: StreamItem, worker: Address) -> None:
        """A value."""
        object_id, value = return_id(message.task, message.number), message.value
        task = self.submission.tasks.get(message.task)
        stream = task.stream if task is not None else None
        if task is None or stream is None or task.attempt != message.attempt:
            self.submission.refuse(object_id, value, worker, free=task is None)
            return
        stream.progress(message.attempt, message.number)
        entry = self.ownership.entries.get(object_id)
        if message.number > stream.arrived and not stream.closed:
            stream.arrived = message.number
            entry = entry or self.expect(stream, object_id)
            entry.task = task if value.kind == STORED else None
            stream.stored = stream.stored or value.kind == STORED
        stream.lost.discard(object_id)
        self.clear_up(object_id, value.nodes)
        if entry is None:
            self.submission.unwanted(object_id, value, worker, value.nodes)
        else:
            self.submission.result(entry, value, worker)

    def on_end(self, message: StreamEnd) -> None:
        """A run has yielded all it will."""
        task = self.submission.tasks.get(message.task)
        if task is not None and task.stream is not None and task.attempt == message.attempt:
            task.stream.progress(message.attempt, message.count)

    def clear_up(self, object_id: ObjectId, kept: Sequence[Address]) -> None:
        """Copies from an earlier run that we heard of meanwhile go."""
        if self.lineage.strays:
            for node in self.lineage.strays.pop(object_id, ()):
                if node not in kept:
                    self.world.send(node, FreeObjects([object_id]))

    def over(self, task: Task, results: list[Value]) -> list[Value]:
        """The task is about to be over, with these results. What they are to be."""
        stream = task.stream
        assert stream is not None
        [value] = results
        brought = stream.brought_now()
        if value.kind != FAILED and brought < stream.arrived and not stream.closed:
            error = self.replay_failed(task, stream.arrived, brought)
            value = Value(FAILED, error)
        if stream.total is None:
            self.end(stream, value)
        for object_id in list(stream.lost):
            if not self.brought_and_lost(stream, object_id, value):
                stream.lost.discard(object_id)
        return [value]

    def end(self, stream: Stream, value: Value) -> None:
        """It ends for the first time, with an error in its place if it has failed."""
        number = stream.arrived + 1
        if value.kind == FAILED and not stream.closed:
            object_id = stream.id(number)
            stream.arrived = stream.total = number
            entry = self.ownership.entries.get(object_id) or self.expect(stream, object_id)
            entry.task = None
            self.ownership.resolve(entry, value)
        else:
            stream.total = stream.arrived
            if not stream.closed:
                self.withdraw(stream, number)

    def brought_and_lost(self, stream: Stream, object_id: ObjectId, value: Value) -> bool:
        """A value is lost, and the run is over. Whether the run has brought it, so that the next
        will, once the task is over; else it fails.
        """
        entry = self.ownership.entries.get(object_id)
        if entry is None or entry.value is not None:
            return False
        number, brought = number_of(object_id), stream.brought_now()
        if value.kind != FAILED and number <= brought:
            self.world.call_at(self.world.now(), lambda: self.lose(entry))
            return True
        self.clear_up(object_id, ())
        if value.kind != FAILED:
            value = Value(FAILED, self.replay_failed(stream.task, number, brought))
        self.ownership.resolve(entry, value)
        return False

    # ------------------------------------------------------------------ lost values

    def lose(self, entry: Entry) -> None:
        """A value that was lost under a run has to be made again."""
        if self.ownership.entries.get(entry.object) is entry and entry.value is None:
            self.lineage.recover(entry, "its last copy was lost while the task still ran")

    def lost(self, task: Task, object_id: ObjectId) -> None:
        """The value is to be made again by a run of the task, which may be on its way."""
        stream = task.stream
        assert stream is not None
        stream.lost.add(object_id)
        if self.worker(stream) is not None and number_of(object_id) <= stream.brought_now():
            self.open(stream)  # or we might wait for it, and the run for us


def number_of(object_id: ObjectId) -> int:
    """Which value of its stream an object is."""
    return int.from_bytes(object_id[-4:], "big")
