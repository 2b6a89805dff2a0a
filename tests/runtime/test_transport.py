"""Connections between machines: opening one takes time, a cut way is no refusal, and the fenced are
neither heard nor reached.

Two or three transports in one process, on loopback, driven by hand.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from freehold.ids import NodeId, ProcessId
from freehold.runtime import sockets
from freehold.runtime.transport import Transport
from freehold.wire.messages import Address, Heartbeat, Message

TOKEN = b"a token of sixteen bytes"


class Peer:
    """A process with a transport: what it has heard, and whom it has lost."""

    def __init__(self, name: str, folder: Path, node: str = "") -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.address = address(name, listener.getsockname()[1], node)
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.transport = Transport(self.address, TOKEN, self.folder)
        self.heard: list[ProcessId] = []
        self.lost: list[ProcessId] = []
        self.transport.on_message = self.on_message
        self.transport.on_lost = lambda peer: self.lost.append(peer.process)
        self.transport.listen(listener)

    def on_message(self, message: Message, peer: Address) -> None:
        self.heard.append(peer.process)

    def say(self, to: Peer | Address) -> None:
        self.transport.send(to if isinstance(to, Address) else to.address, Heartbeat())
        self.transport.flush()

    def close(self) -> None:
        self.transport.close()
        os.close(self.folder)


def address(name: str, port: int, node: str = "", host: str = "127.0.0.1") -> Address:
    """A process of a node (by default its daemon)."""
    return Address(
        ProcessId(name.encode().ljust(8)), NodeId((node or name).encode().ljust(8)), host, port
    )


def until(condition: Callable[[], object], *peers: Peer, seconds: float = 5.0) -> None:
    """Turn the loops until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not so within {seconds:g} s"
        for peer in peers:
            peer.transport.poll(0.005)


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[tuple[Peer, Peer, Peer]]:
    """Two daemons, and a process on the node of the second."""
    three = Peer("one", tmp_path), Peer("two", tmp_path), Peer("worker", tmp_path, "two")
    yield three
    for peer in three:
        peer.close()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where a SYN is never answered: the backlog of one who does not accept is full."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    port = listener.getsockname()[1]
    fillers = []
    for _ in range(3):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.1", port))
        fillers.append(filler)
    yield port
    for sock in (listener, *fillers):
        sock.close()


def test_the_fenced_are_not_heard(peers: tuple[Peer, Peer, Peer]) -> None:
    """Goal: what a node and its processes send after the fence is dropped, and each of them is lost
    once. Method: both talk; fence their node while more is under way; nothing of it arrives."""
    one, two, worker = peers
    two.say(one)
    worker.say(one)
    until(lambda: len(one.heard) == 2, *peers)
    two.say(one)
    worker.say(one)
    one.transport.fence(two.address.node)
    assert one.lost == []  # an event of its own
    until(lambda: len(one.lost) == 2 and two.lost and worker.lost, *peers)
    assert len(one.heard) == 2
    assert sorted(one.lost) == sorted([two.address.process, worker.address.process])


def test_the_fenced_can_neither_call_nor_be_called(peers: tuple[Peer, Peer, Peer]) -> None:
    """Goal: no new stream, in either direction; whoever sends there loses the peer at once, as if
    nobody was there. Others go on. Method: fence one's view of two; each calls the other."""
    one, two, worker = peers
    one.transport.fence(two.address.node)
    two.say(one)
    until(lambda: two.lost, *peers)
    one.say(worker)
    until(lambda: one.lost, *peers)
    assert one.lost == [worker.address.process]
    assert (one.heard, two.heard, worker.heard) == ([], [], [])
    two.say(worker.address)
    other = address("other", 1, "other")
    one.say(other)
    until(lambda: other.process in one.lost, *peers)


def test_memory_of_the_fenced_is_bounded(peers: tuple[Peer, Peer, Peer]) -> None:
    """Goal: a year of nodes that come and go fills no memory. Method: more fences than are kept;
    the first may call again."""
    one, two, _ = peers
    one.transport.fence(two.address.node)
    for number in range(1000):
        one.transport.fence(NodeId(b"%8d" % number))
    assert len(one.transport.fenced) == 1000
    two.say(one)
    until(lambda: one.heard, *peers)


