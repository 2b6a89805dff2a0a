"""Attendance: a node's standing with the head. At the node; ``membership`` is the other side.

calling -> joined -> away -> calling ... -> fenced. The node *calls* (``JoinCluster``) and says all
that the head may not know; when the head has answered it has *joined*. When its stream to the head
ends it is *away*, and calls again: after ``FIRST_PAUSE``, then after twice as long each time up to
``LONGEST_PAUSE``, for as long as it takes. It has *been fenced* when the head says that this node
was declared dead; then nothing that it says counts any more, and the shell ends this incarnation.

A node without a head goes on working: the head is on no task's path. What it would have told the
head it does not keep: it tells everything when it calls, so nothing is lost and there is no list of
unsent news. While it calls, news follow on the same stream, after the call itself.

Hearing nothing from the head means nothing: the head says nothing unless there are news. That it
hears us is its business; ours is that it can: a ``Heartbeat`` every tenth of its patience, also
when there is nothing to say. If the head's machine has vanished, it is the heartbeats without
acknowledgement by which the kernel notices and ends our stream (``runtime.sockets``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from freehold.core.membership import BEATS, DEAD_AFTER
from freehold.core.world import Timer, World
from freehold.wire.messages import Address, Heartbeat, JoinCluster, Joined, Message

#: Seconds until a node calls again: the head is back 0.2 s after it died, and finds the first call
#: waiting at its door (``headd`` leaves it open).
FIRST_PAUSE: Final = 0.02
#: At most one call a second from each node to a head that is not there.
LONGEST_PAUSE: Final = 1.0


class Attendance:
    """Calling the head, and being heard by it."""

    def __init__(self, world: World, head: Address, facts: Callable[[], JoinCluster]) -> None:
        """``facts``: all that the head shall know of this node, as it is now."""
        self.world = world
        self.head = head
        self.facts = facts
        self.away = True
        self.joined = False
        self.pause = FIRST_PAUSE
        self.dead_after = DEAD_AFTER  # until the head says what its patience is
        self.beater: Timer | None = None

    def call(self) -> None:
        """Call the head: at the start, and again."""
        self.away = False
        self.world.send(self.head, self.facts())
        self.beat_later()

    def on_joined(self, message: Joined) -> None:
        """The head took us in."""
        self.joined = True
        self.pause = FIRST_PAUSE
        self.dead_after = message.dead_after
        self.beat_later()

    def tell(self, message: Message) -> None:
        """News for the head, if it is there; else it will be told when we call."""
        if not self.away:
            self.world.send(self.head, message)

    def lost(self) -> None:
        """Our stream to the head has ended, or it cannot be reached."""
        if self.away:
            return
        self.away = True
        self.joined = False
        self.world.call_at(self.world.now() + self.pause, self.call)
        self.pause = min(2 * self.pause, LONGEST_PAUSE)

    def beat_later(self) -> None:
        """The next heartbeat, by the latest word on how often."""
        if self.beater is not None:
            self.beater.cancel()
        self.beater = self.world.call_at(self.world.now() + self.dead_after / BEATS, self.beat)

    def beat(self) -> None:
        """Let the head hear us."""
        self.tell(Heartbeat())
        self.beat_later()
