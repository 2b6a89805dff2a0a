"""Runtime environments in the simulated world: which a function runs in, and the part of a node
that makes what they need, each piece in its time.

In profiles that have them (``generate.Profile.environments``) each function has one of four: none,
one of a variable, which needs nothing, and two for which something has to be made. A worker checks
at each task that it is in the right one. Packages do not travel here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from freehold.core.submission import Task
from freehold.roles.owner import Owner
from freehold.sim.process import Process
from freehold.sim.world import MILLI, Violation
from freehold.wire.environments import (
    Environment,
    Furnished,
    Installation,
    Package,
    PackagePart,
    key_of,
)

CHOICES: Final = (
    None,
    Environment(env_vars={"A": "1"}),
    Environment(env_vars={"OMP_NUM_THREADS": "1"}),
    Environment(installation=Installation("pip", ["numpy"])),
)


def surround(owner: Owner, task: Task, function: int) -> None:
    """A task of this function runs in its environment."""
    environment = CHOICES[function % len(CHOICES)]
    if environment is not None:
        task.environment = key_of(environment)
        owner.environments[task.environment] = environment


def check(furnished: Furnished | None, function: int, name: str) -> None:
    """A worker runs a task of this function."""
    inside = furnished.environment if furnished is not None else None
    if inside != CHOICES[function % len(CHOICES)]:
        raise Violation("environments", f"{name} runs in {inside}")


class Making(Process):
    """Implements ``core.environments.Maker``."""

    def package_folder(self) -> str:
        """No file is ever written."""
        return f"packages of {self.name}"

    def unpack(self, key: bytes, package: Package) -> None:
        """Takes a while."""
        self.make(key, package.size)

    def install(self, key: bytes, installation: Installation, seconds: float) -> None:
        """Takes a while."""
        self.make(key, 0)

    def start_zygote(self, key: bytes, furnished: Furnished, venv: str) -> None:
        """Takes a while."""
        self.make(key, 0)

    def make(self, key: bytes, size: int) -> None:
        """Say later that it is there."""
        made = self.role.preparing.environments.made  # type: ignore[attr-defined]  # a roles.Node
        self.arrange(300 * MILLI, lambda: made(key, key.hex(), size), "a piece is made")

    def discard_piece(self, key: bytes, kind: str) -> None:
        """There is nothing to remove."""

    def discard_archive(self, digest: bytes) -> None:
        """There is nothing to remove."""

    def write_part(self, part: PackagePart) -> None:
        """Takes a while."""
        written = self.role.preparing.environments.written  # type: ignore[attr-defined]
        self.arrange(MILLI, lambda: written(part, ""), "environment: a part is written")

    def read_part(self, digest: bytes, offset: int, answer: Callable[[bytes], None]) -> None:
        """Nothing was put there."""
        self.arrange(MILLI, lambda: answer(b""), "environment: a part is read")
