"""The zygote: forks workers in 1-3 ms instead of the 400 that a fresh interpreter with its
imports takes.

A single-threaded process with everything imported that a worker needs. It is the workers' parent,
so it alone learns how they ended, and they die with it (PR_SET_PDEATHSIG). When its node daemon
is gone it kills them and removes the node's folder and what it had spilled, so that a killed daemon
leaves nothing behind.

The node's own is forked from the daemon. One for a runtime environment is executed anew, with the
environment's variables and in its virtual environment, and imports what is to be preloaded before
it says that it is ready; the node's folder is not its to remove.

Requests and answers are single datagrams on a socket pair:
    daemon -> zygote   ["start", n, steward] with the worker's stdout and stderr attached; a
                       steward (b"" for a worker) is named by the actor that it shall make
                       ["kill", n]
                       ["removed", 0], at its end: what it had spilled is gone
    zygote -> daemon   ["started", n, pid]; ["ended", n, status]
                       ["ready", 0, ""] or ["failed", 0, why], once, if it was executed
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from freehold.runtime import devices, places, sockets
from freehold.store import spill
from freehold.wire.environments import Furnished
from freehold.wire.messages import Wire

PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

#: What every worker needs, imported once for all of them. (``api`` lies above us: hence by name.
#: cloudpickle: for the functions of programs' main files.)
PRELOAD = ("freehold.api", "freehold.runtime.worker", "cloudpickle")

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(list[Any]).decode


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)


def name_process(name: str) -> None:
    """What ``ps`` and ``top`` show, and by which ``places.alive`` knows our daemons: 15 bytes."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def kill(pid: int) -> None:
    """SIGKILL a worker and what its tasks have started."""
    kill_group(pid)
    os.kill(pid, signal.SIGKILL)  # it may not lead its group yet


