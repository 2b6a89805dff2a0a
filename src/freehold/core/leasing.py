"""Leasing, the owner's side: which worker runs which task, and how many tasks are on their way to
it.

Tasks of the same *shape* (resources, preferred node, runtime environment, placement) share a queue
and leases. A lease is a worker that a node has granted; it is reused while there is work and
returned after a short hold.
The life of one lease: requested -> (redirected ->)* granted -> idle <-> busy -> returned, or
ended when its worker dies.

How deep to fill a worker: tasks whose time in user code is known are pushed ahead until
``PIPELINE_MICROS`` of work lie at the worker, so that a 5 us function travels by the hundred and
nothing waits behind a 1 s function. A function that was never measured counts as a full pipeline:
its first task goes alone. A worker that turns out to be busy for long gives the tasks behind back
(``on_returned``).

Who is to blame when a worker dies: if one task was on it, that one. If several were, nobody yet:
all become *suspects* and run alone from then on, so that the next death names the culprit exactly
and costs the innocent nothing of their retries. A task with ``max_retries=0`` is a suspect from
the start: it may not run twice, so we must always know whether it has begun.

A worker's death reaches us twice: as the end of its stream (after its last results) and as its
node's report of how it died. We act when both are in, or ``REPORT_PATIENCE`` after the stream's
end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from freehold.core.submission import (
    PIPELINE_MICROS,
    PUSHED,
    QUEUED,
    Placing,
    Submission,
    Task,
)
from freehold.core.world import Timer, World
from freehold.ids import FunctionId, JobId, LeaseId, NodeId, ProcessId, TaskId
from freehold.resources import Resources
from freehold.wire.messages import (
    Address,
    Death,
    FetchAhead,
    LeaseEnded,
    LeaseGranted,
    LeaseRedirected,
    LeaseRefused,
    Placement,
    RequestLease,
    ReturnLease,
    TaskReturned,
)

#: Tasks are dealt out in handfuls of so much work (microseconds), each to the least loaded worker:
#: to wake another takes about as long (45-90 us, ``runtime.pump``), and to compare 16 workers for
#: each task takes 5 us, 64 take 20, where to look at the one of the last task takes 0.4.
HANDFUL: Final = 100.0
#: However short the tasks: 512 of 80 bytes make a frame of 40 KiB, below a socket's send buffer.
PIPELINE_TASKS: Final = 512
#: Requests under way at once per shape: enough to start a machine's workers together.
REQUESTS: Final = 16
#: How long an idle lease is kept (seconds): loops that wait for each result reuse it, and others
#: get it soon.
HOLD: Final = 0.2
#: Seconds until what was asked of a node that died is asked anew. While the head is away the other
#: nodes do not know of the death and would send us there again, at once and for as long.
ASK_AGAIN: Final = 0.1
#: How long to wait for the node's word on how a worker died (seconds).
REPORT_PATIENCE: Final = 2.0


class Lease:
    """A worker granted to us. ``load``: expected microseconds of the tasks that lie at it."""

    __slots__ = (
        "alone",
        "death",
        "drained",
        "id",
        "idle_since",
        "killed",
        "known",
        "load",
        "node",
        "open",
        "pid",
        "removed",
        "shape",
        "slow",
        "tasks",
        "wanted",
        "worker",
    )

    def __init__(
        self, lease: LeaseId, shape: Shape, node: Address, worker: Address, pid: int
    ) -> None:
        self.id = lease
        self.shape = shape
        self.node = node
        self.worker = worker
        self.pid = pid
        self.known: set[FunctionId] = set()
        self.tasks: dict[TaskId, Task] = {}
        self.load = 0.0
        self.open = True  # as long as none of what makes us push nothing more has happened:
        self.wanted = False  # its node asked for it
        self.killed = False  # we have asked for its worker's death, and shall blame nobody
        self.drained = False  # its worker's stream has ended
        self.death: Death | None = None
        self.alone = False  # a suspect runs here: nothing else may
        self.slow = False  # gave tasks back: push nothing until it has finished one
        self.idle_since = 0.0
        self.removed = b""  # the placement group whose removal has ended it


class Shape:
    """A scheduling class: its queue, leases, and requests under way (by the node asked last)."""

    __slots__ = (
        "asking_later",
        "dealing",
        "environment",
        "idle",
        "leases",
        "placement",
        "queue",
        "requests",
        "resources",
        "target",
        "until",
        "why",
    )

    def __init__(
        self,
        resources: Resources,
        target: Address | None,
        environment: bytes = b"",
        placement: Placement | None = None,
    ) -> None:
        self.placement = placement
        self.resources = resources
        self.environment = environment
        self.target = target
        self.queue: deque[Task] = deque()
        self.leases: dict[LeaseId, Lease] = {}
        self.idle: dict[LeaseId, Lease] = {}
        self.requests: dict[LeaseId, Address] = {}
        self.dealing: Lease | None = None  # gets the next tasks until its load is ``until``
        self.until = 0.0
        self.why = ""  # the node's last word on why requests wait
        self.asking_later = False  # a request was lost with its node

    def width(self) -> int:
        """Workers that we have or are about to have."""
        return len(self.leases) + len(self.requests)


class Leasing(Placing):
    """Queues, leases and requests of one owner."""

    def __init__(self, world: World, submission: Submission, node: Address, job: JobId) -> None:
        self.world = world
        self.submission = submission
        self.node = node
        self.job = job
        self.shapes: dict[object, Shape] = {}
        self.recent: Shape | None = None  # of the last task that preferred no node
        self.leases: dict[LeaseId, Lease] = {}
        self.asked: dict[LeaseId, Shape] = {}
        self.by_worker: dict[ProcessId, dict[LeaseId, Lease]] = {}
        self.known: dict[ProcessId, set[FunctionId]] = {}
        self.sweeper: Timer | None = None
        # the role's: retry or fail the one task to blame
        self.worker_died: Callable[[Task, Death], None]
        self.abandoned: Callable[[Task], None]  # the role's: cancelled, and not running any more
        self.unplaceable: Callable[[Task, str], None]  # the role's: no node can ever run it
        self.group_removed: Callable[[Task, bytes], None]  # the role's: nor has a place any more
        self.unprepared: Callable[[Task, str], None]  # the role's: nor make its environment

    # ------------------------------------------------------------------ tasks in

    def enqueue(self, task: Task) -> None:
        """Push the task to a worker with room, or queue it and see to it that there will be one."""
        shape = self.shape_of(task)
        if not shape.queue:
            task.estimate = task.function.share
            lease = self.room_for(task, shape)
            if lease is not None:
                self.push(task, lease)
                return
        task.state = QUEUED
        task.announced = False
        task.since = self.world.now()
        if task.attempt:
            shape.queue.appendleft(task)  # it has waited already
        else:
            shape.queue.append(task)
        self.request_more(shape)

    def withdraw(self, task: Task) -> bool:
        """Take a queued task back, if it is still queued."""
        shape = self.shape_of(task)
        try:
            shape.queue.remove(task)
        except ValueError:
            return False
        return True

    def shape_of(self, task: Task) -> Shape:
        """The task's scheduling class."""
        resources, target = task.resources, task.target
        recent = self.recent  # (most tasks are calls of the same function as the one before)
        if (
            recent is not None
            and target is None
            and recent.resources is resources
            and recent.environment == task.environment
            and recent.placement is task.placement
        ):
            return recent
        place = target.process if target is not None else b""
        key = (tuple(resources.items()), place, task.environment, task.placement)
        shape = self.shapes.get(key)
        if shape is None:
            shape = self.shapes[key] = Shape(resources, target, task.environment, task.placement)
        if target is None:
            self.recent = shape
        return shape

    def room_for(self, task: Task, shape: Shape) -> Lease | None:
        """A lease that can take the task now: that which has not had its handful yet, an idle one,
        or the least loaded with room in its pipeline.
        """
        dealing = shape.dealing
        if dealing is not None:
            if dealing.load + task.estimate <= shape.until and self.has_room(dealing, task):
                return dealing
            shape.dealing = None
        best = None
        if shape.idle:
            best = next(iter(shape.idle.values()))
        elif task.suspect or task.estimate >= PIPELINE_MICROS or len(shape.leases) > 64:
            return None  # (scanning more than 64 costs more than queueing, which replies pull from)
        else:
            for lease in shape.leases.values():
                if (best is None or lease.load < best.load) and self.has_room(lease, task):
                    best = lease
        if best is not None:
            shape.dealing = best
            shape.until = min(best.load + HANDFUL, PIPELINE_MICROS)
        return best

    def has_room(self, lease: Lease, task: Task) -> bool:
        """Whether one more task may lie at this busy or idle worker."""
        if not lease.open:
            return False
        if not lease.tasks:
            return True
        return (
            not (lease.alone or lease.slow or task.suspect)
            and lease.load + task.estimate <= PIPELINE_MICROS
            and len(lease.tasks) < PIPELINE_TASKS
        )

    def push(self, task: Task, lease: Lease) -> None:
        """Send the task, unless it has just failed for want of an argument; note what lies at the
        worker.
        """
        if task.deps and not self.submission.still_ready(task):
            return
        if not lease.tasks:
            lease.shape.idle.pop(lease.id, None)
            lease.alone = task.suspect
        lease.tasks[task.id] = task
        lease.load += task.estimate
        task.lease = lease
        self.submission.push(task, lease.worker, lease.id, lease.known)

    def fill(self, lease: Lease) -> None:
        """Push queued tasks to a worker with room: at most its share, so that one worker does not
        take all.
        """
        shape = lease.shape
        queue = shape.queue
        if queue:
            share = len(queue) // shape.width() + 1
            while share and queue:
                task = queue[0]
                task.estimate = task.function.share  # (measured since it was queued, perhaps)
                if not self.has_room(lease, task):
                    break
                self.push(queue.popleft(), lease)
                share -= 1
        if not lease.tasks:
            self.settle(lease)
        elif queue:
            self.look_ahead(lease)

    def look_ahead(self, lease: Lease) -> None:
        """Tell the node of a busy worker what the next task will read: it may be fetched meanwhile.
        (Of short tasks several lie at the worker, which sees to it itself.)
        """
        shape = lease.shape
        for task in islice(shape.queue, len(shape.leases)):
            if task.deps and not task.announced and task.function.share >= PIPELINE_MICROS:
                task.announced = True
                wishes = self.submission.wishes(task)
                if wishes:
                    self.world.send(lease.node, FetchAhead(wishes))
                return

    def settle(self, lease: Lease) -> None:
        """An idle lease: give it back if it is wanted elsewhere, else hold it for a while."""
        if lease.shape.requests and not lease.shape.queue:
            self.cancel_requests(lease.shape)
        if lease.wanted or any(shape.requests for shape in self.shapes.values()):
            self.give_back(lease)
            return
        lease.idle_since = self.world.now()
        lease.shape.idle[lease.id] = lease
        if self.sweeper is None:
            self.sweeper = self.world.call_at(lease.idle_since + HOLD, self.sweep)

    def sweep(self) -> None:
        """Return leases that have been idle for the hold, and forget shapes without any use."""
        self.sweeper = None
        now = self.world.now()
        oldest = None
        for key, shape in list(self.shapes.items()):
            for lease in list(shape.idle.values()):
                if now - lease.idle_since >= HOLD:
                    self.give_back(lease)
                else:
                    oldest = min(oldest or lease.idle_since, lease.idle_since)
            if not (shape.leases or shape.requests or shape.queue):
                del self.shapes[key]
                self.recent = None
        if oldest is not None:
            self.sweeper = self.world.call_at(oldest + HOLD, self.sweep)

    def give_back(self, lease: Lease) -> None:
        """The worker is the node's again."""
        assert not lease.tasks
        self.forget(lease)
        self.world.send(lease.node, ReturnLease(lease.id))

    def forget(self, lease: Lease) -> None:
        """Drop the lease from every index."""
        lease.open = False
        self.leases.pop(lease.id, None)
        lease.shape.leases.pop(lease.id, None)
        lease.shape.idle.pop(lease.id, None)
        at_worker = self.by_worker.get(lease.worker.process)
        if at_worker is not None:
            at_worker.pop(lease.id, None)
            if not at_worker:
                del self.by_worker[lease.worker.process]

    # ------------------------------------------------------------------ requests

    def request_more(self, shape: Shape) -> None:
        """Ask for as many workers as there are queued tasks, up to REQUESTS at a time."""
        wanted = min(len(shape.queue), REQUESTS) - len(shape.requests)
        if wanted <= 0 or shape.asking_later:
            return
        for other in self.shapes.values():
            if other is not shape:
                for lease in list(other.idle.values()):
                    self.give_back(lease)  # or it would hold a CPU that we are asking for
        task = shape.queue[0]
        target = shape.target or self.node
        for _ in range(wanted):
            lease_id = LeaseId(self.world.new_id())
            shape.requests[lease_id] = target
            self.asked[lease_id] = shape
            self.world.send(target, self.request(lease_id, shape, task, hops=0))

    def request(self, lease: LeaseId, shape: Shape, task: Task | None, hops: int) -> RequestLease:
        """The message that asks for a lease of this shape."""
        return RequestLease(
            lease,
            self.world.address,
            self.job,
            shape.resources,
            task.depth if task else 0,
            hops,
            task.function.name if task else "",
            shape.placement,
            environment=shape.environment,
        )

    def cancel_requests(self, shape: Shape) -> None:
        """Nothing is queued any more: take back requests that were not granted yet."""
        for lease, node in shape.requests.items():
            del self.asked[lease]
            self.world.send(node, ReturnLease(lease))
        shape.requests.clear()

    # ------------------------------------------------------------------ events from nodes

    def on_granted(self, message: LeaseGranted, node: Address) -> None:
        """A worker is ours."""
        shape = self.asked.pop(message.lease, None)
        if shape is None:  # we took the request back, and the answer crossed our ReturnLease
            return
        del shape.requests[message.lease]
        shape.why = ""
        lease = Lease(message.lease, shape, node, message.worker, message.pid)
        process = message.worker.process
        lease.known = self.known.setdefault(process, set())
        self.leases[lease.id] = shape.leases[lease.id] = lease
        self.by_worker.setdefault(process, {})[lease.id] = lease
        self.fill(lease)
        if shape.queue:
            self.request_more(shape)

    def on_redirected(self, message: LeaseRedirected) -> None:
        """Ask the named node instead."""
        shape = self.asked.get(message.lease)
        if shape is None:
            return
        shape.requests[message.lease] = message.node
        task = shape.queue[0] if shape.queue else None
        self.world.send(message.node, self.request(message.lease, shape, task, message.hops))

    def on_refused(self, message: LeaseRefused) -> None:
        """No node can ever run tasks of this shape: they fail, with the node's reason."""
        shape = self.asked.pop(message.lease, None)
        if shape is None:
            return
        shape.requests.pop(message.lease, None)
        tasks, shape.queue = list(shape.queue), deque()
        self.cancel_requests(shape)
        for task in tasks:
            if message.removed:
                self.group_removed(task, message.removed)
            else:
                (self.unprepared if message.unprepared else self.unplaceable)(task, message.reason)

    def on_wanted(self, lease_id: LeaseId) -> None:
        """Others wait at that node: no more pushes; give the lease back when it is empty."""
        lease = self.leases.get(lease_id)
        if lease is not None and not lease.wanted:
            lease.wanted = True
            lease.open = False
            if not lease.tasks:
                self.give_back(lease)

    def on_queued(self, lease_id: LeaseId, reason: str) -> None:
        """A node says why a request of ours waits."""
        shape = self.asked.get(lease_id)
        if shape is not None:
            shape.why = reason

    # ------------------------------------------------------------------ events from workers

    def task_left(self, task: Task) -> None:
        """The task is no longer at its worker: finished or given back."""
        lease = task.lease
        if type(lease) is not Lease or lease.tasks.pop(task.id, None) is None:
            return
        lease.load -= task.estimate
        lease.slow = False
        if not lease.tasks:
            lease.load = 0.0
            lease.alone = False

    def refill(self, lease: Lease) -> None:
        """After results: push more, or let the lease rest."""
        if lease.open:
            self.fill(lease)
        elif lease.wanted and not (lease.tasks or lease.killed) and lease.id in self.leases:
            self.give_back(lease)
            if lease.shape.queue:
                self.request_more(lease.shape)

    def on_returned(self, message: TaskReturned, task: Task | None) -> None:
        """A worker is busy for long and gives back what it has not begun."""
        if task is None or task.attempt != message.attempt or task.state is not PUSHED:
            return
        lease = task.lease
        self.task_left(task)
        if isinstance(lease, Lease) and lease.tasks:
            lease.slow = True  # before the task looks for a place, or it would go straight back
        if task.cancelled:
            self.abandoned(task)
        else:
            task.attempt += 1
            self.submission.arguments_ready(task)  # (one may be lost)
        if isinstance(lease, Lease) and not lease.tasks:
            self.refill(lease)  # or nobody would ever use it or give it back

    # ------------------------------------------------------------------ deaths

    def on_ended(self, message: LeaseEnded) -> None:
        """The node's word on how a lease's worker died. Its stream may not have been drained
        yet.
        """
        lease = self.leases.get(message.lease)
        if lease is not None:
            lease.open = False
            lease.death = message.death
            lease.removed = message.removed
            lease.shape.idle.pop(lease.id, None)
            if lease.drained or not lease.tasks:
                self.bury(lease)
            else:
                self.await_other_sign(lease)

    def worker_drained(self, process: ProcessId) -> None:
        """A worker's stream has ended: nothing more will come from it."""
        self.known.pop(process, None)
        for lease in list(self.by_worker.get(process, {}).values()):
            lease.open = False
            lease.drained = True
            lease.shape.idle.pop(lease.id, None)
            if lease.death is not None:
                self.bury(lease)
            else:
                self.await_other_sign(lease)

    def await_other_sign(self, lease: Lease) -> None:
        """One of a death's two signs is in: give the other some time."""
        self.world.call_at(self.world.now() + REPORT_PATIENCE, lambda: self.stop_waiting(lease))

    def stop_waiting(self, lease: Lease) -> None:
        """Half of a death's two signs has not come in time."""
        if lease.id in self.leases:
            if lease.death is None:
                lease.death = Death(lease.pid, lease.node.node, detail="its node did not say how")
                self.world.send(lease.node, ReturnLease(lease.id))  # it may think that we have it
            self.bury(lease)

    def node_lost(self, node: NodeId, detail: str) -> None:
        """A node is gone: so are its workers, and our requests that wait there."""
        for shape in self.shapes.values():
            if shape.target is not None and shape.target.node == node:
                shape.target = None
        for lease_id, shape in list(self.asked.items()):
            if shape.requests[lease_id].node == node:  # asked anew, under a new id: what the dead
                del self.asked[lease_id], shape.requests[lease_id]  # still answers is for nobody
                shape.asking_later = True
        for lease in list(self.leases.values()):
            if lease.node.node == node and lease.death is None:
                lease.death = Death(lease.pid, node, detail=detail)
                self.bury(lease)
        for shape in self.shapes.values():
            if shape.asking_later:
                self.world.call_at(self.world.now() + ASK_AGAIN, partial(self.ask_again, shape))
            elif shape.queue:
                self.request_more(shape)

    def ask_again(self, shape: Shape) -> None:
        """Some time has gone by since a node died with requests of ours."""
        shape.asking_later = False
        if shape.queue:
            self.request_more(shape)

    def bury(self, lease: Lease) -> None:
        """Settle the tasks of a dead worker: blame, retry, or fail."""
        self.forget(lease)
        tasks = list(lease.tasks.values())
        lease.tasks.clear()
        assert lease.death is not None
        if lease.removed:
            for task in tasks:
                self.group_removed(task, lease.removed)
        elif len(tasks) == 1 and not lease.killed:
            self.worker_died(tasks[0], lease.death)
        else:
            for task in reversed(tasks):  # each goes to the front of the queue: keep their order
                if task.ending:
                    self.worker_died(task, lease.death)
                else:
                    task.suspect = task.suspect or not lease.killed
                    self.submission.retry(task)
        if lease.shape.queue:
            self.request_more(lease.shape)
