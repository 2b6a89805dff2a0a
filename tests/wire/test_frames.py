"""Frames: any split of the bytes gives the same messages, and what is no frame is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freehold.errors import ProtocolError
from freehold.ids import LeaseId, ObjectId
from freehold.wire import frames
from freehold.wire.frames import BATCH, LONGEST, Frames, encode
from freehold.wire.messages import Message, Release, StillQueued, Stop, Unblocked

LEASE = LeaseId(b"l" * 8)


def release(number: int) -> Release:
    return Release(ObjectId(number.to_bytes(20, "big")), number)


def read(pieces: list[bytes]) -> list[Message]:
    """What a reader makes of these pieces."""
    reader = Frames()
    return [message for piece in pieces for batch in reader.feed(piece) for message in batch]


MESSAGES: list[Message] = [release(1), Stop(), StillQueued(LEASE, "why " * 50), Unblocked()]


def test_split_at_every_byte() -> None:
    """Goal: a frame may arrive in any two pieces, or byte by byte. Method: two frames,
    all splits."""
    data = encode(MESSAGES) + encode([release(2)])
    wanted = [*MESSAGES, release(2)]
    for cut in range(len(data) + 1):
        assert read([data[:cut], data[cut:]]) == wanted
    assert read([data[at : at + 1] for at in range(len(data))]) == wanted


@given(
    st.lists(st.lists(st.integers(0, 5000).map(release), max_size=5), max_size=6),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_any_split_of_any_frames(batches: list[list[Release]], sizes: list[int]) -> None:
    """Goal and method as above, with several cuts: pieces of the given sizes, over and over."""
    data = b"".join(encode(list(batch)) for batch in batches)
    pieces, at, turn = [], 0, 0
    while at < len(data):
        pieces.append(data[at : at + sizes[turn % len(sizes)]])
        at += sizes[turn % len(sizes)]
        turn += 1
    assert read(pieces) == [message for batch in batches for message in batch]


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 1])
def test_batches(count: int) -> None:
    """Goal: long lists travel in frames of at most BATCH messages, in order."""
    messages: list[Message] = [release(number) for number in range(count)]
    batches = list(Frames().feed(encode(messages)))
    assert [message for batch in batches for message in batch] == messages
    assert all(len(batch) <= BATCH for batch in batches)


def test_giant_length_is_refused_unread() -> None:
    """Goal: four bytes cannot make us wait for, or set aside, more than LONGEST bytes."""
    assert list(Frames().feed(LONGEST.to_bytes(4, "little"))) == []
    with pytest.raises(ProtocolError, match="is announced"):
        list(Frames().feed((LONGEST + 1).to_bytes(4, "little")))
    with pytest.raises(ProtocolError, match="is announced"):
        read([b"\xff", b"\xff", b"\xff", b"\xff"])


@given(st.binary(min_size=0, max_size=60))
def test_garbage_is_an_error_of_the_protocol(garbage: bytes) -> None:
    """Goal: whatever the bytes are: messages, more to come, or ProtocolError; never
    anything else."""
    frame = len(garbage).to_bytes(4, "little") + garbage
    for pieces in ([garbage], [frame], [frame[:5], frame[5:]]):
        try:
            read(pieces)
        except ProtocolError:
            pass


def test_a_valid_frame_before_garbage_is_delivered() -> None:
    """Goal: what was complete before the error is not lost."""
    feeding = Frames().feed(encode([release(1)]) + (3).to_bytes(4, "little") + b"xyz")
    assert next(feeding) == [release(1)]
    with pytest.raises(ProtocolError, match="is not a list of messages"):
        next(feeding)


def test_what_the_reader_would_refuse_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a batch that is too long for one frame goes in several; one message that is too long is
    an error of its sender, not the end of the connection.

    Method: the limit lowered to 1,000 bytes."""
    monkeypatch.setattr(frames, "LONGEST", 1000)
    messages: list[Message] = [StillQueued(LEASE, "x" * 300) for _ in range(10)]
    assert read([encode(messages)]) == messages
    with pytest.raises(ProtocolError, match="StillQueued"):
        encode([release(1), StillQueued(LEASE, "x" * 1001)])
