"""Telling, the part of actors: what a creation or a call waits for (see ``core.telling``).

Pure questions over ``actors`` and ``calls``. A call was sent to its actor, which tells more; or it
waits for the call before it, or for the actor; and that waits for its constructor, or for a worker.
"""

from __future__ import annotations

from freehold import resources
from freehold.core.actors import Actor
from freehold.core.calls import ActorTask, Callee
from freehold.core.submission import PUSHED
from freehold.ids import short
from freehold.wire.inquiry import MORE, NEEDS, OBJECT, REQUEST, RUN, TASK, Finding, Question
from freehold.wire.messages import Address


def tell_task(finding: Finding, label: str, task: ActorTask, me: Address) -> Finding:
    """A creation or a call that is queued or was sent."""
    subject = task.subject
    if isinstance(subject, Actor):
        tell_creation(finding, f"the constructor of {label}", subject)
    elif isinstance(subject, Callee):
        tell_call(finding, label, task, subject, me)
    return finding


def tell_creation(finding: Finding, label: str, actor: Actor) -> None:
    """An actor that is being made."""
    task = actor.task
    if task.state is PUSHED and actor.worker is not None:
        finding.text = f"{label} was sent to worker {actor.pid} on node {short(actor.node.node)}"
        finding.questions = [Question(MORE, actor.worker, RUN, task.id)]
        return
    why = actor.why or f"no free worker yet for {resources.describe(task.resources) or 'it'}"
    finding.text, finding.else_text = f"{label} is queued", f": {why}"
    if actor.lease is not None:
        finding.questions = [Question(MORE, actor.node, REQUEST, actor.lease)]


def tell_call(finding: Finding, label: str, task: ActorTask, callee: Callee, me: Address) -> None:
    """A call that is not done."""
    place = callee.place
    ahead = callee.ahead_of(task)
    if task.id in callee.pushed and place is not None:
        worker = place.worker
        finding.text = f"{label} was sent to its actor on node {short(worker.node)}"
        finding.questions = [Question(MORE, worker, RUN, task.id)]
    elif place is not None and ahead is not None:
        finding.text = f"{label} waits for the call that was submitted before it"
        finding.questions = [Question(NEEDS, me, TASK, ahead.id)]
    else:
        finding.text = f"{label} waits for its actor to be there"
        owner = callee.entry.owner or me
        finding.questions = [Question(NEEDS, owner, OBJECT, callee.entry.object)]


def tell_actor(key: bytes, actor: Actor, name: str) -> Finding:
    """The object of an actor of ours that has been made."""
    where = f"worker {actor.pid} on node {short(actor.node.node)}" if actor.worker else "no process"
    return Finding(OBJECT, key, f"actor {name} lives in {where}", name=name)
