"""The simple shuffle: every block is mapped to one part per partition, every partition reduced.

Theory of operation
-------------------
This page is the whole strategy; there is no more to a shuffle on distributed futures. Mapping a
block makes as many refs as there are partitions. Reducing partition r takes the r-th ref of every
block as arguments. Where the parts live, when they move, and what goes to disk when memory is
short is the runtime's business: it sees refs, pins arguments of running tasks, prefetches those
of waiting ones, and frees a part once no task needs it.

Two duties remain here. *Bound what is in flight*: a task is submitted only when one before it has
ended, so that a job of any size asks for a bounded share of memory at a time. *Let go early*: the
refs of a partition are dropped as soon as its reduce task is submitted (the task holds them from
then on), so its parts are freed the moment it ends.

Source: the simple variant ("ES-simple") of Exoshuffle, SIGCOMM 2023. It makes M x R parts, so it
is the best choice while M x R stays in the ten thousands; beyond, merge before you reduce.

This file must not know what a block, a part or an output is, nor any part of the runtime but its
public names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import freehold as fh

#: Seconds for cancelled tasks to end. A task is interrupted between two calls into numpy or the
#: system, of which the longest (a radix pass, a write of 1 MiB to a busy disk) takes far less.
CANCEL_PATIENCE = 5.0


def shuffle(
    blocks: Iterable[Any],
    mapper: Callable[..., Any],
    outputs: Sequence[Any],
    reducer: Callable[..., Any],
    *,
    shared: Sequence[Any] = (),
    window: int = 8,
) -> Iterator[Any]:
    """Shuffle ``blocks`` into ``outputs``; yield what each task has to say as it ends.

    ``mapper(block, *shared)`` gives (returns or, better, yields one at a time) one part for each
    of the outputs, and last a *note*: a small value for the caller, such as a count.
    ``reducer(output, *parts)`` gets the parts in the order of the blocks, puts the result where
    ``output`` says, and returns a note too. All notes of the maps come before all those of the
    reduces; within a stage they come in order of completion. At most ``window`` tasks are in
    flight. A task's exception is raised here, and what is in flight is cancelled.
    """
    columns: list[list[Any]] = [[] for _ in outputs]
    map_task = fh.remote(mapper).options(num_returns=len(columns) + 1, name="map")
    reduce_task = fh.remote(reducer).options(name="reduce")

    def maps() -> Iterator[Any]:
        for block in blocks:
            *parts, note = map_task.remote(block, *shared)
            for column, part in zip(columns, parts, strict=True):
                column.append(part)
            parts.clear()
            yield note

    def reduces() -> Iterator[Any]:
        for output, column in zip(outputs, columns, strict=True):
            result = reduce_task.remote(output, *column)
            column.clear()
            yield result

    yield from bounded(maps(), window)
    yield from bounded(reduces(), window)


def bounded(refs: Iterable[Any], window: int) -> Iterator[Any]:
    """The values of ``refs`` in order of completion, with at most ``window`` of them pending.

    ``refs`` is consumed lazily: when taking the next ref submits a task, as a generator does,
    this bounds the tasks in flight. ``fetch_local=False``: waiting moves no data. When a task
    fails, or the user interrupts, those still pending are cancelled and seen to their end, so
    that they have put away what they had in hand before the caller's own clean-up.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    source = iter(refs)
    pending: list[Any] = []
    try:
        while True:
            pending.extend(islice(source, window - len(pending)))
            if not pending:
                return
            done, pending = fh.wait(pending, num_returns=1, fetch_local=False)
            yield from fh.get(done)
    except (Exception, KeyboardInterrupt):
        for ref in pending:
            fh.cancel(ref)
        if pending:
            fh.wait(pending, num_returns=len(pending), timeout=CANCEL_PATIENCE, fetch_local=False)
        raise
