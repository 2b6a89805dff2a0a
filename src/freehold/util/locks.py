"""``Lock`` and ``Semaphore``: named, first come first served, and released when their holder dies.

A name stands for one actor that holds a number of permits and a line of those who want one. To
acquire is to call its stream ``hold``: it waits for its turn, yields once, and then stays open
until ``release``. A stream stops when its consumer dies, drops it or gives up waiting, and the
``finally`` of ``hold`` gives the permit to the next in line, or leaves the line. So nobody has to
look after holders: a permit lives as long as the reference that stands for it, like everything
here.

The life of a ticket: in line -> holding -> released. It leaves both places by one function
(``_leave``), which may be called twice. Races: a grant that crosses a timeout finds the stream
closed, and is given back by the same ``finally``; ``release`` is a call that is answered, so that
who acquires after it finds the permit free, or its next holder.

The actor does not outlive its creator (docs/util.md). State is not carried from one to the next:
when it has died every ``acquire`` fails, rather than give a permit that another may hold still.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Any

import freehold as fh

#: Calls that may wait or hold at once; each is one coroutine.
MOST_CALLS = 1 << 20


class PermitActor:
    """Permits, those who hold them, and those who wait in line."""

    def __init__(self, permits: int) -> None:
        self._permits = permits
        self._next = 0
        self._line: OrderedDict[int, asyncio.Event] = OrderedDict()
        self._held: dict[int, asyncio.Event] = {}

    async def permits(self) -> int:
        """How many there are in all."""
        return self._permits

    async def free(self) -> int:
        """How many nobody holds."""
        return self._permits - len(self._held)

    async def hold(self, wait: bool) -> AsyncIterator[int | None]:
        """Wait for a permit, yield a ticket for it, and keep it until its release. None at once if
        there is no permit and ``wait`` is False.
        """
        if not wait and (self._line or len(self._held) >= self._permits):
            yield None
            return
        self._next += 1
        ticket, turn = self._next, asyncio.Event()
        self._line[ticket] = turn
        self._serve()
        try:
            await turn.wait()
            yield ticket
            over = self._held.get(ticket)
            if over is not None:
                await over.wait()
        finally:
            self._leave(ticket)

    async def release(self, ticket: int) -> None:
        """Its holder is done."""
        self._leave(ticket)

    def _leave(self, ticket: int) -> None:
        self._line.pop(ticket, None)
        over = self._held.pop(ticket, None)
        if over is not None:
            over.set()
        self._serve()

    def _serve(self) -> None:
        """Give free permits to the first in line."""
        while self._line and len(self._held) < self._permits:
            ticket, turn = self._line.popitem(last=False)
            self._held[ticket] = asyncio.Event()
            turn.set()


class Semaphore:
    """A number of permits that share a name in the whole cluster.

    ``with semaphore:`` or ``async with semaphore:`` holds one. They are given in the order of
    asking. What a process holds is free again when that process dies, or drops the ``Semaphore``
    that has acquired it: keep that while you hold it.

    Args:
        name: everybody who says this name, in the same namespace, means the same permits. The
            actor behind it belongs to the process that said it first, and ends with it.
        value: how many permits there are.

    Raises:
        ValueError: the name stands for another number of permits.
    """

    _word = "semaphore"

    def __init__(self, name: str, value: int = 1) -> None:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"value must be a whole number, not {value!r}")
        if value < 1:
            raise ValueError(f"a semaphore has at least 1 permit, not {value}")
        self._start(name, named_actor(PermitActor, self._word, name, value))
        there = fh.get(self._actor.permits.remote())
        if there != value:
            raise ValueError(f"{self._word} {name!r} has {there} permits already, not {value}")

    def _start(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor
        self._held: deque[tuple[int, fh.ObjectRefGenerator[Any]]] = deque()
        self._guard = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """Take a permit; whether there was one. Waits for it, for ``timeout`` seconds if given,
        unless ``blocking`` is False.
        """
        wait = checked_wait(blocking, timeout)
        stream = self._actor.hold.remote(wait)
        try:
            ref = stream.next_ready(timeout if wait else None)
        except fh.errors.GetTimeoutError:
            stream.close()
            return False
        return self._granted(fh.get(ref), stream)

    async def acquire_async(
        self,
        blocking: bool = True,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bool:
        """``acquire`` for coroutines."""
        wait = checked_wait(blocking, timeout)
        stream = self._actor.hold.remote(wait)
        try:
            async with asyncio.timeout(timeout if wait else None):
                ref = await anext(stream)
                ticket = await ref
        except TimeoutError:
            stream.close()
            return False
        return self._granted(ticket, stream)

    def _granted(self, ticket: int | None, stream: fh.ObjectRefGenerator[Any]) -> bool:
        if ticket is None:
            return False
        with self._guard:
            self._held.append((ticket, stream))
        return True

    def release(self) -> None:
        """Give back the permit that this object has held for longest. Raises RuntimeError if it
        holds none.
        """
        ticket, _stream = self._given_back()
        fh.get(self._actor.release.remote(ticket))

    async def release_async(self) -> None:
        """``release`` for coroutines."""
        ticket, _stream = self._given_back()
        await self._actor.release.remote(ticket)

    def _given_back(self) -> tuple[int, fh.ObjectRefGenerator[Any]]:
        with self._guard:
            if not self._held:
                raise RuntimeError(
                    f"{self!r} is not held by this object: release() belongs to the one that "
                    "acquired it"
                )
            return self._held.popleft()

    def free(self) -> int:
        """How many permits nobody holds; others may change that at any time."""
        return fh.get(self._actor.free.remote())  # type: ignore[no-any-return]

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    async def __aenter__(self) -> None:
        await self.acquire_async()

    async def __aexit__(self, *_: object) -> None:
        await self.release_async()

    def __reduce__(self) -> Any:
        return _arrived, (type(self), self.name, self._actor)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Lock(Semaphore):
    """One holder at a time, in the whole cluster. As ``Semaphore``, with one permit; not
    re-entrant.
    """

    _word = "lock"

    def __init__(self, name: str) -> None:
        super().__init__(name)

    def locked(self) -> bool:
        """Whether somebody holds it; others may change that at any time."""
        return self.free() == 0


def _arrived(kind: type[Semaphore], name: str, actor: Any) -> Semaphore:
    """One that was passed on: it holds nothing yet."""
    made = kind.__new__(kind)
    made._start(name, actor)
    return made


#: The actors behind the names that this process has said, by name. A name alone keeps no actor: one
#: made by ``Event("go").set()`` would be gone, with what was set, before the next process says it.
_said: dict[str, Any] = {}


def named_actor(kind: type, word: str, name: str, *args: Any) -> Any:
    """The actor that this name stands for; made if there is none, and kept for this process's
    life.
    """
    if not isinstance(name, str):
        raise TypeError(f"the {word}'s name must be a string, not {name!r}")
    if not name:
        raise ValueError(f"the {word}'s name must not be empty")
    options = {"name": f"{word}:{name}", "get_if_exists": True, "max_concurrency": MOST_CALLS}
    remote: Any = fh.remote(kind)
    actor = _said[f"{word}:{name}"] = remote.options(**options).remote(*args)
    return actor


def checked_wait(blocking: bool, timeout: float | None) -> bool:
    """Whether to wait at all. Raises ValueError."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be >= 0 seconds or None, not {timeout}")
    if timeout is not None and not blocking:
        raise ValueError("blocking=False does not wait: it takes no timeout")
    return blocking and timeout != 0
