"""Which strategy, and why: by size of the data against memory, and by number and size of parts.

The simple shuffle moves every byte once, the others twice, so it wins unless its parts are many
and small. A part costs the driver half a kilobyte and a fraction of a millisecond; below 100 KiB
it travels through the driver's memory; and one that was spilled costs a seek, which is worth it
only if it is large. The merging strategies make fewer and larger parts, at the price of a merge.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from freehold.shuffle.shape import PART_TARGET, Job, Room, Strategy

NAME = "auto"
STRATEGIES = ("simple", "merge", "push", "push_pipelined", "cloudsort")

#: Parts beyond which the driver has more to do than a merge costs: 10,000 are two seconds of it.
MOST_PARTS = 10_000


def find(name: str) -> Strategy:
    """The strategy called ``name``: one of ``STRATEGIES``, or "auto".

    Raises ValueError for any other.
    """
    if name != NAME and name not in STRATEGIES:
        raise ValueError(f"no strategy is called {name!r}: choose {', '.join(STRATEGIES)} or auto")
    strategy: Strategy = importlib.import_module(f"freehold.shuffle.{name}").shuffle
    return strategy


def shuffle(job: Job, room: Room) -> Iterator[Any]:
    """Shuffle with the strategy that suits the job; see ``shape``."""
    total = job.block_bytes * len(job.blocks)
    name, _ = choose(total, len(job.blocks), len(job.outputs), room)
    return find(name)(job, room)


def choose(total: int, blocks: int, partitions: int, room: Room) -> tuple[str, str]:
    """The name of the strategy for ``total`` bytes, and the reason in a clause."""
    parts = max(1, blocks * partitions)
    size = total // parts
    if parts > MOST_PARTS and size < PART_TARGET:
        return "push_pipelined", (
            f"{blocks} blocks x {partitions} partitions are {parts:,} parts of {size:,} bytes: "
            "merged, they are fewer and larger"
        )
    if size < PART_TARGET and 2 * total > room.store_total:
        return "push_pipelined", (
            f"{total:,} bytes do not stay in {room.store_total:,} of memory, and {parts:,} parts "
            f"of {size:,} bytes are too small for the disk"
        )
    return "simple", f"{parts:,} parts of {size:,} bytes: no need to merge them first"
