"""Moving: the values of a node that is drained, on their way to other nodes.

What this file knows: which primaries are still here, which node was asked to take which, and who
would not. What it must not know: leases, workers, why the node is drained (``draining`` does).

The life of one value: found here (``survey``) -> offered to a target (TakeObject) -> pulled by it,
from our arena or from our disk, as any copy is -> told to its owner by the target (ObjectMoved) ->
freed here by the owner. We never drop a value by ourselves: until the owner knows of the other
copy, a ``get`` that is under way finds this one. A value counts as moved when its owner has freed
it here after the target took it; one that is freed meanwhile for good may be counted too.

* Where to: to the node with most free bytes in its store, by its last report less what we have sent
  there since. If no store has the bytes free, the emptiest one makes room as for anybody, by
  spilling. Who refuses is not asked again for ``AVOID`` seconds; while nobody is left to ask, the
  reason stands in ``note``.
* How many: ``MOVES`` values and ``MOVE_BYTES`` at a time. The target pulls four at once; the rest
  keep it busy.
* What stays: values owned by a program that is connected through this node. They would come back
  with its next ``get``, and without this node they mean nothing.

Races considered: the target dies (the offer is forgotten, the value offered to another); the
target has the value and dies before the owner hears of it (the owner ignores the dead, ours
stays); the owner does not know the value yet, because the task that made it has not been answered
for (it has the target drop its copy; ours stays and is offered again after ``RETRY`` seconds, then
after twice that, and so on); our copy is one that nobody knows, of an attempt that died (the owner
frees both); two drained nodes offer to each other (both refuse); a value that was moved here is to
move on (not before its owner knows of it here: the words of the two targets might overtake each
other, and the owner would take the later copy for one that nobody knows).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from freehold.core.objects import Objects
from freehold.core.stored import COMPLETE, CREATING, Stored
from freehold.core.world import World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.messages import Address, NodeInfo, ObjectTaken, TakeObject

#: Values under way at once, and their bytes (one larger value goes alone).
MOVES: Final = 16
MOVE_BYTES: Final = 256 << 20
#: Seconds until a value that was taken and is still here is offered again, at first and at most.
RETRY: Final = (1.0, 30.0)
#: Seconds for which a node that refused is not asked again.
AVOID: Final = 1.0
NO_JOB: Final = JobId(b"")


class Move:
    """One value on its way."""

    __slots__ = ("size", "target", "taken_at")

    def __init__(self, target: NodeId, size: int) -> None:
        self.target = target
        self.size = size
        self.taken_at: float | None = None


class Moving:
    """What is under way from this node, and what is left."""

    def __init__(self, world: World, objects: Objects, peers: Mapping[NodeId, NodeInfo]) -> None:
        self.world = world
        self.objects = objects
        self.peers = peers
        self.waiting: deque[Stored] = deque()
        self.moves: dict[ObjectId, Move] = {}
        self.again: dict[ObjectId, tuple[float, float]] = {}  # not before; the pause after that
        self.avoid: dict[NodeId, float] = {}  # until
        self.stays: Callable[[ProcessId], bool]  # the role's: owned by a program connected here
        self.begin()

    def begin(self) -> None:
        """A new drain."""
        self.moved = 0
        self.moved_bytes = 0
        self.note = ""
        self.left = (0, 0)
        self.end()

    def end(self) -> None:
        """No more offers. What is under way arrives, and is told to its owner."""
        self.waiting.clear()
        self.moves.clear()
        self.again.clear()
        self.avoid.clear()

    # ------------------------------------------------------------------ what is here

    def survey(self) -> None:
        """Look through the store: what has arrived elsewhere, what is left, what can be offered."""
        self.settle()
        self.waiting.clear()
        count = size = 0
        now = self.world.now()
        for stored in self.objects.table.values():
            if not (stored.primary or stored.pins or stored.state == CREATING):
                continue  # a copy of what another node has, which nobody uses
            count += 1
            size += stored.size
            if self.may_move(stored) and self.again.get(stored.id, (0.0, 0.0))[0] <= now:
                self.waiting.append(stored)
        self.left = (count, size)
        self.offer()

    def may_move(self, stored: Stored) -> bool:
        """Whether the value can be offered to another node."""
        return (
            stored.primary
            and stored.state in COMPLETE
            and not stored.dying
            and not stored.told
            and stored.id not in self.moves
            and not self.stays(stored.owner.process)
        )

    def settle(self) -> None:
        """Values that were taken: freed here by now, or to be offered again."""
        now = self.world.now()
        for object_id, move in list(self.moves.items()):
            if move.taken_at is None:
                if move.target not in self.peers:
                    del self.moves[object_id]
                continue
            stored = self.objects.table.get(object_id)
            if stored is None or stored.dying:
                del self.moves[object_id]
                self.again.pop(object_id, None)
                self.moved += 1
                self.moved_bytes += move.size
                continue
            _, pause = self.again.get(object_id, (0.0, RETRY[0]))
            if now - move.taken_at >= pause:
                del self.moves[object_id]
                self.again[object_id] = (now, min(2 * pause, RETRY[1]))

    # ------------------------------------------------------------------ offers

    def offer(self) -> None:
        """Ask nodes to take values, as many as may be under way."""
        under_way = sum(move.size for move in self.moves.values())
        while self.waiting and len(self.moves) < MOVES:
            stored = self.waiting[0]
            if self.moves and under_way + stored.size > MOVE_BYTES:
                return
            self.waiting.popleft()
            if self.objects.table.get(stored.id) is not stored or not self.may_move(stored):
                continue
            target = self.target_for(stored)
            if target is None:
                if not self.takers():
                    return
                continue  # the next survey finds it again
            under_way += stored.size
            target.store_used += stored.size
            self.moves[stored.id] = Move(target.address.node, stored.size)
            self.world.send(
                target.address,
                TakeObject(stored.id, stored.size, stored.owner, stored.job or NO_JOB),
            )

    def takers(self) -> list[NodeInfo]:
        """The nodes that may be asked now."""
        now = self.world.now()
        return [
            peer
            for peer in self.peers.values()
            if not peer.draining and self.avoid.get(peer.address.node, now) <= now
        ]

    def target_for(self, stored: Stored) -> NodeInfo | None:
        """The node with most free room, among those that could take it."""
        fit = [peer for peer in self.takers() if peer.store_bytes >= stored.size]
        if not fit and not self.avoid:
            self.note = f"no other node has a store for a value of {stored.size:,} bytes"
        return max(fit, key=_free, default=None)

    def on_taken(self, message: ObjectTaken, peer: Address) -> None:
        """A target has a value, or will not have it."""
        move = self.moves.get(message.object)
        if move is None or move.target != peer.node:
            return
        if message.reason:
            del self.moves[message.object]
            self.avoid[peer.node] = self.world.now() + AVOID
            self.note = f"node {peer.node.hex()[:8]} did not take a value: {message.reason}"
        else:
            move.taken_at = self.world.now()
            self.settle()  # its owner's word may have come before this one

    def freed(self) -> None:
        """Owners have freed values here."""
        self.settle()
        self.offer()


def _free(peer: NodeInfo) -> int:
    return peer.store_bytes - peer.store_used
