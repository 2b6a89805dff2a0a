"""What user code does with actors: ``api.actors`` in the simulated world.

A handle of an actor is a reference to the actor's object together with what callers know of its
class. Here that is whether its calls keep their order, and ``Cluster.actors`` has it for everyone:
in the real world it travels with the handle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from freehold.core.calls import ActorTask
from freehold.core.submission import Function
from freehold.ids import FunctionId, function_id, return_id
from freehold.resources import vector
from freehold.sim.ops import Invoke, Make
from freehold.wire.messages import Call, Creation, Placement, Reference

if TYPE_CHECKING:
    from freehold.sim.user import Thread

METHOD = FunctionId(b"")


class Blob(msgspec.Struct):
    """The arguments of a task: where the call stands in its program, and what it runs."""

    driver: int
    path: str
    function: int
    sizes: list[int]


@dataclass(frozen=True)
class Kind:
    """What callers know of an actor: where it was made, and how."""

    driver: int
    path: str
    op: Make

    @property
    def ordered(self) -> bool:
        """Whether calls run one after the other."""
        return self.op.limit == 1


class Handle:
    """A reference in user code. ``kind``: if it is one to an actor."""

    __slots__ = ("kind", "live", "ref")

    def __init__(self, ref: Reference, kind: Kind | None = None) -> None:
        self.ref = ref
        self.kind = kind
        self.live = True

    @property
    def actor(self) -> bool:
        """Whether it names an actor."""
        return self.kind is not None


def make_actor(
    thread: Thread, here: str, op: Make, deps: Sequence[Handle], nested: Sequence[Handle]
) -> Handle:
    """``ActorClass.remote``."""
    task = creation(thread, here, op, deps, nested)
    thread.process.role.acting.create(task, op.restarts)
    actor = return_id(task.id, 0)
    ref = thread.process.role.ownership.reference(actor)
    return Handle(ref, thread.process.cluster.actors[actor])


def creation(
    thread: Thread, here: str, op: Make, deps: Sequence[Handle], nested: Sequence[Handle]
) -> ActorTask:
    """The task that makes an actor, whose name is known from here on."""
    process = thread.process
    blob = msgspec.msgpack.encode(Blob(thread.driver, here, op.function, []))
    function = process.cluster.function(thread.driver, op.function, process)
    task = ActorTask(
        thread.context.names.next_task(
            function.id, blob, [handle.ref.object for handle in (*deps, *nested)]
        ),
        function,
        blob,
        resources=vector(num_cpus=op.cpus),
        deps=[handle.ref for handle in deps],
        borrowed=[handle.ref for handle in nested],
        max_retries=-1,
        depth=thread.context.depth,
        parent=thread.context.task,
        name=here,
    )
    task.actor = Creation(limit=op.limit)
    node = process.cluster.node_number(op.node)
    known = process.node.role.scheduling.peers
    if node is not None and (node is process.node or node.address.node in known):
        task.placement = Placement(node=node.address.node, soft=True)
    else:  # (it has not heard of the node, and a program could not name it)
        op = replace(op, node=-1)
    process.settle()
    actor = return_id(task.id, 0)
    process.cluster.named(actor, thread.driver, here)
    process.cluster.actors[actor] = Kind(thread.driver, here, op)
    return task


def call_actor(
    thread: Thread,
    here: str,
    op: Invoke,
    actor: Handle,
    deps: Sequence[Handle],
    nested: Sequence[Handle],
) -> list[Handle]:
    """``ActorMethod.remote``."""
    process = thread.process
    cluster = process.cluster
    assert actor.kind is not None
    blob = msgspec.msgpack.encode(Blob(thread.driver, here, op.function, list(op.sizes)))
    title = f"{actor.kind.path}.f{op.function}"
    task = ActorTask(
        thread.context.names.next_task(
            function_id(title.encode()),
            blob,
            [handle.ref.object for handle in (actor, *deps, *nested)],
        ),
        Function(METHOD, title, b""),
        blob,
        resources={},
        num_returns=len(op.sizes),
        deps=[handle.ref for handle in deps],
        borrowed=[handle.ref for handle in nested],
        max_retries=op.retries,
        retry_exceptions=b"*" if op.retry_exceptions else b"",
        depth=thread.context.depth,
        parent=thread.context.task,
        name=here,
    )
    task.actor = Call(f"f{op.function}")
    process.settle()
    objects = [return_id(task.id, index) for index in range(len(op.sizes))]
    for index, object_id in enumerate(objects):
        cluster.named(object_id, thread.driver, f"{here}#{index}")
    task.origin = thread.origin()
    acting = process.role.acting
    callee = acting.calls.callee(actor.ref.object, ordered=actor.kind.ordered)
    cluster.watch.acts.on_call(process, task, actor)
    acting.calls.submit(task, callee)
    return [Handle(process.role.ownership.reference(object_id)) for object_id in objects]


def kill_actor(thread: Thread, actor: Handle, *, restart: bool) -> None:
    """``kill``."""
    process = thread.process
    process.settle()
    process.cluster.watch.acts.on_kill(actor, restart=restart)
    process.role.acting.kill(actor.ref.object, restart=restart)
