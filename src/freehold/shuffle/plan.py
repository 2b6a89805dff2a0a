"""How a sort is laid out: slices, partitions, boundaries, and a strategy that suits them.

Theory of operation
-------------------
Blocks and partitions are S = 64 MiB, less for small inputs, more for very large ones. In the store
a partition is at most an eighth of a CPU's share, and at most 2 tasks per CPU are in flight:
arguments of running and prefetched reduces take a quarter of it. Parts of at least 160 KiB keep
the data out of messages; where small partitions would make smaller ones, blocks grow instead, up
to half of a CPU's share. Example: 6 GB with 1 GiB of store and two CPUs is 90 blocks x 90
partitions.

Boundaries come from a sample of the keys, read in the driver: 100 for each partition, one from
each equal stretch of the input, all asked of the disk at once. A boundary is a key *and* a
position, so partitions are even for skewed keys and for equal ones.

This file computes and reads keys; it must not know tasks, nor the cluster beyond its ``Room``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from freehold.shuffle import auto, files, records
from freehold.shuffle.files import Slice
from freehold.shuffle.places import Place, RecordFileError, Remote
from freehold.shuffle.records import RECORD
from freehold.shuffle.shape import PART_TARGET, Room

#: Blocks and partitions of this size keep a map task's heap near 100 MiB, and a 64 MiB block is
#: sorted at 1.5 GB/s; larger ones gain nothing and fall out of the address caches.
SIZE_TARGET = 64 << 20

#: Below this a task is not worth its round trip: 1 MiB is sorted in less than 1 ms.
SIZE_LEAST = 1 << 20

#: Keys sampled per partition. The size of a partition then deviates by 1 / sqrt(100) = 10 %.
SAMPLES = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done: ``slices`` to map, how many partitions to reduce, in what manner.
    ``why`` is told where that was chosen here.
    """

    inputs: tuple[Place, ...]
    records: int
    slices: tuple[Slice, ...]
    partitions: int
    strategy: str = "simple"
    why: str = ""

    @property
    def bytes(self) -> int:
        return self.records * RECORD

    @property
    def slice_bytes(self) -> int:
        """Of the largest slice."""
        return max((piece.count for piece in self.slices), default=0) * RECORD


def make_plan(
    source: Place, room: Room, partitions: int | None = None, strategy: str = "simple"
) -> Plan:
    """Decide the slices, the number of partitions, and the strategy where that is "auto"; see the
    head of this file for the rule.
    """
    if partitions is not None and partitions < 1:
        raise RecordFileError(f"partitions must be at least 1, not {partitions}")
    inputs = tuple(files.record_files(source))
    count = sum(files.record_count(path) for path in inputs)
    total = count * RECORD
    if partitions is None:
        partitions = _tasks(total, partition_bytes(total, room), room.cpus)
    refuse_large_partitions(total, partitions, room)
    why = ""
    if strategy == auto.NAME:
        strategy, why = auto.choose(total, math.ceil(total / SIZE_TARGET), partitions, room)
    # Only the simple shuffle keeps the parts that its maps make: the others merge them first.
    single = strategy == "simple"
    size = (block_bytes if single else merged_block_bytes)(total, total // partitions, room)
    blocks = _tasks(total, size, room.cpus)
    slices = tuple(files.slices(inputs, max(1, math.ceil(count / blocks))))
    return Plan(inputs, count, slices, partitions, strategy, why)


def _tasks(total: int, size: int, cpus: int) -> int:
    """How many tasks of ``size`` bytes: whole rounds of all CPUs, so that the last is full too."""
    tasks = max(1, math.ceil(total / size))
    return tasks if tasks < cpus else math.ceil(tasks / cpus) * cpus


def partition_bytes(total: int, room: Room) -> int:
    """How large a partition should be, for ``total`` bytes of input."""
    # At least four tasks per CPU and stage, so that the last ones do not run alone; but not so
    # many that parts of a partition as large as its block would fall below PART_TARGET.
    fair = min(SIZE_TARGET, total // (4 * room.cpus))
    size = max(SIZE_LEAST, math.isqrt(total * PART_TARGET), fair)
    return min(size, max(SIZE_LEAST, _share(room) // 8))


def block_bytes(total: int, partition: int, room: Room) -> int:
    """How large a block should be: as a partition, or larger where its parts would be small."""
    for_parts = min(total * PART_TARGET // max(1, partition), _share(room) // 2)
    return max(SIZE_LEAST, min(partition, SIZE_TARGET), for_parts)


def merged_block_bytes(total: int, partition: int, room: Room) -> int:
    """How large a block should be where parts are merged: two batches of several are in memory
    with what was merged before. The size of a partition does not matter.
    """
    fair = min(SIZE_TARGET, total // (4 * room.cpus))
    return max(SIZE_LEAST, min(fair, _share(room) // 16))


def _share(room: Room) -> int:
    """A CPU's share of its node's store."""
    return room.store_bytes * room.nodes // max(room.nodes, room.cpus)


def refuse_large_partitions(total: int, partitions: int, room: Room) -> None:
    """A reduce task has its whole partition in its node's store, and the next task's may wait
    there already: those of a node must fit in half of the store.
    """
    running = math.ceil(min(partitions, room.cpus) / room.nodes)
    most = room.store_bytes // 2 // running
    if total > most * partitions:
        raise RecordFileError(
            f"partitions of {total // partitions:,} bytes are too large: the {running} that a "
            f"node reduces at once may fill half of its object store of {room.store_bytes:,}; "
            f"give {math.ceil(2 * total / _share(room))} partitions or more"
        )


def refuse_same_folder(inputs: Sequence[Place], target: Place) -> None:
    """Output beside input would be read as input the next time, and overwrite could delete it."""
    for path in inputs:
        if _folder(path) == (target if isinstance(target, Remote) else target.resolve()):
            raise RecordFileError(
                f"the input {path} lies in the output folder {target}: give another output folder"
            )


def _folder(path: Place) -> Place:
    """The folder that a file is really in."""
    return path.parent if isinstance(path, Remote) else path.resolve().parent


def sample_bounds(plan: Plan) -> NDArray[np.void]:
    """The boundaries between partitions, from an even sample of the keys.

    One random record from each of ``SAMPLES x partitions`` equal stretches of the input. The
    seed is fixed: the same input gives the same partitions.
    """
    wanted = min(plan.records, SAMPLES * plan.partitions) if plan.partitions > 1 else 0
    edges = np.arange(wanted + 1, dtype=np.int64) * plan.records // max(1, wanted)
    positions = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return records.boundaries(files.read_keys(plan.inputs, positions), plan.partitions)
