"""The handshake: both ends prove that they hold the cluster's token before a message is parsed.

    server -> client   magic, version, 32 random bytes
    client -> server   32 random bytes, HMAC(token, "client", both nonces, hello), the hello's
                       length, the hello
    server -> client   HMAC(token, "server", both nonces)

Anyone who can send a message can run code (arguments are pickles), so nothing that comes before
the proof is interpreted beyond fixed sizes: a stranger can cost us at most ``LONGEST_HELLO``
bytes and the patience of the shell. Pure: bytes in, bytes out; the nonce is given by the caller.
"""

import hmac
from typing import Final

import msgspec

from freehold.errors import AuthenticationError, ProtocolError
from freehold.ids import ProcessId
from freehold.wire.messages import Address

MAGIC: Final = b"FREEHOLD"
VERSION: Final = 1
NONCE: Final = 32
GREETING: Final = len(MAGIC) + 1 + NONCE
LONGEST_HELLO: Final = 1024

MESSAGES, DESCRIPTORS, BULK = "messages", "descriptors", "bulk"


class Hello(msgspec.Struct, array_like=True):
    """Who calls, whom, and what for: ``messages``, ``descriptors`` (file descriptors to come) or
    ``bulk`` bytes.
    """

    caller: Address
    target: ProcessId
    purpose: str = MESSAGES


_decode_hello = msgspec.msgpack.Decoder(Hello).decode


def _prove(token: bytes, who: bytes, server: bytes, client: bytes, hello: bytes) -> bytes:
    return hmac.digest(token, who + server + client + hello, "sha256")


class ServerSide:
    """The end that accepted the connection."""

    __slots__ = ("buffer", "greeting", "hello", "nonce", "token")

    def __init__(self, token: bytes, nonce: bytes) -> None:
        self.token = token
        self.nonce = nonce
        self.greeting = MAGIC + bytes([VERSION]) + nonce
        self.buffer = b""
        self.hello: Hello | None = None

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return the answer once the caller has proved itself (``hello`` is set then).

        Raises AuthenticationError for a wrong proof, ProtocolError for bytes that are no handshake.
        """
        self.buffer += data
        head = NONCE + 32 + 2
        if len(self.buffer) < head:
            return b""
        length = int.from_bytes(self.buffer[head - 2 : head], "little")
        if length > LONGEST_HELLO:
            raise ProtocolError(
                f"a hello of {length} bytes is announced, {LONGEST_HELLO} is the most"
            )
        if len(self.buffer) < head + length:
            return b""
        client, proof = self.buffer[:NONCE], self.buffer[NONCE : NONCE + 32]
        hello = self.buffer[head : head + length]
        if not hmac.compare_digest(proof, _prove(self.token, b"client", self.nonce, client, hello)):
            raise AuthenticationError("the caller does not hold this cluster's token")
        if len(self.buffer) > head + length:
            raise ProtocolError("bytes after the hello, before our proof")
        try:
            self.hello = _decode_hello(hello)
        except msgspec.MsgspecError as error:
            raise ProtocolError(f"the caller's hello cannot be read: {error}") from None
        return _prove(self.token, b"server", self.nonce, client, b"")


class ClientSide:
    """The end that connected."""

    __slots__ = ("buffer", "done", "expected", "hello", "nonce", "token")

    def __init__(self, token: bytes, nonce: bytes, hello: Hello) -> None:
        self.token = token
        self.nonce = nonce
        self.hello = msgspec.msgpack.encode(hello)
        self.buffer = b""
        self.expected: bytes | None = None
        self.done = False

    def wants(self) -> int:
        """How many bytes complete the next step: a caller that reads no more cannot read past the
        handshake.
        """
        return (GREETING if self.expected is None else 32) - len(self.buffer)

    def feed(self, data: bytes) -> bytes:
        """Take bytes; return what to send. ``done`` is set once the server has proved itself.

        Raises ProtocolError if the other end does not speak this protocol, AuthenticationError if
        it cannot prove that it holds the token.
        """
        self.buffer += data
        if self.expected is None:
            if len(self.buffer) < GREETING:
                if not self.buffer.startswith(MAGIC[: len(self.buffer)]):
                    raise ProtocolError("the other end is not a Freehold process")
                return b""
            if self.buffer[: len(MAGIC)] != MAGIC:
                raise ProtocolError("the other end is not a Freehold process")
            if self.buffer[len(MAGIC)] != VERSION:
                theirs = self.buffer[len(MAGIC)]
                raise ProtocolError(
                    f"the other end speaks protocol version {theirs}, this is {VERSION}: "
                    "install the same release on every machine"
                )
            server = self.buffer[len(MAGIC) + 1 : GREETING]
            self.buffer = self.buffer[GREETING:]
            self.expected = _prove(self.token, b"server", server, self.nonce, b"")
            proof = _prove(self.token, b"client", server, self.nonce, self.hello)
            return self.nonce + proof + len(self.hello).to_bytes(2, "little") + self.hello
        if len(self.buffer) >= 32:
            if not hmac.compare_digest(self.buffer[:32], self.expected):
                raise AuthenticationError("the other end does not hold this cluster's token")
            self.buffer = self.buffer[32:]
            self.done = True
        return b""
