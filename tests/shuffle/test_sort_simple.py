"""The strategy and the jobs on a cluster made of nothing (see conftest): order, bounds, errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freehold.shuffle import files, gensort, jobs, simple, sort, validate
from freehold.shuffle.files import RecordFileError
from freehold.shuffle.records import KEY
from freehold.shuffle.sort import Resources


def spread(block: range, parts: int) -> Iterator[Any]:
    """Mapper: numbers to partitions by remainder, then how many there were."""
    for r in range(parts):
        yield [x for x in block if x % parts == r]
    yield len(block)


def gather(output: int, *parts: list[int]) -> tuple[int, list[int]]:
    """Reducer: the numbers in the order they come."""
    return output, [x for part in parts for x in part]


@pytest.mark.parametrize("last_first", [False, True])
def test_every_part_reaches_its_partition_in_block_order(fake: Any, last_first: bool) -> None:
    """Goal: parts are reduced in the order of blocks whatever order tasks end in.
    Method: complete the oldest, then the newest pending task first; compare whole results.
    """
    fake.last_first = last_first
    blocks = [range(7), range(7, 9), range(9, 30)]
    notes = list(simple.shuffle(blocks, spread, [0, 1, 2], gather, shared=[3], window=2))
    assert sorted(notes[:3]) == [2, 7, 21]
    assert sorted(notes[3:]) == [(r, [x for x in range(30) if x % 3 == r]) for r in range(3)]


@pytest.mark.parametrize("window", [1, 3])
def test_tasks_in_flight_are_bounded(fake: Any, window: int) -> None:
    """Goal: memory asked for is bounded for any size of job. Method: 20 blocks, 10 outputs; the
    fake counts what is submitted and not yet waited for.
    """
    blocks = [range(i, i + 1) for i in range(20)]
    list(simple.shuffle(blocks, spread, list(range(10)), gather, shared=[10], window=window))
    assert fake.submitted == ["map"] * 20 + ["reduce"] * 10
    assert fake.most_in_flight == window


def test_no_blocks_still_make_every_output(fake: Any) -> None:
    """Goal: an empty input has an empty output, not none. Method: no blocks, two outputs."""
    assert sorted(simple.shuffle([], spread, [0, 1], gather)) == [(0, []), (1, [])]


def test_a_task_error_ends_the_shuffle(fake: Any) -> None:
    """Goal: nothing goes on past a failure. Method: the third of ten maps raises, two in flight:
    four are submitted, and the one still pending is cancelled.
    """

    def mapper(block: int) -> Iterator[Any]:
        if block == 2:
            raise OSError("disk on fire")
        yield block
        yield "note"

    with pytest.raises(OSError, match="disk on fire"):
        list(simple.shuffle(range(10), mapper, [0], gather, window=2))
    assert fake.submitted == ["map"] * 4
    assert fake.cancelled == 1
    with pytest.raises(ValueError, match="window"):
        list(simple.bounded([], 0))


def make_input(folder: Path, counts: list[int], **variant: bool) -> bytes:
    """Files of generated records; returns their bytes as one sequence."""
    folder.mkdir()
    first = 0
    for number, count in enumerate(counts):
        gensort.records(first, count, **variant).tofile(folder / f"in-{number}")
        first += count
    return gensort.records(0, first, **variant).tobytes()


def plain_sort(data: bytes) -> bytes:
    rows = [data[i : i + 100] for i in range(0, len(data), 100)]
    return b"".join(sorted(rows, key=lambda row: row[:KEY]))


def read_parts(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in files.record_files(folder))


@pytest.mark.parametrize("skew", [False, True])
@pytest.mark.parametrize(
    ("counts", "partitions"), [([1], 1), ([0], 3), ([1], 4), ([500, 0, 1, 700], 5), ([900], 1)]
)
def test_sort_is_exact(
    fake: Any, tmp_path: Path, counts: list[int], partitions: int, skew: bool
) -> None:
    """Goal: the output is the stable sort of the input, for empty files, one record, and more
    partitions than records. Method: compare bytes with Python's ``sorted``.
    """
    data = make_input(tmp_path / "in", counts, skew=skew)
    report = sort.sort(tmp_path / "in", tmp_path / "out", partitions=partitions)
    assert read_parts(tmp_path / "out") == plain_sort(data)
    assert len(list((tmp_path / "out").iterdir())) == partitions
    assert (report.records, report.bytes) == (len(data) // 100, len(data))
    assert report.tasks["reduce"] == {"here": partitions}


def test_equal_keys_make_even_partitions(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: partitions are bounded when all keys are equal, and the sort is stable.
    Method: 4,000 records of one key in several slices; no part may exceed 1.5 shares.
    """
    (tmp_path / "in").mkdir()
    block = gensort.records(0, 4000)
    block[:, :KEY] = 7
    block.tofile(tmp_path / "in" / "all")
    monkeypatch.setattr(sort, "block_bytes", lambda *_: 50_000)
    sort.sort(tmp_path / "in", tmp_path / "out", partitions=8)
    sizes = [path.stat().st_size for path in files.record_files(tmp_path / "out")]
    assert max(sizes) <= 1.5 * block.nbytes / 8
    assert read_parts(tmp_path / "out") == block.tobytes()


def test_skewed_keys_make_even_partitions(fake: Any, tmp_path: Path) -> None:
    """Goal: sampling balances skew. Method: 20,000 skewed records, 8 partitions, 1.5 shares."""
    make_input(tmp_path / "in", [20_000], skew=True)
    sort.sort(tmp_path / "in", tmp_path / "out", partitions=8)
    sizes = [path.stat().st_size for path in files.record_files(tmp_path / "out")]
    assert max(sizes) <= 1.5 * 2_000_000 / 8


