"""Files of 100-byte records as arrays and Arrow batches: what every peer's program begins with."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

SCHEMA = pa.schema({"high": pa.uint64(), "low": pa.uint16(), "record": pa.binary(100)})
#: The key's first eight bytes and its last two, where they lie in a record.
KEYS = np.dtype(
    {"names": ["high", "low"], "formats": [">u8", ">u2"], "offsets": [0, 8], "itemsize": 100}
)
BLOCK = 640_000  # records: 64 MB, as our own blocks


class Slice(NamedTuple):
    """``count`` records of a file from record ``start``."""

    path: Path
    start: int
    count: int


def arguments() -> tuple[Path, Path, int]:
    """The program's: input folder, output folder, bytes of memory for data or 0."""
    return Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def slices(source: Path, most: int = BLOCK) -> list[Slice]:
    """The input in even slices of at most ``most`` records."""
    found = []
    for path in sorted(source.iterdir()):
        count = path.stat().st_size // 100
        pieces = -(-count // most)
        edges = [count * i // pieces for i in range(pieces + 1)]
        found += [Slice(path, a, b - a) for a, b in pairwise(edges)]
    return found


def read(piece: Slice) -> Any:
    """The records of a slice, as a uint8 array of shape (n, 100)."""
    offset, count = 100 * piece.start, 100 * piece.count
    return np.fromfile(piece.path, np.uint8, count, offset=offset).reshape(-1, 100)


def keys(block: Any) -> tuple[Any, Any]:
    """The keys of records as integers: 64 bits and 16 bits."""
    view = block.reshape(-1).view(KEYS)
    return view["high"].astype(np.uint64), view["low"].astype(np.uint16)


def batch(block: Any) -> Any:
    """Records as an Arrow batch of ``SCHEMA``; the records themselves are not copied."""
    high, low = keys(block)
    record = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(100), len(block), [None, pa.py_buffer(block)]
    )
    return pa.record_batch([pa.array(high), pa.array(low), record], SCHEMA)


def raw(column: Any) -> Any:
    """The bytes of an Arrow array of records, one after the other, without a copy."""
    buffer = column.buffers()[-1]
    if column.type == pa.binary(100):
        return buffer[100 * column.offset :][: 100 * len(column)]
    wide = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    places = np.frombuffer(column.buffers()[1], wide)[column.offset :][: len(column) + 1]
    return buffer[int(places[0]) :][: int(places[-1] - places[0])]


def write(path: Path, columns: Iterator[Any]) -> None:
    """Write Arrow arrays of records, one after the other."""
    with path.open("wb", buffering=0) as file:
        for column in columns:
            view = memoryview(raw(column))
            while view:
                view = view[file.write(view) :]


@contextmanager
def dask_client(memory: int) -> Iterator[None]:
    """A Dask cluster of two processes with one thread each, which share ``memory`` bytes."""
    distributed = importlib.import_module("distributed")
    limit = memory // 2 or "auto"
    options = {"dashboard_address": None, "silence_logs": 40}
    with (
        distributed.LocalCluster(2, threads_per_worker=1, memory_limit=limit, **options) as local,
        distributed.Client(local),
    ):
        yield


def main(sort: Callable[[Path, Path, int], None]) -> None:
    """Run a peer's program."""
    sort(*arguments())
