"""DuckDB: ORDER BY over a stream of Arrow batches, and the result as it comes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa

from bench.sorts import records


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort in one process with two threads; what does not fit goes to a temporary folder."""
    pieces = (records.batch(records.read(piece)) for piece in records.slices(source))
    unsorted = pa.RecordBatchReader.from_batches(records.SCHEMA, pieces)
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as base:
        base.execute("SET threads = 2")
        base.execute("SET preserve_insertion_order = false")
        base.execute(f"SET temp_directory = '{folder}'")
        if memory:
            base.execute(f"SET memory_limit = '{memory}B'")
        base.register("unsorted", unsorted)
        ordered = base.sql("SELECT record FROM unsorted ORDER BY high, low")
        batches = ordered.to_arrow_reader()
        records.write(target / "part-00000", (batch.column(0) for batch in batches))


if __name__ == "__main__":
    records.main(sort)
