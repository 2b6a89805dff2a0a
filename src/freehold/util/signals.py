"""``Event`` and ``Variable``: named things that the whole cluster can look at and wait for.

Each is one actor with coroutine methods, found by its name as a lock is. Who waits is a coroutine
in it; timeouts are measured there. A value is a copy for whoever gets it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

import freehold as fh
from freehold.util.locks import checked_wait, named_actor

T = TypeVar("T")


class BoardActor:
    """One value, or none, and those who wait for it."""

    def __init__(self) -> None:
        self._value: tuple[Any, ...] = ()
        self._there = asyncio.Event()

    async def set(self, value: Any) -> None:
        """There it is."""
        self._value = (value,)
        self._there.set()

    async def clear(self) -> None:
        """There is none."""
        self._value = ()
        self._there.clear()

    async def look(self) -> tuple[Any, ...]:
        """The value; () for none."""
        return self._value

    async def get(self, seconds: float | None) -> tuple[Any, ...]:
        """The value, when there is one; () if there was none in time."""
        try:
            async with asyncio.timeout(seconds):
                while not self._value:  # (it may have been cleared before we woke)
                    await self._there.wait()
        except TimeoutError:
            return ()
        return self._value


class Event:
    """Something that has happened, or not yet, for the whole cluster.

    Args:
        name: everybody who says this name, in the same namespace, means the same event. The actor
            behind it belongs to the process that said it first, and ends with it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._actor = named_actor(BoardActor, "event", name)

    def set(self) -> None:
        """It has happened: wake all that wait."""
        fh.get(self._actor.set.remote(None))

    def clear(self) -> None:
        """It has not happened."""
        fh.get(self._actor.clear.remote())

    def is_set(self) -> bool:
        """Whether it has happened."""
        return bool(fh.get(self._actor.look.remote()))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it happens, for ``timeout`` seconds if given; whether it has."""
        checked_wait(True, timeout)
        return bool(fh.get(self._actor.get.remote(timeout)))

    async def wait_async(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> bool:
        """``wait`` for coroutines."""
        checked_wait(True, timeout)
        return bool(await self._actor.get.remote(timeout))

    def __repr__(self) -> str:
        return f"Event({self.name!r})"


class Variable(Generic[T]):
    """A value that the whole cluster can set and get: small settings, the newest weights.

    Args:
        name: everybody who says this name, in the same namespace, means the same variable. The
            actor behind it belongs to the process that said it first, and ends with it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._actor = named_actor(BoardActor, "variable", name)

    def set(self, value: T) -> None:
        """Give it a value, in place of the one it has."""
        fh.get(self._actor.set.remote(value))

    def get(self, timeout: float | None = None) -> T:
        """Its value. Waits until it has one; TimeoutError after ``timeout`` seconds if given."""
        checked_wait(True, timeout)
        return self._found(fh.get(self._actor.get.remote(timeout)), timeout)

    async def get_async(
        self,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> T:
        """``get`` for coroutines."""
        checked_wait(True, timeout)
        return self._found(await self._actor.get.remote(timeout), timeout)

    async def set_async(self, value: T) -> None:
        """``set`` for coroutines."""
        await self._actor.set.remote(value)

    def delete(self) -> None:
        """Take its value away: ``get`` waits for the next."""
        fh.get(self._actor.clear.remote())

    def _found(self, found: tuple[T, ...], timeout: float | None) -> T:
        if not found:
            raise TimeoutError(f"{self!r} was not set within {timeout:g} s")
        return found[0]

    def __repr__(self) -> str:
        return f"Variable({self.name!r})"
