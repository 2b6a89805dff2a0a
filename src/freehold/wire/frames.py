"""Frames: messages to bytes and back, over a stream.

A frame is a 4-byte little-endian length and that many bytes of msgpack: a list of messages. Many
messages share a frame because what a message costs is mostly its system call and the wake-up at
the other end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from freehold.errors import ProtocolError
from freehold.wire.messages import Message, Wire

#: A longer frame is refused unread. The largest honest one is a task with thousands of arguments.
LONGEST: Final = 1 << 30
#: Messages per frame: bounds how long one decode keeps the interpreter.
BATCH: Final = 512


def encode(messages: list[Message]) -> bytes:
    """The bytes of the frames that carry ``messages``. Raises ProtocolError for a message that no
    frame can hold.
    """
    if len(messages) <= BATCH:
        body = Wire.encode(messages)
        if len(body) <= LONGEST:
            return len(body).to_bytes(4, "little") + body
        if len(messages) == 1:
            kind = type(messages[0]).__name__
            raise ProtocolError(f"a {kind} of {len(body):,} bytes; a frame holds {LONGEST:,}")
    size = min(BATCH, (len(messages) + 1) // 2)
    return b"".join(
        encode(messages[start : start + size]) for start in range(0, len(messages), size)
    )


class Frames:
    """Takes bytes as they come and yields the messages that are complete."""

    __slots__ = ("buffer", "needed")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.needed = 4  # bytes before it is worth looking again

    def feed(self, data: bytes) -> Iterator[list[Message]]:
        """Yield the messages of each frame that ``data`` completes. Raises ProtocolError for what
        is no frame.
        """
        if self.buffer:
            self.buffer += data
            if len(self.buffer) < self.needed:
                return
            data = bytes(self.buffer)
            self.buffer.clear()
        start, end = 0, len(data)
        view = memoryview(data)
        while end - start >= 4:
            length = int.from_bytes(data[start : start + 4], "little")
            if length > LONGEST:
                raise ProtocolError(
                    f"a frame of {length:,} bytes is announced, {LONGEST:,} is the most"
                )
            if end - start - 4 < length:
                self.needed = length + 4
                break
            try:
                messages = Wire.decode(view[start + 4 : start + 4 + length])
            except msgspec.MsgspecError as error:
                raise ProtocolError(
                    f"a frame of {length:,} bytes is not a list of messages: {error}"
                ) from None
            start += 4 + length
            yield messages
        else:
            self.needed = 4
        if start < end:
            self.buffer += view[start:]
