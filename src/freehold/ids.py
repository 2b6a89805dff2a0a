"""Identifiers: plain bytes under distinct static types.

An id is a value, never a handle: two equal ids name the same thing for ever. They are raw
``bytes`` because they are made, hashed and sent by the hundred thousand (a wrapper class costs
0.2 us each to build and hash).

* ``ProcessId``, ``NodeId``, ``JobId``, ``GroupId``: 8 random bytes. A restarted process is a new
  id, so an id is also an incarnation: what an old one says can never be taken for the new one.
* ``TaskId``: 16 bytes: a name (8), and whose run or driver gave it (8); see :class:`RunNames`.
* ``ObjectId``: the task's 16 bytes and a 4-byte index: a return value's number, or ``PUT``.
"""

from __future__ import annotations

from collections.abc import Iterable
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
GroupId = NewType("GroupId", bytes)

PUT = (1 << 31).to_bytes(4, "big")

_INDEX_SUFFIX = [index.to_bytes(4, "big") for index in range(64)]


def return_id(task: TaskId, index: int) -> ObjectId:
    """The id of a task's ``index``-th return value."""
    if index < 64:  # (to call a NewType costs as much as the rest)
        return task + _INDEX_SUFFIX[index]  # type: ignore[return-value]
    assert index < 1 << 31
    return ObjectId(task + index.to_bytes(4, "big"))


def return_ids(task: TaskId, count: int) -> tuple[ObjectId, ...]:
    """The ids of a task's ``count`` return values."""
    if count == 1:
        return (task + _INDEX_SUFFIX[0],)  # type: ignore[return-value]  # (as above)
    return tuple(return_id(task, index) for index in range(count))


class Names:
    """What a driver calls the tasks and values that it makes: a counter, and eight bytes that no
    other process has.
    """

    __slots__ = ("made", "run")

    def __init__(self, run: bytes) -> None:
        self.run = run
        # (Taking the next of these is one step, also between threads. It does not begin at 1, so
        # that the short forms of two drivers' ids differ.)
        self.made = count(int.from_bytes(run[:7], "little"))

    def next_task(self, function: bytes, args: bytes, refs: Iterable[bytes] = ()) -> TaskId:
        """The id of the next task that it submits."""
        return next(self.made).to_bytes(8, "little") + self.run  # type: ignore[return-value]

    def next_put(self, fingerprint: bytes) -> ObjectId:
        """The id of the next value that it puts."""
        return ObjectId(next(self.made).to_bytes(8, "little") + self.run + PUT)


class RunNames(Names):
    """What one run of a task calls what it makes: eight bytes that any run of the task would give
    it, and eight that only this run has.

    The first half is a digest of the task, the function, the arguments and how often just this call
    was made before: if the task is run again, because the process that ran it has died with all it
    owned, the same calls are known again by it (NSDI'21, section 4.3: "a deterministic function of
    the parent's id"). The second half keeps the two apart; the first run's children may live on:
    docs/design/0005-names.md. A put is known again by its size and its ends (``fingerprint``).
    """

    __slots__ = ("parent", "repeats")

    #: Calls that one run can tell apart, 150 bytes each; those beyond it cannot be known again.
    MOST = 1 << 18

    def __init__(self, run: bytes, task: TaskId) -> None:
        super().__init__(run)
        self.parent = name_of(task)
        self.repeats: dict[bytes, count[int]] = {}

    def next_task(self, function: bytes, args: bytes, refs: Iterable[bytes] = ()) -> TaskId:
        """The id of the next task that it submits. ``refs``: the objects it is given."""
        digest = blake2b(args, digest_size=8, key=function, salt=self.parent)
        for ref in refs:
            digest.update(name_of(ref))
        return TaskId(self.told_apart(digest.digest()) + self.run)

    def next_put(self, fingerprint: bytes) -> ObjectId:
        """The id of the next value that it puts."""
        digest = blake2b(fingerprint, digest_size=8, key=b"put", salt=self.parent)
        return ObjectId(self.told_apart(digest.digest()) + self.run + PUT)

    def told_apart(self, digest: bytes) -> bytes:
        """The name of this call among those with the same digest."""
        repeats = self.repeats.get(digest)
        if repeats is None:
            if len(self.repeats) >= self.MOST:
                number = next(self.made).to_bytes(8, "little")
                return blake2b(number, digest_size=8, key=self.run).digest()  # (no other run's)
            repeats = self.repeats.setdefault(digest, count())  # (one step, as is next())
        return ((int.from_bytes(digest, "big") + next(repeats)) & _EIGHT).to_bytes(8, "big")


_EIGHT = (1 << 64) - 1


def name_of(identifier: bytes) -> bytes:
    """The part of a task's or object's id that another run would give it too."""
    return identifier[:8] + identifier[16:]


def function_id(pickled: bytes) -> FunctionId:
    """The id of a function: a digest of its pickled form, so equal code is sent and loaded once."""
    return FunctionId(blake2b(pickled, digest_size=8).digest())


def short(identifier: bytes) -> str:
    """The first eight hex digits: what people read in messages and tables."""
    return identifier.hex()[:8]
