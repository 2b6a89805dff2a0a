"""The world as a machine sees it: the whole of its input and output besides the events called
upon it.

The real one is ``runtime``; the simulated one is ``sim``; the one in the tests records what was
asked and asserts that nothing is left unclaimed. Time is in seconds, on a clock that never goes
back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

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

    def call_at(self, when: float, action: Callable[[], None]) -> Timer:
        """Have ``action`` called at ``when``, as an event of its own."""

    def new_id(self) -> bytes:
        """Eight bytes that were never made before."""
