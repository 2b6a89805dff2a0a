"""The driver: the process core inside your program, and what it started.

Output of workers arrives here: printed with a prefix, repeated lines folded.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from freehold import errors
from freehold.ids import TaskId
from freehold.roles.owner import Owner
from freehold.runtime import current, places
from freehold.runtime.context import Context
from freehold.runtime.interrupts import CtrlC
from freehold.runtime.process import Process, new_job, process_address
from freehold.runtime.system_errors import SystemErrors
from freehold.wire.failures import dump_error
from freehold.wire.messages import (
    FAILED,
    Address,
    DescribeNode,
    Fenced,
    FindModule,
    Leave,
    LogLines,
    Message,
    Register,
    Stop,
    Value,
)

if TYPE_CHECKING:
    from freehold.runtime import launch


class Driver(Process):
    """The process core of a driver."""

    def __init__(
        self,
        folder: Path,
        node: places.NodeFile,
        *,
        log_to_driver: bool,
        namespace: str,
        explain_after: float | None,
    ) -> None:
        super().__init__(folder, node, process_address(node.address), current.ref_type())
        self.job = new_job()
        self.play(Owner(self.transport, SystemErrors(), self.node, self.job))
        self.root = Context(TaskId(os.urandom(16)))
        self.log_to_driver = log_to_driver
        self.namespace = namespace
        self.detached = ""  # the actor for which this process is there, if it is a steward
        self.explainer.after = explain_after
        self.role.telling.title = f"driver {os.getpid()}"
        self.started: launch.Started | None = None
        self.printer = Printer()
        self.fenced = ""  # why our node was declared dead, if it was
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
                self.explainer.after,
                self.namespace,
                self.detached,
            )
        )
        self.pump.start()
        self.ctrl_c = CtrlC(self.transport)

    def other_message(self, message: Message, peer: Address) -> None:
        """Lines that our workers printed, or the end of the job."""
        if type(message) is LogLines:
            self.printer.show(message)
        elif type(message) is FindModule:
            from freehold.runtime import importing  # (5 ms that most programs never need)

            self.transport.send(peer, importing.answer(message))
        elif type(message) is Fenced:
            self.fenced = message.reason
        elif type(message) is Stop:
            self.cut_off(
                errors.ClusterUnreachableError(
                    "the node that connects this program to its cluster was drained by force, "
                    "which ends the program's tasks and its stored values. Call shutdown(), then "
                    "init() to begin again through another node"
                )
            )
        else:
            super().other_message(message, peer)

    def on_lost(self, peer: Address) -> None:
        """A peer's last stream has ended, or it cannot be reached."""
        if peer.process == self.node.process:
            how = "has ended (stopped or killed)"
            if self.fenced:
                how = f"was declared dead by the head: it {self.fenced}. It has begun anew"
            self.cut_off(
                errors.ClusterUnreachableError(
                    f"the node daemon that connects this program to its cluster {how}, and with "
                    "it ended the program's tasks and stored values. Call shutdown(), then init() "
                    "to begin again"
                )
            )
        super().on_lost(peer)

    def cut_off(self, error: errors.FreeholdError) -> None:
        """Without a node there are no workers and no stored values: whatever waits for them
        fails. Comes again whenever something is sent there.
        """
        role = self.role
        failed = Value(FAILED, dump_error(error, function_name="", pid=os.getpid(), node_id=""))
        tasks = role.submission.tasks
        while tasks:
            role.submission.fail(next(iter(tasks.values())), failed.data)
        for object_id in list(role.fetching.locals):
            role.fetching.relocated(object_id, failed)
        for entry in list(role.ownership.entries.values()):
            if entry.value is None:
                role.ownership.resolve(entry, failed)
        role.leasing.asked.clear()
        for shape in role.leasing.shapes.values():
            shape.requests.clear()
            shape.queue.clear()
        for lease in role.leasing.leases.values():
            lease.tasks.clear()

    def abandon(self) -> None:
        """In a forked child: also let go of what keeps the cluster of our parent up."""
        super().abandon()
        if self.started is not None and self.started.lifeline >= 0:
            os.close(self.started.lifeline)
            self.started.lifeline = -1

    def leave(self) -> None:
        """End the job and let go of the cluster; stop it if this process started it."""
        self.last_words()
        if self.ctrl_c is not None:
            self.ctrl_c.remove()
        self.printer.finish()
        with self.lock:
            self.transport.send(self.node, Leave())
            self.transport.flush()
            self.cut_off(errors.ObjectLostError("shutdown() ended the session under this wait"))
        self.transport.wake()
        deadline = time.monotonic() + 1.0
        while self.pump.waiting and time.monotonic() < deadline:  # others see their errors first
            time.sleep(0.001)
        self.close()
        if self.started is not None:
            from freehold.runtime import launch

            launch.stop(self.started)

    def last_words(self) -> None:
        """Have what tasks have printed arrive before we go.

        A node reads its workers' pipes between two questions, and answers on the connection that
        carries the lines: after the second answer all that a finished task has written is here.
        """
        if not self.log_to_driver or self.node_gone:
            return
        nodes = {lease.node.process: lease.node for lease in self.role.leasing.leases.values()}
        nodes[self.node.process] = self.node
        for node in nodes.values():
            with contextlib.suppress(errors.ClusterUnreachableError):
                self.ask(node, DescribeNode, timeout=1.0)
                self.ask(node, DescribeNode, timeout=1.0)


class Printer:
    """Prints workers' lines as they come, each with its worker; a line that many workers repeat
    is counted instead.
    """

    WINDOW = 5.0  # seconds in which a repeated line is folded
    LONGEST = 1000  # longer lines are data: each is shown, and so is each empty one

    def __init__(self) -> None:
        #: (on stderr?, line) -> when it was shown, how often it has come since
        self.seen: dict[tuple[bool, str], tuple[float, int]] = {}

    def show(self, message: LogLines) -> None:
        """Print what is new."""
        prefix = f"(pid={message.pid}, node={message.host}) "
        now = time.monotonic()
        out = []
        for line in message.lines:
            if not line or len(line) > self.LONGEST:
                out.append(prefix + line)
                continue
            key = (message.error, line)
            when, count = self.seen.get(key, (0.0, 0))
            if when and now - when < self.WINDOW:
                self.seen[key] = (when, count + 1)
                continue
            self.seen[key] = (now, 0)
            out.append(f"{prefix}{line}{f' [repeated {count + 1}x]' if count else ''}")
        if len(self.seen) > 1000:
            self.forget(now)
        self.write(message.error, out)

    def forget(self, now: float) -> None:
        """Let go of lines whose window is over, telling how often they were repeated. Of all, if
        there are too many.
        """
        crowded = len(self.seen) > 2000
        told: dict[bool, list[str]] = {False: [], True: []}
        for key, (when, count) in list(self.seen.items()):
            if crowded or now - when >= self.WINDOW:
                del self.seen[key]
                if count:
                    told[key[0]].append(f"(freehold) {key[1]} [repeated {count}x]")
        for error, lines in told.items():
            self.write(error, lines)

    def finish(self) -> None:
        """The session ends: tell of repetitions not told yet."""
        self.forget(float("inf"))

    def write(self, error: bool, lines: list[str]) -> None:
        """One write for all lines, so that they are not torn apart."""
        stream = sys.stderr if error else sys.stdout
        if not lines or stream is None:
            return
        text = "\n".join(lines) + "\n"
        try:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                known = stream.encoding or "ascii"
                stream.write(text.encode(known, "backslashreplace").decode(known))
            stream.flush()
        except (ValueError, OSError):
            pass  # the user's program has closed it
