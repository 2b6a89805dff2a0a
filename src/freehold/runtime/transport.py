"""Transport: the real world of a role. Connections, timers, wake-ups, and one ``poll`` that
drives them all.

Passive: it has no thread. Whoever calls ``poll`` is the event loop for that moment; a daemon's
main thread always is, in drivers and workers the role moves between threads (``pump``).
Everything but the wait itself happens under ``lock``, which is the lock of the role.

One connection carries messages both ways between two processes; if both happen to connect at once
there are two, each end sends on the one it has and reads both. A peer is lost when the last of
its connections has ended and been read to its end; a peer that cannot be reached is lost at once.

Strangers: a connection that has not proved itself (``handshake``) is dropped after
``GREETING_SECONDS``; refusals are logged once per reason.
"""

from __future__ import annotations

import errno
import heapq
import logging
import os
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from freehold.errors import AuthenticationError, ProtocolError
from freehold.ids import ProcessId
from freehold.runtime.places import connect_unix, listen_unix
from freehold.wire import frames
from freehold.wire.handshake import MESSAGES, NONCE, ClientSide, Hello, ServerSide
from freehold.wire.messages import Address, Message

log = logging.getLogger("freehold")

GREETING_SECONDS: Final = 5.0
READ: Final = 1 << 18
#: How many of the last callers may be unproved; one that is in earnest takes a millisecond.
STRANGERS: Final = 256
NUMBER: Final = re.compile(r"\d[\d,]*")
#: Submissions that follow each other faster than this (seconds) travel together: a system call
#: costs as much as all the rest of a submission (20 us); nobody notices 0.2 ms in a burst.
GATHER: Final = 0.0002
READABLE: Final = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR


