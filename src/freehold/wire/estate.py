"""What is said between a node and its workers when their ways part: an owner whose tasks one runs
has died, or the worker itself exits in good order (``core.estate``).
"""

from freehold.ids import ObjectId, ProcessId
from freehold.wire.records import Address, Link, Record, Value


class Vacate(Record, tag=54):
    """Node to worker: this process, which had leased you, is dead; say (Vacated) when nothing of
    its tasks runs any more.
    """

    owner: ProcessId


class Vacated(Record, tag=55):
    """Worker to node: nothing does."""

    owner: ProcessId


class Retire(Record, tag=56):
    """Worker to node: I have run as many tasks as I may. Have my lease returned, then ask me to
    stop.
    """


class GiveObject(Record, tag=50):
    """Owner to a node that holds copies: this process owns them now. Answered by ObjectsGiven."""

    objects: list[ObjectId]
    owner: Address


class ObjectsGiven(Record, tag=51):
    """Node to former owner: our copies will outlive you."""


class Bequest(Record):
    """One value and where it comes from (as in a Reference)."""

    object: ObjectId
    value: Value
    line: tuple[Link, ...] = ()


class Bequeath(Record, tag=52):
    """Owner to heir: I am about to exit; these are yours. Who holds them will claim them from you
    when I am gone. Answered by Inherited.
    """

    bequests: list[Bequest]


class Inherited(Record, tag=53):
    """Heir to former owner: you may go."""
