"""Names: which living actor has which name, in which namespace. At the head.

A name belongs to the first who asks for it, until its actor has ended: its owner says so
(``UnnameActor``), or the owner's process has ended, or its node has. Names are in the journal, so
they outlive the head; what ended while there was no head is told again by the nodes
(``JoinCluster``).

A name counts nothing: it does not keep its actor alive. Who has found one asks the actor's owner to
be counted (``acting``), and if the owner knows the actor no more, the name is stale and is taken
off by whoever found that out. So a word that was lost with a head leaves nothing behind for long.

The name of a detached actor that has no owner for the moment is *awaited*: it is nobody else's, and
who asks for it is answered when it has one (``detached``). Only its owner can say that it has
ended; that a finder cannot reach the owner proves nothing.

A namespace that is not said is the job's: the one given to ``init``, else one of its own, named by
the job's id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from freehold.core.journal import Journal
from freehold.core.membership import Membership
from freehold.core.world import World
from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.messages import Address, Message
from freehold.wire.names import ActorsFound, FindActors, NameActor, NamedActor, UnnameActor

#: Names that one answer lists at most.
LISTED: Final = 10_000


class Names:
    """The names of one cluster."""

    def __init__(self, world: World, journal: Journal, members: Membership) -> None:
        self.world = world
        self.journal = journal
        self.members = members
        self.actors: dict[tuple[str, str], NamedActor] = {}
        self.by_object: dict[ObjectId, NamedActor] = {}
        self.awaited: dict[tuple[str, str], Awaited] = {}
        # the role's: a detached actor has ended; its owner has, without a word of that
        self.ended: Callable[[NamedActor], None]
        self.orphaned: Callable[[NamedActor], None]
        self.recover(journal.load())

    def recover(self, records: Iterable[Message]) -> None:
        """Begin where an earlier head ended."""
        for record in records:
            if isinstance(record, NameActor):
                self.add(record.actor)

    def add(self, actor: NamedActor) -> None:
        """The name is taken."""
        self.actors[actor.namespace, actor.name] = actor
        self.by_object[actor.object] = actor
        awaited = self.awaited.pop((actor.namespace, actor.name), None)
        for ask_again in awaited.asking if awaited is not None else ():
            ask_again()

    def remove(self, actor: NamedActor) -> None:
        """The name is free."""
        del self.by_object[actor.object]
        del self.actors[actor.namespace, actor.name]
        self.journal.delete(actor.object)

    def expect(self, namespace: str, name: str, detached: bytes) -> None:
        """The name will be that of this detached actor."""
        self.awaited[namespace, name] = Awaited(detached)

    def namespace_of(self, given: str, job: JobId) -> str:
        """The namespace that is meant."""
        known = self.members.jobs.get(job)
        return given or (known.namespace if known is not None else "") or job.hex()

    def on_name(self, message: NameActor, peer: Address) -> None:
        """An owner wants a name for its actor. (The word that it has ended may have come before
        this: then nobody waits for the answer, and nobody would take the name off again.)
        """
        actor = message.actor
        if self.members.has_ended(actor.owner):
            return
        actor.namespace = self.namespace_of(actor.namespace, message.job)
        holder = self.actors.get((actor.namespace, actor.name))
        awaited = self.awaited.get((actor.namespace, actor.name))
        if holder is not None:
            self.world.send(peer, ActorsFound(message.request, [holder]))
        elif awaited is not None and awaited.detached != actor.detached:
            awaited.asking.append(partial(self.on_name, message, peer))
        elif actor.detached and awaited is None:
            self.world.send(peer, ActorsFound(message.request, []))
        else:
            self.journal.put(actor.object, message)
            self.world.send(peer, ActorsFound(message.request, [actor]))
            self.add(actor)

    def on_unname(self, message: UnnameActor, peer: Address) -> None:
        """An actor has ended."""
        actor = self.by_object.get(message.object)
        if actor is None:
            return
        if not actor.detached:
            self.remove(actor)
        elif actor.owner.process == peer.process:
            self.remove(actor)
            self.ended(actor)

    def on_find(self, message: FindActors, peer: Address) -> None:
        """Someone asks for one name, or for all."""
        namespace = self.namespace_of(message.namespace, message.job)
        awaited = self.awaited.get((namespace, message.name))
        if awaited is not None:
            awaited.asking.append(partial(self.on_find, message, peer))
            return
        if message.name:
            found = self.actors.get((namespace, message.name))
            answer = [found] if found is not None else []
        else:
            everywhere = message.everywhere
            answer = [a for a in self.actors.values() if everywhere or a.namespace == namespace]
        self.world.send(peer, ActorsFound(message.request, answer[:LISTED]))

    def process_gone(self, process: ProcessId) -> None:
        """A process has ended, and its actors with it."""
        self.owners_gone([a for a in self.actors.values() if a.owner.process == process])

    def node_gone(self, node: NodeId) -> None:
        """A node is gone with all its processes."""
        self.owners_gone([a for a in self.actors.values() if a.owner.node == node])

    def owners_gone(self, actors: Iterable[NamedActor]) -> None:
        """The owners of these have ended."""
        for actor in actors:
            self.remove(actor)
            if actor.detached:
                self.orphaned(actor)


class Awaited:
    """A name that will be that of a detached actor, and what to do when it is."""

    __slots__ = ("asking", "detached")

    def __init__(self, detached: bytes) -> None:
        self.detached = detached
        self.asking: list[Callable[[], None]] = []
