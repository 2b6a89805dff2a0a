"""Promises about streams, seen from above: what one yields, and what another takes.

The consumer's side is counted here anew, and never looked up in the machines that are judged. What
a value *is* is judged as any other's (``checkers``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freehold.core import streams
from freehold.core.yielding import Outgoing
from freehold.ids import ObjectId, ProcessId, TaskId, return_id
from freehold.sim.world import Violation
from freehold.wire.messages import FAILED, CloseStream, Value

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.process import Process
    from freehold.sim.streaming import Streaming
    from freehold.sim.user import UserProcess


class Flow:
    """One stream. ``taken``: so many values have been handed to its consumer; ``sizes``: bytes of
    those that were yielded, by number; ``window``: how many may lie untaken."""

    def __init__(self, driver: int, here: str, window: int) -> None:
        self.driver = driver
        self.here = here
        self.window = window
        self.taken = 0
        self.sizes: dict[int, int] = {}


class Flows:
    """All streams of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.flows: dict[TaskId, Flow] = {}
        # values that were yielded to a process by one that had heard that nobody wants more
        self.closed: dict[tuple[ProcessId, TaskId], int] = {}

    # ------------------------------------------------------------------ the consumer

    def on_start(self, driver: int, streaming: Streaming) -> None:
        """User code calls a generator function."""
        stream = streaming.stream
        self.flows[stream.task.id] = Flow(driver, streaming.here, stream.window)
        self.cluster.world.mark("a stream begins")

    def on_take(self, streaming: Streaming, object_id: ObjectId, value: Value) -> None:
        """User code is handed a value: the next, and one that there is."""
        task = streaming.stream.task.id
        flow = self.flows[task]
        flow.taken += 1
        if object_id != return_id(task, flow.taken):
            raise Violation(
                "once in order",
                f"{flow.here} hands out {self.cluster.name_object(object_id)} as its value "
                f"number {flow.taken}",
            )
        self.cluster.named(object_id, flow.driver, f"{flow.here}#{flow.taken}")
        if value.kind != FAILED and flow.taken > self.count(flow):
            raise Violation("once in order", f"{flow.here} has a value number {flow.taken}")
        self.cluster.world.mark("a value of a stream is taken")

    def on_end(self, streaming: Streaming) -> None:
        """User code is told that there are no more. (An error would have been one more.)"""
        flow = self.flows[streaming.stream.task.id]
        if flow.taken != self.count(flow):
            raise Violation(
                "once in order",
                f"{flow.here} ends after {flow.taken} values, not after {self.count(flow)}",
            )
        self.cluster.world.mark("a stream is read to its end")

    def on_close(self, streaming: Streaming) -> None:
        """User code wants no more."""
        flow = self.flows[streaming.stream.task.id]
        if flow.taken < self.count(flow):
            self.cluster.world.mark("a stream is closed early")

    def count(self, flow: Flow) -> int:
        """How many values the stream has."""
        return self.cluster.lenient[flow.driver].counts[flow.here]

    # ------------------------------------------------------------------ the producer

    def on_receive(self, process: Process, message: CloseStream) -> None:
        """A worker hears that nobody wants more of a stream."""
        self.closed.setdefault((process.address.process, message.task), 0)

    def on_give(self, worker: UserProcess, outgoing: Outgoing, value: Value) -> None:
        """User code has yielded a value, which is about to be sent: not one too many."""
        message = outgoing.run.message
        flow, number = self.flows[message.task], outgoing.made + 1
        flow.sizes[number] = value.size or len(value.data)
        lie = range(flow.taken + 1, number)  # before this one
        if outgoing.window < streams.OPEN:
            if len(lie) >= flow.window:
                raise Violation(
                    "window", f"{flow.here} yields number {number}, {flow.taken} are taken"
                )
            if sum(flow.sizes[one] for one in lie) >= streams.STREAM_BYTES:
                raise Violation(
                    "window", f"{flow.here} yields too many bytes before number {number}"
                )
        key = (worker.address.process, message.task)
        if key in self.closed:
            self.closed[key] += 1
            if self.closed[key] > 1:  # (it may have been about to yield one)
                raise Violation("a closed stream ends", f"{flow.here} yields number {number}")
