"""Yielding, the worker's side of a stream: values go out as they are made, and not too many.

The shell runs the generator. For each value it calls ``give``, which sends it, and then waits until
``Outgoing.done`` says that the run may go on: there is room for one more, nobody wants more, or the
task is cancelled. What that comes to is for the shell (``runtime.yielding``).

The owner tells what was taken (``on_taken``), which makes room, and when nobody wants more
(``on_close``). If it dies, nobody does.

Races considered: a close that comes before the run has begun (the run is dropped, as by a cancel),
or when it is over (nothing happens); numbers that were taken from an earlier run of the same task
(they count as taken, so that a run which replaces another is not held back by them).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from freehold.core.execution import Execution, Run
from freehold.core.ownership import Ownership
from freehold.core.streams import OPEN, STREAM_BYTES
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId, TaskId
from freehold.wire.messages import (
    CancelTask,
    CloseStream,
    StreamEnd,
    StreamItem,
    StreamTaken,
    StreamTerms,
    Value,
)


class Outgoing:
    """The stream of one run. ``made``, ``taken``: so many, in order. ``sizes``: bytes of those that
    lie untaken, ``untaken`` of them together. ``closed``: nobody wants more.
    """

    __slots__ = ("closed", "limit", "made", "run", "sizes", "taken", "untaken", "wake", "window")

    #: (For ``telling``: what a run waits for that has to wait here is no object.)
    pending: dict[ObjectId, None] = {}

    def __init__(self, run: Run, terms: StreamTerms) -> None:
        self.run = run
        self.window = terms.window
        self.taken = terms.taken
        self.limit = terms.limit
        self.made = 0
        self.sizes: deque[int] = deque()
        self.untaken = 0
        self.closed = False
        self.wake: Callable[[], None] | None = None

    @property
    def done(self) -> bool:
        """Whether the run may go on, with one more value or to its end."""
        return (
            (self.made - self.taken < self.window and self.untaken < STREAM_BYTES)
            or self.window >= OPEN
            or self.unwanted
            or self.run.cancelled
        )

    @property
    def unwanted(self) -> bool:
        """Whether nobody wants more."""
        return self.closed or 0 <= self.limit <= self.made


class Yielding:
    """The streams that runs at this worker make."""

    def __init__(self, world: World, ownership: Ownership, execution: Execution) -> None:
        self.world = world
        self.ownership = ownership
        self.execution = execution
        self.streams: dict[TaskId, Outgoing] = {}

    # ------------------------------------------------------------------ the run

    def begin(self, run: Run) -> Outgoing:
        """A run is about to yield."""
        assert run.message.stream is not None
        outgoing = self.streams[run.message.task] = Outgoing(run, run.message.stream)
        outgoing.closed = run.submitter.process in self.ownership.lost
        return outgoing

    def give(self, outgoing: Outgoing, value: Value) -> None:
        """One more value. The references in it are held by the caller until here."""
        run = outgoing.run
        submitter, message = run.submitter, run.message
        outgoing.made += 1
        if outgoing.made > outgoing.taken:
            size = value.size or len(value.data)
            outgoing.sizes.append(size)
            outgoing.untaken += size
        if submitter.process not in self.ownership.lost:
            value = self.ownership.for_peer(value, submitter)
            self.world.send(
                submitter, StreamItem(message.task, message.attempt, outgoing.made, value)
            )

    def end(self, outgoing: Outgoing) -> None:
        """The run will yield no more."""
        run = outgoing.run
        del self.streams[run.message.task]
        if run.submitter.process not in self.ownership.lost:
            end = StreamEnd(run.message.task, run.message.attempt, outgoing.made)
            self.world.send(run.submitter, end)

    # ------------------------------------------------------------------ the owner

    def on_taken(self, message: StreamTaken) -> None:
        """So many were taken by now."""
        outgoing = self.streams.get(message.task)
        if outgoing is None:
            run = self.execution.runs.get(message.task)
            if run is not None and run.message.stream is not None:  # it has not begun to yield
                terms = run.message.stream
                terms.window, terms.taken = message.window, max(message.taken, terms.taken)
            return
        outgoing.window = message.window
        fresh = message.taken - max(outgoing.taken, outgoing.made - len(outgoing.sizes))
        outgoing.taken = max(message.taken, outgoing.taken)
        for _ in range(min(fresh, len(outgoing.sizes))):
            outgoing.untaken -= outgoing.sizes.popleft()
        self.nudge(message.task)

    def on_close(self, message: CloseStream) -> None:
        """Nobody wants more."""
        run = self.execution.runs.get(message.task)
        if run is None:
            return
        outgoing = self.streams.get(message.task)
        if outgoing is None:  # it has not begun
            self.execution.on_cancel(CancelTask(message.task, False, False))
            return
        outgoing.closed = True
        self.nudge(message.task)
        self.execution.interrupt(run)

    def nudge(self, task: TaskId) -> None:
        """Something has changed for a run that may wait for room."""
        outgoing = self.streams.get(task)
        if outgoing is not None and outgoing.wake is not None and outgoing.done:
            wake, outgoing.wake = outgoing.wake, None
            wake()

    def peer_lost(self, process: ProcessId) -> None:
        """An owner is gone: nobody wants its streams."""
        for task, outgoing in list(self.streams.items()):
            if outgoing.run.submitter.process == process:
                outgoing.closed = True
                self.nudge(task)
                if self.execution.hosting is not None:
                    # (``execution`` interrupts what is no call: calls run on, but not streams.)
                    self.execution.interrupt(outgoing.run)
