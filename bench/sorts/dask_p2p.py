"""Dask: ``sort_values`` of a DataFrame, which shuffles peer to peer, on two worker processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from bench.sorts import records

RECORD = pd.ArrowDtype(pa.binary())  # one of a fixed length does not survive the shuffle


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort on a local cluster of two processes with one thread each."""
    pieces = records.slices(source)
    with records.dask_client(memory):
        unsorted = dd.from_map(load, pieces, meta=frame(records.batch(records.read(pieces[0])[:0])))
        ordered = unsorted.sort_values(["high", "low"])
        ordered.map_partitions(save, target, meta=("bytes", "i8")).compute()


def save(sorted_frame: Any, target: Path, partition_info: Any = None) -> Any:
    """A partition into its file, numbered in the order of the data."""
    if partition_info is None:  # Dask asks what the result looks like
        return pd.Series([], dtype="i8", name="bytes")
    path = target / f"part-{partition_info['number']:05d}"
    column = pa.chunked_array(pa.array(sorted_frame["record"], pa.binary()))
    records.write(path, iter(column.chunks))
    return pd.Series([path.stat().st_size], name="bytes")


def load(piece: records.Slice) -> Any:
    """The records of a slice as a frame."""
    return frame(records.batch(records.read(piece)))


def frame(batch: Any) -> Any:
    """A batch as a frame; the records stay in Arrow's memory."""
    record = batch.column("record").cast(pa.binary())
    plain = pa.table({"high": batch["high"], "low": batch["low"], "record": record})
    return plain.to_pandas(types_mapper={pa.binary(): RECORD}.get)


if __name__ == "__main__":
    records.main(sort)
