"""A node daemon, its arena, its disk and its zygote.

The arena holds contents by offset: reading a place gives what was last written exactly there, or
bytes that equal nothing, so that a value which moved or was overwritten under a reader is seen.
The mover takes time and may fail; what it reads and writes it reads and writes then, not when it
was asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from freehold.core.relaying import Relaying
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.resources import vector
from freehold.roles.node import Node
from freehold.sim.making import Making
from freehold.sim.process import Process
from freehold.sim.pulling import Arrival, Pull
from freehold.sim.world import MICRO, MILLI, Violation
from freehold.store.allocator import Allocator
from freehold.wire.messages import Address, Death, Message, NodeInfo, Stop

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.worker import WorkerProcess

GARBAGE = b"not what was written"


class Arena:
    """Contents by place."""

    def __init__(self) -> None:
        self.places: dict[int, tuple[int, bytes]] = {}

    def write(self, offset: int, size: int, content: bytes) -> None:
        """Fill a place; what overlaps it is garbage from now on."""
        for other, (length, _) in list(self.places.items()):
            if other < offset + size and offset < other + length:
                del self.places[other]
        self.places[offset] = (size, content)

    def read(self, offset: int, size: int) -> bytes:
        """What stands there."""
        length, content = self.places.get(offset, (0, GARBAGE))
        return content if length == size else GARBAGE


class NodeProcess(Making, Process):
    """The shell of a node: processes and bytes."""

    kind = "node"

    def __init__(
        self, cluster: Cluster, name: str, address: Address, head: Address, cpus: int, store: int
    ) -> None:
        super().__init__(cluster, name, address)
        self.arena = Arena()
        self.room = Allocator(store)
        self.disk: dict[int, bytes] = {}
        self.slots = 0
        self.children: dict[int, WorkerProcess] = {}
        self.head = head
        self.chance = self.world.stream(f"node {name}")
        total = vector(num_cpus=cpus)
        info = NodeInfo(address, name, 0, total, dict(total), store_bytes=store)
        grace = cluster.case.grace
        self.role = Node(self, self, self.room, info, head, infeasible_grace=grace, maker=self)
        self.relaying = Relaying(self.role.objects)
        self.arrivals: dict[ObjectId, Arrival] = {}
        # faults that are under way
        self.disk_full_until = 0
        self.disk_unreadable_until = 0
        self.failing_starts = 0

    def on_message(self, message: Message, peer: Address) -> None:
        if type(message) is Stop:
            self.leave()
            return
        self.role.handle(message, peer)

    def on_lost(self, peer: Address) -> None:
        self.role.peer_lost(peer)

    # ------------------------------------------------------------------ roles.node.Shell

    def fenced(self, reason: str) -> None:
        """It was declared dead: it ends, and begins as a new node."""
        self.world.mark("a fenced node begins anew")
        self.flush()
        self.die(f"it {reason}")
        self.world.after(int(MILLI * (50 + 300 * self.chance.random())), self.cluster.add_node)

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        """Fork a worker; it registers later, or never does."""
        fails = self.failing_starts > 0
        self.failing_starts -= fails
        delay = int(MILLI * (1 + self.chance.expovariate(1 / self.cluster.case.start_millis)))

        def forked() -> None:
            if not self.alive:
                return
            if fails:
                self.report_end(start, "exit 1")
                self.world.mark("start fails")
            else:
                self.children[start] = self.cluster.add_worker(self, start)

        self.world.after(delay, forked)

    def kill_worker(self, start: int) -> None:
        """SIGKILL, through the zygote."""

        def kill() -> None:
            child = self.children.get(start)
            if child is not None:
                child.die("killed by its node")

        self.world.after(100 * MICRO, kill)

    def report_end(self, start: int, how: str) -> None:
        """The zygote tells the daemon that a worker has ended."""
        if not self.alive:
            return
        self.children.pop(start, None)
        delay = int(self.chance.expovariate(1 / (300 * MICRO)))
        if self.chance.random() < 0.05:
            delay *= 30
        death = Death(start, self.address.node, 1, None, how)
        self.arrange(delay, lambda: self.role.worker_ended(start, death), f"worker {start} ended")

    def leave(self) -> None:
        """The head says that it may go: it was drained."""
        if not self.role.draining.leaving:
            raise Violation("harness", "nobody stops a node here")
        self.cluster.operator.check_left(self)
        self.die("drained")

    def die(self, how: str) -> None:
        """The daemon is gone; the zygote kills the workers a little later."""
        super().die(how)
        for arrival in self.arrivals.values():
            arrival.ends("hung up in the middle", b"")
        for child in self.children.values():
            delay = int(self.chance.random() * 10 * MILLI)
            self.world.after(delay, partial(child.die, "no node"))
        self.children.clear()

    # ------------------------------------------------------------------ core.objects.Mover

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        """Write a batch to disk."""
        names = [object_id for object_id, _, _ in batch]
        before = [self.arena.read(offset, size) for _, offset, size in batch]

        def written() -> None:
            if self.disk_full_until > self.world.now_ns:
                self.world.mark("spill fails")
                self.role.objects.spilled(names, [], "no space left on device")
                return
            self.world.mark("spill")
            slots = []
            for (object_id, offset, size), content in zip(batch, before):
                if self.arena.read(offset, size) != content:
                    raise Violation("bytes", f"{object_id.hex()} changed while it was spilled")
                self.slots += 1
                self.disk[self.slots] = content
                slots.append(self.slots)
            self.role.objects.spilled(names, slots, "")

        self.arrange(self.disk_time(), written, f"spilled {len(batch)}")

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        """Read one back."""

        def read() -> None:
            if self.disk_unreadable_until > self.world.now_ns:
                self.world.mark("restore fails")
                self.role.objects.restored(object_id, "input/output error")
                return
            if slot not in self.disk:
                raise Violation("bytes", f"{object_id.hex()} is read from a slot given back")
            self.world.mark("restore")
            self.arena.write(offset, size, self.disk[slot])
            self.role.objects.restored(object_id, "")

        self.arrange(self.disk_time(), read, "restored")

    def disk_time(self) -> int:
        """Nanoseconds for one visit to the disk."""
        return int(MILLI * (0.1 + self.chance.expovariate(0.5)))

    def discard(self, slot: Any) -> None:
        """Give a slot back."""
        if self.disk.pop(slot, None) is None:
            raise Violation("spill slots", f"slot {slot} is given back twice")

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        """Copy from another node: ask, be served, take the bytes."""
        if self.cluster.profile.relays:
            Pull(self, object_id, source, offset, size)
            return
        peer = self.cluster.nodes.get(source.process)
        network = self.cluster.network
        base = network.base(self.address.node, source.node)

        def answered(error: str, content: bytes = GARBAGE, soon: bool = False) -> None:
            if not error:
                self.world.mark("pull")
                self.arena.write(offset, size, content)
            delay = network.delay(base, self.address.node, source.node)
            self.arrange(delay, lambda: self.role.objects.pulled(object_id, error, soon), "pulled")

        def asked() -> None:
            until = max(
                network.held_until(self.address.node, source.node),
                network.held_until(source.node, self.address.node),
                peer.stopped_until if peer is not None else 0,
            )
            if until > self.world.now_ns:
                self.world.at(until, asked)
            elif peer is None or not peer.alive:
                answered("connection refused")
            elif self.cluster.pull_failures > 0:
                self.cluster.pull_failures -= 1
                self.world.mark("pull fails")
                answered("connection reset")
            else:
                peer.turn(
                    lambda: peer.serve(object_id, self.address.process, answered),
                    f"serves {self.name}",
                )

        self.world.after(2 * network.delay(base, self.address.node, source.node), asked)

    def serve(self, object_id: ObjectId, client: ProcessId, answered: Any) -> None:
        """Send one object to another node, pinned meanwhile."""
        stored = self.role.objects.serve(object_id, client)
        if stored is None:
            soon = self.role.objects.being_written(object_id)
            answered("does not have it yet" if soon else "does not have it any more", soon=soon)
            return
        from_disk = stored.slot is not None
        place = (stored.offset, stored.size)

        def sent() -> None:
            if not self.alive:
                answered("hung up in the middle")
                return
            content = self.disk.get(stored.slot, GARBAGE) if from_disk else self.arena.read(*place)
            answered("", content)
            self.arrange(MICRO, lambda: self.role.objects.unpin(object_id, client), "served: unpin")

        self.world.after(int(MILLI * self.chance.expovariate(2)), sent)


def node_address(chance_bytes: bytes, port: int) -> Address:
    """The address of a node: its process id is its node id."""
    return Address(ProcessId(chance_bytes), NodeId(chance_bytes), f"host{port}", port)
