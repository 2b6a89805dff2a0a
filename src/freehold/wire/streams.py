"""What is said about a stream: a generator task whose values are objects of their own, one by one.

The values of a stream are numbered from 1: number n is the object ``return_id(task, n)``. Number 0
is how many there are, known at the end. The worker sends them as they are made (StreamItem), and
after the last how many it has made (StreamEnd), just before TaskDone. The owner says from time to
time how many were taken (StreamTaken), which makes room for more, and that nobody wants more
(CloseStream).
"""

from freehold.ids import TaskId
from freehold.wire.records import Record, Value


class StreamTerms(Record):
    """Part of PushTask. ``window``: how many values may lie untaken. ``taken``: so many were taken
    already, of an earlier run. ``limit``: only so many are wanted; negative: all.
    """

    window: int
    taken: int = 0
    limit: int = -1


class StreamItem(Record, tag=100):
    """Worker to owner: one value. A run that replaces an earlier one begins again with number 1."""

    task: TaskId
    attempt: int
    number: int
    value: Value


class StreamEnd(Record, tag=101):
    """Worker to owner, before TaskDone: this run has made so many."""

    task: TaskId
    attempt: int
    count: int


class StreamTaken(Record, tag=102):
    """Owner to worker: so many of the values were taken; as many as ``window`` may lie untaken."""

    task: TaskId
    taken: int
    window: int


class CloseStream(Record, tag=103):
    """Owner to worker: nobody wants more of this stream. End the generator, as Python's ``close``
    does, and answer with what has been made.
    """

    task: TaskId
