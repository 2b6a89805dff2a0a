"""``ActorPool``: a few actors that share a list of work.

It knows handles and references, and asks ``wait`` which call is done. The life of an item:
submitted -> queued here -> its call on its way on a free actor -> done -> its result taken. An
actor is free again when somebody who takes a result finds its call done, so results may be taken in
any order without an actor idling meanwhile.

A pool belongs to one thread of one process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import freehold as fh

A = TypeVar("A")
R = TypeVar("R")
V = TypeVar("V")


class Work(Generic[A]):
    """One submitted item: queued without a reference, then on its way with one."""

    __slots__ = ("actor", "function", "ref", "value")

    def __init__(self, function: Callable[[A, Any], Any], value: Any) -> None:
        self.function = function
        self.value = value
        self.actor: A | None = None
        self.ref: fh.ObjectRef[Any] | None = None


class ActorPool(Generic[A]):
    """Spreads calls over actors: each has one call at a time, the rest waits here.

    ``function`` is everywhere called as ``function(actor, value)`` and returns the reference of a
    call: ``pool.map(lambda actor, x: actor.double.remote(x), range(8))``.

    Args:
        actors: handles. Raises ValueError for one that comes twice.
    """

    def __init__(self, actors: Iterable[A]) -> None:
        self._idle: deque[A] = deque()
        self._pending: deque[Work[A]] = deque()  # in order of submission; results not taken yet
        self._queued: deque[Work[A]] = deque()  # those of them that have no actor yet
        self._members: set[A] = set()
        self._unordered = False
        for actor in actors:
            self.push(actor)

    # ------------------------------------------------------------------ work

    def submit(self, function: Callable[[A, V], Any], value: V) -> None:
        """Have ``function(actor, value)`` called on the next actor that is free."""
        if not callable(function):
            raise TypeError(f"submit() takes a function of (actor, value), not {function!r}")
        if not self._members:
            raise ValueError("the pool has no actors: push() one")
        work: Work[A] = Work(function, value)
        self._queued.append(work)
        self._pending.append(work)
        try:
            self._start()
        except BaseException:
            self._forget(work)
            raise

    def has_next(self) -> bool:
        """Whether a result is still to be taken."""
        return bool(self._pending)

    def get_next(self, timeout: float | None = None, *, ignore_if_timedout: bool = False) -> Any:
        """The result of the earliest submission that was not taken; raises what its call raised.

        Args:
            timeout: seconds; when they are over, TimeoutError, and the result can still be taken.
            ignore_if_timedout: give that result up instead, and return None.

        Raises:
            StopIteration: there is none.
            ValueError: ``get_next_unordered`` has taken results since the pool was last empty.
        """
        self._check_there()
        if self._unordered:
            raise ValueError(
                "get_next() after get_next_unordered(): what comes next in order is not known "
                "before all results were taken"
            )
        return self._take(lambda: self._pending[0], timeout, ignore_if_timedout)

    def get_next_unordered(
        self, timeout: float | None = None, *, ignore_if_timedout: bool = False
    ) -> Any:
        """The result of whichever call is done first; else as ``get_next``. What
        ``ignore_if_timedout`` gives up is then the earliest submission.
        """
        self._check_there()
        self._unordered = True
        return self._take(self._first_done, timeout, ignore_if_timedout)

    def map(self, function: Callable[[A, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """The results for all values, in their order. Work begins at once; results of earlier
        submissions that nobody has taken are dropped.
        """
        return self._mapped(function, values, self.get_next)

    def map_unordered(self, function: Callable[[A, V], Any], values: Iterable[V]) -> Iterator[Any]:
        """The results for all values, as they come; else as ``map``."""
        return self._mapped(function, values, self.get_next_unordered)

    # ------------------------------------------------------------------ actors

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._queued

    def pop_idle(self) -> A | None:
        """Take an idle actor out of the pool; None if there is none."""
        if not self.has_free():
            return None
        actor = self._idle.popleft()
        self._members.discard(actor)
        return actor

    def push(self, actor: A) -> None:
        """Add an actor. Raises ValueError for one that is in the pool already, idle or busy."""
        if not isinstance(actor, fh.ActorHandle):
            raise TypeError(f"a pool takes handles of actors, not {actor!r}"[:200])
        if actor in self._members:
            raise ValueError(f"{actor!r} belongs to the pool already")
        self._members.add(actor)
        self._idle.append(actor)
        self._start()

    # ------------------------------------------------------------------ inside

    def _mapped(
        self, function: Callable[[A, V], Any], values: Iterable[V], take: Callable[[], Any]
    ) -> Iterator[Any]:
        while self._pending:
            self._forget(self._pending[0], wait=True)
        self._unordered = False
        for value in values:
            self.submit(function, value)

        def results() -> Iterator[Any]:
            while self.has_next():
                yield take()

        return results()

    def _start(self) -> None:
        """Give queued work to idle actors."""
        while self._queued and self._idle:
            work = self._queued[0]
            ref = work.function(self._idle[0], work.value)
            if not isinstance(ref, fh.ObjectRef):
                raise TypeError(
                    "a pool's function returns the reference of a call, as in lambda actor, x: "
                    f"actor.method.remote(x); this one returned {ref!r}"[:200]
                )
            self._queued.popleft()
            work.ref, work.actor = ref, self._idle.popleft()

    def _take(self, choose: Callable[[], Work[A]], timeout: float | None, ignore: bool) -> Any:
        if timeout is not None and timeout < 0:
            raise ValueError(f"timeout must be >= 0 seconds or None, not {timeout}")
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            work = choose()
            if self._done(work):
                break
            refs = [work.ref] if work.ref is not None else []
            if not refs or self._unordered:
                refs = [other.ref for other in self._pending if other.ref is not None]
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not fh.wait(refs, timeout=left, fetch_local=False)[0]:
                if ignore:
                    self._forget(work)
                    return None
                raise TimeoutError(f"no result of the pool within {timeout:g} s")
            self._collect()
        ref = work.ref
        self._forget(work)
        assert ref is not None
        return fh.get(ref)

    def _first_done(self) -> Work[A]:
        """Work that is done, else the earliest that is on its way, else the earliest."""
        self._collect()
        return next((work for work in self._pending if self._done(work)), self._pending[0])

    def _done(self, work: Work[A]) -> bool:
        return work.ref is not None and bool(fh.wait([work.ref], timeout=0, fetch_local=False)[0])

    def _collect(self) -> None:
        """Actors whose calls are done are free."""
        busy = {
            work.ref: work
            for work in self._pending
            if work.ref is not None and work.actor is not None
        }
        if busy:
            for ref in fh.wait(list(busy), num_returns=len(busy), timeout=0, fetch_local=False)[0]:
                self._free(busy[ref])
        self._start()

    def _free(self, work: Work[A]) -> None:
        """Its call is done, or given up."""
        if work.actor is not None:
            self._idle.append(work.actor)
            work.actor = None

    def _forget(self, work: Work[A], *, wait: bool = False) -> None:
        """It is taken, given up or dropped."""
        if wait and work.ref is not None and work.actor is not None:
            fh.wait([work.ref], fetch_local=False)
        self._pending.remove(work)
        if work in self._queued:
            self._queued.remove(work)
        self._free(work)
        if not self._pending:
            self._unordered = False
        self._start()

    def _check_there(self) -> None:
        if not self._pending:
            raise StopIteration("no more results: has_next() tells beforehand")

    def __repr__(self) -> str:
        return (
            f"ActorPool({len(self._members)} actors, {len(self._idle)} idle, "
            f"{len(self._pending)} results not taken)"
        )
