"""Planted bugs in names of actors: the head's book (``names``) and the owners' (``acting``).

As in ``mutants``, which takes these in."""

from __future__ import annotations

from typing import Any, Final

from freehold.core.names import Names
from freehold.core.ownership import Ownership
from freehold.roles.acting import Acting
from freehold.sim.bugs import ignored
from freehold.sim.hunt import Method, Mutant

GUILDS: Final = ("guilds",)


def last_come(true: Method) -> Method:
    """Who asks for a name gets it, whoever has it."""

    def on_name(self: Names, message: Any, peer: Any) -> None:
        actor = message.actor
        holder = self.actors.pop((actor.namespace, actor.name), None)
        if holder is not None:
            del self.by_object[holder.object]
        true(self, message, peer)

    return on_name


def lent_uncounted(true: Method) -> Method:
    """Who finds an actor by its name is not counted."""

    def on_borrow(self: Acting, object_id: Any, peer: Any) -> None:
        hand_out = Ownership.hand_out
        Ownership.hand_out = lambda *args: None  # type: ignore[method-assign]
        try:
            true(self, object_id, peer)
        finally:
            Ownership.hand_out = hand_out  # type: ignore[method-assign]

    return on_borrow


def never_written_down(true: Method) -> Method:
    """The next head knows no names."""

    def recover(self: Names, records: Any) -> None: ...

    return recover


NAME_MUTANTS: Final = (
    Mutant("names go to the last who asks", Names, "on_name", GUILDS, 0, last_come),
    Mutant("found by name, uncounted", Acting, "on_borrow", GUILDS, 0, lent_uncounted),
    Mutant("names die with the head", Names, "recover", GUILDS, 4, never_written_down),
    Mutant("names outlive their actors", Acting, "unname", GUILDS, 0, ignored),
    Mutant("names outlive their owners", Names, "process_gone", GUILDS, 6, ignored),
)
