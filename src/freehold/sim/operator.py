"""The operator: asks a node to leave in good order, as ``freehold drain`` does, and listens.

What it is told is checked: a drain ends with nothing left on the node, though values, tasks and
whole programs were there when it began, and no task is cut short by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from freehold.core.entries import Entry
from freehold.ids import NodeId, ProcessId
from freehold.sim.process import Process
from freehold.sim.world import Violation
from freehold.wire.draining import CANCELLED, LEAVES, REFUSED
from freehold.wire.messages import STORED, Address, DrainNode, DrainProgress, Message

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.node import NodeProcess

#: Seconds that a node may take to become empty. Programs end long before.
TIMEOUT: Final = 600.0


class Operator(Process):
    """The one who drains nodes."""

    kind = "operator"

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster, "op", Address(ProcessId(b"operator"), NodeId(b""), "desk", 1))
        self.drained: dict[str, NodeProcess] = {}  # shall be gone at the end
        self.left: set[NodeId] = set()  # have gone in good order

    def drain(self, node: NodeProcess, cancel_after: int | None) -> None:
        """Have a node leave; or, ``cancel_after`` so many ns, stay after all."""
        self.turn(lambda: self.send(node.address, DrainNode(1, TIMEOUT)), f"drains {node.name}")
        if cancel_after is None:
            self.drained[node.name] = node
        else:
            self.arrange(cancel_after, lambda: self.cancel(node), f"cancels drain of {node.name}")

    def cancel(self, node: NodeProcess) -> None:
        """The node shall stay."""
        if node.alive:
            self.send(node.address, DrainNode(1, 0.0, cancel=True))

    def on_message(self, message: Message, peer: Address) -> None:
        """How it goes."""
        assert isinstance(message, DrainProgress)
        self.world.mark(f"drain {message.state}")
        kept = (message.leases, message.values, message.workers, message.drivers)
        if message.state in (REFUSED, CANCELLED):
            self.drained.pop(self.call(peer), None)
        if message.state == LEAVES and any(kept):
            raise Violation(
                "drained is empty",
                f"{self.call(peer)} leaves with {kept[0]} leases, {kept[1]} values, {kept[2]} "
                f"workers, {kept[3]} programs after {message.seconds:.0f} s: {message.note}",
            )
        if message.moved:
            self.world.mark("values moved")

    def check_left(self, node: NodeProcess) -> None:
        """A drained node goes: no task of it runs, and every value that its owner knows there has
        a copy elsewhere.
        """
        self.left.add(node.address.node)
        for child in node.children.values():
            if child.alive and child.running is not None:
                raise Violation("drained is empty", f"{node.name} leaves while {child.name} runs")
        for user in self.cluster.users():
            if user.alive and user.node is not node and self.cluster.watch.nothing_lost(user):
                for entry in user.role.ownership.entries.values():
                    self.check_copies(entry, node)

    def check_copies(self, entry: Entry, node: NodeProcess) -> None:
        """One value of a living owner, when ``node`` goes."""
        value = entry.value
        if entry.owner is not None or value is None or value.kind != STORED:
            return
        nodes = [self.cluster.nodes[place.process] for place in value.nodes]
        if node in nodes and not any(
            other.alive and other is not node and entry.object in other.role.objects.table
            for other in nodes
        ):
            name = self.cluster.name_object(entry.object)
            raise Violation("a drain loses nothing", f"{node.name} leaves with the last {name}")

    def check_gone(self) -> None:
        """At the very end: nodes that were drained have left."""
        for node in self.drained.values():
            if node.alive:
                raise Violation(
                    "drained is gone", f"{node.name}: {node.role.draining.progress(1, '')}"
                )

    def on_lost(self, peer: Address) -> None:
        """A node has left, or died."""
