"""Objects on disk: many in one file, until each has died.

Knows      what a file holds, and which objects of each file still live.
Must not   know why an object is spilled, who pins it, or where else it has copies; how a file gets
           to where it is kept and back (`Place`: ``spill_folder`` and ``spill_url``).

Life of a spilled object: `write` puts a batch into one new file (a file per object is 12 times
slower at 100 KB) and returns a `SpillSlot` for each; `read_into` copies it back as often as wanted;
`release` ends it. The file is removed at once when its last object is released; until then the
room of its dead objects stays taken, and stays counted.

A file is a sequence of objects, each a header, the key and the bytes. The header repeats what the
slot says, so a wrong offset, a truncated file or a failed write-back is found out and never
becomes a wrong value. The checksum runs at 3.8 GiB/s without the interpreter lock. While the page
cache takes everything it is what one notices (write 4.6 -> 2.0 GiB/s, read 12 -> 2.8, two cores);
as soon as a disk is the limit it is not. Hence an option, and on by default.

Nothing is synced to the medium: what is spilled need not outlive the node.

Races considered: all methods may be called from several I/O threads. A lock guards the books, and
no lock is held during I/O. Room is reserved before a file is written, so two writers cannot both
use the last of the quota. A read beside a release either finishes or fails with `SpillReadError`.
A write that ends after `close` removes its file and fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from freehold.errors import OutOfDiskError
from freehold.store import spill_folder, spill_url

log = logging.getLogger("freehold")

_HEADER: Final = struct.Struct("<8sHxxIQ")  # magic, key length, checksum, length: 24 bytes
_MAGIC: Final = b"FHSPILL1"


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


class Reader(Protocol):
    """A stretch of a file, read from its beginning to its end."""

    def fill(self, views: Sequence[memoryview]) -> None:
        """Read the next bytes into ``views``. Raises OSError, also if there are too few."""


class Place(Protocol):
    """Where files are kept, by their numbers. All methods may be called from several threads.

    Attributes:
        failed: the last write there did, so it is tried when no other can take it. The store's.
    """

    failed: bool

    def write(self, number: int, pieces: Iterator[memoryview]) -> None:
        """Write a new file, whole or not at all. Raises OSError."""

    def opened(self, number: int, offset: int, size: int) -> AbstractContextManager[Reader]:
        """Read ``size`` bytes of a file from ``offset``. Raises OSError."""

    def remove(self, number: int) -> None:
        """Remove a file, as far as that can be done."""

    def clear(self) -> None:
        """Remove all files, as far as that can be done."""

    def close(self) -> None:
        """The same, and let go of the place. What is being written there shall not stay."""


def local_folder(where: str | os.PathLike[str]) -> Path | None:
    """The folder on this machine that a path or a ``file:`` URL names; None for other URLs.

    Raises:
        ValueError: a ``file:`` URL without an absolute path.
    """
    text = os.fspath(where)
    if "://" not in text:
        return Path(text)
    url = urlsplit(text)
    if url.scheme != "file":
        return None
    if url.netloc not in ("", "localhost"):
        raise ValueError(f"{text} names a machine: write file:///{url.netloc}{url.path}")
    return Path(unquote(url.path))


def sweep(where: str | os.PathLike[str], name: str) -> None:
    """Remove what a store called ``name`` has left at a place, its process having died."""
    folder = local_folder(where)
    if folder is None:
        spill_url.remove_all(os.fspath(where), name)
    else:
        spill_folder.sweep(folder)


class _File:
    __slots__ = ("live", "place", "size")

    def __init__(self, place: Place, size: int, live: set[int]) -> None:
        self.place = place
        self.size = size
        self.live = live  # offsets of the objects not yet released


class SpillStore:
    """Spill files in one or several places, taken in turn.

    Args:
        folders: paths, existing or to be made (mode 0700), or URLs (``s3://bucket/prefix``). Use
            one per disk. A folder that cannot be used is left out with a warning, now or when it
            fails, as long as the others take what there is. So is a URL later on; but one where
            nothing can be written now is a mistake to be told.
        quota_bytes: how much all files together may take; None for as much as the disks hold.
        checksum: whether to guard each object's bytes by a CRC-32.
        name: of this node among all: what it writes to a URL is called by it.

    Raises:
        ValueError: no folder given, a negative quota, or a wrong ``file:`` URL.
        OSError: no folder can be made or written, or nothing can be written to a URL.
    """

    def __init__(
        self,
        folders: Sequence[str | os.PathLike[str]],
        quota_bytes: int | None = None,
        checksum: bool = True,
        name: str = "",
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
        self._places = _places(folders, name or os.urandom(8).hex())

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
            place = self._write_somewhere(number, batch)
        except BaseException:
            self._give_back(size)
            raise
        slots = _slots(number, batch)
        with self._lock:
            if not self._closed:
                self._files[number] = _File(place, size, {slot.offset for slot in slots})
                return slots
        place.clear()  # close may have looked there before the file appeared
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
        with self._opened(slot) as reader:
            reader.fill([memoryview(header), view])
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
        with self._opened(slot) as reader:
            reader.fill([memoryview(header)])
            checksum = _check_header(slot, header)
            found = zlib.crc32(slot.key)
            for start in range(0, slot.size, most):
                part = buffer[: slot.size - start]
                reader.fill([part])
                found = zlib.crc32(part, found) if self._checksum else checksum
                if start + len(part) == slot.size and found != checksum:
                    raise SpillReadError(f"{slot}: the bytes on disk are not what was written")
                yield part

    def release(self, slot: SpillSlot) -> None:
        """End the object's life; the last one of a file takes the file with it.

        Removing 100 MB takes 5 ms on a disk, and an answer of an object store: call this from an
        I/O thread. After `close` it does nothing.

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
        # Remove first, then count: the room may only be promised when it is there.
        file.place.remove(slot.file)
        self._give_back(file.size)

    def close(self) -> None:
        """Remove all files and folders of this store. It may be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._files.clear()
            self._bytes = 0
        for place in self._places:
            place.close()

    def _reserve(self, size: int) -> int:
        """Take ``size`` bytes of the quota and a file number."""
        with self._lock:
            if self._closed:
                raise ValueError("the spill store is closed")
            if self.quota_bytes is not None and self._bytes + size > self.quota_bytes:
                raise OutOfDiskError(
                    f"spilling {size:,} bytes would exceed the spill quota: {self._bytes:,} of "
                    f"{self.quota_bytes:,} bytes are in use in "
                    f"{', '.join(map(str, self._places))}"
                )
            self._bytes += size
            self._next += 1
            return self._next

    def _give_back(self, size: int) -> None:
        with self._lock:
            if not self._closed:
                self._bytes -= size

    def _write_somewhere(self, number: int, batch: Sequence[tuple[bytes, memoryview]]) -> Place:
        """Write into the place whose turn it is, or into the next that works; return it."""
        failures = []
        turn = number % len(self._places)
        places = self._places[turn:] + self._places[:turn]
        for place in sorted(places, key=lambda place: place.failed):  # those that work first
            try:
                place.write(number, _pieces(batch, self._checksum))
            except OSError as error:
                if self._closed:
                    raise ValueError("the spill store was closed during a write") from error
                failures.append(f"{place}: {error.strerror or error}")
                if not place.failed:
                    log.warning("cannot spill to %s; left out until it can be", failures[-1])
                place.failed = True
            else:
                place.failed = False
                return place
        raise OutOfDiskError(f"nothing more can be spilled to disk: {'; '.join(failures)}")

    @contextlib.contextmanager
    def _opened(self, slot: SpillSlot) -> Iterator[Reader]:
        with self._lock:
            file = self._files.get(slot.file)
        if file is None:
            raise SpillReadError(f"{slot}: its file was released")
        try:
            size = _HEADER.size + len(slot.key) + slot.size
            with file.place.opened(slot.file, slot.offset, size) as reader:
                yield reader
        except OSError as error:
            problem = error.strerror or error
            raise SpillReadError(f"{slot}: cannot be read in {file.place}: {problem}") from error


def _places(folders: Sequence[str | os.PathLike[str]], name: str) -> list[Place]:
    """Those that can be used."""
    places: list[Place] = []
    failures = []
    for where, folder in [(where, local_folder(where)) for where in folders]:
        try:
            if folder is None:
                places.append(spill_url.Bucket(os.fspath(where), name))
            else:
                places.append(spill_folder.Folder(folder))
        except OSError as error:
            if folder is None:
                for place in places:
                    place.close()
                raise OSError(f"cannot spill to {where}: {error}") from error
            failures.append(error)
            log.warning("cannot spill to %s: %s", where, error.strerror or error)
    if not places:
        raise failures[0]
    return places


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


def _check_header(slot: SpillSlot, header: bytearray) -> int:
    """Compare the header with the slot; return the checksum it holds."""
    magic, key_length, checksum, size = _HEADER.unpack_from(header)
    key = bytes(header[_HEADER.size :])
    if (magic, key_length, size, key) != (_MAGIC, len(slot.key), slot.size, slot.key):
        raise SpillReadError(f"{slot}: the file holds something else at this offset")
    return int(checksum)
