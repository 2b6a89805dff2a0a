"""Dask: a shuffle written with ``dask.delayed``, on two worker processes.

Each slice is sorted and cut at boundaries from a sample; each partition is put together, sorted
and written. numpy does the work, Dask moves the parts, and spills them where memory is short.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np

from bench.sorts import records

SAMPLES = 100  # keys a partition


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort on a local cluster of two processes with one thread each."""
    pieces = records.slices(source)
    bounds = boundaries(pieces)
    with records.dask_client(memory):
        columns = [cut(piece, bounds) for piece in pieces]
        parts = [
            write(target / f"part-{number:05d}", *(column[number] for column in columns))
            for number in range(len(pieces))
        ]
        dask.compute(*parts)


@dask.delayed(nout=None, pure=False)
def cut(piece: records.Slice, bounds: Any) -> list[Any]:
    """The sorted records of a slice, one array for each partition."""
    block = records.read(piece)
    ordered = in_order(block)
    high, _ = records.keys(ordered)
    return np.split(ordered, np.searchsorted(high, bounds))


@dask.delayed(pure=False)
def write(path: Path, *parts: Any) -> None:
    """One partition, sorted, into its file."""
    in_order(np.concatenate(parts)).tofile(path)


def in_order(block: Any) -> Any:
    """The records in order of their keys."""
    high, low = records.keys(block)
    rows = block.reshape(-1).view("V100")
    return np.take(rows, np.lexsort((low, high))).view(np.uint8).reshape(-1, 100)


def boundaries(pieces: list[records.Slice]) -> Any:
    """The first eight bytes of the least keys of all partitions but the first, from a sample."""
    chance = np.random.default_rng(0)
    found = []
    for piece in pieces:
        mapped = np.memmap(piece.path, np.uint8, "r").reshape(-1, 100)
        rows = piece.start + chance.integers(0, piece.count, SAMPLES)
        found.append(records.keys(np.ascontiguousarray(mapped[np.sort(rows)]))[0])
    sample = np.sort(np.concatenate(found))
    return sample[len(sample) * np.arange(1, len(pieces)) // len(pieces)]


if __name__ == "__main__":
    records.main(sort)
