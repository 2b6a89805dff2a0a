"""What is said about actors: to make, call, find and end them.

An actor is an object whose value (kind ACTOR) is a :class:`Place`: the process that it lives in,
and which of its lives this is. Making it and calling it are tasks (``PushTask.actor``); finding it
is finding the object's value (``Locate``), and whoever has seen a life of it end asks for the next
one (``LocateActor``). See ``core.actors``.
"""

import msgspec

from freehold.ids import LeaseId, ObjectId, ProcessId
from freehold.wire.records import Address, Record, Value


class Creation(Record, tag=1):
    """What a task that makes an actor says beside the constructor's arguments: how many of its
    calls run at once (1: one after the other, in the order sent; more: in threads, or, if
    ``coroutines``, on an event loop), and how many of those that name a group.
    """

    coroutines: bool = False
    limit: int = 1
    groups: dict[str, int] = {}
    life: int = 0  #: how often it was made before


class Call(Record, tag=2):
    """What a call of an actor's method says beside the arguments. ``group``: "" for none.
    ``number``: of the process's calls of that actor; they keep their order within a ``line``: a
    task's id in a worker of tasks, "" elsewhere.
    """

    method: str
    group: str = ""
    number: int = 0
    line: bytes = b""


class Place(Record):
    """Where an actor lives."""

    worker: Address
    life: int


class EndActor(Record, tag=90):
    """Owner to the worker that hosts its actor: nobody can name it any more. Run its
    ``__shutdown__`` and exit.
    """


class ActorExited(Record, tag=91):
    """Worker to the owner of the actor that it hosts: it ends itself, and the process follows."""


class KillLease(Record, tag=92):
    """Owner to node: kill the worker of this lease. LeaseEnded is the answer, also if the node
    knows of no such lease.
    """

    lease: LeaseId


class KillActor(Record, tag=93):
    """Holder to owner: end this life of the actor at once; the last one, unless ``restart``."""

    object: ObjectId
    restart: bool


class ActorRestarts(Record, tag=94):
    """Owner to who waits for an actor's place: it has died and is being made again."""

    object: ObjectId


class LocateActor(Record, tag=95):
    """Caller to owner: the stream of ``gone``, where the actor lived, has ended. Tell me (Located)
    where it lives next, or that it does not; that it lives there still, if that is so for long.
    """

    object: ObjectId
    gone: ProcessId


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Place).decode


def packed(place: Place) -> bytes:
    """The data of an actor's value."""
    return _encode(place)


def place_of(value: Value) -> Place:
    """Where an actor lives, by its value."""
    return _decode(value.data)
