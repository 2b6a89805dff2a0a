"""Making environments: performs what ``core.environments`` decides, in threads, so that the daemon
goes on meanwhile.

    NODE/packages/        (below /var/tmp if the node's folder is in memory)
        DIGEST.zip        an archive, as a process of this node or another node sent it
        DIGEST.part       one that is still coming
        DIGEST/           what was unpacked: workers work in it, or import from it

What a thread has done it reports by ``call_soon``, under the lock of the role. Archives go with the
node, virtual environments stay (``venvs``).
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path

from freehold.core.environments import VENV, ZYGOTE, Environments
from freehold.runtime import places, venvs
from freehold.runtime.transport import Transport
from freehold.runtime.zygotes import Zygotes
from freehold.wire.environments import (
    PART_BYTES,
    Furnished,
    Installation,
    Package,
    PackagePart,
)


class EnvironmentMaker:
    """Implements ``core.environments.Maker`` for one node."""

    def __init__(self, transport: Transport, folder: Path, zygotes: Zygotes) -> None:
        self.transport = transport
        self.node_folder = folder
        self.folder = places.package_folder(folder)
        self.zygotes = zygotes
        self.environments: Environments
        self.venvs: dict[bytes, venvs.Venv] = {}
        self.running: set[venvs.Running] = set()
        zygotes.ready = lambda key: self.environments.made(key, "ready", 0)
        zygotes.failed = self.not_there

    def in_thread(self, work: Callable[[], Callable[[], None]]) -> None:
        """Do ``work`` aside; what it returns is done under the lock."""

        def run() -> None:
            report = work()
            self.transport.call_soon(report)

        threading.Thread(target=run, daemon=True, name="freehold-environment").start()

    def not_there(self, key: bytes, words: str) -> None:
        """A zygote could not begin, or has ended."""
        self.environments.failed(key, words)

    def close(self) -> None:
        """The daemon ends."""
        for running in self.running:
            running.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ------------------------------------------------------------------ pieces

    def unpack(self, key: bytes, package: Package) -> None:
        """Unpack an archive into a folder of its own."""
        import zipfile  # (0.3 MiB in each daemon, and seldom used)

        archive = self.folder / f"{key.hex()}.zip"
        target = self.folder / key.hex()

        def work() -> Callable[[], None]:
            try:
                if digest_of(archive) != key:
                    raise venvs.SetupError("it has arrived damaged")
                size = unpack(archive, target, wheel=package.wheel)
            except (OSError, zipfile.BadZipFile, venvs.SetupError) as error:
                words = f"the package of {package.name} could not be unpacked: {error}"
                return lambda: self.environments.failed(key, words)
            return lambda: self.environments.made(key, str(target), size)

        self.in_thread(work)

    def install(self, key: bytes, installation: Installation, seconds: float) -> None:
        """Make or find a virtual environment."""
        running = venvs.Running()
        self.running.add(running)

        def work() -> Callable[[], None]:
            try:
                venv = venvs.provide(installation, seconds, running)
            except (OSError, venvs.SetupError) as error:
                words = str(error)
                return lambda: self.not_installed(key, running, words)
            return lambda: self.installed(key, running, venv)

        self.in_thread(work)

    def installed(self, key: bytes, running: venvs.Running, venv: venvs.Venv) -> None:
        """A virtual environment is there, and stays while we use it."""
        self.running.discard(running)
        self.venvs[key] = venv
        self.environments.made(key, str(venv.path), venv.size)

    def not_installed(self, key: bytes, running: venvs.Running, words: str) -> None:
        """It could not be made."""
        self.running.discard(running)
        self.environments.failed(key, words)

    def start_zygote(self, key: bytes, furnished: Furnished, venv: str) -> None:
        """Execute a zygote in the environment."""
        self.zygotes.begin(key, self.node_folder, furnished, venv)

    def discard_piece(self, key: bytes, kind: str) -> None:
        """Remove what was made."""
        if kind == ZYGOTE:
            self.zygotes.end(key)
        elif kind == VENV:
            self.venvs.pop(key).close()
        else:
            self.remove(self.folder / key.hex())

    # ------------------------------------------------------------------ archives

    def package_folder(self) -> str:
        """Where archives lie."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(self.folder)

    def discard_archive(self, digest: bytes) -> None:
        """Remove an archive."""
        (self.folder / f"{digest.hex()}.zip").unlink(missing_ok=True)

    def write_part(self, part: PackagePart) -> None:
        """Add to an archive that is still coming."""
        path = self.folder / f"{part.digest.hex()}.part"

        def work() -> Callable[[], None]:
            words = ""
            try:
                self.package_folder()
                with path.open("r+b" if part.offset else "wb") as file:
                    file.seek(part.offset)
                    file.write(part.data)
                if part.offset + len(part.data) == part.size:
                    path.rename(path.with_suffix(".zip"))
            except OSError as error:
                words = f"it could not be written: {error}"
            return lambda: self.environments.written(part, words)

        self.in_thread(work)

    def read_part(self, digest: bytes, offset: int, answer: Callable[[bytes], None]) -> None:
        """Read a part of an archive; nothing if it cannot be read."""
        path = self.folder / f"{digest.hex()}.zip"

        def work() -> Callable[[], None]:
            data = b""
            with contextlib.suppress(OSError), path.open("rb") as file:
                file.seek(offset)
                data = file.read(PART_BYTES)
            return lambda: answer(data)

        self.in_thread(work)

    def remove(self, path: Path) -> None:
        """Remove a folder, which may take a while."""

        def work() -> Callable[[], None]:
            shutil.rmtree(path, ignore_errors=True)
            return lambda: None

        self.in_thread(work)


def digest_of(archive: Path) -> bytes:
    """The digest of a file."""
    digest = blake2b(digest_size=16)
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def unpack(archive: Path, target: Path, *, wheel: bool) -> int:
    """Unpack an archive, with the modes of its files. Returns the bytes that it takes.

    What a wheel wants to have among the packages, but not beside its own, is brought there.
    """
    import zipfile  # (0.3 MiB in each daemon, and seldom used)

    new = target.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    size = 0
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            path = file.extract(info, new)
            mode = (info.external_attr >> 16) & 0o777
            if mode and not info.is_dir():
                Path(path).chmod(mode)
            size += info.file_size
    if wheel:
        for folder in [*new.glob("*.data/purelib"), *new.glob("*.data/platlib")]:
            shutil.copytree(folder, new, dirs_exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return size
