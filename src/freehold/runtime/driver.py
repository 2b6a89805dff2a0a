"""The driver: the process core inside your program, and what it started.

Output of workers arrives here: printed with a prefix, repeated lines folded.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from freehold import errors
from freehold.ids import TaskId
from freehold.roles.owner import Owner
from freehold.runtime import current, places
from freehold.runtime.interrupts import CtrlC
from freehold.runtime.process import Context, Process, new_job, process_address
from freehold.runtime.system_errors import SystemErrors
from freehold.wire.failures import dump_error
from freehold.wire.messages import (
    FAILED,
    Address,
    Leave,
    LogLines,
    Message,
    Register,
    Value,
)

if TYPE_CHECKING:
    from freehold.runtime import launch


class Driver(Process):
    """The process core of a driver."""

    def __init__(
        self, folder: Path, node: places.NodeFile, *, log_to_driver: bool, namespace: str
    ) -> None:
        super().__init__(folder, node, process_address(node.address), current.ref_type())
        self.job = new_job()
        self.role = Owner(self.transport, SystemErrors(), self.node, self.job)
        self.root = Context(TaskId(os.urandom(16)))
        self.log_to_driver = log_to_driver
        self.namespace = namespace
        self.started: launch.Started | None = None
        self.printer = Printer()
        self.ctrl_c: CtrlC | None = None

    def start(self) -> None:
        """Join the cluster through this machine's node."""
        path = [entry or str(Path.cwd()) for entry in sys.path]
        self.join(
            Register(
                self.address,
                os.getpid(),
                self.job,
                0,
                True,
                self.log_to_driver,
                path,
                str(Path.cwd()),
            )
        )
        self.pump.start()
        self.ctrl_c = CtrlC(self.transport)

    def other_message(self, message: Message, peer: Address) -> None:
        """Lines that our workers printed."""
        if type(message) is LogLines:
            self.printer.show(message)
        else:
            super().other_message(message, peer)

    def on_lost(self, peer: Address) -> None:
        """A peer's last stream has ended, or it cannot be reached."""
        if peer.process == self.node.process:
            self.cut_off()
        super().on_lost(peer)

    def cut_off(self) -> None:
        """Our node is gone, and with it the job's workers and every value in a store: whatever
        waits for them fails. Comes again whenever something is sent there.
        """
        role = self.role
        error = errors.ClusterUnreachableError(
            "the node daemon that connects this program to its cluster has ended (stopped, killed, "
            "or its head is gone), and with it the program's tasks and stored values. Call "
            "shutdown(), then init() to begin again"
        )
        failed = Value(FAILED, dump_error(error, function_name="", pid=os.getpid(), node_id=""))
        role.leasing.asked.clear()
        for shape in role.leasing.shapes.values():
            shape.requests.clear()
            shape.queue.clear()
        for lease in role.leasing.leases.values():
            lease.tasks.clear()
        tasks = role.submission.tasks
        while tasks:
            role.submission.fail(next(iter(tasks.values())), failed.data)
        for object_id in list(role.fetching.locals):
            role.fetching.relocated(object_id, failed)
        for entry in list(role.ownership.entries.values()):
            if entry.value is None:
                role.ownership.resolve(entry, failed)

    def abandon(self) -> None:
        """In a forked child: also let go of what keeps the cluster of our parent up."""
        super().abandon()
        if self.started is not None and self.started.lifeline >= 0:
            os.close(self.started.lifeline)
            self.started.lifeline = -1

    def leave(self) -> None:
        """End the job and let go of the cluster; stop it if this process started it."""
        if self.ctrl_c is not None:
            self.ctrl_c.remove()
        self.printer.finish()
        with self.lock:
            self.transport.send(self.node, Leave())
            self.transport.flush()
        self.close()
        if self.started is not None:
            from freehold.runtime import launch

            launch.stop(self.started)


class Printer:
    """Prints workers' lines as they come, each with its worker; a line that many workers repeat
    is counted instead.
    """

    WINDOW = 5.0  # seconds in which a repeated line is folded

    def __init__(self) -> None:
        self.seen: dict[str, tuple[float, int]] = {}

    def show(self, message: LogLines) -> None:
        """Print what is new."""
        stream = sys.stderr if message.error else sys.stdout
        prefix = f"(pid={message.pid}, node={message.host}) "
        now = time.monotonic()
        out = []
        for line in message.lines:
            last = self.seen.get(line)
            if last is not None and now - last[0] < self.WINDOW:
                self.seen[line] = (last[0], last[1] + 1)
                continue
            if last is not None and last[1]:
                out.append(f"{prefix}{line} [repeated {last[1]}x]")
            self.seen[line] = (now, 0)
            if last is None or not last[1]:
                out.append(prefix + line)
        if len(self.seen) > 1000:
            self.flush_old(now)
        self.write(stream, out)

    def flush_old(self, now: float) -> None:
        """Forget lines whose window is over, telling how often they were repeated."""
        for line, (when, count) in list(self.seen.items()):
            if now - when >= self.WINDOW or len(self.seen) > 2000:
                del self.seen[line]
                if count:
                    self.write(sys.stdout, [f"(freehold) {line} [repeated {count}x]"])

    def finish(self) -> None:
        """The session ends: tell of repetitions not told yet."""
        lines = [f"(freehold) {line} [repeated {n}x]" for line, (_, n) in self.seen.items() if n]
        self.seen.clear()
        self.write(sys.stdout, lines)

    def write(self, stream: object, lines: list[str]) -> None:
        """One write for all lines, so that they are not torn apart."""
        if lines:
            try:
                stream.write("\n".join(lines) + "\n")  # type: ignore[attr-defined]
                stream.flush()  # type: ignore[attr-defined]
            except (ValueError, OSError):
                pass  # the user's program has closed it
