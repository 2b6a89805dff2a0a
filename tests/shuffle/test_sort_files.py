"""Folders of record files: slices cover everything once, output is whole or absent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freehold.shuffle import files, gensort, records
from freehold.shuffle.files import RecordFileError
from freehold.shuffle.records import RECORD, Block


def make_files(folder: Path, counts: list[int]) -> list[Path]:
    """Files of the generator's records, one sequence over all of them."""
    first = 0
    for number, count in enumerate(counts):
        gensort.records(first, count).tofile(folder / f"in-{number:03d}")
        first += count
    return files.record_files(folder)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6), st.integers(1, 25))
@settings(deadline=None, max_examples=50)
def test_slices_cover_the_sequence_once(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], size: int
) -> None:
    """Goal: every record is in one slice, in order, across files of any size, empty ones too.
    Method: read all slices back and compare with the sequence; all but the last are full.
    """
    paths = make_files(tmp_path_factory.mktemp("slices"), counts)
    pieces = list(files.slices(paths, size))
    read = []
    for piece in pieces:
        block = np.empty((piece.count, RECORD), dtype=np.uint8)
        files.read_slice(piece, block)
        assert piece.first == sum(len(earlier) for earlier in read)
        read.append(block)
    wanted = gensort.records(0, sum(counts))
    assert np.array_equal(np.concatenate([wanted[:0], *read]), wanted)
    assert all(piece.count == size for piece in pieces[:-1])


def test_keys_are_read_at_their_positions(tmp_path: Path) -> None:
    """Goal: the sample knows which record it took. Method: positions in three files, one empty."""
    paths = make_files(tmp_path, [5, 0, 7])
    positions = np.array([0, 4, 5, 11])
    found = files.read_keys(paths, positions)
    high, low = records.keys(gensort.records(0, 12)[positions])
    assert found["high"].tolist() == high.tolist()
    assert found["low"].tolist() == low.tolist()
    assert found["at"].tolist() == positions.tolist()


def test_hidden_files_and_folders_are_not_input(tmp_path: Path) -> None:
    """Goal: a leftover temporary is not data. Method: one beside a record file and a folder."""
    make_files(tmp_path, [1])
    (tmp_path / ".part-00000.x.tmp").write_bytes(b"half")
    (tmp_path / "folder").mkdir()
    assert [path.name for path in files.record_files(tmp_path)] == ["in-000"]


def test_a_missing_or_empty_folder_is_named(tmp_path: Path) -> None:
    """Goal: the error says which folder and why. Method: absent, a file, empty."""
    with pytest.raises(RecordFileError, match="absent does not exist"):
        files.record_files(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(RecordFileError, match="file is not a folder"):
        files.record_files(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordFileError, match="empty holds no files"):
        files.record_files(tmp_path / "empty")


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """Goal: output is whole or absent. Method: the blocks stop with an error half-way."""

    def blocks() -> Iterator[Block]:
        yield gensort.records(0, 10)
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        files.write_whole(tmp_path / "part-00000", blocks())
    assert list(tmp_path.iterdir()) == []


def test_a_second_writer_replaces_the_file_whole(tmp_path: Path) -> None:
    """Goal: a retried task is harmless. Method: write twice; one file, the second's bytes."""
    path = tmp_path / "part-00000"
    files.write_whole(path, [gensort.records(0, 10)])
    assert files.write_whole(path, [gensort.records(5, 3), gensort.records(0, 0)]) == 300
    assert path.read_bytes() == gensort.records(5, 3).tobytes()
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_to_nowhere_names_the_file(tmp_path: Path) -> None:
    """Goal: errors of the system are told with the path. Method: a folder that is gone."""
    with pytest.raises(RecordFileError, match=r"cannot write .*part-00000: No such file"):
        files.write_whole(tmp_path / "gone" / "part-00000", [])


def test_overwrite_removes_only_what_a_sort_wrote(tmp_path: Path) -> None:
    """Goal: nothing of the user's is deleted. Method: parts alone, then a stranger among them."""
    (tmp_path / "part-00000").touch()
    (tmp_path / ".part-00001.1.ab.tmp").touch()
    with pytest.raises(RecordFileError, match="is not empty"):
        files.clear_for_output(tmp_path, overwrite=False)
    files.clear_for_output(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "part-00000").touch()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RecordFileError, match=r"thesis\.txt was not written by this job"):
        files.clear_for_output(tmp_path, overwrite=True)
    assert (tmp_path / "part-00000").exists()


def test_part_names_sort_as_numbers() -> None:
    """Goal: order of names is order of parts, beyond 100,000 too. Method: neighbours of a carry."""
    assert files.part_name(7, 10) == "part-00007"
    assert files.part_name(99_999, 100_001) < files.part_name(100_000, 100_001)
