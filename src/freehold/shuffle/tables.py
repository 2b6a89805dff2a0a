"""Arrow tables in pieces: repartition, shuffle at random, group and join them, on any strategy.

Theory of operation
-------------------
A *table* here is a list of pieces, each a ``pyarrow.Table`` or a ref to one, with equal schemas;
so is every result, as refs, one for each partition. Nothing is brought to the driver.

    repartition      rows keep their order; partitions of equal length
    random_shuffle   a row goes to a partition by chance, and is put in random order there
    groupby          rows are aggregated where they are, sent by hash of the key, and aggregated
                     again: what travels is one row per key and piece
    join             both sides are sent by hash of the key and joined there

A part has a ``Side`` for each table, of which only a join has two: rows in order of partition,
and where each partition begins. Maps compute the partitions, merges only cut and concatenate; so
no row is hashed twice, and none needs to remember where it goes. Reduces leave their result in the
store and give its ref as their note.

Tables are taken (``take``), never sliced, before they travel: Arrow pickles the whole buffer that
a slice looks into.

This file needs pyarrow (the extra ``arrow``). It is no query engine: no expressions, no planner.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from freehold.shuffle import auto
from freehold.shuffle.engine import futures
from freehold.shuffle.shape import Edges, Job, cluster_room

#: How partial results are combined; a mean is a sum and a count until the end.
COMBINE = {"sum": "sum", "count": "sum", "min": "min", "max": "max"}

#: Kinds of joins that hold within partitions by hash of the key.
JOINS = ("inner", "left outer", "right outer", "full outer", "left semi", "left anti")

Pieces = Sequence[Any]
Part = dict[int, "Side"]


class Stored(NamedTuple):
    """A piece of a table in the store."""

    ref: Any
    rows: int
    bytes: int


class Made(NamedTuple):
    """The note of a reduce: which partition, and the ref of its table."""

    number: int
    table: Any


def repartition(pieces: Pieces, partitions: int, *, strategy: str = auto.NAME) -> list[Any]:
    """The same rows in the same order in ``partitions`` pieces whose lengths differ by one.

    Raises ValueError for fewer than one partition.
    """
    stored = _stored(pieces)
    starts = np.cumsum([0, *(piece.rows for piece in stored)])
    bounds = starts[-1] * np.arange(1, partitions) // max(1, partitions)
    firsts = starts[:-1].tolist()
    return _shuffle(stored, firsts, partial(_map_in_order, bounds), _in_order, partitions, strategy)


def random_shuffle(
    pieces: Pieces, partitions: int | None = None, *, seed: int = 0, strategy: str = auto.NAME
) -> list[Any]:
    """The same rows in random order, in as many pieces as before unless ``partitions`` is given.

    The order depends on the seed and on how the rows are cut into pieces, and on nothing else.
    """
    count = len(pieces) if partitions is None else partitions
    mapper, reducer = partial(_map_at_random, seed, count), partial(_permuted, seed)
    numbers = range(len(pieces))
    return _shuffle(_stored(pieces), numbers, mapper, reducer, count, strategy)


def groupby(
    pieces: Pieces,
    keys: str | Sequence[str],
    aggregates: Mapping[str, str | Sequence[str]],
    partitions: int | None = None,
    *,
    strategy: str = auto.NAME,
) -> list[Any]:
    """One row for each key, with the aggregates of its rows as columns named ``column_function``.

    ``aggregates`` maps columns to one or several of sum, count, min, max and mean. Nulls are
    passed over, as Arrow does; null keys make a group. Partitions come by hash of the key, rows
    within one in no promised order. Raises ValueError for another function.
    """
    keys = [keys] if isinstance(keys, str) else list(keys)
    wanted = [
        (column, function)
        for column, functions in aggregates.items()
        for function in ([functions] if isinstance(functions, str) else functions)
    ]
    for column, function in wanted:
        if function != "mean" and function not in COMBINE:
            offer = ", ".join([*COMBINE, "mean"])
            raise ValueError(f"cannot aggregate {column!r} by {function!r}: choose {offer}")
    count = len(pieces) if partitions is None else partitions
    mapper = partial(_map_groups, keys, wanted, count)
    reducer = partial(_grouped, keys, wanted)
    return _shuffle(_stored(pieces), [0] * len(pieces), mapper, reducer, count, strategy)


def join(
    left: Pieces,
    right: Pieces,
    keys: str | Sequence[str],
    partitions: int | None = None,
    *,
    how: str = "inner",
    strategy: str = auto.NAME,
) -> list[Any]:
    """The rows of both tables that agree in ``keys``, joined as ``how`` says (see ``JOINS``).

    Other columns of the right side that the left side has too get the suffix ``_right``. As in
    SQL, a null agrees with nothing. Raises ValueError for another kind of join.
    """
    keys = [keys] if isinstance(keys, str) else list(keys)
    if how not in JOINS:
        raise ValueError(f"cannot join by {how!r}: choose one of {', '.join(JOINS)}")
    count = max(len(left), len(right)) if partitions is None else partitions
    stored, sides = _stored(left) + _stored(right), [0] * len(left) + [1] * len(right)
    mapper, reducer = partial(_map_side, keys, count), partial(_joined, keys, how)
    return _shuffle(stored, sides, mapper, reducer, count, strategy)


def _shuffle(
    stored: Sequence[Stored],
    marks: Sequence[int],
    mapper: Any,
    reducer: Any,
    partitions: int,
    strategy: str,
) -> list[Any]:
    """Shuffle pieces, of which the mapper also gets the mark; the partitions in order."""
    if partitions < 1:
        raise ValueError(f"partitions must be at least 1, not {partitions}")
    blocks = [([piece.ref], mark) for piece, mark in zip(stored, marks, strict=True)]
    largest = max(piece.bytes for piece in stored)
    job = Job(blocks, range(partitions), mapper, _merge, reducer, block_bytes=largest)
    made = [note for note in auto.find(strategy)(job, cluster_room()) if isinstance(note, Made)]
    return [note.table for note in sorted(made, key=lambda note: note.number)]


def _stored(pieces: Pieces) -> list[Stored]:
    """The pieces of one table in the store, and what is to be known of them; they must fit."""
    fh = futures()
    refs = [fh.put(piece) if isinstance(piece, pa.Table) else piece for piece in pieces]
    look = fh.remote(_look).options(name="look")
    seen = fh.get([look.remote(ref) for ref in refs])
    if not seen:
        raise ValueError("a table without pieces has no columns: give it an empty piece")
    for number, (_, _, schema) in enumerate(seen):
        if not schema.equals(seen[0][2]):
            raise ValueError(
                f"piece {number} has other columns or types than piece 0: {_told(schema)}, not "
                f"{_told(seen[0][2])}; cast it to that"
            )
    return [Stored(ref, rows, size) for ref, (rows, size, _) in zip(refs, seen, strict=True)]


def _told(schema: Any) -> str:
    return "(" + ", ".join(f"{field.name} {field.type}" for field in schema) + ")"


# --- tasks -------------------------------------------------------------------------------------


def _look(table: Any) -> tuple[int, int, Any]:
    """Rows, bytes, schema without metadata, which need not agree."""
    return table.num_rows, table.nbytes, table.schema.remove_metadata()


def _map_in_order(bounds: NDArray[np.int64], block: Any, edges: Edges) -> Iterator[Any]:
    """Rows to partitions by their position in the whole table."""
    table, first = _opened(block)
    positions = first + np.arange(table.num_rows)
    yield from _cut(table, np.searchsorted(bounds, positions, "right"), 0, edges)


def _map_at_random(seed: int, partitions: int, block: Any, edges: Edges) -> Iterator[Any]:
    """Rows to partitions by chance."""
    table, number = _opened(block)
    chance = np.random.default_rng((seed, 0, number))
    yield from _cut(table, chance.integers(0, partitions, table.num_rows), 0, edges)


def _map_groups(
    keys: list[str], wanted: list[tuple[str, str]], partitions: int, block: Any, edges: Edges
) -> Iterator[Any]:
    """Aggregate a piece; its groups to partitions by hash of the key."""
    table, _ = _opened(block)
    partial_table = table.group_by(keys).aggregate(_partials(wanted))
    yield from _cut(partial_table, _hashed(partial_table, keys, partitions), 0, edges)


def _map_side(keys: list[str], partitions: int, block: Any, edges: Edges) -> Iterator[Any]:
    """Rows of a piece of either side to partitions by hash of the key."""
    table, side = _opened(block)
    yield from _cut(table, _hashed(table, keys, partitions), side, edges)


def _merge(edges: Edges, *parts: Part) -> Iterator[Any]:
    """Parts that span ``edges``, one after the other in each partition, cut at other edges."""
    for begin, end in pairwise(edges):
        yield _stretch(parts, begin - edges[0], end - edges[0])
    yield sum(side.table.num_rows for part in parts for side in part.values())


def _in_order(number: int, *parts: Part) -> Made:
    return _kept(number, _side(parts, 0))


def _permuted(seed: int, number: int, *parts: Part) -> Made:
    table = _side(parts, 0)
    return _kept(
        number, table.take(np.random.default_rng((seed, 1, number)).permutation(len(table)))
    )


def _grouped(keys: list[str], wanted: list[tuple[str, str]], number: int, *parts: Part) -> Made:
    """Combine partial aggregates, and make means of sums and counts."""
    partials = _partials(wanted)
    names = [f"{column}_{function}" for column, function in partials]
    combined = (
        _side(parts, 0)
        .group_by(keys)
        .aggregate(
            [(name, COMBINE[function]) for name, (_, function) in zip(names, partials, strict=True)]
        )
    )
    columns = {key: combined[key] for key in keys}
    for column, function in wanted:
        columns[f"{column}_{function}"] = _final(combined, column, function)
    return _kept(number, pa.table(columns))


def _joined(keys: list[str], how: str, number: int, *parts: Part) -> Made:
    left, right = _side(parts, 0), _side(parts, 1)
    return _kept(number, left.join(right, keys, join_type=how, right_suffix="_right"))


# --- parts -------------------------------------------------------------------------------------


class Side(NamedTuple):
    """Rows in order of partition, and where each partition begins (and the last ends)."""

    table: Any
    places: NDArray[np.int64]

    def rows(self, begin: int, end: int) -> Any:
        return self.table.slice(self.places[begin], self.places[end] - self.places[begin])


def _opened(block: Any) -> tuple[Any, int]:
    """The piece of a block, and its mark."""
    [ref], mark = block
    return futures().get(ref), mark


def _cut(table: Any, numbers: NDArray[Any], side: int, edges: Edges) -> Iterator[Any]:
    """A part for each pair of edges, given the partition of each row; then the note."""
    order = np.argsort(numbers, kind="stable")
    inner = np.arange(edges[0], edges[-1] + 1)
    places = np.searchsorted(numbers[order], inner)
    for begin, end in pairwise(edges):
        cut = places[begin - edges[0] : end - edges[0] + 1]
        yield {side: Side(_compact(table, order[cut[0] : cut[-1]]), cut - cut[0])}
    yield table.num_rows


def _stretch(parts: Sequence[Part], begin: int, end: int) -> Part:
    """The partitions ``begin`` to ``end - 1`` of several parts as one, counted from their first."""
    sides = {}
    for side in {side for part in parts for side in part}:
        held = [part[side] for part in parts if side in part]
        rows = [one.rows(r, r + 1) for r in range(begin, end) for one in held]
        lengths = sum(np.diff(one.places[begin : end + 1]) for one in held)
        together = pa.concat_tables(rows)
        places = np.concatenate([[0], np.cumsum(lengths)])
        sides[side] = Side(_compact(together, np.arange(together.num_rows)), places)
    return sides


def _side(parts: Sequence[Part], side: int) -> Any:
    """All rows of one side, in the order of the parts."""
    return pa.concat_tables([part[side].table for part in parts if side in part])


def _compact(table: Any, rows: NDArray[Any]) -> Any:
    """The given rows in buffers of their own: Arrow pickles the whole of a buffer."""
    return table.take(pa.array(rows))


def _kept(number: int, table: Any) -> Made:
    """Leave a result in the store."""
    return Made(number, futures().put(table.combine_chunks()))


def _partials(wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is aggregated for each piece: a mean needs sum and count. No repeats."""
    needed = [
        (column, part)
        for column, function in wanted
        for part in (("sum", "count") if function == "mean" else (function,))
    ]
    return list(dict.fromkeys(needed))


