"""The node daemon: performs what ``roles.node`` decides. One thread for the role, a few in
``mover`` for bytes.

Startup order: the zygote is forked first, while there is one thread and no socket; then the role
joins the cluster. It ends when told to, or when its lifeline (a pipe held by the driver that
started it) is closed. That the head is gone does not end it: if it started the head, it starts it
again (``keeper``).

A daemon that was declared dead while it lived (stopped, or cut off, for too long) ends as any
other, with its workers and its store, and then executes itself: the same process, with the same
settings, pipes and parent, and a new node id.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from freehold.core.relaying import Relaying
from freehold.ids import NodeId, ObjectId, ProcessId
from freehold.roles.node import Node
from freehold.runtime import places, zygote
from freehold.runtime.descriptors import ARENA, send_descriptor
from freehold.runtime.environments import EnvironmentMaker
from freehold.runtime.keeper import Keeper
from freehold.runtime.mover import FAR_READS, ByteMover
from freehold.runtime.settings import NODE_PROGRAM, NodeSettings
from freehold.runtime.transport import Transport
from freehold.runtime.zygotes import Zygotes
from freehold.store.allocator import Allocator
from freehold.store.arena import Arena
from freehold.store.spill import SpillStore, local_folder
from freehold.wire.detached import StartSteward
from freehold.wire.handshake import BULK, DESCRIPTORS, Hello
from freehold.wire.messages import (
    Address,
    Death,
    JobStarted,
    Joined,
    LogLines,
    Message,
    NodeInfo,
    Stop,
)

log = logging.getLogger("freehold")

TAIL: Final = 20  #: lines of stderr kept for the report of a death
LONGEST_TAIL: Final = 2000  #: characters of each
LONGEST_LINE: Final = 1 << 20  #: bytes; what is longer arrives in pieces
UNFINISHED: Final = 0.2  #: seconds that a line may wait for its end
#: The arena is kept warm beyond what is in use, since cold memory fills at a tenth of the speed: by
#: as much as was ever in use, within these bounds. An idle cluster shall not hold memory for it,
#: and what is never used was cleared in vain: 0.1 s of processor a GiB, 1.6 where a hypervisor has
#: taken free memory away and must find it again. The most covers the next value of 100 MiB.
WARM_AHEAD: Final = (16 << 20, 128 << 20)


#: Descriptors that the daemon has for each worker (two pipes, a stream, a channel), and those kept
#: for all else: other nodes, programs, spill files. Without any left it could not even say so.
EACH: Final = 4
RESERVED: Final = 128
#: Seconds that a start waits for descriptors before it is refused: those of a worker that is just
#: ending (of an actor whose last handle has gone, say) come free in a few milliseconds.
ENDING_SECONDS: Final = 1.0


class Output:
    """One stream of one worker: lines for its driver, and the last of them for the report of its
    death.
    """

    def __init__(self, daemon: NodeDaemon, start: int, fd: int, error: bool) -> None:
        self.daemon = daemon
        self.start = start
        self.fd = fd
        self.error = error
        self.partial = b""
        self.reads = 0
        self.tail: collections.deque[str] = collections.deque(maxlen=TAIL)
        os.set_blocking(fd, False)
        daemon.transport.watch(fd, lambda events: self.read())

    def read(self) -> None:
        """Take what the worker has written."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        *whole, self.partial = (self.partial + data).split(b"\n")
        if len(self.partial) > LONGEST_LINE:
            whole.append(self.partial)
            self.partial = b""
        if whole:
            self.forward([line.decode("utf-8", "replace") for line in whole])
        if self.partial:
            self.reads += 1
            reads, transport = self.reads, self.daemon.transport
            transport.call_at(transport.now() + UNFINISHED, lambda: self.give_up(reads))

    def give_up(self, reads: int) -> None:
        """The end of the line has not come: a prompt, or the last that is said."""
        if reads == self.reads and self.partial:
            partial, self.partial = self.partial, b""
            self.forward([partial.decode("utf-8", "replace")])

    def forward(self, lines: list[str]) -> None:
        """Send lines to the driver of the worker's job."""
        self.tail.extend(line[:LONGEST_TAIL] for line in lines)
        self.daemon.forward(self.start, self.error, lines)

    def drain(self) -> list[str]:
        """Read to the end (the worker is gone) and return the last lines."""
        while self.fd >= 0:
            before = self.fd
            self.read()
            with contextlib.suppress(OSError):
                if before == self.fd and not _readable(self.fd):
                    break
        if self.partial:
            self.forward([self.partial.decode("utf-8", "replace")])
            self.partial = b""
        return list(self.tail)

    def close(self) -> None:
        """The stream has ended."""
        if self.fd >= 0:
            self.daemon.transport.unwatch(self.fd)
            os.close(self.fd)
            self.fd = -1


