"""Links as TCP and unix sockets have them, between incarnations of processes.

One connection carries frames both ways, in order, once; between two processes there may be two,
if both dialled at once. Nothing is lost, repeated or reordered inside a connection: a bad network
shows as delay, a partition as bytes held until it heals. When a process dies, a prefix of what it
had sent arrives, then the end of the stream; the peer is lost when the last of its connections has
ended. Dialling a process that is gone ends the same way.

Every frame goes through the real codec, so a message that cannot travel is found here too."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING

from freehold.ids import NodeId
from freehold.sim.world import MICRO, World
from freehold.wire import frames
from freehold.wire.messages import Address, Message

if TYPE_CHECKING:
    from freehold.sim.process import Process

OPEN = b"open"
ENDED = b"ended"


class Style:
    """How slow links are. ``steady``: a base and little jitter; ``tailed``: one frame in
    ``1/tail`` takes 10-300 times as long; ``wild``: any delay from 10 us to 100 ms."""

    def __init__(self, name: str, tail: float) -> None:
        self.name = name
        self.tail = tail

    def delay(self, base: int, chance: Random) -> int:
        """Nanoseconds that one frame takes over a pair of machines with this base."""
        if self.name == "wild":
            return int(10 * MICRO * 10 ** (4 * chance.random()))
        delay = base + int(base * chance.random() * 0.5)
        if self.name == "tailed" and chance.random() < self.tail:
            delay *= int(10 ** (1 + 1.5 * chance.random()))
        return delay


class End:
    """One process's end of a connection."""

    __slots__ = ("closed", "direction", "opened", "outbox", "peer", "process")

    def __init__(self, process: Process, peer: Address) -> None:
        self.process = process
        self.peer = peer
        self.outbox: list[Message] = []
        self.direction: Direction
        self.opened = True
        self.closed = False

    def flush(self) -> None:
        """Put what is queued on the wire."""
        if self.outbox and not self.closed:
            messages, self.outbox = self.outbox, []
            self.direction.push(frames.encode(messages), messages)


class Direction:
    """Frames on their way to one end. ``waiting`` holds (ready at, frame, its messages)."""

    __slots__ = ("base", "cut", "network", "source", "target", "waiting")

    def __init__(self, network: Network, source: Address, target: End | None, base: int) -> None:
        self.network = network
        self.source = source
        self.target = target
        self.base = base
        self.waiting: deque[tuple[int, bytes, list[Message]]] = deque()
        self.cut = False

    def push(self, frame: bytes, messages: list[Message], rounds: int = 1) -> None:
        """Send one frame; ``rounds`` latencies for a handshake."""
        if self.cut or self.target is None:
            return
        world = self.network.world
        far = self.target.process.address.node
        delay = sum(self.network.delay(self.base, self.source.node, far) for _ in range(rounds))
        ready = world.now_ns + delay
        if self.waiting:
            ready = max(ready, self.waiting[-1][0])
        self.waiting.append((ready, frame, messages))
        if len(self.waiting) == 1:
            world.at(ready, self.arrive)

    def arrive(self) -> None:
        """The first frame is due: deliver it, unless the link or the process holds it up."""
        assert self.target is not None
        if not self.waiting or self.waiting[0][0] > self.network.world.now_ns:
            return  # what was due now has been lost with its sender
        target = self.target
        world = self.network.world
        until = max(
            target.process.busy_until(),
            self.network.held_until(self.source.node, target.process.address.node),
        )
        if until > world.now_ns:
            world.at(until, self.arrive)
            return
        _, frame, _ = self.waiting.popleft()
        if self.waiting:
            world.at(max(world.now_ns, self.waiting[0][0]), self.arrive)
        if not target.closed and target.process.alive:
            target.process.on_frame(target, frame)

    def end(self, *, orderly: bool = False) -> None:
        """The sender is gone: some of its last frames may be lost with it, unless it has left in
        good order, then the end."""
        chance = self.network.chance
        if self.waiting and not orderly and chance.random() < 0.3:
            keep = chance.randrange(len(self.waiting) + 1)
            while len(self.waiting) > keep:
                self.waiting.pop()
        self.push(ENDED, [])
        self.cut = True


class Network:
    """All links, their delays and partitions."""

    def __init__(self, world: World, style: Style) -> None:
        self.world = world
        self.style = style
        self.chance = world.stream("network")
        self.bases: dict[tuple[NodeId, NodeId], int] = {}
        self.held: dict[tuple[NodeId, NodeId], int] = {}
        self.slowed: dict[NodeId, tuple[int, int]] = {}  # until when, and how many times as slow

    def base(self, a: NodeId, b: NodeId) -> int:
        """The latency of a pair of machines, fixed for the run."""
        if a == b:
            return 20 * MICRO
        key = (min(a, b), max(a, b))
        base = self.bases.get(key)
        if base is None:
            base = self.bases[key] = int(100 * MICRO * 10 ** self.chance.uniform(0, 1.3))
        return base

    def delay(self, base: int, a: NodeId, b: NodeId) -> int:
        """One frame's delay between two machines."""
        delay = self.style.delay(base, self.chance)
        return delay if a == b else delay * max(self.slowness(a), self.slowness(b))

    def slow(self, node: NodeId, until: int, factor: int) -> None:
        """A machine whose frames, in and out, take ``factor`` times as long until then. (Not those
        between its own processes: what one has written the other's kernel has.)
        """
        self.slowed[node] = (until, factor)

    def slowness(self, node: NodeId) -> int:
        """How many times as long frames of this machine take now."""
        until, factor = self.slowed.get(node, (0, 1)) if self.slowed else (0, 1)
        return factor if until > self.world.now_ns else 1

    def hold(self, a: NodeId, b: NodeId, until: int) -> None:
        """A partition: what goes from ``a`` to ``b`` arrives after ``until``."""
        self.held[(a, b)] = max(until, self.held.get((a, b), 0))

    def held_until(self, a: NodeId, b: NodeId) -> int:
        """When bytes flow again."""
        return self.held.get((a, b), 0) if self.held else 0

    def connect(self, process: Process, to: Address, target: Process | None) -> End:
        """Dial. Messages may be queued at once; if nobody is there the connection ends."""
        near = End(process, to)
        base = self.base(process.address.node, to.node)
        back = Direction(self, to, near, base)
        if target is None or not target.alive:
            near.direction = Direction(self, process.address, None, base)
            back.push(ENDED, [], rounds=1)
            return near
        far = End(target, process.address)
        far.opened = False
        near.direction = Direction(self, process.address, far, base)
        far.direction = back
        near.direction.push(OPEN, [], rounds=3)
        target.unopened.append(far)
        return near