def kill_group(pid: int) -> None:
    """SIGKILL the processes that a worker's tasks have started, unless they left its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


class Begun(msgspec.Struct):
    """How the zygote of an environment is begun; travels as JSON on the command line."""

    socket: int
    folder: str
    furnished: Furnished


class Zygote:
    """The loop of the zygote process. ``cleans``: whether it sees to what the daemon leaves."""

    def __init__(
        self,
        daemon: socket.socket,
        folder: Path,
        spill_folders: Sequence[str],
        *,
        cleans: bool = True,
    ) -> None:
        self.daemon = daemon
        self.cleans = cleans
        self.folder = folder
        self.spill_folders = spill_folders
        self.children: dict[int, tuple[int, int]] = {}  # pidfd -> (start, pid)
        self.poller = select.poll()
        self.poller.register(daemon, select.POLLIN)
        self.imported = False
        self.usual = resource.getrlimit(resource.RLIMIT_NOFILE)  # that of workers, for select()
        sockets.allow_descriptors()  # we have one for each child

    def run(self) -> None:
        """Serve until the daemon is gone."""
        while True:
            wait = None if self.imported else 300  # ms without a request: time for the slow import
            events = self.poller.poll(wait)
            if not events and not self.imported:
                self.import_slow()
            for fd, _ in events:
                if fd != self.daemon.fileno():
                    self.reap(fd)
                elif not self.serve():
                    self.end()
                    return

    def import_slow(self) -> None:
        """numpy takes 70-100 ms to import and asyncio 35: too much for the first workers to wait,
        welcome to all later ones.
        """
        self.imported = True
        import asyncio  # noqa: F401

        with contextlib.suppress(ImportError):
            import numpy  # noqa: F401, ICN001
        gc.collect()
        gc.freeze()

    def serve(self) -> bool:
        """One request. False when the daemon is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.daemon, 4096, 2, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return False
        if not data:
            return False
        verb, start, *steward = decode(data)
        if verb == "start":
            self.fork(start, descriptors, *steward)
        elif verb == "kill":
            for number, pid in self.children.values():
                if number == start:
                    kill(pid)
        elif verb == "removed":
            self.spill_folders = ()
        return True

    def fork(self, start: int, descriptors: list[int], steward: bytes) -> None:
        """Make a worker, or a steward."""
        parent = os.getpid()
        try:
            pid = os.fork()
            if pid:
                self.begun(start, pid)
        except OSError as error:  # no process, or no descriptor, is left
            os.write(descriptors[1], f"no worker can be forked: {error}\n".encode())
            self.daemon.send(encode(["ended", start, os.EX_OSERR << 8]))
            pid = -1
        if pid:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, self.usual)
            die_with_parent(parent)
            self.daemon.close()
            for pidfd in self.children:
                os.close(pidfd)
            become_worker(descriptors, "freehold-steward" if steward else "freehold-worker")
            if steward:
                from freehold.runtime import steward as stewards

                stewards.main(self.folder, steward)
            else:
                from freehold.runtime import worker

                worker.main(self.folder, start)
        except BaseException:
            traceback.print_exc()  # to the stderr that the report of its death quotes
        finally:
            os._exit(1)

    def begun(self, start: int, pid: int) -> None:
        """A child is there: hear of its end. Raises OSError, and there is none, if we cannot."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        self.children[pidfd] = (start, pid)
        self.poller.register(pidfd, select.POLLIN)
        self.daemon.send(encode(["started", start, pid]))

    def reap(self, pidfd: int) -> None:
        """A worker has ended: tell the daemon how."""
        start, pid = self.children.pop(pidfd)
        self.poller.unregister(pidfd)
        os.close(pidfd)
        kill_group(pid)  # what its tasks have started; while it is a zombie its id is not reused
        _, status = os.waitpid(pid, 0)
        with contextlib.suppress(OSError):
            self.daemon.send(encode(["ended", start, status]))

    def end(self) -> None:
        """The daemon is gone: so are the workers, and what it left on disk."""
        for _, pid in self.children.values():
            kill(pid)
        for _, pid in self.children.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        if self.cleans:
            for where in self.spill_folders:
                spill.sweep(where, places.spill_name(self.folder))
            places.remove_node(self.folder)


def become_worker(descriptors: list[int], name: str) -> None:
    """Give a fresh fork what a worker has of its own: streams, session and signals."""
    os.setsid()
    name_process(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out, err = descriptors
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.close(out)
    os.close(err)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)


def preload() -> None:
    """Before any fork: have everything that workers need, in memory that stays shared."""
    for module in PRELOAD:
        importlib.import_module(module)
    Wire.ready()
    gc.freeze()
    gc.enable()


def main(daemon: socket.socket, folder: Path, spill_folders: Sequence[str]) -> None:
    """Entry point of the forked zygote. It outlives its daemon for a moment, to clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    devices.one_thread()
    Zygote(daemon, folder, spill_folders).run()


def begin(begun: Begun) -> None:
    """Life of the zygote of an environment: what it needs, what is to be preloaded, then workers.

    Preloading runs code of the user: what it raises is the environment's failure. Threads that it
    starts do not exist in the workers.
    """
    daemon = socket.socket(fileno=begun.socket)
    name_process("freehold-zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    preload()
    furnished = begun.furnished
    environment = furnished.environment
    os.environ.update(environment.env_vars)
    devices.one_thread()
    if environment.preload:
        sys.path[:0] = [*furnished.python_path, *environment.python_path]
    for module in environment.preload:
        try:
            importlib.import_module(module)
        except BaseException:
            last = "\n".join(traceback.format_exc().splitlines()[-20:])
            daemon.send(encode(["failed", 0, f"preload of {module!r}: {last}"[-8000:]]))
            break
    else:
        daemon.send(encode(["ready", 0, ""]))
    gc.collect()
    gc.freeze()
    Zygote(daemon, Path(begun.folder), (), cleans=False).run()


if __name__ == "__main__":
    begin(msgspec.json.decode(sys.argv[1], type=Begun))
