"""Membership: which nodes make up the cluster, and which jobs run on it. The head's only knowledge.

A node joins, reports what it has free, and is gone when its stream ends. Every report goes on to
the other nodes. A node that is gone is gone for ever: its id is its incarnation, and one that
comes back has a new one.
"""

from __future__ import annotations

from freehold.core.world import World
from freehold.ids import JobId, NodeId
from freehold.wire.messages import (
    Address,
    JobEnded,
    JobStarted,
    JoinCluster,
    Joined,
    Message,
    NodeChanged,
    NodeInfo,
    Stop,
)


class Membership:
    """Nodes and jobs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[NodeId, NodeInfo] = {}
        self.gone: dict[NodeId, NodeInfo] = {}
        self.jobs: dict[JobId, JobStarted] = {}

    def on_join(self, message: JoinCluster, peer: Address) -> None:
        """A new node: tell it of the others and of the jobs, and them of it."""
        if peer.node in self.gone:
            self.world.send(peer, Stop())  # fenced: the others have given up what it held
            return
        others = list(self.nodes.values())
        self.world.send(peer, Joined(others))
        for job in self.jobs.values():
            self.world.send(peer, job)
        self.nodes[peer.node] = message.info
        self.tell(NodeChanged(message.info), but=peer.node)

    def on_report(self, message: NodeChanged, peer: Address) -> None:
        """A node's news about itself."""
        if peer.node in self.nodes:
            self.nodes[peer.node] = message.info
            self.tell(message, but=peer.node)

    def on_job_started(self, message: JobStarted, peer: Address) -> None:
        """A driver is up."""
        if peer.node in self.nodes:
            self.jobs[message.job] = message
            self.tell(message, but=peer.node)

    def on_job_ended(self, message: JobEnded, peer: Address) -> None:
        """A driver is gone."""
        if self.jobs.pop(message.job, None) is not None:
            self.tell(message, but=peer.node)

    def lost(self, node: NodeId, reason: str) -> None:
        """A node's stream has ended. Its drivers are gone with it."""
        info = self.nodes.pop(node, None)
        if info is None:
            return
        info.alive = False
        info.reason = reason
        self.gone[node] = info
        while len(self.gone) > 100:  # kept for ``status`` only
            del self.gone[next(iter(self.gone))]
        self.tell(NodeChanged(info))
        for job in list(self.jobs.values()):
            if job.driver.node == node:
                del self.jobs[job.job]
                self.tell(JobEnded(job.job))

    def tell(self, message: Message, but: NodeId | None = None) -> None:
        """Send to every node but one."""
        for node, info in self.nodes.items():
            if node != but:
                self.world.send(info.address, message)
