"""Actors by name: ``options(name=...)``, ``get_actor``, ``list_named_actors``.

The head keeps the names, so two that want the same one at the same moment do not both get it. A
name does not keep its actor alive: it is free again when the actor has ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from freehold.api import session
from freehold.api.options import text
from freehold.api.refs import ObjectRef
from freehold.errors import ActorAlreadyExistsError, ClusterUnreachableError
from freehold.runtime.waking import Signal
from freehold.wire.messages import Message, Reference
from freehold.wire.names import FindActors, NameActor, NamedActor, UnnameActor

if TYPE_CHECKING:
    from freehold.api.actors import ActorHandle
    from freehold.runtime.process import Process

#: Seconds to wait for a head that does not answer. One that was killed is back in half a second.
HEAD_PATIENCE: Final = 10.0


def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle of the living actor that was created with this name.

    Args:
        name: the name that ``options(name=...)`` gave.
        namespace: where to look; default: the namespace of this program's ``init``.

    Raises:
        ValueError: no living actor has this name there.
        ClusterUnreachableError: the head does not answer, or the actor is detached and is not made
            again within ten seconds.
    """
    name = checked_name(name)
    process = session.connected()
    deadline = time.monotonic() + HEAD_PATIENCE
    while True:
        found = find(process, name, checked_namespace(namespace))
        if not found:
            where = f" in namespace {namespace!r}" if namespace else " in this namespace"
            raise ValueError(
                f"no living actor has the name {name!r}{where}; list_named_actors() shows them"
            )
        handle = borrowed(process, found[0])
        if handle is not None:
            return handle
        stale(process, found[0], deadline)


def list_named_actors(*, all_namespaces: bool = False) -> list[Any]:
    """The names of living actors in this program's namespace; with ``all_namespaces`` a list of
    dicts with ``namespace`` and ``name``.
    """
    if not isinstance(all_namespaces, bool):
        raise TypeError(f"all_namespaces must be True or False, not {all_namespaces!r}")
    actors = find(session.connected(), "", "", everywhere=all_namespaces)
    if all_namespaces:
        return [{"namespace": actor.namespace, "name": actor.name} for actor in actors]
    return [actor.name for actor in actors]


def create(
    process: Process,
    actor: NamedActor,
    make: Callable[[], ActorHandle[Any]],
    *,
    get_if_exists: bool,
) -> ActorHandle[Any]:
    """Take the name, then ``make`` the actor; or return the one that has it, if that will do."""
    acting = process.role.acting
    deadline = time.monotonic() + HEAD_PATIENCE
    with process.lock:
        acting.begin_naming(actor.object, process.head)
    try:
        while True:
            question = lambda number: NameActor(number, process.role.job, actor)  # noqa: E731
            (holder,) = asked(process, question).actors
            if holder.object == actor.object:
                return make()
            found = borrowed(process, holder)
            if found is None:
                stale(process, holder, deadline)
            elif get_if_exists:
                return found
            else:
                raise ActorAlreadyExistsError(
                    f"{found!r} has the name {actor.name!r} in namespace {holder.namespace!r}"
                )
    finally:
        with process.lock:
            if actor.object in acting.naming:  # it was not made
                acting.not_named(actor.object)
                process.transport.flush()


def find(
    process: Process, name: str, namespace: str, *, everywhere: bool = False
) -> list[NamedActor]:
    """Ask the head."""
    job = process.role.job
    answer = asked(process, lambda number: FindActors(number, job, namespace, name, everywhere))
    return answer.actors  # type: ignore[no-any-return]


def asked(process: Process, question: Callable[[int], Message]) -> Any:
    """The head's answer; asks again while it is away, for a while."""
    deadline = time.monotonic() + HEAD_PATIENCE
    while True:
        try:
            return process.ask(process.head, question, HEAD_PATIENCE)
        except ClusterUnreachableError:
            if time.monotonic() > deadline or process.node_gone:
                raise
            time.sleep(0.05)


def borrowed(
    process: Process, actor: NamedActor, *, ended: bool = False
) -> ActorHandle[Any] | None:
    """A handle of a named actor; None if it has ended. ``ended``: that will do as well."""
    from freehold.api.actors import ActorHandle, kind_of

    ref = Reference(actor.object, actor.owner)
    signal = Signal()
    with process.lock:
        borrowing = process.role.acting.borrow(ref, signal.ring, ended=ended)
        process.transport.flush()
    try:
        process.pump.wait(borrowing, signal, None)
    except BaseException:  # Ctrl-C, or this task is cancelled
        with process.lock:
            process.role.acting.give_back(ref.object, borrowing)
            process.transport.flush()
        raise
    if not borrowing.alive:
        return None
    return ActorHandle(ObjectRef(process, ref), kind_of(actor.kind))


def stale(process: Process, actor: NamedActor, deadline: float) -> None:
    """Its owner knows the actor no more: the name is stale. Of a detached one the head will hear,
    and perhaps have it made again; until ``deadline`` (monotonic seconds).
    """
    if actor.detached:
        if time.monotonic() > deadline:
            raise ClusterUnreachableError(
                f"the process that keeps the detached actor {actor.name!r} cannot be reached"
            )
        time.sleep(0.05)
        return
    with process.lock:
        process.transport.send(process.head, UnnameActor(actor.object))
        process.transport.flush()


def checked_name(name: object) -> str:
    """An actor's name. Raises TypeError or ValueError."""
    name = text("an actor's name", name)
    if not name:
        raise ValueError("an actor's name must not be empty")
    return name


def checked_namespace(namespace: object) -> str:
    """A namespace, "" for the job's. Raises TypeError."""
    return "" if namespace is None else text("namespace", namespace)
