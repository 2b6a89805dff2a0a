"""Sort, generation and check on a cluster made of nothing (see conftest): bytes, plans, errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from freehold.shuffle import auto, files, gensort, jobs, plan, shape, sort, validate
from freehold.shuffle.files import RecordFileError
from freehold.shuffle.records import KEY
from freehold.shuffle.shape import Room


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


@pytest.mark.parametrize("strategy", auto.STRATEGIES)
@pytest.mark.parametrize("skew", [False, True])
@pytest.mark.parametrize(
    ("counts", "partitions"), [([1], 1), ([0], 3), ([1], 4), ([500, 0, 1, 700], 5), ([900], 1)]
)
def test_sort_is_exact(
    fake: Any, tmp_path: Path, counts: list[int], partitions: int, skew: bool, strategy: str
) -> None:
    """Goal: the output is the stable sort of the input, for empty files, one record, and more
    partitions than records. Method: compare bytes with Python's ``sorted``.
    """
    data = make_input(tmp_path / "in", counts, skew=skew)
    report = sort.sort(tmp_path / "in", tmp_path / "out", partitions=partitions, strategy=strategy)
    assert read_parts(tmp_path / "out") == plain_sort(data)
    assert len(list((tmp_path / "out").iterdir())) == partitions
    assert (report.records, report.bytes) == (len(data) // 100, len(data))
    assert report.stages["reduce"].tasks == {"here": partitions}
    assert report.stages["reduce"].bytes.total() == len(data)


def keyed(high: Any) -> Any:
    """Records whose keys begin with the given numbers; the rest tells them apart."""
    block = gensort.records(0, len(high))
    block[:, :KEY] = 0
    block[:, :8] = np.asarray(high, dtype=">u8").view(np.uint8).reshape(-1, 8)
    return block


KEYS = {
    "equal": np.full(6000, 77),
    "zipf": np.random.default_rng(1).zipf(1.3, 6000),
    "sorted": np.arange(6000),
    "reversed": np.arange(6000)[::-1],
    "two": np.arange(6000) % 2 << 63,
}


@pytest.mark.parametrize("strategy", auto.STRATEGIES)
@pytest.mark.parametrize("kind", KEYS)
def test_any_keys_make_even_partitions(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, strategy: str
) -> None:
    """Goal: the stable sort, in partitions of at most 1.5 shares, whatever the keys. Method: 6,000
    records in 12 slices and 8 partitions; tasks end newest first.
    """
    fake.last_first = True
    (tmp_path / "in").mkdir()
    block = keyed(KEYS[kind])
    block.tofile(tmp_path / "in" / "all")
    for name in ("block_bytes", "merged_block_bytes"):
        monkeypatch.setattr(plan, name, lambda *_: 50_000)
    report = sort.sort(tmp_path / "in", tmp_path / "out", partitions=8, strategy=strategy)
    assert report.blocks == 12
    sizes = [path.stat().st_size for path in files.record_files(tmp_path / "out")]
    assert max(sizes) <= 1.5 * block.nbytes / 8
    assert read_parts(tmp_path / "out") == plain_sort(block.tobytes())


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
    "room",
    [
        Room(2, 1, 1 << 30),
        Room(3, 3, 1 << 30),
        Room(8, 1, 1 << 30),
        Room(64, 4, 64 << 30),
    ],
)
def test_parts_fit_the_store_and_stay_out_of_messages(total: int, room: Room) -> None:
    """Goal: the bounds that plan.py states. Method: partitions of running and prefetched reduces
    (two per CPU) in a quarter of the store; a block in half a CPU's share; and parts too large
    for messages, unless there is little data in all or the store forbids larger blocks.
    """
    partition = plan.partition_bytes(total, room)
    block = plan.block_bytes(total, partition, room)
    cpus_per_node = room.cpus // room.nodes
    share = room.store_bytes // cpus_per_node
    assert 2 * cpus_per_node * partition <= room.store_bytes / 4
    assert block <= max(share // 2, plan.SIZE_LEAST)
    part = block * partition // total
    assert part >= 0.99 * shape.PART_TARGET or total < 10**8 or block == share // 2


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
