"""The kernels against plain Python: ``sorted`` on bytes, positions to tell equal keys apart."""

from __future__ import annotations

import bisect
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.shuffle import records
from freehold.shuffle.records import KEY, RECORD, Block

#: Alphabets for key bytes: few values make ties in the first 4, 8 and 10 bytes; 0 and 255 make
#: wrong signs, wrong byte orders and wrong shifts visible.
ALPHABETS = [[0], [255], [0, 255], [0, 1, 127, 128, 255], list(range(256))]


def block_of(keys: list[bytes]) -> Block:
    """A read-only block with these keys; the payload of each record is its row number."""
    rows = [key + row.to_bytes(90, "big") for row, key in enumerate(keys)]
    return records.as_block(b"".join(rows))


def rows_of(block: Block) -> list[bytes]:
    return [row.tobytes() for row in block]


def by_key(row: bytes) -> bytes:
    return row[:KEY]


def random_block(seed: int, n: int, alphabet: int, prefix: int) -> Block:
    """n records with keys over an alphabet, the first ``prefix`` bytes all alike."""
    rng = np.random.default_rng(seed)
    keys = rng.choice(np.array(ALPHABETS[alphabet], dtype=np.uint8), (n, KEY))
    keys[:, :prefix] = keys[:1, :prefix]
    return block_of([key.tobytes() for key in keys])


blocks = st.builds(
    random_block,
    st.integers(0, 2**32),
    st.integers(0, 300),
    st.integers(0, len(ALPHABETS) - 1),
    st.integers(0, KEY),
)


@given(blocks)
@settings(deadline=None)
def test_sort_is_the_stable_sort_by_ten_bytes(block: Block) -> None:
    """Goal: exact order for any keys, ties in input order. Method: compare with ``sorted``."""
    ordered = records.take(block, records.sort_order(block))
    assert rows_of(ordered) == sorted(rows_of(block), key=by_key)


@pytest.mark.parametrize("prefix", [0, 4, 6, 8, 9, 10])
def test_sort_of_many_records_that_share_a_prefix(prefix: int) -> None:
    """Goal: ties in the 32 bits of the first pass are settled by all ten bytes, in a block large
    enough that some rows tie and others do not. Method: 20,000 random keys, a shared prefix.
    """
    block = random_block(prefix, 20_000, 4, prefix)
    ordered = records.take(block, records.sort_order(block))
    assert rows_of(ordered) == sorted(rows_of(block), key=by_key)


def test_sort_leaves_a_read_only_input_alone() -> None:
    """Goal: inputs are views of shared memory. Method: sort one that would raise when written."""
    block = random_block(1, 50, 4, 0)
    before = block.copy()
    assert not block.flags.writeable
    list(records.partition(block, np.zeros(3, dtype=records.BOUNDARY)))
    assert np.array_equal(block, before)


def test_take_fills_the_buffer_it_is_given() -> None:
    """Goal: ``out`` is used, not a copy of it. Method: look into the buffer afterwards."""
    block = random_block(2, 40, 4, 0)
    buffer = np.empty((40, RECORD), dtype=np.uint8)
    taken = records.take(block, records.sort_order(block), out=buffer)
    assert np.shares_memory(taken, buffer)
    assert rows_of(buffer) == sorted(rows_of(block), key=by_key)


def test_a_buffer_that_is_not_whole_records_is_refused() -> None:
    """Goal: no record is cut silently. Method: 250 bytes."""
    with pytest.raises(ValueError, match="250 bytes"):
        records.as_block(b"x" * 250)


@given(blocks, st.integers(1, 12), st.integers(0, 10**6))
@settings(deadline=None)
def test_cuts_fall_where_key_and_position_say(block: Block, partitions: int, first: int) -> None:
    """Goal: a boundary splits records by (key, position), also inside a run of equal keys.
    Method: boundaries drawn from the block; compare with bisect over a list of pairs.
    """
    n = len(block)
    high, low = records.keys(block)
    chosen = np.random.default_rng(n).integers(0, max(n, 1), partitions * 3 if n else 0)
    samples = np.zeros(chosen.size, dtype=records.BOUNDARY)
    samples["high"], samples["low"], samples["at"] = high[chosen], low[chosen], chosen + first
    bounds = records.boundaries(samples, partitions)
    order = records.sort_order(block)
    pairs = sorted((by_key(row), first + i) for i, row in enumerate(rows_of(block)))
    wanted = [
        bisect.bisect_left(
            pairs, (int(b["high"]).to_bytes(8, "big") + int(b["low"]).to_bytes(2, "big"), b["at"])
        )
        for b in bounds
    ]
    assert records.cuts(block, order, bounds, first).tolist() == [0, *wanted, n]


