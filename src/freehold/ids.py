"""Identifiers: plain bytes under distinct static types.

An id is a value, never a handle: two equal ids name the same thing for ever. They are raw
``bytes`` because they are made, hashed and sent by the hundred thousand (a wrapper class costs
0.2 us each to build and hash).

* ``ProcessId``, ``NodeId``, ``JobId``: 8 random bytes. A restarted process is a new id, so an id
is also an incarnation: what an old incarnation says can never be taken for the new one. *
``TaskId``: 16 bytes, derived from what the task *is* (see :func:`child_task_id`). * ``ObjectId``:
the task's 16 bytes and a 4-byte index. Returns count from 0; values of ``put`` count from
``PUT_BASE``, so the two can never meet.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import NewType

ProcessId = NewType("ProcessId", bytes)
NodeId = NewType("NodeId", bytes)
JobId = NewType("JobId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)
LeaseId = NewType("LeaseId", bytes)
FunctionId = NewType("FunctionId", bytes)

PUT_BASE = 1 << 31

_INDEX_SUFFIX = [index.to_bytes(4, "big") for index in range(64)]


def return_id(task: TaskId, index: int) -> ObjectId:
    """The id of a task's ``index``-th return value."""
    if index < 64:
        return ObjectId(task + _INDEX_SUFFIX[index])
    assert index < PUT_BASE
    return ObjectId(task + index.to_bytes(4, "big"))


def put_id(task: TaskId, count: int) -> ObjectId:
    """The id of the ``count``-th value that ``task`` has put."""
    return ObjectId(task + (PUT_BASE | count).to_bytes(4, "big"))


def task_of(object_id: ObjectId) -> TaskId:
    """The task that returned or put an object."""
    return TaskId(object_id[:16])


def child_task_id(parent: TaskId, function: FunctionId, args: bytes, occurrence: int) -> TaskId:
    """The id of a task submitted by ``parent``.

    It depends only on the parent, the function, the serialised arguments and how many equal calls
    the parent made before, so a re-run of the parent gives its children their old names
    (DESIGN.md, "Life of y").
    """
    digest = blake2b(parent, digest_size=16)
    digest.update(function)
    digest.update(args)
    digest.update(occurrence.to_bytes(4, "big"))
    return TaskId(digest.digest())


def function_id(pickled: bytes) -> FunctionId:
    """The id of a function: a digest of its pickled form, so equal code is sent and loaded once."""
    return FunctionId(blake2b(pickled, digest_size=8).digest())


def short(identifier: bytes) -> str:
    """The first eight hex digits: what people read in messages and tables."""
    return identifier.hex()[:8]
