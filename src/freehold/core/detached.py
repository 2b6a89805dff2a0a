"""Detached actors: those that outlive the program which asked for them. At the head.

A detached actor is an actor as any other (``actors``): it has an owner, which restarts it. Its
owner is a *steward*, a process of the cluster's own that is there for this one actor, a driver with
a job of its own; so nothing else in the cluster has to know of detached actors. The head has the
*blueprint*, all that it takes to make the actor, in its journal, and sees to it that there is a
steward: that is all that this file does.

The life of one: asked for -> its name is awaited -> a node starts a steward, which takes the name
-> the actor lives and dies and is restarted, without us -> the steward says that it has ended
(killed, exited, its constructor raised, no restart left), and the blueprint goes. If the steward
itself ends first, by a crash or with its node, its job ends and the actor with it; then another
steward makes it anew, as a restart: it counts as one, and the state is lost. With no restart left
that was the end.

A steward begins by taking the name, and goes if another has it. So it does no harm to start one too
many, and there is no record of those that were started: while the name is awaited a node is asked
again every ``PATIENCE``. That covers the node that died, the steward that did not come up, and the
head that began anew in between.

Where a steward lives: on the node that has been up longest, which is the head's own as long as that
lives. So it takes a second failure to end a detached actor while there is a head.

Never two lives at once: the steward that is gone was declared so by its node or with it, and its
job's end is told to all nodes before another steward is asked for. Its actor's process ends itself
when the stream to the steward does. What a node does that is cut off is not known; it is fenced.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Final

from freehold.core.journal import Journal
from freehold.core.membership import Membership
from freehold.core.names import Names
from freehold.core.world import Timer, World
from freehold.wire.detached import (
    Blueprint,
    BlueprintRead,
    MakeDetached,
    ReadBlueprint,
    RestartsLeft,
    StartSteward,
)
from freehold.wire.messages import Address, Message
from freehold.wire.names import ActorsFound, NamedActor

#: Seconds after which another steward is asked for. One is up in 0.1 s, on an overloaded machine
#: in a few; one too many costs a fork.
PATIENCE: Final = 5.0
#: The same while there is no node to ask: a head that has just begun is called within a second.
SOON: Final = 0.5
#: Appended to a blueprint's key: where the journal has the number of restarts that are left. (The
#: blueprint, which may be large, is written once.)
LEFT: Final = b"left"


class Kept:
    """One detached actor. ``left``: restarts, -1 for any number. ``timer``: when another steward
    is asked for, while there is none.
    """

    __slots__ = ("blueprint", "left", "timer")

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.left = blueprint.restarts
        self.timer: Timer | None = None


class Detached:
    """The detached actors of one cluster."""

    def __init__(self, world: World, journal: Journal, members: Membership, names: Names) -> None:
        self.world = world
        self.journal = journal
        self.members = members
        self.names = names
        self.kept: dict[bytes, Kept] = {}
        names.ended = lambda actor: self.forget(actor.detached)
        names.orphaned = self.orphaned
        self.recover(journal.load())

    def recover(self, records: Iterable[Message]) -> None:
        """Begin where an earlier head ended."""
        for record in records:
            if isinstance(record, MakeDetached):
                self.kept[record.blueprint.key] = Kept(record.blueprint)
            elif isinstance(record, RestartsLeft) and record.key in self.kept:
                self.kept[record.key].left = record.left
        held = {actor.detached for actor in self.names.actors.values()}
        for key, kept in self.kept.items():
            if key not in held:
                self.begin(kept)

    def on_make(self, message: MakeDetached, peer: Address) -> None:
        """A program wants one."""
        blueprint = message.blueprint
        blueprint.namespace = self.names.namespace_of(blueprint.namespace, message.job)
        name = blueprint.namespace, blueprint.name
        holder = self.names.actors.get(name)
        if holder is not None:
            self.world.send(peer, ActorsFound(message.request, [holder]))
            return
        if name not in self.names.awaited:
            self.journal.put(blueprint.key, message)
            self.kept[blueprint.key] = kept = Kept(blueprint)
            self.begin(kept)
        self.names.awaited[name].asking.append(partial(self.on_make, message, peer))

    def on_read(self, message: ReadBlueprint, peer: Address) -> None:
        """A steward asks what it is there for."""
        kept = self.kept.get(message.key)
        blueprint = None
        if kept is not None:
            blueprint = kept.blueprint
            blueprint.restarts = kept.left
        self.world.send(peer, BlueprintRead(message.request, blueprint))

    def on_left(self, message: RestartsLeft) -> None:
        """A steward makes its actor again."""
        kept = self.kept.get(message.key)
        if kept is not None:
            self.set_left(kept, message.left)

    def set_left(self, kept: Kept, left: int) -> None:
        """So many restarts are left, also for the next head."""
        if left != kept.left:
            kept.left = left
            key = kept.blueprint.key
            self.journal.put(key + LEFT, RestartsLeft(key, left))

    # ------------------------------------------------------------------ stewards

    def begin(self, kept: Kept) -> None:
        """There is no steward: whoever asks for the name waits until there is one."""
        blueprint = kept.blueprint
        self.names.expect(blueprint.namespace, blueprint.name, blueprint.key)
        self.seek(kept)

    def seek(self, kept: Kept) -> None:
        """Have a steward started, and again later, until one has taken the name."""
        kept.timer = None
        blueprint = kept.blueprint
        awaited = self.names.awaited.get((blueprint.namespace, blueprint.name))
        if awaited is None or awaited.detached != blueprint.key:
            return
        node = self.oldest()
        if node is not None:
            self.world.send(node, StartSteward(blueprint.key))
        again = self.world.now() + (SOON if node is None else PATIENCE)
        kept.timer = self.world.call_at(again, partial(self.seek, kept))

    def oldest(self) -> Address | None:
        """The node that has been up longest, of those that stay."""
        there = [member.info for member in self.members.members.values() if member.present]
        stay = [info for info in there if not info.draining]
        return next((info.address for info in [*stay, *there]), None)

    def orphaned(self, actor: NamedActor) -> None:
        """A steward has ended, and its actor with it."""
        kept = self.kept.get(actor.detached)
        if kept is None:
            return
        if kept.left == 0:
            self.forget(actor.detached)
            return
        self.set_left(kept, max(kept.left - 1, -1))
        if kept.timer is not None:
            kept.timer.cancel()
        self.begin(kept)

    def forget(self, key: bytes) -> None:
        """A detached actor has ended."""
        kept = self.kept.pop(key, None)
        if kept is not None:
            self.journal.delete(key)
            self.journal.delete(key + LEFT)
