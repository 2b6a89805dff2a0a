"""Spill files: what was written is read, or an error says why not; nothing stays on disk."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import OutOfDiskError
from freehold.store import spill
from freehold.store.spill import SpillReadError, SpillSlot, SpillStore

Batch = list[tuple[bytes, memoryview]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SpillStore]:
    store = SpillStore([tmp_path])
    yield store
    store.close()


def batch_of(*sizes: int, name: bytes = b"object") -> Batch:
    source = random.Random(len(sizes))
    return [
        (name + b"-%d" % number, memoryview(source.randbytes(size)))
        for number, size in enumerate(sizes)
    ]


def read(store: SpillStore, slot: SpillSlot) -> bytes:
    target = bytearray(slot.size)
    store.read_into(slot, memoryview(target))
    return bytes(target)


def on_disk(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_batch_comes_back_from_one_file(store: SpillStore, tmp_path: Path) -> None:
    """Goal: a batch is one file, and each object of it can be read. Method: odd sizes, none, many.

    1,500 objects are more buffers than one system call takes."""
    batch = batch_of(0, 1, 100_000, 0, *([77] * 1500))
    slots = store.write(batch)

    assert [read(store, slot) for slot in slots] == [bytes(view) for _, view in batch]
    assert [(slot.key, slot.size) for slot in slots] == [(k, view.nbytes) for k, view in batch]
    (file,) = on_disk(tmp_path)
    assert file.stat().st_size == store.bytes_on_disk
    assert file.stat().st_mode & 0o777 == 0o600
    assert store.files == 1


def test_empty_batch_makes_no_file(store: SpillStore, tmp_path: Path) -> None:
    """Goal: nothing in, nothing out, nothing on disk."""
    assert store.write([]) == []
    assert on_disk(tmp_path) == []


def test_file_goes_with_its_last_object(store: SpillStore, tmp_path: Path) -> None:
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
    assert store.files == len(on_disk(tmp_path)) == 1
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


def test_quota_is_kept_and_what_was_there_stays(tmp_path: Path) -> None:
    """Goal: the quota is a limit to the byte. Method: one byte too many, then exactly enough."""
    batch = batch_of(1000, 1000)
    with SpillStoreContext(SpillStore([tmp_path])) as measure:
        measure.write(batch)
        needed = measure.bytes_on_disk

    with SpillStoreContext(SpillStore([tmp_path], quota_bytes=2 * needed - 1)) as store:
        slots = store.write(batch)
        with pytest.raises(OutOfDiskError, match=f"{needed:,} of {2 * needed - 1:,} bytes"):
            store.write(batch)
        assert (store.bytes_on_disk, len(on_disk(tmp_path))) == (needed, 1)
        for slot in slots:
            store.release(slot)
        store.write(batch)


class SpillStoreContext:
    def __init__(self, store: SpillStore) -> None:
        self.store = store

    def __enter__(self) -> SpillStore:
        return self.store

    def __exit__(self, *error: object) -> None:
        self.store.close()


class Disk:
    """Stands between the store and the kernel: writes little at a time, then fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at_most: int, room: int, code: int) -> None:
        self.write, self.at_most, self.room, self.code = os.pwritev, at_most, room, code
        monkeypatch.setattr(spill.os, "pwritev", self.pwritev)

    def pwritev(self, fd: int, buffers: list[memoryview], offset: int) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        data = b"".join(buffers)[: self.at_most]
        self.room -= len(data)
        return self.write(fd, [data], offset)


def test_short_writes_are_continued(
    store: SpillStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a kernel that takes 7 bytes at a time writes the same file."""
    Disk(monkeypatch, at_most=7, room=1 << 30, code=errno.EIO)
    batch = batch_of(100, 0, 33)
    slots = store.write(batch)
    assert [read(store, slot) for slot in slots] == [bytes(view) for _, view in batch]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_full_or_broken_disk_leaves_nothing_behind(
    store: SpillStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Goal: a failed spill is one clear error. Method: the disk fails in the midst of a file."""
    Disk(monkeypatch, at_most=1000, room=5000, code=code)
    with pytest.raises(OutOfDiskError, match=os.strerror(code)):
        store.write(batch_of(100_000))
    assert on_disk(tmp_path) == []
    assert (store.bytes_on_disk, store.files) == (0, 0)


def test_folders_take_turns_and_stand_in_for_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: two disks share the work; when one fails the other takes all.

    Method: two folders; then one of them is taken away."""
    folders = [tmp_path / "a", tmp_path / "b"]
    with SpillStoreContext(SpillStore(folders)) as store:
        for _ in range(4):
            store.write(batch_of(10))
        assert not caplog.records
        assert [len(on_disk(folder)) for folder in folders] == [2, 2]

        (inner,) = folders[0].iterdir()
        inner.rename(tmp_path / "gone")
        slots = [store.write(batch_of(10))[0] for _ in range(4)]
        assert len(on_disk(folders[1])) == 6
        assert [len(read(store, slot)) for slot in slots] == [10] * 4
        (warning,) = caplog.records  # once, not for each file
        assert f"cannot spill to {inner}" in warning.getMessage()

        (inner,) = folders[1].iterdir()
        inner.rename(tmp_path / "gone too")
        with pytest.raises(OutOfDiskError, match=r"No such file.*No such file"):
            store.write(batch_of(10))


def test_a_folder_that_cannot_be_made_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: one bad disk of two does not keep a node from spilling; two do. Method: a file stands
    where the folder should be."""
    (tmp_path / "file").touch()
    with SpillStoreContext(SpillStore([tmp_path / "file", tmp_path / "good"])) as store:
        store.write(batch_of(10))
        assert len(on_disk(tmp_path / "good")) == 1
    assert f"cannot spill to {tmp_path / 'file'}: File exists" in caplog.text
    with pytest.raises(FileExistsError):
        SpillStore([tmp_path / "file"])


def damage(folder: Path, at: int) -> None:
    (path,) = on_disk(folder)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 8, 12, 16, 24, 40, -1])
