"""Relaying: who gets an object's bytes from this node, and who is sent on to a node that is just
getting them.

What this file knows: to which nodes this one is sending which object at this moment. What it must
not know: sockets and threads (``runtime.mover``), how bytes came to be here (``objects``).

When many nodes want one large object at once, its holder does not send it to all of them. It sends
to the first ``FANOUT``; whoever asks after that is told to ask one of those, which passes on what
it has while the rest is still coming, and sends others on in the same way. So a tree grows by
itself from the order of the questions, with no coordinator. Every link of it carries the object
once, all at the same time: n copies take about ``FANOUT`` times as long as one, not n times.

The life of one copy: asked for (FIRST) -> this node sends it, or names another -> asked for there
(RELAYED), and so on -> all bytes are there -> over. If a node that was named fails, the one who
asks comes back and says so (DIRECT): it gets the bytes at once from the complete copy.

Nobody can wait in a circle: only a node to which we are sending right now is named to others, so
whoever is named stands nearer to the complete copy. The exception is a node whose link broke
without our noticing. It asks again, which makes us forget the old link (``ask``); until then
someone who was sent to it waits for at most the mover's ``STALL``, and comes back.

A copy that began anew may come from another attempt of its task and have other bytes, so a relay
whose source fails fails those behind it too: no copy is ever put together from two.

Why two: with one, the nodes form a chain, the least traffic of all, but one slow node slows all
behind it, and one that dies costs all of them a new beginning.
"""

from __future__ import annotations

from typing import Final

from freehold.core.objects import Objects
from freehold.core.stored import COMPLETE, PULLING, SEALED, SPILLING, Stored
from freehold.ids import NodeId, ObjectId
from freehold.wire.messages import Address

#: Nodes to which one object is sent at once. The next ones are sent on.
FANOUT: Final = 2
#: Smaller objects are sent to everybody: 16 MiB take some 10 ms, a new connection takes 1 to 2.
RELAY_BYTES: Final = 16 << 20

#: How an object is asked for: of one who has all of it; of one who gets it just now; of one who has
#: all of it and shall send it, because the node that it named has failed.
FIRST, RELAYED, DIRECT = 0, 1, 2


class Sending:
    """One copy on its way to another node, pinned here meanwhile."""

    __slots__ = ("asker", "from_disk", "sent_on", "stored")

    def __init__(self, stored: Stored, asker: Address) -> None:
        self.stored = stored
        self.asker = asker
        self.from_disk = stored.state in COMPLETE and stored.state not in (SEALED, SPILLING)
        self.sent_on = 0  # how many were sent on to the asker

    def arriving(self) -> bool:
        """Whether not all of its bytes are here yet."""
        return self.stored.state == PULLING


class Relaying:
    """The copies on their way from one node to others."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.sendings: dict[ObjectId, dict[NodeId, Sending]] = {}

    def ask(self, object_id: ObjectId, asker: Address, manner: int) -> Sending | Address | None:
        """Another node wants a copy. Returns what to send it (``over`` when that has ended), whom
        it shall ask instead, or None if there is nothing here for it.
        """
        others = self.sendings.get(object_id, {})
        others.pop(asker.node, None)  # the link that it had before is of no use to it any more
        stored = self.objects.table.get(object_id)
        if stored is None or not self.may_send(stored, manner):
            return None
        if manner != DIRECT and len(others) >= FANOUT and stored.size >= RELAY_BYTES:
            return self.sent_on(others)
        self.objects.pin(stored, asker.process)
        sending = Sending(stored, asker)
        self.sendings.setdefault(object_id, {})[asker.node] = sending
        return sending

    def may_send(self, stored: Stored, manner: int) -> bool:
        """Whether there is something to send: all of the bytes, or their beginning."""
        if stored.state in COMPLETE:
            return True
        return manner == RELAYED and stored.state == PULLING and stored.offset >= 0

    def sent_on(self, others: dict[NodeId, Sending]) -> Address:
        """The node that fewest were sent on to, and of those the one that began first."""
        chosen = min(others.values(), key=lambda sending: sending.sent_on)
        chosen.sent_on += 1
        return chosen.asker

    def over(self, sending: Sending) -> None:
        """A copy was sent, or its link has broken."""
        stored = sending.stored
        others = self.sendings.get(stored.id)
        if others is not None:
            if others.get(sending.asker.node) is sending:
                del others[sending.asker.node]
            if not others:
                del self.sendings[stored.id]
        if self.objects.table.get(stored.id) is stored:  # else it could not be had, and is gone
            self.objects.unpin(stored.id, sending.asker.process)
