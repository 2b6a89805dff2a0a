"""get, put, wait, cancel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar, overload

from freehold.api import session
from freehold.api.generators import ObjectRefGenerator, awaited_id
from freehold.api.refs import ObjectRef
from freehold.core.cancelling import GRACE
from freehold.ids import ObjectId

T = TypeVar("T")


@overload
def get(refs: ObjectRef[T], *, timeout: float | None = None, writable: bool = False) -> T: ...
@overload
def get(
    refs: Sequence[ObjectRef[T]], *, timeout: float | None = None, writable: bool = False
) -> list[T]: ...
def get(refs: Any, *, timeout: float | None = None, writable: bool = False) -> Any:
    """The value of a reference, or the values of a list of them, in order.

    Waits until they are there. Large arrays are views of shared memory: read-only, and no copy. A
    value that failed raises its error as soon as it is known, whatever the others do.

    Args:
        timeout: seconds to wait at most; 0 only looks. Inside a task, the task's CPU is lent out
            meanwhile.
        writable: give arrays that may be changed. They are private copies, made page by page
            as they are written; the stored value stays as it is.

    Raises:
        The task's own exception (which is also a TaskError), or a system error from
            ``freehold.errors``.
        GetTimeoutError: it says what the value waits for.
    """
    checked_timeout(timeout)
    if isinstance(refs, ObjectRef):
        refs._check()
        return refs._process.get([refs], timeout, writable=writable)[0]
    if isinstance(refs, ObjectRefGenerator):
        raise TypeError(
            "get() takes no generator: iterate over it and get each reference, or get(list(...)) "
            "of it for all. With num_returns=n a generator function returns n references instead"
        )
    if not isinstance(refs, list):
        raise TypeError(f"get() takes an ObjectRef or a list of them, not {_kind(refs)}")
    for index, ref in enumerate(refs):
        if not isinstance(ref, ObjectRef):
            raise TypeError(f"get() takes ObjectRefs; item {index} of the list is {_kind(ref)}")
        if ref._process.closed:
            ref._check()
    if not refs:
        return []
    return refs[0]._process.get(refs, timeout, writable=writable)


def explain(ref: ObjectRef[Any], *, timeout: float = 1.0) -> str:
    """What the value waits for, through every process concerned, as text of a few lines: the task
    that makes it, where that runs or why it is queued, what it waits for in turn. Tasks that wait
    for each other in a circle are named. The same text stands in GetTimeoutError.

    Args:
        timeout: seconds to wait for answers at most; whoever is silent is told as such. 0 asks
            nobody and tells what this process knows.
    """
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"explain() takes an ObjectRef, not {_kind(ref)}")
    checked_timeout(timeout, never=False)
    ref._check()
    return "\n".join(ref._process.explainer.lines([ref._ref.object], timeout))


def put(value: T) -> ObjectRef[T]:
    """Store a value and return a reference to it. This process owns it.

    Raises TypeError for a reference (it names a value already), SerializationError for what
    cannot travel, ObjectStoreFullError if there is no room and none comes free.
    """
    if isinstance(value, ObjectRef):
        raise TypeError("put() of an ObjectRef: it names a value already; pass it on as it is")
    return session.connected().put(value)  # type: ignore[return-value]


@overload
def wait(
    refs: Sequence[ObjectRef[T]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[ObjectRef[T]], list[ObjectRef[T]]]: ...
@overload
def wait(
    refs: Sequence[ObjectRef[Any] | ObjectRefGenerator[Any]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]: ...
def wait(
    refs: Sequence[Any],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,
) -> tuple[list[Any], list[Any]]:
    """Wait until ``num_returns`` of the values are there; return (ready, not ready), each in the
    given order.

    ``ready`` has at most ``num_returns`` entries, fewer only if the timeout (seconds) is over. A
    failed task counts as ready. With ``fetch_local`` large values are brought to this machine
    before they count; without, it is enough that they exist. A generator may stand in the list:
    it is ready when ``next`` has an answer, a reference or the end.
    """
    awaited = checked_refs("wait", refs, num_returns)
    checked_timeout(timeout)
    if not refs:
        return [], []
    return parted(refs, session.connected().ready(awaited, num_returns, timeout, fetch=fetch_local))


def parted(refs: Sequence[Any], places: list[int]) -> tuple[list[Any], list[Any]]:
    """Those that stand at these places, and the others."""
    if len(places) == 1:
        rest = list(refs)
        return [rest.pop(places[0])], rest
    taken = set(places)
    rest = [ref for index, ref in enumerate(refs) if index not in taken]
    return [refs[place] for place in places], rest


def checked_refs(function: str, refs: Any, num_returns: Any) -> list[ObjectId]:
    """What a list given to ``wait`` stands for. Raises TypeError and ValueError as it does."""
    if isinstance(refs, ObjectRef | ObjectRefGenerator):
        raise TypeError(f"{function}() takes a list of ObjectRefs, not one {type(refs).__name__}")
    if not isinstance(refs, list | tuple):
        raise TypeError(f"{function}() takes a list of ObjectRefs, not {_kind(refs)}")
    try:  # (a loop of waits comes here with n, n-1, ... refs; nothing else has an id there)
        awaited = [ref._ref.object for ref in refs if not ref._process.closed]
    except AttributeError:
        awaited = []
    if len(awaited) != len(refs):
        awaited = [checked_id(function, index, ref) for index, ref in enumerate(refs)]
    if len(set(awaited)) != len(refs):
        raise ValueError(f"{function}() takes each ObjectRef once; the list has duplicates")
    if isinstance(num_returns, bool) or not isinstance(num_returns, int):
        raise TypeError(f"num_returns must be an integer, not {_kind(num_returns)}")
    if refs and not 1 <= num_returns <= len(refs):
        raise ValueError(
            f"num_returns must be between 1 and the {len(refs)} refs, not {num_returns}"
        )
    return awaited


def checked_id(function: str, index: int, ref: Any) -> ObjectId:
    """What one item of such a list stands for."""
    if not isinstance(ref, ObjectRef | ObjectRefGenerator):
        raise TypeError(f"{function}() takes ObjectRefs; item {index} of the list is {_kind(ref)}")
    return awaited_id(ref)


def cancel(
    ref: ObjectRef[Any] | ObjectRefGenerator[Any],
    *,
    force: bool = False,
    recursive: bool = True,
    grace: float = GRACE,
) -> None:
    """Cancel the task that makes the value.

    Queued: it never runs. Running: its token is set (``get_runtime_context().is_cancelled()``) and
    TaskCancelledError raised in it, also in sleeps and blocking calls. ``except Exception`` does
    not catch that one, as with Ctrl-C; ``finally`` runs. ``get`` then raises TaskCancelledError,
    unless the task catches it and returns a value. Finished: nothing happens, as with values of
    ``put`` and with those whose owner is gone.

    Args:
        force: kill the task's worker if the task has not ended when the grace is over. Tasks that
            lie behind it run again at no cost; what the worker owned comes back as after any
            death.
        recursive: the same for the tasks that it has submitted.
        grace: seconds from the interruption to the killing; 0: at once. Without ``force``: cancels
            that come within so many seconds of an interruption do not interrupt again (later ones
            do).
    """
    if isinstance(ref, ObjectRefGenerator):
        ref = ref._completed
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"cancel() takes an ObjectRef, not {_kind(ref)}")
    for name, value in (("force", force), ("recursive", recursive)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, not {_kind(value)}")
    if isinstance(grace, bool) or not isinstance(grace, int | float):
        raise TypeError(f"grace must be seconds, not {_kind(grace)}")
    if not 0 <= grace < math.inf:
        raise ValueError(f"grace must be finite seconds >= 0, not {grace}")
    ref._check()
    ref._process.cancel(ref, force=force, recursive=recursive, grace=float(grace))


def checked_timeout(timeout: float | None, *, never: bool = True) -> None:
    """Raise TypeError or ValueError for what is no time to wait."""
    if not never and timeout in (None, math.inf):
        raise ValueError(f"timeout must be finite seconds, not {timeout}")
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be seconds or None, not {_kind(timeout)}")
    if math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout must be >= 0 seconds, not {timeout}")


def _kind(value: object) -> str:
    return f"{type(value).__name__} {value!r}"[:200]
