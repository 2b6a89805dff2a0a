"""The push shuffle: map outputs are merged, while the job goes on, by who will reduce them.

Partitions lie in groups, one for each CPU. A map cuts its block into one part per group; after
each round of maps one merge per group takes the parts of that round and cuts them into partitions.
So there are M x G parts on the way and M / F x R that stay. Rounds follow each other: maps, then
their merges, then the next maps.

Map outputs are kept to the end. When a node takes merged parts with it, they are merged again from
map outputs that live, and only lost blocks are read again; the price is memory, or disk, for the
data a second time. ``push_pipelined`` makes the other choice.

Source: Magnet (VLDB 2020), the push variant of Exoshuffle.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from freehold.shuffle.shape import Job, Room, Tasks, batches, bounded, spread


def shuffle(job: Job, room: Room) -> Iterator[Any]:
    """Shuffle, yielding the notes of maps and merges, then those of reduces; see ``shape``."""
    tasks = Tasks(job)
    groups = room.groups(job)
    columns: list[list[Any]] = [[] for _ in job.outputs]
    kept = []

    def maps(batch: list[Any], pushed: list[list[Any]]) -> Iterator[Any]:
        for block in batch:
            parts, note = tasks.map(block, groups)
            spread(parts, pushed)
            yield note

    def merges(pushed: list[list[Any]]) -> Iterator[Any]:
        for (first, last), parts in zip(pairwise(groups), pushed, strict=True):
            place = room.place(first, len(columns))
            merged, note = tasks.merge(range(first, last + 1), parts, place)
            spread(merged, columns[first:last])
            yield note

    for batch in batches(job.blocks, room.batch(job)):
        pushed: list[list[Any]] = [[] for _ in groups[1:]]
        yield from bounded(maps(batch, pushed), room.window)
        yield from bounded(merges(pushed), room.window)
        kept.append(pushed)
    yield from bounded(tasks.reduces(columns), room.window)