def test_a_call_that_is_never_answered_ends(
    peers: tuple[Peer, Peer, Peer], silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: where packets are dropped a call ends after the patience and not before, and the peer
    is lost once. Method: a port that answers no SYN; a patience of 0.4 s."""
    monkeypatch.setattr(sockets, "LEAST_PATIENCE", 0.4)
    one = peers[0]
    one.transport.be_patient(0.1)
    began = time.monotonic()
    one.say(address("gone", silent, "gone"))
    until(lambda: one.lost, one)
    assert 0.4 <= time.monotonic() - began < 2.0


def test_a_handshake_that_is_never_answered_ends(
    peers: tuple[Peer, Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a daemon that is stopped accepts and says nothing: the same limit. One that is merely
    slow, and answers within it, is a peer like any other. Method: a peer that nobody drives; then
    one that is driven after half of the patience."""
    monkeypatch.setattr(sockets, "LEAST_PATIENCE", 0.6)
    one, two, worker = peers
    one.transport.be_patient(0.1)
    one.say(two)
    until(lambda: one.lost, one)
    assert one.lost == [two.address.process]
    one.say(worker)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.3, one)
    until(lambda: worker.heard, one, worker)
    until(lambda: time.monotonic() - began > 1.0, one, worker)
    assert one.lost == [two.address.process]


def test_a_cut_way_is_tried_again(
    peers: tuple[Peer, Peer, Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: "no route" is no word about the peer: it is dialled again, and what was sent meanwhile
    arrives. Method: the first two attempts find no route; at once, then while connecting."""
    attempts = []

    class Cut(socket.socket):
        def connect_ex(self, place: tuple[str, int]) -> int:  # type: ignore[override]
            attempts.append(place)
            return errno.ENETUNREACH if len(attempts) <= 2 else super().connect_ex(place)

    def cut_socket() -> socket.socket:
        made = Cut(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        return made

    monkeypatch.setattr(sockets, "tcp_socket", cut_socket)
    one, two, _ = peers
    one.say(two)
    one.say(two)
    until(lambda: len(two.heard) == 2, *peers)
    assert (len(attempts), one.lost) == (3, [])


def test_a_refusal_is_an_answer(peers: tuple[Peer, Peer, Peer]) -> None:
    """Goal: where nobody listens the peer is lost at once, whatever the patience. Method: a port
    that has just been closed."""
    one = peers[0]
    port = socket.create_server(("127.0.0.1", 0))
    number = port.getsockname()[1]
    port.close()
    began = time.monotonic()
    one.say(address("nobody", number))
    until(lambda: one.lost, one)
    assert time.monotonic() - began < 1.0


def test_what_the_kernel_is_told(peers: tuple[Peer, Peer, Peer]) -> None:
    """Goal: streams of the head end by themselves when the other end is silent for longer than the
    head's patience; streams between others never do while the peer's machine answers. Method: read
    the options of open connections, before and after the patience is known."""
    one, two, _ = peers
    listener = socket.create_server(("127.0.0.1", 0))
    head = Address(ProcessId(b"the-head"), NodeId(b""), *listener.getsockname())
    one.transport.connect(head)
    one.say(two)
    until(lambda: two.heard, *peers)

    def timeout(process: ProcessId) -> int:
        (connection,) = one.transport.peers[process]
        return connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

    assert timeout(head.process) == 15_000
    one.transport.be_patient(40.0)
    assert timeout(head.process) == 60_000
    assert timeout(two.address.process) == 0
    listener.close()


def test_what_was_noted_before_a_wait_is_settled_without_a_message(
    peers: tuple[Peer, Peer, Peer],
) -> None:
    """Goal: who drops a value and then waits for room in the store does not wait for its own drop.

    Method: a finalizer's note while nobody reads; a wait for a message that does not come."""
    transport = peers[0].transport
    turns = []

    def settle() -> None:
        transport.unsettled = False
        turns.append(True)

    transport.on_turn = settle
    transport.unsettled = True
    assert not transport.poll(0.2)
    assert turns == [True]
    assert not transport.poll(0.0)
    assert turns == [True]
