"""What user code does with names of actors: ``api.named`` in the simulated world.

Names are shared by all programs of a run. Who has one is chance, so a program never keeps what it
finds: it calls it, looks at the answer if that comes soon, and lets it go. What a call returns
depends on its arguments alone, whoever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from freehold.ids import return_id
from freehold.sim.acting import Handle, creation
from freehold.sim.asking import Question
from freehold.sim.ops import Enroll, Make
from freehold.wire.messages import ActorsFound, FindActors, NameActor, Reference, UnnameActor
from freehold.wire.names import NamedActor

if TYPE_CHECKING:
    from freehold.core.calls import ActorTask
    from freehold.sim.user import Thread

NAMESPACE = "all"


class Lent(Protocol):
    """Hears whether an actor's owner has lent it."""

    def __call__(self, *, alive: bool) -> None: ...


def enroll(thread: Thread, here: str, op: Enroll) -> None:
    """Get the actor of a name; one that is not there is made, if the operation says how."""
    process = thread.process
    process.settle()
    if op.function < 0:
        find(thread, op)
        return
    make = Make(op.at, "", op.function, restarts=op.restarts)
    task = creation(thread, here, make, [], [])
    actor = return_id(task.id, 0)
    process.role.acting.begin_naming(actor, process.cluster.head.address)
    name(thread, here, op, task, NamedActor(NAMESPACE, op.name, actor, process.address, b""))


def name(thread: Thread, here: str, op: Enroll, task: ActorTask, actor: NamedActor) -> None:
    """Take the name for an actor that is about to be made."""
    process = thread.process
    acting, names = process.role.acting, process.cluster.watch.registry

    def answered(message: ActorsFound) -> None:
        [holder] = message.actors
        names.on_holder(op.name, holder)
        if holder.object == actor.object:
            acting.create(task, op.restarts)
            names.on_named(op.name, holder)
            give(thread, process.role.ownership.reference(actor.object))
        else:
            borrow(thread, holder, taken_by_another)

    def taken_by_another(*, alive: bool) -> None:
        if alive:
            acting.not_named(actor.object)
        else:
            name(thread, here, op, task, actor)

    job = process.role.job
    Question(thread, lambda number: NameActor(number, job, actor), answered)


def find(thread: Thread, op: Enroll) -> None:
    """Ask who has the name."""
    process = thread.process
    names, before = process.cluster.watch.registry, process.cluster.watch.registry.living(op.name)

    def answered(message: ActorsFound) -> None:
        names.on_found(op.name, before, message.actors)
        if message.actors:
            borrow(thread, message.actors[0], lent)
        else:
            thread.soon(None)

    def lent(*, alive: bool) -> None:
        if not alive:
            find(thread, op)

    job = process.role.job
    Question(thread, lambda number: FindActors(number, job, NAMESPACE, op.name), answered)


def borrow(thread: Thread, actor: NamedActor, then: Lent) -> None:
    """Be counted for an actor of which there is only the name. If it is alive user code gets it;
    else its name is stale, and given back. ``then`` hears which."""
    process = thread.process
    ref = Reference(actor.object, actor.owner)

    def answered() -> None:
        thread.rounds += 1
        process.computes()
        then(alive=borrowing.alive)
        if borrowing.alive:
            process.cluster.world.mark("an actor is found by its name")
            process.cluster.watch.on_name(process, ref)
            give(thread, ref)
        else:
            process.cluster.world.mark("a stale name is given back")
            process.send(process.cluster.head.address, UnnameActor(actor.object))

    borrowing = process.role.acting.borrow(
        ref, lambda: thread.wake(answered, "an actor's owner answers")
    )
    if borrowing.done:
        answered()
    else:
        process.deaf_until = 0


def give(thread: Thread, ref: Reference) -> None:
    """A handle that is counted already."""
    handle = Handle(ref, thread.process.cluster.actors[ref.object])
    thread.handles.append(handle)
    thread.soon(handle)
