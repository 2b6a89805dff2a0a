"""Requests of user code about streams, placement groups and names: each is done in its own file.
A part of ``user.Thread``."""

from __future__ import annotations

from typing import Any

from freehold.sim import grouping, naming, streaming
from freehold.sim.acting import Handle
from freehold.sim.bodies import Made
from freehold.sim.ops import Enroll, Group, Stream


class FurtherRequests:
    """What a thread of user code may ask for besides."""

    def do_group(self: Any, here: str, op: Group) -> None:
        grouping.create(self, here, op)

    def do_ready(self: Any, here: str, grouped: grouping.Grouped, timeout: float) -> None:
        grouping.wait_for(self, here, grouped, timeout)

    def readied(self: Any) -> None:
        """A group is settled, or the time for that is over."""
        grouping.waited(self)

    def do_remove(self: Any, grouped: grouping.Grouped) -> None:
        grouping.remove(self, grouped)

    def do_stream(
        self: Any,
        here: str,
        op: Stream,
        actor: Handle | None,
        deps: list[Handle],
        nested: list[Handle],
    ) -> None:
        stream = streaming.start(self, here, op, actor, deps, nested)
        self.streams.append(stream)
        self.soon(stream)

    def do_take(self: Any, here: str, stream: streaming.Streaming, patience: float | None) -> None:
        streaming.take(self, here, stream, patience)

    def took(self: Any) -> None:
        """The next value of a stream is there, or its time is over."""
        streaming.took(self)

    def do_close(self: Any, stream: streaming.Streaming) -> None:
        streaming.close(self, stream)
        self.soon()

    def do_open(self: Any) -> None:
        run = self.context.run
        assert run is not None
        self.outgoing = self.process.role.yielding.begin(run)
        self.soon()

    def do_yield(self: Any, here: str, made: Made) -> None:
        streaming.give(self, here, made)

    def do_enroll(self: Any, here: str, op: Enroll) -> None:
        naming.enroll(self, here, op)
