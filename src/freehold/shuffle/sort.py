"""External sort of 100-byte records on the simple shuffle.

Theory of operation
-------------------
The input is a folder of record files, read as one sequence (``files.py``). It is cut into M
slices; R boundaries are chosen from a sample of the keys; then

    map     reads its slice, sorts it, and yields R sorted parts    (``records.partition``)
    reduce  merges the r-th part of every slice and writes part r   (``records.merge``)

A boundary is a key *and* a position, so partitions are even for skewed keys and for equal ones,
and the sort is stable. Every task can run again: maps only read, reduces write under a temporary
name and rename. Data moves between map and reduce through the object store alone; what does not
fit is spilled by the runtime, and this file does not know it.

Memory: blocks and partitions are S = 64 MiB (less for small inputs, more for very large ones). A
map task holds one read buffer (S, reused by the next map in the process), half of S in row
numbers and digits, and one part; a reduce task 0.45 S and two pieces of 1 MiB, since it reads its
runs in place and writes as it merges. Keys that all agree in 32 bits cost another half of S. The
driver holds about M x R refs. In the store a partition is at most an eighth of a CPU's share, and
at most 2 tasks per CPU are in flight: arguments of running and prefetched reduces take a quarter
of it. Parts of at least 160 KiB keep the data out of messages; where small partitions would make
smaller ones, blocks grow instead, up to half of a CPU's share. Example: 6 GB with 1 GiB of store
and two CPUs is 90 blocks x 90 partitions.

This file uses the public API only.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import freehold as fh
from freehold.shuffle import files, records, simple
from freehold.shuffle.files import RecordFileError, Slice
from freehold.shuffle.records import RECORD, Block

#: Blocks and partitions of this size keep a map task's heap near 100 MiB, and a 64 MiB block is
#: sorted at 1.5 GB/s; larger ones gain nothing and fall out of the address caches.
SIZE_TARGET = 64 << 20

#: Below this a task is not worth its round trip: 1 MiB is sorted in less than 1 ms.
SIZE_LEAST = 1 << 20

#: A part below the runtime's 100 KiB limit travels inside messages, through the driver's memory.
#: Parts average this much, so that few do; it makes S grow as the root of the input size.
PART_TARGET = 160 << 10

#: Keys sampled per partition. The size of a partition then deviates by 1 / sqrt(100) = 10 %.
SAMPLES = 100

#: What a node's object store is taken to hold when the cluster does not say.
STORE_ASSUMED = 1 << 30

#: Seconds between two looks at how much is spilled; nodes report every 0.1 s, a look costs 0.2 ms.
LOOK_EVERY = 0.25

#: progress(stage, bytes done, bytes of the stage in all)
Progress = Callable[[str, int, int], None]


class Done(NamedTuple):
    """A task's note: what it did, where, how long (seconds) and for how many bytes."""

    stage: str
    node: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Resources:
    """The part of the cluster's description that a plan needs; bytes are per node."""

    cpus: int
    nodes: int
    store_bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done: ``slices`` to map, and how many partitions to reduce."""

    inputs: tuple[Path, ...]
    records: int
    slices: tuple[Slice, ...]
    partitions: int


@dataclass(slots=True)
class Report:
    """What was done. ``seconds`` by stage; ``busy`` is the sum over the stage's tasks;
    ``tasks[stage][node]`` counts tasks; ``spilled_peak`` is the most bytes seen on disk at once,
    over all nodes, looked at every ``LOOK_EVERY`` seconds and at the end of the maps.
    """

    records: int
    bytes: int
    blocks: int
    partitions: int
    seconds: dict[str, float] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    tasks: dict[str, Counter[str]] = field(default_factory=dict)
    spilled_peak: int = 0

    @property
    def seconds_total(self) -> float:
        return sum(self.seconds.values())


def sort(
    source: Path | str,
    target: Path | str,
    *,
    partitions: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Sort the record files in folder ``source`` into ``part-00000`` ... in folder ``target``.

    Both folders must be reachable under the same path from every node. ``partitions`` is chosen
    from the size of the data and the cluster unless given. Stable: records with equal keys keep
    their order. Raises RecordFileError for input that is not whole records, a missing or empty
    folder, an output folder that is in use (see ``overwrite``), or a full disk.
    """
    source, target = Path(source).absolute(), Path(target).absolute()
    tell = progress or (lambda stage, done, total: None)
    clock = _Clock()
    plan = make_plan(source, cluster_resources(), partitions)
    refuse_same_folder(plan.inputs, target)
    files.clear_for_output(target, overwrite)
    report = Report(plan.records, plan.records * RECORD, len(plan.slices), plan.partitions)
    report.seconds["plan"] = clock.lap()
    bounds = sample_bounds(plan)
    report.seconds["sample"] = clock.lap()
    try:
        _run(plan, bounds, target, report, tell, clock)
    finally:
        files.remove_temporaries(target)
    return report


def _run(
    plan: Plan,
    bounds: NDArray[np.void],
    target: Path,
    report: Report,
    tell: Progress,
    clock: _Clock,
) -> None:
    outputs = [target / files.part_name(r, plan.partitions) for r in range(plan.partitions)]
    notes = simple.shuffle(
        plan.slices,
        map_slice,
        outputs,
        reduce_runs,
        shared=[fh.put(bounds)],
        window=2 * cluster_resources().cpus,
    )
    left = {"map": len(plan.slices), "reduce": len(outputs)}
    moved: Counter[str] = Counter()
    looked = 0.0
    for stage in left:
        report.seconds[stage] = report.busy[stage] = 0.0
        report.tasks[stage] = Counter()
    tell("map", 0, report.bytes)
    for done in notes:
        left[done.stage] -= 1
        moved[done.stage] += done.bytes
        report.busy[done.stage] += done.seconds
        report.tasks[done.stage][done.node] += 1
        tell(done.stage, moved[done.stage], report.bytes)
        if time.monotonic() > looked + LOOK_EVERY or not left[done.stage]:
            report.spilled_peak = max(report.spilled_peak, spilled_now())
            looked = time.monotonic()
        if not left[done.stage]:
            report.seconds[done.stage] = clock.lap()
    for stage in left:
        if moved[stage] != report.bytes:
            raise RuntimeError(f"{stage} moved {moved[stage]} of {report.bytes} bytes: a bug here")


# --- planning ----------------------------------------------------------------------------------


