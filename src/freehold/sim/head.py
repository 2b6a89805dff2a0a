"""The head in the simulated world, and its journal.

A head that is killed is started again after a while, on what its journal kept. The real journal
keeps what was committed when a process is killed; here the last records may be gone as well, as
after the failure of a whole machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from freehold.core import membership
from freehold.ids import NodeId, ProcessId
from freehold.roles.head import Head
from freehold.sim.process import Process
from freehold.sim.world import Violation
from freehold.wire.messages import Address, Message, Stop, Wire

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster


class SimJournal:
    """Implements ``core.journal.Journal``: changes in order, each as the bytes that a disk has."""

    def __init__(self) -> None:
        self.changes: list[tuple[bytes, bytes]] = []  # a key and its record, empty: deleted

    def put(self, key: bytes, record: Message) -> None:
        """Keep a record."""
        self.changes.append((key, Wire.encode([record])))

    def delete(self, key: bytes) -> None:
        """Forget a record."""
        self.changes.append((key, b""))

    def load(self) -> list[Message]:
        """What is kept, in the order of its writing."""
        kept: dict[bytes, bytes] = {}
        for key, record in self.changes:
            kept.pop(key, None)
            if record:
                kept[key] = record
        return [Wire.decode(record)[0] for record in kept.values()]

    def tear(self, count: int) -> None:
        """The last changes never reached the disk, or, if there are not so many, nothing is left
        of it.
        """
        del self.changes[max(0, len(self.changes) - count) :]


class HeadProcess(Process):
    """The head: one incarnation of it."""

    kind = "head"

    def __init__(self, cluster: Cluster, address: Address, journal: SimJournal) -> None:
        super().__init__(cluster, "head", address)
        self.journal = journal
        self.role = Head(self, journal, membership.DEAD_AFTER)

    def on_message(self, message: Message, peer: Address) -> None:
        if type(message) is Stop:
            raise Violation("harness", "nobody stops the head here")
        self.role.handle(message, peer)

    def on_lost(self, peer: Address) -> None:
        self.role.peer_lost(peer)


def head_address() -> Address:
    """The head's address."""
    return Address(ProcessId(b"the-head"), NodeId(b""), "head", 1)
