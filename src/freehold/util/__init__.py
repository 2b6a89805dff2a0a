"""Tools on top of tasks and actors, written with the public interface only: ``freehold.util``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import freehold as fh
from freehold.util.locks import Lock, Semaphore
from freehold.util.pool import ActorPool
from freehold.util.queue import Empty, Full, Queue
from freehold.util.signals import Event, Variable

R = TypeVar("R")

as_completed = fh.as_completed
starmap = fh.starmap
list_named_actors = fh.list_named_actors


def map_unordered(
    function: fh.RemoteFunction[..., R] | Callable[..., R],
    /,
    *iterables: Iterable[Any],
    return_exceptions: bool = False,
    batch_size: int | None = None,
) -> Iterable[R]:
    """``freehold.map`` with ``ordered=False``: the values as they come."""
    return fh.map(
        function,
        *iterables,
        ordered=False,
        return_exceptions=return_exceptions,
        batch_size=batch_size,
    )


__all__ = [
    "ActorPool",
    "Queue",
    "Empty",
    "Full",
    "Lock",
    "Semaphore",
    "Event",
    "Variable",
    "as_completed",
    "map_unordered",
    "starmap",
    "list_named_actors",
]
