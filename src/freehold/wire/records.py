"""Records: the parts that messages are made of (``messages`` is the protocol itself).

Each is an array on the wire. A record that names a process carries its address, so that whoever
reads it can call.
"""

from __future__ import annotations

import msgspec

from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.resources import Resources


class Record(msgspec.Struct, array_like=True, gc=False):
    """Part of a message. ``gc=False`` is safe because no message contains itself."""


class Address(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Where a process is reached: a unix socket on its own machine, else its node's TCP port."""

    process: ProcessId
    node: NodeId
    host: str
    port: int

    def is_node(self) -> bool:
        """Whether this is a node daemon, whose process id is its node's."""
        return bytes(self.process) == bytes(self.node)


class Reference(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A name of a value: its object and the address of the owner."""

    object: ObjectId
    owner: Address


INLINE, STORED, FAILED = 0, 1, 2


class Value(Record):
    """What is known of a finished object.

    ``kind`` INLINE: ``data`` is the value's blob. STORED: the blob of ``size`` bytes lies in the
    stores of ``nodes``. FAILED: ``data`` is a shipped exception. ``contains``: the references
    inside the value, in the order in which the blob numbers them.
    """

    kind: int
    data: bytes = b""
    size: int = 0
    nodes: list[Address] = []
    contains: list[Reference] = []


class Argument(Record):
    """A top-level reference among a task's arguments, with its value as the submitter knows it."""

    ref: Reference
    value: Value


class Death(Record):
    """How a worker ended, as seen by its node."""

    pid: int
    node: NodeId
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    stderr_tail: list[str] = []


class NodeInfo(Record):
    """A node as the head and the other nodes know it."""

    address: Address
    hostname: str
    pid: int
    total: Resources
    free: Resources
    labels: dict[str, str] = {}
    queued: int = 0
    store_bytes: int = 0
    store_used: int = 0
    spilled_bytes: int = 0
    workers: int = 0
    alive: bool = True
    reason: str = ""
