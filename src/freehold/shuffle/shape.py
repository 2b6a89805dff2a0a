"""The common shape of every shuffle: map, merge, reduce; blocks are any values that travel.

Theory of operation
-------------------
A shuffle takes *blocks* and makes *partitions*, numbered from 0. A ``Job`` says how, and knows no
strategy; a strategy says when, and knows no data. Between them stand *edges*, ascending partition
numbers: a *part* for the edges (a, b) holds what belongs to partitions a to b - 1. With edges
(0, 1, 2, ... R) there is one part for each partition, with (0, R) one for all; a merge takes parts
of many blocks for one stretch of partitions and cuts it finer:

    mapper(block, edges, *shared)    one part for each pair of edges, then a note
    merger(edges, *parts)            the same from parts of several blocks, given in their order
    reducer(output, *parts)          a note; the result is put where ``output`` says

Mappers and mergers best yield one part at a time, so that only one is in their memory. A *note* is
a small value for the caller, such as a count. All three may run twice: same input, same result.

A strategy is a function ``shuffle(job, room)`` that submits these tasks in some order and yields
their notes as they come, those of reduces last. It has two duties. *Bound what is in flight*
(``bounded``): a task is submitted only when one before it has ended, so that a job of any size
asks for a bounded share of memory at a time. *Let go early*: a ref is dropped once its consumer
is submitted, so that the part is freed the moment that task ends. Where parts live, when they
move, and what goes to disk is the runtime's business.

Parts of a partition reach its reducer in the order of the blocks, whatever order tasks end in:
strategies merge neighbouring blocks only. A shuffle of sorted runs is therefore stable.

This file must not know what a block, a part or an output is. It takes from the futures interface
what every engine has (``engine.py``); the strategies take everything from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, starmap
from typing import Any

from freehold.shuffle.engine import futures, pinned

#: Seconds for cancelled tasks to end. A task is interrupted between two calls into numpy or the
#: system, of which the longest (a radix pass, a write of 1 MiB to a busy disk) takes far less.
CANCEL_PATIENCE = 5.0

#: What a node's object store is taken to hold when the cluster does not say.
STORE_ASSUMED = 1 << 30

#: Batches of blocks that are merged together, at least: with fewer, little overlaps.
BATCHES = 4

#: A part below the runtime's 100 KiB limit travels inside messages, through the driver's memory.
#: Parts average at least this much where it can be helped, so that few do.
PART_TARGET = 160 << 10

Edges = Sequence[int]
Strategy = Callable[["Job", "Room"], Iterator[Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """What is shuffled, and by which functions; see the head of this file.

    ``block_bytes`` is the size of a block, where known: strategies fit their batches to memory
    by it. ``shared`` are further arguments of every mapper; put large ones before.
    """

    blocks: Sequence[Any]
    outputs: Sequence[Any]
    mapper: Callable[..., Any]
    merger: Callable[..., Any]
    reducer: Callable[..., Any]
    shared: Sequence[Any] = ()
    block_bytes: int = 0

    @property
    def each(self) -> Edges:
        """Edges with a part for each partition."""
        return range(len(self.outputs) + 1)

    @property
    def whole(self) -> Edges:
        """Edges with one part for all of them."""
        return (0, len(self.outputs))

    @property
    def blocks_for_parts(self) -> int:
        """How many blocks make parts of ``PART_TARGET`` for each partition together."""
        return len(self.outputs) * PART_TARGET // self.block_bytes + 1 if self.block_bytes else 1


@dataclass(frozen=True, slots=True)
class Room:
    """What a shuffle may use: processors and nodes in all, bytes of store per node. ``places``
    are the ids of the nodes; where they are empty, tasks run where the engine likes.
    """

    cpus: int
    nodes: int
    store_bytes: int
    places: tuple[str, ...] = ()

    @property
    def window(self) -> int:
        """Tasks in flight at once: one that runs and one that is made ready, for each CPU."""
        return 2 * self.cpus

    @property
    def store_total(self) -> int:
        return self.store_bytes * self.nodes

    def batch(self, job: Job) -> int:
        """How many blocks to merge at once: no more than fill a quarter of all stores, since a
        second batch is mapped meanwhile and what was merged before needs room as well; within
        that, enough for parts of ``PART_TARGET``, and otherwise as few as make ``BATCHES``.
        """
        fitting = self.store_total // 4 // max(1, job.block_bytes)
        return max(2, min(fitting, max(job.blocks_for_parts, -(-len(job.blocks) // BATCHES))))

    def groups(self, job: Job) -> Edges:
        """Edges of groups of partitions, one merged by each CPU, or fewer for few partitions."""
        return even(len(job.outputs), self.cpus)

    def place(self, partition: int, partitions: int) -> str | None:
        """The node where parts of a partition are merged: neighbours share one, as even shares
        of them do a group, so that a group is merged where it is reduced."""
        return self.places[partition * len(self.places) // partitions] if self.places else None


def even(partitions: int, groups: int) -> Edges:
    """Edges of that many even groups of partitions, or fewer where there are too few of them."""
    count = max(1, min(groups, partitions))
    return tuple(partitions * group // count for group in range(count + 1))


@dataclass(slots=True)
class Tasks:
    """The tasks of one job, submitted by name; each function is pickled once a place."""

    job: Job
    _made: dict[tuple[str, int, str | None], Any] = field(default_factory=dict)

    def map(self, block: Any, edges: Edges) -> tuple[list[Any], Any]:
        """Submit the map of a block: refs of its parts, and of its note."""
        task = self._task("map", self.job.mapper, len(edges))
        *parts, note = task.remote(block, edges, *self.job.shared)
        return parts, note

    def merge(
        self, edges: Edges, parts: Sequence[Any], place: str | None = None
    ) -> tuple[list[Any], Any]:
        """Submit the merge of parts that span ``edges``, at a node where that is given: refs of
        the new parts, and of its note.
        """
        task = self._task("merge", self.job.merger, len(edges), place)
        *merged, note = task.remote(edges, *parts)
        return merged, note

    def reduce(self, partition: int, parts: list[Any]) -> Any:
        """Submit the reduce of a partition and let go of its parts: the ref of its note."""
        task = self._task("reduce", self.job.reducer, 1)
        note = task.remote(self.job.outputs[partition], *parts)
        parts.clear()
        return note

    def reduces(self, columns: Iterable[list[Any]], first: int = 0) -> Iterator[Any]:
        """The same for the partitions from ``first`` on, one after the other."""
        return starmap(self.reduce, enumerate(columns, first))

    def _task(
        self, name: str, function: Callable[..., Any], returns: int, place: str | None = None
    ) -> Any:
        key = (name, returns, place)
        if key not in self._made:
            options = pinned(place)
            task = futures().remote(function)
            self._made[key] = task.options(num_returns=returns, name=name, **options)
        return self._made[key]


def spread(parts: list[Any], columns: Sequence[list[Any]]) -> None:
    """Move the r-th part to the r-th column."""
    for column, part in zip(columns, parts, strict=True):
        column.append(part)
    parts.clear()  # or the caller's variable would hold the last ones until it is used again


def batches(blocks: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Neighbouring blocks, ``size`` at a time; the last batch may be smaller."""
    source = iter(blocks)
    while batch := list(islice(source, size)):
        yield batch