def _readable(fd: int) -> bool:
    import select

    return bool(select.select([fd], [], [], 0)[0])


class NodeDaemon:
    """The shell of a node."""

    def __init__(self, settings: NodeSettings, zygote_link: socket.socket, pid: int) -> None:
        self.settings = settings
        self.folder = Path(settings.session) / settings.node.hex()
        self.zygote_pid = pid
        session = Path(settings.session)
        listener = socket.create_server((settings.host, 0), backlog=1024)
        self.address = Address(
            ProcessId(settings.node), settings.node, settings.host, listener.getsockname()[1]
        )
        folder_fd = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.transport = Transport(self.address, places.read_token(session), folder_fd)
        self.arena = Arena.create(settings.store_bytes)
        self.room = Allocator(self.arena.capacity)
        readers = FAR_READS if self.spills_far() else 1
        self.mover = ByteMover(self.transport, self.arena, self.make_spill, readers)
        info = NodeInfo(
            self.address,
            socket.gethostname(),
            os.getpid(),
            settings.resources,
            dict(settings.resources),
            settings.labels,
            store_bytes=settings.store_bytes,
        )
        self.zygotes = Zygotes(self.transport, self, zygote_link)
        self.maker = EnvironmentMaker(self.transport, self.folder, self.zygotes)
        self.role = Node(
            self.transport,
            self,
            self.room,
            info,
            settings.head,
            infeasible_grace=settings.infeasible_grace,
            maker=self.maker,
        )
        self.role.objects.spilling.fuse_bytes = settings.fuse_bytes
        self.role.objects.admission.looks_ahead = settings.prefetch
        self.maker.environments = self.role.preparing.environments
        self.mover.objects = self.role.objects
        self.mover.relaying = Relaying(self.role.objects)
        self.transport.on_message = self.on_message
        self.transport.on_lost = self.on_lost
        self.transport.on_stranger = self.on_stranger
        self.transport.on_fenced = self.mover.fence
        self.transport.listen_unix()
        self.transport.listen(listener)
        if settings.lifeline >= 0:
            self.transport.watch(settings.lifeline, lambda events: self.stop("its driver is gone"))
        self.channels: dict[ProcessId, socket.socket] = {}
        self.outputs: dict[int, tuple[Output, Output]] = {}
        self.pids: dict[int, int] = {}
        self.stewards = 0  # that were started; their numbers are below zero
        self.stopping = ""
        self.successor = NodeId(b"")  # who we are from now on, if we were declared dead
        self.keeper = Keeper(self.transport, settings.kept) if settings.kept is not None else None
        self.warmer_wanted = threading.Event()
        self.oom_kills = _oom_kills()

    def spills_far(self) -> bool:
        """Whether a place to spill to is not on this machine."""
        return any(local_folder(where) is None for where in self.settings.spill_folders)

    def make_spill(self) -> SpillStore:
        """Where this node spills."""
        settings, name = self.settings, places.spill_name(self.folder)
        return SpillStore(settings.spill_folders, settings.spill_quota, name=name)

    def try_places(self) -> None:
        """Find out whether URLs can be spilled to while somebody waits to be told. Raises OSError
        or ValueError, which name the place. (Folders are made when they are needed.)
        """
        if self.spills_far() and self.settings.ready >= 0:
            self.mover.open_spill()

    def run(self) -> None:
        """Serve until told to stop."""
        signal.signal(signal.SIGTERM, lambda *_: self.transport.call_soon(self.terminated))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # (Before the role starts its first workers: each reads it as soon as it is forked.)
        places.write_node_file(
            self.folder,
            places.NodeFile(
                self.address,
                self.settings.head,
                os.getpid(),
                self.settings.session,
                self.settings.shared,
            ),
        )
        with self.transport.lock:
            self.role.start()
            self.transport.flush()
        threading.Thread(target=self.keep_warm, daemon=True, name="freehold-warm").start()
        ready = self.settings.ready
        used = 0
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        while not self.stopping:
            self.transport.poll(None)
            if self.role.joined and ready >= 0:
                os.write(ready, b"ready")
                os.close(ready)
                ready = -1
            if self.room.high_water > used:
                used = self.room.high_water
                self.warmer_wanted.set()
        self.finish()

    def terminated(self) -> None:
        """SIGTERM."""
        self.stop("terminated")

    def stop(self, reason: str) -> None:
        """End the loop."""
        self.stopping = self.stopping or reason

    def finish(self) -> None:
        """Leave nothing behind: the zygote kills the workers and removes the folder when we hang
        up.
        """
        log.info("node stops: %s", self.stopping)
        self.mover.close()
        self.zygotes.nothing_spilled()
        for start in self.outputs:
            for output in self.outputs[start]:
                if output.fd >= 0:
                    os.close(output.fd)
        self.transport.close()
        self.maker.close()
        self.zygotes.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.zygote_pid, 0)
        places.remove_node(self.folder)  # again, in case it was the zygote that died
        if self.successor:
            begin_anew(self.settings, self.successor, self.stopping)

    def keep_warm(self) -> None:
        """Have the kernel provide the arena's next pages before anyone waits for them."""
        while not self.stopping:
            with contextlib.suppress(ValueError, OSError):
                used = self.room.high_water
                ahead = min(max(used, WARM_AHEAD[0]), WARM_AHEAD[1])
                self.arena.warm_ahead(used, ahead, lambda: bool(self.stopping))
            self.warmer_wanted.clear()
            self.warmer_wanted.wait()

    # ------------------------------------------------------------------ events

    def on_message(self, message: Message, peer: Address) -> None:
        """One message from the wire."""
        if type(message) is Stop:
            self.stop("asked to")
        elif type(message) is StartSteward:
            self.start_steward(message.key)
        else:
            self.role.handle(message, peer)
            if type(message) is Joined:
                self.transport.be_patient(message.dead_after)

    def on_lost(self, peer: Address) -> None:
        """A peer's last stream has ended."""
        channel = self.channels.pop(peer.process, None)
        if channel is not None:
            channel.close()
        self.role.peer_lost(peer)

    def on_stranger(self, sock: socket.socket, hello: Hello) -> None:
        """A greeted connection that is not for the role's messages."""
        if hello.purpose == DESCRIPTORS and sock.family == socket.AF_UNIX:
            self.channels[hello.caller.process] = sock
            send_descriptor(sock, ARENA, self.arena.fd)
        elif hello.purpose == BULK:
            self.mover.serve(sock, hello)
        else:
            channel = self.channels.get(hello.target)
            if channel is not None:
                with contextlib.suppress(OSError):
                    send_descriptor(channel, msgspec.msgpack.encode(hello), sock.fileno())
            sock.close()

    def worker_started(self, start: int, pid: int) -> None:
        """A zygote has forked a worker."""
        self.pids[start] = pid

    def worker_ended(self, start: int, status: int) -> None:
        """Say how a worker ended: signal or exit code, memory, last words."""
        if start not in self.outputs:  # a steward: the end of its stream says it all
            log.info("steward %d has ended (status %d)", self.pids.pop(start, 0), status)
            return
        out, err = self.outputs.pop(start)
        out.drain()
        tail = err.drain()
        out.close()
        err.close()
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        death = Death(
            self.pids.pop(start, 0),
            self.settings.node,
            None if number is not None else os.WEXITSTATUS(status),
            number,
            self.memory_evidence(number),
            tail,
            time.strftime("%H:%M:%S"),
        )
        self.role.worker_ended(start, death)

    def memory_evidence(self, number: int | None) -> str:
        """Whether the kernel's out-of-memory killer may have done it."""
        kills = _oom_kills()
        before, self.oom_kills = self.oom_kills, kills
        if number == signal.SIGKILL and kills > before:
            return (
                f"The kernel's out-of-memory killer struck {kills - before} time(s) on this "
                "machine just before"
            )
        return ""

    # ------------------------------------------------------------------ Shell

    def fenced(self, reason: str) -> None:
        """We were declared dead. Nobody shall find us here any more. Before our folder goes there
        is one for our successor, or the session's, in which the token is, would go too.
        """
        if not self.stopping:
            self.successor = NodeId(os.urandom(8))
            (self.folder / places.NODE_FILE).unlink(missing_ok=True)
            places.node_folder(Path(self.settings.session), self.successor)
            self.transport.flush()  # the last words to our drivers
            self.stop(f"it was declared dead: it {reason}")

    def start_worker(self, start: int, zygote: bytes = b"") -> None:
        """Have a zygote fork a worker with its output piped to us."""
        if self.may_open():
            self.fork_worker(start, zygote)
            return

        def try_again() -> None:
            if self.may_open():
                self.fork_worker(start, zygote)
            else:
                self.role.worker_ended(start, self.too_many())

        self.transport.call_at(self.transport.now() + ENDING_SECONDS, try_again)

    def may_open(self) -> bool:
        """Whether one more worker leaves descriptors for all else."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return EACH * (len(self.outputs) + 1) + RESERVED <= most

    def too_many(self) -> Death:
        """The end of a worker that could not be started for want of descriptors."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        many = f"{most:,} files open, enough for {max(most - RESERVED, 0) // EACH:,} workers"
        detail = f"the node daemon may have {many} (see `ulimit -Hn` where it was started)"
        return Death(0, self.settings.node, detail=detail)

    def fork_worker(self, start: int, zygote: bytes) -> None:
        """There are descriptors for it."""
        pipes = [os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)]
        (out, out_end), (err, err_end) = pipes
        self.outputs[start] = (Output(self, start, out, False), Output(self, start, err, True))
        self.zygotes.start_worker(start, zygote, [out_end, err_end])
        os.close(out_end)
        os.close(err_end)

    def start_steward(self, key: bytes) -> None:
        """Have the zygote fork a steward. What it prints, and what the actor that it makes does,
        goes to a log of its own.
        """
        self.stewards += 1
        path = self.folder / "logs" / f"steward-{key.hex()[:8]}.log"
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.zygotes.start_worker(-self.stewards, b"", [descriptor, descriptor], key)
        os.close(descriptor)

    def kill_worker(self, start: int) -> None:
        """SIGKILL; its end is reported by its zygote."""
        self.zygotes.kill_worker(start)

    def spill(self, batch: Sequence[tuple[ObjectId, int, int]]) -> None:
        """See ``mover``."""
        self.mover.spill(batch)

    def restore(self, object_id: ObjectId, slot: Any, offset: int, size: int) -> None:
        """See ``mover``."""
        self.mover.restore(object_id, slot, offset, size)

    def pull(self, object_id: ObjectId, source: Address, offset: int, size: int) -> None:
        """See ``mover``."""
        self.mover.pull(object_id, source, offset, size)

    def discard(self, slot: Any) -> None:
        """See ``mover``."""
        self.mover.discard(slot)

    # ------------------------------------------------------------------ output

    def forward(self, start: int, error: bool, lines: list[str]) -> None:
        """Lines that a worker printed: to the driver of its job, if it wants them."""
        worker = self.role.workers.all.get(start)
        job: JobStarted | None = None
        if worker is not None and worker.job is not None:
            job = self.role.jobs.get(worker.job)
        if job is None or not job.log_to_driver:
            return
        host = f"{self.settings.node.hex()[:8]}"
        self.transport.send(job.driver, LogLines(self.pids.get(start, 0), host, error, "", lines))
        self.transport.flush()