def test_equal_keys_spread_over_all_partitions() -> None:
    """Goal: a partition is bounded even when all keys are equal. Method: 1,000 records of one
    key, every tenth sampled, ten partitions: each must get exactly a tenth, in input order.
    """
    block = block_of([b"same key!!"] * 1000)
    high, low = records.keys(block)
    samples = np.zeros(100, dtype=records.BOUNDARY)
    samples["high"], samples["low"] = high[0], low[0]
    samples["at"] = np.arange(0, 1000, 10)
    parts = [part for part, _ in records.partition(block, records.boundaries(samples, 10))]
    assert [len(part) for part in parts] == [100] * 10
    assert rows_of(np.concatenate(parts)) == rows_of(block)


def test_a_part_of_several_partitions_says_where_they_begin() -> None:
    """Goal: who merges parts cuts them at the places that come with them. Method: the same block
    in single partitions and in two stretches of them; the stretches, cut, are the single ones.
    """
    block = random_block(4, 500, 4, 0)
    high, low = records.keys(block)
    samples = np.zeros(500, dtype=records.BOUNDARY)
    samples["high"], samples["low"], samples["at"] = high, low, np.arange(500)
    bounds = records.boundaries(samples, 7)
    singles = [rows_of(part) for part, _ in records.partition(block, bounds)]
    cut = [
        rows_of(part[places[i] : places[i + 1]])
        for part, places in records.partition(block, bounds, edges=(0, 3, 7))
        for i in range(len(places) - 1)
    ]
    assert cut == singles


def test_boundaries_of_few_samples_repeat() -> None:
    """Goal: more partitions than samples is no error. Method: 2 samples, 5 partitions; and 0."""
    samples = np.array([(5, 0, 0), (9, 0, 1)], dtype=records.BOUNDARY)
    assert records.boundaries(samples, 5)["high"].tolist() == [5, 5, 9, 9]
    assert len(records.boundaries(samples[:0], 5)) == 4
    with pytest.raises(ValueError, match="partitions must be at least 1"):
        records.boundaries(samples, 0)


@given(st.lists(blocks, max_size=6), st.sampled_from([100, 300, 1 << 20]))
@settings(deadline=None)
def test_merge_is_the_stable_sort_of_the_runs(blocks: list[Block], piece: int) -> None:
    """Goal: merged order, equal keys in order of runs, for pieces of one record and of all.
    Method: sort each block, merge, compare with ``sorted`` over the concatenation.
    """
    runs = [records.take(block, records.sort_order(block)) for block in blocks]
    wanted = sorted((row for run in runs for row in rows_of(run)), key=by_key)
    assert [row for part in records.merge(runs, piece) for row in rows_of(part)] == wanted
    assert rows_of(records.merged(runs)) == wanted


@pytest.mark.parametrize(("prefix", "sorting", "merging"), [(0, 0.3, 0.3), (6, 0.55, 0.55)])
def test_the_heap_of_sort_and_merge_is_as_stated(
    prefix: int, sorting: float, merging: float
) -> None:
    """Goal: a task's memory is what sort.py states, for even keys and the worst ones.
    Method: numpy reports its memory to tracemalloc; measure 5 MB blocks, beside one part and two
    pieces.
    """
    block = random_block(3, 50_000, 4, prefix)
    bounds = np.zeros(1, dtype=records.BOUNDARY)
    tracemalloc.start()
    try:
        order = records.sort_order(block)
        to_sort = tracemalloc.get_traced_memory()[1]
        whole = list(records.partition(block, bounds))[1][0]
        runs = [whole[start : start + 9000] for start in range(0, 50_000, 9000)]
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for _ in records.merge(runs, 100_000):
            pass
        to_merge = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert order.size == len(whole) == 50_000
    assert to_sort < sorting * block.nbytes
    assert to_merge < merging * block.nbytes + 2 * 100_000
