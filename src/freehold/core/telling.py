"""Telling, the part of drivers and workers: what this process knows of an object, a task, a lease
or a run, in a clause of a sentence, and whom to ask for the rest (``wire.inquiry``).

Pure questions over the tables of the other machines: nothing here changes anything, so a waiting
``get`` is not disturbed by being explained. Whoever is asked also tells what its answer leads to
in this same process (``survey``), which saves the asker a round trip for each step.

What stands where: the owner of an object knows its task; a task waits for its arguments, is queued
(its node knows why), or was sent to a worker (which knows what it does). A worker knows what its
main thread is blocked in. A borrower knows who the owner is. Nothing is kept for explanations but
``blocked`` and the time at which the running task began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, Protocol

from freehold import resources
from freehold.core.actors import Actor
from freehold.core.calls import ActorTask
from freehold.core.entries import Entry
from freehold.core.execution import Execution, Run
from freehold.core.explaining import Inquiry, fate
from freehold.core.fetching import Creating, Fetching, Wait
from freehold.core.leasing import Lease, Leasing
from freehold.core.ownership import Ownership
from freehold.core.submission import DELAYED, DONE, PUSHED, QUEUED, Submission, Task
from freehold.core.telling_actors import tell_actor, tell_task
from freehold.core.world import World
from freehold.core.yielding import Outgoing
from freehold.ids import GroupId, LeaseId, ObjectId, TaskId, short
from freehold.wire.inquiry import (
    GROUP,
    LEASE,
    MAY,
    MORE,
    NAMED,
    NEEDS,
    OBJECT,
    ONE_OF,
    REQUEST,
    RUN,
    SAME,
    STORED,
    TASK,
    Finding,
    Question,
)
from freehold.wire.messages import FAILED, Address
from freehold.wire.messages import STORED as IN_STORE

#: Of many things that are waited for, so many are named.
BREADTH: Final = 4
#: Findings of one answer, about 100 bytes each.
ANSWER: Final = 100
#: Ids that are told for one prefix.
MATCHES: Final = 8


def span(seconds: float) -> str:
    """A time for people: 0.4 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min {seconds % 60:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min"


def count(number: int, what: str) -> str:
    """1 value, 2 values."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def survey(
    look: Callable[[str, bytes], Finding], me: Address, about: str, key: bytes, most: int = ANSWER
) -> list[Finding]:
    """The finding asked for, and those that it leads to in this process, nearest first."""
    places = [(about, key)]
    findings = []
    for place in places:  # (which grows as we go)
        finding = look(*place)
        findings.append(finding)
        for question in finding.questions:
            further = (question.about, question.id)
            if question.to.process == me.process and further not in places and len(places) < most:
                places.append(further)
    return findings


class Awaits(Protocol):
    """What user code may be blocked in: a get, a wait, room in a stream, or many of them."""

    @property
    def pending(self) -> dict[ObjectId, None]:
        """The objects that are not there yet."""


class Blocked:
    """What the main thread of a worker waits for: since when, and until when at most."""

    __slots__ = ("awaited", "deadline", "since")

    def __init__(self, awaited: Awaits, since: float, deadline: float | None) -> None:
        self.awaited = awaited
        self.since = since
        self.deadline = deadline


class Telling:
    """What one driver or worker can tell."""

    def __init__(
        self,
        world: World,
        ownership: Ownership,
        submission: Submission,
        leasing: Leasing,
        fetching: Fetching,
        creating: Creating,
    ) -> None:
        self.world = world
        self.ownership = ownership
        self.submission = submission
        self.leasing = leasing
        self.fetching = fetching
        self.creating = creating
        self.execution: Execution | None = None  # a worker's
        self.blocked: Blocked | None = None
        # the role's: the placement group for which an object of ours stands
        self.group_awaited: Callable[[ObjectId], GroupId | None] = lambda object_id: None
        self.title = f"process {short(world.address.process)}"  # the shell's: "worker 4711"
        self.whereabouts: Callable[[], str] = lambda: (
            ""
        )  # the shell's: the line that user code is at
        self.answers: dict[str, Callable[[bytes], Finding]] = {
            OBJECT: self.of_object,
            TASK: self.of_task,
            RUN: self.of_run,
            LEASE: self.of_lease,
            NAMED: self.of_name,
        }

    def explain(self, about: str, key: bytes, most: int = ANSWER) -> list[Finding]:
        """The answer to a question."""
        return survey(self.look, self.world.address, about, key, most)

    def look(self, about: str, key: bytes) -> Finding:
        """One finding."""
        tell = self.answers.get(about)
        return tell(key) if tell is not None else Finding(about, key, "not known to this process")

    def lines(self, object_id: ObjectId) -> list[str]:
        """What this process alone can say of an object."""
        me = self.world.address
        root = Question(SAME, me, OBJECT, object_id)
        inquiry = Inquiry([root], home=me.process, look=self.explain)
        inquiry.begin()
        return inquiry.lines()

    # ------------------------------------------------------------------ objects and tasks

    def of_object(self, key: bytes) -> Finding:
        """An object that we own or have borrowed."""
        entry = self.ownership.entries.get(ObjectId(key))
        if entry is None:
            text = f"object {short(key)} is not known to {self.title} (any more)"
            return Finding(OBJECT, key, text)
        task = entry.task if isinstance(entry.task, Task) else None
        if isinstance(entry.task, Actor):
            task = entry.task.task
            if entry.value is not None and entry.value.kind != FAILED:
                return tell_actor(key, entry.task, named(task))
        if entry.value is not None:
            return self.of_value(key, entry, task)
        if entry.owner is not None:
            return self.of_borrowed(key, entry, entry.owner)
        if task is None:
            return self.of_nobodys(key)
        if task.state is DONE and not (entry.handles or entry.pins):
            return Finding(OBJECT, key, f"{named(task)} was done, and its value dropped unused")
        return self.pending(OBJECT, key, task)

    def of_nobodys(self, key: bytes) -> Finding:
        """One of ours that no task makes: it may stand for a placement group."""
        group = self.group_awaited(ObjectId(key))
        if group is None:
            return Finding(OBJECT, key, f"object {short(key)} has no value yet")
        text = f"object {short(key)} waits for placement group {short(group)}"
        question = Question(MORE, self.fetching.node, GROUP, group)
        return Finding(OBJECT, key, text, questions=[question])

    def of_value(self, key: bytes, entry: Entry, task: Task | None) -> Finding:
        """One that is finished. Its bytes may still be on their way to us."""
        value = entry.value
        assert value is not None
        label = named(task) if task is not None else f"object {short(key)}"
        if value.kind == FAILED:
            finding = Finding(OBJECT, key, f"{label} has failed: get() raises its error")
            if entry.asked is not None and entry.owner is not None:
                finding.questions = [fate(MORE, entry.owner)]
            return finding
        if value.kind != IN_STORE:
            return Finding(OBJECT, key, f"{label} is done: {len(value.data):,} bytes, in memory")
        nodes = ", ".join(short(node.node) for node in value.nodes[:BREADTH])
        text = f"{label} is done: {value.size:,} bytes in the store of node {nodes}"
        finding = Finding(OBJECT, key, text)
        local = self.fetching.locals.get(entry.object)
        if local is not None and local.offset < 0:
            finding.questions = [Question(MORE, self.fetching.node, STORED, entry.object)]
            finding.else_text = ", and on its way here"
        return finding

    def of_borrowed(self, key: bytes, entry: Entry, owner: Address) -> Finding:
        """One that another process owns: that one knows."""
        where = f"process {short(owner.process)} on node {short(owner.node)}"
        if entry.asked is None:
            text = f"object {short(key)} is owned by {where}"
            questions = [Question(SAME, owner, OBJECT, entry.object)]
            return Finding(OBJECT, key, text, questions=questions)
        lost = self.ownership.lost
        text = f"object {short(key)} was owned by {where}, and a task that made it must run again"
        finding = Finding(OBJECT, key, text, questions=[fate(MORE, owner)])
        for link in entry.line:
            if link.submitter.process not in lost:
                finding.questions.append(Question(NEEDS, link.submitter, TASK, link.task))
                break
        return finding

    def of_task(self, key: bytes) -> Finding:
        """A task that we have submitted."""
        task = self.submission.tasks.get(TaskId(key))
        if task is None:
            return Finding(TASK, key, f"task {short(key)} is done, or was never here")
        return self.pending(TASK, key, task)

    def pending(self, about: str, key: bytes, task: Task) -> Finding:
        """A task of ours that is not done, or whose results are not out yet."""
        finding = Finding(about, key, "", name=named(task))
        label = finding.name
        if self.execution is not None:
            label += f", submitted by {self.title},"
        if task.used_retries:  # (``attempt`` also counts what a busy worker has given back)
            label += f" (attempt {task.used_retries + 1})"
        if isinstance(task, ActorTask) and task.state in (QUEUED, PUSHED):
            return tell_task(finding, label, task, self.world.address)
        if task.state is QUEUED:
            self.queued(finding, label, task)
        elif task.state is PUSHED and isinstance(task.lease, Lease):
            lease = task.lease
            where = f"worker {lease.pid} on node {short(lease.node.node)}"
            behind = len(lease.tasks) - 1
            finding.text = f"{label} was sent to {where}"
            finding.else_text = f", with {count(behind, 'other')}" if behind else ""
            finding.questions = [Question(MORE, lease.worker, RUN, task.id)]
        elif task.state is DELAYED:
            left = span(max(task.since - self.world.now(), 0.0))
            finding.text = f"{label} has failed, and is tried again in {left}"
        elif task.state is DONE:
            finding.text = (
                f"{label} is done, and its value known when the owners of the references in it "
                "have confirmed them"
            )
        else:
            missing = [ref.object for ref in task.deps if self.unready(ref.object)]
            finding.text = f"{label} waits for {len(missing)} of its {len(task.deps)} arguments"
            finding.questions = self.each(NEEDS, missing)
        return finding

    def queued(self, finding: Finding, label: str, task: Task) -> None:
        """A task without a worker: the node that was asked for one knows why."""
        shape = self.leasing.shape_of(task)
        others = len(shape.queue) - 1
        finding.text = f"{label} is queued" + (f" with {others} more like it" if others else "")
        why = shape.why or f"no free worker yet for {resources.describe(task.resources)}"
        finding.else_text = f": {why}"
        for lease, node in islice(shape.requests.items(), 1):
            finding.questions = [Question(MORE, node, REQUEST, lease)]

    def unready(self, object_id: ObjectId) -> bool:
        """Whether a value is not known yet."""
        entry = self.ownership.entries.get(object_id)
        return entry is not None and entry.value is None

    def each(self, how: str, objects: Iterable[ObjectId]) -> list[Question]:
        """A question for each of the first few objects, to ourselves."""
        me = self.world.address
        return [Question(how, me, OBJECT, object_id) for object_id in islice(objects, BREADTH)]

    # ------------------------------------------------------------------ runs and leases

    def of_run(self, key: bytes) -> Finding:
        """A task that was sent to this worker."""
        run = self.execution.runs.get(TaskId(key)) if self.execution is not None else None
        if run is None:
            return Finding(
                RUN, key, ", which does not have it (it has just answered, or will get it)"
            )
        assert self.execution is not None
        if run is self.execution.current:
            return self.of_running(key)
        if run.begun:
            return Finding(RUN, key, ", where it runs beside other calls")
        if run.gate is not None and run.gate.waiting:
            return Finding(
                RUN, key, ", where it waits for the owners of the references in it to confirm them"
            )
        if run.missing > 0:
            return self.of_awaiting(key, run)
        return Finding(RUN, key, ", where it waits for the task before it to end")

    def of_awaiting(self, key: bytes, run: Run) -> Finding:
        """A task here whose stored arguments are on their way."""
        finding = Finding(RUN, key, ", where an argument is on its way from a store")
        for argument in run.message.deps:
            local = self.fetching.locals.get(argument.ref.object)
            if local is not None and local.offset < 0:
                node = self.fetching.node
                finding.questions = [Question(MORE, node, STORED, argument.ref.object)]
                break
        return finding

    def of_running(self, key: bytes) -> Finding:
        """The task whose user code runs."""
        assert self.execution is not None
        now = self.world.now()
        finding = Finding(RUN, key, f", where it has run for {span(now - self.execution.began)}")
        if self.blocked is not None:
            self.of_blocked(finding, self.blocked, now)
        elif self.creating.pending:
            object_id = next(iter(self.creating.pending))
            finding.text += " and has a value to store"
            finding.questions = [Question(MORE, self.creating.node, STORED, object_id)]
        else:
            line = self.whereabouts()
            finding.text += f" and is at {line}" if line else ""
        return finding

    def of_blocked(self, finding: Finding, blocked: Blocked, now: float) -> None:
        """What its get or wait is about."""
        awaited = blocked.awaited
        pending = len(awaited.pending)
        how = NEEDS
        if isinstance(awaited, Wait):
            wanted = awaited.needed - len(awaited.ready)
            finding.text += f", and waits in wait() for {wanted} of {count(pending, 'value')}"
            if wanted < pending:
                how = ONE_OF if wanted == 1 and pending <= BREADTH else MAY
        elif isinstance(awaited, Outgoing):
            untaken = count(awaited.made - awaited.taken, "value")
            finding.text += f", and waits because {untaken} that it has yielded lie untaken"
        else:
            finding.text += f", and waits in get() for {count(pending, 'value')}"
        if blocked.deadline is not None:
            how = MAY
            finding.text += f" ({span(blocked.deadline - now)} left until its timeout)"
        finding.questions = self.each(how, list(awaited.pending))

    def of_lease(self, key: bytes) -> Finding:
        """A lease of ours: what a node that has others waiting wants to know."""
        lease = self.leasing.leases.get(LeaseId(key))
        if lease is None:
            return Finding(LEASE, key, "a lease that has just been returned")
        held = resources.describe(lease.shape.resources)
        who = f"worker {lease.pid} on node {short(lease.node.node)}"
        task = next(iter(lease.tasks.values()), None)
        if task is None:
            return Finding(LEASE, key, f"{who} holds {held}, and is idle")
        question = Question(MORE, lease.worker, RUN, task.id)
        text = f"{named(task)} holds {held}; it was sent to {who}"
        return Finding(LEASE, key, text, name=named(task), questions=[question])

    # ------------------------------------------------------------------ ids

    def of_name(self, key: bytes) -> Finding:
        """What of ours has an id that begins with these hex digits."""
        digits = key.decode("ascii", "replace")
        whole = bytes.fromhex(digits[: len(digits) // 2 * 2])
        tasks = {
            task_id: Question(MAY, self.world.address, TASK, task_id)
            for task_id in self.submission.tasks
            if task_id.startswith(whole) and task_id.hex().startswith(digits)
        }
        objects = [
            Question(MAY, self.world.address, OBJECT, object_id)
            for object_id, entry in self.ownership.entries.items()
            if (entry.owner is None or entry.asked is not None)  # (that owner cannot tell)
            and object_id.startswith(whole)
            and object_id.hex().startswith(digits)
            and object_id[:16] not in tasks
        ]
        return Finding(NAMED, key, self.title, questions=[*tasks.values(), *objects][:MATCHES])


def named(task: Task) -> str:
    """What to call a task: f() [0a1b2c3d]."""
    return f"{task.title}() [{short(task.id)}]"
