"""The head: membership, jobs, placement groups, names and detached actors. On no task's path; while
it is away, tasks and objects go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from freehold.core.detached import Detached
from freehold.core.journal import Journal
from freehold.core.membership import Membership
from freehold.core.names import Names
from freehold.core.placement import Placing
from freehold.core.world import World
from freehold.ids import NodeId
from freehold.resources import Resources
from freehold.wire.detached import MakeDetached, ReadBlueprint, RestartsLeft
from freehold.wire.messages import (
    Address,
    AwaitGroup,
    BundlesReserved,
    CreateGroup,
    Describe,
    Description,
    FindActors,
    FindGroups,
    Heartbeat,
    JobEnded,
    JobStarted,
    JoinCluster,
    Message,
    NameActor,
    NodeChanged,
    NodeKnown,
    NodeReport,
    ProcessLost,
    RemoveGroup,
    UnnameActor,
)

#: Nodes that are gone which ``status`` is told of.
GONE_SHOWN: Final = 100


class Head:
    """The machines of the head."""

    def __init__(self, world: World, journal: Journal, dead_after: float) -> None:
        """``dead_after``: seconds without a word after which a node is gone."""
        self.world = world
        self.membership = members = Membership(world, journal, dead_after)
        self.placing = Placing(world, journal, members)
        members.groups = self.placing.facts
        self.names = names = Names(world, journal, members)
        self.detached = detached = Detached(world, journal, members, names)
        for node in members.gone:  # (a record of its end was written, and those that follow lost)
            names.node_gone(node)
        members.node_gone = self.node_gone
        members.job_over = self.placing.job_over
        self.handlers: dict[type[Message], Callable[[Any, Address], None]] = {
            JoinCluster: self.on_join,
            Heartbeat: lambda message, peer: None,  # that something was heard is all it says
            NodeChanged: self.on_changed,
            NodeReport: self.on_report,
            NodeKnown: lambda message, peer: members.expect(message.info),
            JobStarted: members.on_job_started,
            JobEnded: lambda message, peer: members.end_job(message.job, peer.node),
            ProcessLost: self.on_process_lost,
            NameActor: names.on_name,
            UnnameActor: names.on_unname,
            FindActors: names.on_find,
            MakeDetached: detached.on_make,
            ReadBlueprint: detached.on_read,
            RestartsLeft: lambda message, peer: detached.on_left(message),
            Describe: self.on_describe,
            CreateGroup: self.placing.on_create,
            RemoveGroup: self.placing.on_remove,
            FindGroups: self.placing.on_find,
            AwaitGroup: self.placing.on_await,
            BundlesReserved: self.placing.on_reserved,
        }

    def handle(self, message: Message, peer: Address) -> None:
        """Dispatch one message. What a node says that is gone is void."""
        if peer.is_node():
            if self.membership.fenced(message, peer):
                return
            self.membership.heard(peer.node)
        self.handlers[type(message)](message, peer)

    def on_join(self, message: JoinCluster, peer: Address) -> None:
        """A node calls. What it was told of placement groups comes before what we tell it."""
        self.placing.node_calls(peer.node, message.groups)
        self.membership.on_join(message, peer)
        for process in message.ended:
            self.names.process_gone(process)

    def on_process_lost(self, message: ProcessLost, peer: Address) -> None:
        """A process has ended, its node says."""
        self.membership.process_ended(message.process)
        self.names.process_gone(message.process)

    def node_gone(self, node: NodeId) -> None:
        """A node is gone: bundles and names go with it."""
        self.placing.node_gone(node)
        self.names.node_gone(node)

    def on_changed(self, message: NodeChanged, peer: Address) -> None:
        """A node is drained, or not any more, or leaves."""
        before = self.free(peer.node)
        self.membership.on_changed(message, peer)
        self.placing.node_reports(before, message.info.free)

    def on_report(self, message: NodeReport, peer: Address) -> None:
        """What is free on a node."""
        before = self.free(peer.node)
        self.membership.on_report(message, peer)
        self.placing.node_reports(before, message.free)

    def free(self, node: NodeId) -> Resources:
        """What a node has last said that it has free."""
        member = self.membership.members.get(node)
        return member.info.free if member is not None else {}

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
