"""The two-stage shuffle of CloudSort: a controller at each node takes its parts in and merges them.

Partitions lie in groups, one for each node. A map cuts its block into one part per group and each
part is announced to the group's *controller*, an actor that runs on that node. When a controller
has a batch of parts it has them merged into a part per partition, by as many merges at a time as
the node has CPUs. If all of them are busy, it does not answer: the announcement stays without its
acknowledgement, these fill the window of what is in flight, and no more blocks are mapped until a
merge ends. So the slowest node sets the pace and nothing piles up anywhere.

Controllers own what they have merged. The driver holds refs of the blocks in flight and no more,
which is what lets it run 25,000 partitions of 50,000 blocks.

When a controller is lost, so is what it owned; the others go on, and then its partitions alone are
made again from the input, by ``merge``. Each block is then mapped once more, but only the stretch
that was lost leaves the map.

Source: Exoshuffle-CloudSort (the 2022 record).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

from freehold.shuffle import engine, merge
from freehold.shuffle.shape import Edges, Job, Room, Tasks, bounded, even, spread


class Merged(NamedTuple):
    """A controller's acknowledgement: the notes of merges that have ended since the last."""

    notes: list[Any]


class Controller:
    """Merges the parts of one group of partitions, ``edges``, as they are announced: ``size`` at
    a time, in at most ``slots`` tasks at a time, at the node ``place``.
    """

    def __init__(
        self, engine_name: str, job: Job, edges: Edges, size: int, slots: int, place: str | None
    ) -> None:
        engine.use(engine_name)
        self.tasks = Tasks(job)
        self.edges, self.size, self.slots, self.place = edges, size, slots, place
        self.columns: list[list[Any]] = [[] for _ in edges[1:]]
        self.waiting: list[Any] = []
        self.merging: list[Any] = []

    def add(self, part: list[Any]) -> Merged:
        """Take in a part, given as a ref in a list: it is not brought here, this process only
        names it.
        """
        self.waiting += part
        return Merged(self._merge() if len(self.waiting) == self.size else [])

    def flush(self) -> Merged:
        """Merge what is left, and answer when no merge runs."""
        notes = self._merge() if self.waiting else []
        return Merged(notes + self._until(0))

    def reduce(self, partition: int) -> list[Any]:
        """Submit the reduce of a partition: the ref of its note, in a list."""
        return [self.tasks.reduce(partition, self.columns[partition - self.edges[0]])]

    def _merge(self) -> list[Any]:
        notes = self._until(self.slots - 1)
        merged, note = self.tasks.merge(self.edges, self.waiting, self.place)
        spread(merged, self.columns)
        self.waiting = []
        self.merging.append(note)
        return notes

    def _until(self, most: int) -> list[Any]:
        """Wait until at most that many merges run; the notes of those that have ended."""
        fh, notes = engine.futures(), []
        while len(self.merging) > most:
            done, self.merging = fh.wait(self.merging, num_returns=1, fetch_local=False)
            notes += fh.get(done)
        return notes


def shuffle(job: Job, room: Room) -> Iterator[Any]:
    """Shuffle, yielding the notes of maps and merges, then those of reduces; see ``shape``."""
    fh, tasks = engine.futures(), Tasks(job)
    groups = even(len(job.outputs), room.nodes)
    controllers = {group: _controller(job, room, *group) for group in pairwise(groups)}

    def announced() -> Iterator[Any]:
        for block in job.blocks:
            parts, note = tasks.map(block, groups)
            yield note
            for controller in controllers.values():
                yield controller.add.remote([parts.pop(0)])

    def reduces() -> Iterator[Any]:
        for partition, controller in _in_turns(controllers):
            with suppress(*engine.losses()):
                yield fh.get(controller.reduce.remote(partition))[0]

    window = room.window * (1 + len(controllers))
    for told in bounded(announced(), window, engine.losses()):
        yield from told.notes if isinstance(told, Merged) else (told,)
    for answer in [controller.flush.remote() for controller in controllers.values()]:
        with suppress(*engine.losses()):
            yield from fh.get(answer).notes
    yield from bounded(reduces(), room.window, engine.losses())
    for group, controller in controllers.items():
        try:
            fh.get(controller.flush.remote())  # it had all of its reduces done, if it lives
        except engine.losses():
            yield from merge.shuffle(job, room, group)


def _controller(job: Job, room: Room, first: int, last: int) -> Any:
    """The controller of a group of partitions, at their node."""
    slots = max(1, room.cpus // room.nodes)
    batch = room.batch(job)
    size = max(2, batch // slots, min(batch, job.blocks_for_parts))
    place = room.place(first, len(job.outputs))
    actor = engine.futures().remote(Controller).options(num_cpus=0, **engine.pinned(place))
    merging = replace(job, blocks=(), shared=())  # it maps nothing
    return actor.remote(engine.name(), merging, range(first, last + 1), size, slots, place)


def _in_turns(controllers: dict[tuple[int, int], Any]) -> Iterator[tuple[int, Any]]:
    """Partitions with their controllers, one of each group after the other: all nodes reduce."""
    longest = max(last - first for first, last in controllers)
    for offset in range(longest):
        for (first, last), controller in controllers.items():
            if first + offset < last:
                yield first + offset, controller
