"""Transport: the real world of a role. Connections, timers, wake-ups, and one ``poll`` that
drives them all.

Passive: it has no thread. Whoever calls ``poll`` is the event loop for that moment; a daemon's
main thread always is, in drivers and workers the role moves between threads (``pump``).
Everything but the wait itself happens under ``lock``, which is the lock of the role.

One connection carries messages both ways between two processes; if both happen to connect at once
there are two, each end sends on the one it has and reads both. A peer is lost when the last of
its connections has ended and been read to its end; a peer that refuses a connection is lost at
once.

A connection to another machine takes its time to open: what a cut link does and does not mean is
said in ``sockets``. It is dialled again until ``patience`` is over. Patience is not asked for with
this machine's own sockets: a process that does not answer there lives, or its end is seen at once.

Strangers: a connection that has not proved itself (``handshake``) is dropped after
``GREETING_SECONDS``; refusals are logged once per reason.
"""

from __future__ import annotations

import errno
import heapq
import logging
import mmap
import os
import re
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from freehold.core.membership import DEAD_AFTER
from freehold.errors import AuthenticationError, ProtocolError
from freehold.ids import NodeId, ProcessId, short
from freehold.runtime import sockets
from freehold.runtime.places import connect_unix, listen_unix
from freehold.wire import frames
from freehold.wire.handshake import MESSAGES, NONCE, ClientSide, Hello, ServerSide
from freehold.wire.messages import Address, Message

log = logging.getLogger("freehold")

