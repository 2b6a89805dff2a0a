"""Streams as their consumer sees them: ``ObjectRefGenerator``.

Calling a generator function gives one at once; each value that the function yields becomes an
object with a reference of its own as soon as it is made. Iterating waits until the next one is
there and gives its reference, whose value (or error) ``get`` then has without waiting.

What the stream is and holds is ``core.streams``' business; this is a handle on it. Dropping the
handle closes the stream. Python may drop it anywhere, also inside our own code, so the finalizer
only leaves word (``Process.finalizers``).
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from freehold.api.refs import ObjectRef
from freehold.core.streams import Stream
from freehold.errors import GetTimeoutError, ObjectLostError
from freehold.runtime import aio
from freehold.wire.messages import Reference

if TYPE_CHECKING:
    from freehold.core.submission import Task
    from freehold.ids import ObjectId
    from freehold.runtime.process import Process

T_co = TypeVar("T_co", covariant=True)


class ObjectRefGenerator(Generic[T_co]):
    """References to the values that a task yields, in order, each once.

    Iterate over it with ``for`` or ``async for``. It belongs to the process that made the call and
    is for one consumer at a time; pass the references on, not the generator. An error of the task
    arrives as the last reference, whose ``get`` raises it. Dropping or closing the generator stops
    the task and frees what was not taken.
    """

    def __init__(self, process: Process, stream: Stream, completed: Reference) -> None:
        self._process = process
        self._stream = stream
        self._completed: ObjectRef[int] = ObjectRef(process, completed)

    # ------------------------------------------------------------------ iterating

    def __iter__(self) -> ObjectRefGenerator[T_co]:
        return self

    def __next__(self) -> ObjectRef[T_co]:
        ref = self._take()
        while ref is None:
            self._process.ready([self._awaited()], 1, None, fetch=False)
            ref = self._take()
        return ref

    def __aiter__(self) -> ObjectRefGenerator[T_co]:
        return self

    async def __anext__(self) -> ObjectRef[T_co]:
        aio.running_loop("async for over a stream")
        try:
            ref = self._take()
            while ref is None:
                await aio.ready(self._process, [self._awaited()], 1, None, fetch=False)
                ref = self._take()
        except StopIteration:
            raise StopAsyncIteration from None
        return ref

    def next_ready(self, timeout: float | None = None) -> ObjectRef[T_co]:
        """The next reference, or GetTimeoutError if it is not there within ``timeout`` seconds.
        Raises StopIteration at the end.
        """
        if timeout is None:
            return next(self)
        ref = self._take()
        if ref is None:
            self._process.ready([self._awaited()], 1, timeout, fetch=False)
            ref = self._take()
        if ref is None:
            raise GetTimeoutError(f"{self!r} has not yielded its next value within {timeout:g} s")
        return ref

    def _take(self) -> ObjectRef[T_co] | None:
        """The next reference if its value is there. Raises StopIteration if there are no more."""
        self._check()
        process = self._process
        with process.lock:
            streams = process.role.streams
            entry = streams.next(self._stream)
            if entry is None:
                raise StopIteration
            if entry.value is None:
                process.transport.flush_soon()
                return None
            return ObjectRef(process, streams.take(self._stream, entry))

    def _awaited(self) -> ObjectId:
        """What is ready when the next reference, or the end, is."""
        with self._process.lock:
            return self._process.role.streams.awaited(self._stream)

    # ------------------------------------------------------------------ the whole

    def completed(self) -> ObjectRef[int]:
        """A reference that has a value when the task has ended: the number of values it has
        yielded, or its error. It keeps the stream open as the generator does. From now on the task
        is not held back any more by values that nobody has taken, unless ``backpressure`` was set.
        """
        self._check()
        process, ref = self._process, self._completed._ref
        with process.lock:
            process.role.ownership.add_handle(ref)
            if not self._stream.firm:
                process.role.streams.open(self._stream)
                process.transport.flush_soon()
        return Completed(process, ref, self)

    def is_finished(self) -> bool:
        """Whether all references were taken, and no more will come."""
        with self._process.lock:
            return self._process.closed or self._process.role.streams.next(self._stream) is None

    def task_id(self) -> str:
        """The id of the task that yields, 32 hex digits."""
        return self._completed.task_id()

    def close(self) -> None:
        """Stop the task and free what was not taken. References that were taken stay good. Does
        nothing if all is over.
        """
        process = self._process
        if process.closed:
            return
        with process.lock:
            process.role.streams.close(self._stream)
            process.transport.flush()

    def __enter__(self) -> ObjectRefGenerator[T_co]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream is None or stream.closed or stream.taken == stream.total:
            return
        process = self._process
        process.finalizers.append(partial(process.role.streams.close, stream))
        if not process.closed:
            process.transport.wake()

    def _check(self) -> None:
        """Raise ObjectLostError if the session in which the stream was made has ended."""
        if self._process.closed:
            raise ObjectLostError(
                f"{self!r} belongs to a session that was shut down, and its values ended with it",
                object_id=self._completed.hex(),
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} cannot be passed on: a stream has one consumer, the process that made the "
            "call. Pass the references that it gives, one by one or list(generator)"
        )

    def __copy__(self) -> ObjectRefGenerator[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRefGenerator[T_co]:
        return self

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._completed.task_id()})"


class Completed(ObjectRef[int]):
    """What ``ObjectRefGenerator.completed`` gives: who waits for the end does not want the stream
    closed because nobody takes its values.
    """

    __slots__ = ("_generator",)

    def __init__(
        self, process: Process, ref: Reference, generator: ObjectRefGenerator[Any]
    ) -> None:
        super().__init__(process, ref)
        self._generator = generator


def awaited_id(ref: ObjectRef[Any] | ObjectRefGenerator[Any]) -> ObjectId:
    """What ``wait`` waits for: the value of a reference, or the next value of a stream."""
    if isinstance(ref, ObjectRefGenerator):
        ref._check()
        return ref._awaited()
    if ref._process.closed:
        ref._check()
    return ref._ref.object


def yields(function: Any) -> bool:
    """Whether calling it gives a generator. (To return one as a value is impossible: it cannot be
    pickled.)
    """
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def promised(process: Process, task: Task) -> Any:
    """What the caller of a submitted task gets: a reference to its value, one to each of its
    values, or a generator of those that it yields.
    """
    line = task.origin.line if task.origin is not None else ()
    returns = task.returns
    if len(returns) == 1:
        reference = Reference(returns[0], process.address, line)
        if task.stream is not None:
            return ObjectRefGenerator(process, task.stream, reference)
        return ObjectRef(process, reference)
    return [ObjectRef(process, Reference(each, process.address, line)) for each in returns]
