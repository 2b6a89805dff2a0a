"""Visiting: asking processes of the cluster as an outsider, and leaving again.

An explanation goes to processes with which the asker may have nothing else to do. If it called them
over its own connections, a call that fails would count as a death (``transport``), and a question
would have changed what its asker believes. So a walk has a transport of its own, which lives as
long as the walk, driven by the thread that asks, and an address of its own with no host in it: a
*visitor*, whom nobody calls back and whose end is nobody's death.

It costs a connection and a handshake (0.3 ms) for each process asked. The asker's own sockets are
read meanwhile by whoever reads them otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from freehold.core.explaining import Inquiry
from freehold.ids import NodeId, ProcessId
from freehold.runtime.transport import Transport
from freehold.wire.inquiry import Explain
from freehold.wire.messages import Address


def visit(
    inquiry: Inquiry,
    token: bytes,
    seconds: float,
    *,
    node: NodeId | None = None,
    folder: int = -1,
    unwanted: Callable[[], bool] = lambda: False,
) -> None:
    """Walk until no answer is missing, ``seconds`` are over, or the text is ``unwanted``.

    On the machine of ``node`` processes are called by their sockets in ``folder`` (a descriptor),
    all others through their nodes.
    """
    me = Address(ProcessId(os.urandom(8)), node or NodeId(b""), "", 0)
    transport = Transport(me, token, folder)

    def send(to: Address, question: Explain) -> None:
        transport.send(to, question)

    inquiry.send = send
    transport.on_message = inquiry.on_message
    transport.on_lost = inquiry.on_lost
    began = time.monotonic()
    try:
        inquiry.begin()
        transport.flush()
        drive(transport, lambda: inquiry.done or unwanted(), began + seconds / 2)
        inquiry.worry()
        transport.flush()
        drive(transport, lambda: inquiry.done or unwanted(), began + seconds)
    finally:
        inquiry.send = None
        transport.close()


def drive(transport: Transport, over: Callable[[], bool], deadline: float) -> None:
    """Read answers until it is over or the time is."""
    while not over() and (left := deadline - time.monotonic()) > 0:
        transport.poll(left)
