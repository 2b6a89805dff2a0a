"""Lineage: tasks that are done and may have to run again, because a value that they made may be
lost or a process that owns what their runs made may die.

The life of one kept task: done -> kept -> (running again -> kept ->)* forgotten. A task is kept

* while one of its results can be named and lies in a store (a node may die with it) or contains
  references, and
* while the worker that ran it owns anything made in that run (its *children*): the worker says so
  with the results, and says when they are gone. ``rebirth`` uses that.

A kept task holds its arguments: objects of ours by ``Entry.lineage``, which keeps the entry but
not the value (it can be made again, by its own lineage); borrowed ones by a pin, which keeps both,
because only their owner could make them again.

A lost value is made again by running its task again under the same ids with a higher attempt
number, and first the tasks of its arguments that are gone, iteratively: a worklist, since the chain
may be ten thousand tasks long. One run serves everyone who waits. Each run counts as one of the
task's retries. What cannot be made again fails with the reason: it was put, its task may not run
again, its retries are spent, or its lineage was dropped to keep within ``LINEAGE_BYTES``.

Races considered: a result that is dropped while its task runs again (as in ``submission``); a
second result of the same task that is still good (it stays, ``submission.result``); a worker whose
last children go while the task runs again (``homes`` is told apart from ``ran_at``).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from freehold.core.entries import Entry, Maker
from freehold.core.ownership import Ownership
from freehold.core.results import without
from freehold.core.submission import WAITING, Submission, Task
from freehold.core.world import World
from freehold.ids import ObjectId, ProcessId, TaskId
from freehold.wire.messages import (
    FAILED,
    STORED,
    Address,
    CancelTask,
    ChildrenGone,
    FreeObjects,
    Value,
)

#: Bytes of tasks and their arguments that one owner keeps at most; the oldest go first. NSDI'21
#: (section 4.2) caps lineage for the same reason; 256 MiB is 500,000 tasks without large arguments.
LINEAGE_BYTES: Final = 256 << 20
#: What a kept task takes besides its arguments (measured: 430 bytes with its entry).
TASK_BYTES: Final = 500
#: Seconds for which a task is kept when the worker that owned its children has died: whoever holds
#: one claims it within milliseconds of hearing of the death (``rebirth``), or of waking up.
CLAIM_SECONDS: Final = 30.0


class Never:
    """Stands for the task of a result that cannot run again, and says why."""

    __slots__ = ("evicted", "why")

    def __init__(self, why: str, *, evicted: bool = False) -> None:
        self.why = why
        self.evicted = evicted


class Home:
    """A worker, and the tasks of which its runs have left children there."""

    __slots__ = ("address", "tasks")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.tasks: dict[TaskId, Task] = {}


class Lineage:
    """The tasks of one owner that may have to run again."""

    def __init__(self, world: World, ownership: Ownership, submission: Submission) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.tasks: dict[TaskId, Task] = {}  # the oldest first
        self.size = 0
        self.homes: dict[ProcessId, Home] = {}  # workers that own children
        # copies of earlier results that we heard of while their task runs again
        self.strays: dict[ObjectId, list[Address]] = {}
        self.lost: Callable[[Entry, str, bool], bytes]  # the role's: the shipped form of the error
        self.unclaimed: Callable[[Task], None]  # the role's (rebirth): what it was to bring back
        self.stream_lost: Callable[[Task, ObjectId], None]  # the role's (streams)

    # ------------------------------------------------------------------ keeping

    def keep(self, task: Task, results: Sequence[Value], worker: Address | None) -> bool:
        """A task is done. Keep it if it may have to run again; say whether."""
        if self.strays:
            self.clear_up(task, results)
        worth = False
        if worker is not None:
            for value in results:
                if value.kind == STORED or value.contains:
                    worth = True
                    break
        if not worth and not task.homes and task.ran_at is None and task.stream is None:
            return False  # as of most tasks
        return self.keep_ran(task, worker, worth=worth)

    def keep_ran(self, task: Task, worker: Address | None, *, worth: bool) -> bool:
        """The same for a task that may have left something; ``worth``: its last run has."""
        task.ran_at = worker or task.ran_at
        if task.ran_at is None:
            if task.stream is not None:
                self.never(task, f"its task {task.title}() has failed")
            return False
        entries = self.ownership.entries
        objects = results_of(task)
        named = [entries[object_id] for object_id in objects if object_id in entries]
        if task.stream is not None:  # (only its stored values name their task)
            named = [entry for entry in named if entry.task is task]
            worth = any(entry.object != objects[0] for entry in named)
        for entry in named:  # of an earlier run something may still be good
            worth = worth or (entry.value is not None and entry.value.kind == STORED)
        if task.cancelled:
            self.never(task, f"its task {task.title}() was cancelled")
            return False
        if task.max_retries == 0:
            limit = "max_retries" if task.actor is None else "max_task_retries"
            self.never(task, f"its task {task.title}() has {limit}=0")
            return False
        if not (named and worth) and not task.homes:
            return False
        task.live = len(named)
        self.tasks[task.id] = task
        self.size += TASK_BYTES + len(task.args)
        self.hold(task)
        if self.size > LINEAGE_BYTES:
            self.trim()
        return True

    def keep_creation(self, task: Task, worker: Address) -> bool:
        """An actor has been made, which has restarts left."""
        task.ran_at = worker
        self.tasks[task.id] = task
        self.size += TASK_BYTES + len(task.args)
        self.hold(task)
        return True

    def never(self, task: Task, why: str, *, evicted: bool = False) -> None:
        """What the task has made cannot be made again."""
        for object_id in results_of(task):
            entry = self.ownership.entries.get(object_id)
            if entry is not None and entry.task is task:  # (an actor's entry says more)
                entry.task = Never(why, evicted=evicted)

    def clear_up(self, task: Task, results: Sequence[Value]) -> None:
        """Copies from an earlier run go, except where the new result lies: it took their place."""
        for object_id, value in zip(task.returns, results):
            for node in without(self.strays.pop(object_id, ()), value.nodes):
                self.world.send(node, FreeObjects([object_id]))

    def hold(self, task: Task) -> None:
        """Its arguments are needed only if it runs again: those of ours may lose their values."""
        task.kept = []
        for ref in (*task.deps, *task.borrowed):
            entry = self.ownership.entries[ref.object]
            if entry.owner is None:
                entry.lineage += 1
                entry.pins -= 1
                task.kept.append(entry)
        for entry in task.kept:
            self.ownership.collect(entry)

    def release(self, task: Task) -> list[Entry]:
        """Let its arguments go. Returns them: the caller collects them."""
        assert task.kept is not None
        released = []
        kept = Counter(task.kept)
        for ref in (*task.deps, *task.borrowed):
            entry = self.ownership.entries[ref.object]
            if kept[entry]:
                kept[entry] -= 1
                entry.lineage -= 1
            else:  # borrowed when it was pinned (and since then perhaps made again by ourselves)
                entry.pins -= 1
            released.append(entry)
        task.kept = None
        return released

    def forget(self, task: Task) -> list[Entry]:
        """The task will never run again. Returns what it held: the caller collects it."""
        del self.tasks[task.id]
        self.size -= TASK_BYTES + len(task.args)
        task.homes = None  # (ours still say who has children: the reason for a claim's refusal)
        released = self.release(task)
        if task.origin is not None:
            self.ownership.one_less(task.origin)
        if task.claims:  # of an actor that was to be made again
            self.unclaimed(task)
        return released

    def result_gone(self, entry: Entry) -> Iterable[Entry]:
        """A result of a kept task was freed: the last takes the task with it."""
        task = entry.task
        if not isinstance(task, Task) or task.id not in self.tasks:
            return ()
        task.live -= 1
        return () if task.live or task.homes else self.forget(task)

    def trim(self) -> None:
        """Forget the oldest until the rest is well within bounds. (Not one by one: the first of a
        dict from which the first ones were taken is found slowly.)
        """
        for task in list(self.tasks.values()):
            if self.size <= LINEAGE_BYTES * 0.9:
                return
            if task.id not in self.tasks:
                continue  # it went with one of the others
            why = (
                f"the lineage of {task.title}() was dropped to keep within {LINEAGE_BYTES:,} bytes"
            )
            self.never(task, why, evicted=True)
            for entry in self.forget(task):
                self.ownership.collect(entry)

    # ------------------------------------------------------------------ children

    def children(self, task: Task, worker: Address, *, any_left: bool) -> None:
        """A worker says whether it owns anything that its runs of the task have made."""
        if not any_left:
            self.childless(task, worker.process)
            return
        if task.homes is None:
            task.homes = set()
        task.homes.add(worker.process)
        home = self.homes.get(worker.process)
        if home is None:
            home = self.homes[worker.process] = Home(worker)
        home.tasks[task.id] = task

    def left_at(self, worker: ProcessId, task_id: TaskId) -> Task | None:
        """A task of ours of which a worker owns children."""
        home = self.homes.get(worker)
        return None if home is None else home.tasks.get(task_id)

    def leave(self, worker: ProcessId, task: Task) -> None:
        """Take one worker's children off the books."""
        home = self.homes.get(worker)
        if home is not None:
            home.tasks.pop(task.id, None)
            if not home.tasks:
                del self.homes[worker]

    def ended(self, parent: TaskId) -> Iterable[Task]:
        """Tasks that ``parent`` has submitted from here which have ended and left children."""
        found = (task for home in self.homes.values() for task in home.tasks.values())
        running = self.submission.tasks
        return dict.fromkeys(t for t in found if t.parent == parent and t.id not in running)

    def cancel_children(self, task: Task, *, force: bool, grace: float) -> None:
        """Have every worker cancel the children of its runs of the task."""
        for home in self.homes.values():
            if task.id in home.tasks:
                self.world.send(home.address, CancelTask(task.id, force, True, grace))

    def on_children_gone(self, message: ChildrenGone, worker: ProcessId) -> None:
        """Nothing is left of them."""
        task = self.left_at(worker, message.task)
        if task is not None:
            self.childless(task, worker)

    def childless(self, task: Task, worker: ProcessId) -> None:
        """Nothing is left of what one worker's run has made."""
        self.leave(worker, task)
        if task.homes is None:
            return
        task.homes.discard(worker)
        if not task.homes and not task.live and task.id in self.tasks:
            for entry in self.forget(task):
                self.ownership.collect(entry)

    def why_not(self, task_id: TaskId, worker: ProcessId) -> str:
        """Why a task that is not kept cannot bring back what that worker has made in it."""
        task = self.left_at(worker, task_id)
        if task is None:
            return "and how to make it again is forgotten: nobody had asked for it in time"
        if task.cancelled:
            return f"and the task that made it, {task.title}(), was cancelled"
        if task.max_retries == 0:
            return f"and the task that made it, {task.title}(), may not run twice (max_retries=0)"
        return f"and the lineage of the task that made it, {task.title}(), was dropped"

    def worker_lost(self, worker: ProcessId) -> None:
        """A worker has died that owned children. Who holds one claims it soon; then forget it."""
        home = self.homes.get(worker)
        if home is not None:
            waiting = list(home.tasks.values())

            def unclaimed() -> None:
                for task in waiting:
                    self.childless(task, worker)

            self.world.call_at(self.world.now() + CLAIM_SECONDS, unclaimed)

    # ------------------------------------------------------------------ running again

    def recover(self, entry: Entry, how: str) -> None:
        """A value of ours is gone (``how``): have it made again, or let it fail."""
        if entry.value is not None:
            self.ownership.forget(entry.value)
            entry.value = None
        work = deque([entry])
        while work:
            entry = work.popleft()
            task = entry.task
            if isinstance(task, Task) and task.stream is not None and entry.value is None:
                self.stream_lost(task, entry.object)
            if entry.value is not None or self.running(entry):
                continue  # asked for twice, or under way
            if self.ownership.entries.get(entry.object) is not entry:
                continue  # who needed it has failed meanwhile, for want of another argument
            if isinstance(task, Task) and self.submission.may_retry(task):
                work.extend(self.begin_again(task))
            else:
                why, evicted = self.obstacle(task)
                error = self.lost(entry, f"{how}, and {why}", evicted)
                self.ownership.resolve(entry, Value(FAILED, error))
            how = "its value went with its last reference"  # (of the further ones)

    def running(self, entry: Entry) -> bool:
        """Whether the task that makes the object is under way, or it is not for us to make."""
        task = entry.task
        if isinstance(task, Task):
            return task.id in self.submission.tasks
        return isinstance(task, Maker)

    def obstacle(self, task: object) -> tuple[str, bool]:
        """Why a value cannot be made again; whether that is for want of lineage."""
        if isinstance(task, Never):
            return task.why, task.evicted
        if isinstance(task, Task):
            return f"its task {task.title}() has used its {task.max_retries} retries", False
        return "it was put, not made by a task: nothing can make it again", False

    def run_again(self, task: Task) -> None:
        """One more attempt of a kept task."""
        for entry in self.begin_again(task):
            self.recover(entry, "its value went with its last reference")

    def begin_again(self, task: Task) -> list[Entry]:
        """Begin one more attempt of a kept task. Returns its arguments that must be made first."""
        self.size -= TASK_BYTES + len(task.args)
        del self.tasks[task.id]
        for entry in task.kept or ():
            entry.lineage -= 1
            entry.pins += 1
        missing = [entry for entry in task.kept or () if entry.value is None]
        task.kept = None
        task.attempt += 1
        task.lease = None
        task.target = None
        task.state = WAITING
        self.submission.tasks[task.id] = task
        self.submission.await_values(task)
        return missing


def results_of(task: Task) -> Sequence[ObjectId]:
    """All that a task has made under its own name."""
    return task.returns if task.stream is None else [*task.returns, *task.stream.objects()]