def begin_anew(settings: NodeSettings, node: NodeId, reason: str) -> None:
    """Execute this process again as another node. What else it has open is closed by that."""
    old = Path(settings.session) / settings.node.hex()
    if settings.spill_folders == [str(places.spill_folder(old))]:
        settings.spill_folders = []
    settings.node, settings.ready, settings.start_head = node, -1, False
    open_log(places.node_folder(Path(settings.session), node))
    log.warning("this process was node %s until %s", old.name, reason)
    descriptors = [settings.lifeline]
    if settings.kept is not None:
        descriptors.append(settings.kept.settings.listener)
    for fd in descriptors:
        if fd >= 0:
            os.set_inheritable(fd, True)
    arguments = [*NODE_PROGRAM, msgspec.json.encode(settings).decode()]
    os.execv(sys.executable, [sys.executable, *arguments])


def open_log(folder: Path) -> None:
    """Have our output, and that of our children, written to the log of a node."""
    (folder / "logs").mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder / "logs" / "daemon.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _oom_kills() -> int:
    """How often the kernel's out-of-memory killer has struck since boot."""
    with contextlib.suppress(OSError, ValueError), Path("/proc/vmstat").open() as file:
        for line in file:
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def fork_zygote(settings: NodeSettings) -> tuple[socket.socket, int]:
    """Fork the zygote while this process is small and has one thread."""
    folder = places.node_folder(Path(settings.session), settings.node)
    settings.spill_folders = settings.spill_folders or [str(places.spill_folder(folder))]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        ours.close()
        listener = settings.kept.settings.listener if settings.kept is not None else -1
        for fd in (settings.lifeline, settings.ready, listener):
            if fd >= 0:
                os.close(fd)
        zygote.main(theirs, folder, settings.spill_folders)
    finally:
        os._exit(0)
