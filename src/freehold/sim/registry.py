"""Promises about names of actors, seen from above: who has one, and who is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from freehold.core.actors import Actor
from freehold.sim.world import Violation
from freehold.wire.names import NamedActor

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster


class Registry:
    """The names of one run."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.holders: dict[str, NamedActor] = {}

    def lives(self, actor: NamedActor) -> bool:
        """Whether an actor is there, or about to be made, and its owner not cut off."""
        owner = self.cluster.processes[actor.owner.process]
        if not owner.alive or owner.address.node in self.cluster.declared:
            return False
        role = owner.role  # type: ignore[attr-defined]
        entry = role.ownership.entries.get(actor.object)
        task = entry.task if entry is not None else None
        return actor.object in role.acting.naming or (isinstance(task, Actor) and not task.over)

    def living(self, name: str) -> NamedActor | None:
        """Who has the name now, if that can be told from above."""
        holder = self.holders.get(name)
        return holder if holder is not None and self.known(holder) else None

    def known(self, actor: NamedActor) -> bool:
        """Whether the head has to know that an actor lives. With the end of its journal it may have
        forgotten that.
        """
        return not self.cluster.world.marks["torn journal"] and self.lives(actor)

    def on_named(self, name: str, actor: NamedActor) -> None:
        """An actor has its name and is made."""
        self.cluster.world.mark("an actor has a name")
        self.holders[name] = actor

    def on_holder(self, name: str, holder: NamedActor) -> None:
        """The head says who has a name."""
        before = self.living(name)
        two = before is not None and before.object != holder.object
        if two and self.lives(holder):  # (else the answer is older than the end of that one)
            raise Violation("one name", f"{name} is that of two actors that live")

    def on_found(self, name: str, before: NamedActor | None, found: Sequence[NamedActor]) -> None:
        """The head was asked for a name that ``before`` had, and has answered."""
        if before is None or not self.known(before):
            return
        if [actor.object for actor in found] != [before.object]:
            raise Violation("one name", f"{name} has {len(found)} other actors, its own lives")

    def check_quiet(self) -> None:
        """Nothing has a name that is not there."""
        for (_, name), actor in self.cluster.head.role.names.actors.items():
            if not self.lives(actor):
                raise Violation("no leak", f"the head knows the name {name} of none")