def _final(combined: Any, column: str, function: str) -> Any:
    """A wanted aggregate from the combined partial ones."""
    if function != "mean":
        return combined[f"{column}_{function}_{COMBINE[function]}"]
    total, count = combined[f"{column}_sum_sum"], combined[f"{column}_count_sum"]
    return pc.divide(total.cast(pa.float64()), pc.if_else(pc.equal(count, 0), None, count))


def _hashed(table: Any, keys: Sequence[str], partitions: int) -> NDArray[np.int64]:
    """The partition of each row: the same for equal keys in any table and process."""
    mixed = np.zeros(table.num_rows, dtype=np.uint64)
    for key in keys:
        mixed = (mixed ^ _hash(table[key])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    return (mixed % np.uint64(partitions)).astype(np.int64)


def _hash(column: Any) -> NDArray[np.uint64]:
    """A number for each value of a column. Only distinct values are looked at one by one, and of
    integers none: their own value will do, which any width of integer has in common.
    """
    column = column.combine_chunks()
    if pa.types.is_integer(column.type):
        plain = column.cast(pa.int64(), safe=False).fill_null(0)
        return np.asarray(plain.to_numpy(zero_copy_only=False)).astype(np.uint64)
    coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    words = [zlib.crc32(repr(value).encode()) for value in coded.dictionary.to_pylist()]
    numbers = np.array([*words, 0], dtype=np.uint64)  # the last is for nulls
    hashes: NDArray[np.uint64] = numbers[np.asarray(coded.indices.fill_null(len(words)))]
    return hashes
