"""Fetches: what a process and its node say about values that are to be read on this machine.

Asked for (FetchObject, FetchTogether) -> ready, and pinned until UnpinObject, or missing. A process
may take a wish back (CancelFetch); an answer that crosses this is given back by UnpinObject. A wish
that is repeated with more urgency replaces the one before.
"""

from freehold.ids import NodeId, ObjectId
from freehold.wire.records import Address, Record

#: How urgent a wish is: a ``get``, a ``wait``, the arguments of a task, those of a call to an
#: actor. The last two are equally urgent; what an actor reads it may keep for as long as it lives.
GET, WAIT, ARGUMENT, CALL = 0, 1, 2, 3


class FetchObject(Record, tag=37):
    """Process to its node: bring it here, pin it for me. Answer: ObjectReady or ObjectMissing."""

    object: ObjectId
    size: int
    owner: Address
    nodes: list[Address]
    priority: int = GET


class ObjectReady(Record, tag=38):
    """Node: the object lies at ``offset``, pinned for you until UnpinObject. ``only``: it is the
    one copy, and not on disk: nobody gets its room by dropping it.
    """

    object: ObjectId
    offset: int
    size: int
    only: bool = False


class ObjectMissing(Record, tag=39):
    """Node: none of the named nodes has it (any more), or there is no room for it here: the store
    is full (``full``), perhaps because nothing more can be spilled (``disk``).
    """

    object: ObjectId
    reason: str
    tried: list[NodeId] = []
    full: bool = False
    disk: bool = False


class UnpinObject(Record, tag=40):
    """Process to node: one of my views of it is gone."""

    object: ObjectId


class CancelFetch(Record, tag=41):
    """Process to node: the fetch is no longer wanted (a get timed out)."""

    object: ObjectId


class FetchTogether(Record, tag=128):
    """Process to its node: I can use these only when all are here, so pin none before there is room
    for all. Answered object by object.
    """

    objects: list[FetchObject]


class FetchAhead(Record, tag=129):
    """Owner to node: tasks that will run there soon need these. Nothing is answered or pinned, and
    a node that is short of room does nothing.
    """

    objects: list[FetchObject]
