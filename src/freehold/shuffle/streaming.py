"""Streaming shuffle: an aggregation that says after each round what it knows so far.

Theory of operation
-------------------
The blocks are taken in rounds of neighbours. A map cuts its block into one part per partition, as
for every other shuffle (``shape.py``). A fold takes the state of one partition and the parts of a
round, and makes the next state and an *answer*, a small value for the caller:

    mapper(block, edges, *shared)     a part for each pair of edges, then a note
    fold(state, partition, *parts)    (next state, answer); the first state is None

States stay in the object store; answers come to the caller as a ``Partial`` for each round, in
order of rounds, the last one with everything in it. So the partitions of one partial have seen
the same blocks, and the last partial is what a batch shuffle would have found.

Rounds are not kept in step: the fold of a round is submitted with its maps, waits where it is for
their parts and for the state before, and runs beside the maps of later rounds. What it has taken
is freed when it ends. The window bounds how many tasks, and so how many parts, are on the way: a
caller that takes its time between two partials stops the shuffle.

What it costs over a batch: a state is read and written again in each round. With 20 rounds and
states that stay small, as aggregates do, that is little; where states grow with the data, give
fewer rounds. A lost state is made again from the state before, in the end from the first blocks.

Maps and folds may run twice and must then do the same. A fold must not change the state that it
is given, which others may be reading.

Source: the streaming shuffle of Exoshuffle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from freehold.shuffle.engine import futures, urgent
from freehold.shuffle.shape import Room, batches, bounded, cluster_room, spread

#: Rounds, unless the caller says how large they are: the first answer then comes after a twentieth
#: of the maps. With counts of 40,000 pages as states, 20 rounds took 0.8 to 1.5 times the batch.
ROUNDS = 20

Fold = Callable[..., tuple[Any, Any]]


@dataclass(frozen=True, slots=True)
class Partial:
    """What is known when ``blocks`` of ``blocks_total`` are folded in: ``answers`` are what the
    folds of the partitions answered, in their order.
    """

    blocks: int
    blocks_total: int
    answers: Sequence[Any]

    @property
    def last(self) -> bool:
        """Whether all blocks are in it."""
        return self.blocks == self.blocks_total


class _Answer(NamedTuple):
    """The note of a fold."""

    round: int
    partition: int
    value: Any


def aggregate(
    blocks: Sequence[Any],
    partitions: int,
    mapper: Callable[..., Any],
    fold: Fold,
    *,
    shared: Sequence[Any] = (),
    round_blocks: int | None = None,
    room: Room | None = None,
) -> Iterator[Partial]:
    """Aggregate ``blocks`` in ``partitions``, yielding a ``Partial`` after each round of them.

    ``round_blocks`` is how many blocks make a round, by default a twentieth of all, but no fewer
    than there are CPUs; ``shared`` are further arguments of every mapper; ``room`` is what to use,
    by default the cluster. Without blocks there is nothing to yield. Raises ValueError for a
    number below 1, and what a task raised. After the iterator is closed nothing more is submitted.
    """
    room = room or cluster_room()
    if partitions < 1:
        raise ValueError(f"partitions must be at least 1, not {partitions}")
    if round_blocks is None:
        round_blocks = max(room.cpus, -(-len(blocks) // ROUNDS))
    if round_blocks < 1:
        raise ValueError(f"round_blocks must be at least 1, not {round_blocks}")
    return _rounds(blocks, partitions, _Tasks(mapper, fold, partitions, shared), round_blocks, room)


def _rounds(
    blocks: Sequence[Any], partitions: int, tasks: _Tasks, round_blocks: int, room: Room
) -> Iterator[Partial]:
    """Gather the answers of each round; answers of a later one may come before its last."""
    gathered: dict[int, dict[int, Any]] = {}
    turn = 0  # the round whose partial is next
    refs = tasks.refs(batches(blocks, round_blocks))
    # One round is folded while the next is mapped.
    for note in bounded(refs, room.window + round_blocks + partitions):
        if not isinstance(note, _Answer):
            continue  # of a map
        gathered.setdefault(note.round, {})[note.partition] = note.value
        while len(gathered.get(turn, ())) == partitions:
            answers = gathered.pop(turn)
            turn += 1
            done = min(turn * round_blocks, len(blocks))
            yield Partial(done, len(blocks), [answers[r] for r in range(partitions)])


@dataclass(slots=True)
class _Tasks:
    """The tasks of one aggregation."""

    mapper: Callable[..., Any]
    fold: Fold
    partitions: int
    shared: Sequence[Any]

    def refs(self, rounds: Iterator[list[Any]]) -> Iterator[Any]:
        """Submit round after round as they are asked for, yielding the refs of all notes."""
        fh = futures()
        edges = range(self.partitions + 1)
        map_task = fh.remote(self.mapper).options(num_returns=len(edges), name="map")
        # A partial answer must not wait behind the maps of the next rounds: on two cores the first
        # then came after 7 % of a batch's time instead of 17 %.
        fold_task = fh.remote(_folded).options(num_returns=2, name="fold", **urgent())
        fold = fh.put(self.fold)  # pickled once, not with every task
        states: list[Any] = [None] * self.partitions
        for number, batch in enumerate(rounds):
            columns: list[list[Any]] = [[] for _ in states]
            for block in batch:
                *parts, note = map_task.remote(block, edges, *self.shared)
                spread(parts, columns)
                yield note
            for r in range(self.partitions):
                states[r], note = fold_task.remote(fold, states[r], number, r, *columns[r])
                columns[r].clear()
                yield note


def _folded(fold: Fold, state: Any, number: int, partition: int, *parts: Any) -> Iterator[Any]:
    """The task of a fold: the next state, and the note."""
    state, value = fold(state, partition, *parts)
    yield state
    yield _Answer(number, partition, value)
