"""The pipelined push shuffle: merges run beside later maps, and nothing is kept that is merged.

As in ``push``, a map cuts its block into one part per group of partitions, and a merge takes one
group's parts of F neighbouring blocks. But no round waits for another: merges are submitted with
their maps, wait where they are for what they need, and run beside the maps of later batches. What
a merge has taken is freed when it ends, so about two batches of map output exist at a time and
none of it need ever reach the disk. When a node is lost, its parts are made anew from the input.

A straggler holds up the merges of its own batch only; these are set aside while later batches are
mapped and merged. ``SLACK`` bounds how many can be.

Source: Exoshuffle's optimised push variant (push*), as in Cosco.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from freehold.shuffle.shape import Job, Room, Tasks, batches, bounded, spread

#: Batches whose merges may wait for a straggler before maps wait too.
SLACK = 2


def shuffle(job: Job, room: Room) -> Iterator[Any]:
    """Shuffle, yielding the notes of maps and merges, then those of reduces; see ``shape``."""
    tasks = Tasks(job)
    groups = room.groups(job)
    columns: list[list[Any]] = [[] for _ in job.outputs]
    size = room.batch(job)

    def rounds() -> Iterator[Any]:
        for batch in batches(job.blocks, size):
            pushed: list[list[Any]] = [[] for _ in groups[1:]]
            for block in batch:
                parts, note = tasks.map(block, groups)
                spread(parts, pushed)
                yield note
            for first, last in pairwise(groups):
                place = room.place(first, len(columns))
                merged, note = tasks.merge(range(first, last + 1), pushed.pop(0), place)
                spread(merged, columns[first:last])
                yield note

    yield from bounded(rounds(), room.window + size + SLACK * (len(groups) - 1))
    yield from bounded(tasks.reduces(columns), room.window)
