"""Maps: one remote function over many items, as an iterator of its values.

The life of an item: taken from its iterable -> put into a *batch* -> on its way as one task -> its
outcome (a value, or the error that it raised) in the hands of the iterator -> given out.

*Batches.* A task costs its owner some 100 us, so items that take less travel together. Each batch
says how long it has run; the next is made to run for ``BATCH_SECONDS``, at most twice as long as
the longest before, and not so long that the last workers would wait for one: where the number of
items is known, no batch takes more than a worker's eighth of what is left. An item that raises
fails alone. If a batch as a whole fails (its worker died, a value could not be sent), its items
are sent again one by one, so that only the culprit fails.

*In flight.* ``WINDOW`` batches per CPU are on their way or wait to be given out; only then is the
iterable asked for more. It may be endless, and a slow consumer holds back the producers.

It uses the public interface alone, so it works in tasks and in local mode. An iterator belongs to
one thread at a time.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Generic, TypeVar

from freehold.api import calls, session
from freehold.api.refs import ObjectRef
from freehold.errors import FreeholdError, TaskCancelledError
from freehold.ids import short
from freehold.wire.failures import dump_error, load_error

R = TypeVar("R")

#: What a batch should take: 200 times what a task costs, and a hundredth of what people notice.
BATCH_SECONDS: Final = 0.02
#: However short the items: what a message with their arguments should not exceed by far.
BATCH_ITEMS: Final = 1024
#: Batches per CPU that are under way: one that runs, one behind it, and two more whose outcomes
#: wait for a slower one (``ordered``) or for the consumer.
WINDOW: Final = 4


class Failed:
    """Stands for the value of an item that raised; ``error`` is in its shipped form on the way."""

    __slots__ = ("error",)

    def __init__(self, error: bytes | BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return Failed, (self.error,)

    def load(self) -> BaseException:
        """The error."""
        return load_error(self.error) if isinstance(self.error, bytes) else self.error


def batched(function: Callable[..., R], name: str) -> Callable[..., tuple[float, list[Any]]]:
    """The function that runs a batch. ``lengths``: how many of the arguments are each item's. All
    are at the top level, so that references among them arrive as values. (``interrupts.DOORS`` has
    its name: user code that it calls may be interrupted.)
    """

    def run_batch(lengths: Sequence[int], *flat: Any) -> tuple[float, list[Any]]:
        started = time.perf_counter()
        outcomes: list[Any] = []
        arguments = iter(flat)
        for length in lengths:
            try:
                outcomes.append(function(*itertools.islice(arguments, length)))
            except Exception as error:
                here = session.connected().node.node
                shipped = dump_error(
                    error, function_name=name, pid=os.getpid(), node_id=short(here)
                )
                outcomes.append(Failed(shipped))
        return time.perf_counter() - started, outcomes

    run_batch.__name__ = run_batch.__qualname__ = name
    return run_batch


class Batch:
    """Items on their way. ``outcomes``: None until they are here."""

    __slots__ = ("items", "outcomes", "ref")

    def __init__(self, items: list[tuple[Any, ...]]) -> None:
        self.items = items
        self.ref: ObjectRef[Any] | None = None
        self.outcomes: deque[Any] | None = None


class Mapped(Generic[R], Iterator[R]):
    """The values, one after the other. ``next`` raises the error of an item that raised, and goes
    on with the one after it when it is called again. ``close`` cancels what is on its way.
    """

    def __init__(
        self,
        function: Any,
        items: Iterator[tuple[Any, ...]],
        left: int | None,
        *,
        ordered: bool,
        return_exceptions: bool,
        batch_size: int | None,
    ) -> None:
        options = function._options
        self._function = function
        # What an option says of one call must not be said of many.
        self._alone = options.timeout < math.inf or bool(options.retry_exceptions)
        self._items = items
        self._left = left  # None: unknown
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        self._size = batch_size or 1
        self._fixed = batch_size is not None
        self._batches: deque[Batch] = deque()
        self._seconds: float | None = None  # per item, a running mean
        cpus = session.cluster_resources().get("CPU", 1.0) / (options.num_cpus or 1)
        self._workers = max(1, int(cpus))
        self._fill()

    def __iter__(self) -> Mapped[R]:
        return self

    def __next__(self) -> R:
        while True:
            batch = self._ready()
            if batch is None:
                raise StopIteration
            if not batch.outcomes:
                self._batches.remove(batch)
                self._fill()
                continue
            outcome = batch.outcomes.popleft()
            if not isinstance(outcome, Failed):
                return outcome  # type: ignore[no-any-return]
            error = outcome.load()
            if self._return_exceptions:
                return error  # type: ignore[return-value]
            raise error

    def close(self) -> None:
        """Cancel what is on its way, and end. Harmless when it has ended."""
        self._items = iter(())
        batches, self._batches = self._batches, deque()
        for batch in batches:
            if batch.ref is not None and batch.outcomes is None:
                calls.cancel(batch.ref)

    def __del__(self) -> None:
        # (Not close(): a finalizer may run inside our own code, with its locks held.)
        getattr(self, "_batches", deque()).clear()

    # ------------------------------------------------------------------ there

    def _fill(self) -> None:
        """Have as many batches under way as there may be."""
        while len(self._batches) < WINDOW * self._workers:
            items = list(itertools.islice(self._items, self._next_size()))
            if not items:
                return
            if self._left is not None:
                self._left -= len(items)
            self._batches.append(batch := Batch(items))
            self._send(batch)

    def _next_size(self) -> int:
        """How many items the next batch takes."""
        if self._fixed:
            return self._size
        if self._alone or self._seconds is None:
            return 1
        wanted = int(BATCH_SECONDS / max(self._seconds, 1e-9))
        if self._left is not None:
            wanted = min(wanted, self._left // (8 * self._workers))
        return max(1, min(wanted, 2 * self._size, BATCH_ITEMS))

    def _send(self, batch: Batch) -> None:
        if self._alone:
            batch.ref = self._function.remote(*batch.items[0])
        else:
            flat = itertools.chain.from_iterable(batch.items)
            lengths = list(map(len, batch.items))
            batch.ref = self._function._batched().remote(lengths, *flat)

    # ------------------------------------------------------------------ and back

    def _ready(self) -> Batch | None:
        """The batch whose outcomes are next; None when all are given out."""
        while self._batches:
            for batch in self._batches:
                if batch.outcomes is not None:
                    return batch
                if self._ordered:
                    break
            if self._ordered:
                self._take(self._batches[0])
            else:
                under_way = {batch.ref: batch for batch in self._batches}
                (ref,), _ = calls.wait(list(under_way), num_returns=1)  # type: ignore[arg-type]
                self._take(under_way[ref])
        return None

    def _take(self, batch: Batch) -> None:
        """Wait for a batch's outcomes; break it up if it has none."""
        assert batch.ref is not None
        try:
            value = calls.get(batch.ref)
        except FreeholdError as error:
            if not batch.ref._process.closed:
                self._failed(batch, error)
                return
            raise
        batch.ref = None
        if self._alone:
            batch.outcomes = deque([value])
            return
        seconds, outcomes = value
        batch.outcomes = deque(outcomes)
        mean = seconds / len(outcomes)
        self._seconds = mean if self._seconds is None else (3 * self._seconds + mean) / 4
        if not self._fixed:
            self._size = max(self._size, len(outcomes))

    def _failed(self, batch: Batch, error: FreeholdError) -> None:
        """The task failed, not its items. Send them one by one; one that was alone has failed, and
        so have all if they were cancelled.
        """
        if len(batch.items) == 1 or isinstance(error, TaskCancelledError):
            batch.outcomes = deque(Failed(error) for _ in batch.items)
            batch.ref = None
            return
        at = self._batches.index(batch)
        del self._batches[at]
        for offset, item in enumerate(batch.items):
            alone = Batch([item])
            self._batches.insert(at + offset, alone)
            self._send(alone)


