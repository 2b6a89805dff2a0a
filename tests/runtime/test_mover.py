"""The byte mover between nodes: real sockets, arenas and threads; the node's thread is a queue."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from core.world import World, node, object_id, process
from freehold.core.objects import Objects
from freehold.core.relaying import DIRECT, FIRST, Relaying
from freehold.runtime.mover import (
    ANSWER,
    COMING,
    ELSEWHERE,
    REQUEST,
    ByteMover,
    be_patient,
    receive_exactly,
    with_shutdown,
)
from freehold.store.allocator import Allocator
from freehold.store.arena import Arena
from freehold.wire.handshake import BULK, Hello
from freehold.wire.messages import Address, FetchObject, ObjectReady

SOURCE, A, B = node("source"), node("a"), node("b")
X, OWNER, READER = object_id("x"), process("owner"), process("reader")
SIZE = 6 << 20
HALF = SIZE // 2
BYTES = bytes(range(256)) * (SIZE // 256)


class Daemon:
    """A node as the mover sees it: a thread that does what it is given, one after another."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.fenced: set[Any] = set()
        self.closed = False
        self.actions: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.call_soon = self.actions.put
        self.arena = Arena.create(4 * SIZE)
        self.mover = Dialing(self, self.arena, lambda: None)  # type: ignore[arg-type, return-value]
        self.world = World(address)
        self.objects = Objects(self.world, Allocator(self.arena.capacity), self.mover)
        self.mover.objects = self.objects
        self.mover.relaying = Relaying(self.objects)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while (action := self.actions.get()) is not None:
            action()

    def fetch(self) -> None:
        """Have a local reader want X."""
        message = FetchObject(X, SIZE, OWNER, [SOURCE], 0)
        self.call_soon(lambda: self.objects.on_fetch(message, READER))

    def have(self) -> int:
        """How much of X is here."""
        arrival = self.mover.arrivals.get(X)
        return arrival.have if arrival is not None else 0

    def ready(self) -> bytes | None:
        """X, once the reader was told where it is."""
        told = [m for _, m in list(self.world.sent) if isinstance(m, ObjectReady)]
        return bytes(self.arena.write_view(told[0].offset, SIZE)) if told else None

    def stop(self) -> None:
        self.closed = True
        self.mover.close()
        self.actions.put(None)
        self.thread.join()
        for name in ("pulls", "disk", "reads"):
            getattr(self.mover, name).shutdown(wait=True)
        self.arena.close()


class Dialing(ByteMover):
    """Calls by a table instead of by name and handshake."""

    doors: dict[Any, Callable[[socket.socket, Address], None]]

    def dial(self, source: Address) -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        self.asking[ours] = source.node
        self.doors[source.node](theirs, self.transport.address)
        return ours


class Source:
    """The node that has all of X, played by the test: it is asked, and the test answers."""

    def __init__(self) -> None:
        self.questions: queue.SimpleQueue[tuple[Address, int, socket.socket]] = queue.SimpleQueue()
        self.links: list[socket.socket] = []
        self.readers: list[threading.Thread] = []

    def door(self, link: socket.socket, caller: Address) -> None:
        self.links.append(link)
        self.readers.append(threading.Thread(target=self.read, args=(link, caller)))
        self.readers[-1].start()

    def read(self, link: socket.socket, caller: Address) -> None:
        request = bytearray(REQUEST.size)
        with contextlib.suppress(OSError):
            while True:
                receive_exactly(link, memoryview(request))
                key, manner = REQUEST.unpack(request)
                assert key == X
                self.questions.put((caller, manner, link))

    def asked(self, by: Address, manner: int) -> socket.socket:
        """The next question, which must be this one."""
        caller, how, link = self.questions.get(timeout=10)
        assert (caller, how) == (by, manner)
        return link

    def close(self) -> None:
        for link in self.links:
            with_shutdown(link)
        for reader in self.readers:
            reader.join()
        for link in self.links:
            link.close()


