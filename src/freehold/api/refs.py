"""References to values: ``ObjectRef[T]``."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from freehold.errors import ObjectLostError
from freehold.runtime import aio
from freehold.runtime.context import ObjectRef as BareRef

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from freehold.runtime.process import Process

T_co = TypeVar("T_co", covariant=True)


class ObjectRef(BareRef, Generic[T_co]):
    """A name of a value of type ``T`` that may not exist yet and may live on another machine.

    Made by ``f.remote()`` and ``put``. Pass it to tasks (as an argument it arrives as the value,
    inside a container as the reference), store it in values, return it. The value is freed when
    no reference is left anywhere. ``await ref`` gives the value in any event loop.
    """

    __slots__ = ()

    def hex(self) -> str:
        """The object's id, 40 hex digits."""
        return self._ref.object.hex()

    def binary(self) -> bytes:
        """The object's id, 20 bytes."""
        return self._ref.object

    def task_id(self) -> str:
        """The id of the task that returns the value, 32 hex digits."""
        return self._ref.object[:16].hex()

    def future(self) -> concurrent.futures.Future[T_co]:
        """A ``concurrent.futures.Future`` of the value, or of its error."""
        from concurrent.futures import Future

        self._check()
        future: Future[T_co] = Future()
        future.set_running_or_notify_cancel()
        process = self._process
        process.when_done(self, lambda: _resolver.put((process, self, future)))
        return future

    def as_future(self) -> asyncio.Future[T_co]:
        """An asyncio future of the value, or of its error, in the running loop. To cancel it
        cancels the wait, not the task. Raises NoEventLoopError where no loop runs.
        """
        self._check()
        return aio.running_loop("as_future()").create_task(self._value())

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._value().__await__()

    async def _value(self) -> T_co:
        self._check()
        aio.running_loop("await of an ObjectRef")
        return await aio.value(self._process, self)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and self._ref.object == other._ref.object

    def __hash__(self) -> int:
        return hash(self._ref.object)

    def _check(self) -> None:
        """Raise ObjectLostError if the session in which the reference was made has ended."""
        if self._process.closed:
            raise ObjectLostError(
                f"{self!r} belongs to a session that was shut down, and its value ended with it",
                object_id=self.hex(),
            )

    def __reduce__(self) -> Any:
        self._check()
        return super().__reduce__()

    # A reference never changes, so a copy is the reference itself; __reduce__ is for travel only.
    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T_co]:
        return self

    def __repr__(self) -> str:
        return f"ObjectRef({self.hex()})"

    def __iter__(self) -> Any:
        raise TypeError(
            "an ObjectRef cannot be unpacked: the task returns one value. "
            "Give it num_returns=n to get n references"
        )

    def __bool__(self) -> bool:
        raise TypeError("an ObjectRef has no truth value; get() its value first")


class _Resolver:
    """Fills futures off the reading thread: unpickling a value runs user code."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[
            tuple[Process, ObjectRef[Any], concurrent.futures.Future[Any]]
        ] = queue.SimpleQueue()
        self.thread: threading.Thread | None = None

    def put(self, item: tuple[Process, ObjectRef[Any], concurrent.futures.Future[Any]]) -> None:
        """A value is there for a future."""
        self.queue.put(item)
        if self.thread is None:
            self.thread = threading.Thread(target=self.run, name="freehold-futures", daemon=True)
            self.thread.start()

    def run(self) -> None:
        """Fill futures for ever."""
        while True:
            process, ref, future = self.queue.get()
            try:
                future.set_result(process.get([ref], None)[0])
            except BaseException as error:
                future.set_exception(error)
            del process, ref, future


_resolver = _Resolver()
