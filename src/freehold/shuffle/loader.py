"""Training data: a table shuffled anew for every epoch, the next one behind the one in use.

Theory of operation
-------------------
``Epochs`` holds references to the pieces of a table. Iterating over it gives, for each epoch, the
references of shuffled partitions: every row once, in an order that the seed and the number of the
epoch decide. While the caller trains with epoch e, a thread has epoch e+1 shuffled
(``tables.random_shuffle``); the partitions of an epoch are freed when the caller has dropped them.
So at most two epochs exist at a time. Partitions are the unit of sharing: with N trainers, each is
given every N-th one, ``refs[rank::N]``, and nothing but references passes through the caller.

``batches`` cuts the partitions that a trainer was given into tables of some number of rows; the
last may be smaller. ``local_batches`` is the cheap alternative, without any exchange: pieces are
read in order through a window of so many rows, from which rows are drawn at random. Where the
input is ordered, by class or by date, a window smaller than a class leaves it nearly as ordered.

``dataset`` wraps either as a PyTorch ``IterableDataset``: each ``iter`` is an epoch. It is used
with ``DataLoader(..., batch_size=None)``, since batches are made here, and without worker
processes: what would run in them are the tasks of the shuffle.

PyTorch is imported only when ``dataset`` is called. This file uses the public API only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from freehold.shuffle import auto, tables
from freehold.shuffle.engine import futures


class Epochs:
    """The shuffles of a table, one after the other, the next one prepared ahead.

    ``pieces`` are Arrow tables, or references to them, all with the same columns; ``count`` is the
    number of epochs, ``partitions`` that of pieces in each (by default as many as there are
    now), ``strategy`` how they are shuffled. The same ``seed`` gives the same epochs. Iterate
    once; ``stalls`` then has the seconds that each epoch was waited for. Raises ValueError for a
    number below 1.
    """

    def __init__(
        self,
        pieces: Sequence[Any],
        count: int,
        partitions: int | None = None,
        *,
        seed: int = 0,
        strategy: str = auto.NAME,
    ) -> None:
        if count < 1:
            raise ValueError(f"count must be at least 1 epoch, not {count}")
        self.count = count
        self.partitions = len(pieces) if partitions is None else partitions
        self.seed = seed
        self.strategy = strategy
        self.stalls: list[float] = []
        put = futures().put
        self._pieces = [put(piece) if isinstance(piece, pa.Table) else piece for piece in pieces]

    def __iter__(self) -> Iterator[list[Any]]:
        # Leaving the block waits for the epoch under way, so that nothing runs on behind.
        with ThreadPoolExecutor(1, "freehold-epoch") as ahead:
            coming = ahead.submit(self._shuffled, 0)
            for epoch in range(self.count):
                begun = time.perf_counter()
                made = [coming.result()]
                self.stalls.append(time.perf_counter() - begun)
                # The old future and ``made`` let go of this epoch: only the caller holds it now.
                coming = ahead.submit(self._shuffled, epoch + 1)
                yield made.pop()

    def _shuffled(self, epoch: int) -> list[Any]:
        if epoch == self.count:
            return []
        # Seeds of neighbouring epochs must not share streams with those of neighbouring jobs.
        [seed] = np.random.SeedSequence((self.seed, epoch)).generate_state(1)
        return tables.random_shuffle(
            self._pieces, self.partitions, seed=int(seed), strategy=self.strategy
        )


def batches(refs: Iterable[Any], rows: int) -> Iterator[Any]:
    """The rows of shuffled partitions as tables of ``rows`` rows, the last of what is left.

    References are let go one by one, if the caller keeps none. Raises ValueError for no rows.
    """
    if rows < 1:
        raise ValueError(f"rows must be at least 1 in a batch, not {rows}")
    yield from _cut((futures().get(ref) for ref in refs), rows)


def local_batches(pieces: Iterable[Any], rows: int, window: int, *, seed: int = 0) -> Iterator[Any]:
    """The rows of ``pieces`` in batches, shuffled only within a window of ``window`` rows.

    Each batch is drawn at random from what is in the window, which is then filled up again from
    the pieces, in their order. ``pieces`` are Arrow tables or references. Raises ValueError for a
    window that is smaller than a batch, or no rows.
    """
    if not 1 <= rows <= window:
        raise ValueError(f"a window of {window} rows has no room for batches of {rows} rows")
    chance = np.random.default_rng(seed)
    opened = (p if isinstance(p, pa.Table) else futures().get(p) for p in pieces)
    source = _cut(opened, rows)
    held = None
    ended = False
    while not ended or (held is not None and held.num_rows):
        while not ended and (held is None or held.num_rows + rows <= window):
            fresh = next(source, None)
            ended = fresh is None
            if fresh is not None:
                held = fresh if held is None else pa.concat_tables([held, fresh]).combine_chunks()
        if held is None:
            return
        order = chance.permutation(held.num_rows)
        yield held.take(order[:rows])
        held = held.take(order[rows:])


def dataset(epochs: Iterable[Iterable[Any]], convert: Callable[[Any], Any]) -> Any:
    """A PyTorch ``IterableDataset``, of which each ``iter`` is the next of ``epochs``.

    An epoch is an iterable of batches (tables), for example ``batches(refs, 64)``; ``convert``
    turns one into tensors. Raises ImportError where PyTorch is not installed; the dataset raises
    RuntimeError when it is asked for more epochs than there are.
    """
    try:
        from torch.utils.data import IterableDataset
    except ImportError as error:
        raise ImportError("PyTorch is not installed here: pip install torch") from error

    class Shuffled(IterableDataset):  # type: ignore[misc]  # PyTorch may have no types here
        """Epochs for a ``DataLoader`` with ``batch_size=None`` and no workers."""

        def __init__(self) -> None:
            self._epochs = iter(epochs)

        def __iter__(self) -> Iterator[Any]:
            epoch = next(self._epochs, None)
            if epoch is None:
                raise RuntimeError("there are no more epochs: ask Epochs for a larger count")
            return map(convert, epoch)

    return Shuffled()


def _cut(pieces: Iterable[Any], rows: int) -> Iterator[Any]:
    """Tables of so many rows from tables of any."""
    rest = None
    for piece in pieces:
        table = piece if rest is None else pa.concat_tables([rest, piece])
        whole = table.num_rows // rows * rows
        for first in range(0, whole, rows):
            yield table.slice(first, rows)
        rest = table.slice(whole)
    if rest is not None and rest.num_rows:
        yield rest
