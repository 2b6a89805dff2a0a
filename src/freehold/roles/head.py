"""The head: membership and jobs. On no task's path; while it is away, tasks and objects go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from freehold.core.journal import Journal
from freehold.core.membership import Membership
from freehold.core.world import World
from freehold.wire.messages import (
    Address,
    Describe,
    Description,
    Heartbeat,
    JobEnded,
    JobStarted,
    JoinCluster,
    Message,
    NodeChanged,
    NodeKnown,
    ProcessLost,
)

#: Nodes that are gone which ``status`` is told of.
GONE_SHOWN: Final = 100


class Head:
    """The machines of the head."""

    def __init__(self, world: World, journal: Journal, dead_after: float) -> None:
        """``dead_after``: seconds without a word after which a node is gone."""
        self.world = world
        self.membership = members = Membership(world, journal, dead_after)
        self.handlers: dict[type[Message], Callable[[Any, Address], None]] = {
            JoinCluster: members.on_join,
            Heartbeat: lambda message, peer: None,  # that something was heard is all it says
            NodeChanged: members.on_report,
            NodeKnown: lambda message, peer: members.expect(message.info),
            JobStarted: members.on_job_started,
            JobEnded: lambda message, peer: members.end_job(message.job, peer.node),
            ProcessLost: lambda message, peer: members.process_ended(message.process, peer.node),
            Describe: self.on_describe,
        }

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message. What a node says that is gone is void."""
        if peer.is_node():
            if self.membership.fenced(message, peer):
                return
            self.membership.heard(peer.node)
        self.handlers[type(message)](message, peer)

    def peer_lost(self, peer: Address) -> None:
        """A stream has ended; if it was a node's, the node is gone."""
        if peer.is_node():
            self.membership.lost(peer.node, "lost its connection to the head")

    def on_describe(self, message: Describe, peer: Address) -> None:
        """Someone asks for the state of the cluster."""
        members = self.membership
        nodes = [member.info for member in members.members.values()]
        nodes += list(members.gone.values())[-GONE_SHOWN:]
        self.world.send(peer, Description(message.request, nodes, list(members.jobs.values())))
