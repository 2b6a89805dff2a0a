"""Storing: serialised values on their way to where they will be read.

A small value travels inside the message that names it, as long as that has room; any other is
written into this node's store. The life of one of those: room is asked for -> given -> written ->
sealed; then the message that names it may leave. Refused: it is an error in the value's place.

Room for several small values is asked for at once, since the way to the node and back takes longer
than writing one (0.15 ms, 30 KB). The node gives room in the order in which it was asked for, and
each value is written as soon as it has its room, so that two processes that do this in a store too
small for both never wait for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from freehold.core.fetching import Creation
from freehold.ids import ObjectId
from freehold.runtime.context import INLINE_BYTES, INLINE_TOTAL
from freehold.runtime.system_errors import SystemErrors
from freehold.runtime.waking import Signal
from freehold.wire.messages import FAILED, INLINE, STORED, Address, Value
from freehold.wire.serial import Serialized

if TYPE_CHECKING:
    from freehold.runtime.process import Process

#: Values from this size on have the kernel provide their memory in pages of this size before they
#: are written: 4-6 GiB/s into fresh memory instead of 1 (store/arena.py).
HUGE_PAGE: Final = 2 << 20
#: Bytes of small values for which room is asked at once: others wait for room behind them.
TOGETHER: Final = 1 << 20


def inline(packed: Serialized) -> Value:
    """A value that travels inside the message that names it."""
    return Value(INLINE, packed.to_bytes(), contains=[ref._ref for ref in packed.refs])


def store_all(
    process: Process, made: Iterable[tuple[ObjectId, Serialized]], owner: Address
) -> list[Value]:
    """Bring the values that one message will name to where they will be read, each as it is made.
    If one cannot be made, nothing of those before it is left.
    """
    values: list[Value] = []
    written: list[ObjectId] = []
    left = INLINE_TOTAL
    try:
        for batch in batches(made):
            added = store_batch(process, batch, owner, left, written)
            left -= sum(len(value.data) for value in added)
            values += added
    except BaseException:
        with process.lock:
            for object_id in written:
                process.role.creating.take_back(object_id)
            process.transport.flush()
        raise
    return values


def batches(
    made: Iterable[tuple[ObjectId, Serialized]],
) -> Iterator[list[tuple[ObjectId, Serialized]]]:
    """Values in their order, as many at a time as have ``TOGETHER`` bytes; what has more is alone
    or the last, since what is serialised takes memory.
    """
    batch: list[tuple[ObjectId, Serialized]] = []
    size = 0
    for object_id, packed in made:
        batch.append((object_id, packed))
        size += packed.size
        if size >= TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def store_batch(
    process: Process,
    batch: Sequence[tuple[ObjectId, Serialized]],
    owner: Address,
    left: int,
    written: list[ObjectId],
) -> list[Value]:
    """Some of them. ``left``: bytes that the message still has room for. Adds to ``written`` what
    is in the store now.
    """
    signal = Signal()
    creations: list[Creation | None] = []
    with process.lock:
        process.settle()  # what was dropped makes room first, in memory that is warm
        for object_id, packed in batch:
            if packed.size <= min(left, INLINE_BYTES):
                left -= packed.size
                creations.append(None)
            else:
                create = process.role.create
                creations.append(create(object_id, packed.size, owner, signal.ring))
        process.transport.flush()
    values = []
    for (object_id, packed), creation in zip(batch, creations):
        if creation is None:
            values.append(inline(packed))
            continue
        if not creation.done:
            with process.lock:  # or the node would not know of what may be spilled for it
                process.transport.flush()
            process.pump.wait(creation, signal, None)
        if creation.offset >= 0:
            write(process, object_id, packed, creation.offset)
            written.append(object_id)
        elif creation.reason != "exists":  # (an earlier run's is as good)
            error = SystemErrors().store_full(creation.reason, creation.disk)
            values.append(Value(FAILED, error))
            continue
        contains = [ref._ref for ref in packed.refs]
        values.append(Value(STORED, b"", packed.size, [process.node], contains))
    with process.lock:
        process.transport.flush()
    return values


def write(process: Process, object_id: ObjectId, packed: Serialized, offset: int) -> None:
    """Write a value where the node has given it room."""
    arena = process.arena
    if packed.size >= HUGE_PAGE:
        arena.warm(offset, offset + packed.size)
    packed.write_into(arena.write_view(offset, packed.size))
    with process.lock:
        process.role.seal(object_id)
