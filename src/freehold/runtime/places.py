"""Places: the folders, sockets and token of a session on this machine.

    <home>/                                 $FREEHOLD_HOME, else $XDG_RUNTIME_DIR/freehold, else /tmp/freehold-<uid>
        <session>/                          0700; one per cluster that this machine belongs to
            token                           0600; whoever can read it may join, and run code
            cluster.json                    the head's address
            <node>/                         one per node daemon of that cluster on this machine
                node.json                   its address and pid: how drivers and commands find it
                <process>.sock              one per process of the node
                logs/, spill/

A node removes its folder when it stops; if it is killed its zygote does. The last one out removes the session's.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from freehold.errors import ClusterUnreachableError
from freehold.ids import NodeId, ProcessId
from freehold.wire.messages import Address


class NodeFile(msgspec.Struct):
    """What ``node.json`` says."""

    address: Address
    head: Address
    pid: int
    session: str


def home() -> Path:
    """The folder of all sessions of this user on this machine, made if it is not there."""
    chosen = os.environ.get("FREEHOLD_HOME")
    if chosen:
        path = Path(chosen)
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(os.environ["XDG_RUNTIME_DIR"]) / "freehold"
    else:
        path = Path(f"/tmp/freehold-{os.getuid()}")  # noqa: S108  # checked below: ours, and 0700
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(
            f"{path} must belong to you with mode 0700: whoever can enter it can run code as you. "
            f"Repair it (chmod 700 {path}) or set FREEHOLD_HOME"
        )
    return path


def new_session(token: bytes | None = None) -> tuple[Path, bytes]:
    """A fresh session folder and its token."""
    path = home() / f"s-{secrets.token_hex(4)}"
    path.mkdir(mode=0o700)
    token = token or secrets.token_hex(32).encode()
    descriptor = os.open(path / "token", os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token)
    return path, token


def read_token(session: Path) -> bytes:
    """The token of a session."""
    return (session / "token").read_bytes().strip()


def node_folder(session: Path, node: NodeId) -> Path:
    """The folder of one node, made if it is not there."""
    path = session / node.hex()
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def write_node_file(folder: Path, file: NodeFile) -> None:
    """Say where the node is. Written whole or not at all: others look for it."""
    temporary = folder / "node.json.new"
    temporary.write_bytes(msgspec.json.encode(file))
    temporary.rename(folder / "node.json")


def nodes_here() -> Iterator[tuple[Path, NodeFile]]:
    """The nodes that run on this machine, longest up first, with their folders. Dead ones are passed over."""

    def since(path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except OSError:
            return 0

    for path in sorted(home().glob("s-*/*/node.json"), key=since):
        try:
            file = msgspec.json.decode(path.read_bytes(), type=NodeFile)
        except (OSError, msgspec.MsgspecError):
            continue
        if alive(file.pid):
            yield path.parent, file


def find_node(address: str | None) -> tuple[Path, NodeFile]:
    """The folder and file of a node here that belongs to the cluster whose head is at ``address`` (host:port).

    None or "auto": any cluster. Raises ClusterUnreachableError, naming what was looked for and what was found.
    """
    found = list(nodes_here())
    for folder, file in found:
        if address in (None, "auto", f"{file.head.host}:{file.head.port}"):
            return folder, file
    others = sorted({f"{file.head.host}:{file.head.port}" for _, file in found})
    there = f"clusters with a node here: {', '.join(others)}" if others else "no cluster has a node here"
    raise ClusterUnreachableError(
        f"no node of the cluster {address or ''} runs on this machine ({there}); start one with "
        f"'freehold start --head' or 'freehold start --address HOST:PORT'"
    )


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def remove_node(folder: Path) -> None:
    """Remove a node's folder, and its session's if it was the last one in it."""
    shutil.rmtree(folder, ignore_errors=True)
    session = folder.parent
    try:
        if not any(path.is_dir() for path in session.iterdir()):
            shutil.rmtree(session, ignore_errors=True)
    except OSError:
        pass


def sweep() -> None:
    """Remove what sessions of dead processes left behind."""
    for path in home().glob("s-*/*/node.json"):
        try:
            file = msgspec.json.decode(path.read_bytes(), type=NodeFile)
        except (OSError, msgspec.MsgspecError):
            continue
        if not alive(file.pid):
            remove_node(path.parent)


def socket_path(folder: int, process: ProcessId) -> str:
    """A process's unix socket, reached through an open folder: a socket's path may have 107 bytes only."""
    return f"/proc/self/fd/{folder}/{process.hex()}.sock"


def listen_unix(folder: int, process: ProcessId) -> socket.socket:
    """A listening unix socket for a process."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(socket_path(folder, process))
    sock.listen(1024)
    return sock


def connect_unix(folder: int, process: ProcessId) -> socket.socket:
    """A connection, not blocking, to a process of the same node. Raises OSError if it is not there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_path(folder, process))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
