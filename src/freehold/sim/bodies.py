"""What a body has in hand while it runs: its variables, what it has read, what it lost.

A main program goes on after an error; operations that would have used what it did not get are then
left out (``Lost``), so that those that run mean what they always mean."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

from freehold.sim.ops import Op, made, used

Handle: TypeAlias = Any  # a reference as user code holds it; the backend knows what it is


@dataclass
class Read:
    """A value as user code has it: its content and handles to the references inside."""

    content: bytes
    inner: list[Handle] = field(default_factory=list)


@dataclass
class Made:
    """One result of a body."""

    size: int
    content: bytes
    contains: list[Handle] = field(default_factory=list)


def digest(*parts: bytes) -> bytes:
    """16 bytes that depend on all parts and their order."""
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(4, "big"))
        whole.update(part)
    return whole.digest()


class Lost:
    """Names that a main program would have, had no operation failed; "v." is all inside v."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def touches(self, op: Op) -> bool:
        """Whether the operation would use such a name; then what it makes is lost too."""
        if not self.names or not any(self.covers(name) for name in used(op)):
            return False
        self.names += made(op)
        return True

    def covers(self, name: str) -> bool:
        """Whether this name is lost."""
        return any(
            name == lost or name.startswith(lost if lost[-1] == "." else f"{lost}.")
            for lost in self.names
        )


def values(names: Sequence[str], env: dict[str, Handle]) -> list[str]:
    """Those of the names that stand for values: an actor cannot be read."""
    return [name for name in names if name in env and not env[name].actor]


def let(env: dict[str, Handle], var: str, handle: Handle) -> Generator[tuple[Any, ...], Any, None]:
    """Bind a name; what it was bound to before is dropped."""
    if var in env:
        yield ("drop", env[var])
    env[var] = handle


@dataclass
class Running:
    """One body that runs. ``here``: where it stands; ``held``: its streams and placement groups,
    which are no references; ``given``: values that it has yielded."""

    main: bool
    here: str
    seen: bytes
    env: dict[str, Handle]
    held: dict[str, Handle] = field(default_factory=dict)
    lost: Lost = field(default_factory=Lost)
    given: int = 0
