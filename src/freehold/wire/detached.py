"""Detached actors: what is said of them to the head, which has them made, and by it to the node and
to the process that make one (``core.detached``).
"""

from typing import TypeAlias

from freehold.ids import JobId
from freehold.resources import Resources
from freehold.wire.actors import Creation
from freehold.wire.environments import Environment
from freehold.wire.placement import Placement
from freehold.wire.records import Record


class Blueprint(Record):
    """All that it takes to make a detached actor, without the program that asked for it.

    ``key``: made by that program, once for each actor. ``kind``: what callers have to know of its
    class. ``code``: the class, pickled; ``args``: the constructor's, by value. ``restarts``: -1 for
    any number. ``python_path`` and ``cwd``: where the program imported from.
    """

    key: bytes
    namespace: str
    name: str
    kind: bytes
    title: str
    code: bytes
    args: bytes
    resources: Resources
    creation: Creation
    restarts: int
    placement: Placement | None
    environment: Environment | None
    python_path: list[str]
    cwd: str


class MakeDetached(Record, tag=78):
    """Anyone to head: have this actor made, unless its name is taken. Answered by ActorsFound, as
    soon as somebody has the name; with the blueprint's key in it, it is this one. Asking twice with
    one key makes one actor. In the head's journal: the actor is to be there. ``job``: whose
    namespace is meant if none is said.
    """

    request: int
    job: JobId
    blueprint: Blueprint


class StartSteward(Record, tag=79):
    """Head to node: start a process that makes this actor and owns it. Two of them do no harm: the
    name goes to one, and the other ends.
    """

    key: bytes


class ReadBlueprint(Record, tag=82):
    """Steward to head: what shall I make? Also: is it still to be there?"""

    request: int
    key: bytes


class BlueprintRead(Record, tag=83):
    """Head to steward: this; or, None: the actor has ended."""

    request: int
    blueprint: Blueprint | None


class RestartsLeft(Record, tag=84):
    """Steward to head: the actor is being made again, and may be so many times more. In the head's
    journal: the same.
    """

    key: bytes
    left: int


Detaching: TypeAlias = MakeDetached | StartSteward | ReadBlueprint | BlueprintRead | RestartsLeft
