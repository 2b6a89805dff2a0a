"""``Queue``: first in, first out, between any processes of the cluster.

The queue is an actor with coroutine methods; a ``Queue`` is a handle on it, which can be passed to
tasks. The life of an item: its ``put`` waits for room -> it lies in the actor -> the ``get`` that
is first in line takes it -> its reply. Items are copies, as all arguments are; large ones lie in
the object store meanwhile.

Waiting is done in the actor, and so is the measuring of timeouts: an answer says whether there was
an item, so none is taken by a call that has given up. One whose consumer dies or is cancelled while
the item is on the way to it is lost, as it would be a moment later.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import freehold as fh

T = TypeVar("T")

#: Calls that may wait at once in one queue: more than processes will ever be.
MOST_CALLS = 1 << 20


class Empty(queue.Empty):
    """The queue has no item, or not as many as were asked for. Try again, or give more time."""


class Full(queue.Full):
    """The queue has no room, or not for as many. Try again when somebody has taken an item."""


class QueueActor:
    """What a queue holds. All methods run on one event loop."""

    def __init__(self, maxsize: int) -> None:
        self._maxsize = maxsize
        self._queue: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def put(self, item: Any, seconds: float | None) -> bool:
        """Wait for room; whether there was any."""
        try:
            await asyncio.wait_for(self._queue.put(item), seconds)
        except TimeoutError:
            return False
        return True

    async def get(self, seconds: float | None) -> tuple[Any, ...]:
        """Wait for an item; () if none came."""
        try:
            return (await asyncio.wait_for(self._queue.get(), seconds),)
        except TimeoutError:
            return ()

    async def put_all(self, *items: Any) -> bool:
        """All of them or none, at once."""
        if self._maxsize and self._queue.qsize() + len(items) > self._maxsize:
            return False
        for item in items:
            self._queue.put_nowait(item)
        return True

    async def get_all(self, number: int) -> list[Any] | int:
        """As many at once; else how many there are."""
        if self._queue.qsize() < number:
            return self._queue.qsize()
        return [self._queue.get_nowait() for _ in range(number)]

    async def size(self) -> int:
        """How many lie here."""
        return self._queue.qsize()


class Queue(Generic[T]):
    """A queue for any number of producers and consumers, in any process.

    It ends with the process that made it, or when the last copy of it is dropped.

    Args:
        maxsize: ``put`` waits while so many items lie in it; 0 for any number.
        actor_options: options of the actor that holds the items, as for ``freehold.remote``.
    """

    def __init__(self, maxsize: int = 0, *, actor_options: Mapping[str, Any] | None = None) -> None:
        if isinstance(maxsize, bool) or not isinstance(maxsize, int):
            raise TypeError(f"maxsize must be a whole number, not {maxsize!r}")
        options = {"max_concurrency": MOST_CALLS, **(actor_options or {})}
        self.maxsize = max(0, maxsize)
        self.actor: Any = fh.remote(QueueActor).options(**options).remote(self.maxsize)

    # ------------------------------------------------------------------ putting

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add an item. Waits for room, for ``timeout`` seconds if given. Raises Full."""
        if not _answer(self.actor.put.remote(item, _patience(block, timeout))):
            raise self._full(block, timeout)

    async def put_async(
        self,
        item: T,
        block: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> None:
        """``put`` for coroutines."""
        if not await _awaited(self.actor.put.remote(item, _patience(block, timeout))):
            raise self._full(block, timeout)

    def put_nowait(self, item: T) -> None:
        """Add an item if there is room now. Raises Full."""
        self.put(item, block=False)

    def put_nowait_batch(self, items: Iterable[T]) -> None:
        """Add all items if there is room for all now. Raises Full, and then has added none."""
        if isinstance(items, str | bytes) or not isinstance(items, Iterable):
            raise TypeError(f"put_nowait_batch() takes a list of items, not {items!r}"[:200])
        batch = list(items)
        if not fh.get(self.actor.put_all.remote(*batch)):
            raise Full(f"no room for {len(batch)} items in a queue of at most {self.maxsize}")

    # ------------------------------------------------------------------ getting

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Take the first item. Waits for one, for ``timeout`` seconds if given. Raises Empty."""
        found = _answer(self.actor.get.remote(_patience(block, timeout)))
        if not found:
            raise _empty(block, timeout)
        return found[0]  # type: ignore[no-any-return]

    async def get_async(
        self,
        block: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T:
        """``get`` for coroutines."""
        found = await _awaited(self.actor.get.remote(_patience(block, timeout)))
        if not found:
            raise _empty(block, timeout)
        return found[0]  # type: ignore[no-any-return]

    def get_nowait(self) -> T:
        """Take the first item if there is one now. Raises Empty."""
        return self.get(block=False)

    def get_nowait_batch(self, num_items: int) -> list[T]:
        """Take so many items if there are so many now. Raises Empty, and then has taken none."""
        if isinstance(num_items, bool) or not isinstance(num_items, int):
            raise TypeError(f"num_items must be a whole number, not {num_items!r}")
        if num_items < 0:
            raise ValueError(f"num_items must be >= 0, not {num_items}")
        found = fh.get(self.actor.get_all.remote(num_items))
        if isinstance(found, int):
            raise Empty(f"{num_items} items were asked for, and the queue has {found}")
        return found  # type: ignore[no-any-return]

    # ------------------------------------------------------------------ the whole

    def qsize(self) -> int:
        """How many items lie in it; others may change that at any time."""
        return fh.get(self.actor.size.remote())  # type: ignore[no-any-return]

    size = __len__ = qsize

    def __bool__(self) -> bool:
        return True  # (and not whether it has items: ``if queue:`` asks whether there is one)

    def empty(self) -> bool:
        """Whether no item lies in it."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether there is no room."""
        return 0 < self.maxsize <= self.qsize()

    def shutdown(self, force: bool = False, grace_period_s: float = 5.0) -> None:
        """End the queue: calls that wait at it, and all later ones, raise ActorDiedError.

        Args:
            force: at once. Otherwise calls that are under way from here have
                ``grace_period_s`` seconds to be answered.
        """
        if grace_period_s < 0:
            raise ValueError(f"grace_period_s must be >= 0 seconds, not {grace_period_s}")
        if not force:
            try:
                fh.wait([self.actor.size.remote()], timeout=grace_period_s)
            except fh.errors.FreeholdError:
                return  # it has ended already
        fh.kill(self.actor)

    def _full(self, block: bool, timeout: float | None) -> Full:
        return Full(f"the queue has its {self.maxsize} items{_while(block, timeout)}")


def _empty(block: bool, timeout: float | None) -> Empty:
    return Empty(f"the queue has no item{_while(block, timeout)}")


def _while(block: bool, timeout: float | None) -> str:
    return f", and had for {timeout:g} s" if block and timeout else ""


def _patience(block: bool, timeout: float | None) -> float | None:
    """Seconds to wait at the actor; None for ever. Raises ValueError."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds or None, not {timeout}")
    return timeout if block else 0.0


def _answer(ref: fh.ObjectRef[Any]) -> Any:
    """Its value. Who is interrupted while it waits must not take an item later."""
    try:
        return fh.get(ref)
    except (KeyboardInterrupt, fh.errors.TaskCancelledError):
        fh.cancel(ref)
        raise


async def _awaited(ref: fh.ObjectRef[Any]) -> Any:
    """The same in a coroutine."""
    try:
        return await ref
    except asyncio.CancelledError:
        fh.cancel(ref)
        raise
