"""The handshake: nobody gets a message through without the token, and no bytes break it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import AuthenticationError, FreeholdError, ProtocolError
from freehold.ids import NodeId, ProcessId
from freehold.wire.handshake import (
    GREETING,
    LONGEST_HELLO,
    MAGIC,
    NONCE,
    VERSION,
    ClientSide,
    Hello,
    ServerSide,
)
from freehold.wire.messages import Address

TOKEN = b"t" * 32
HELLO = Hello(
    Address(ProcessId(b"p" * 8), NodeId(b"n" * 8), "host", 1), ProcessId(b"q" * 8), "bulk"
)


def pair(client_token: bytes = TOKEN, hello: Hello = HELLO) -> tuple[ServerSide, ClientSide]:
    return ServerSide(TOKEN, b"s" * NONCE), ClientSide(client_token, b"c" * NONCE, hello)


def test_both_prove_themselves() -> None:
    """Goal: after three messages each knows the other; the server knows who calls and what for."""
    server, client = pair()
    assert client.wants() == GREETING
    proof = client.feed(server.greeting)
    assert client.wants() == 32
    answer = server.feed(proof)
    assert not client.done
    assert client.feed(answer) == b""
    assert (client.done, server.hello) == (True, HELLO)


def test_split_at_every_byte() -> None:
    """Goal: bytes may come one at a time. Method: each side is fed single bytes."""
    server, client = pair()
    proof = b"".join(client.feed(bytes([byte])) for byte in server.greeting)
    answer = b"".join(server.feed(bytes([byte])) for byte in proof)
    for byte in answer:
        assert not client.done
        client.feed(bytes([byte]))
    assert (client.done, server.hello) == (True, HELLO)


def test_wrong_token_of_the_client() -> None:
    """Goal: a caller without the token is turned away before its hello is looked at."""
    server, client = pair(client_token=b"x" * 32)
    with pytest.raises(AuthenticationError):
        server.feed(client.feed(server.greeting))
    assert server.hello is None


def test_wrong_token_of_the_server() -> None:
    """Goal: a client does not speak to an impostor. Method: a server that accepts anyone."""
    _, client = pair()
    client.feed(ServerSide(b"x" * 32, b"s" * NONCE).greeting)
    with pytest.raises(AuthenticationError):
        client.feed(b"\0" * 32)
    assert not client.done


def test_replayed_and_reflected_proofs() -> None:
    """Goal: what was overheard is of no use.

    Method: a proof sent again to a server with another nonce; the client's own proof sent back."""
    server, client = pair()
    proof = client.feed(server.greeting)
    with pytest.raises(AuthenticationError):
        ServerSide(TOKEN, b"S" * NONCE).feed(proof)
    with pytest.raises(AuthenticationError):
        client.feed(proof[NONCE : NONCE + 32])


def test_changed_hello() -> None:
    """Goal: the proof covers the hello. Method: each byte of the client's message is changed."""
    server, client = pair()
    proof = client.feed(server.greeting)
    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1
        other = ServerSide(TOKEN, b"s" * NONCE)
        try:
            answer = other.feed(bytes(changed))
        except FreeholdError:
            continue
        assert answer == b""  # a longer hello is announced: it waits for the rest


def test_other_version_and_other_program() -> None:
    """Goal: the words say what to do. Method: a greeting of a later version, and of a web
    server."""
    server, client = pair()
    later = MAGIC + bytes([VERSION + 1]) + server.greeting[len(MAGIC) + 1 :]
    with pytest.raises(ProtocolError, match="same release on every machine"):
        client.feed(later)
    for other in (b"HTTP/1.1 400 Bad Request\r\n", b"H", b"FREEHOLE"):
        with pytest.raises(ProtocolError, match="not a Freehold process"):
            pair()[1].feed(other)


def test_oversized_hello() -> None:
    """Goal: a stranger costs at most LONGEST_HELLO bytes. Method: at the limit, and one above."""
    head = b"c" * (NONCE + 32)
    server = ServerSide(TOKEN, b"s" * NONCE)
    assert server.feed(head + LONGEST_HELLO.to_bytes(2, "little")) == b""
    server = ServerSide(TOKEN, b"s" * NONCE)
    with pytest.raises(ProtocolError, match="is announced"):
        server.feed(head + (LONGEST_HELLO + 1).to_bytes(2, "little"))


def test_bytes_after_the_hello() -> None:
    """Goal: a client that does not wait for our proof is refused."""
    server, client = pair()
    with pytest.raises(ProtocolError, match="after the hello"):
        server.feed(client.feed(server.greeting) + b"x")


def test_malformed_hello_with_the_token() -> None:
    """Goal: a caller of another build is an error of the protocol, not a crash of the server."""
    server, client = pair()
    client.hello = b"\x93\x01\x02"
    with pytest.raises(ProtocolError, match="hello"):
        server.feed(client.feed(server.greeting))


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_garbage_never_gets_in(pieces: list[bytes]) -> None:
    """Goal: no bytes without the token make either side ready or raise anything of another kind."""
    for side in pair():
        try:
            for piece in pieces:
                side.feed(piece)
        except FreeholdError:
            continue
        assert not getattr(side, "done", False)
        assert getattr(side, "hello", None) is None or isinstance(side, ClientSide)


def test_limits_hold_together() -> None:
    """Goal: the longest hello that we can make is one that we accept."""
    host = "h" * 255  # the longest name a host may have
    hello = Hello(Address(ProcessId(b"p" * 8), NodeId(b"n" * 8), host, 65535), ProcessId(b"q" * 8))
    server, client = pair(hello=hello)
    client.feed(server.feed(client.feed(server.greeting)))
    assert client.done
    assert len(client.hello) <= LONGEST_HELLO
