"""Virtual environments for ``pip`` and ``uv``: made once for each list of requirements, kept for
all clusters of this user on this machine.

    CACHE/                $FREEHOLD_CACHE, else $XDG_CACHE_HOME/freehold, else ~/.cache/freehold
        venvs/
            NAME/         a virtual environment, with install.log, and ``ready`` once it is
            NAME.lock     locked exclusively by who makes or removes it, shared by who uses it

NAME is a digest of the requirements and of the interpreter. What the installing daemon's own
interpreter can import can be imported in the environment too, behind what was installed there:
Freehold must be, and the requirements are those of a program that was tried here without them.

A lock goes with the process that holds it, so that a crash blocks nobody: what was half made is
made anew. When the environments together exceed ``CACHE_BYTES``, those that nobody uses go,
longest unused first.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from freehold.wire.environments import Installation, key_of

#: Bytes on disk that the environments of a user may take when nobody uses them: Ray's figure.
CACHE_BYTES: Final = 10 << 30
#: Lines of the installer that an error quotes: pip says what it could not find in the last five.
LAST_LINES: Final = 20


class SetupError(Exception):
    """The environment cannot be made; its text is for the user."""


class Running:
    """The installer that runs at present, so that it can be ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False

    def end(self) -> None:
        """SIGKILL it and what it has started; it starts nothing more."""
        self.ended = True
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Venv:
    """One that is ready and, until ``close``, not removed by anybody."""

    def __init__(self, path: Path, lock: int, size: int) -> None:
        self.path = path
        self.lock = lock
        self.size = size

    def close(self) -> None:
        """It may be removed."""
        os.close(self.lock)


