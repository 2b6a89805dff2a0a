"""Explaining: what an object waits for, as a pure question over the owner's tables.

The same lines stand in GetTimeoutError, in ``fh.explain`` and in the simulator's reports.
"""

from __future__ import annotations

from freehold import resources
from freehold.core.leasing import Lease, Leasing
from freehold.core.ownership import Ownership
from freehold.core.submission import PUSHED, QUEUED, Submission, Task
from freehold.ids import ObjectId, short
from freehold.wire.messages import FAILED, INLINE

DEPTH = 20


def explain(
    ownership: Ownership, submission: Submission, leasing: Leasing, object_id: ObjectId
) -> list[str]:
    """Lines from the object asked about down to what holds it up."""
    lines: list[str] = []
    seen: set[ObjectId] = set()
    work = [(object_id, 0)]
    while work and len(lines) < DEPTH:
        current, indent = work.pop()
        if current in seen:
            continue
        seen.add(current)
        entry = ownership.entries.get(current)
        pad = "  " * indent
        if entry is None:
            lines.append(f"{pad}{short(current)}: not known here")
        elif entry.value is not None:
            kind = {INLINE: "is here", FAILED: "has failed"}.get(entry.value.kind, "is in a store")
            lines.append(f"{pad}{short(current)}: its value {kind}")
        elif entry.owner is not None:
            owner = short(entry.owner.process)
            lines.append(f"{pad}{short(current)}: its owner, process {owner}, has not finished it")
        elif isinstance(entry.task, Task):
            lines.append(pad + describe(entry.task, leasing))
            if entry.task.unready:
                work.extend(
                    (ref.object, indent + 1)
                    for ref in entry.task.deps
                    if ownership.entries[ref.object].value is None
                )
    return lines


def describe(task: Task, leasing: Leasing) -> str:
    """One task and what it waits for."""
    name = f"{task.title}() [{short(task.id)}]"
    attempt = f", attempt {task.attempt + 1}" if task.attempt else ""
    if task.state is QUEUED:
        shape = leasing.shape_of(task)
        why = shape.why or f"no free worker yet for {resources.describe(task.resources)}"
        return f"{name} is queued{attempt}: {why}"
    if task.state is PUSHED and isinstance(task.lease, Lease):
        lease = task.lease
        behind = len(lease.tasks)
        others = f", among {behind} tasks there" if behind > 1 else ""
        where = f"worker {lease.pid} on node {short(lease.node.node)}"
        return f"{name} was sent to {where}{others}{attempt}{task.note}"
    return f"{name} waits for {task.unready} of its arguments"