class Timed:
    """A call that has been arranged."""

    __slots__ = ("action", "when")

    def __init__(self, when: float, action: Callable[[], None]) -> None:
        self.when = when
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do not make the call."""
        self.action = None


class Connection:
    """One socket to a peer, greeting or open."""

    __slots__ = (
        "closed", "frames", "greeting", "open", "outbox", "peer", "sock", "transport", "unsent",
    )  # fmt: skip

    def __init__(
        self,
        transport: Transport,
        sock: socket.socket,
        peer: Address | None,
        greeting: ClientSide | ServerSide | None,
    ) -> None:
        self.transport = transport
        self.sock = sock
        self.peer = peer
        self.greeting = greeting
        self.open = greeting is None
        self.closed = False
        self.outbox: list[Message] = []
        self.unsent = b""
        self.frames = frames.Frames()

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        if not self.open or self.closed:
            return
        if self.outbox:
            data = frames.encode(self.outbox)
            self.outbox = []
            if self.unsent:
                self.unsent += data
                return
            self.write(data)
        elif self.unsent:
            data, self.unsent = self.unsent, b""
            self.write(data)

    def write(self, data: bytes) -> None:
        """Send now; keep what the socket does not take and go on when it is writable."""
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the end of the stream is seen by reading
        if sent < len(data):
            self.unsent = data[sent:]
            self.transport.epoll.modify(self.sock, READABLE | select.EPOLLOUT)

    def on_event(self, events: int) -> None:
        """The socket is readable, writable or gone."""
        if events & select.EPOLLOUT:
            self.flush()
            if not self.unsent and not self.closed:
                self.transport.epoll.modify(self.sock, READABLE)
        if events & READABLE and not self.closed:
            self.read()

    def read(self) -> None:
        """Take what has come; more than one buffer's worth is left for the next turn, for
        fairness.
        """
        try:
            data = self.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.transport.ended(self)
            return
        try:
            if not self.open:
                data = self.greet(data)
            if self.open and data:
                assert self.peer is not None
                for messages in self.frames.feed(data):
                    self.transport.deliver(messages, self.peer)
        except (ProtocolError, AuthenticationError, msgspec.MsgspecError) as error:
            self.transport.refuse(self, str(error))

    def greet(self, data: bytes) -> bytes:
        """Go on with the handshake. Returns bytes that came after it."""
        greeting = self.greeting
        assert greeting is not None
        answer = greeting.feed(data)
        if answer:
            self.write(answer)
        if isinstance(greeting, ServerSide):
            if greeting.hello is not None:
                self.transport.greeted(self, greeting.hello)
            return b""
        if not greeting.done:
            return b""
        self.greeting = None
        self.open = True
        self.flush()
        return greeting.buffer


class Transport:
    """The connections and timers of one process. Implements ``core.world.World``."""

    def __init__(self, address: Address, token: bytes, folder: int) -> None:
        """Takes our address, the cluster's token, and a descriptor of the folder of this node's
        unix sockets.
        """
        self.address = address
        self.token = token
        self.folder = folder
        self.lock = threading.RLock()
        self.now = time.monotonic
        self.epoll = select.epoll()
        self.watched: dict[int, Callable[[int], None]] = {}
        self.peers: dict[ProcessId, list[Connection]] = {}
        self.dirty: list[Connection] = []
        self.timers: list[tuple[float, int, Timed]] = []
        self.sequence = 0
        self.calls: deque[Callable[[], None]] = deque()
        self.waker = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watch(self.waker, self.woken)
        self.refusals: set[str] = set()
        self.strangers: deque[Connection] = deque()  # the last that called, most of them proved
        self.listeners: list[socket.socket] = []
        self.closed = False
        self.flushed = 0.0  # when flush_soon last sent
        self.gathering = False  # messages wait for more to go with them
        self.sleeping = 0  # the thread that waits for events; see ``interrupts``
        # what the shell sets
        self.on_message: Callable[[Message, Address], None]
        self.on_lost: Callable[[Address], None]
        self.on_stranger: Callable[[socket.socket, Hello], None] | None = (
            None  # not for messages to us
        )
        self.on_turn: Callable[[], None] = lambda: None  # once a turn, before messages are sent

    # ------------------------------------------------------------------ World

    def send(self, to: Address, message: Message) -> None:
        """Queue a message; it leaves at the end of the turn."""
        connections = self.peers.get(to.process)
        connection = connections[0] if connections else self.connect(to)
        if connection is not None:
            if not connection.outbox:
                self.dirty.append(connection)
            connection.outbox.append(message)

    def call_at(self, when: float, action: Callable[[], None]) -> Timed:
        """Have ``action`` called under the lock at ``when``. Whoever polls next sees to it."""
        timed = Timed(when, action)
        self.sequence += 1
        heapq.heappush(self.timers, (when, self.sequence, timed))
        return timed

    def new_id(self) -> bytes:
        """Eight random bytes."""
        return os.urandom(8)

    # ------------------------------------------------------------------ connections

    def listen_unix(self) -> None:
        """Accept connections on this machine, under our process id in the node's folder."""
        self.listen(listen_unix(self.folder, self.address.process))

    def listen(self, sock: socket.socket) -> None:
        """Accept connections on a listening socket."""
        sock.setblocking(False)
        self.listeners.append(sock)
        self.watch(sock.fileno(), lambda events: self.accept(sock))

    def accept(self, listener: socket.socket) -> None:
        """Someone calls: greet, and give them a while to prove themselves."""
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if sock.family == socket.AF_UNIX and peer_uid(sock) != os.getuid():
            sock.close()
            self.tell_refusal("it comes from another user")
            return
        sock.setblocking(False)
        greeting = ServerSide(self.token, os.urandom(NONCE))
        connection = Connection(self, sock, None, greeting)
        self.watch(sock.fileno(), connection.on_event)
        connection.write(greeting.greeting)
        self.strangers.append(connection)
        if len(self.strangers) > STRANGERS:
            oldest = self.strangers.popleft()
            if not oldest.open:
                self.refuse(oldest, "too many others wait to prove themselves")
        self.call_at(
            self.now() + GREETING_SECONDS,
            lambda: (
                self.refuse(connection, "no handshake within 5 s") if not connection.open else None
            ),
        )

    def connect(self, to: Address) -> Connection | None:
        """Open a connection; messages may be queued at once. None (and ``on_lost``, soon) if that
        fails.
        """
        try:
            if to.node == self.address.node and to.node:
                sock = connect_unix(self.folder, to.process)
            else:
                sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                status = sock.connect_ex((to.host, to.port))
                if status not in (0, errno.EINPROGRESS):
                    sock.close()
                    raise OSError(status, os.strerror(status))
        except OSError:
            self.calls.append(lambda: self.on_lost(to))
            self.wake()
            return None
        hello = Hello(self.address, to.process, MESSAGES)
        connection = Connection(self, sock, to, ClientSide(self.token, os.urandom(NONCE), hello))
        self.peers.setdefault(to.process, []).append(connection)
        self.watch(sock.fileno(), connection.on_event)
        return connection

    def greeted(self, connection: Connection, hello: Hello) -> None:
        """A caller has proved itself: it is a peer of ours, or the shell knows what to do with
        it.
        """
        if hello.purpose == MESSAGES and hello.target == self.address.process:
            connection.greeting = None
            connection.open = True
            self.adopt(connection, hello.caller)
            return
        self.unwatch(connection.sock.fileno())
        connection.closed = True
        if self.on_stranger is None:
            log.warning("refused a connection meant for process %s", hello.target.hex())
            connection.sock.close()
        else:
            self.on_stranger(connection.sock, hello)

    def adopt(self, connection: Connection, peer: Address) -> None:
        """The connection belongs to this peer."""
        connection.peer = peer
        self.peers.setdefault(peer.process, []).append(connection)

    def take_over(self, sock: socket.socket, hello: Hello) -> None:
        """A connection that our node accepted and greeted for us."""
        sock.setblocking(False)
        connection = Connection(self, sock, hello.caller, None)
        self.adopt(connection, hello.caller)
        self.watch(sock.fileno(), connection.on_event)

    def refuse(self, connection: Connection, reason: str) -> None:
        """Drop a connection that does not keep to the protocol; say so once per reason."""
        if connection.closed:
            return
        self.tell_refusal(reason)
        self.ended(connection)

    def tell_refusal(self, reason: str) -> None:
        """Log why, once for each reason whatever its figures: a stranger may not fill the disk."""
        kind = NUMBER.sub("N", reason)
        if kind not in self.refusals and len(self.refusals) < 1000:
            self.refusals.add(kind)
            log.warning("refused a connection: %s", reason)

    def ended(self, connection: Connection) -> None:
        """The stream has ended. If it was the peer's last, the peer is lost."""
        if connection.closed:
            return
        connection.closed = True
        self.unwatch(connection.sock.fileno())
        connection.sock.close()
        peer = connection.peer
        if peer is None:
            return
        connections = self.peers.get(peer.process, [])
        if connection in connections:
            connections.remove(connection)
            if connections:
                connections[0].outbox.extend(connection.outbox)
                self.dirty.append(connections[0])
            else:
                del self.peers[peer.process]
                self.on_lost(peer)

    def deliver(self, messages: list[Message], peer: Address) -> None:
        """One frame's messages, in order. A message that breaks the role's assumptions ends the
        connection's peer.
        """
        for message in messages:
            try:
                self.on_message(message, peer)
            except Exception:
                log.exception(
                    "could not handle %r from %s", type(message).__name__, peer.process.hex()
                )

    def flush_soon(self) -> None:
        """Send what is queued now, or, if much is being sent, within ``GATHER``: one system call
        for many messages. Under the lock; whoever polls next sees to the rest."""
        now = self.now()
        if now - self.flushed > GATHER:
            self.flushed = now
            self.flush()
        elif not self.gathering:
            self.gathering = True
            self.wake()

    def flush(self) -> None:
        """Send what was queued in this turn."""
        self.gathering = False
        while self.dirty:
            dirty, self.dirty = self.dirty, []
            for connection in dirty:
                connection.flush()

    # ------------------------------------------------------------------ the loop

    def watch(self, fd: int, on_event: Callable[[int], None]) -> None:
        """Have ``on_event`` called, under the lock, when the descriptor is readable."""
        self.watched[fd] = on_event
        self.epoll.register(fd, READABLE)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self.watched.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def call_soon(self, action: Callable[[], None]) -> None:
        """Have ``action`` called under the lock by whoever polls. From any thread."""
        self.calls.append(action)
        self.wake()

    def wake(self) -> None:
        """Make the poll return."""
        if not self.closed:
            os.eventfd_write(self.waker, 1)

    def woken(self, events: int) -> None:
        """The waker fired."""
        try:
            os.eventfd_read(self.waker)
        except BlockingIOError:
            pass

    def patience(self, timeout: float | None) -> float:
        """How long the next wait may be, in seconds; -1 for ever."""
        if self.calls:
            return 0.0
        if self.gathering:
            timeout = GATHER if timeout is None else min(timeout, GATHER)
        if not self.timers:
            return -1.0 if timeout is None else timeout
        until = max(0.0, self.timers[0][0] - self.now())
        return until if timeout is None else min(until, timeout)

    def poll(self, timeout: float | None = None) -> bool:
        """Wait for events at most ``timeout`` seconds and handle them. False if there were none."""
        patience = self.patience(timeout)
        if patience:
            self.sleeping = threading.get_ident()
            try:
                events = self.epoll.poll(patience)
            finally:
                self.sleeping = 0
        else:
            events = self.epoll.poll(0)
        if not (events or self.calls or self.dirty or self.due()):
            return False
        with self.lock:
            watched = self.watched
            for fd, flags in events:
                on_event = watched.get(fd)
                if on_event is not None:
                    on_event(flags)
            if self.calls or self.due():
                self.run_due()
            self.on_turn()
            if self.dirty:
                self.flush()
        return bool(events)

    def due(self) -> bool:
        """Whether a timer is."""
        timers = self.timers
        return bool(timers) and timers[0][0] <= self.now()

    def run_due(self) -> None:
        """Make the calls that are due."""
        for _ in range(len(self.calls)):
            self.calls.popleft()()
        now = self.now()
        timers = self.timers
        while timers and timers[0][0] <= now:
            timed = heapq.heappop(timers)[2]
            if timed.action is not None:
                timed.action()

    def close(self) -> None:
        """Close everything."""
        with self.lock:
            self.closed = True
            for sock in self.listeners:
                sock.close()
            for connections in self.peers.values():
                for connection in connections:
                    connection.closed = True
                    connection.sock.close()
            self.peers.clear()
            self.epoll.close()
            os.close(self.waker)


def peer_uid(sock: socket.socket) -> int:
    """The user at the other end of a unix socket."""
    pid_uid_gid = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", pid_uid_gid)[1])