def bounded(
    refs: Iterable[Any], window: int, forgiven: tuple[type[Exception], ...] = ()
) -> Iterator[Any]:
    """The values of ``refs`` in order of completion, with at most ``window`` of them pending.

    ``refs`` is consumed lazily: when taking the next ref submits a task, as a generator does,
    this bounds the tasks in flight. ``fetch_local=False``: waiting moves no data. When a task
    fails, or the user interrupts, those still pending are cancelled and seen to their end, so
    that they have put away what they had in hand before the caller's own clean-up. If the caller
    takes no more (``close``) they are cancelled. A failure that is ``forgiven`` yields nothing and
    ends nothing.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1, not {window}")
    fh = futures()
    source = iter(refs)
    pending: list[Any] = []
    try:
        while True:
            pending.extend(islice(source, window - len(pending)))
            if not pending:
                return
            done, pending = fh.wait(pending, num_returns=1, fetch_local=False)
            try:
                values = fh.get(done)
            except forgiven:
                continue
            yield from values
    except GeneratorExit:
        if fh.is_initialized():  # (else there is nothing left to cancel)
            for ref in pending:
                fh.cancel(ref)
        raise
    except (Exception, KeyboardInterrupt):
        for ref in pending:
            fh.cancel(ref)
        if pending:
            fh.wait(pending, num_returns=len(pending), timeout=CANCEL_PATIENCE, fetch_local=False)
        raise


def cluster_room() -> Room:
    """The cluster that we are connected to; the least store of any node counts."""
    nodes = [node for node in futures().nodes() if node.get("Alive", True)]
    has = [node.get("Resources", {}) for node in nodes]
    cpus = int(sum(node.get("CPU", 0) for node in has))
    stores = [int(node["object_store_memory"]) for node in has if "object_store_memory" in node]
    places = tuple(str(node["NodeID"]) for node in nodes) if len(nodes) > 1 else ()
    return Room(max(1, cpus), max(1, len(nodes)), min(stores, default=STORE_ASSUMED), places)
