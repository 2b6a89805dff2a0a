"""Stored: the record of one object in a node's store, its states, and the ports to its bytes.

``objects`` leads an object through its life, ``spilling`` decides who gets room; this file is what
they share. It knows offsets and slots, never bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from freehold.ids import JobId, NodeId, ObjectId, ProcessId
from freehold.wire.messages import Address

CREATING: Final = "creating"
SEALED: Final = "sealed"
SPILLING: Final = "spilling"
SPILLED: Final = "spilled"
RESTORING: Final = "restoring"
PULLING: Final = "pulling"
#: All its bytes are here, in the arena or on disk.
COMPLETE: Final = (SEALED, SPILLING, SPILLED, RESTORING)


class Room(Protocol):
    """The arena's allocator."""

    capacity: int
    used: int

    def allocate(self, size: int) -> int | None:
        """An offset, or None."""

    def free(self, offset: int) -> None:
        """Give a block back."""

    def block(self, size: int) -> int:
        """How much of the arena an object of this size takes."""


class Mover(Protocol):
    """Moves bytes, in its own time; each call is answered by the event named after it."""

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        """Write (object, offset, size) to disk: ``spilled``."""

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        """Read a spilled object back: ``restored``."""

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        """Copy an object from another node: ``pulled``."""

    def discard(self, slot: Any) -> None:
        """A spilled object is no longer needed on disk."""


#: Of all that nobody has pinned. Never changed: there may be a million objects, and an empty
#: dictionary takes 64 bytes.
NOT_PINNED: Final[dict[ProcessId, int]] = {}


class Stored:
    """One object in this store. What few objects have at any time, none has room for before."""

    __slots__ = (
        "creator",
        "dying",
        "expected",
        "giver",
        "id",
        "job",
        "left",
        "offset",
        "owner",
        "pins",
        "primary",
        "readers",
        "rounds",
        "size",
        "slot",
        "sources",
        "state",
        "told",
        "tried",
        "wants",
    )

    def __init__(self, object_id: ObjectId, size: int, owner: Address, state: str) -> None:
        self.id = object_id
        self.size = size
        self.owner = owner
        self.job: JobId | None = None
        self.state = state
        self.primary = False
        self.offset = -1
        self.slot: Any = None
        self.pins = NOT_PINNED
        self.readers: set[ProcessId] | None = None  # of them, those that have it as an argument
        self.wants: tuple[Address, ...] = ()
        self.sources: tuple[Address, ...] = ()
        self.left: tuple[Address, ...] = ()  # sources not asked yet in this round
        self.tried: tuple[NodeId, ...] = ()
        self.rounds = 0  # how often every source has failed
        self.creator: Address | None = None
        self.giver: Address | None = None  # a node that is drained and waits for us to take it over
        self.told = False  # its owner was told that we took it over, and has not answered yet
        self.dying = False
        self.expected = False  # a task that has not begun will read it

    def wanted(self) -> bool:
        """Whether anyone waits for its bytes to be here."""
        return bool(self.wants) or self.expected or self.giver is not None
