"""The head's journal on disk: what is kept, and what becomes of a file that was torn or changed."""

from __future__ import annotations

import logging
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from core.world import info, job, node, process
from freehold.runtime.journal import DAMAGED, FILE, SqliteJournal
from freehold.wire.messages import JobStarted, Message, NodeChanged


def record(name: str) -> Message:
    return NodeChanged(info(node(name), {"CPU": 1}))


def names(journal: SqliteJournal) -> list[str]:
    """Of the nodes that were loaded, in order."""
    found = []
    for message in journal.load():
        assert isinstance(message, NodeChanged)
        found.append(message.info.address.node.decode().rstrip("."))
    return found


def filled(folder: Path, count: int) -> None:
    """A journal with so many nodes, closed."""
    journal = SqliteJournal(folder)
    for number in range(count):
        journal.put(b"%d" % number, record(f"n{number}"))
        journal.commit()
    journal.close()


def again(folder: Path) -> list[str]:
    """What a head that begins now would know."""
    journal = SqliteJournal(folder)
    try:
        return names(journal)
    finally:
        journal.close()


def test_records_come_back_in_order(tmp_path: Path) -> None:
    """Goal: the last record under each key, in the order of writing; what was deleted does not.
    Method: put, replace, delete; twice what does not exist."""
    journal = SqliteJournal(tmp_path)
    assert names(journal) == []
    for name in ("a", "b", "c"):
        journal.put(name.encode(), record(name))
    journal.commit()
    journal.put(b"a", record("a2"))
    journal.delete(b"b")
    journal.delete(b"nobody")
    journal.commit()
    journal.commit()
    journal.close()
    assert again(tmp_path) == ["c", "a2"]


def test_any_message_is_a_record(tmp_path: Path) -> None:
    """Goal: what the head will keep later (names, groups) needs no other journal. Method: another
    type of message comes back equal."""
    started = JobStarted(job(), process("driver"), 7, ["/src"], "/home", True)
    journal = SqliteJournal(tmp_path)
    journal.put(job(), started)
    journal.commit()
    journal.close()
    assert SqliteJournal(tmp_path).load() == [started]


def test_a_killed_writer_loses_nothing_committed(tmp_path: Path) -> None:
    """Goal: kill -9 between two turns. Method: a process commits ten records, writes one more
    without commit, and kills itself."""
    program = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from runtime.test_journal import filled, record
from freehold.runtime.journal import SqliteJournal
filled(Path(sys.argv[1]), 9)
journal = SqliteJournal(Path(sys.argv[1]))
journal.put(b"9", record("n9"))
journal.commit()
journal.put(b"10", record("n10"))
os.kill(os.getpid(), signal.SIGKILL)
"""
    tests = str(Path(__file__).parent.parent)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), tests], check=False)
    assert done.returncode == -signal.SIGKILL
    assert again(tmp_path) == [f"n{number}" for number in range(10)]


def test_a_torn_end_loses_only_the_end(tmp_path: Path) -> None:
    """Goal: a machine that failed in the middle of a write. Method: cut the write-ahead log at
    every page and in the middle of pages; what is left is a beginning of what was written, and the
    journal takes new records."""
    journal = SqliteJournal(tmp_path)
    for number in range(6):
        journal.put(b"%d" % number, record(f"n{number}"))
        journal.commit()
    log = tmp_path / f"{FILE}-wal"
    whole, base = log.read_bytes(), (tmp_path / FILE).read_bytes()
    journal.close()
    kept = []
    for number, length in enumerate(range(len(whole), 0, -1500)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / FILE).write_bytes(base)
        (folder / f"{FILE}-wal").write_bytes(whole[:length])
        found = again(folder)
        assert found == [f"n{index}" for index in range(len(found))]
        kept.append(len(found))
        torn = SqliteJournal(folder)
        torn.put(b"new", record("new"))
        torn.commit()
        torn.close()
        assert again(folder)[-1] == "new"
    assert (kept[0], kept[-1]) == (6, 0)


@pytest.mark.parametrize("garbage", [b"", b"garbage" * 1000, b"SQLite format 3\0" + bytes(4096)])
def test_a_file_that_is_no_journal(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: the head starts whatever the file is, and works. An empty file is an empty journal;
    anything else is set aside, and the log says so."""
    (tmp_path / FILE).write_bytes(garbage)
    with caplog.at_level(logging.ERROR):
        assert again(tmp_path) == []
    if garbage:
        assert "is damaged" in caplog.text
        assert (tmp_path / DAMAGED).read_bytes() == garbage
    filled(tmp_path, 2)
    assert again(tmp_path) == ["n0", "n1"]


