"""Folders of record files: which files, how many records, which slices, how a part is written.

Theory of operation
-------------------
A *record file* is a plain file of 100-byte records. A folder of them is read in order of file
name, hidden files aside; together they make one sequence, and a record's *position* is its place
in it. An ``Extent`` is a stretch of one file, a ``Slice`` is a stretch of the sequence: the
extents it covers, so that a thousand small files make one slice and a large file makes many.

Output appears whole or not at all: it is written under a hidden temporary name and renamed, so a
task that runs twice (a retry, or a node that was only cut off) leaves one file, the same bytes
either way. It is not synced to the disk: a sort that a power cut interrupts is run again.
In an object store (``places.py``) an upload has the same property, and no temporary name.

Races considered: a file that shrinks or vanishes between planning and reading is an error that
names it, never a short block.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from freehold.shuffle.places import GIVE_A_FOLDER, Place, RecordFileError, Remote, existing
from freehold.shuffle.records import BOUNDARY, KEY, RECORD, Block, keys


@dataclass(frozen=True, slots=True)
class Extent:
    """``count`` records of the file ``path`` from record ``start``."""

    path: Place
    start: int
    count: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Consecutive records of a folder, the first of them at position ``first``."""

    first: int
    count: int
    extents: tuple[Extent, ...]


def record_files(folder: Place, *, missing: str = GIVE_A_FOLDER) -> Sequence[Place]:
    """The record files of a folder in order of name; hidden files and subfolders are passed by.

    Raises RecordFileError if the folder is missing or holds no file.
    """
    if isinstance(folder, Remote):
        objects = [path for path in folder.entries() if not path.name.startswith(".")]
        if not objects:
            raise RecordFileError(f"{folder} holds no objects: {missing}")
        return objects
    found = sorted(
        p for p in existing(folder, missing).iterdir() if p.is_file() and not p.name.startswith(".")
    )
    if not found:
        raise RecordFileError(f"{folder} holds no files: {missing}")
    return found


def record_count(path: Place) -> int:
    """How many records a file holds; RecordFileError if that is not a whole number."""
    try:
        size = path.size() if isinstance(path, Remote) else path.stat().st_size
    except OSError as error:
        raise RecordFileError(f"cannot read {path}: {error.strerror}") from error
    if size % RECORD:
        raise RecordFileError(
            f"{path} holds {size} bytes, which is not a multiple of {RECORD}: "
            "it is cut short or not a file of 100-byte records"
        )
    return size // RECORD


def slices(paths: Sequence[Place], size: int) -> Iterator[Slice]:
    """Cut the sequence of all records into slices of ``size`` records (the last may be shorter)."""
    first = filled = 0
    extents: list[Extent] = []
    for path in paths:
        start, left = 0, record_count(path)
        while left:
            count = min(left, size - filled)
            extents.append(Extent(path, start, count))
            start, left, filled = start + count, left - count, filled + count
            if filled == size:
                yield Slice(first, filled, tuple(extents))
                first, filled, extents = first + filled, 0, []
    if extents:
        yield Slice(first, filled, tuple(extents))


def open_records(path: Place) -> AbstractContextManager[BinaryIO | Remote]:
    """A file to give to ``read_into``; an object needs no opening."""
    if isinstance(path, Remote):
        return nullcontext(path)
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise RecordFileError(f"cannot read {path}: {error.strerror}") from error


def read_into(file: BinaryIO | Remote, start: int, out: Block) -> None:
    """Fill ``out`` with the records of an open file from record ``start``."""
    view = out.reshape(-1).data
    offset = start * RECORD
    while view:
        if isinstance(file, Remote):
            got = file.read_into(offset, view)
        else:
            got = os.preadv(file.fileno(), [view], offset)
        if not got:
            raise RecordFileError(
                f"{file.name} ends at byte {offset}, before record {start + len(out) - 1}: "
                "it was cut short while the job ran"
            )
        view, offset = view[got:], offset + got


def read_slice(piece: Slice, out: Block) -> None:
    """Fill ``out`` (shape (piece.count, 100)) with the records of a slice."""
    place = 0
    for extent in piece.extents:
        with open_records(extent.path) as file:
            read_into(file, extent.start, out[place : place + extent.count])
        place += extent.count


