"""A maker that notes what it is asked for, for tests of nodes and environments."""

from __future__ import annotations

from collections.abc import Callable

from freehold.wire.environments import Furnished, Installation, Package, PackagePart


class Making:
    """Implements ``core.environments.Maker``; the test says when something is done."""

    def __init__(self) -> None:
        self.unpacked: list[bytes] = []
        self.installed: list[tuple[bytes, list[str]]] = []
        self.zygotes: dict[bytes, tuple[Furnished, str]] = {}
        self.discarded: list[bytes] = []
        self.dropped: list[bytes] = []
        self.parts: list[PackagePart] = []
        self.reads: list[tuple[bytes, int, Callable[[bytes], None]]] = []

    def package_folder(self) -> str:
        return "/packages"

    def unpack(self, key: bytes, package: Package) -> None:
        self.unpacked.append(key)

    def install(self, key: bytes, installation: Installation, seconds: float) -> None:
        self.installed.append((key, installation.requirements))

    def start_zygote(self, key: bytes, furnished: Furnished, venv: str) -> None:
        self.zygotes[key] = (furnished, venv)

    def discard_piece(self, key: bytes, kind: str) -> None:
        self.discarded.append(key)

    def discard_archive(self, digest: bytes) -> None:
        self.dropped.append(digest)

    def write_part(self, part: PackagePart) -> None:
        self.parts.append(part)

    def read_part(self, digest: bytes, offset: int, answer: Callable[[bytes], None]) -> None:
        self.reads.append((digest, offset, answer))
