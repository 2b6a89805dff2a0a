"""The shell of a role in the simulated world: what ``runtime.transport`` is in the real one.

An event runs the role, then what user code dropped meanwhile is settled, then what was queued is
sent: one *turn*. A process may be deaf for a while: its user code computes and nobody reads its
sockets (``runtime.pump``, GRACE), or it is stopped by a signal. Frames and timers wait until it
hears again.

A crash is the end between two turns: no more code runs, unsent messages are lost, every connection
ends after some prefix of what was sent."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from freehold.core.attendance import Attendance
from freehold.core.membership import Membership
from freehold.ids import NodeId, ProcessId
from freehold.sim.network import ENDED, OPEN, End
from freehold.sim.world import Event, Violation, nanoseconds
from freehold.wire.frames import Frames
from freehold.wire.messages import Address, DrainProgress, Heartbeat, Message, Stop

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster

#: Messages that go on for ever in a cluster where nothing happens: nodes ask workers to stop that
#: decline because tasks keep references there.
BACKGROUND: Final = frozenset({Stop, DrainProgress, Heartbeat})


#: Timers that come round for ever: a cluster in which only these are left is at rest.
PULSES: Final = (Attendance.beat, Membership.look)

#: Ways to end after the last byte has been sent.
ORDERLY: Final = frozenset({"asked to stop", "drained", "left"})


class Process:
    """One process of the cluster. Implements ``core.world.World`` for its role."""

    kind = "?"

    def __init__(self, cluster: Cluster, name: str, address: Address) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.name = name
        self.address = address
        self.alive = True
        self.deaf_until = 0
        self.stopped_until = 0
        self.peers: dict[ProcessId, list[End]] = {}
        self.unopened: list[End] = []
        self.dirty: list[End] = []
        self.lost: set[ProcessId] = set()
        self.unheard: set[NodeId] = set()
        cluster.processes[address.process] = self

    # ------------------------------------------------------------------ core.world.World

    def now(self) -> float:
        """Seconds since the run began."""
        return self.world.now_ns / 1e9

    def new_id(self) -> bytes:
        """Eight bytes."""
        return self.world.stream("ids").randbytes(8)

    def call_at(self, when: float, action: Callable[[], None]) -> Event:
        """Have ``action`` called in a turn of its own."""
        # One nanosecond late: no real clock fires on the very float that was asked for.
        event = self.arrange(nanoseconds(when) + 1 - self.world.now_ns, action, "timer")
        if getattr(action, "__func__", None) in PULSES:
            self.world.is_pulse(event)
        return event

    def fence(self, node: NodeId) -> None:
        """Hear no more of a node nor of its processes."""
        self.unheard.add(node)
        for ends in self.peers.values():
            for end in ends:
                if end.peer.node == node and not end.closed:
                    end.closed = True
                    end.direction.end()
                    self.arrange(0, partial(self.hung_up, end), f"fenced {self.call(end.peer)}")

    def send(self, to: Address, message: Message) -> None:
        """Queue a message; it leaves at the end of the turn."""
        ends = self.peers.get(to.process)
        if ends:
            end = ends[0]
        else:
            known = self.cluster.processes.get(to.process)
            target = None if to.node in self.unheard else known
            end = self.cluster.network.connect(self, to, target)
            self.peers[to.process] = [end]
        if not end.outbox:
            self.dirty.append(end)
        end.outbox.append(message)
        self.cluster.watch.on_send(self, to, message)

    # ------------------------------------------------------------------ turns

    def busy_until(self) -> int:
        """When this process reads its sockets again (ns)."""
        return max(self.deaf_until, self.stopped_until)

    def arrange(self, delay: int, action: Callable[[], None], what: str) -> Event:
        """Have ``action`` run in a turn after ``delay`` ns, later if nobody polls then."""
        event = Event(None)  # type: ignore[arg-type]  # set below, because it names itself

        def due() -> None:
            if not self.alive:
                return
            until = self.busy_until()
            if until > self.world.now_ns:
                event.action = due
                self.push(until, event)
                return
            self.turn(action, what)

        event.action = due
        self.push(self.world.now_ns + max(delay, 0), event)
        return event

    def push(self, when: int, event: Event) -> None:
        """Put an event, which its holder may cancel, on the heap."""
        self.world.push(when, event)

    def turn(self, action: Callable[[], None], what: str) -> None:
        """Run ``action`` as one event of this process."""
        self.world.note(self.name, what)
        try:
            action()
            if self.alive:
                self.settle()
        except Violation:
            raise
        except Exception as error:
            self.cluster.crashed_in_handler(self, what, error)
        if self.alive:
            self.flush()
        self.cluster.watch.after(self)

    def settle(self) -> None:
        """Let the role know of what user code dropped."""

    def flush(self) -> None:
        """Send what was queued."""
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for end in dirty:
                end.flush()

    # ------------------------------------------------------------------ connections

    def on_frame(self, end: End, frame: bytes) -> None:
        """A frame, or the opening or the end of a stream, has come."""
        if frame is OPEN:
            end.opened = True
            self.unopened.remove(end)
            if end.peer.node in self.unheard:
                end.closed = True
                end.direction.end()
                return
            self.peers.setdefault(end.peer.process, []).append(end)
        elif frame is ENDED:
            self.turn(lambda: self.ended(end), f"end of stream from {self.call(end.peer)}")
        else:
            for messages in Frames().feed(frame):
                names = " ".join(self.cluster.show(message) for message in messages)
                self.turn(
                    lambda messages=messages: self.take(messages, end.peer),  # type: ignore[misc]
                    f"<- {self.call(end.peer)} {names}",
                )

    def take(self, messages: list[Message], peer: Address) -> None:
        """One frame's messages, in order."""
        for message in messages:
            if type(message) not in BACKGROUND:
                self.world.active_ns = self.world.now_ns
            if self.alive:
                self.cluster.watch.on_receive(self, peer, message)
                self.on_message(message, peer)

    def ended(self, end: End) -> None:
        """A stream has ended. If it was the peer's last, the peer is lost."""
        if not end.closed:
            end.closed = True
            self.hung_up(end)

    def hung_up(self, end: End) -> None:
        """A connection is over. If it was the peer's last, the peer is lost."""
        ends = self.peers.get(end.peer.process, [])
        if end not in ends:
            return
        ends.remove(end)
        if ends:
            if end.outbox:
                ends[0].outbox.extend(end.outbox)
                self.dirty.append(ends[0])
        else:
            del self.peers[end.peer.process]
            self.lost.add(end.peer.process)
            self.on_lost(end.peer)

    def on_message(self, message: Message, peer: Address) -> None:
        """One message from the wire."""
        raise NotImplementedError

    def on_lost(self, peer: Address) -> None:
        """A peer's last stream has ended."""
        raise NotImplementedError

    def call(self, address: Address) -> str:
        """What the story calls a process."""
        return self.cluster.name_of(address.process)

    # ------------------------------------------------------------------ the end

    def die(self, how: str) -> None:
        """The process is gone."""
        if not self.alive:
            return
        self.alive = False
        self.world.note(self.name, f"DIES: {how}")
        ends = [end for ends in self.peers.values() for end in ends] + self.unopened
        for end in ends:
            end.closed = True
            end.direction.end(orderly=how in ORDERLY)
        self.peers.clear()
        self.unopened.clear()
        self.dirty.clear()
