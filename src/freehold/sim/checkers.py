"""The promises, seen from above: every core, every wire and every store at once.

Each check names its promise; PROMISES.md says each in a sentence. Some look at one event, some at
the tables of the process that just ran, the dearest at the end of a run only. Whether an error had
a cause is judged in ``causes``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from freehold.core.entries import Entry
from freehold.core.execution import Run
from freehold.core.submission import Task
from freehold.ids import NodeId, ObjectId, ProcessId, TaskId
from freehold.resources import UNIT
from freehold.roles.executor import Executor
from freehold.sim.acts import Acts
from freehold.sim.bodies import Read
from freehold.sim.bundling import Bundling
from freehold.sim.cancels import Cancels
from freehold.sim.causes import Causes
from freehold.sim.errors import Failure
from freehold.sim.flows import Flows
from freehold.sim.generate import LONG
from freehold.sim.ops import Call, Make
from freehold.sim.oracle import same_value
from freehold.sim.registry import Registry
from freehold.sim.world import MICRO, Violation
from freehold.wire.messages import (
    Address,
    CloseStream,
    Joined,
    KillLease,
    Message,
    NodeChanged,
    PushTask,
    Reference,
    TaskDone,
    TaskReturned,
)

if TYPE_CHECKING:
    from freehold.sim.acting import Blob, Handle
    from freehold.sim.cluster import Cluster
    from freehold.sim.head import HeadProcess
    from freehold.sim.node import NodeProcess
    from freehold.sim.process import Process
    from freehold.sim.user import UserProcess
    from freehold.sim.worker import WorkerProcess


class Watch:
    """Everything that is checked while a run goes on."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.causes = Causes(cluster)
        self.acts = Acts(cluster)
        self.flows = Flows(cluster)
        self.bundling = Bundling(cluster)
        self.cancels = Cancels(cluster)
        self.registry = Registry(cluster)
        self.runs: Counter[TaskId] = Counter()
        self.answers: Counter[tuple[ProcessId, TaskId, int, ProcessId]] = Counter()
        self.pushed: dict[tuple[ProcessId, TaskId, int], ProcessId] = {}
        self.outcomes: Counter[str] = Counter()
        self.buried: dict[ProcessId, set[NodeId]] = {}  # whom each process knows to be dead
        self.stale: list[tuple[Process, Task]] = []
        self.deadly: Counter[type[Message]] = Counter()  # what workers die of just after it is sent

    # ------------------------------------------------------------------ messages

    def on_send(self, process: Process, to: Address, message: Message) -> None:
        """A message was queued."""
        kind = type(message)
        if self.deadly[kind] and process.kind == "worker":
            self.deadly[kind] -= 1
            self.world.mark(f"a worker dies of {kind.__name__}")
            delay = int(MICRO * 10 ** (3 * self.world.stream("faults").random()))
            self.world.after(delay, lambda: process.die(f"killed after {kind.__name__}"))
        if kind is PushTask:
            self.check_push(process, to, message)  # type: ignore[arg-type]
        elif kind is KillLease:
            self.cancels.on_kill(process, message)  # type: ignore[arg-type]
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
        self.causes.pushed_to.setdefault(message.name, []).append(to.process)
        task = process.role.submission.tasks.get(message.task)  # type: ignore[attr-defined]
        if task is not None and task.cancelled:
            raise Violation(
                "cancel", f"{process.name} pushes {self.cluster.show(message)} after its cancel"
            )

    def on_receive(self, process: Process, peer: Address, message: Message) -> None:
        """A message is about to be handled. Note answers of attempts that are over."""
        self.check_silence(process, peer, message)
        if type(message) is CloseStream:
            self.flows.on_receive(process, message)
        if type(message) is TaskDone:
            task = process.role.submission.tasks.get(message.task)  # type: ignore[attr-defined]
            if task is not None and task.attempt != message.attempt:
                self.world.mark("stale answer")
                self.stale.append((process, task))

    def check_silence(self, process: Process, peer: Address, message: Message) -> None:
        """Who has been told that a node is dead hears no more of it."""
        if process.kind == "head":
            return  # it has to answer
        told = self.buried.setdefault(process.address.process, set())
        if peer.node in told:
            raise Violation(
                "the dead are silent",
                f"{process.name} hears {self.cluster.show(message)} from "
                f"{process.call(peer)}, whose node was declared dead",
            )
        if isinstance(message, NodeChanged) and not message.info.alive:
            told.add(message.info.address.node)
        elif isinstance(message, Joined):
            told.update(info.address.node for info in message.gone)

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
        self.causes.begun[call.path] += 1
        self.causes.begun_in.add((worker.address.process, call.path))
        self.acts.on_begin(worker, run)
        self.bundling.on_begin(worker, run)
        op = self.cluster.lenient[call.driver].calls[call.path]
        if isinstance(op, Make) or op.retries < 0:
            return count
        # (calls share no worker with others)
        spare = run.message.actor is None and op.retries > 0
        if count > op.retries + 1 + spare:
            raise Violation(
                "attempts", f"{call.path} has begun {count} times with {op.retries} retries"
            )
        return count

    def on_worker_death(self, worker: WorkerProcess, how: str) -> None:
        """A worker process is gone."""
        if how != "asked to stop":
            self.causes.deaths.append(worker.name)
        elif worker.host is not None:
            entries = worker.role.ownership.entries.values()
            if any(entry.owner is None for entry in entries):
                self.causes.estates.add(worker.address.process)
                self.world.mark("an actor ends that owns something")
        self.world.mark(f"worker dies: {how}")

    # ------------------------------------------------------------------ values

    def value_read(self, process: UserProcess, here: str, object_id: ObjectId, read: Read) -> None:
        """User code has a value in hand: is it the one?"""
        self.outcomes["value"] += 1
        driver, name = self.cluster.names[object_id]
        expected = self.cluster.lenient[driver].names.get(name)
        if expected is None:
            raise Violation("right value", f"{name} is no value, and {process.name} has read one")
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
            found = any(error is not None and failure.kind in error.kinds for error in expected)
            if not found and not self.causes.went_with_an_actor(failure):
                raise Violation("right error", f"{process.name} at {here}: {failure}")
            return
        if process.address.node in self.cluster.declared:
            return  # nobody hears it any more, and it hears nobody
        gone = {driver.number for driver in self.cluster.drivers if not driver.alive}
        if gone.intersection(driver for driver, _ in names):
            return  # a task of a job that is over: what it reads has been freed, it will be killed
        reason = self.causes.missing(failure)
        if reason:
            raise Violation(
                "right error", f"{process.name} at {here}, one of {names}: {failure}: {reason}"
            )

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
        if {owner.address.node, process.address.node} & self.cluster.declared:
            return  # one of them is dead to the other, or soon will be
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

    def watch_losses(self, process: UserProcess) -> None:
        """Have a look at every copy that this owner hears is gone: also a value that is made again
        was lost, and a drain may not lose any.
        """
        inner = process.role.copy_gone

        def copy_gone(object_id: ObjectId, node: NodeId, reason: str, **rest: bool) -> None:
            entry = process.role.ownership.entries.get(object_id)
            if entry is not None and entry.owner is None and self.nothing_lost(process):
                value = entry.value
                if value is not None and [place.node for place in value.nodes] == [node]:
                    name = self.cluster.name_object(object_id)
                    raise Violation("a drain loses nothing", f"{process.name}, {name}: {reason}")
            inner(object_id, node, reason, **rest)

        process.role.copy_gone = copy_gone  # type: ignore[method-assign]

    def nothing_lost(self, process: UserProcess) -> bool:
        """Whether all that this process owns and has stored must be there."""
        if any(driver.job == process.job for driver in self.cluster.drivers if not driver.alive):
            return False  # its job is over, and what that had stored goes
        cut_off = process.address.node in self.cluster.declared
        return not (self.causes.losing() or "fail pull" in self.cluster.struck or cut_off)

    def check_free(self, owner: UserProcess, entry: Entry) -> None:
        """No premature free: no live process may be able to name it, now or later."""
        self.world.mark("free")
        for other in self.cluster.users():
            if other is owner or not other.alive:
                continue
            held = other.role.ownership.entries.get(entry.object)
            if held is None or other.address.process in owner.lost:
                continue
            if {owner.address.node, other.address.node} & self.cluster.declared:
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
        if process.kind == "head":
            self.check_head(process)  # type: ignore[arg-type]
        if process.kind == "node" and process.alive:
            self.check_node(process)  # type: ignore[arg-type]

    def check_head(self, head: HeadProcess) -> None:
        """Who lives, and is neither cut off nor stopped for longer than the head's patience, is
        never declared dead; who was, never lives again."""
        members = head.role.membership
        for node in members.gone.keys() - self.cluster.declared:
            self.cluster.declared.add(node)
            self.world.mark("declared dead")
            process = self.cluster.nodes[ProcessId(bytes(node))]
            left = process.role.draining.leaving
            silenced = {*LONG, "slow node"} & self.cluster.struck  # (a slow one's words take long)
            if process.alive and not left and not silenced:
                raise Violation(
                    "the living are heard", f"{process.name} {members.gone[node].reason}"
                )
        self.bundling.check_head(head)

    def check_whole(self) -> None:
        """The head knows the nodes that are up, and they know each other, and nobody else."""
        head = self.cluster.head
        if not head.alive:
            raise Violation("whole again", "the head is not back")
        live = {node.address.node for node in self.cluster.live_nodes()}
        known = head.role.membership.members
        if set(known) != live or not all(member.present for member in known.values()):
            names = [self.cluster.name_of(ProcessId(bytes(node))) for node in known]
            raise Violation("whole again", f"the head knows {sorted(names)}")
        for node in self.cluster.live_nodes():
            if node.role.scheduling.peers.keys() != live - {node.address.node}:
                raise Violation(
                    "whole again", f"{node.name} knows {len(node.role.scheduling.peers)} others"
                )

    def check_node(self, node: NodeProcess) -> None:
        """Resources and store of one node add up."""
        scheduling = node.role.scheduling
        held: Counter[str] = Counter()
        bound: Counter[int] = Counter()
        for granted in scheduling.granted.values():
            if granted.bundle is None:
                held.update(granted.held())
            if granted.worker is not None:
                bound[granted.worker.start] += 1
        if self.bundling.makers:
            for aside in scheduling.bundles.held.values():
                for bundle in aside.values():
                    held.update(bundle.amounts)
            self.bundling.check_node(node)
        for name, total in scheduling.total.items():
            if scheduling.free.get(name, 0) + held[name] != total:
                raise Violation(
                    "resources", f"{node.name}: {name} free + held is not {total / UNIT:g}"
                )
        began = node.role.draining.began if node.role.draining.on else float("inf")
        if any(granted.since > began for granted in scheduling.granted.values()):
            raise Violation("a drained node grants nothing", node.name)
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

    def check_kept(self) -> None:
        """What tasks left in globals is still there, and its owner still counts who keeps it."""
        for process in self.cluster.users():
            for handle in process.kept.values() if process.alive else ():
                self.on_name(process, handle.ref)

    def check_quiet(self) -> None:
        """No leak: every main program is over and has dropped all; nothing should be left, unless
        tasks keep it in globals until their job ends."""
        self.check_whole()
        self.bundling.check_head_quiet()
        self.registry.check_quiet()
        if any(process.alive and process.kept for process in self.cluster.users()):
            self.world.mark("kept until the job's end")
            return
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
        if isinstance(process.role, Executor):
            counts["runs"] = len(process.role.execution.runs)
            counts["streams"] = len(process.role.yielding.streams)
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
            "needs": role.objects.waiting(),
            "granted": len(role.scheduling.granted),
            "queued": len(role.scheduling.queue),
            "wanting": len(role.workers.wanting),
            "bytes": node.room.used,
            "slots": len(node.disk),
            "copies under way": len(node.relaying.sendings) + len(node.arrivals),
            "spilled bytes": role.objects.spilling.bytes,
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
        self.bundling.check_quiet(node)

    def check_gone(self) -> None:
        """Every driver has left: their jobs are over everywhere."""
        if self.cluster.head.role.membership.jobs:
            raise Violation("job ends", "the head knows a job")
        self.bundling.check_gone()
        for node in self.cluster.live_nodes():
            self.check_node_quiet(node)
            bound = [w.start for w in node.role.workers.all.values() if w.job is not None]
            if node.role.jobs or bound:
                raise Violation(
                    "job ends", f"{node.name} has jobs {len(node.role.jobs)}, workers {bound}"
                )
