"""The promises, seen from above: every core, every wire and every store at once.

Each check names its promise. Some look at one event, some at the tables of the process that just
ran, the dearest at the end of a run only. A promise is checked for what the code promises today:
a value may be lost with its node, a borrower's hand-off may hang when the giver dies in the middle
(docs/simulator.md, "Not promised yet")."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from freehold.core.execution import Run
from freehold.core.ownership import Entry
from freehold.core.submission import Task
from freehold.ids import ObjectId, ProcessId, TaskId
from freehold.resources import UNIT
from freehold.sim.errors import Failure
from freehold.sim.oracle import same_value
from freehold.sim.programs import Call, Read
from freehold.sim.world import Violation
from freehold.wire.messages import (
    Address,
    Message,
    PushTask,
    Reference,
    TaskDone,
    TaskReturned,
)

if TYPE_CHECKING:
    from freehold.sim.cluster import Cluster
    from freehold.sim.node import NodeProcess
    from freehold.sim.process import Process
    from freehold.sim.user import Blob, Handle, UserProcess
    from freehold.sim.worker import WorkerProcess


class Watch:
    """Everything that is checked while a run goes on."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.runs: Counter[TaskId] = Counter()
        self.answers: Counter[tuple[ProcessId, TaskId, int, ProcessId]] = Counter()
        self.pushed: dict[tuple[ProcessId, TaskId, int], ProcessId] = {}
        self.outcomes: Counter[str] = Counter()
        self.deaths: list[str] = []
        self.stale: list[tuple[Process, Task]] = []

    # ------------------------------------------------------------------ messages

    def on_send(self, process: Process, to: Address, message: Message) -> None:
        """A message was queued."""
        kind = type(message)
        if kind is PushTask:
            self.check_push(process, to, message)  # type: ignore[arg-type]
        elif kind is TaskDone or kind is TaskReturned:
            assert isinstance(message, TaskDone | TaskReturned)
            key = (process.address.process, message.task, message.attempt, to.process)
            self.answers[key] += 1
            if self.answers[key] > 1:
                raise Violation(
                    "one answer", f"{process.name} answers {self.cluster.show(message)} again"
                )

    def check_push(self, process: Process, to: Address, message: PushTask) -> None:
        """An attempt goes to one worker, and never after its task was cancelled."""
        key = (process.address.process, message.task, message.attempt)
        if key in self.pushed:
            raise Violation(
                "one push", f"{process.name} pushes {self.cluster.show(message)} a second time"
            )
        self.pushed[key] = to.process
        task = process.role.submission.tasks.get(message.task)  # type: ignore[attr-defined]
        if task is not None and task.cancelled:
            raise Violation(
                "cancel", f"{process.name} pushes {self.cluster.show(message)} after its cancel"
            )

    def on_receive(self, process: Process, peer: Address, message: Message) -> None:
        """A message is about to be handled. Note answers of attempts that are over."""
        if type(message) is TaskDone:
            task = process.role.submission.tasks.get(message.task)  # type: ignore[attr-defined]
            if task is not None and task.attempt != message.attempt:
                self.world.mark("stale answer")
                self.stale.append((process, task))

    # ------------------------------------------------------------------ tasks

    def on_submit(self, process: UserProcess, task: Task, op: Call, here: str) -> None:
        """User code calls a function."""
        self.world.mark("submit")

    def on_begin(self, worker: WorkerProcess, run: Run, call: Blob) -> int:
        """User code of a task begins. Returns how often it has begun by now.

        Counted by the task's id: a parent that is run again submits other tasks.
        """
        self.world.mark("task begins")
        self.runs[run.message.task] += 1
        count = self.runs[run.message.task]
        op = self.cluster.lenient[call.driver].calls[call.path]
        most = 1 if op.retries == 0 else op.retries + 2
        if count > most:
            raise Violation(
                "attempts", f"{call.path} has begun {count} times with {op.retries} retries"
            )
        return count

    def on_worker_death(self, worker: WorkerProcess, how: str) -> None:
        """A worker process is gone."""
        self.deaths.append(worker.name)
        self.world.mark(f"worker dies: {how}")

    # ------------------------------------------------------------------ values

    def value_read(self, process: UserProcess, here: str, object_id: ObjectId, read: Read) -> None:
        """User code has a value in hand: is it the one?"""
        self.outcomes["value"] += 1
        driver, name = self.cluster.names[object_id]
        expected = self.cluster.lenient[driver].names[name]
        inner = [self.cluster.names[handle.ref.object][1] for handle in read.inner]
        if not same_value(expected, read.content, inner):
            raise Violation(
                "right value", f"{process.name} read {name} at {here} and saw {read.content!r}"
            )
        if self.cluster.case.exact and self.cluster.strict[driver].names[name].failure:
            raise Violation("right value", f"{name} should have failed, {here} read a value")

    def read_again(
        self, process: UserProcess, object_id: ObjectId, offset: int, size: int, content: bytes
    ) -> None:
        """A view is about to go: does it still show what it showed?"""
        if process.node.arena.read(offset, size) != content:
            name = self.cluster.names[object_id][1]
            raise Violation("bytes", f"{name} changed under a reader in {process.name}")

    def get_failed(
        self, process: UserProcess, here: str, handles: list[Handle], failure: Failure
    ) -> None:
        """A get has raised: was there cause?"""
        self.outcomes[failure.kind] += 1
        if failure.kind == "timeout":
            return
        names = [self.cluster.names[handle.ref.object] for handle in handles]
        if self.cluster.case.exact:
            expected = [self.cluster.strict[driver].names[name].failure for driver, name in names]
            # (of several errors any may be met first, also on the way here)
            if not any(found is not None and found.kind == failure.kind for found in expected):
                raise Violation("right error", f"{process.name} at {here}: {failure}")
            return
        gone = {driver.number for driver in self.cluster.drivers if not driver.alive}
        if gone.intersection(driver for driver, _ in names):
            return  # a task of a job that is over: what it reads has been freed, it will be killed
        reason = self.no_cause(failure)
        if reason:
            raise Violation(
                "right error", f"{process.name} at {here}, one of {names}: {failure}: {reason}"
            )

    def no_cause(self, failure: Failure) -> str:
        """Why the error cannot be, or nothing."""
        case, cluster = self.cluster.case, self.cluster
        struck = cluster.struck
        match failure.kind:
            case "freed":
                return "a value that could be named was freed"
            case "lost":
                if not {"kill node", "disk unreadable", "disk full"} & struck:
                    return "no node died and no disk failed"
            case "owner_died" | "handover_lost":
                blamed = cluster.processes[ProcessId(bytes.fromhex(failure.about))]
                if blamed.alive:
                    return f"{blamed.name} is alive"
            case "worker_died":
                if not self.deaths:
                    return "no worker died"
            case "store_full":
                if not case.tight:
                    return "the stores are large"
            case "unschedulable":
                # (a node that has not heard of the others within the grace refuses)
                chance = {"kill node", "fail start", "partition", "stop node"} & struck
                if not chance and case.feasible:
                    return "there was a node for it"
        return ""

    def waited(self, needed: int, ready: int, done: bool) -> None:
        """A wait has ended."""
        if done and ready < needed:
            raise Violation("wait", f"done with {ready} of {needed}")

    # ------------------------------------------------------------------ references

    def on_name(self, process: UserProcess, ref: Reference) -> None:
        """Count before name: user code is given a reference that its owner has counted."""
        owner = self.cluster.processes[ref.owner.process]
        if owner is process or not owner.alive or process.address.process in owner.lost:
            return
        entry = owner.role.ownership.entries.get(ref.object)  # type: ignore[attr-defined]
        if entry is None or not (entry.holders or {}).get(process.address.process):
            name = self.cluster.name_object(ref.object)
            raise Violation(
                "count before name", f"{process.name} may name {name}, {owner.name} has not counted"
            )

    def watch_frees(self, process: UserProcess) -> None:
        """Have every free of this owner looked at."""
        inner = process.role.ownership.on_free

        def freed(entry: Entry) -> None:
            if entry.owner is None:
                self.check_free(process, entry)
            inner(entry)

        process.role.ownership.on_free = freed

    def check_free(self, owner: UserProcess, entry: Entry) -> None:
        """No premature free: no live process may be able to name it, now or later."""
        self.world.mark("free")
        for other in self.cluster.users():
            if other is owner or not other.alive:
                continue
            held = other.role.ownership.entries.get(entry.object)
            if held is None or other.address.process in owner.lost:
                continue
            if held.handles or not any(count < 0 for count in (held.owed or {}).values()):
                name = self.cluster.names.get(entry.object, (0, entry.object.hex()))[1]
                raise Violation(
                    "no premature free",
                    f"{owner.name} frees {name} while {other.name} holds it "
                    f"({held.handles} handles, {held.pins} pins, owed {held.owed})",
                )

    # ------------------------------------------------------------------ tables

    def after(self, process: Process) -> None:
        """A turn has ended: look at the tables it may have changed."""
        while self.stale:
            owner, task = self.stale.pop()
            tasks = owner.role.submission.tasks  # type: ignore[attr-defined]
            if owner.alive and task.id not in tasks:
                raise Violation("one attempt", f"{owner.name} took a stale answer for {task.name}")
        if process.kind == "node" and process.alive:
            self.check_node(process)  # type: ignore[arg-type]

    def check_node(self, node: NodeProcess) -> None:
        """Resources and store of one node add up."""
        scheduling = node.role.scheduling
        held: Counter[str] = Counter()
        bound: Counter[int] = Counter()
        for granted in scheduling.granted.values():
            held.update(granted.held())
            if granted.worker is not None:
                bound[granted.worker.start] += 1
        for name, total in scheduling.total.items():
            if scheduling.free.get(name, 0) + held[name] != total:
                raise Violation(
                    "resources", f"{node.name}: {name} free + held is not {total / UNIT:g}"
                )
        if any(count > 1 for count in bound.values()):
            raise Violation("one lease", f"{node.name}: a worker is leased twice")
        objects = node.role.objects
        used = sum(
            max(64, -(-stored.size // 64) * 64)
            for stored in objects.table.values()
            if stored.offset >= 0
        )
        if used != node.room.used:
            raise Violation(
                "store", f"{node.name}: {node.room.used} bytes in use, the table has {used}"
            )

    # ------------------------------------------------------------------ the end

    def check_quiet(self) -> None:
        """No leak: every main program is over and has dropped all; nothing should be left."""
        for process in self.cluster.users():
            if process.alive:
                self.check_user_quiet(process)
        for node in self.cluster.live_nodes():
            self.check_node_quiet(node)

    def check_user_quiet(self, process: UserProcess) -> None:
        """The tables of one owner are empty."""
        counts: dict[str, int] = process.role.counts()
        counts["asked"] = len(process.role.leasing.asked)
        counts["gates"] = len(process.role.ownership.gates)
        counts["creating"] = len(process.role.creating.pending)
        runs = getattr(process.role, "execution", None)
        counts["runs"] = len(runs.runs) if runs is not None else 0
        left = {name: count for name, count in counts.items() if count}
        if left:
            entries = [
                f"{self.cluster.name_object(entry.object)}: {entry.handles} handles, "
                f"{entry.pins} pins, holders "
                f"{[self.cluster.name_of(holder) for holder in entry.holders or ()]}, "
                f"owed {entry.owed}"
                for entry in process.role.ownership.entries.values()
            ]
            raise Violation("no leak", f"{process.name} is left with {left} {entries[:4]}")

    def check_node_quiet(self, node: NodeProcess) -> None:
        """The tables, arena and disk of one node are empty."""
        role = node.role
        left = {
            "objects": len(role.objects.table),
            "needs": len(role.objects.needs),
            "granted": len(role.scheduling.granted),
            "queued": len(role.scheduling.queue),
            "wanting": len(role.workers.wanting),
            "bytes": node.room.used,
            "slots": len(node.disk),
            "spilled bytes": role.objects.spilled_bytes,
        }
        found = {name: count for name, count in left.items() if count}
        if found:
            objects = [
                f"{self.cluster.name_object(stored.id)} {stored.state} primary={stored.primary} "
                f"pins={[self.cluster.name_of(pin) for pin in stored.pins]} dying={stored.dying}"
                for stored in role.objects.table.values()
            ]
            raise Violation("no leak", f"{node.name} is left with {found} {objects[:4]}")
        idle = set(role.workers.idle)
        stray = [start for start in role.workers.all if start not in idle]
        if stray:
            raise Violation("no leak", f"{node.name}: workers {stray} are neither idle nor leased")

    def check_gone(self) -> None:
        """Every driver has left: their jobs are over everywhere."""
        for node in self.cluster.live_nodes():
            self.check_node_quiet(node)
            bound = [w.start for w in node.role.workers.all.values() if w.job is not None]
            if node.role.jobs or bound:
                raise Violation(
                    "job ends", f"{node.name} has jobs {len(node.role.jobs)}, workers {bound}"
                )