@pytest.fixture
def source() -> Iterator[Source]:
    it = Source()
    yield it
    it.close()


@pytest.fixture
def nodes(source: Source) -> Iterator[dict[Address, Daemon]]:
    """Two nodes that know each other and the source."""
    both = {address: Daemon(address) for address in (A, B)}
    doors: dict[Any, Callable[[socket.socket, Address], None]] = {SOURCE.node: source.door}
    for address, daemon in both.items():

        def door(link: socket.socket, caller: Address, mover: ByteMover = daemon.mover) -> None:
            mover.serve(link, Hello(caller, process("any").process, BULK))

        doors[address.node] = door
        daemon.mover.doors = doors
    yield both
    for daemon in both.values():
        daemon.stop()


def until(condition: Callable[[], object]) -> Any:
    """Wait for something, ten seconds at most."""
    end = time.monotonic() + 10
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)
    return value


def half_way(source: Source, nodes: dict[Address, Daemon]) -> socket.socket:
    """A has half of X, and B was sent to A and has it too."""
    nodes[A].fetch()
    link = source.asked(A, FIRST)
    link.sendall(ANSWER.pack(COMING, SIZE) + BYTES[:HALF])
    until(lambda: nodes[A].have() == HALF)
    nodes[B].fetch()
    name = msgspec.msgpack.encode(A)
    source.asked(B, FIRST).sendall(ANSWER.pack(ELSEWHERE, len(name)) + name)
    until(lambda: nodes[B].have() == HALF)
    return link


def test_bytes_are_passed_on_while_they_arrive(
    source: Source, nodes: dict[Address, Daemon]
) -> None:
    """Goal: a node hands on what it has before it has all of it, and both end with the same bytes.

    Method: the source stops half way until the second node has its half from the first."""
    link = half_way(source, nodes)
    assert nodes[A].ready() is None
    link.sendall(BYTES[HALF:])
    assert until(nodes[A].ready) == BYTES
    assert until(nodes[B].ready) == BYTES
    until(lambda: nodes[A].mover.relaying.sendings == {})
    assert nodes[A].objects.table[X].pins == {READER.process: 1}


def test_a_relay_that_breaks_costs_a_question(source: Source, nodes: dict[Address, Daemon]) -> None:
    """Goal: when the link above a relay breaks, who hangs on it asks the source itself and gets all
    of the bytes from there, none of the old; so does the relay.
    """
    with_shutdown(half_way(source, nodes))
    other = bytes(reversed(BYTES))
    source.asked(B, DIRECT).sendall(ANSWER.pack(COMING, SIZE) + other)
    until(lambda: nodes[A].world.alarms)  # its pause before it asks again
    nodes[A].call_soon(lambda: nodes[A].world.advance(1))
    source.asked(A, FIRST).sendall(ANSWER.pack(COMING, SIZE) + other)
    assert until(nodes[A].ready) == other
    assert until(nodes[B].ready) == other


def test_nothing_here_for_who_asks(source: Source, nodes: dict[Address, Daemon]) -> None:
    """Goal: a node that has nothing says so; who was sent to it goes back to the source at once."""
    nodes[B].fetch()
    name = msgspec.msgpack.encode(A)
    source.asked(B, FIRST).sendall(ANSWER.pack(ELSEWHERE, len(name)) + name)
    source.asked(B, DIRECT).sendall(ANSWER.pack(COMING, SIZE) + BYTES)
    assert until(nodes[B].ready) == BYTES


def test_a_link_on_which_nothing_comes_is_given_up() -> None:
    """Goal: who receives from a node that has fallen silent half-way is told so in time."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        be_patient(ours, 0.05)
        theirs.sendall(b"half")
        with pytest.raises(TimeoutError, match="nothing"):
            receive_exactly(ours, memoryview(bytearray(8)))
