"""``map`` and ``starmap`` for functions that need not be remote yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from freehold.api.mapping import Mapped
from freehold.api.remote import RemoteFunction, remote

R = TypeVar("R")


def map(  # noqa: A001  # the name that everybody looks for
    function: RemoteFunction[..., R] | Callable[..., R],
    /,
    *iterables: Iterable[Any],
    ordered: bool = True,
    return_exceptions: bool = False,
    batch_size: int | None = None,
) -> Mapped[R]:
    """Call a function, remote or plain, for every item; return an iterator over the values. See
    ``RemoteFunction.map``.
    """
    return _remote(function).map(
        *iterables, ordered=ordered, return_exceptions=return_exceptions, batch_size=batch_size
    )


def starmap(
    function: RemoteFunction[..., R] | Callable[..., R],
    items: Iterable[Iterable[Any]],
    /,
    *,
    ordered: bool = True,
    return_exceptions: bool = False,
    batch_size: int | None = None,
) -> Mapped[R]:
    """The same, where each item is a tuple of arguments."""
    return _remote(function).starmap(
        items, ordered=ordered, return_exceptions=return_exceptions, batch_size=batch_size
    )


def _remote(function: Any) -> RemoteFunction[Any, Any]:
    return function if isinstance(function, RemoteFunction) else remote(function)