def read_keys(paths: Sequence[Place], positions: NDArray[np.int64]) -> NDArray[np.void]:
    """The keys of the records at the given ascending positions, as records.BOUNDARY items.

    Ten bytes are read for each: 3 us from the page cache, one page from a disk. All of a file are
    asked for before the first is read, so that the disk or the object store works on many at once.
    """
    found = np.empty((positions.size, RECORD), dtype=np.uint8)
    begin = place = 0
    for path in paths:
        end = begin + record_count(path)
        last = int(np.searchsorted(positions, end))
        offsets = ((positions[place:last] - begin) * RECORD).tolist()
        with open_records(path) as file:
            for row, key in zip(found[place:last], _keys_at(file, offsets), strict=True):
                if len(key) != KEY:
                    raise RecordFileError(f"{path} was cut short while the job ran")
                row[:KEY] = np.frombuffer(key, dtype=np.uint8)
        begin, place = end, last
    sampled = np.empty(positions.size, dtype=BOUNDARY)
    sampled["high"], sampled["low"] = keys(found)
    sampled["at"] = positions
    return sampled


def _keys_at(file: BinaryIO | Remote, offsets: Sequence[int]) -> Sequence[bytes]:
    """The keys at some offsets of a file."""
    if isinstance(file, Remote):
        return file.read([(offset, offset + KEY) for offset in offsets]) if offsets else []
    for offset in offsets:
        os.posix_fadvise(file.fileno(), offset, KEY, os.POSIX_FADV_WILLNEED)
    return [os.pread(file.fileno(), KEY, offset) for offset in offsets]


def write_whole(path: Place, blocks: Iterable[Block]) -> int:
    """Write blocks to ``path``, which appears complete or not at all. Returns the bytes written.

    Raises RecordFileError, naming the file, when the disk is full or the folder is gone.
    """
    if isinstance(path, Remote):
        return path.write(block.reshape(-1).data for block in blocks)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            written = sum(write_block(file, block) for block in blocks)
        temporary.replace(path)
    except OSError as error:
        raise RecordFileError(f"cannot write {path}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return written


def write_block(file: BinaryIO, block: Block) -> int:
    """Write a whole block: a bare ``write`` may stop short. Returns its bytes."""
    view = block.reshape(-1).data
    while view:
        view = view[file.write(view) :]
    return block.nbytes


def part_name(number: int, parts: int) -> str:
    """``part-00000`` ...: padded so that names sort as numbers do."""
    return f"part-{number:0{max(5, len(str(parts - 1)))}d}"


def clear_for_output(folder: Place, overwrite: bool) -> None:
    """Make an output folder ready: it exists afterwards and holds nothing.

    With ``overwrite``, earlier parts (``part-*`` and our temporary files) are removed; anything
    else in the folder is not ours to delete and is refused, as is a non-empty folder without it.
    """
    present = _made(folder)
    if present and not overwrite:
        raise RecordFileError(
            f"{folder} is not empty ({present[0].name} is there): "
            "give an empty folder, or --overwrite to replace earlier parts"
        )
    foreign = [p for p in present if not _ours(p)]
    if foreign:
        raise RecordFileError(
            f"{foreign[0]} was not written by this job, so --overwrite leaves it: "
            "move it away or give another folder"
        )
    if isinstance(folder, Remote):
        folder.remove([path.name for path in present])
        return
    for path in present:
        assert not isinstance(path, Remote)
        path.unlink()


def _made(folder: Place) -> Sequence[Place]:
    """What is in a folder, after making it where it is missing; in an object store there is nothing
    to be made, but the bucket must exist.
    """
    if isinstance(folder, Remote):
        return folder.entries()
    if folder.exists() and not folder.is_dir():
        raise RecordFileError(f"{folder} is a file: give a folder for the output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return sorted(folder.iterdir())
    except OSError as error:
        raise RecordFileError(f"cannot write in {folder}: {error.strerror}") from error


def remove_temporaries(folder: Place) -> None:
    """Delete what killed tasks left half-written."""
    if isinstance(folder, Remote):
        folder.abort_uploads("part-")
        return
    for path in folder.glob(".part-*.tmp"):
        with suppress(OSError):
            path.unlink()


def _ours(path: Place) -> bool:
    temporary = path.name.startswith(".part-") and path.name.endswith(".tmp")
    is_file = isinstance(path, Remote) or path.is_file()
    return is_file and (path.name.startswith("part-") or temporary)
