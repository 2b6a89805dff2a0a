"""The zygotes of a node as its daemon sees them: the node's own, and one for each environment that
needs a process begun in it.

The node's own was forked when the daemon was small; another is a fresh interpreter (0.2 s, and what
it preloads). Workers are forked by either alike, and their parent tells of their ends. A zygote
that ends takes its workers along; we say so for them, as nobody else will.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from freehold.runtime import venvs, zygote
from freehold.runtime.transport import Transport
from freehold.wire.environments import Furnished


class Hearer(Protocol):
    """Who wants to know."""

    def worker_started(self, start: int, pid: int) -> None:
        """A worker has been forked."""

    def worker_ended(self, start: int, status: int) -> None:
        """A worker has been reaped, and this is its wait status."""

    def stop(self, reason: str) -> None:
        """The node cannot go on."""


class Link:
    """One zygote. ``starts``: its workers that live."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes] | None) -> None:
        self.sock = sock
        self.process = process
        self.starts: set[int] = set()


class Zygotes:
    """All zygotes of one node, by the key of what they are for; b"" is the node's own."""

    def __init__(self, transport: Transport, hearer: Hearer, own: socket.socket) -> None:
        self.transport = transport
        self.hearer = hearer
        self.links: dict[bytes, Link] = {}
        self.ready: Callable[[bytes], None]
        self.failed: Callable[[bytes, str], None]
        self.add(b"", Link(own, None))

    def add(self, key: bytes, link: Link) -> None:
        """Hear what a zygote says."""
        self.links[key] = link
        self.transport.watch(link.sock.fileno(), lambda events: self.on_word(key, link))

    def begin(self, key: bytes, folder: Path, furnished: Furnished, venv: str) -> None:
        """Start the zygote of an environment; ``ready`` or ``failed`` follows."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        python = venvs.python_of(venv) if venv else sys.executable
        variables = {
            **(venvs.variables(venv) if venv else os.environ),
            **furnished.environment.early(),
        }
        begun = zygote.Begun(theirs.fileno(), str(folder), furnished)
        text = msgspec.json.encode(begun).decode()
        process = subprocess.Popen(
            [python, "-P", "-m", "freehold.runtime.zygote", text],
            env=variables,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.add(key, Link(ours, process))

    def end(self, key: bytes) -> None:
        """End a zygote with the workers that it has."""
        link = self.links.get(key)
        if link is not None:
            with contextlib.suppress(OSError):
                link.sock.shutdown(socket.SHUT_WR)  # it answers by its own end

    def start_worker(
        self, start: int, key: bytes, descriptors: list[int], steward: bytes = b""
    ) -> None:
        """Fork a worker, or a steward, with these for its output."""
        link = self.links.get(key)
        if link is not None:
            link.starts.add(start)
            with contextlib.suppress(OSError):  # it is about to end: that will be told
                socket.send_fds(link.sock, [zygote.encode(["start", start, steward])], descriptors)
        else:
            gone = int(signal.SIGKILL)
            self.transport.call_soon(lambda: self.hearer.worker_ended(start, gone))

    def kill_worker(self, start: int) -> None:
        """SIGKILL; its end is reported as any other."""
        for link in self.links.values():
            if start in link.starts:
                with contextlib.suppress(OSError):
                    link.sock.send(zygote.encode(["kill", start]))

    def on_word(self, key: bytes, link: Link) -> None:
        """A zygote reports a start or an end, or ends itself."""
        try:
            data = link.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.gone(key, link)
            return
        verb, start, detail = zygote.decode(data)
        if verb == "started":
            self.hearer.worker_started(start, detail)
        elif verb == "ended":
            link.starts.discard(start)
            self.hearer.worker_ended(start, detail)
        elif verb == "ready":
            self.ready(key)
        else:
            self.failed(key, detail)
            self.end(key)

    def gone(self, key: bytes, link: Link) -> None:
        """A zygote has ended, and its workers with it."""
        self.transport.unwatch(link.sock.fileno())
        link.sock.close()
        if link.process is None:
            self.hearer.stop("its zygote is gone")
            return
        link.process.wait()  # (what is left of it is its exit)
        if self.links.get(key) is link:
            del self.links[key]
        self.failed(key, f"its zygote has ended with status {link.process.returncode}")
        for start in sorted(link.starts):
            self.hearer.worker_ended(start, int(signal.SIGKILL))

    def nothing_spilled(self) -> None:
        """The daemon has removed what it had spilled: the node's own zygote need not."""
        with contextlib.suppress(OSError, KeyError):
            self.links[b""].sock.send(zygote.encode(["removed", 0]))

    def close(self) -> None:
        """The daemon ends: so do the zygotes, as soon as they find that we have hung up."""
        for link in self.links.values():
            link.sock.close()
        for link in self.links.values():
            if link.process is not None:
                link.process.wait()