def test_a_changed_record_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: bits that changed on the disk are noticed, and cost one record. Method: change a byte
    inside the third of five; the log counts, and the next start finds a clean file."""
    filled(tmp_path, 5)
    database = sqlite3.connect(tmp_path / FILE)
    (data,) = database.execute("SELECT record FROM records WHERE key = ?", (b"2",)).fetchone()
    changed = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    database.execute("UPDATE records SET record = ? WHERE key = ?", (changed, b"2"))
    database.commit()
    database.close()
    with caplog.at_level(logging.ERROR):
        assert again(tmp_path) == ["n0", "n1", "n3", "n4"]
    assert "1 of 5 records are damaged. 4 records could be read" in caplog.text
    caplog.clear()
    assert again(tmp_path) == ["n0", "n1", "n3", "n4"]
    assert caplog.text == ""


def test_a_journal_of_another_release(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: what we cannot read we do not guess at. Method: another format number."""
    filled(tmp_path, 1)
    database = sqlite3.connect(tmp_path / FILE)
    database.execute("PRAGMA user_version=99")
    database.close()
    with caplog.at_level(logging.ERROR):
        assert again(tmp_path) == []
    assert "another release wrote it" in caplog.text


def test_a_disk_that_takes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a head goes on without a disk, and says so once. Method: no folder to write to."""
    with caplog.at_level(logging.ERROR):
        journal = SqliteJournal(tmp_path / "absent")
        for number in range(3):
            journal.put(b"%d" % number, record("n"))
            journal.commit()
        journal.delete(b"0")
        journal.close()
    assert caplog.text.count("cannot be written") == 1


def test_a_disk_that_fills_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a write that fails costs that turn's records, not the head, and later ones are tried.
    Method: SQLite is allowed no more pages than it has, then many."""
    journal = SqliteJournal(tmp_path)
    journal.put(b"first", record("first"))
    journal.commit()
    assert journal.database is not None
    pages = journal.database.execute("PRAGMA page_count").fetchone()[0]
    journal.database.execute(f"PRAGMA max_page_count={pages}")
    with caplog.at_level(logging.ERROR):
        for number in range(200):
            journal.put(b"%d" % number, record(f"n{number}"))
            journal.commit()
    assert caplog.text.count("cannot be written") == 1
    journal.database.execute("PRAGMA max_page_count=1000000")
    journal.put(b"last", record("last"))
    journal.commit()
    journal.close()
    kept = again(tmp_path)
    assert (kept[0], kept[-1]) == ("first", "last")
    assert len(kept) < 200


def test_one_turn_is_one_transaction(tmp_path: Path) -> None:
    """Goal: a turn's records are kept together or not at all. Method: read beside the writer,
    before and after its commit."""
    journal = SqliteJournal(tmp_path)
    reader = sqlite3.connect(tmp_path / FILE)
    for name in ("a", "b"):
        journal.put(name.encode(), record(name))
    assert reader.execute("SELECT COUNT(*) FROM records").fetchone() == (0,)
    journal.commit()
    assert reader.execute("SELECT COUNT(*) FROM records").fetchone() == (2,)
    reader.close()
    journal.close()
