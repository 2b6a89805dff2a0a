"""Workers: the processes of one node that run tasks.

starting -> idle <-> leased -> gone. A worker is forked from the zygote without a job; the first
lease binds it to the job of the owner, whose modules it will import, and to the runtime environment
that the lease is for; it is never given to another. What an environment needs before a process
begins is in its zygote: a worker comes from that of the node or from another, and serves only what
that zygote is for. The pool keeps as many idle workers as the node has CPUs; the rest are asked to
stop after a while (they decline if they still own values).

A lease with GPUs, or without any, binds its worker to just these as well: libraries look once
which GPUs there are, and keep memory there. An idle worker is asked to leave when its GPUs are
granted to another.

A worker whose lease ends because its owner has died may still run that owner's task. It *vacates*:
it ends the task, says so, and is free; one that does not within ``VACATE_SECONDS`` is killed. (To
kill it at once would also end what it owns, for others.) A worker that has run as many tasks as it
may *retires*: it takes no further lease and is asked to stop.

A grant that finds no idle worker waits here for one to start. If workers die before they
register, again and again, the waiting grants are told so with the last words of the dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from freehold.core.world import World
from freehold.ids import JobId, LeaseId, ProcessId
from freehold.wire.messages import Address, Death, Stop, Vacate

#: Seconds after which an idle worker beyond the node's CPUs is asked to stop.
IDLE_SECONDS: Final = 10.0
#: Seconds without a lease for a worker that was asked to stop: it has exited or declined by then.
STOP_SECONDS: Final = 1.0
#: Seconds in which a worker must have ended a dead owner's task: an interruption takes
#: milliseconds unless native code holds the interpreter.
VACATE_SECONDS: Final = 1.0
#: Workers that die in a row before registering until waiting leases are refused.
FAILED_STARTS: Final = 3


class Starter(Protocol):
    """What the pool needs done."""

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        """Fork a worker from a zygote, b"" being the node's own. It will register under this start
        number, or its end will be reported.
        """

    def kill_worker(self, start: int) -> None:
        """SIGKILL it; its end is reported as any other."""


class Wanted(NamedTuple):
    """What a worker has to be bound to, and from which zygote it has to come if it is not yet."""

    job: JobId
    environment: bytes = b""
    zygote: bytes = b""
    gpus: tuple[int, ...] = ()


class Worker:
    """One worker process. ``address`` is None until it has registered, ``job`` until it is bound
    to one, and with it to an environment.
    """

    __slots__ = (
        "address",
        "environment",
        "gpus",
        "idle_since",
        "job",
        "lease",
        "pid",
        "retired",
        "start",
        "stop_asked",
        "vacating",
        "zygote",
    )

    def __init__(self, start: int, zygote: bytes = b"") -> None:
        self.start = start
        self.zygote = zygote
        self.environment = b""
        self.gpus: tuple[int, ...] = ()
        self.pid = 0
        self.address: Address | None = None
        self.job: JobId | None = None
        self.lease: LeaseId | None = None
        self.idle_since = 0.0
        self.vacating: ProcessId | None = None  # the dead owner whose task it may still run
        self.retired = False
        self.stop_asked = float("-inf")  # when it was last asked to stop, which it may decline


class Workers:
    """The pool of one node."""

    def __init__(self, world: World, starter: Starter, keep: int) -> None:
        self.world = world
        self.starter = starter
        self.keep = keep
        self.starts = 0
        self.all: dict[int, Worker] = {}
        self.by_process: dict[ProcessId, Worker] = {}
        self.idle: dict[int, Worker] = {}
        self.wanting: dict[LeaseId, Wanted] = {}
        self.failures = 0
        self.given: Callable[[LeaseId, Worker], None]  # the role's: a waiting grant has its worker
        self.refused: Callable[[LeaseId, Death], None]  # the role's: workers cannot be started

    def prestart(self, count: int, zygote: bytes = b"") -> None:
        """Have ``count`` workers ready before anyone asks."""
        for _ in range(count):
            self.start(zygote)

    def start(self, zygote: bytes) -> None:
        """One more worker."""
        self.starts += 1
        self.all[self.starts] = Worker(self.starts, zygote)
        self.starter.start_worker(self.starts, zygote)

    def want(
        self,
        lease: LeaseId,
        job: JobId,
        environment: bytes = b"",
        zygote: bytes = b"",
        gpus: tuple[int, ...] = (),
    ) -> None:
        """A grant needs a worker of this job and environment: an idle one now, or the next that is
        free.
        """
        wanted = Wanted(job, environment, zygote, gpus)
        if gpus:
            self.clear(wanted)
        worker = self.pick(wanted)
        if worker is not None:
            self.bind(worker, lease, wanted)
            return
        self.wanting[lease] = wanted
        self.start_missing(zygote)

    def start_missing(self, zygote: bytes) -> None:
        """One more worker of a zygote, if more wait for one than are starting."""
        starting = sum(1 for w in self.all.values() if w.address is None and w.zygote == zygote)
        if starting < sum(1 for wanted in self.wanting.values() if wanted.zygote == zygote):
            self.start(zygote)

    def pick(self, wanted: Wanted) -> Worker | None:
        """An idle worker of the job and environment, the last used first (its caches are warm),
        else one that is not bound yet.
        """
        fresh = None
        now = self.world.now()
        for worker in reversed(self.idle.values()):
            if worker.retired or now - worker.stop_asked < STOP_SECONDS:
                continue  # it would take a task with it and the task would be blamed
            if worker.job is None:
                if worker.zygote == wanted.zygote:
                    fresh = worker
            elif self.serves(worker, wanted):
                return worker
        return fresh

    def serves(self, worker: Worker, wanted: Wanted) -> bool:
        """Whether the worker is bound to what is wanted, or can be."""
        if worker.job is None:
            return worker.zygote == wanted.zygote
        bound = (worker.job, worker.environment, worker.gpus)
        return bound == (wanted.job, wanted.environment, wanted.gpus)

    def clear(self, wanted: Wanted) -> None:
        """Have those idle workers leave that were bound to the same GPUs for something else: they
        may keep memory of theirs. What they own is handed over.
        """
        for worker in list(self.idle.values()):
            if not set(wanted.gpus).isdisjoint(worker.gpus) and not self.serves(worker, wanted):
                worker.retired = True
                self.ask_to_stop(worker)

    def bind(self, worker: Worker, lease: LeaseId, wanted: Wanted) -> None:
        """The worker belongs to the lease from now on."""
        self.idle.pop(worker.start, None)
        worker.lease = lease
        worker.job = wanted.job
        worker.environment = wanted.environment
        worker.gpus = wanted.gpus
        self.given(lease, worker)

    def registered(self, start: int, pid: int, address: Address) -> bool:
        """A worker is up. False if nobody knows of it."""
        worker = self.all.get(start)
        if worker is None or worker.address is not None:
            return False
        self.failures = 0
        worker.pid = pid
        worker.address = address
        self.by_process[address.process] = worker
        self.rest(worker)
        return True

    def rest(self, worker: Worker) -> None:
        """The worker is free: serve a waiting grant, or idle."""
        worker.lease = None
        if worker.retired:
            self.idle[worker.start] = worker
            self.ask_to_stop(worker)
            return
        for lease, wanted in self.wanting.items():
            if self.serves(worker, wanted):
                del self.wanting[lease]
                self.bind(worker, lease, wanted)
                return
        worker.idle_since = self.world.now()
        self.idle[worker.start] = worker
        if len(self.idle) > self.keep:
            self.world.call_at(worker.idle_since + IDLE_SECONDS, self.trim)

    def trim(self) -> None:
        """Ask idle workers beyond the keep to stop, longest idle first."""
        now = self.world.now()
        spare = len(self.idle) - self.keep
        for worker in list(self.idle.values())[: max(spare, 0)]:
            since = max(worker.idle_since, worker.stop_asked)
            if now - since >= IDLE_SECONDS:
                self.ask_to_stop(worker)

    def ask_to_stop(self, worker: Worker) -> None:
        """It may decline: then it is asked again."""
        if worker.address is not None and worker.start in self.idle:
            now = self.world.now()
            worker.stop_asked = now
            self.world.send(worker.address, Stop(hand_over=worker.retired))
            if worker.retired:
                self.world.call_at(now + STOP_SECONDS, lambda: self.ask_to_stop(worker))
            else:
                self.world.call_at(now + IDLE_SECONDS, self.trim)

    def vacate(self, worker: Worker, owner: ProcessId) -> None:
        """The worker's lease has ended with its owner: it is free when it runs nothing of it."""
        assert worker.address is not None
        worker.lease = None
        worker.vacating = owner
        self.world.send(worker.address, Vacate(owner))

        def give_up() -> None:
            if worker.vacating == owner and worker.start in self.all:
                self.starter.kill_worker(worker.start)

        self.world.call_at(self.world.now() + VACATE_SECONDS, give_up)

    def vacated(self, process: ProcessId, owner: ProcessId) -> Worker | None:
        """It runs nothing of that owner any more. Returns it if it is free now."""
        worker = self.by_process.get(process)
        if worker is None or worker.vacating != owner:
            return None
        worker.vacating = None
        return worker

    def retire_all(self) -> None:
        """Ask every idle worker to stop: the node is drained. One that cannot leave yet declines,
        and is asked again by the next call.
        """
        now = self.world.now()
        for worker in self.idle.values():
            if worker.address is not None and now - worker.stop_asked >= STOP_SECONDS:
                worker.stop_asked = now
                self.world.send(worker.address, Stop(hand_over=True))

    def retire(self, process: ProcessId) -> Worker | None:
        """A worker takes no further lease. Returns it if it has one, which must be returned."""
        worker = self.by_process.get(process)
        if worker is None or worker.retired:
            return None
        worker.retired = True
        self.ask_to_stop(worker)
        return worker if worker.lease is not None else None

    def unwant(self, lease: LeaseId) -> None:
        """The grant is no longer wanted."""
        self.wanting.pop(lease, None)

    def ended(self, start: int, death: Death) -> Worker | None:
        """The process is gone. Returns what it was."""
        worker = self.all.pop(start, None)
        if worker is None:
            return None
        self.idle.pop(start, None)
        if worker.address is not None:
            self.by_process.pop(worker.address.process, None)
        else:
            self.failures += 1
            if self.failures >= FAILED_STARTS:
                self.failures = 0
                coming = sum(each.address is None for each in self.all.values())
                for lease in list(self.wanting)[coming:]:  # (the others may have better luck)
                    del self.wanting[lease]
                    self.refused(lease, death)
        self.start_missing(worker.zygote)
        return worker

    def end_job(self, job: JobId) -> None:
        """The job is over: its workers die, and none is bound to it any more."""
        self.wanting = {lease: w for lease, w in self.wanting.items() if w.job != job}
        for worker in list(self.all.values()):
            if worker.job == job:
                self.starter.kill_worker(worker.start)
                self.idle.pop(worker.start, None)
