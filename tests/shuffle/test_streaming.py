"""The streaming shuffle: every partial is what its blocks make, in order, with bounded tasks."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

import freehold as fh
from freehold.shuffle import drawing, streaming
from freehold.shuffle.shape import Edges, Room

ROOM = Room(cpus=2, nodes=1, store_bytes=1 << 20)


def spread(block: range, edges: Edges, *shared: int) -> Iterator[Any]:
    """Mapper: numbers to partitions by remainder, then how many there were."""
    for begin, end in pairwise(edges):
        yield [x + sum(shared) for x in block if begin <= x % edges[-1] < end]
    yield len(block)


def gather(
    state: Any, partition: int, *parts: list[int]
) -> tuple[list[int], tuple[int, list[int]]]:
    """Fold: all numbers in the order they come, which are also the answer."""
    numbers = [*(state or []), *(x for part in parts for x in part)]
    return numbers, (partition, numbers)


def wanted(blocks: list[range], size: int, partitions: int) -> list[Any]:
    """The partials, from the definition."""
    ends = [*range(size, len(blocks), size), len(blocks)]
    return [
        (end, [(r, [x for b in blocks[:end] for x in b if x % partitions == r])
               for r in range(partitions)])
        for end in ends
    ]  # fmt: skip


@pytest.mark.parametrize("last_first", [False, True])
@pytest.mark.parametrize(("size", "partitions"), [(1, 1), (3, 2), (4, 5), (100, 3)])
def test_each_partial_is_what_its_blocks_make(
    fake: Any, last_first: bool, size: int, partitions: int
) -> None:
    """Goal: partials come in order of rounds, each exactly of its blocks in their order, whatever
    order tasks end in; the last says so. Method: 11 blocks, one empty; complete the oldest, then
    the newest pending task first; compare all partials.
    """
    fake.last_first = last_first
    blocks = [range(n * n, (n + 1) * (n + 1)) for n in range(10)] + [range(0)]
    made = list(
        streaming.aggregate(blocks, partitions, spread, gather, round_blocks=size, room=ROOM)
    )
    assert [(one.blocks, one.answers) for one in made] == wanted(blocks, size, partitions)
    assert [one.last for one in made] == [False] * (len(made) - 1) + [True]


def test_tasks_in_flight_are_bounded(fake: Any) -> None:
    """Goal: memory asked for does not grow with the job. Method: 30 and 300 blocks in rounds of
    5 for 3 partitions; the fake counts what is submitted and not yet waited for.
    """
    most = []
    for count in (30, 300):
        fake.most_in_flight = 0
        blocks = [range(i, i + 1) for i in range(count)]
        list(streaming.aggregate(blocks, 3, spread, gather, round_blocks=5, room=ROOM))
        most.append(fake.most_in_flight)
    assert most[0] == most[1] <= ROOM.window + 5 + 3


def test_the_first_partial_needs_no_more_than_its_round(fake: Any) -> None:
    """Goal: the first answer comes early. Method: 100 blocks in default rounds, of five; when the
    first partial is there, count the maps that have run.
    """
    blocks = [range(i, i + 1) for i in range(100)]
    first = next(streaming.aggregate(blocks, 2, spread, gather, room=ROOM))
    assert (first.blocks, first.blocks_total, first.last) == (5, 100, False)
    assert [name for name, _ in fake.ran].count("map") == 5


def test_a_failure_ends_the_stream_and_cancels_the_rest(fake: Any) -> None:
    """Goal: the first failure of a task is raised where the next partial is asked for. Method: the
    third block of ten fails; the partials before it are whole.
    """
    blocks: list[Any] = [range(1), range(1), None, *[range(1)] * 7]
    stream = streaming.aggregate(blocks, 2, spread, gather, round_blocks=1, room=ROOM)
    assert [next(stream).blocks, next(stream).blocks] == [1, 2]
    with pytest.raises(TypeError, match="not iterable"):
        list(stream)
    assert fake.cancelled > 0


def test_a_stream_that_is_closed_leaves_nothing_running(fake: Any) -> None:
    """Goal: a caller that has seen enough pays for no more. Method: close it after the first
    partial, once with a session and once when that is over already.
    """
    for over in (False, True):
        fake.cancelled = 0
        stream = streaming.aggregate([range(1)] * 10, 2, spread, gather, round_blocks=1, room=ROOM)
        next(stream)
        fake.connected = not over
        stream.close()  # type: ignore[attr-defined]
        assert (fake.cancelled > 0) is not over


def test_bad_numbers_are_refused_at_once(fake: Any) -> None:
    """Goal: an error names what is wrong before anything runs. Method: each number below 1; no
    blocks are no error.
    """
    with pytest.raises(ValueError, match="partitions must be at least 1, not 0"):
        streaming.aggregate([range(1)], 0, spread, gather, room=ROOM)
    with pytest.raises(ValueError, match="round_blocks must be at least 1, not 0"):
        streaming.aggregate([range(1)], 1, spread, gather, round_blocks=0, room=ROOM)
    assert list(streaming.aggregate([], 1, spread, gather, room=ROOM)) == []
    assert fake.submitted == []


@pytest.mark.processes
def test_on_a_cluster_while_a_worker_dies(tmp_path: Any) -> None:
    """Goal: the same on real processes, also when a map's worker dies. Method: the seventh of 20
    blocks kills its worker the first time; compare every partial.
    """
    killed = tmp_path / "killed"

    def fragile(block: range, edges: Edges) -> Iterator[Any]:
        if block.start == 7 and not killed.exists():
            import os

            killed.touch()
            os._exit(1)
        yield from spread(block, edges)

    blocks = [range(n, n + 20) for n in range(20)]
    with fh.init(num_cpus=2, object_store_memory=64 << 20):
        made = list(streaming.aggregate(blocks, 3, fragile, gather, round_blocks=6))
    assert [(one.blocks, one.answers) for one in made] == wanted(blocks, 6, 3)
    assert killed.exists()


def test_a_picture_is_well_formed_and_keeps_its_points_inside() -> None:
    """Goal: any names and numbers make a picture that a reader of SVG accepts. Method: a name that
    is markup, a series without points, all values zero; parse it and look at every point.
    """
    svg = drawing.lines("a < b", "x & y", "y", {"<i>": [(0, 0), (0.003, 0)], "none": []})
    root = ET.fromstring(svg)
    names = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b", "x & y", "<i>"} <= set(names)
    assert "none" not in names
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert drawing.LEFT <= float(circle.attrib["cx"]) <= drawing.WIDTH - drawing.RIGHT
        assert drawing.TOP <= float(circle.attrib["cy"]) <= drawing.HEIGHT - drawing.BOTTOM


@pytest.mark.parametrize(
    ("most", "made"),
    [
        (0, [0, 1]),
        (1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (7, [0, 2, 4, 6, 8]),
        (950, range(0, 1001, 200)),
    ],
)
def test_ticks_are_round_and_reach_the_most(most: float, made: Any) -> None:
    """Goal: an axis can be read. Method: known cases, zero among them."""
    assert drawing.ticks(most) == pytest.approx(list(made))


@pytest.mark.parametrize("points", [[], [(0.0, -1.0)], [(float("nan"), 1.0)]])
def test_what_cannot_be_drawn_is_refused(points: list[tuple[float, float]]) -> None:
    """Goal: no picture of nonsense. Method: no points, a negative one, one that is no number."""
    with pytest.raises(ValueError, match="draw"):
        drawing.lines("t", "x", "y", {"a": points})
