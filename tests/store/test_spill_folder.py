"""Spill files in folders: short writes, full and broken disks, and what killed processes left."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import OutOfDiskError
from freehold.store import spill_folder
from freehold.store.spill import SpillStore
from spilled import batch_of, read


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SpillStore]:
    store = SpillStore([tmp_path])
    yield store
    store.close()


def on_disk(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_files_are_ours_alone(store: SpillStore, tmp_path: Path) -> None:
    """Goal: nobody else on the machine can read what is spilled."""
    store.write(batch_of(10))
    (file,) = on_disk(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


class Disk:
    """Stands between the store and the kernel: writes little at a time, then fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at_most: int, room: int, code: int) -> None:
        self.write, self.at_most, self.room, self.code = os.pwritev, at_most, room, code
        monkeypatch.setattr(spill_folder.os, "pwritev", self.pwritev)

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
    with closing(SpillStore(folders)) as store:
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
    with closing(SpillStore([tmp_path / "file", tmp_path / "good"])) as store:
        store.write(batch_of(10))
        assert len(on_disk(tmp_path / "good")) == 1
    assert f"cannot spill to {tmp_path / 'file'}: File exists" in caplog.text
    with pytest.raises(FileExistsError):
        SpillStore([tmp_path / "file"])


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
                patch.setattr(spill_folder, "_remove_folder", lambda folder: None)
            store.close()
        return int(write(fd, buffers, offset))

    monkeypatch.setattr(spill_folder.os, "pwritev", overtaken)
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
    with closing(SpillStore([tmp_path])):
        assert len(read(living, slot)) == 10
    living.close()
    assert list(tmp_path.iterdir()) == []
