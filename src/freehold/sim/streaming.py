"""What user code does with streams: ``api.generators`` and ``runtime.yielding`` in the simulated
world, with the same order of calls.

Consuming: to take the next value is to look whether it is there, else to wait for its object and
look again. Producing: the body's ``yield`` is a request like any other; the value is stored if it
is large, given to ``core.yielding``, and the body goes on when there is room for one more. While it
waits for that it is not in user code: an interruption is found when it comes back there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from freehold.core.execution import Run
from freehold.core.fetching import Wait
from freehold.core.streams import Stream as CoreStream
from freehold.core.streams import StreamCall, StreamTask
from freehold.core.submission import Function
from freehold.core.yielding import Outgoing
from freehold.ids import function_id, return_id
from freehold.resources import vector
from freehold.sim import errors
from freehold.sim.acting import METHOD, Blob, Handle
from freehold.sim.bodies import Made
from freehold.sim.errors import Failure
from freehold.sim.ops import Stream
from freehold.wire.messages import FAILED, Call, Value

if TYPE_CHECKING:
    from freehold.sim.user import Thread


class Streaming:
    """A generator of references in user code, and ``done``, its hold on how many there were."""

    def __init__(self, stream: CoreStream, here: str, done: Handle) -> None:
        self.stream = stream
        self.here = here
        self.done = done


# ------------------------------------------------------------------ the consumer


def start(
    thread: Thread,
    here: str,
    op: Stream,
    actor: Handle | None,
    deps: Sequence[Handle],
    nested: Sequence[Handle],
) -> Streaming:
    """``f.options(num_returns="streaming").remote``, or an actor's method so."""
    process = thread.process
    blob = msgspec.msgpack.encode(Blob(thread.driver, here, op.function, list(op.sizes)))
    named = [handle.ref.object for handle in (*deps, *nested)]
    if actor is None:
        function = process.cluster.function(thread.driver, op.function, process)
        fingerprint = function.id
    else:
        assert actor.kind is not None
        title = f"{actor.kind.path}.f{op.function}"
        function, fingerprint = Function(METHOD, title, b""), function_id(title.encode())
        named = [actor.ref.object, *named]
    task = (StreamTask if actor is None else StreamCall)(
        thread.context.names.next_task(fingerprint, blob, named),
        function,
        blob,
        resources=vector(num_cpus=op.cpus) if actor is None else {},
        deps=[handle.ref for handle in deps],
        borrowed=[handle.ref for handle in nested],
        max_retries=op.retries,
        retry_exceptions=b"*" if op.retry_exceptions else b"",
        depth=thread.context.depth,
        parent=thread.context.task,
        name=here,
    )
    task.stream = CoreStream(task, op.window)
    process.settle()
    done = return_id(task.id, 0)
    process.cluster.named(done, thread.driver, f"{here}#0")
    task.origin = thread.origin()
    if isinstance(task, StreamCall):
        assert actor is not None
        assert actor.kind is not None
        task.actor = Call(f"f{op.function}")
        acting = process.role.acting
        callee = acting.calls.callee(actor.ref.object, ordered=actor.kind.ordered)
        process.cluster.watch.acts.on_call(process, task, actor)
        acting.calls.submit(task, callee)
    else:
        process.role.submit(task)
    handle = Handle(process.role.ownership.reference(done))
    streaming = Streaming(task.stream, here, handle)
    process.cluster.watch.flows.on_start(thread.driver, streaming)
    return streaming


def take(thread: Thread, here: str, streaming: Streaming, patience: float | None) -> None:
    """``next``, or ``next_ready`` with a timeout first."""
    process, streams = thread.process, thread.process.role.streams
    process.settle()
    entry = streams.next(streaming.stream)
    if entry is None:
        process.cluster.watch.flows.on_end(streaming)
        thread.soon(None)
    elif entry.value is None:
        awaited = streams.awaited(streaming.stream)
        waiting = process.role.wait(
            [awaited], 1, False, lambda: thread.wake(thread.took, "takes the next value")
        )
        thread.await_it(waiting, ("take", here, [streaming.done], streaming), patience)
    else:
        value = entry.value
        handle = Handle(streams.take(streaming.stream, entry))
        thread.handles.append(handle)
        process.cluster.watch.flows.on_take(streaming, handle.ref.object, value)
        if value.kind == FAILED:
            failure = errors.load(value.data)
            process.cluster.watch.get_failed(process, here, [handle], failure)
            thread.soon(failure=failure)
        else:
            thread.soon(handle)


def took(thread: Thread) -> None:
    """The next value is there, or the time for it is over: look again."""
    waiting = thread.waiting
    assert isinstance(waiting, Wait)
    _, here, _, streaming = thread.asking
    if not waiting.done:
        thread.world.mark("the next value is late")
    thread.awake()
    waiting.close()
    take(thread, here, streaming, None)


def close(thread: Thread, streaming: Streaming) -> None:
    """The stream is closed, or its generator was dropped."""
    thread.streams.remove(streaming)
    thread.process.cluster.watch.flows.on_close(streaming)
    thread.process.role.streams.close(streaming.stream)
    thread.drop(streaming.done)


# ------------------------------------------------------------------ the producer


def give(thread: Thread, here: str, made: Made) -> None:
    """The body yields; in a task that is called for its results alone that is nothing."""
    outgoing, process = thread.outgoing, thread.process
    if outgoing is None:
        thread.soon(None)
        return
    message = outgoing.run.message
    object_id = return_id(message.task, outgoing.made + 1)

    def given(value: Value) -> None:
        process.settle()
        process.cluster.named(object_id, thread.driver, f"{message.name}#{outgoing.made + 1}")
        process.cluster.watch.flows.on_give(process, outgoing, value)
        process.role.yielding.give(outgoing, value)  # type: ignore[attr-defined]  # an Executor
        if outgoing.done:
            go_on(thread, outgoing)
        else:
            thread.world.mark("a generator waits for room")
            outgoing.wake = lambda: thread.wake(lambda: room(thread, outgoing), "has room")
            thread.await_it(outgoing, ("room", here, []), None)

    thread.store(object_id, made, outgoing.run.submitter, given)


def room(thread: Thread, outgoing: Outgoing) -> None:
    """There is room for one more, or there is no need of any."""
    thread.awake()
    go_on(thread, outgoing)


def go_on(thread: Thread, outgoing: Outgoing) -> None:
    """Back to the body: with one more, or to its end."""
    run: Run = outgoing.run
    if run.cancelled and not outgoing.unwanted:
        thread.soon(failure=Failure("interrupted", run.message.name))
    else:
        thread.soon(not outgoing.unwanted)
