"""Records: the parts that messages are made of (``messages`` is the protocol itself).

Each is an array on the wire. A record that names a process carries its address, so that whoever
reads it can call.

The files of messages do without ``from __future__ import annotations``: of annotations that are
text msgspec compiles each one, 6 ms of every start.
"""

from typing import Final

import msgspec

from freehold.ids import NodeId, ObjectId, ProcessId, TaskId
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

    def is_visitor(self) -> bool:
        """Whether it only came to ask: it has no place at which it could be called, and its end
        is nobody's death.
        """
        return not self.host


class Link(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A task and the process that submitted it, and so can run it again."""

    task: TaskId
    submitter: Address


class Reference(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """A name of a value: its object and the address of the owner.

    ``line``: the task in whose run the owner made the object, the task in whose run that one was
    submitted, and so on, at most ``LONGEST_LINE`` of them; empty for what a driver owns. If the
    owner dies, the value comes back through these.
    """

    object: ObjectId
    owner: Address
    line: tuple[Link, ...] = ()


#: Ancestors that a reference names. Each is 45 bytes on the wire; deeper nesting is rare, and a
#: value is lost only if all of these have died within the moment that recovery takes.
LONGEST_LINE: Final = 8


class Claim(Record):
    """A holder's wish to have an object back whose owner, ``dead``, has died.

    ``path``: tasks that must run for it, outermost first: the first was submitted by the process
    that the claim is sent to, each further one in a run of the one before, and in the run of the
    last the object is made.
    """

    object: ObjectId
    holder: Address
    dead: ProcessId
    path: list[TaskId] = []


INLINE, STORED, FAILED, ACTOR = 0, 1, 2, 3


class Value(Record):
    """What is known of a finished object.

    ``kind`` INLINE: ``data`` is the value's blob. STORED: the blob of ``size`` bytes lies in the
    stores of ``nodes``. FAILED: ``data`` is a shipped exception. ACTOR: ``data`` says where the
    actor lives (``actors.Place``). ``contains``: the references inside the value, in the order in
    which the blob numbers them.
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
    """How a worker ended, as seen by its node, and when by the clock on its wall."""

    pid: int
    node: NodeId
    exit_code: int | None = None
    signal: int | None = None
    detail: str = ""
    stderr_tail: list[str] = []
    when: str = ""


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
    draining: bool = False  #: takes no more tasks; not alive as well: was drained and has left
    #: What is left of bundles in use, by their group's id and number (two bytes).
    bundles: dict[bytes, Resources] = {}
    costless: int = 0  #: leases granted that take no CPU
