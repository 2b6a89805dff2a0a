"""Spill files: what was written is read, or an error says why not; nothing stays behind.

Each test runs on a folder and on a bucket of an S3 server: what is promised of a file holds for an
object.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import pytest

import s3_server
from freehold.errors import OutOfDiskError
from freehold.store.spill import SpillReadError, SpillStore
from spilled import batch_of, read


class Place(Protocol):
    """Where a store spills, as somebody else sees it."""

    where: str

    def files(self) -> list[str]:
        """The names of all files there."""

    def read(self, name: str) -> bytes:
        """All of a file."""

    def write(self, name: str, data: bytes) -> None:
        """Put other bytes in its place."""


class Disk:
    def __init__(self, folder: Path) -> None:
        self.where = str(folder)

    def files(self) -> list[str]:
        return [str(path) for path in Path(self.where).rglob("*") if path.is_file()]

    def read(self, name: str) -> bytes:
        return Path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        Path(name).write_bytes(data)


class Remote:
    def __init__(self, bucket: s3_server.Bucket) -> None:
        self.where = f"s3://{bucket.name}/some/where"
        self.files, self.read, self.write = bucket.objects, bucket.read, bucket.write


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with s3_server.serving() as client:
        yield client


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "bucket":
        bucket = s3_server.Bucket(request.getfixturevalue("client"), "bucket")
        yield Remote(bucket)
        bucket.remove()
    else:
        yield Disk(tmp_path)


@pytest.fixture
def store(place: Place) -> Iterator[SpillStore]:
    store = SpillStore([place.where])
    yield store
    store.close()


def test_batch_comes_back_from_one_file(store: SpillStore, place: Place) -> None:
    """Goal: a batch is one file, and each object of it can be read. Method: odd sizes, none, many.

    1,500 objects are more buffers than one system call takes."""
    batch = batch_of(0, 1, 100_000, 0, *([77] * 1500))
    slots = store.write(batch)

    some = [0, 1, 2, 3, *range(4, len(batch), 100)]  # an object store takes 8 ms for each
    assert [read(store, slots[i]) for i in some] == [bytes(batch[i][1]) for i in some]
    assert [(slot.key, slot.size) for slot in slots] == [(k, view.nbytes) for k, view in batch]
    (file,) = place.files()
    assert len(place.read(file)) == store.bytes_on_disk
    assert store.files == 1


def test_empty_batch_makes_no_file(store: SpillStore, place: Place) -> None:
    """Goal: nothing in, nothing out, nothing on disk."""
    assert store.write([]) == []
    assert place.files() == []


def test_file_goes_with_its_last_object(store: SpillStore, place: Place) -> None:
    """Goal: room is given back exactly when a file's last object dies.

    Method: release two of three, look; release the third, look; other files stay."""
    slots = store.write(batch_of(10, 20, 30))
    (other,) = store.write(batch_of(5))
    full = store.bytes_on_disk
    for slot in slots[:2]:
        store.release(slot)
    assert (store.files, store.bytes_on_disk) == (2, full)
    assert len(read(store, slots[2])) == 30

    store.release(slots[2])
    assert store.files == len(place.files()) == 1
    assert 0 < store.bytes_on_disk < full
    assert len(read(store, other)) == 5


def test_release_twice_is_refused(store: SpillStore) -> None:
    """Goal: a wrong count is found where it happens. Method: twice with, twice without siblings."""
    first, second = store.write(batch_of(1, 2))
    store.release(first)
    with pytest.raises(ValueError, match="released before"):
        store.release(first)
    store.release(second)
    with pytest.raises(ValueError, match="released before"):
        store.release(second)


def test_released_object_cannot_be_read(store: SpillStore) -> None:
    """Goal: a reader that comes too late gets the error that means "this copy is lost"."""
    (slot,) = store.write(batch_of(10))
    store.release(slot)
    with pytest.raises(SpillReadError, match="released"):
        read(store, slot)


def test_view_of_another_size_is_refused(store: SpillStore) -> None:
    """Goal: a mistaken length is the caller's error, not a lost object."""
    (slot,) = store.write(batch_of(10))
    with pytest.raises(ValueError, match="10 bytes read into a view of 9"):
        store.read_into(slot, memoryview(bytearray(9)))


def test_quota_is_kept_and_what_was_there_stays(place: Place) -> None:
    """Goal: the quota is a limit to the byte. Method: one byte too many, then exactly enough."""
    batch = batch_of(1000, 1000)
    with closing(SpillStore([place.where])) as measure:
        measure.write(batch)
        needed = measure.bytes_on_disk

    with closing(SpillStore([place.where], quota_bytes=2 * needed - 1)) as store:
        slots = store.write(batch)
        with pytest.raises(OutOfDiskError, match=f"{needed:,} of {2 * needed - 1:,} bytes"):
            store.write(batch)
        assert (store.bytes_on_disk, len(place.files())) == (needed, 1)
        for slot in slots:
            store.release(slot)
        store.write(batch)


