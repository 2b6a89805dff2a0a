"""The head daemon: performs what ``roles.head`` decides.

It is forked by the daemon of the first node (``launched``), which watches it and, should it be
killed, starts it again with ``python -m freehold.runtime.headd SETTINGS`` (``keeper``). The new one
listens on the very socket of the old one, which the daemon has kept open: nodes that call meanwhile
are not refused, they wait at the door. What the old one knew is in its journal.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path

import msgspec

from freehold.roles.head import Head
from freehold.runtime import places, sockets, zygote
from freehold.runtime.journal import SqliteJournal
from freehold.runtime.settings import HeadSettings, head_address
from freehold.runtime.transport import Transport
from freehold.wire.messages import Address, Message, Stop


class HeadDaemon:
    """The shell of the head."""

    def __init__(self, settings: HeadSettings) -> None:
        session, address = Path(settings.session), settings.address
        file = places.NodeFile(address, address, os.getpid(), settings.session, settings.shared)
        self.folder = places.write_head_file(session, file)
        folder_fd = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.transport = Transport(address, places.read_token(session), folder_fd)
        self.transport.be_patient(settings.dead_after)
        self.journal = SqliteJournal(self.folder)
        self.role = Head(self.transport, self.journal, settings.dead_after)
        self.transport.on_message = self.on_message
        self.transport.on_lost = self.role.peer_lost
        self.transport.on_turn = self.journal.commit
        self.transport.listen(socket.socket(fileno=settings.listener))
        self.stopping = False
        if settings.lifeline >= 0:  # a pipe that the program for which we are here holds open
            self.transport.watch(settings.lifeline, lambda events: self.stop())

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
        self.journal.close()
        places.remove_node(self.folder)


def listen(host: str, port: int) -> tuple[socket.socket, Address]:
    """The head's listening socket and its address. The process id is the port's, so that joiners
    can name it.
    """
    listener = socket.create_server((host, port), backlog=1024)
    actual = listener.getsockname()[1]
    return listener, head_address(host, actual)


def serve(settings: HeadSettings) -> None:
    """Be the head; end the process with status 0 if it was told to stop, else 1."""
    status = 1
    try:
        zygote.name_process("freehold-head")
        sockets.allow_descriptors()
        HeadDaemon(settings).run()
        status = 0
    except BaseException:
        logging.getLogger("freehold").exception("the head failed")
    finally:
        os._exit(status)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    serve(msgspec.json.decode(sys.argv[1].encode(), type=HeadSettings))
