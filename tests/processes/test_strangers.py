"""Strangers at the door: whoever has no token, or does not speak the protocol, costs us a line in
the log and nothing else.

Each test knocks at the TCP port of a node and at the head's while a program runs tasks on them.
Knocking is done with plain sockets: the protocol as its specification says it, not as our own
client does it.
"""

from __future__ import annotations

import hmac
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import freehold as fh
from freehold.runtime import places
from freehold.testing import Cluster

GREETING = 8 + 1 + 32  # magic, version, nonce
GRACE = 5.0  # seconds in which a caller must prove itself


@fh.remote
def double(x: int) -> int:
    """Something to do."""
    return 2 * x


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node and a head; this process is connected."""
    with Cluster(1, num_cpus=1) as one:
        fh.init(address=one.address)
        yield one


@pytest.fixture(params=["node", "head"])
def door(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[tuple[str, int]]:
    """The address to knock at. Before and after it, tasks run; nobody has died in between."""
    info = fh.nodes()[0]
    assert fh.get(double.remote(1)) == 2
    if request.param == "node":
        yield info["NodeManagerAddress"], info["NodeManagerPort"]
    else:
        host, _, port = cluster.address.partition(":")
        yield host, int(port)
    assert fh.get([double.remote(i) for i in range(20)], timeout=5) == [2 * i for i in range(20)]
    assert [(node["Pid"], node["Alive"]) for node in fh.nodes()] == [(info["Pid"], True)]


def log(cluster: Cluster) -> str:
    """What the node and the head (which shares its file) have logged."""
    (path,) = cluster.session.glob("*/logs/daemon.log")
    return path.read_text()


def token(cluster: Cluster) -> bytes:
    return places.read_token(cluster.session)


def knock(door: tuple[str, int]) -> tuple[socket.socket, bytes]:
    """Connect and take the greeting; the second value is the server's nonce."""
    sock = socket.create_connection(door, timeout=10)
    greeting = b""
    while len(greeting) < GREETING:
        greeting += sock.recv(GREETING - len(greeting))
    assert greeting[:9] == b"FREEHOLD\x01"
    return sock, greeting[9:]


def prove(secret: bytes, nonce: bytes, hello: bytes) -> bytes:
    """A caller's half of the handshake."""
    ours = os.urandom(32)
    proof = hmac.digest(secret, b"client" + nonce + ours + hello, "sha256")
    return ours + proof + len(hello).to_bytes(2, "little") + hello


def hello_to(door: tuple[str, int], cluster: Cluster, purpose: str = "messages") -> bytes:
    """A hello from a process that does not exist to whoever is at the door."""
    node = bytes.fromhex(cluster.nodes[0].node_id)
    target = b"the-head" if f"{door[0]}:{door[1]}" == cluster.address else node
    return msgspec.msgpack.encode([[b"stranger", b"", "127.0.0.1", 1], target, purpose])


def enter(door: tuple[str, int], cluster: Cluster, purpose: str = "messages") -> socket.socket:
    """A connection whose token is right."""
    sock, nonce = knock(door)
    sock.sendall(prove(token(cluster), nonce, hello_to(door, cluster, purpose)))
    answer = b""
    while len(answer) < 32:
        data = sock.recv(32 - len(answer))
        assert data, "hung up on an honest caller"
        answer += data
    return sock


