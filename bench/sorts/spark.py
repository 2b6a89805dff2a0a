"""Spark in local mode: a DataFrame read and written through Arrow, sorted by two columns.

Unsigned 64-bit integers are not among Spark's types: the upper half of a key is shifted by 2**63,
which keeps its order. Needs Java 17 or newer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

from bench.sorts import records

HEAP = 4 << 30  # where nothing is said: the sorted columns of 1 GB are in it several times over


def sort(source: Path, target: Path, memory: int) -> None:
    """Sort in local mode with two processors."""
    if not shutil.which("java"):
        sys.exit("needs Java 17 or newer, and no java is on the PATH")
    os.environ |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    pieces = records.slices(source)
    with tempfile.TemporaryDirectory() as folder:
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.driver.memory", str((memory or HEAP) >> 20) + "m")
            .config("spark.local.dir", folder)
            .config("spark.ui.enabled", "false")
            .config("spark.ui.showConsoleProgress", "false")
            .config("spark.sql.shuffle.partitions", str(max(4, len(pieces))))
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "20000")
            .config("spark.log.level", "ERROR")
            .getOrCreate()
        )
        numbers = spark.range(0, len(pieces), numPartitions=len(pieces))
        columns = "high long, low int, record binary"
        unsorted = numbers.mapInArrow(reader(pieces), columns)
        written = unsorted.sort("high", "low").mapInArrow(writer(target), "bytes long")
        written.collect()
        spark.stop()


def reader(pieces: list[records.Slice]) -> Any:
    """The function that turns numbers of slices into their records."""

    def read(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                block = records.read(pieces[number])
                high, low = records.keys(block)
                signed = (high ^ np.uint64(1 << 63)).view(np.int64)
                columns = [pa.array(signed), pa.array(low.astype(np.int32))]
                record = records.batch(block).column(2).cast(pa.binary())
                yield pa.record_batch([*columns, record], ["high", "low", "record"])

    return read


def writer(target: Path) -> Any:
    """The function that writes a sorted partition into a file of its own."""

    def write(batches: Iterator[Any]) -> Iterator[Any]:
        context = TaskContext.get()
        assert context is not None
        path = target / f"part-{context.partitionId():05d}"
        records.write(path, (batch.column("record") for batch in batches))
        yield pa.record_batch([pa.array([path.stat().st_size])], ["bytes"])

    return write


if __name__ == "__main__":
    records.main(sort)
