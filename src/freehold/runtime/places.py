"""Places: the folders, sockets and token of a session on this machine.

    HOME/                 $FREEHOLD_HOME, else $XDG_RUNTIME_DIR/freehold, else /tmp/freehold-UID
        SESSION/          0700; one per cluster that this machine belongs to
            token         0600; whoever can read it may join, and run code
            head/         only where the head runs
                head.json its address and pid: how `freehold stop` finds it
                journal.db   what it knows after it was killed
            NODE/         one per node daemon of that cluster on this machine
                node.json its address and pid: how drivers and commands find it
                *.sock    one per process of the node
                logs/, spill/, packages/ (the last two below /var/tmp if this is in memory)

Whoever lives in a folder removes it when it stops; a killed node's is removed by its zygote. The
last one out removes the session's. What a crash of everything leaves is swept by the next start,
but for the session of a head that was started by hand: it may be brought back.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from freehold.errors import ClusterUnreachableError
from freehold.ids import NodeId, ProcessId
from freehold.wire.messages import Address


class NodeFile(msgspec.Struct):
    """What ``node.json`` says, and ``head.json``.

    ``shared``: started by hand for any program, not by one program for itself.
    """

    address: Address
    head: Address
    pid: int
    session: str
    shared: bool = False


NODE_FILE: Final = "node.json"
HEAD_FILE: Final = "head.json"
HEAD_FOLDER: Final = "head"
SESSION: Final = re.compile("s-[0-9a-f]{8}")
#: Seconds that a folder may lie without anyone in it: whoever made it may still be starting.
STARTING: Final = 3600.0


def home() -> Path:
    """The folder of all sessions of this user on this machine, made if it is not there.

    Raises PermissionError if it cannot be made or is not ours alone: what is in it is obeyed.
    """
    chosen = os.environ.get("FREEHOLD_HOME")
    if chosen:
        path = Path(chosen).absolute()  # daemons run in /
    elif os.environ.get("XDG_RUNTIME_DIR"):
        path = Path(os.environ["XDG_RUNTIME_DIR"]) / "freehold"
    else:
        path = Path(f"/tmp/freehold-{os.getuid()}")  # checked below: ours, and 0700
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        raise PermissionError(
            f"{path}, the folder of Freehold's sockets and tokens, cannot be made "
            f"({error.strerror}). Set FREEHOLD_HOME to a folder of yours"
        ) from None
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(
            f"{path} must belong to you with mode 0700: whoever can enter it can run code as you. "
            f"Repair it (chmod 700 {path}) or set FREEHOLD_HOME to another folder"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(
            f"{path} is not writable (its mode is {status.st_mode & 0o777:03o}). "
            f"Repair it (chmod 700 {path}) or set FREEHOLD_HOME to another folder"
        )
    return path


def new_session(token: bytes | None = None) -> tuple[Path, bytes]:
    """A fresh session folder and its token."""
    path = home() / f"s-{os.urandom(4).hex()}"
    path.mkdir(mode=0o700)
    token = token or os.urandom(32).hex().encode()
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


def write_node_file(folder: Path, file: NodeFile, name: str = NODE_FILE) -> None:
    """Say where the node is. Written whole or not at all: others look for it."""
    temporary = folder / f"{name}.new"
    temporary.write_bytes(msgspec.json.encode(file))
    temporary.rename(folder / name)


def write_head_file(session: Path, file: NodeFile) -> Path:
    """Say where the head is. Returns the head's folder."""
    folder = session / HEAD_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    write_node_file(folder, file, HEAD_FILE)
    return folder


def nodes_here() -> Iterator[tuple[Path, NodeFile]]:
    """The nodes that run on this machine, longest up first, with their folders. Dead ones are
    passed over.
    """
    yield from _living(NODE_FILE)


def heads_here() -> Iterator[tuple[Path, NodeFile]]:
    """The heads that run on this machine, longest up first, with their folders."""
    yield from _living(HEAD_FILE)


def head_file(session: Path) -> NodeFile | None:
    """What the head of a session has said of itself, whether it runs or not."""
    return _read(session / HEAD_FOLDER / HEAD_FILE)


def dead_heads() -> Iterator[tuple[Path, NodeFile]]:
    """Heads here that were started by hand and have died, with their folders. What is in their
    journals is kept for whoever brings them back.
    """
    for session in _sessions():
        file = head_file(session)
        if file is not None and file.shared and not alive(file.pid):
            yield session / HEAD_FOLDER, file


def _living(name: str) -> Iterator[tuple[Path, NodeFile]]:
    def since(path: Path) -> int:
        try:
            return path.stat().st_mtime_ns
        except OSError:
            return 0

    files = [folder / name for session in _sessions() for folder in _folders(session)]
    for path in sorted(files, key=since):
        file = _read(path)
        if file is not None and alive(file.pid):
            yield path.parent, file


def _sessions() -> list[Path]:
    """The session folders here, and nothing else that the user may keep in the same place."""
    return [path for path in _folders(home()) if SESSION.fullmatch(path.name)]


def _folders(path: Path) -> list[Path]:
    """The folders in a folder; none if it vanishes meanwhile (``Path.glob`` would raise)."""
    try:
        return [inner for inner in path.iterdir() if inner.is_dir()]
    except OSError:
        return []