def make_plan(source: Path, resources: Resources, partitions: int | None = None) -> Plan:
    """Decide the slices and the number of partitions; see the head of this file for the rule."""
    if partitions is not None and partitions < 1:
        raise RecordFileError(f"partitions must be at least 1, not {partitions}")
    inputs = tuple(files.record_files(source))
    count = sum(files.record_count(path) for path in inputs)
    total = count * RECORD
    if partitions is None:
        partitions = _tasks(total, partition_bytes(total, resources), resources.cpus)
    refuse_large_partitions(total, partitions, resources)
    size = block_bytes(total, total // partitions, resources)
    blocks = _tasks(total, size, resources.cpus)
    slices = tuple(files.slices(inputs, max(1, math.ceil(count / blocks))))
    return Plan(inputs, count, slices, partitions)


def _tasks(total: int, size: int, cpus: int) -> int:
    """How many tasks of ``size`` bytes: whole rounds of all CPUs, so that the last is full too."""
    tasks = max(1, math.ceil(total / size))
    return tasks if tasks < cpus else math.ceil(tasks / cpus) * cpus


def partition_bytes(total: int, resources: Resources) -> int:
    """How large a partition should be, for ``total`` bytes of input."""
    # At least four tasks per CPU and stage, so that the last ones do not run alone; but not so
    # many that parts of a partition as large as its block would fall below PART_TARGET.
    fair = min(SIZE_TARGET, total // (4 * resources.cpus))
    size = max(SIZE_LEAST, math.isqrt(total * PART_TARGET), fair)
    return min(size, max(SIZE_LEAST, _share(resources) // 8))


def block_bytes(total: int, partition: int, resources: Resources) -> int:
    """How large a block should be: as a partition, or larger where its parts would be small."""
    for_parts = min(total * PART_TARGET // max(1, partition), _share(resources) // 2)
    return max(SIZE_LEAST, min(partition, SIZE_TARGET), for_parts)


def _share(resources: Resources) -> int:
    """A CPU's share of its node's store."""
    return resources.store_bytes * resources.nodes // max(resources.nodes, resources.cpus)


def refuse_large_partitions(total: int, partitions: int, resources: Resources) -> None:
    """A reduce task has its whole partition in its node's store, and the next task's may wait
    there already: those of a node must fit in half of the store.
    """
    running = math.ceil(min(partitions, resources.cpus) / resources.nodes)
    most = resources.store_bytes // 2 // running
    if total > most * partitions:
        raise RecordFileError(
            f"partitions of {total // partitions:,} bytes are too large: the {running} that a "
            f"node reduces at once may fill half of its object store of {resources.store_bytes:,}; "
            f"give {math.ceil(2 * total / _share(resources))} partitions or more"
        )


def cluster_resources() -> Resources:
    """The cluster as the plan needs it; the least store of any node counts."""
    nodes = [node for node in fh.nodes() if node.get("Alive", True)]
    has: list[Mapping[str, Any]] = [node.get("Resources", {}) for node in nodes]
    cpus = int(sum(node.get("CPU", 0) for node in has))
    stores = [int(node["object_store_memory"]) for node in has if "object_store_memory" in node]
    return Resources(max(1, cpus), max(1, len(nodes)), min(stores, default=STORE_ASSUMED))


def spilled_now() -> int:
    """Bytes in spill files on all nodes; 0 if nobody can say: no sort fails for a figure."""
    try:
        nodes = fh.nodes()
    except fh.errors.ClusterUnreachableError:
        return 0
    return sum(int(node.get("SpilledBytes", 0)) for node in nodes if node.get("Alive", True))


def refuse_same_folder(inputs: Sequence[Path], target: Path) -> None:
    """Output beside input would be read as input the next time, and overwrite could delete it."""
    for path in inputs:
        if path.resolve().parent == target.resolve():
            raise RecordFileError(
                f"the input {path} lies in the output folder {target}: give another output folder"
            )


def sample_bounds(plan: Plan) -> NDArray[np.void]:
    """The boundaries between partitions, from an even sample of the keys.

    One random record from each of ``SAMPLES x partitions`` equal stretches of the input. The
    seed is fixed: the same input gives the same partitions.
    """
    wanted = min(plan.records, SAMPLES * plan.partitions) if plan.partitions > 1 else 0
    edges = np.arange(wanted + 1, dtype=np.int64) * plan.records // max(1, wanted)
    positions = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return records.boundaries(files.read_keys(plan.inputs, positions), plan.partitions)


# --- tasks -------------------------------------------------------------------------------------


def map_slice(piece: Slice, bounds: NDArray[np.void]) -> Iterator[Block | Done]:
    """Read and sort a slice; yield its parts, then the note."""
    clock = _Clock()
    block = _warm_block(piece.count)
    files.read_slice(piece, block)
    yield from records.partition(block, bounds, piece.first)
    yield Done("map", here(), block.nbytes, clock.lap())


def reduce_runs(path: Path, *runs: Block) -> Done:
    """Merge sorted runs into a file that appears complete or not at all."""
    clock = _Clock()
    written = files.write_whole(path, records.merge(runs))
    return Done("reduce", here(), written, clock.lap())


def here() -> str:
    """The id of the node this task runs on."""
    return str(fh.get_runtime_context().get_node_id())


_warm = threading.local()


def _warm_block(count: int) -> Block:
    """A block to read into, the same memory for every task of this thread.

    Fresh memory costs a page fault for each 4 KiB: 0.25 s/GB, as much as reading the page cache.
    Parts are copies (``records.take``), so nothing refers to it when the task has ended.
    """
    buffer: Block | None = getattr(_warm, "block", None)
    if buffer is None or len(buffer) < count:
        _warm.block = None  # first let go of the old one
        buffer = _warm.block = np.empty((count, RECORD), dtype=np.uint8)
    return buffer[:count]


class _Clock:
    """Time since the last lap, in seconds."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        last, self._last = self._last, time.perf_counter()
        return self._last - last
