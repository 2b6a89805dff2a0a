"""The journal as a machine of the head sees it: what must outlive the head's process.

A record is a message under a key of bytes: a node's id, a job's. The last one put under a key is
the one that counts, so a change is one record and never half done. ``put`` and ``delete`` are
written before anything that is sent in the same turn, so nobody is ever told what the head could
forget. ``load`` gives what was there when this head began, oldest first; a record that was torn or
damaged is left out, and the shell has said so.

Who keeps what here is told apart by the type of the message; a machine takes its own and leaves the
others'. What the nodes tell again by themselves (what is free, which processes have ended) is not
kept.

The real one is ``runtime.journal``; the simulated one loses the last records of a head that is
killed while it writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from freehold.wire.messages import Message


class Journal(Protocol):
    """Records under keys, on disk."""

    def put(self, key: bytes, record: Message) -> None:
        """Keep ``record`` under ``key``, in place of what was there."""

    def delete(self, key: bytes) -> None:
        """Keep nothing under ``key``. Harmless if nothing is there."""

    def load(self) -> Sequence[Message]:
        """Every record that could be read when the head began, in the order of their writing."""
