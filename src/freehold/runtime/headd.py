"""The head daemon: performs what ``roles.head`` decides."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from freehold.ids import NodeId, ProcessId
from freehold.roles.head import Head
from freehold.runtime import places
from freehold.runtime.transport import Transport
from freehold.wire.messages import Address, Message, Stop


class HeadDaemon:
    """The shell of the head."""

    def __init__(
        self, session: Path, listener: socket.socket, address: Address, *, shared: bool = False
    ) -> None:
        file = places.NodeFile(address, address, os.getpid(), str(session), shared)
        self.folder = places.write_head_file(session, file)
        folder_fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.transport = Transport(address, places.read_token(session), folder_fd)
        self.role = Head(self.transport)
        self.transport.on_message = self.on_message
        self.transport.on_lost = self.role.peer_lost
        self.transport.listen(listener)
        self.stopping = False

    def watch_lifeline(self, fd: int) -> None:
        """End when the pipe is closed."""
        self.transport.watch(fd, lambda events: self.stop())

    def on_message(self, message: Message, peer: Address) -> None:
        """One message from the wire."""
        if type(message) is Stop:
            self.stop()
        else:
            self.role.handle(message, peer)

    def stop(self) -> None:
        """Have every node stop, then this loop."""
        self.role.membership.tell(Stop())
        self.transport.flush()
        self.stopping = True

    def run(self) -> None:
        """Serve until told to stop."""
        signal.signal(signal.SIGTERM, lambda *_: self.transport.call_soon(self.stop))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while not self.stopping:
            self.transport.poll(None)
        self.transport.close()
        places.remove_node(self.folder)


def listen(host: str, port: int) -> tuple[socket.socket, Address]:
    """The head's listening socket and its address. The process id is the port's, so that joiners
    can name it.
    """
    listener = socket.create_server((host, port), backlog=1024)
    actual = listener.getsockname()[1]
    return listener, head_address(host, actual)


def head_address(host: str, port: int) -> Address:
    """The head of the cluster at host:port. Its process id is fixed, because joiners know only
    where it listens.
    """
    return Address(ProcessId(b"the-head"), NodeId(b""), host, port)
