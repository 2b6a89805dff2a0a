"""The world as a machine sees it: the whole of its input and output besides the events called
upon it.

The real one is ``runtime``; the simulated one is ``sim``; the one in the tests records what was
asked and asserts that nothing is left unclaimed. Time is in seconds, on a clock that never goes
back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from freehold.ids import NodeId
from freehold.wire.messages import Address, Message


class Timer(Protocol):
    """A call that has been arranged and not yet made."""

    def cancel(self) -> None:
        """Do not make the call. Harmless when it has been made."""


class World(Protocol):
    """Effects that every role needs."""

    @property
    def address(self) -> Address:
        """Where this process is reached."""

    def now(self) -> float:
        """Seconds since some fixed moment."""

    def send(self, to: Address, message: Message) -> None:
        """Queue a message. If the peer cannot be reached, ``peer_lost`` follows as an event."""

    def fence(self, node: NodeId) -> None:
        """Hear no more of a node that was declared dead, nor of its processes: what they still
        send is dropped, they can neither be reached nor reach us. ``peer_lost`` follows, as an
        event of its own, for each of them that had a stream to us.
        """

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Have ``action`` called at ``when``, as an event of its own."""

    def new_id(self) -> bytes:
        """Eight bytes that were never made before."""
