"""The simple shuffle: every block is cut into one part per partition, every partition reduced.

M blocks and R partitions make M x R parts, each written once and read once. Nothing moves more
often than it must, so this is the fastest strategy as long as there are not too many parts: a part
costs a ref in the driver and a piece in a spill file, and small ones cost the disk a seek. Beyond
some ten thousand parts, or below some 100 KB each, merge before you reduce (``push_pipelined``).

Source: the simple variant of Exoshuffle (SIGCOMM 2023), as in MapReduce.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from freehold.shuffle.shape import Job, Room, Tasks, bounded, spread


def shuffle(job: Job, room: Room) -> Iterator[Any]:
    """Shuffle, yielding the notes of all maps, then those of all reduces; see ``shape``."""
    tasks = Tasks(job)
    columns: list[list[Any]] = [[] for _ in job.outputs]

    def maps() -> Iterator[Any]:
        for block in job.blocks:
            parts, note = tasks.map(block, job.each)
            spread(parts, columns)
            yield note

    yield from bounded(maps(), room.window)
    yield from bounded(tasks.reduces(columns), room.window)
