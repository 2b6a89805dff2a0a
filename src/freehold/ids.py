"""Identifiers: plain bytes under distinct static types.

An id is a value, never a handle: two equal ids name the same thing for ever. They are raw
``bytes`` because they are made, hashed and sent by the hundred thousand (a wrapper class costs
0.2 us each to build and hash).

* ``ProcessId``, ``NodeId``, ``JobId``: 8 random bytes. A restarted process is a new id, so an id
  is also an incarnation: what an old one says can never be taken for the new one.
* ``TaskId``: 16 bytes, see :class:`Names`.
* ``ObjectId``: the task's 16 bytes and a 4-byte index: a return value's number, or ``PUT``.
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from typing import NewType

ProcessId = NewType("ProcessId", bytes)
NodeId = NewType("NodeId", bytes)
JobId = NewType("JobId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)
LeaseId = NewType("LeaseId", bytes)
FunctionId = NewType("FunctionId", bytes)

PUT = (1 << 31).to_bytes(4, "big")

_INDEX_SUFFIX = [index.to_bytes(4, "big") for index in range(64)]


def return_id(task: TaskId, index: int) -> ObjectId:
    """The id of a task's ``index``-th return value."""
    if index < 64:
        return ObjectId(task + _INDEX_SUFFIX[index])
    assert index < 1 << 31
    return ObjectId(task + index.to_bytes(4, "big"))


class Names:
    """What one run of a task, or one driver, calls the tasks and values that it makes.

    Eight bytes that no other run has, and a counter. A task that is run again makes new names,
    because the process of its first run may live and still own the old ones (found by the
    simulator; docs/design/0005-names.md).
    """

    __slots__ = ("made", "run")

    def __init__(self, run: bytes) -> None:
        self.run = run
        self.made = count(1)  # (taking the next of these is one step, also between threads)

    def next_task(self) -> TaskId:
        """The id of the next task that it submits."""
        return TaskId(next(self.made).to_bytes(8, "little") + self.run)

    def next_put(self) -> ObjectId:
        """The id of the next value that it puts."""
        return ObjectId(self.next_task() + PUT)


def function_id(pickled: bytes) -> FunctionId:
    """The id of a function: a digest of its pickled form, so equal code is sent and loaded once."""
    return FunctionId(blake2b(pickled, digest_size=8).digest())


def short(identifier: bytes) -> str:
    """The first eight hex digits: what people read in messages and tables."""
    return identifier.hex()[:8]
