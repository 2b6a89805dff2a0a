"""Waiting for many references: ``as_completed``, and ``wait`` in coroutines.

``as_completed`` gives references in the order in which their values come, and takes more while it
is iterated over. It registers each reference with the owner's tables once (a ``Wait`` for each, and
a queue of those that are done), so that n references cost n steps, not n * n as a loop of ``wait``
calls would. Sync and async iteration differ only in how they sleep.

The life of one reference here: added -> its wait is done (noted by whichever thread handled the
message) -> given. What is left when the iterator is dropped or closed is forgotten; the tasks run
on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from freehold.api import session
from freehold.api.calls import checked_refs, checked_timeout, parted
from freehold.api.generators import ObjectRefGenerator
from freehold.api.refs import ObjectRef
from freehold.core.fetching import Wait
from freehold.errors import GetTimeoutError
from freehold.ids import ObjectId
from freehold.runtime import aio
from freehold.runtime.waking import Signal

if TYPE_CHECKING:
    from freehold.runtime.process import Process

T = TypeVar("T")


async def wait_async(
    refs: Sequence[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,  # noqa: ASYNC109  # as ``wait`` has it
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]:
    """``wait`` for coroutines: the same arguments, answer and errors, and the event loop goes on
    meanwhile. Raises NoEventLoopError where none runs.
    """
    aio.running_loop("wait_async()")
    awaited = checked_refs("wait_async", refs, num_returns)
    checked_timeout(timeout)
    if not refs:
        return [], []
    process = session.connected()
    found = await aio.ready(process, awaited, num_returns, timeout, fetch=fetch_local)
    return parted(refs, found)


class as_completed(Generic[T]):  # noqa: N801  # a function to those who call it
    """Iterate over references in the order in which their values come: ``for ref in
    as_completed(refs)`` or ``async for``. An error counts as a value; ``get`` of the reference
    raises it.

    Args:
        refs: the references to begin with; each once. ``add`` takes more at any time, also while
            iterating. The iteration ends when all were given; after more were added it may be
            taken up again.
        timeout: seconds for the whole, from now on. When they are over, the iteration raises
            GetTimeoutError.
    """

    def __init__(self, refs: Iterable[ObjectRef[T]] = (), *, timeout: float | None = None) -> None:
        self._waits: dict[ObjectRef[T], Wait] = {}
        self._arrivals: Arrivals = Arrivals()
        checked_timeout(timeout)
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._process: Process = session.connected()
        if isinstance(refs, ObjectRef | ObjectRefGenerator):
            raise TypeError(f"as_completed() takes a list of ObjectRefs, not {refs!r}")
        self.add(*refs)

    def add(self, *refs: ObjectRef[T]) -> None:
        """Give these too. Raises TypeError for what is no ObjectRef, ValueError for one that is
        still awaited here.
        """
        for ref in refs:
            if not isinstance(ref, ObjectRef):
                raise TypeError(f"as_completed() takes ObjectRefs, not {ref!r}")
            ref._check()
            if ref in self._waits:
                raise ValueError(f"as_completed() has {ref!r} already, and has not given it yet")
        process = self._process
        with process.lock:
            process.settle()
            for ref in refs:
                if ref in self._waits:
                    continue  # twice in this very call
                waiting = process.role.wait([ref._ref.object], 1, False, aio.no_one)
                self._waits[ref] = waiting
                if waiting.done:
                    self._arrivals.come(ref)
                else:
                    waiting.wake = partial(self._arrivals.come, ref)
            process.transport.flush_soon()

    def __len__(self) -> int:
        """How many are still to be given."""
        return len(self._waits)

    def _next(self) -> ObjectRef[T] | None:
        """The next that is there, None if there is none. Raises StopIteration at the end."""
        if not self._waits:
            raise StopIteration
        if not self._arrivals.refs:
            return None
        ref = self._arrivals.refs.popleft()
        self._waits.pop(ref).close()
        return ref

    # ------------------------------------------------------------------ iterating

    def __iter__(self) -> as_completed[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        process = self._process
        while True:
            signal = Signal()
            with process.lock:
                ref = self._next()
                if ref is not None:
                    return ref
                sleeper = self._arrivals.sleeper = Sleeper(self._waits, signal.ring)
            process.await_it(sleeper, signal, self._left())
            self._check_time(sleeper)

    def __aiter__(self) -> as_completed[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        aio.running_loop("async for over as_completed()")
        process = self._process
        while True:
            with process.lock:
                try:
                    ref = self._next()
                except StopIteration:
                    raise StopAsyncIteration from None
                if ref is not None:
                    return ref
                sleeper = self._arrivals.sleeper = Sleeper(self._waits, aio.no_one)
            await aio.sleep(process, sleeper, self._left())
            self._check_time(sleeper)

    def _left(self) -> float | None:
        """Seconds until the time is over."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _check_time(self, sleeper: Sleeper) -> None:
        """Raise GetTimeoutError if we sleep no more and nothing has come."""
        self._arrivals.sleeper = None
        if not sleeper.done:
            raise GetTimeoutError(
                f"{len(self._waits)} of the values that as_completed() waits for were not there "
                f"within {self._timeout:g} s"
            )

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Wait for none of the rest."""
        process = self._process
        with process.lock:
            for waiting in self._waits.values():
                waiting.close()
            self._waits.clear()
            self._arrivals.refs.clear()

    def __del__(self) -> None:
        waits = getattr(self, "_waits", None)
        if waits:
            self._process.finalizers.append(partial(close_all, list(waits.values())))


def close_all(waits: list[Wait]) -> None:
    """What an iterator that was dropped still waited for. Under the core's lock."""
    for waiting in waits:
        waiting.close()


class Arrivals:
    """Whose values have come. The owner's tables know this object and not the iterator, so that the
    iterator can be dropped.
    """

    def __init__(self) -> None:
        self.refs: deque[ObjectRef[Any]] = deque()
        self.sleeper: Sleeper | None = None

    def come(self, ref: ObjectRef[Any]) -> None:
        """A value is there. Under the core's lock."""
        self.refs.append(ref)
        sleeper = self.sleeper
        if sleeper is not None and not sleeper.done:
            sleeper.done = True
            sleeper.wake()


class Sleeper:
    """Someone sleeps until one of many waits is done."""

    __slots__ = ("done", "waits", "wake")

    def __init__(self, waits: dict[Any, Wait], wake: Any) -> None:
        self.done = False
        self.waits = waits
        self.wake = wake

    @property
    def pending(self) -> dict[ObjectId, None]:
        """The objects that are not there yet (for ``explain``)."""
        waits = list(self.waits.values())
        return {object_id: None for waiting in waits for object_id in waiting.pending}