def damage(place: Place, at: int) -> None:
    """Turn one bit."""
    (name,) = place.files()
    data = bytearray(place.read(name))
    data[at] ^= 1
    place.write(name, bytes(data))


@pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 40, -1])
def test_any_flipped_bit_is_found(store: SpillStore, place: Place, at: int) -> None:
    """Goal: a damaged file never becomes a wrong value. Method: one bit in each field."""
    (slot,) = store.write(batch_of(1000))
    damage(place, at)
    with pytest.raises(SpillReadError):
        read(store, slot)


def test_without_checksums_only_headers_are_checked(place: Place) -> None:
    """Goal: the option does what it says: a changed byte passes, a changed header does not."""
    with closing(SpillStore([place.where], checksum=False)) as store:
        (slot,) = store.write(batch_of(1000))
        damage(place, -1)
        assert len(read(store, slot)) == 1000
        damage(place, 0)
        with pytest.raises(SpillReadError, match="something else"):
            read(store, slot)


@pytest.mark.parametrize("length", [0, 10, 100, 1000])
def test_truncated_file_is_found(store: SpillStore, place: Place, length: int) -> None:
    """Goal: a short file is an error at any length."""
    (slot,) = store.write(batch_of(1000))
    (name,) = place.files()
    place.write(name, place.read(name)[:length])
    with pytest.raises(SpillReadError, match=r"ends at byte|range is not"):
        read(store, slot)


def test_wrong_offset_is_found(store: SpillStore) -> None:
    """Goal: a slot that points elsewhere reads nothing. Method: another object's offset; one
    byte off."""
    first, second = store.write(batch_of(50, 50))
    for offset in (second.offset, first.offset + 1):
        with pytest.raises(SpillReadError, match="something else"):
            read(store, first._replace(offset=offset))


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000, 2500])
def test_parts_of_an_object(store: SpillStore, size: int) -> None:
    """Goal: pieces for the network come straight from disk and make the whole. Method: sizes
    around the pieces' own."""
    batch = batch_of(300, size)
    slot = store.write(batch)[1]
    parts = [bytes(part) for part in store.parts(slot, 1000)]
    assert b"".join(parts) == bytes(batch[1][1])
    assert all(len(part) == 1000 for part in parts[:-1])


@pytest.mark.parametrize("at", [0, 1500, 2499])
def test_damaged_parts_are_never_whole(store: SpillStore, place: Place, at: int) -> None:
    """Goal: who is sent a damaged object does not get its last piece. Method: turn one bit."""
    (slot,) = store.write(batch_of(2500))
    damage(place, at - 2500)
    parts = store.parts(slot, 1000)
    assert [len(next(parts)), len(next(parts))] == [1000, 1000]
    with pytest.raises(SpillReadError, match="not what was written"):
        next(parts)


def test_close_removes_everything(place: Place) -> None:
    """Goal: after close the folder is as it was. Method: files in it; use afterwards."""
    store = SpillStore([place.where])
    (slot,) = store.write(batch_of(10))
    store.close()
    store.close()
    assert place.files() == []
    assert (store.bytes_on_disk, store.files) == (0, 0)
    store.release(slot)
    with pytest.raises(SpillReadError):
        read(store, slot)
    with pytest.raises(ValueError, match="closed"):
        store.write(batch_of(10))


@pytest.mark.parametrize(
    ("folders", "quota", "message"),
    [([], None, "at least one folder"), (["x"], -1, "cannot be negative: -1")],
)
def test_bad_settings(place: Place, folders: list[str], quota: int | None, message: str) -> None:
    """Goal: a store that could not work is refused when it is made."""
    with pytest.raises(ValueError, match=message):
        SpillStore([place.where + folder for folder in folders], quota_bytes=quota)


def test_key_too_long(store: SpillStore, place: Place) -> None:
    """Goal: what the header cannot hold is refused before anything is written."""
    with pytest.raises(ValueError, match="65536 bytes is too long"):
        store.write([(bytes(65536), memoryview(b"x"))])
    assert store.bytes_on_disk == 0


def test_many_threads(store: SpillStore, place: Place) -> None:
    """Goal: I/O threads do not disturb each other. Method: eight of them write, read and release;
    every value is right and at the end the books say nothing is left."""

    def work(thread: int) -> None:
        for turn in range(10):
            batch = batch_of(*[1000 + turn] * 5, name=b"%d/%d" % (thread, turn))
            slots = store.write(batch)
            assert [read(store, slot) for slot in slots] == [bytes(view) for _, view in batch]
            for slot in slots:
                store.release(slot)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert (store.files, store.bytes_on_disk) == (0, 0)
    assert place.files() == []
