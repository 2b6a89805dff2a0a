"""The head: membership and jobs. On no task's path; while it is away, tasks and objects go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from freehold.core.membership import Membership
from freehold.core.world import World
from freehold.wire.messages import (
    Address,
    Describe,
    Description,
    JobEnded,
    JobStarted,
    JoinCluster,
    Message,
    NodeChanged,
    ProcessLost,
)


class Head:
    """The machines of the head."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.membership = Membership(world)
        self.handlers: dict[type[Message], Callable[[Any, Address], None]] = {
            JoinCluster: self.membership.on_join,
            NodeChanged: self.membership.on_report,
            JobStarted: self.membership.on_job_started,
            JobEnded: self.membership.on_job_ended,
            ProcessLost: lambda message, peer: self.membership.tell(message, but=peer.node),
            Describe: self.on_describe,
        }

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message."""
        self.handlers[type(message)](message, peer)

    def peer_lost(self, peer: Address) -> None:
        """A stream has ended; if it was a node's, the node is gone."""
        if peer.is_node():
            self.membership.lost(peer.node, "lost its connection to the head")

    def on_describe(self, message: Describe, peer: Address) -> None:
        """Someone asks for the state of the cluster."""
        members = self.membership
        nodes = [*members.nodes.values(), *members.gone.values()]
        self.world.send(peer, Description(message.request, nodes, list(members.jobs.values())))
