"""Hosting: the actor that a worker has become the home of, and which of its calls may run.

A worker hosts one life of one actor, from its constructor to the end of the process. Calls are runs
like any other (``execution``: references, stored arguments, answers); this file says when one that
has all it needs may begin.

* **One after the other** (``ordered``): the calls of one caller run in the order in which it made
  them, also where the stored arguments of one are late: each caller's line (``calls``) has a
  *lane*, and only its head may become ready. The main thread takes them from ``execution.ready``.
  One whose result was lost comes again, and takes its old place in the lane: what stands behind it
  may wait for that result. One whose argument is lost, with the argument's owner, goes back to its
  caller, who can have it made again; it keeps its place until it comes again or is given up.
* **Several at a time**: a call begins when it has its arguments and its group has room. ``start``
  hands it to a thread or to the event loop. A group is a limit: the actor's own, or one by name.

Nothing else is given back to callers, and a call that has begun runs to its end even if its caller
dies: an exception out of nowhere in the middle of a method would leave the actor's state torn.

The end: when its owner says that nobody can name it (no call is under way then, because callers pin
it), when a method calls ``exit_actor``, when the constructor raises, and at once when the owner
dies.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from freehold.core.execution import Execution, Run
from freehold.ids import ProcessId, TaskId
from freehold.wire.messages import Address, Call, Creation

_number = attrgetter("message.actor.number")
#: Of one line of one caller.
Lane = tuple[ProcessId, bytes]


def lane_of(run: Run) -> Lane:
    """Where a call stands until it may run."""
    call = run.message.actor
    return run.submitter.process, call.line if type(call) is Call else b""


class Group:
    """Calls that may run at the same time: ``limit`` of them."""

    __slots__ = ("limit", "queue", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.running = 0
        self.queue: deque[Run] = deque()


class Hosting:
    """One life of an actor."""

    def __init__(self, execution: Execution, creation: Creation, owner: Address) -> None:
        self.execution = execution
        self.creation = creation
        self.owner = owner
        self.ordered = creation.limit == 1 and not creation.coroutines and not creation.groups
        self.lanes: dict[Lane, deque[Run]] = {}
        self.away: dict[TaskId, Run] = {}  # went back to their callers; they keep their places
        self.groups = {name: Group(limit) for name, limit in creation.groups.items()}
        self.groups[""] = Group(creation.limit)
        self.closing = False  # the actor ends: no further call begins
        self.start: Callable[[Run], None]  # the shell's: run it beside what runs already

    def complete(self, run: Run) -> None:
        """A call has come that needs nothing more."""
        if self.ordered and not self.closing and lane_of(run) not in self.lanes:
            self.execution.ready.append(run)  # (as most: no lane is made for it)
        else:
            self.pushed(run)
            self.arrived(run)

    def pushed(self, run: Run) -> None:
        """A call has come that has to wait: for its arguments, or for its turn."""
        if self.ordered:
            key = lane_of(run)
            lane = self.lanes.get(key)
            if lane is None:
                lane = self.lanes[key] = deque()
            before = self.away.pop(run.message.task, None)
            if before is not None:
                lane.remove(before)
            insort(lane, run, key=_number)

    def arrived(self, run: Run) -> None:
        """A call has its arguments."""
        if self.closing:
            return
        if self.ordered:
            self.advance(lane_of(run))
            return
        group = self.group_of(run)
        if group.running < group.limit:
            self.begin(run, group)
        else:
            group.queue.append(run)

    def advance(self, key: Lane) -> None:
        """What stands at the head of a lane and has its arguments is ready."""
        lane = self.lanes[key]
        while lane and not lane[0].missing:
            self.execution.ready.append(lane.popleft())
        if not lane:
            del self.lanes[key]

    def group_of(self, run: Run) -> Group:
        """The group that limits a call."""
        call = run.message.actor
        return self.groups[call.group if isinstance(call, Call) else ""]

    def begin(self, run: Run, group: Group) -> None:
        """The call runs from now on."""
        group.running += 1
        run.begun = True
        self.start(run)

    def finished(self, run: Run) -> None:
        """A call has ended: the next of its group may begin."""
        if self.ordered:
            return
        group = self.group_of(run)
        group.running -= 1
        if group.queue and not self.closing:
            self.begin(group.queue.popleft(), group)

    def returned(self, run: Run) -> None:
        """A call went back to its caller, who has to find an argument of it. Until it comes again
        or is given up nothing passes its place in the lane (it has not all that it needs).
        """
        if self.ordered:
            self.away[run.message.task] = run
        else:
            self.left(run)

    def given_up(self, task: TaskId) -> None:
        """A call that went back will not come again."""
        run = self.away.pop(task, None)
        if run is not None:
            self.left(run)

    def left(self, run: Run) -> None:
        """A call that has not begun will not run: it was cancelled, its caller is gone, or an
        argument of it is.
        """
        key = lane_of(run)
        if not self.ordered:
            group = self.group_of(run)
            if run in group.queue:
                group.queue.remove(run)
        elif run in self.lanes.get(key, ()):
            self.lanes[key].remove(run)
            self.advance(key)

    def caller_lost(self, caller: ProcessId) -> None:
        """Nothing more comes from there."""
        for key in [key for key in self.lanes if key[0] == caller]:
            for run in self.lanes.pop(key):
                self.away.pop(run.message.task, None)
