"""Objects on disk: many in one file, until each has died.

Knows      folders, files, and which objects of each file still live.
Must not   know why an object is spilled, who pins it, or where else it has copies.

Life of a spilled object: `write` puts a batch into one new file (a file per object is 12 times
slower at 100 KB) and returns a `SpillSlot` for each; `read_into` copies it back as often as wanted;
`release` ends it. The file is unlinked at once when its last object is released; until then the
room of its dead objects stays taken, and stays counted.

A file is a sequence of objects, each a header, the key and the bytes. The header repeats what the
slot says, so a wrong offset, a truncated file or a failed write-back is found out and never
becomes a wrong value. The checksum runs at 3.8 GiB/s without the interpreter lock. While the page
cache takes everything it is what one notices (write 4.6 -> 2.0 GiB/s, read 12 -> 2.8, two cores);
as soon as a disk is the limit it is not. Hence an option, and on by default.

Nothing is synced to the medium: what is spilled need not outlive the node. Each store works in a
folder of its own, locked while it lives. The lock goes with the process, so the next store in the
same place removes what a killed one left behind.

Races considered: all methods may be called from several I/O threads. A lock guards the books, and
no lock is held during I/O. Room is reserved before a file is written, so two writers cannot both
use the last of the quota. A read beside a release either finishes from the unlinked file or fails
with `SpillReadError`. A write that ends after `close` removes its file and fails.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from freehold.errors import OutOfDiskError

log = logging.getLogger("freehold")

_HEADER: Final = struct.Struct("<8sHxxIQ")  # magic, key length, checksum, length: 24 bytes
_MAGIC: Final = b"FHSPILL1"
_PREFIX: Final = "freehold-spill-"
_MOST_BUFFERS: Final = os.sysconf("SC_IOV_MAX")  # 1024 on Linux


class SpillReadError(Exception):
    """A spilled object cannot be read back: its file is gone, too short, or damaged.

    For the node daemon this copy is lost; the owner looks for another one or makes it anew.
    """


class SpillSlot(NamedTuple):
    """Where a spilled object lies.

    Attributes:
        file: number of the file within its store.
        offset: of the object's header in the file, in bytes.
        size: of the object, in bytes, headers not counted.
        key: the object's own name, as given to `SpillStore.write`.
    """

    file: int
    offset: int
    size: int
    key: bytes


class _Folder:
    __slots__ = ("failed", "lock", "path")

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock
        self.failed = False  # the last write there did: it is tried when no other can take it


class _File:
    __slots__ = ("live", "path", "size")

    def __init__(self, path: Path, size: int, live: set[int]) -> None:
        self.path = path
        self.size = size
        self.live = live  # offsets of the objects not yet released


class SpillStore:
    """Spill files in one or several folders, taken in turn.

    Args:
        folders: existing or to be made (mode 0700). Use one per disk. One that cannot be used is
            left out with a warning, now or when it fails; as long as the others take what there is.
        quota_bytes: how much all files together may take; None for as much as the disks hold.
        checksum: whether to guard each object's bytes by a CRC-32.

    Raises:
        ValueError: no folder given, or a negative quota.
        OSError: no folder can be made or written.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        quota_bytes: int | None = None,
        checksum: bool = True,
    ) -> None:
        if not folders:
            raise ValueError("spilling needs at least one folder")
        if quota_bytes is not None and quota_bytes < 0:
            raise ValueError(f"a spill quota cannot be negative: {quota_bytes} bytes")
        self.quota_bytes = quota_bytes
        self._checksum = checksum
        self._lock = threading.Lock()
        self._files: dict[int, _File] = {}
        self._bytes = 0
        self._next = 0
        self._closed = False
        self._folders: list[_Folder] = []
        failures = []
        for folder in folders:
            try:
                self._folders.append(_Folder(*_claim(Path(folder))))
            except OSError as error:
                failures.append(error)
                log.warning("cannot spill to %s: %s", folder, error.strerror or error)
        if not self._folders:
            raise failures[0]

    @property
    def bytes_on_disk(self) -> int:
        """Bytes in all files, those of released objects in living files included."""
        return self._bytes

    @property
    def files(self) -> int:
        """Number of files; one being written is not counted yet."""
        return len(self._files)

    def write(self, batch: Sequence[tuple[bytes, memoryview]]) -> list[SpillSlot]:
        """Write the objects of ``batch`` into one new file.

        Args:
            batch: (key, bytes) of each object; the views must be contiguous. About 100 MB in all
                is best: large enough for a disk to stream, small enough to come free soon.

        Returns:
            A slot for each object, in order; [] for an empty batch, without a file.

        Raises:
            OutOfDiskError: the quota or every disk is full, or broken. Nothing is left on disk.
            ValueError: the store is closed, or a key is longer than 65535 bytes.
        """
        if not batch:
            return []
        for key, _ in batch:
            if len(key) > 0xFFFF:
                raise ValueError(f"a key of {len(key)} bytes is too long; 65535 is the most")
        size = sum(_HEADER.size + len(key) + view.nbytes for key, view in batch)
        number = self._reserve(size)
        try:
            path = self._write_somewhere(number, batch)
        except BaseException:
            self._give_back(size)
            raise
        slots = _slots(number, batch)
        with self._lock:
            if not self._closed:
                self._files[number] = _File(path, size, {slot.offset for slot in slots})
                return slots
        _remove_folder(path.parent)  # close may have looked there before the file appeared
        raise ValueError("the spill store was closed during a write")

    def read_into(self, slot: SpillSlot, view: memoryview) -> None:
        """Read the object at ``slot`` into ``view``, which must be writable and of its size.

        Raises:
            SpillReadError: the object is not there, or not what was written; ``view`` may hold
                anything then.
            ValueError: ``view`` has another size.
        """
        if view.nbytes != slot.size:
            raise ValueError(f"object of {slot.size} bytes read into a view of {view.nbytes}")
        header = bytearray(_HEADER.size + len(slot.key))
        with self._opened(slot) as fd:
            _read_all(fd, slot, [memoryview(header), view], slot.offset)
        checksum = _check_header(slot, header)
        if self._checksum and zlib.crc32(view, zlib.crc32(slot.key)) != checksum:
            raise SpillReadError(f"{slot}: the bytes on disk are not those that were written")

    def parts(self, slot: SpillSlot, most: int) -> Iterator[memoryview]:
        """The object at ``slot`` in pieces of at most ``most`` bytes, each good until the next.

        For sending a spilled object to another node without taking room in the arena. The last
        piece comes only if all of them are what was written: whoever gets the whole object gets
        the right one, and who does not must not use what came.

        Raises:
            SpillReadError: as in `read_into`, also after the first pieces.
        """
        header = bytearray(_HEADER.size + len(slot.key))
        buffer = memoryview(bytearray(min(most, slot.size)))
        with self._opened(slot) as fd:
            _read_all(fd, slot, [memoryview(header)], slot.offset)
            checksum = _check_header(slot, header)
            found = zlib.crc32(slot.key)
            for start in range(0, slot.size, most):
                part = buffer[: slot.size - start]
                _read_all(fd, slot, [part], slot.offset + len(header) + start)
                found = zlib.crc32(part, found) if self._checksum else checksum
                if start + len(part) == slot.size and found != checksum:
                    raise SpillReadError(f"{slot}: the bytes on disk are not what was written")
                yield part

    def release(self, slot: SpillSlot) -> None:
        """End the object's life; the last one of a file takes the file with it.

        Unlinking 100 MB takes 5 ms: call this from an I/O thread. After `close` it does nothing.

        Raises:
            ValueError: the object was released before.
        """
        with self._lock:
            if self._closed:
                return
            file = self._files.get(slot.file)
            if file is None or slot.offset not in file.live:
                raise ValueError(f"{slot} was released before or never written")
            file.live.remove(slot.offset)
            if file.live:
                return
            del self._files[slot.file]
        # Unlink first, then count: the room may only be promised when it is there.
        _unlink(file.path)
        self._give_back(file.size)

    def close(self) -> None:
        """Remove all files and folders of this store. It may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._files.clear()
            self._bytes = 0
        for folder in self._folders:
            _remove_folder(folder.path)
            os.close(folder.lock)

    def _reserve(self, size: int) -> int:
        """Take ``size`` bytes of the quota and a file number."""
        with self._lock:
            if self._closed:
                raise ValueError("the spill store is closed")
            if self.quota_bytes is not None and self._bytes + size > self.quota_bytes:
                raise OutOfDiskError(
                    f"spilling {size:,} bytes would exceed the spill quota: {self._bytes:,} of "
                    f"{self.quota_bytes:,} bytes are in use in "
                    f"{', '.join(str(folder.path) for folder in self._folders)}"
                )
            self._bytes += size
            self._next += 1
            return self._next

    def _give_back(self, size: int) -> None:
        with self._lock:
            if not self._closed:
                self._bytes -= size

    def _write_somewhere(self, number: int, batch: Sequence[tuple[bytes, memoryview]]) -> Path:
        """Write into the folder whose turn it is, or into the next that works; return the path."""
        failures = []
        turn = number % len(self._folders)
        folders = self._folders[turn:] + self._folders[:turn]
        for folder in sorted(folders, key=lambda folder: folder.failed):  # those that work first
            path = folder.path / str(number)
            try:
                _write_file(path, _pieces(batch, self._checksum))
            except OSError as error:
                failures.append(f"{folder.path}: {error.strerror or error}")
                if not folder.failed:
                    log.warning("cannot spill to %s; left out until it can be", failures[-1])
                folder.failed = True
            else:
                folder.failed = False
                return path
        raise OutOfDiskError(f"nothing more can be spilled to disk: {'; '.join(failures)}")

    @contextlib.contextmanager
    def _opened(self, slot: SpillSlot) -> Iterator[int]:
        # Opened for each read (20 us): a big spill has more files than a process may hold open.
        with self._lock:
            file = self._files.get(slot.file)
        if file is None:
            raise SpillReadError(f"{slot}: its file was released")
        try:
            fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise SpillReadError(f"{slot}: cannot open {file.path}: {error.strerror}") from error
        try:
            yield fd
        finally:
            os.close(fd)


def _slots(number: int, batch: Sequence[tuple[bytes, memoryview]]) -> list[SpillSlot]:
    slots, offset = [], 0
    for key, view in batch:
        slots.append(SpillSlot(number, offset, view.nbytes, key))
        offset += _HEADER.size + len(key) + view.nbytes
    return slots


def _pieces(batch: Sequence[tuple[bytes, memoryview]], checksum: bool) -> Iterator[memoryview]:
    """The file's content in order; checksums are computed as the writer gets there."""
    for key, view in batch:
        flat = view.cast("B") if view.nbytes else memoryview(b"")
        crc = zlib.crc32(flat, zlib.crc32(key)) if checksum else 0
        yield memoryview(_HEADER.pack(_MAGIC, len(key), crc, flat.nbytes) + key)
        if flat.nbytes:
            yield flat


