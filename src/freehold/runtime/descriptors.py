"""Descriptors between a node daemon and its processes: the arena's memory, and connections
accepted for them.

A process opens one extra unix connection to its node for this. What is passed is a line that says
what it is (a ``Hello`` in msgpack, or a word) with the descriptor attached to its bytes
(SCM_RIGHTS). The kernel delivers a descriptor with the bytes it was sent with, and ``recvmsg``
never reads past them into the next.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from freehold.errors import ClusterUnreachableError
from freehold.ids import ProcessId
from freehold.runtime.places import connect_unix
from freehold.runtime.transport import Transport
from freehold.wire.handshake import DESCRIPTORS, NONCE, ClientSide, Hello
from freehold.wire.messages import Address

ARENA: Final = b"arena"
LONGEST: Final = 2048


def greet_blocking(sock: socket.socket, greeting: ClientSide, timeout: float) -> None:
    """Do a client's handshake on a blocking socket. Raises ClusterUnreachableError if the other
    end hangs up.
    """
    sock.settimeout(timeout)
    while not greeting.done:
        try:
            data = sock.recv(greeting.wants())
        except ConnectionResetError:  # it was killed at this very moment
            data = b""
        if not data:
            raise ClusterUnreachableError(
                "the connection was refused: the token is wrong, or the process is stopping"
            )
        answer = greeting.feed(data)
        if answer:
            sock.sendall(answer)
    sock.settimeout(None)


def send_descriptor(sock: socket.socket, what: bytes, descriptor: int) -> None:
    """Pass a descriptor on, saying what it is."""
    socket.send_fds(sock, [len(what).to_bytes(2, "little") + what], [descriptor])


class DescriptorChannel:
    """A process's end."""

    def __init__(self, token: bytes, folder: int, me: Address, node: ProcessId) -> None:
        self.sock = connect_unix(folder, node)
        greeting = ClientSide(token, os.urandom(NONCE), Hello(me, node, DESCRIPTORS))
        try:
            greet_blocking(self.sock, greeting, timeout=10.0)
        except BaseException:
            self.sock.close()
            raise
        self.kept: dict[bytes, int] = {}
        self.on_connection: Callable[[Hello, int], None] | None = None
        self.transport: Transport | None = None

    def receive(self) -> tuple[bytes, int] | None:
        """The next descriptor and what it is. None at the end of the stream."""
        cloexec = socket.MSG_CMSG_CLOEXEC  # what a task starts is not to hold our connections
        data, descriptors, _, _ = socket.recv_fds(self.sock, LONGEST, 4, cloexec)
        if not data:
            return None
        length = int.from_bytes(data[:2], "little")
        assert len(data) == length + 2
        assert len(descriptors) == 1
        return data[2:], descriptors[0]

    def watch(self, transport: Transport, on_connection: Callable[[Hello, int], None]) -> None:
        """Have connections handed over as they come."""
        self.transport = transport
        self.on_connection = on_connection
        transport.watch(self.sock.fileno(), self.readable)

    def readable(self, events: int) -> None:
        """Something came, or the node is gone."""
        received = self.receive()
        if received is None:
            if self.transport is None or self.transport.closed:
                raise ClusterUnreachableError("the node daemon is gone")
            self.transport.unwatch(self.sock.fileno())
            return
        what, descriptor = received
        if what == ARENA:
            self.kept[what] = descriptor
        else:
            assert self.on_connection is not None
            self.on_connection(msgspec.msgpack.decode(what, type=Hello), descriptor)

    def wait_for(self, what: bytes) -> int:
        """The descriptor of that name, once it has come; the caller owns it. Under the
        transport's lock.
        """
        while what not in self.kept:
            self.readable(0)
        return self.kept.pop(what)

    def close(self) -> None:
        """The end. A mapped arena keeps its own hold on the memory."""
        self.sock.close()
        for descriptor in self.kept.values():
            os.close(descriptor)
        self.kept.clear()
