"""Polars: one data frame in memory, sorted by two columns.

Its sort has no limit on memory that could be set, so the last argument is not used.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "2")

import polars as pl
import pyarrow as pa

from bench.sorts import records


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort in one process with two threads."""
    pieces = [records.batch(records.read(piece)) for piece in records.slices(source)]
    table = pa.Table.from_batches(pieces)
    plain = table.set_column(2, "record", table["record"].cast(pa.large_binary()))
    del table, pieces
    frame = pl.from_arrow(plain)
    del plain
    ordered = frame.sort("high", "low").get_column("record").to_arrow()
    columns = ordered.chunks if isinstance(ordered, pa.ChunkedArray) else [ordered]
    records.write(target / "part-00000", iter(columns))


if __name__ == "__main__":
    records.main(sort)