def test_any_flipped_bit_is_found(store: SpillStore, tmp_path: Path, at: int) -> None:
    """Goal: a damaged file never becomes a wrong value. Method: one bit in each field."""
    (slot,) = store.write(batch_of(1000))
    damage(tmp_path, at)
    with pytest.raises(SpillReadError):
        read(store, slot)


def test_without_checksums_only_headers_are_checked(tmp_path: Path) -> None:
    """Goal: the option does what it says: a changed byte passes, a changed header does not."""
    with SpillStoreContext(SpillStore([tmp_path], checksum=False)) as store:
        (slot,) = store.write(batch_of(1000))
        damage(tmp_path, -1)
        assert len(read(store, slot)) == 1000
        damage(tmp_path, 0)
        with pytest.raises(SpillReadError, match="something else"):
            read(store, slot)


@pytest.mark.parametrize("length", [0, 10, 100, 1000])
def test_truncated_file_is_found(store: SpillStore, tmp_path: Path, length: int) -> None:
    """Goal: a short file is an error at any length."""
    (slot,) = store.write(batch_of(1000))
    (path,) = on_disk(tmp_path)
    os.truncate(path, length)
    with pytest.raises(SpillReadError, match="ends at byte"):
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


@pytest.mark.parametrize("place", [0, 1500, 2499])
def test_damaged_parts_are_never_whole(store: SpillStore, tmp_path: Path, place: int) -> None:
    """Goal: who is sent a damaged object does not get its last piece. Method: turn one bit."""
    (slot,) = store.write(batch_of(2500))
    (path,) = on_disk(tmp_path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - 2500 + place)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    parts = store.parts(slot, 1000)
    assert [len(next(parts)), len(next(parts))] == [1000, 1000]
    with pytest.raises(SpillReadError, match="not what was written"):
        next(parts)


def test_close_removes_everything(tmp_path: Path) -> None:
    """Goal: after close the folder is as it was. Method: files in it; use afterwards."""
    store = SpillStore([tmp_path])
    (slot,) = store.write(batch_of(10))
    store.close()
    store.close()
    assert list(tmp_path.iterdir()) == []
    assert (store.bytes_on_disk, store.files) == (0, 0)
    store.release(slot)
    with pytest.raises(SpillReadError):
        read(store, slot)
    with pytest.raises(ValueError, match="closed"):
        store.write(batch_of(10))


@pytest.mark.parametrize("file_seen", [True, False])
def test_close_during_a_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file_seen: bool
) -> None:
    """Goal: a write overtaken by close leaves nothing. Method: close while the kernel writes,
    once seeing the new file, once having looked just before it appeared."""
    store = SpillStore([tmp_path])
    write: Any = os.pwritev

    def overtaken(fd: int, buffers: list[memoryview], offset: int) -> int:
        with monkeypatch.context() as patch:
            if not file_seen:
                patch.setattr(spill, "_remove_folder", lambda folder: None)
            store.close()
        return int(write(fd, buffers, offset))

    monkeypatch.setattr(spill.os, "pwritev", overtaken)
    with pytest.raises(ValueError, match="closed during a write"):
        store.write(batch_of(10))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Goal: crashes do not fill the disk, and living stores are left alone.

    Method: a child writes and dies without closing; a store that lives stands beside it."""
    pid = os.fork()
    if pid == 0:
        try:
            SpillStore([tmp_path]).write(batch_of(1000))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert len(on_disk(tmp_path)) == 1

    living = SpillStore([tmp_path])
    assert on_disk(tmp_path) == []
    (slot,) = living.write(batch_of(10))
    with SpillStoreContext(SpillStore([tmp_path])):
        assert len(read(living, slot)) == 10
    living.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("folders", "quota", "message"),
    [([], None, "at least one folder"), (["x"], -1, "cannot be negative: -1")],
)
def test_bad_settings(tmp_path: Path, folders: list[str], quota: int | None, message: str) -> None:
    """Goal: a store that could not work is refused when it is made."""
    with pytest.raises(ValueError, match=message):
        SpillStore([tmp_path / folder for folder in folders], quota_bytes=quota)


def test_key_too_long(store: SpillStore, tmp_path: Path) -> None:
    """Goal: what the header cannot hold is refused before anything is written."""
    with pytest.raises(ValueError, match="65536 bytes is too long"):
        store.write([(bytes(65536), memoryview(b"x"))])
    assert store.bytes_on_disk == 0


def test_many_threads(store: SpillStore, tmp_path: Path) -> None:
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
    assert on_disk(tmp_path) == []
