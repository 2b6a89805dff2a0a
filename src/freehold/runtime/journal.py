"""The head's journal on disk: ``core.journal`` on SQLite, in the head's folder of the session.

One table: key, record (a frame of one message, as on the wire), and a checksum of both, since
SQLite finds torn pages but not changed bytes. Write-ahead log, so that a change is one append.
``synchronous=NORMAL``: a commit is not forced to disk. It outlives the head's process, which is
what the journal is for: a killed head comes back in 0.2 s under running nodes. If the whole machine
fails, its last commits may be lost, and the nodes elsewhere tell them again as they call
(``core.membership``); for this a node's join would cost a disk's flush, 1 to 20 ms, each time.

Writes of one turn are one transaction: ``commit`` comes before what the turn sends.

Whatever the file looks like, the head starts. What can be read is read, record by record; if
anything was wrong the file is set aside under another name, what was whole goes into a new one, and
the log says what was lost. If the disk refuses a write, the head goes on without: it says so once,
and a restart then knows less, no more than the nodes can tell.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from freehold.wire.messages import Message, Wire

log = logging.getLogger("freehold")

FILE: Final = "journal.db"
DAMAGED: Final = "journal.damaged"
#: Of the table below; a file with another one was written by another release.
FORMAT: Final = 1
TABLE: Final = """CREATE TABLE IF NOT EXISTS records
    (number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, record BLOB NOT NULL, sum INTEGER)"""


class SqliteJournal:
    """Implements ``core.journal.Journal``. Used by one thread."""

    def __init__(self, folder: Path) -> None:
        """Open or make the journal in a folder. Never fails because of what is in the file."""
        self.path = folder / FILE
        self.failed = False
        self.dirty = False
        self.database: sqlite3.Connection | None = None
        found, trouble = _read(self.path)
        if trouble:
            self.set_aside(trouble, len(found))
        self.loaded = [message for _, message in found]
        self.database = self.open()
        if trouble:
            for key, message in found:
                self.put(key, message)
            self.commit()

    def open(self) -> sqlite3.Connection | None:
        """The database, with its table; None if the disk does not let us."""
        try:
            database = sqlite3.connect(self.path, isolation_level=None)
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.execute(f"PRAGMA user_version={FORMAT}")
            database.execute(TABLE)
        except sqlite3.Error as error:
            self.give_up(error)
            return None
        return database

    def set_aside(self, trouble: str, kept: int) -> None:
        """The file is damaged: keep it for people, and begin another."""
        log.error(
            "the head's journal %s is damaged: %s. %d records could be read and are kept; what is "
            "missing the nodes tell again as they call. The damaged file is %s",
            self.path,
            trouble,
            kept,
            self.path.with_name(DAMAGED),
        )
        for suffix in ("", "-wal", "-shm"):
            path = self.path.with_name(FILE + suffix)
            if path.exists():
                path.replace(path.with_name(DAMAGED + suffix))

    def load(self) -> Sequence[Message]:
        """What was there, in the order of its writing."""
        return self.loaded

    def put(self, key: bytes, record: Message) -> None:
        """Keep a record."""
        data = Wire.encode([record])
        self.write(
            "INSERT OR REPLACE INTO records (key, record, sum) VALUES (?, ?, ?)",
            (key, data, _sum(key, data)),
        )

    def delete(self, key: bytes) -> None:
        """Forget a record."""
        self.write("DELETE FROM records WHERE key = ?", (key,))

    def write(self, statement: str, values: tuple[object, ...]) -> None:
        """One change, part of this turn's transaction."""
        if self.database is None:
            return
        try:
            if not self.dirty:
                self.database.execute("BEGIN IMMEDIATE")
                self.dirty = True
            self.database.execute(statement, values)
        except sqlite3.Error as error:
            self.give_up(error)

    def commit(self) -> None:
        """The turn is over: what it wrote is kept. Before anything is sent."""
        if self.dirty and self.database is not None:
            self.dirty = False
            try:
                self.database.execute("COMMIT")
            except sqlite3.Error as error:
                self.give_up(error)

    def give_up(self, error: sqlite3.Error) -> None:
        """The disk does not take it. (A later write may succeed: each is tried.)"""
        self.dirty = False
        if self.database is not None and self.database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.database.rollback()
        if not self.failed:
            self.failed = True
            log.error(
                "the head's journal %s cannot be written: %s. The cluster goes on; if the head has "
                "to be restarted, it will know only what the nodes tell it",
                self.path,
                error,
            )

    def close(self) -> None:
        """Close the file."""
        if self.database is not None:
            self.database.close()
            self.database = None


def _sum(key: bytes, record: bytes) -> int:
    return zlib.crc32(key + record)


def _read(path: Path) -> tuple[list[tuple[bytes, Message]], str]:
    """Every record that is whole, and what was wrong with the others, or with the file."""
    found: list[tuple[bytes, Message]] = []
    if not path.exists():
        return found, ""
    lost = 0
    try:
        database = sqlite3.connect(path, isolation_level=None)
    except sqlite3.Error as error:
        return found, str(error)
    try:
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT:
            return found, f"its format is {version}, not {FORMAT}: another release wrote it"
        for key, record, number in database.execute(
            "SELECT key, record, sum FROM records ORDER BY number"
        ):
            message = _message(key, record, number)
            if message is None:
                lost += 1
            else:
                found.append((key, message))
    except sqlite3.Error as error:
        return found, f"{error}, after {len(found)} whole records and {lost} damaged ones"
    finally:
        database.close()
    return found, f"{lost} of {lost + len(found)} records are damaged" if lost else ""


def _message(key: object, record: object, number: object) -> Message | None:
    """A record's message, if it is whole."""
    if not isinstance(key, bytes) or not isinstance(record, bytes) or _sum(key, record) != number:
        return None
    try:
        messages: list[Message] = Wire.decode(record)
    except msgspec.MsgspecError:
        return None
    return messages[0] if len(messages) == 1 else None
