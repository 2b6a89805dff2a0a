"""What is said to end tasks, and about their time. See ``core.cancelling``."""

from freehold.ids import ObjectId, TaskId
from freehold.wire.records import Record


class CancelTask(Record, tag=6):
    """Owner to worker: end the task if it runs, drop it if not; with its children if recursive,
    also if the task itself has ended.

    ``force``: the owner has the worker killed if the task has not ended ``grace`` seconds from
    now; the same goes for its children. ``timeout``: it is cancelled because it has run for so
    many seconds; 0: because someone wants it so.
    """

    task: TaskId
    force: bool
    recursive: bool
    grace: float = 0.0
    timeout: float = 0.0


class CancelObject(Record, tag=18):
    """Borrower to owner: cancel the task that makes this object. The rest as in CancelTask."""

    object: ObjectId
    force: bool
    recursive: bool
    grace: float = 0.0


class TaskBegun(Record, tag=105):
    """Worker to owner, of a task whose time is limited (``PushTask.timed``): user code begins."""

    task: TaskId
    attempt: int
