"""A journal for tests: what is kept, by key, as the real one would give it back."""

from __future__ import annotations

from freehold.wire.messages import Message, Wire


class Memory:
    """Implements ``core.journal.Journal`` in memory, through the wire's own codec."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    def put(self, key: bytes, record: Message) -> None:
        self.kept.pop(key, None)
        self.kept[key] = Wire.encode([record])

    def delete(self, key: bytes) -> None:
        self.kept.pop(key, None)

    def load(self) -> list[Message]:
        return [Wire.decode(record)[0] for record in self.kept.values()]
