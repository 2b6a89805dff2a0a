"""What is said when a node is drained: emptied in good order, so that it may leave the cluster.

Who decides is the node itself (``core.draining``); that it is drained stands in its NodeInfo. A
value goes from the drained node to another in four messages: TakeObject from the one to the other,
ObjectTaken back, ObjectMoved to the owner, and the owner's FreeObjects to whichever of the two
copies is not to stay, with KeepObject to the new one if that is to.
"""

from typing import Final

from freehold.ids import JobId, ObjectId
from freehold.wire.records import Address, Record

# What a node has to say of its drain:
GOES_ON: Final = "goes on"
REFUSED: Final = "refused"  #: there is none: see ``reason``
CANCELLED: Final = "cancelled"
LEAVES: Final = "leaves"  #: it is over; the node is on its way out


class DrainNode(Record, tag=85):
    """Anyone to node: give away what you have and leave, within ``timeout`` seconds.

    ``force``: end the programs that are connected through you, and leave even as the last node.
    ``cancel``: stay after all.
    """

    request: int
    timeout: float
    force: bool = False
    cancel: bool = False


class DrainProgress(Record, tag=86):
    """Node to who asked, again and again until it leaves.

    ``moved``, ``moved_bytes``: values that other nodes have taken and their owners know there.
    ``seconds``: since it began. The rest is what keeps the node: tasks (leases), values and their
    bytes, workers that still own something, programs connected here. ``note``: why values stay.
    """

    request: int
    state: str
    reason: str = ""
    moved: int = 0
    moved_bytes: int = 0
    seconds: float = 0.0
    leases: int = 0
    values: int = 0
    value_bytes: int = 0
    workers: int = 0
    drivers: int = 0
    note: str = ""


class TakeObject(Record, tag=87):
    """Drained node to another: copy this object from me and keep it as the primary."""

    object: ObjectId
    size: int
    owner: Address
    job: JobId


class ObjectTaken(Record, tag=88):
    """The answer: I have all its bytes and have told its owner; or, with a reason, I have not."""

    object: ObjectId
    reason: str = ""


class ObjectMoved(Record, tag=89):
    """New place to owner: I have taken the object over from a node that is drained. Always
    answered: FreeObjects to ``giver`` and KeepObject to me if you know of the object there, else
    FreeObjects to me (it is freed, or the value that you know is another one, or you do not know
    of it yet).
    """

    object: ObjectId
    giver: Address
    taker: Address
