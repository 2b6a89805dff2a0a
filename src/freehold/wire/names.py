"""Names of actors: what is said to the head, which keeps them, and to an actor's owner by one who
has only its name (``core.names``).
"""

from typing import TypeAlias

from freehold.ids import JobId, ObjectId
from freehold.wire.records import Address, Record


class NamedActor(Record):
    """A name and whose it is. ``kind``: what callers have to know of its class. ``detached``: the
    key of its blueprint, or b"".
    """

    namespace: str
    name: str
    object: ObjectId
    owner: Address
    kind: bytes
    detached: bytes = b""


class NameActor(Record, tag=96):
    """Owner to head: this is my actor's name, unless another's actor has it. Answered by
    ActorsFound, with the one that has it from now on; with none if it is detached and has ended.
    ``job``: whose namespace is meant if none is said.
    """

    request: int
    job: JobId
    actor: NamedActor


class FindActors(Record, tag=97):
    """Anyone to head: which actor has this name, or, if ``name`` is empty, which have one? Of all
    namespaces, if ``everywhere``.
    """

    request: int
    job: JobId
    namespace: str
    name: str = ""
    everywhere: bool = False


class ActorsFound(Record, tag=98):
    """Head: these."""

    request: int
    actors: list[NamedActor]


class UnnameActor(Record, tag=99):
    """Owner to head: the actor has ended; or anyone: its owner knows it no more."""

    object: ObjectId


class BorrowActor(Record, tag=76):
    """To the owner of an actor, by one who has its name only: count me. ``ended``: also if it has
    ended, and I shall hear how.
    """

    object: ObjectId
    ended: bool = False


class ActorLent(Record, tag=77):
    """Owner to borrower: you are counted once; or the actor has ended."""

    object: ObjectId
    alive: bool


Naming: TypeAlias = NameActor | FindActors | ActorsFound | UnnameActor | BorrowActor | ActorLent