def _write_file(path: Path, pieces: Iterator[memoryview]) -> None:
    """Write a new file, or leave none."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            _write_all(fd, pieces)
        finally:
            os.close(fd)  # network file systems tell of a full disk here
    except BaseException:
        _unlink(path)
        raise


def _write_all(fd: int, pieces: Iterator[memoryview]) -> None:
    offset = 0
    while pending := deque(islice(pieces, _MOST_BUFFERS)):
        while pending:  # a write may be short: at 2 GiB, or when the disk fills up
            written = os.pwritev(fd, list(pending), offset)
            if written == 0:
                raise OSError(0, "the disk took no more bytes")
            offset += written
            while pending and written >= pending[0].nbytes:
                written -= pending.popleft().nbytes
            if written:
                pending[0] = pending[0][written:]


def _read_all(fd: int, slot: SpillSlot, views: list[memoryview], offset: int) -> None:
    pending = deque(view.cast("B") for view in views if view.nbytes)
    while pending:
        try:
            got = os.preadv(fd, list(pending), offset)
        except OSError as error:
            raise SpillReadError(f"{slot}: cannot be read: {error.strerror}") from error
        if got == 0:
            raise SpillReadError(f"{slot}: its file ends at byte {offset}, before the object does")
        offset += got
        while pending and got >= pending[0].nbytes:
            got -= pending.popleft().nbytes
        if got:
            pending[0] = pending[0][got:]


def _check_header(slot: SpillSlot, header: bytearray) -> int:
    """Compare the header with the slot; return the checksum it holds."""
    magic, key_length, checksum, size = _HEADER.unpack_from(header)
    key = bytes(header[_HEADER.size :])
    if (magic, key_length, size, key) != (_MAGIC, len(slot.key), slot.size, slot.key):
        raise SpillReadError(f"{slot}: the file holds something else at this offset")
    return int(checksum)


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


def sweep(parent: Path) -> None:
    """Remove the folders in ``parent`` whose process has died."""
    for sibling in list(parent.glob(_PREFIX + "*")):
        _remove_if_abandoned(sibling)


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