def test_partitions_larger_than_the_store_are_refused(fake: Any, tmp_path: Path) -> None:
    """Goal: a reduce that could never run is told at once, with a number that works. Method:
    20,000 records and a store of 3 MB for two CPUs; take the number from the message.
    """
    make_input(tmp_path / "in", [20_000])
    fake.store_bytes = 3_000_000
    with pytest.raises(RecordFileError, match="give 3 partitions or more"):
        sort.sort(tmp_path / "in", tmp_path / "out", partitions=1)
    with pytest.raises(RecordFileError, match="partitions of 1,000,000 bytes are too large"):
        sort.sort(tmp_path / "in", tmp_path / "out", partitions=2)
    assert sort.sort(tmp_path / "in", tmp_path / "out", partitions=3).partitions == 3


def test_input_that_is_not_records_is_refused_by_name(fake: Any, tmp_path: Path) -> None:
    """Goal: bad input costs nothing and is named. Method: one file of 150 bytes among good ones;
    the output folder must not even be made.
    """
    make_input(tmp_path / "in", [3])
    (tmp_path / "in" / "torn").write_bytes(bytes(150))
    with pytest.raises(RecordFileError, match="torn holds 150 bytes"):
        sort.sort(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_is_never_mixed_with_input_or_older_output(fake: Any, tmp_path: Path) -> None:
    """Goal: no data is lost by a wrong folder. Method: in = out (also through a link), a folder
    in use, then the same with overwrite from 4 parts to 2.
    """
    data = make_input(tmp_path / "in", [50])
    (tmp_path / "link").symlink_to(tmp_path / "in")
    for target in ("in", "link"):
        with pytest.raises(RecordFileError, match="lies in the output folder"):
            sort.sort(tmp_path / "in", tmp_path / target, overwrite=True)
    sort.sort(tmp_path / "in", tmp_path / "out", partitions=4)
    with pytest.raises(RecordFileError, match="is not empty"):
        sort.sort(tmp_path / "in", tmp_path / "out", partitions=2)
    sort.sort(tmp_path / "in", tmp_path / "out", partitions=2, overwrite=True)
    assert read_parts(tmp_path / "out") == plain_sort(data)
    with pytest.raises(RecordFileError, match="partitions must be at least 1"):
        sort.sort(tmp_path / "in", tmp_path / "out2", partitions=0)


@pytest.mark.parametrize("total", [1000, 10**8, 10**9, 6 * 10**9, 10**11])
@pytest.mark.parametrize(
    "resources",
    [
        Resources(2, 1, 1 << 30),
        Resources(3, 3, 1 << 30),
        Resources(8, 1, 1 << 30),
        Resources(64, 4, 64 << 30),
    ],
)
def test_parts_fit_the_store_and_stay_out_of_messages(total: int, resources: Resources) -> None:
    """Goal: the bounds that sort.py states. Method: partitions of running and prefetched reduces
    (two per CPU) in a quarter of the store; a block in half a CPU's share; and parts too large
    for messages, unless there is little data in all or the store forbids larger blocks.
    """
    partition = sort.partition_bytes(total, resources)
    block = sort.block_bytes(total, partition, resources)
    cpus_per_node = resources.cpus // resources.nodes
    share = resources.store_bytes // cpus_per_node
    assert 2 * cpus_per_node * partition <= resources.store_bytes / 4
    assert block <= max(share // 2, sort.SIZE_LEAST)
    part = block * partition // total
    assert part >= 0.99 * sort.PART_TARGET or total < 10**8 or block == share // 2


@pytest.mark.parametrize(("text", "skew"), [(False, False), (True, False), (False, True)])
def test_generated_files_are_the_sequence(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bool, skew: bool
) -> None:
    """Goal: files cut the sequence evenly and every stretch is written. Method: slices of 70
    records, 1,000 records in 3 files; compare bytes.
    """
    monkeypatch.setattr(jobs, "SLICE", 70)
    paths = jobs.generate(tmp_path / "new", 1000, 3, text=text, skew=skew)
    assert [path.stat().st_size // 100 for path in paths] == [333, 333, 334]
    wanted = gensort.records(0, 1000, text=text, skew=skew)
    assert read_parts(tmp_path / "new") == wanted.tobytes()
    with pytest.raises(RecordFileError, match="is not empty"):
        jobs.generate(tmp_path / "new", 10)


def test_check_joins_slices_and_names_the_fault(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the verdict over files, with the place of the fault. Method: two files, each sorted,
    in the wrong order, in slices of 30 that end in reverse order; then renamed to be right.
    """
    monkeypatch.setattr(jobs, "SLICE", 30)
    fake.last_first = True
    data = np.frombuffer(plain_sort(gensort.records(0, 200).tobytes()), dtype=np.uint8)
    (tmp_path / "out").mkdir()
    data[10_000:].tofile(tmp_path / "out" / "part-00000")
    data[:10_000].tofile(tmp_path / "out" / "part-00001")
    verdict = jobs.check(tmp_path / "out")
    assert verdict.place == f"record 0 of {tmp_path / 'out' / 'part-00001'}"
    (tmp_path / "out" / "part-00000").rename(tmp_path / "out" / "part-00002")
    verdict = jobs.check(tmp_path / "out")
    assert verdict.summary == validate.summarise(data.reshape(-1, 100))
    assert (verdict.place, verdict.files) == ("", 2)
