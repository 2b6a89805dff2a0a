"""Errors of values: late, lost, too large, not to be pickled, not the same again."""

from __future__ import annotations

from collections.abc import Sequence

from freehold.errors.base import FreeholdError


class GetTimeoutError(FreeholdError, TimeoutError):
    """The value was not ready within the timeout. Its task is still running or waiting.

    Fault: unclear; ``waiting`` tells what it waits for. Retryable: yes, the reference stays good.
    What to do: read ``waiting``; get again with a longer timeout, or cancel.

    Args:
        message: what was asked for, and for how many seconds.
        waiting: explanation, one line for each thing waited for.
    """

    retryable = True
    summary = "the value was not ready within the timeout"
    remedy = "The reference is still good: get it again with a longer timeout, or cancel it."

    def __init__(self, message: str = "", *, waiting: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.waiting = list(waiting)

    def __str__(self) -> str:
        lines = ["It waits for:", *self.waiting] if self.waiting else []
        return " ".join([super().__str__(), "\n  ".join(lines)]).rstrip()


class ObjectLostError(FreeholdError):
    """Every copy of the value is gone and it could not be made again.

    What happened: the nodes that held it died, and its task could not run again (it was ``put``,
    or retries are spent); the message says why. Fault: the machine.
    Retryable: yes, by submitting the task again yourself.
    What to do: just that; make by tasks, not by ``put``, what must survive a machine.
    ``object_id`` is the value's id.
    """

    fault = "machine"
    retryable = True
    summary = "the value is lost: no copy of it is left"
    remedy = "Submit its task again; values made by tasks can be rebuilt, those of put cannot."

    def __init__(self, message: str = "", *, object_id: str = "") -> None:
        super().__init__(message)
        self.object_id = object_id


class LineageEvictedError(ObjectLostError):
    """Every copy of the value is gone, and how to make it again was forgotten to save memory.

    What happened: an owner keeps the tasks behind its values up to a number of bytes, the oldest
    go first. Fault: the machine that lost the value. Retryable: yes, by submitting the task again.
    What to do: hold fewer references at a time, or pass large arguments by reference: the bytes
    are mostly those of arguments.
    """

    summary = "the value is lost, and its lineage was dropped to save memory"
    remedy = "Submit its task again; pass large arguments by reference: lineage stays small."


class OwnerDiedError(ObjectLostError):
    """The process that owned the value died, and so did the chain of owners above it.

    What happened: the owner keeps a value's place and lineage. After its death its own owner runs
    it again; here that chain ends (a driver died, retries are spent, or the value was ``put``).
    Fault: the machine, or whoever ended the driver. Retryable: no, not under this reference.
    What to do: let a process that stays create what must live long, or store it elsewhere.
    """

    retryable = False
    summary = "the process that owned the value died"
    remedy = "Let a process that stays create what must live long, or store it outside the cluster."


class ObjectStoreFullError(FreeholdError):
    """The node's shared memory is full, and nothing in it can be dropped or spilled.

    Fault: the setup, or a program that keeps too much alive. Retryable: yes, when room was made.
    What to do: drop references, give the store more memory at ``init``, or a folder to spill to.
    ``wanted``, ``used`` and ``capacity`` are bytes.
    """

    fault = "setup"
    retryable = True
    summary = "the object store is full"
    remedy = "Drop references, give the store more memory, or let it spill to disk."

    def __init__(
        self, message: str = "", *, wanted: int = 0, used: int = 0, capacity: int = 0
    ) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.used = used
        self.capacity = capacity

    def __str__(self) -> str:
        if not self.capacity:
            return super().__str__()
        sizes = f"{self.wanted:,} bytes wanted, {self.used:,} of {self.capacity:,} in use"
        return f"{self.message} ({sizes}). {self.remedy}"


class OutOfDiskError(FreeholdError):
    """Values had to be spilled to disk, and the disk or the spill quota is full.

    Fault: the machine. Retryable: yes, once there is room.
    What to do: free space, raise the quota, or name another spill folder.
    ``folder`` is the spill folder.
    """

    fault = "machine"
    retryable = True
    summary = "there is no room left to spill values to disk"
    remedy = "Free disk space, raise the spill quota or name another spill folder."

    def __init__(self, message: str = "", *, folder: str = "") -> None:
        super().__init__(message or (f"{self.summary} in {folder}" if folder else ""))
        self.folder = folder


class SerializationError(FreeholdError, TypeError):
    """A value cannot be turned into bytes, or bytes cannot be turned into a value in this process.

    What happened: the message names the part at fault, as in ``argument 'cfg'.model.lock is a
    _thread.lock``, or the module that is missing here. Fault: the program. Retryable: no.
    What to do: leave the part out (``__getstate__``), create it inside the task, or pass what it
    is made from.

    Args:
        message: what could not be pickled or rebuilt, and why.
        path: where in the object the culprit sits, "" when unknown.
        remedy: what to do, where the usual advice does not fit.
    """

    fault = "program"
    summary = "a value cannot be serialised"
    remedy = "Leave that part out with __getstate__, or create it inside the task."

    def __init__(self, message: str = "", *, path: str = "", remedy: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        if remedy is not None:
            self.remedy = remedy


class StreamReplayError(FreeholdError):
    """A generator task was run again, to replace lost values, and yielded fewer than before.

    Fault: the program: the function does not yield the same for the same arguments.
    Retryable: no.
    What to do: make the generator depend on its arguments only, or give it ``max_retries=0``.
    """

    fault = "program"
    summary = "a generator task was run again and yielded fewer values than before"
    remedy = "Let what it yields depend on its arguments only, or give it max_retries=0."
