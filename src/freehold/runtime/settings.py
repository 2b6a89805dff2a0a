"""How a node and a head are started; it travels as JSON on the command line of their process.

A file of its own, since whoever starts a cluster needs this and not the daemons themselves, whose
files take 30 ms to import.
"""

from typing import Final

import msgspec

from freehold.core.membership import DEAD_AFTER
from freehold.core.spilling import FUSE_BYTES
from freehold.ids import NodeId, ProcessId
from freehold.wire.messages import Address

#: How the interpreter is called that becomes a node (``launched``); its settings follow. What it
#: imports is there to stay, and the collector would look through it again and again: an eighth of
#: the time.
NODE_PROGRAM: Final = (
    "-P",
    "-c",
    "import gc; gc.disable(); from freehold.runtime import launched; launched.main()",
)


class HeadSettings(msgspec.Struct):
    """``listener`` and ``lifeline`` are descriptors; ``dead_after``: see ``core.membership``."""

    session: str
    address: Address
    listener: int
    lifeline: int = -1
    shared: bool = False
    dead_after: float = DEAD_AFTER


class Kept(msgspec.Struct):
    """A head that a node daemon has started: its pid, and how to start it again."""

    pid: int
    settings: HeadSettings


class NodeSettings(msgspec.Struct):
    """``lifeline`` and ``ready`` are descriptors."""

    session: str
    node: NodeId
    head: Address
    host: str
    resources: dict[str, int]
    store_bytes: int
    labels: dict[str, str] = {}
    spill_folders: list[str] = []
    spill_quota: int | None = None
    fuse_bytes: int = FUSE_BYTES
    prefetch: bool = True
    infeasible_grace: float = 10.0
    lifeline: int = -1
    ready: int = -1
    start_head: bool = False
    shared: bool = False  # for any program, not for the one that starts it
    dead_after: float = DEAD_AFTER  # for the head that it starts, which tells all nodes
    kept: Kept | None = None  # the head that was started


def head_address(host: str, port: int) -> Address:
    """The head of the cluster at host:port. Its process id is fixed, because joiners know only
    where it listens.
    """
    return Address(ProcessId(b"the-head"), NodeId(b""), host, port)
