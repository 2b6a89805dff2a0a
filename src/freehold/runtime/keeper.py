"""The keeper: the part of a node daemon that starts the head again when it was killed.

The daemon that forked the head is its parent, so it alone learns at once that it has ended (pidfd),
and how. A head that ended in good order, or by SIGTERM before it could do so, was meant to end. Any
other end was not: a new one is started on the same socket and the same journal, 0.2 s later most of
it Python's own start. ``RESTARTS`` ends in ``WITHIN`` seconds are too many: then something is wrong
that another start will not mend, the door is closed, and the nodes go on without a head.

If this daemon ends, the head lives on and nobody keeps it: ``freehold start --head --session`` by
hand brings it back.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from typing import Final

import msgspec

from freehold.runtime import headd
from freehold.runtime.transport import Transport

log = logging.getLogger("freehold")

#: As many restarts, in so many seconds, and no more.
RESTARTS: Final = 5
WITHIN: Final = 60.0


class Kept(msgspec.Struct):
    """A head that this process has started: its pid, and how to start it again."""

    pid: int
    settings: headd.Settings


class Keeper:
    """Watches one head."""

    def __init__(self, transport: Transport, kept: Kept) -> None:
        self.transport = transport
        self.kept = kept
        self.restarts: deque[float] = deque()
        self.watch()

    def watch(self) -> None:
        """Hear of the head's end."""
        pidfd = os.pidfd_open(self.kept.pid)
        self.transport.watch(pidfd, lambda events: self.ended(pidfd))

    def ended(self, pidfd: int) -> None:
        """It has ended: start it again, unless it was meant to."""
        self.transport.unwatch(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(self.kept.pid, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if status == 0 or killed == signal.SIGTERM:
            self.close_door()
            return
        how = f"killed by signal {killed}" if killed else f"exit {os.WEXITSTATUS(status)}"
        now = self.transport.now()
        while self.restarts and now - self.restarts[0] > WITHIN:
            self.restarts.popleft()
        if len(self.restarts) >= RESTARTS:
            log.error(
                "the head has ended (%s) for the %dth time in %.0f s: it is not started again. "
                "Tasks go on; 'freehold start --head --session %s' brings it back",
                how,
                RESTARTS + 1,
                WITHIN,
                self.kept.settings.session,
            )
            self.close_door()
            return
        self.restarts.append(now)
        self.start()
        log.warning("the head has ended (%s) and is started again: pid %d", how, self.kept.pid)

    def start(self) -> None:
        """A new head, on the socket of the old one."""
        settings = self.kept.settings
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "freehold.runtime.headd",
                msgspec.json.encode(settings).decode(),
            ],
            pass_fds=[fd for fd in (settings.listener, settings.lifeline) if fd >= 0],
            start_new_session=True,
        )
        self.kept.pid = process.pid
        process.returncode = 0  # we wait for it ourselves
        self.watch()

    def close_door(self) -> None:
        """Whoever calls the head is refused from now on."""
        os.close(self.kept.settings.listener)