def cache_folder() -> Path:
    """Where environments lie, made if it is not there."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(os.environ.get("FREEHOLD_CACHE") or f"{base}/freehold") / "venvs"
    try:
        path = path.expanduser().absolute()
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except (OSError, RuntimeError) as error:
        raise SetupError(
            f"the folder for virtual environments, {path}, cannot be made ({error}). "
            "Set FREEHOLD_CACHE to a folder of yours"
        ) from None
    if owner != os.getuid():
        raise SetupError(f"{path} belongs to another user. Set FREEHOLD_CACHE to a folder of yours")
    return path


def python_of(path: str) -> str:
    """The interpreter of an environment."""
    return f"{path}/bin/python"


def variables(path: str) -> dict[str, str]:
    """The variables of a process in an environment. Folders of packages in PYTHONPATH would come
    before what was installed; the environment knows them anyway.
    """
    known = dict(os.environ)
    packages = {os.path.realpath(folder) for folder in parents()}
    python_path = [
        entry
        for entry in known.pop("PYTHONPATH", "").split(os.pathsep)
        if entry and os.path.realpath(entry) not in packages
    ]
    if python_path:
        known["PYTHONPATH"] = os.pathsep.join(python_path)
    known["VIRTUAL_ENV"] = path
    known["PATH"] = f"{path}/bin{os.pathsep}{known.get('PATH', os.defpath)}"
    return known


def parents() -> list[str]:
    """The folders of packages of this interpreter."""
    folders = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        folders = [*folders, site.getusersitepackages()]
    return folders


def provide(installation: Installation, seconds: float, running: Running) -> Venv:
    """The environment with these requirements, made if it is not there. Blocks: for a thread.

    Args:
        seconds: how long that may take.
        running: by which another thread can end it.

    Raises SetupError with the installer's last lines.
    """
    deadline = time.monotonic() + seconds
    cache = cache_folder()
    basis = f"{sys.version}|{sys.prefix}|".encode() + key_of(installation)
    path = cache / blake2b(basis, digest_size=16).hexdigest()
    lock = take(path, fcntl.LOCK_EX, deadline, running)
    try:
        ready = path / "ready"
        if not ready.exists():
            make(path, installation, deadline, running, lock)
            ready.write_text(str(size_of(path)))
        size = int(ready.read_text())
        os.utime(lock)
        fcntl.flock(lock, fcntl.LOCK_SH)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        Path(f"{path}.lock").unlink(missing_ok=True)
        os.close(lock)
        raise
    evict(cache)
    return Venv(path, lock, size)


def take(path: Path, kind: int, deadline: float, running: Running) -> int:
    """The lock of an environment, held. Whoever removes an environment removes its lock file: one
    that has no name any more is nobody's.
    """
    while True:
        lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return lock
        except BlockingIOError:
            if running.ended or time.monotonic() > deadline:
                os.close(lock)
                raise SetupError(
                    f"another process has been making {path} for too long; its log is "
                    f"{path}/install.log"
                ) from None
            time.sleep(0.1)
        os.close(lock)


def make(
    path: Path, installation: Installation, deadline: float, running: Running, lock: int
) -> None:
    """Make an environment where there is none, or half of one. The installer holds the lock too: it
    may outlive us.
    """
    import venv  # (a thread of one node in many comes here)

    shutil.rmtree(path, ignore_errors=True)
    venv.EnvBuilder(symlinks=True).create(path)
    (packages,) = path.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({folder!r})" for folder in parents()]
    (packages / "_freehold_parents.pth").write_text("\n".join(lines) + "\n")
    requirements = path / "requirements.txt"
    requirements.write_text("\n".join(installation.requirements) + "\n")
    scratch = path / "tmp"  # (an installer that is killed leaves its own where it stands)
    scratch.mkdir()
    with (path / "install.log").open("ab") as log:
        for command in commands(path, installation, requirements):
            execute(command, path, log.fileno(), deadline, running, lock)
    shutil.rmtree(scratch, ignore_errors=True)


def commands(path: Path, installation: Installation, requirements: Path) -> list[list[str]]:
    """What has to be executed."""
    python = python_of(str(path))
    what = [*installation.options, "-r", str(requirements)]
    if installation.installer == "uv":
        found = shutil.which("uv")
        if found is None and find_spec("uv") is None:
            raise SetupError(
                "runtime_env has 'uv', but there is no uv on this node. Install it there "
                "(pip install uv), or use 'pip'"
            )
        uv = [found] if found else [sys.executable, "-m", "uv"]
        install = [*uv, "pip", "install", "--python", python, *what]
        check = [*uv, "pip", "check", "--python", python]
    else:
        if find_spec("pip") is None:
            raise SetupError(
                f"runtime_env has 'pip', but {sys.executable} has no pip on this node. Install it "
                "there (python -m ensurepip), or use 'uv'"
            )
        pip = [sys.executable, "-m", "pip", "--python", python]
        quiet = ["--disable-pip-version-check", "--no-input"]
        install = [*pip, "install", *quiet, *what]
        check = [*pip, "check", "--disable-pip-version-check"]
    return [install, check] if installation.check else [install]


def execute(
    command: list[str], path: Path, log: int, deadline: float, running: Running, lock: int
) -> None:
    """Run the installer, within the time."""
    running.process = process = subprocess.Popen(
        command,
        cwd=path,
        env={**variables(str(path)), "TMPDIR": str(path / "tmp")},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        pass_fds=[lock],
    )
    if running.ended:
        running.end()  # it was asked for before there was a process to end
    try:
        status = process.wait(max(deadline - time.monotonic(), 0.1))
        how = f"failed with status {status}"
    except subprocess.TimeoutExpired:
        running.end()
        status, how = process.wait(), "took too long (config['setup_timeout_seconds'])"
    if status:
        lines = (path / "install.log").read_text(errors="replace").splitlines()
        last = "\n  ".join(lines[-LAST_LINES:])
        raise SetupError(f"{' '.join(command)} {how}. Its last lines:\n  {last}\n")


def size_of(path: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.lstat().st_size for file in path.rglob("*"))


def evict(cache: Path) -> None:
    """Remove environments that nobody uses, longest unused first, while there is too much."""
    found: list[tuple[float, int, Path]] = []
    for ready in cache.glob("*/ready"):
        with contextlib.suppress(OSError, ValueError):
            used = ready.parent.with_suffix(".lock").stat().st_mtime
            found.append((used, int(ready.read_text()), ready.parent))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= CACHE_BYTES:
            return
        with contextlib.suppress(SetupError):
            lock = take(path, fcntl.LOCK_EX, 0.0, Running())
            shutil.rmtree(path, ignore_errors=True)
            path.with_suffix(".lock").unlink(missing_ok=True)
            os.close(lock)
            total -= size