def hung_up(sock: socket.socket, seconds: float = 1.0) -> bool:
    """Whether the other end closes within that time; what it sends before is thrown away."""
    sock.settimeout(seconds)
    try:
        while sock.recv(4096):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_a_wrong_token_is_refused_and_logged_once(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: nobody enters without the token, and trying often does not fill the log. Method: ten
    callers with another token."""
    for _ in range(10):
        sock, nonce = knock(door)
        with sock:
            sock.sendall(prove(b"wrong", nonce, hello_to(door, cluster)))
            assert hung_up(sock)
    assert log(cluster).count("does not hold this cluster's token") <= 2  # one for each door


def test_garbage_is_refused(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: bytes that are no handshake end the connection; figures in them do not make a new
    reason. Method: random bytes, 300 at a time, from twenty callers."""
    for _ in range(20):
        sock, _ = knock(door)
        with sock:
            sock.sendall(os.urandom(64) + b"\xff\xff" + os.urandom(234))
            assert hung_up(sock)
    assert len(re.findall(r"a hello of [\d,]+ bytes", log(cluster))) <= 2


def test_a_giant_hello_is_refused_unread(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: an unproved caller cannot make us keep more than 1 KiB. Method: announce 60,000 bytes
    and send none of them."""
    sock, _ = knock(door)
    with sock:
        sock.sendall(bytes(64) + (60_000).to_bytes(2, "little"))
        assert hung_up(sock)


def test_a_web_browser_is_refused(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: another protocol is told apart at once. Method: an HTTP request with a few headers."""
    sock, _ = knock(door)
    with sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n" + b"X: y\r\n" * 20)
        assert hung_up(sock)


def test_the_silent_are_dropped_after_five_seconds(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: a connection that never proves itself does not stay, even if it sends a byte now and
    then. Method: one says nothing, one a byte a second, one closes its half."""
    began = time.monotonic()
    silent, _ = knock(door)
    slow, _ = knock(door)
    half, _ = knock(door)
    with silent, slow, half:
        half.shutdown(socket.SHUT_WR)
        assert hung_up(half)
        while time.monotonic() - began < GRACE - 1.0:
            slow.sendall(b"x")
            time.sleep(0.5)
            assert fh.get(double.remote(3), timeout=2) == 6
        assert not hung_up(silent, 0.1)
        assert hung_up(silent, 3.0)
        assert hung_up(slow, 1.0)
    assert GRACE - 0.1 < time.monotonic() - began < GRACE + 2.0
    assert 1 <= log(cluster).count("no handshake within 5 s") <= 2


def test_a_flood_of_connections_disturbs_nobody(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: 500 silent connections neither stop a job nor keep an honest caller out. Method: hold
    them open; run tasks; enter with the token; then the oldest have been dropped for the new."""
    flood = [socket.create_connection(door, timeout=10) for _ in range(500)]
    try:
        began = time.monotonic()
        assert len(fh.get([double.remote(i) for i in range(200)], timeout=5)) == 200
        enter(door, cluster).close()
        assert time.monotonic() - began < 3.0
        assert hung_up(flood[0])
    finally:
        for sock in flood:
            sock.close()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff\xff", id="four gigabytes"),
        pytest.param((12).to_bytes(4, "little") + b"\xc1" * 12, id="no msgpack"),
        pytest.param((2).to_bytes(4, "little") + b"\x91\x07", id="no message"),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_dropped(
    door: tuple[str, int], cluster: Cluster, data: bytes
) -> None:
    """Goal: also a caller with the token cannot make us take 4 GB, or stop us. Method: frames
    that are too long or hold no messages, after an honest handshake."""
    with enter(door, cluster) as sock:
        sock.sendall(data + bytes(100))
        assert hung_up(sock)


@pytest.mark.parametrize("purpose", ["descriptors", "bulk", "tea"])
def test_a_peer_that_wants_what_it_cannot_have(
    door: tuple[str, int], cluster: Cluster, purpose: str
) -> None:
    """Goal: nobody is harmed by an honest hello with an absurd wish. Method: ask for descriptors
    over TCP, for bulk bytes without saying which, for tea."""
    with enter(door, cluster, purpose) as sock:
        sock.sendall(bytes(50))


def test_a_proved_hello_that_says_nothing(door: tuple[str, int], cluster: Cluster) -> None:
    """Goal: the proof covers the bytes, not their sense. Method: a rightly signed hello that is
    no hello."""
    for hello in (b"", b"\xc1", msgspec.msgpack.encode([1, 2, 3])):
        sock, nonce = knock(door)
        with sock:
            sock.sendall(prove(token(cluster), nonce, hello))
            assert hung_up(sock)


def test_a_message_for_somebody_else_changes_nothing(
    door: tuple[str, int], cluster: Cluster
) -> None:
    """Goal: a message that the process at the door does not take is logged and dropped. Method:
    send a driver's log lines (message 46) to a node and to the head."""
    with enter(door, cluster) as sock:
        body = msgspec.msgpack.encode([[46, 1, "host", False, "name", ["line"]]])
        sock.sendall(len(body).to_bytes(4, "little") + body)
        assert not hung_up(sock, 0.2)
    assert "could not handle 'LogLines'" in log(cluster)


def test_files_of_a_session_are_ours_alone(cluster: Cluster) -> None:
    """Goal: no other user can read the token or reach a socket. Method: modes of the folders on
    the way and of the token."""
    home = Path(os.environ["FREEHOLD_HOME"])
    for folder in (home, cluster.session, *(p for p in cluster.session.iterdir() if p.is_dir())):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert (cluster.session / "token").stat().st_mode & 0o777 == 0o600
