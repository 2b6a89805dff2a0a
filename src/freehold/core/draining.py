"""Draining: a node gives away what it has, and leaves the cluster in good order.

What this file knows: whether this node is drained, until when, who wants to hear of it, and what
still keeps it. What it must not know: how leases are asked back (``scheduling``), how workers are
told to stop (``workers``), how values move (``moving``): the role ties them together.

staying -> drained -> leaving. From the first moment nothing new is granted. Every ``TICK`` the
machine looks at what is left: leases whose tasks still run, values, workers that own something,
programs connected here. When nothing is left, or when the time is over, the node tells the head
that it leaves, again every ``SAY_AGAIN`` seconds until the head, which may be away, answers with
Stop. What is lost then is lost as with a node that died, and those who asked are told what it was.

A node is drained by its own decision: so there is nothing to keep in step, and a head that comes
back learns of it with the node's first word. Whoever asked may go away: the drain goes on, and can
be cancelled until the node leaves.

Races considered: two nodes are drained at once, each counting on the other: both find nobody to
give their values to, say so, and wait for their time to be over or one of them to be cancelled. A
program connects while the node is drained: it counts like the others. A lease is granted by a
message that is on its way when the drain begins: its owner is asked for it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from freehold.core.moving import Moving
from freehold.core.world import Timer, World
from freehold.ids import ProcessId
from freehold.wire.draining import CANCELLED, GOES_ON, LEAVES, REFUSED
from freehold.wire.messages import Address, DrainNode, DrainProgress

#: Seconds between two looks at what is left; ``SHARE`` times what a look takes if that is longer:
#: it walks through the store, 0.1 s for 100,000 values.
TICK: Final = 0.25
SHARE: Final = 10
#: Seconds until the head is told again.
SAY_AGAIN: Final = 1.0


class Draining:
    """The end of one node, as far as it is planned."""

    def __init__(self, world: World, moving: Moving) -> None:
        self.world = world
        self.moving = moving
        self.on = False
        self.leaving = False
        self.began = 0.0
        self.deadline = 0.0
        self.watchers: dict[ProcessId, tuple[Address, int]] = {}
        self.ticker: Timer | None = None
        # the role's:
        self.alone: Callable[[], bool]  # no other node would be left
        self.begin: Callable[[bool], None]  # grant nothing more; end programs if forced
        self.stay: Callable[[], None]  # grant again
        self.tidy: Callable[[], None]  # have idle workers stop
        self.kept_by: Callable[[], tuple[int, int, int]]  # leases, workers, drivers
        self.leave: Callable[[str], None]  # tell the head, with what words

    # ------------------------------------------------------------------ requests

    def on_drain(self, message: DrainNode, peer: Address) -> None:
        """Someone wants this node drained, or not any more."""
        reason = self.why_not(message)
        if reason:
            self.world.send(peer, DrainProgress(message.request, REFUSED, reason))
        elif message.cancel:
            self.cancel()
            self.world.send(peer, self.progress(message.request, CANCELLED))
        else:
            self.on = True
            self.began = self.world.now()
            self.deadline = self.began + message.timeout
            self.watchers[peer.process] = (peer, message.request)
            self.moving.begin()
            self.begin(message.force)
            self.tick()

    def why_not(self, message: DrainNode) -> str:
        """Why the request cannot be met, or nothing."""
        if self.leaving:
            return "it has been drained and is about to leave"
        if message.cancel:
            return "" if self.on else "it is not being drained"
        if self.on:
            seconds = self.world.now() - self.began
            return f"it is being drained already, since {seconds:.0f} s; --cancel undoes that"
        if self.alone() and not message.force:
            return (
                "no other node is left that could take its tasks and values; with --force it "
                "leaves nevertheless, and what it has is lost"
            )
        return ""

    def cancel(self) -> None:
        """Stay after all."""
        self.on = False
        if self.ticker is not None:
            self.ticker.cancel()
        self.tell(CANCELLED)
        self.watchers.clear()
        self.moving.end()
        self.stay()

    def peer_lost(self, process: ProcessId) -> None:
        """One who wanted to hear of it is gone."""
        self.watchers.pop(process, None)

    # ------------------------------------------------------------------ the course of it

    def tick(self) -> None:
        """Look at what is left: go on, or leave."""
        began = self.world.now()
        self.moving.survey()
        took = self.world.now() - began
        self.tidy()
        if self.empty() or self.world.now() >= self.deadline:
            self.leaving = True
            self.tell(LEAVES)
            self.say_so()
        else:
            self.tell(GOES_ON)
            self.ticker = self.world.call_at(began + took + max(TICK, SHARE * took), self.tick)

    def empty(self) -> bool:
        """Whether nothing keeps us."""
        return not (any(self.kept_by()) or any(self.moving.left) or self.moving.moves)

    def say_so(self) -> None:
        """Tell the head until it answers, which is the end of us."""
        self.leave(self.farewell())
        self.ticker = self.world.call_at(self.world.now() + SAY_AGAIN, self.say_so)

    def farewell(self) -> str:
        """What the others are told of us: what we did, and what is lost with us."""
        leases, workers, drivers = self.kept_by()
        kept = (
            (leases, "running tasks"),
            (self.moving.left[0], "values"),
            (workers, "workers"),
            (drivers, "programs"),
        )
        left = ", ".join(f"{count} {what}" for count, what in kept if count)
        return "has left: drained" + (
            f"; its time was over, with {left} still there" if left else ""
        )

    def tell(self, state: str) -> None:
        """Those who asked hear how it goes."""
        for peer, request in list(self.watchers.values()):
            self.world.send(peer, self.progress(request, state))

    def progress(self, request: int, state: str) -> DrainProgress:
        """How far it is."""
        moving = self.moving
        leases, workers, drivers = self.kept_by()
        return DrainProgress(
            request,
            state,
            moved=moving.moved,
            moved_bytes=moving.moved_bytes,
            seconds=self.world.now() - self.began,
            leases=leases,
            values=moving.left[0],
            value_bytes=moving.left[1],
            workers=workers,
            drivers=drivers,
            note=moving.note,
        )