def mapped(
    function: Any,
    iterables: tuple[Iterable[Any], ...],
    *,
    ordered: bool,
    return_exceptions: bool,
    batch_size: int | None,
    star: bool = False,
) -> Mapped[Any]:
    """The iterator that ``map`` and ``starmap`` return. Raises TypeError or ValueError for what
    cannot be mapped.
    """
    what = "starmap()" if star else "map()"
    if not iterables:
        raise TypeError(f"{what} takes at least one iterable of arguments")
    for iterable in iterables:
        if isinstance(iterable, ObjectRef):
            raise TypeError(f"{what} takes iterables, not an ObjectRef: get() its value first")
        if not isinstance(iterable, Iterable):
            raise TypeError(f"{what} takes iterables, not {type(iterable).__name__} {iterable!r}")
    if function._options.num_returns != 1:
        raise ValueError(f"{what} takes functions of one return value; see num_returns")
    if batch_size is not None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int):
            raise TypeError(f"batch_size must be an integer >= 1 or None, not {batch_size!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, not {batch_size}")
    left = min((operator.length_hint(iterable, -1) for iterable in iterables), default=-1)
    items = (tuple(item) for item in iterables[0]) if star else zip(*iterables)
    return Mapped(
        function,
        iter(items),
        left if left >= 0 else None,
        ordered=ordered,
        return_exceptions=return_exceptions,
        batch_size=batch_size,
    )
