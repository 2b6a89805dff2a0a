"""External sort of 100-byte records, on any strategy of the shuffle.

Theory of operation
-------------------
The input is a folder of record files, read as one sequence (``files.py``). It is cut into M
slices; R boundaries are chosen from a sample of the keys (``plan.py``); then

    map     reads its slice, sorts it, and yields sorted runs       (``records.partition``)
    merge   merges runs of several slices, partition by partition   (``records.merged``)
    reduce  merges the runs of a partition and writes its part      (``records.merge``)

The simple strategy does without the merge. A run that spans several partitions carries the places
where they begin: the map knows them exactly, and nobody searches again. A boundary is a key *and*
a position, so partitions are even for skewed keys and for equal ones; runs are merged in the order
of their slices, so the sort is stable, and every strategy writes the same bytes.

Every task can run again: maps only read, reduces write under a temporary name and rename. Data
moves between tasks through the object store alone; what does not fit is spilled by the runtime,
and this file does not know it.

Memory: a map task holds one read buffer (a block, reused by the next map in the process), a quarter
of that in words to sort, and one run; a merge task one merged run (of small ones, 4 MiB together),
and a quarter of it; a reduce task a quarter of its partition and two pieces of 1 MiB, since it
reads its runs in place and writes as it merges. Keys that tie (``records.py``) cost another
quarter. The driver holds the refs.

This file uses the public API only.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from freehold.shuffle import auto, files, records
from freehold.shuffle.engine import futures, here
from freehold.shuffle.files import Slice
from freehold.shuffle.places import Place, place
from freehold.shuffle.plan import Plan, make_plan, refuse_same_folder, sample_bounds
from freehold.shuffle.records import RECORD, Block
from freehold.shuffle.shape import Edges, Job, cluster_room

#: Seconds between two looks at how much is spilled; nodes report every 0.1 s, a look costs 0.2 ms.
LOOK_EVERY = 0.25

#: Runs that span less are merged together and cut afterwards: to merge 250 KB takes 1 ms, most of
#: it in the calls of numpy.
STRETCH = 4 << 20

#: progress(stage, bytes done, bytes of the stage in all)
Progress = Callable[[str, int, int], None]


class Run(NamedTuple):
    """Sorted records of neighbouring partitions: where each begins (and the last ends), and the
    node that the run was made on.
    """

    block: Block
    places: NDArray[np.int64]
    node: str


class Done(NamedTuple):
    """A task's note: what it did, where, how long (seconds) and for how many bytes, how many of
    them came from another node, when it ended (seconds since 1970, by that node's clock), and
    the private memory of its process (bytes) where it had most in hand.
    """

    stage: str
    node: str
    bytes: int
    seconds: float
    moved: int
    ended: float
    memory: int = 0


class Look(NamedTuple):
    """What was held at a time (seconds since 1970): bytes on the disks of all nodes, bytes in their
    stores, and private memory of the program that sorts.
    """

    at: float
    spilled: int
    stored: int
    program: int = 0


@dataclass(slots=True)
class Stage:
    """What the tasks of one stage did. ``seconds`` run from the end of the stage before to the
    last of them; ``busy`` is the sum over tasks; ``tasks`` and ``bytes`` count by node.
    """

    seconds: float = 0.0
    busy: float = 0.0
    moved: int = 0
    tasks: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)

    def add(self, done: Done) -> int:
        """Count a task; returns the bytes of the stage until now."""
        self.busy += done.seconds
        self.moved += done.moved
        self.tasks[done.node] += 1
        self.bytes[done.node] += done.bytes
        return self.bytes.total()


@dataclass(slots=True)
class Report:
    """What was done: by which strategy and why that one (empty if it was given), in which
    ``stages``, in the order in which they ended. ``looks`` were taken every ``LOOK_EVERY`` seconds
    and at the end of each stage; ``spilled_peak`` and ``stored_peak`` are the most bytes that were
    seen then on disk and in object stores. ``memory_peak`` is the most private memory that the
    process of any task had, ``program_peak`` the most that the program had. Times are seconds since
    1970.
    """

    records: int
    bytes: int
    blocks: int
    partitions: int
    strategy: str
    why: str
    stages: dict[str, Stage] = field(default_factory=dict)
    began: float = 0.0
    tasks: list[Done] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    @property
    def spilled_peak(self) -> int:
        return max((look.spilled for look in self.looks), default=0)

    @property
    def stored_peak(self) -> int:
        return max((look.stored for look in self.looks), default=0)

    @property
    def memory_peak(self) -> int:
        return max((done.memory for done in self.tasks), default=0)

    @property
    def program_peak(self) -> int:
        return max((look.program for look in self.looks), default=0)

    @property
    def held(self) -> str:
        """The most of each kind of memory that was in use, in words; what was not is left out: an
        engine may not say what its stores hold.
        """
        peaks = {
            "in object stores": self.stored_peak,
            "spilled": self.spilled_peak,
            "of private memory in a task's process": self.memory_peak,
            "in the program": self.program_peak,
        }
        told = [f"{size / 1e6:,.0f} MB {kind}" for kind, size in peaks.items() if size]
        return f"at most {', '.join(told)}" if told else ""

    @property
    def seconds_total(self) -> float:
        return sum(stage.seconds for stage in self.stages.values())

    @property
    def moved(self) -> int:
        """Bytes that went from one node to another."""
        return sum(stage.moved for stage in self.stages.values())


def sort(
    source: Place | str,
    target: Place | str,
    *,
    partitions: int | None = None,
    strategy: str = auto.NAME,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Sort the record files in folder ``source`` into ``part-00000`` ... in folder ``target``.

    A folder is a path or, with the storage extra, a URL such as ``s3://bucket/prefix``.
    Both must be reachable under the same name from every node. ``partitions`` is chosen
    from the size of the data and the cluster unless given; ``strategy`` is one of
    ``auto.STRATEGIES`` or "auto". Stable: records with equal keys keep their order. Raises
    RecordFileError for input that is not whole records, a missing or empty folder, an output
    folder that is in use (see ``overwrite``), or a full disk; ValueError for an unknown strategy.
    """
    source, target = place(source), place(target)
    tell = progress or (lambda stage, done, total: None)
    auto.find(strategy)
    clock, began = _Clock(), time.time()
    plan = make_plan(source, cluster_room(), partitions, strategy)
    refuse_same_folder(plan.inputs, target)
    files.clear_for_output(target, overwrite)
    report = Report(
        plan.records,
        plan.bytes,
        len(plan.slices),
        plan.partitions,
        plan.strategy,
        plan.why,
        began=began,
    )
    report.stages["plan"] = Stage(clock.lap())
    bounds = sample_bounds(plan)
    report.stages["sample"] = Stage(clock.lap())
    try:
        _run(plan, bounds, target, report, tell, clock)
    finally:
        files.remove_temporaries(target)
    return report


def _run(
    plan: Plan,
    bounds: NDArray[np.void],
    target: Place,
    report: Report,
    tell: Progress,
    clock: _Clock,
) -> None:
    job = Job(
        blocks=plan.slices,
        outputs=[target / files.part_name(r, plan.partitions) for r in range(plan.partitions)],
        mapper=map_slice,
        merger=merge_runs,
        reducer=reduce_runs,
        shared=[futures().put(bounds)],
        block_bytes=plan.slice_bytes,
    )
    looked = 0.0
    stages = {"map": Stage(), "merge": Stage(), "reduce": Stage()}
    tell("map", 0, report.bytes)
    for done in auto.find(plan.strategy)(job, cluster_room()):
        stage = stages[done.stage]
        sofar = stage.add(done)
        report.tasks.append(done)
        tell(done.stage, sofar, report.bytes)
        ended = sofar >= report.bytes  # more, where what a node took with it was made again
        if ended or time.monotonic() > looked + LOOK_EVERY:
            report.looks.append(look())
            looked = time.monotonic()
        if ended:
            stage.seconds += clock.lap()
    for name, stage in stages.items():
        if stage.tasks:
            report.stages[name] = stage
    for name in ("map", "reduce"):
        if stages[name].bytes.total() < report.bytes:
            told = f"{name} moved {stages[name].bytes.total()} of {report.bytes} bytes"
            raise RuntimeError(f"{told}: a bug here")


def look() -> Look:
    """What the nodes hold now; nothing if nobody can say: no sort fails for a figure."""
    try:
        nodes = [node for node in futures().nodes() if node.get("Alive", True)]
    except ConnectionError:
        nodes = []
    spilled, stored = (
        sum(int(node.get(name, 0)) for node in nodes)
        for name in ("SpilledBytes", "ObjectStoreUsed")
    )
    return Look(time.time(), spilled, stored, private_memory())


# --- tasks -------------------------------------------------------------------------------------


def map_slice(piece: Slice, edges: Edges, bounds: NDArray[np.void]) -> Iterator[Run | Done]:
    """Read and sort a slice; yield a run for each pair of edges, then the note."""
    clock, node, memory = _Clock(), here(), 0
    block = _warm_block(piece.count)
    files.read_slice(piece, block)
    for run, places in records.partition(block, bounds, piece.first, edges):
        memory = memory or private_memory()
        yield Run(run, places, node)
    yield Done("map", node, block.nbytes, clock.lap(), 0, time.time(), memory)


def merge_runs(edges: Edges, *runs: Run) -> Iterator[Run | Done]:
    """Merge runs that span ``edges``; yield a run for each pair of edges, then the note."""
    clock, node, memory = _Clock(), here(), 0
    places = np.sum([run.places for run in runs], axis=0)  # where partitions begin in all of it
    for stretch in _stretches([edge - edges[0] for edge in edges], places):
        first, last = stretch[0], stretch[-1]
        merged = records.merged([run.block[run.places[first] : run.places[last]] for run in runs])
        memory = max(memory, private_memory())
        for begin, end in pairwise(stretch):
            inner = places[begin : end + 1]
            part = merged[inner[0] - places[first] : inner[-1] - places[first]]
            yield Run(part, inner - inner[0], node)
    yield Done("merge", node, _bytes(runs), clock.lap(), _moved(runs, node), time.time(), memory)


def _stretches(edges: Edges, places: NDArray[np.int64]) -> Iterator[Edges]:
    """The edges, as many at a time as have ``STRETCH`` bytes of records between them."""
    stretch = [edges[0]]
    for edge in edges[1:]:
        stretch.append(edge)
        if (places[edge] - places[stretch[0]]) * RECORD >= STRETCH:
            yield stretch
            stretch = [edge]
    if len(stretch) > 1:
        yield stretch


def reduce_runs(path: Place, *runs: Run) -> Done:
    """Merge runs of one partition into a file that appears complete or not at all."""
    clock, node, memory = _Clock(), here(), 0

    def pieces() -> Iterator[Block]:
        nonlocal memory
        for piece in records.merge([run.block for run in runs]):
            memory = memory or private_memory()
            yield piece

    written = files.write_whole(path, pieces())
    return Done("reduce", node, written, clock.lap(), _moved(runs, node), time.time(), memory)


def private_memory() -> int:
    """Bytes of this process that no other shares, without the object store; 0 where the system
    does not say.
    """
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def _bytes(runs: tuple[Run, ...]) -> int:
    return sum(run.block.nbytes for run in runs)


def _moved(runs: tuple[Run, ...], node: str) -> int:
    """Bytes of runs that were made on another node."""
    return sum(run.block.nbytes for run in runs if run.node != node)


_warm = threading.local()


def _warm_block(count: int) -> Block:
    """A block to read into, the same memory for every task of this thread.

    Fresh memory costs a page fault for each 4 KiB: 0.25 s/GB, as much as reading the page cache.
    Runs are copies (``records.take``), so nothing refers to it when the task has ended.
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