def _read(path: Path) -> NodeFile | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeFile)
    except (OSError, msgspec.MsgspecError):
        return None


def find_node(address: str | None) -> tuple[Path, NodeFile]:
    """The folder and file of a node here that belongs to the cluster whose head is at ``address``
    (host:port).

    None or "auto": any cluster, one that was started by hand before one that a program started
    for itself. Raises ClusterUnreachableError, naming what was looked for and what was found.
    """
    found = sorted(nodes_here(), key=lambda node: not node[1].shared)
    wanted = numeric(address) if address else None
    for folder, file in found:
        if wanted in (None, "auto", place(file.head)):
            return folder, file
    others = sorted({place(file.head) for _, file in found})
    there = (
        f"clusters with a node here: {', '.join(others)}"
        if others
        else "no cluster has a node here"
    )
    which = "any cluster" if wanted in (None, "auto") else f"the cluster {address}"
    raise ClusterUnreachableError(
        f"no node of {which} runs on this machine ({there}); start one with "
        f"'freehold start --head' or 'freehold start --address HOST:PORT'"
    )


def place(address: Address) -> str:
    """HOST:PORT."""
    return f"{address.host}:{address.port}"


def numeric(address: str) -> str:
    """HOST:PORT with the host's IPv4 address for its name; anything else as it is."""
    host, colon, port = address.rpartition(":")
    try:
        return f"{socket.gethostbyname(host)}:{port}" if colon and host else address
    except OSError:
        return address


def alive(pid: int) -> bool:
    """Whether the process exists, is no zombie, and is one of ours: ids are used again."""
    try:
        with Path(f"/proc/{pid}/stat").open(errors="replace") as file:
            name, _, rest = file.read().rpartition(")")
    except OSError:
        return False
    return rest.split()[0] not in "ZX" and name.partition("(")[2].startswith("freehold")


def spill_folder(folder: Path) -> Path:
    """Where a node spills unless told otherwise: in its folder, or, if that lies in memory, on disk
    below /var/tmp. Spilling into memory would take what it is meant to free."""
    if not in_memory(folder):
        return folder / "spill"
    return Path(f"/var/tmp/freehold-{os.getuid()}-{folder.parent.name}-{folder.name}")


def spill_name(folder: Path) -> str:
    """What the objects of a node are called that it spills to an object store: session and node."""
    return f"{folder.parent.name}-{folder.name}"


def package_folder(folder: Path) -> Path:
    """Where a node keeps packages of runtime environments: beside what it spills, on disk."""
    spill = spill_folder(folder)
    return folder / "packages" if spill.parent == folder else Path(f"{spill}-packages")


def in_memory(path: Path) -> bool:
    """Whether the file system of a path is one that lives in memory."""
    device = path.stat().st_dev if path.exists() else path.parent.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return False
    for mount in mounts:
        fields, _, rest = mount.partition(" - ")
        if fields.split()[2] == number:
            return rest.split()[0] in {"tmpfs", "ramfs"}
    return False


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it, as far as that can be done."""
    import shutil  # (4 ms, with three libraries that compress)

    shutil.rmtree(folder, ignore_errors=True)


def remove_node(folder: Path, patience: float = 0.0) -> None:
    """Remove a node's or the head's folder, and its session's if no other is in use.

    ``patience``: seconds to wait for others that are about to end.
    """
    elsewhere = (spill_folder(folder), package_folder(folder))
    for path in (folder, *elsewhere):
        _remove(path)
    session = folder.parent
    deadline = time.monotonic() + patience
    while any(_in_use(path) for path in _folders(session)):
        if time.monotonic() >= deadline:
            return
        time.sleep(0.01)
    _remove(session)


def _in_use(folder: Path) -> bool:
    """Whether someone lives in the folder, or may be about to, or may come back to it."""
    head = _read(folder / HEAD_FILE)
    file = head or _read(folder / NODE_FILE)
    if file is not None:
        return alive(file.pid) or (head is not None and head.shared)
    try:
        return time.time() - folder.stat().st_mtime < STARTING
    except OSError:
        return False


def sweep() -> None:
    """Remove what sessions of dead processes left behind."""
    for session in _sessions():
        folders = _folders(session)
        living = any(_in_use(folder) for folder in folders)
        for folder in folders:
            restarting = living and folder.name == HEAD_FOLDER
            if not _in_use(folder) and not restarting:
                remove_node(folder)
        if not folders and not _in_use(session) and (session / "token").exists():
            _remove(session)


def socket_path(folder: int, process: ProcessId) -> str:
    """A process's unix socket, reached through an open folder: a socket's path may have 107 bytes
    only.
    """
    return f"/proc/self/fd/{folder}/{process.hex()}.sock"


def listen_unix(folder: int, process: ProcessId) -> socket.socket:
    """A listening unix socket for a process."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(socket_path(folder, process))
    sock.listen(1024)
    return sock


def connect_unix(folder: int, process: ProcessId) -> socket.socket:
    """A connection, not blocking, to a process of the same node. Raises OSError if it is not
    there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_path(folder, process))
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock
