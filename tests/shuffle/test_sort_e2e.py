"""The sort on one real node: exact bytes, through spilling, past a death."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import freehold as fh
from freehold.shuffle import auto, files, gensort, jobs, records, simple, sort
from freehold.shuffle.records import KEY
from freehold.shuffle.shape import Edges, Job, cluster_room

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def local() -> Iterator[Path]:
    """Two CPUs and a store that the data below does not fit in. Gives the session's folder."""
    session = fh.init(num_cpus=2, object_store_memory=64 << 20)
    yield Path(session["session"])
    fh.shutdown()


def in_order(folder: Path) -> bytes:
    """What the sort of a folder must give, from one stable sort in memory."""
    block = records.as_block(read_parts(folder))
    keys = np.ascontiguousarray(block[:, :KEY]).view("V10").ravel().tolist()
    return block[sorted(range(len(keys)), key=keys.__getitem__)].tobytes()


def read_parts(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in files.record_files(folder))


def kept() -> int:
    """Bytes in the store and on disk, over all nodes."""
    return sum(node["ObjectStoreUsed"] + node["SpilledBytes"] for node in fh.nodes())


@pytest.mark.parametrize(
    ("strategy", "skew"), [(name, name == "simple") for name in auto.STRATEGIES] + [("auto", False)]
)
def test_more_than_the_store_holds_is_sorted_exactly(
    local: Path, tmp_path: Path, strategy: str, skew: bool
) -> None:
    """Goal: right through spilling, by every strategy. Method: generate 100 MB by tasks,
    sort with 64 MiB of store, compare every byte with a sort in memory; then check by tasks.
    What was kept on the way, in memory and on disk, is gone within five seconds.
    """
    jobs.generate(tmp_path / "in", 1_000_000, 3, skew=skew)
    report = sort.sort(tmp_path / "in", tmp_path / "out", strategy=strategy)
    assert read_parts(tmp_path / "out") == in_order(tmp_path / "in")
    assert report.stages["map"].tasks.total() == report.blocks
    assert report.stages["reduce"].tasks.total() == report.partitions
    assert report.spilled_peak > 0
    assert 0 < report.stored_peak <= 64 << 20
    assert 10 << 20 < report.memory_peak < 300 << 20
    verdict = jobs.check(tmp_path / "out")
    assert verdict.summary.in_order
    assert verdict.summary.same_records(jobs.check(tmp_path / "in").summary)
    deadline = time.monotonic() + 5
    while kept() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert kept() == 0
    assert [path for path in local.glob("*/spill/**/*") if path.is_file()] == []


def test_equal_keys_keep_their_order(local: Path, tmp_path: Path) -> None:
    """Goal: stable and bounded for one key. Method: 200,000 records; output equals input, and no
    part is above 1.5 shares.
    """
    (tmp_path / "in").mkdir()
    block = gensort.records(0, 200_000)
    block[:, :KEY] = 9
    block.tofile(tmp_path / "in" / "all")
    sort.sort(tmp_path / "in", tmp_path / "out", partitions=10)
    assert read_parts(tmp_path / "out") == block.tobytes()
    sizes = [path.stat().st_size for path in files.record_files(tmp_path / "out")]
    assert max(sizes) <= 1.5 * block.nbytes / 10


def test_bad_input_is_told_before_anything_runs(local: Path, tmp_path: Path) -> None:
    """Goal: the error of a driver and of a task are both RecordFileError and name the file.
    Method: a torn file at planning; a file that is cut short behind the plan's back.
    """
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "torn"
    path.write_bytes(bytes(150))
    with pytest.raises(files.RecordFileError, match="torn holds 150 bytes"):
        sort.sort(tmp_path / "in", tmp_path / "out")
    gensort.records(0, 10).tofile(path)
    (piece,) = files.slices([path], 100)
    path.write_bytes(bytes(300))
    bounds = np.zeros(0, dtype=records.BOUNDARY)
    job = Job([piece], [path], sort.map_slice, sort.merge_runs, sort.reduce_runs, [bounds])
    with pytest.raises(files.RecordFileError, match="was cut short while the job ran"):
        list(simple.shuffle(job, cluster_room()))


def double_parts(block: np.ndarray[Any, Any], edges: Edges) -> Iterator[Any]:
    for part in np.array_split(block, len(edges) - 1):
        yield 2 * part
    yield os.getpid()


def total_or_die(marker: Path, *parts: np.ndarray[Any, Any]) -> float:
    """Sum the parts; the first call for each marker is killed half-way, as by the system."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return float(sum(part.sum() for part in parts))


def test_a_task_that_is_killed_runs_again(local: Path, tmp_path: Path) -> None:
    """Goal: a death costs a retry and nothing else. Method: every reducer kills its own process
    the first time; parts of 400 KB lie in the store meanwhile; sums must be exact.
    """
    blocks = [np.full(150_000, i, dtype=np.float64) for i in range(4)]
    markers = [tmp_path / f"died-{r}" for r in range(3)]
    job = Job(blocks, markers, double_parts, double_parts, total_or_die)
    notes = list(simple.shuffle(job, cluster_room()))
    assert notes[4:] == [2 * 50_000 * (0 + 1 + 2 + 3)] * 3
    assert all(marker.exists() for marker in markers)
