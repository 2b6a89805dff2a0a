"""The pre-shuffle merge: a few whole map outputs are merged first, and cut into partitions then.

A map leaves its block in one part. Each batch of F neighbouring blocks is merged by one task into
a part per partition, so there are M / F x R parts instead of M x R, each F times as large: fewer
and larger pieces for the disk and the network, at the price of writing and reading everything once
more. A merge waits for its maps where it is submitted, so merges of one batch run beside the maps
of the next.

Source: Riffle (EuroSys 2018), the merge variant of Exoshuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freehold.shuffle.shape import Edges, Job, Room, Tasks, batches, bounded, spread


def shuffle(job: Job, room: Room, stretch: Edges | None = None) -> Iterator[Any]:
    """Shuffle, yielding the notes of maps and merges, then those of reduces; see ``shape``.

    With ``stretch``, (a, b), only partitions a to b - 1 are made.
    """
    tasks = Tasks(job)
    first, last = stretch or job.whole
    columns: list[list[Any]] = [[] for _ in range(first, last)]
    batch_size = room.batch(job)
    factor = max(2, batch_size // room.cpus, min(batch_size, job.blocks_for_parts))

    def rounds() -> Iterator[Any]:
        for batch in batches(job.blocks, factor):
            runs = []
            for block in batch:
                (run,), note = tasks.map(block, (first, last))
                runs.append(run)
                yield note
            merged, note = tasks.merge(range(first, last + 1), runs)
            spread(merged, columns)
            yield note

    yield from bounded(rounds(), room.window + factor)
    yield from bounded(tasks.reduces(columns, first), room.window)
