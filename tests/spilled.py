"""What the tests of spilling share: batches to write, and how one object is read back."""

from __future__ import annotations

import random

from freehold.store.spill import SpillSlot, SpillStore

Batch = list[tuple[bytes, memoryview]]


def batch_of(*sizes: int, name: bytes = b"object") -> Batch:
    """Objects of these sizes, the same at each call."""
    source = random.Random(len(sizes))
    return [
        (name + b"-%d" % number, memoryview(source.randbytes(size)))
        for number, size in enumerate(sizes)
    ]


def read(store: SpillStore, slot: SpillSlot) -> bytes:
    """The object at a slot."""
    target = bytearray(slot.size)
    store.read_into(slot, memoryview(target))
    return bytes(target)
