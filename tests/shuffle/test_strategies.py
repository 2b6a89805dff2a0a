"""The strategies on a cluster made of nothing (see conftest): order, bounds, errors, stragglers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from freehold.shuffle import auto
from freehold.shuffle.__main__ import PAPER, lines
from freehold.shuffle.shape import Edges, Job, Room, bounded

every_strategy = pytest.mark.parametrize("strategy", auto.STRATEGIES)

#: Two CPUs, and memory for batches of four blocks of one byte.
ROOM = Room(cpus=2, nodes=1, store_bytes=16)


def spread(block: range, edges: Edges, parts: int) -> Iterator[Any]:
    """Mapper: numbers to partitions by remainder, then how many there were."""
    for begin, end in pairwise(edges):
        yield [(x % parts, x) for x in block if begin <= x % parts < end]
    yield len(block)


def join(edges: Edges, *runs: list[tuple[int, int]]) -> Iterator[Any]:
    """Merger: the same numbers in the order they come, cut at other edges."""
    for begin, end in pairwise(edges):
        yield [(r, x) for run in runs for r, x in run if begin <= r < end]
    yield -sum(len(run) for run in runs)


def gather(output: int, *runs: list[tuple[int, int]]) -> tuple[int, list[int]]:
    """Reducer: the numbers in the order they come."""
    assert all(r == output for run in runs for r, _ in run)
    return output, [x for run in runs for _, x in run]


def job(blocks: list[range], partitions: int) -> Job:
    outputs = list(range(partitions))
    return Job(blocks, outputs, spread, join, gather, shared=[partitions], block_bytes=1)


@every_strategy
@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize("partitions", [1, 2, 3, 11])
def test_every_number_reaches_its_partition_in_block_order(
    fake: Any, strategy: str, last_first: bool, partitions: int
) -> None:
    """Goal: parts are reduced in the order of blocks whatever order tasks end in, for fewer
    partitions than CPUs as for more. Method: nine blocks of different sizes, one empty; complete
    the oldest, then the newest pending task first; compare whole results.
    """
    fake.last_first = last_first
    blocks = [range(n * n, (n + 1) * (n + 1)) for n in range(8)] + [range(0)]
    notes = list(auto.find(strategy)(job(blocks, partitions), ROOM))
    reduced = sorted(note for note in notes if isinstance(note, tuple))
    others = [note for note in notes if not isinstance(note, tuple)]
    wanted = [(r, [x for x in range(64) if x % partitions == r]) for r in range(partitions)]
    assert reduced == wanted
    assert notes[-partitions:] == [note for note in notes if isinstance(note, tuple)]
    assert sum(n for n in others if n > 0) == 64  # each block is mapped once
    assert sum(n for n in others if n < 0) in (0, -64)  # and merged once, if at all


@every_strategy
def test_tasks_in_flight_are_bounded(fake: Any, strategy: str) -> None:
    """Goal: memory asked for is bounded for any size of job. Method: 200 blocks, 10 outputs, as
    20 blocks; the fake counts what is submitted and not yet waited for.
    """
    most = []
    for count in (40, 200):
        fake.most_in_flight = 0
        blocks = [range(i, i + 1) for i in range(count)]
        list(auto.find(strategy)(job(blocks, 10), ROOM))
        most.append(fake.most_in_flight)
    assert most[0] == most[1] <= 12


@every_strategy
def test_no_blocks_still_make_every_output(fake: Any, strategy: str) -> None:
    """Goal: an empty input has an empty output, not none. Method: no blocks, two outputs."""
    assert sorted(auto.find(strategy)(job([], 2), ROOM)) == [(0, []), (1, [])]


@every_strategy
def test_a_task_error_ends_the_shuffle(fake: Any, strategy: str) -> None:
    """Goal: nothing goes on past a failure. Method: the third of twenty maps raises: no reduce
    begins, and whatever was pending is cancelled.
    """

    def mapper(block: range, edges: Edges, parts: int) -> Iterator[Any]:
        if block.start == 2:
            raise OSError("disk on fire")
        yield from spread(block, edges, parts)

    broken = Job([range(i, i + 1) for i in range(20)], [0], mapper, join, gather, [1], 1)
    with pytest.raises(OSError, match="disk on fire"):
        list(auto.find(strategy)(broken, ROOM))
    assert "reduce" not in fake.submitted
    assert fake.cancelled == fake.pending > 0


def test_a_window_of_nothing_is_refused(fake: Any) -> None:
    """Goal: a wait that could never end is told. Method: a window of 0."""
    with pytest.raises(ValueError, match="window"):
        list(bounded([], 0))


@pytest.mark.parametrize(("strategy", "merged"), [("push", 0), ("push_pipelined", 2)])
def test_a_straggler_is_set_aside(fake: Any, strategy: str, merged: int) -> None:
    """Goal: only the batch of a slow map waits for it; in rounds, everything does. Method: hold
    back the first of 16 maps until nothing else can run; count the merges that ran before it.
    """
    fake.held = lambda name, block: name == "map" and block.start == 0
    list(auto.find(strategy)(job([range(i, i + 1) for i in range(16)], 4), ROOM))
    before = fake.ran[: fake.ran.index(("map", range(1)))]
    assert sum(name == "merge" for name, _ in before) >= merged
    assert (merged > 0) == any(name == "merge" for name, _ in before)


@pytest.mark.parametrize(
    ("total", "partitions", "store", "chosen"),
    [
        (10**9, 16, 7 << 30, "simple"),  # fits in memory
        (6 * 10**9, 90, 1 << 30, "simple"),  # on disk, but in pieces of 740 KB
        (10**9, 2000, 7 << 30, "push_pipelined"),  # 30,000 parts of 33 KB
        (10**9, 600, 1 << 30, "push_pipelined"),  # fewer, but on disk
        (10**9, 600, 7 << 30, "simple"),  # the same in memory
        (10**4, 2000, 7 << 30, "simple"),  # next to nothing in each
    ],
)
def test_auto_weighs_parts_against_memory(
    fake: Any, total: int, partitions: int, store: int, chosen: str
) -> None:
    """Goal: the choice and its reason. Method: sizes on both sides of each limit; blocks of 64
    MiB; then a job, which must come out right.
    """
    name, why = auto.choose(total, -(-total // (64 << 20)), partitions, Room(2, 1, store))
    assert name == chosen
    assert "parts of" in why
    assert len(list(auto.shuffle(job([range(9)], 3), ROOM))) == 4


def test_an_unknown_strategy_is_named(fake: Any) -> None:
    """Goal: a slip is answered by what there is. Method: a name of nothing."""
    with pytest.raises(ValueError, match="no strategy is called 'shove': choose simple, merge"):
        auto.find("shove")


def test_strategies_are_as_short_as_is_told() -> None:
    """Goal: every strategy is a page, and the table in docs/shuffle.md is what the command counts.
    Method: count lines; find each row.
    """
    page = (Path(__file__).parents[2] / "docs" / "shuffle.md").read_text()
    for name, paper, *_ in PAPER:
        assert f"| `{name}` | {lines(name)} | {paper or ''}".rstrip() in page
    assert f"| the shape, shared by all | {lines('shape')} |" in page
    assert [name for name, *_ in PAPER] == list(auto.STRATEGIES)
    assert all(lines(name) <= 90 for name in auto.STRATEGIES)
    assert lines("simple") < lines("push_pipelined") < lines("shape")
