"""Launch: start a node of this machine, and with it the head if it is to have that, and stop them.

``launched`` is what runs in the process that this starts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import msgspec

from freehold import errors
from freehold.ids import NodeId
from freehold.runtime import places
from freehold.runtime.settings import NODE_PROGRAM, NodeSettings
from freehold.wire.messages import Wire


class Started(msgspec.Struct):
    """A node that was started: its folder, process, and, for whoever holds it, the lifeline."""

    folder: Path
    pid: int
    lifeline: int
    process: subprocess.Popen[bytes]
    file: places.NodeFile


def new_node_id() -> NodeId:
    """An id for a new node."""
    return NodeId(os.urandom(8))


def start(settings: NodeSettings, *, tied: bool, timeout: float = 20.0) -> Started:
    """Start a node daemon (and the head, if the settings say so) and wait until it has joined.

    Args: ``tied``: the node ends when this process does. Raises ClusterUnreachableError with the
    daemon's last words.
    """
    session = Path(settings.session)
    folder = places.node_folder(session, settings.node)
    ready_read, ready_write = os.pipe()
    life_read, life_write = os.pipe() if tied else (-1, -1)
    settings.ready, settings.lifeline = ready_write, life_read
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    log_path = folder / "logs" / "daemon.log"
    passed = [fd for fd in (ready_write, life_read) if fd >= 0]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                *NODE_PROGRAM,
                msgspec.json.encode(settings).decode(),
            ],
            pass_fds=passed,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=child_environment(),
        )
    for fd in passed:
        os.close(fd)
    try:
        # We have to wait, for longer than it takes to get what the first task will need here.
        import_module("freehold.runtime.driver")
        Wire.ready()
        import_module("cloudpickle")
        if not _await_ready(ready_read, timeout):
            words = log_path.read_text(errors="replace")[-4000:] if log_path.exists() else ""
            process.kill()
            process.wait()
            if life_write >= 0:
                os.close(life_write)
            elif settings.start_head:
                end_head(session)
            places.remove_node(folder)
            raise errors.ClusterUnreachableError(
                f"the node daemon did not come up and join {settings.head.host}:"
                f"{settings.head.port}. It said:\n{words or '(nothing)'}"
            )
    finally:
        os.close(ready_read)
    file = msgspec.json.decode((folder / "node.json").read_bytes(), type=places.NodeFile)
    return Started(folder, process.pid, life_write, process, file)


def end_head(session: Path) -> None:
    """Stop the head of a session, if it has one here and it runs."""
    for folder, file in places.heads_here():
        if folder.parent == session:
            with contextlib.suppress(ProcessLookupError):
                os.kill(file.pid, signal.SIGTERM)


def child_environment() -> dict[str, str]:
    """The daemon imports the same freehold as we do, wherever that came from. It has the token
    from its session's folder.
    """
    environment = dict(os.environ)
    environment.pop("FREEHOLD_TOKEN", None)
    source = str(Path(__file__).resolve().parents[2])
    known = environment.get("PYTHONPATH", "")
    if source not in known.split(os.pathsep):
        environment["PYTHONPATH"] = os.pathsep.join(part for part in (source, known) if part)
    return environment


def _await_ready(fd: int, timeout: float) -> bool:
    import select

    readable, _, _ = select.select([fd], [], [], timeout)
    return bool(readable) and os.read(fd, 16) == b"ready"


def stop(started: Started, timeout: float = 5.0) -> None:
    """Stop a node that this process started, and wait until nothing is left of it."""
    if started.lifeline >= 0:
        os.close(started.lifeline)
        started.lifeline = -1
    else:
        started.process.terminate()
    try:
        started.process.wait(timeout)
    except subprocess.TimeoutExpired:
        started.process.kill()
        started.process.wait()
    deadline = time.monotonic() + timeout
    while started.folder.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    if started.folder.exists():
        places.remove_node(started.folder)