GREETING_SECONDS: Final = 5.0
READ: Final = 1 << 18
#: Seconds of one poll at most: the kernel takes no deadline that lies centuries ahead.
LONGEST_POLL: Final = 3600.0
#: Seconds between two attempts to open a connection where the way is cut.
REDIAL: Final = 0.25
#: Nodes that are heard no more; as many as the head remembers.
FENCED_KEPT: Final = 1000
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
        "until",
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
        self.unsent: deque[memoryview] = deque()
        self.until = 0.0  # when we give up dialling
        self.frames = frames.Frames()

    def flush(self) -> None:
        """Send what is queued, as far as the socket takes it."""
        if not self.open or self.closed:
            return
        if self.outbox:
            data = frames.encode(self.outbox)
            self.outbox = []
            if self.unsent:
                self.unsent.append(memoryview(data))
            else:
                self.write(data)
            return
        while self.unsent:
            piece = self.unsent[0]
            if (sent := self.send(piece)) < len(piece):
                self.unsent[0] = piece[sent:]
                return
            self.unsent.popleft()

    def write(self, data: bytes) -> None:
        """Send now; keep what the socket does not take and go on when it is writable."""
        if (sent := self.send(data)) < len(data):
            self.unsent.append(memoryview(data)[sent:])
            self.transport.epoll.modify(self.sock, READABLE | select.EPOLLOUT)

    def send(self, data: bytes | memoryview) -> int:
        """How much of it the socket takes now. (The rest is kept by views: copying what was left of
        60 MB of small results at each partial send took 13 s.)
        """
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return len(data)  # the end of the stream is seen by reading

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
            size = self.sock.recv_into(self.transport.buffer)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in sockets.CUT and self.transport.may_redial(self):
                return
            size = 0
        if not size:
            self.transport.ended(self)
            return
        data = bytes(self.transport.buffer[:size])
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
        # What comes is read into here. Fresh memory of this size for each recv() is mapped and
        # unmapped by the kernel: 17-21 us, half of a call's way through a process.
        self.buffer = memoryview(mmap.mmap(-1, READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
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
        self.fenced: dict[NodeId, None] = {}
        self.dead_after = DEAD_AFTER
        self.closed = False
        self.flushed = 0.0  # when flush_soon last sent
        self.gathering = False  # messages wait for more to go with them
        self.sleeping = 0  # the thread that waits for events; see ``interrupts``
        self.unsettled = False  # ``on_turn`` has something to do, whether or not anything comes
        self.alarm = 0.0  # when a thread that sleeps outside of ``poll`` will look at the timers
        # what the shell sets
        self.on_message: Callable[[Message, Address], None]
        self.on_lost: Callable[[Address], None]
        self.on_stranger: Callable[[socket.socket, Hello], None] | None = (
            None  # not for messages to us
        )
        self.on_fenced: Callable[[NodeId], None] = lambda node: None  # for other connections
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

    def fence(self, node: NodeId) -> None:
        """Hear no more of a node nor of its processes, and refuse them from now on."""
        self.fenced[node] = None
        if len(self.fenced) > FENCED_KEPT:
            del self.fenced[next(iter(self.fenced))]
        for connections in self.peers.values():
            for connection in connections:
                if connection.peer is not None and connection.peer.node == node:
                    self.hang_up(connection)
                    self.call_soon(partial(self.forget, connection))
        self.on_fenced(node)

    def call_at(self, when: float, action: Callable[[], None]) -> Timed:
        """Have ``action`` called under the lock at ``when``. Whoever polls next sees to it."""
        timed = Timed(when, action)
        if when < self.alarm:
            self.wake()
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
            sock, _ = sockets.with_descriptors(listener.accept)
        except OSError:
            return
        if sock.family == socket.AF_UNIX and sockets.peer_uid(sock) != os.getuid():
            sock.close()
            self.tell_refusal("it comes from another user")
            return
        sock.setblocking(False)
        greeting = ServerSide(self.token, os.urandom(NONCE))
        connection = Connection(self, sock, None, greeting)
        self.tune(connection)
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
        fails at once, or for a visitor, who did not wait for the answer.
        """
        if to.is_visitor():
            return None
        here = to.node == self.address.node and to.node
        try:
            if to.node in self.fenced:
                raise ConnectionRefusedError("it was declared dead")
            sock = sockets.with_descriptors(
                partial(connect_unix, self.folder, to.process) if here else sockets.tcp_socket
            )
        except OSError:
            self.call_soon(lambda: self.on_lost(to))
            return None
        connection = Connection(self, sock, to, None)
        connection.open = False
        self.peers.setdefault(to.process, []).append(connection)
        if here:
            self.greet_on(connection)
        else:
            connection.until = self.now() + sockets.patience(self.dead_after)
            self.call_at(connection.until, lambda: self.give_up(connection))
            self.dial(connection)
        return connection

    def be_patient(self, dead_after: float) -> None:
        """The head declares a node dead after so many seconds: wait for others accordingly."""
        self.dead_after = dead_after
        for connections in self.peers.values():
            for connection in connections:
                if not connection.closed:
                    self.tune(connection)

    def tune(self, connection: Connection) -> None:
        """Tell the kernel how long a link may be silent."""
        peer = connection.peer
        head = not self.address.node or (peer is not None and not peer.node)
        sockets.tune(connection.sock, self.dead_after, head=head)

    def dial(self, connection: Connection) -> None:
        """Begin to connect to another machine, with the connection's fresh socket."""
        if connection.closed:
            return
        to = connection.peer
        assert to is not None
        self.tune(connection)
        status = connection.sock.connect_ex((to.host, to.port))
        if status in (0, errno.EINPROGRESS):
            self.greet_on(connection)
        elif status not in sockets.CUT or not self.may_redial(connection):
            self.call_soon(partial(self.ended, connection))

    def greet_on(self, connection: Connection) -> None:
        """Be ready for the greeting of whom we call."""
        assert connection.peer is not None
        hello = Hello(self.address, connection.peer.process, MESSAGES)
        connection.greeting = ClientSide(self.token, os.urandom(NONCE), hello)
        self.watch(connection.sock.fileno(), connection.on_event)

    def may_redial(self, connection: Connection) -> bool:
        """The way to a peer that we are calling is cut. If there is time, try again later."""
        if connection.open or connection.until < self.now():
            return False
        self.unwatch(connection.sock.fileno())
        connection.sock.close()
        connection.sock = sockets.tcp_socket()
        self.call_at(self.now() + REDIAL, lambda: self.dial(connection))
        return True

    def give_up(self, connection: Connection) -> None:
        """Whom we call has not answered in time."""
        if not connection.open:
            seconds = sockets.patience(self.dead_after)
            self.refuse(connection, f"our call was not answered within {seconds:g} s")

    def greeted(self, connection: Connection, hello: Hello) -> None:
        """A caller has proved itself: it is a peer of ours, or the shell knows what to do with
        it.
        """
        if hello.caller.node in self.fenced:
            self.refuse(connection, f"its node {short(hello.caller.node)} was declared dead")
            return
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
        if hello.caller.node in self.fenced:
            sock.close()
            return
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
        if not connection.closed:
            self.hang_up(connection)
            self.forget(connection)

    def hang_up(self, connection: Connection) -> None:
        """Nothing goes or comes on this connection any more."""
        if not connection.closed:
            connection.closed = True
            self.unwatch(connection.sock.fileno())
            connection.sock.close()

    def forget(self, connection: Connection) -> None:
        """A connection is over. If it was the peer's last, the peer is lost."""
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
                if not peer.is_visitor():
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
        if not self.dirty:
            return
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
        if self.calls or self.unsettled:
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
                events = self.epoll.poll(min(patience, LONGEST_POLL))
            finally:
                self.sleeping = 0
        else:
            events = self.epoll.poll(0)
        if not (events or self.calls or self.dirty or self.unsettled or self.due()):
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
