"""Copies between nodes that relay: ``runtime.mover`` in the simulated world.

A node asks the source of an object, and is sent its bytes or the name of another node that gets
them just now. What a node passes on while it arrives is there for the next when it is there for
itself, and fails with it: no copy is put together from two. Who was sent on and is disappointed
comes back to the source, which has to send then."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from freehold.core.relaying import DIRECT, FIRST, RELAYED, Sending
from freehold.ids import ObjectId
from freehold.sim.world import MICRO, MILLI, SECOND
from freehold.wire.messages import Address

if TYPE_CHECKING:
    from freehold.sim.node import NodeProcess

HOPS: Final = 16  # as runtime.mover
STALL: Final = 5 * SECOND

#: How long the bytes of one object take, on the average: long enough for others to ask meanwhile.
SENDING: Final = 30 * MILLI


class Answered(Protocol):
    """Hears how one asking ends: in an error, in the bytes, or in whom to ask instead."""

    def __call__(self, error: str, content: bytes, named: Address | None = None) -> None: ...


class Arrival:
    """An object on its way to a node; ``behind``: those that are sent what comes."""

    def __init__(self) -> None:
        self.behind: list[Answered] = []
        self.over = False

    def ends(self, error: str, content: bytes) -> None:
        """All of it is here, or it will not be."""
        self.over = True
        behind, self.behind = self.behind, []
        for answered in behind:
            answered(error, content)


class Pull:
    """One copy that a node wants: asked for here and there, until it is there or cannot be had."""

    def __init__(
        self, node: NodeProcess, object_id: ObjectId, source: Address, offset: int, size: int
    ) -> None:
        self.node = node
        self.world = node.world
        self.object = object_id
        self.source = source
        self.place = (offset, size)
        self.hops = 0
        self.arrival = Arrival()
        self.ask(source, FIRST)

    def ask(self, whom: Address, manner: int) -> None:
        """Ask a node, which is reached after a while or not at all."""
        self.arrival = self.node.arrivals[self.object] = Arrival()
        network, me = self.node.cluster.network, self.node.address.node
        base = network.base(me, whom.node)
        answered = self.once(whom, manner, base)

        def reached() -> None:
            peer = self.node.cluster.nodes.get(whom.process)
            until = max(
                network.held_until(me, whom.node),
                network.held_until(whom.node, me),
                peer.stopped_until if peer is not None else 0,
            )
            if until > self.world.now_ns:
                self.world.at(until, reached)
            elif peer is None or not peer.alive:
                answered("connection refused", b"")
            elif self.node.cluster.pull_failures > 0:
                self.node.cluster.pull_failures -= 1
                self.world.mark("pull fails")
                answered("connection reset", b"")
            else:
                serve = partial(self.serve, peer, manner, answered)
                peer.turn(serve, f"serves {self.node.name}")

        self.world.after(2 * network.delay(base, me, whom.node), reached)
        if manner == RELAYED:
            self.world.after(STALL, lambda: answered("sent nothing for a while", b""))

    def once(self, whom: Address, manner: int, base: int) -> Answered:
        """Hears the first answer to one asking, after the bytes' way; later ones are void."""
        open_ = True

        def answered(error: str, content: bytes, named: Address | None = None) -> None:
            nonlocal open_
            if not open_:
                return
            open_ = False
            network = self.node.cluster.network
            delay = network.delay(base, whom.node, self.node.address.node)
            if named is not None:
                self.node.arrange(delay, partial(self.sent_on, named), "is sent on")
                return
            arrived = partial(self.arrived, error, content, manner)
            self.node.arrange(delay, arrived, "bytes arrive" if not error else "pull broken")

        return answered

    def serve(self, peer: NodeProcess, manner: int, answered: Answered) -> None:
        """At the node that was asked."""
        sending = peer.relaying.ask(self.object, self.node.address, manner)
        if isinstance(sending, Address):
            self.world.mark("a pull is sent on")
            answered("", b"", sending)
        elif sending is None:
            answered("does not have it any more", b"")
        elif sending.arriving():
            arrival = peer.arrivals.get(self.object)
            if arrival is None or arrival.over:
                peer.relaying.over(sending)
                answered("does not get it any more", b"")
            else:
                self.world.mark("a node passes on what arrives")
                arrival.behind.append(partial(self.sent, peer, sending, answered))
        else:
            took = int(SENDING * peer.chance.expovariate(1.0))
            self.world.after(took, lambda: self.sent(peer, sending, answered, "", b""))

    def sent(
        self, peer: NodeProcess, sending: Sending, answered: Answered, error: str, content: bytes
    ) -> None:
        """The node that was asked has sent all, or its own source has failed it."""
        if not peer.alive:
            answered("hung up in the middle", b"")
            return
        if not error and not content:
            stored = sending.stored
            content = (
                peer.disk.get(stored.slot, b"gone")
                if sending.from_disk
                else peer.arena.read(stored.offset, stored.size)
            )
        answered(error, content)
        peer.arrange(MICRO, lambda: peer.relaying.over(sending), "served: over")

    def sent_on(self, whom: Address) -> None:
        """Another node gets it just now."""
        self.arrival.ends("was sent on", b"")
        self.hops += 1
        if self.hops < HOPS:
            self.ask(whom, RELAYED)
        else:
            self.ask(self.source, DIRECT)

    def arrived(self, error: str, content: bytes, manner: int) -> None:
        """At the node that wants it: the end of one asking."""
        if error and manner == RELAYED:
            self.world.mark("a relay fails")
            self.arrival.ends(error, b"")
            self.ask(self.source, DIRECT)
            return
        if not error:
            self.world.mark("pull")
            self.node.arena.write(*self.place, content)
        self.node.arrivals.pop(self.object, None)
        self.arrival.ends(error, content)
        self.node.role.objects.pulled(self.object, error)
