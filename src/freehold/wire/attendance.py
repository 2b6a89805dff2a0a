"""What nodes and the head say to each other: who is there, which jobs run, what has ended.

A node's first message on every stream to the head is JoinCluster; Joined or Fenced is the answer.
Everything else is news, in both directions: facts, which do no harm when they come twice or late,
and which the other side is told again when a stream begins anew. Silence of a node means its death
(``core.membership``), silence of the head means nothing (``core.attendance``).
"""

from typing import Final

import msgspec

from freehold.ids import JobId, NodeId, ProcessId
from freehold.resources import Resources
from freehold.wire.placement import GroupInfo
from freehold.wire.records import Address, NodeInfo, Record


class JobStarted(Record, tag=63):
    """Node to head to every node: a driver is up; this is where its tasks import from."""

    job: JobId
    driver: Address
    pid: int
    python_path: list[str]
    cwd: str
    log_to_driver: bool
    entrypoint: str = ""
    explain_after: float | None = None
    namespace: str = ""  #: of names that the job makes; empty: one of its own
    detached: str = ""  #: the actor that is the whole of the job, if its driver is a steward


class JoinCluster(Record, tag=60):
    """Node to head, at first and after every end of the stream between them: take me in. With all
    that the head may have missed: the jobs of my drivers, processes that have ended (here or, as I
    was told, elsewhere), nodes that I was told are gone, placement groups that I was told of.
    """

    info: NodeInfo
    jobs: list[JobStarted] = []
    ended: list[ProcessId] = []
    gone: list[NodeInfo] = []
    groups: list[GroupInfo] = []


class Joined(Record, tag=61):
    """Head to node: you are in. These are the others, those that are gone, all jobs, and the
    processes that have ended; nothing heard of you for ``dead_after`` seconds means your death.
    And all placement groups: of bundles, hold none but those that these say are with you.
    """

    nodes: list[NodeInfo]
    gone: list[NodeInfo] = []
    jobs: list[JobStarted] = []
    ended: list[ProcessId] = []
    dead_after: float = 10.0
    groups: list[GroupInfo] = []


class Heartbeat(Record, tag=70):
    """Node to head, every tenth of the head's patience: I am here."""


class Fenced(Record, tag=71):
    """Head to node: you were declared dead, and why; what you say is void. Node to its drivers, as
    it ends: the same.
    """

    reason: str


class NodeChanged(Record, tag=62):
    """Node to head, and head to every other node: it has joined, or is drained, or is not any
    more; or, not alive, that it is gone.
    """

    info: NodeInfo


class NodeReport(Record, tag=73):
    """Node to head, at most every 0.1 s (``core.news``): what is free there now. As ``NodeInfo``,
    without what stays the same.
    """

    node: NodeId
    free: Resources
    queued: int = 0
    store_used: int = 0
    spilled_bytes: int = 0
    workers: int = 0
    bundles: dict[bytes, Resources] = {}
    costless: int = 0


class News(Record, tag=74):
    """Head to every node, in rounds (``core.news``): the reports that have come since the last,
    encoded once for all (``pack_reports``), and processes that have ended. Also a node's own: it
    passes them over.
    """

    reports: bytes
    ended: list[ProcessId] = []


pack_reports: Final = msgspec.msgpack.Encoder().encode
unpack_reports: Final = msgspec.msgpack.Decoder(list[NodeReport]).decode


class NodeKnown(Record, tag=72):
    """Node to head: you did not name this one, which I was told of: you may have forgotten it."""

    info: NodeInfo


class JobEnded(Record, tag=64):
    """Node to head to every node: the driver is gone; its workers, leases and objects go too."""

    job: JobId


class ProcessLost(Record, tag=65):
    """Node to head, which tells every node with its ``News``, and node to its processes: a process
    is gone; what it owned is of no use to anyone.
    """

    process: ProcessId
