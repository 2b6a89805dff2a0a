"""Make record files, and check them: two jobs of independent tasks around the sort.

Theory of operation
-------------------
Both cut files into slices of ``SLICE`` records, one task each, a bounded number in flight. A
generating task writes its own stretch of a file that already has its full length, under a hidden
name; when all stretches are there the driver gives the file its name, so no half-made file is
ever seen. (In an object store one task writes one object.) A checking task returns a ``Summary``;
the driver joins them in order of position.

This file uses the public API only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from freehold.shuffle import files, gensort, validate
from freehold.shuffle.engine import futures
from freehold.shuffle.files import Extent
from freehold.shuffle.places import Place, RecordFileError, Remote, place
from freehold.shuffle.records import RECORD
from freehold.shuffle.shape import bounded, cluster_room
from freehold.shuffle.sort import Progress
from freehold.shuffle.validate import Summary

#: 32 MB a task: 33 ms to generate, 90 ms to check, and no more than 1.6 MB of memory.
SLICE = 320_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check of a folder found. ``place`` says where order is broken, or is empty."""

    summary: Summary
    files: int
    place: str


def generate(
    folder: Place | str,
    count: int,
    file_count: int = 1,
    *,
    text: bool = False,
    skew: bool = False,
    progress: Progress | None = None,
) -> Sequence[Place]:
    """Write records 0 to ``count - 1`` of the benchmark into ``file_count`` files of a folder.

    The files are ``part-00000`` ..., of equal size but for one record. Raises RecordFileError if
    the folder is not empty, or for a count below 0 or fewer than one file.
    """
    if count < 0 or file_count < 1:
        raise RecordFileError(f"cannot make {count} records in {file_count} files")
    folder = place(folder)
    files.clear_for_output(folder, overwrite=False)
    names = [files.part_name(i, file_count) for i in range(file_count)]
    edges = [count * i // file_count for i in range(file_count + 1)]
    try:
        if isinstance(folder, Remote):
            whole = (Extent(folder / n, 0, b - a) for n, (a, b) in zip(names, pairwise(edges)))
            _run_generate(zip(whole, edges), count, text, skew, progress)
        else:
            hidden = [folder / f".{name}.tmp" for name in names]
            for path, (begin, end) in zip(hidden, pairwise(edges)):
                _make_empty(path, (end - begin) * RECORD)
            _run_generate(_stretches(hidden, edges), count, text, skew, progress)
            for path, name in zip(hidden, names):
                path.replace(folder / name)
    except OSError as error:
        raise RecordFileError(f"cannot write in {folder}: {error.strerror}") from error
    finally:
        files.remove_temporaries(folder)
    return [folder / name for name in names]


def _stretches(paths: Sequence[Path], edges: Sequence[int]) -> Iterator[tuple[Extent, int]]:
    """Stretches of the files, each with the number of its first record."""
    for path, (begin, end) in zip(paths, pairwise(edges)):
        for start in range(begin, end, SLICE):
            yield Extent(path, start - begin, min(SLICE, end - start)), start


def _run_generate(
    stretches: Iterable[tuple[Extent, int]],
    count: int,
    text: bool,
    skew: bool,
    progress: Progress | None,
) -> None:
    task = futures().remote(write_records).options(name="generate")
    submitted = (task.remote(extent, first, text, skew) for extent, first in stretches)
    made = 0
    for written in bounded(submitted, cluster_room().window):
        made += written
        if progress:
            progress("generate", made, count * RECORD)


def write_records(extent: Extent, first: int, text: bool, skew: bool) -> int:
    """Task: write the benchmark's records from ``first`` over a stretch of a file; a whole object,
    since none can be written in places.
    """
    blocks = gensort.batches(first, extent.count, gensort.BATCH, text=text, skew=skew)
    if isinstance(extent.path, Remote):
        return files.write_whole(extent.path, blocks)
    with extent.path.open("r+b", buffering=0) as file:
        file.seek(extent.start * RECORD)
        return sum(files.write_block(file, block) for block in blocks)


def check(folder: Place | str, progress: Progress | None = None) -> Verdict:
    """Read every record of a folder: are the keys in order, within and across files?"""
    paths = files.record_files(place(folder))
    extents = [piece.extents[0] for path in paths for piece in files.slices([path], SLICE)]
    task = futures().remote(summarise_extent).options(name="check")
    numbered = (task.remote(number, extent) for number, extent in enumerate(extents))
    found: dict[int, Summary] = {}
    read, size = 0, RECORD * sum(extent.count for extent in extents)
    for number, summary in bounded(numbered, cluster_room().window):
        found[number] = summary
        read += summary.records * RECORD
        if progress:
            progress("check", read, size)
    total = validate.join(found[number] for number in range(len(extents)))
    return Verdict(total, len(paths), _place(total.first_unordered, paths))


def summarise_extent(number: int, extent: Extent) -> tuple[int, Summary]:
    """Task: the summary of one stretch of a file, under its number."""
    return number, validate.summarise_file(extent.path, extent.start, extent.count)


def _place(position: int | None, paths: Sequence[Place]) -> str:
    """Name the record at a position of the whole sequence."""
    if position is None:
        return ""
    for path in paths:
        count = files.record_count(path)
        if position < count:
            return f"record {position} of {path}"
        position -= count
    raise AssertionError("a position beyond the last file")


def _make_empty(path: Path, size: int) -> None:
    with path.open("wb") as file:
        os.truncate(file.fileno(), size)
