"""Spill files in a local folder.

Knows      files, descriptors, and locks on folders.
Must not   know what is in a file, or how many may be there.

Each `Folder` works in a folder of its own, locked while it lives. The lock goes with the process,
so the next one in the same place removes what a killed one left behind. A file is opened for each
read (20 us): a big spill has more files than a process may hold open.

Races considered: a folder just made and not locked yet looks abandoned, so the parent is locked
while one is made and while others are looked at. A read beside a removal finishes from the unlinked
file, or fails with OSError.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

_PREFIX: Final = "freehold-spill-"
_MOST_BUFFERS: Final = os.sysconf("SC_IOV_MAX")  # 1024 on Linux


class Folder:
    """A place on a disk of this machine: see `spill.Place`.

    Args:
        parent: existing or to be made (mode 0700); we work in a folder in it.

    Raises:
        OSError: it cannot be made or written.
    """

    def __init__(self, parent: Path) -> None:
        self.path, self._lock = _claim(parent)
        self._root = str(self.path)  # (joining Paths takes 4 us, reading 1 KB 12)
        self.failed = False

    def __str__(self) -> str:
        return str(self.path)

    def write(self, number: int, pieces: Iterator[memoryview]) -> None:
        """Write a new file, or leave none."""
        path = self._file(number)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                _write_all(fd, pieces)
            finally:
                os.close(fd)  # network file systems tell of a full disk here
        except BaseException:
            _unlink(Path(path))
            raise

    def opened(self, number: int, offset: int, size: int) -> _FileReader:
        """Read from a byte on."""
        return _FileReader(os.open(self._file(number), os.O_RDONLY | os.O_CLOEXEC), offset)

    def remove(self, number: int) -> None:
        """Remove a file. 100 MB take 5 ms."""
        _unlink(Path(self._file(number)))

    def clear(self) -> None:
        """Remove our folder and all in it."""
        _remove_folder(self.path)

    def close(self) -> None:
        """Remove everything and give up the lock."""
        self.clear()
        os.close(self._lock)

    def _file(self, number: int) -> str:
        return f"{self._root}/{number}"


class _FileReader:
    __slots__ = ("fd", "offset")

    def __init__(self, fd: int, offset: int) -> None:
        self.fd = fd
        self.offset = offset

    def __enter__(self) -> _FileReader:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.fd)

    def fill(self, views: Sequence[memoryview]) -> None:
        """The next bytes, into several views at once."""
        pending = deque(view.cast("B") for view in views if view.nbytes)
        while pending:
            got = os.preadv(self.fd, list(pending), self.offset)
            if got == 0:
                raise OSError(f"its file ends at byte {self.offset}, before the object does")
            self.offset += got
            _advance(pending, got)


def sweep(parent: Path) -> None:
    """Remove the folders in ``parent`` whose process has died."""
    for sibling in list(parent.glob(_PREFIX + "*")):
        _remove_if_abandoned(sibling)


def _write_all(fd: int, pieces: Iterator[memoryview]) -> None:
    offset = 0
    while pending := deque(islice(pieces, _MOST_BUFFERS)):
        while pending:  # a write may be short: at 2 GiB, or when the disk fills up
            written = os.pwritev(fd, list(pending), offset)
            if written == 0:
                raise OSError(0, "the disk took no more bytes")
            offset += written
            _advance(pending, written)


def _advance(pending: deque[memoryview], moved: int) -> None:
    """Take off what one system call has moved."""
    while pending and moved >= pending[0].nbytes:
        moved -= pending.popleft().nbytes
    if moved:
        pending[0] = pending[0][moved:]


def _claim(parent: Path) -> tuple[Path, int]:
    """Make and lock a folder of our own in ``parent``; remove those whose process has died.

    Returns its path and the descriptor that holds the lock. The parent is locked meanwhile, so
    that no other store takes a folder just made, and not locked yet, for an abandoned one.
    """
    parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parent_fd = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(parent_fd, fcntl.LOCK_EX)
        sweep(parent)
        path = parent / (_PREFIX + os.urandom(8).hex())
        path.mkdir(mode=0o700)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return path, lock
    finally:
        os.close(parent_fd)


def _remove_if_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another user's, locked, or gone already
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove_folder(folder)
        finally:
            os.close(lock)


def _remove_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            _unlink(path)
        folder.rmdir()


def _unlink(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or its disk is: either way it is not ours
        path.unlink()
