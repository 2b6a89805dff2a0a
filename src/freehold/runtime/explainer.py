"""The explainer of a driver or worker: what its waits are for, in text.

It joins a walk (``core.explaining``) to this process's role and to a visitor (``visiting``), for
those who want such text: ``fh.explain``, a get whose timeout is over, a get that has waited for
long, an error that says that an owner has died. None of them holds the role's lock while it asks
others, and none is asked for on the way of a get that finds its value soon.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from freehold import errors
from freehold.core.explaining import Inquiry, node_of
from freehold.core.fetching import Get
from freehold.ids import ObjectId, short
from freehold.runtime.visiting import visit
from freehold.wire.failures import load_error
from freehold.wire.inquiry import END, OBJECT, SAME, Finding, Question
from freehold.wire.messages import Address, Value

if TYPE_CHECKING:
    from freehold.runtime.process import Process

log = logging.getLogger("freehold")

#: How long a walk may take that nobody waits for (seconds): who is silent for so long is told so.
WALK: Final = 1.0
#: The same where a get is over and its caller wants to go on.
WALK_LATE: Final = 0.3
#: Pause until a node is asked again how a process has ended (seconds): it knows after 10-20 ms.
AGAIN: Final = 0.02
#: Of the values that a get misses, so many are explained.
EXPLAINED: Final = 3


class Explainer:
    """Text about the waits of one process. ``after``: seconds that a get without a timeout waits
    in a driver until it says for what; None: it never does.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self.after: float | None = None
        self.saying = threading.Lock()  # one such text at a time

    def lines(
        self,
        objects: Sequence[ObjectId],
        seconds: float,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> list[str]:
        """What objects wait for, line by line, through every process concerned, asking for
        ``seconds`` at most or until the text is ``unwanted``. 0: what this process knows.
        """
        me = self.process.address
        roots = [Question(SAME, me, OBJECT, object_id) for object_id in objects]
        inquiry = Inquiry(roots, home=me.process, look=self.look)
        if seconds > 0:
            self.walk(inquiry, seconds, unwanted)
        else:
            inquiry.begin()
        return inquiry.lines()

    def look(self, about: str, key: bytes) -> list[Finding]:
        """What our own role knows."""
        with self.process.lock:
            return self.process.role.telling.explain(about, key)

    def walk(
        self, inquiry: Inquiry, seconds: float, unwanted: Callable[[], bool] = lambda: False
    ) -> None:
        """Ask whom the inquiry leads to."""
        process = self.process
        folder = os.dup(process.folder_fd)
        try:
            node, token = process.address.node, process.transport.token
            visit(inquiry, token, seconds, node=node, folder=folder, unwanted=unwanted)
        finally:
            os.close(folder)

    def patience(self) -> float | None:
        """Seconds that a get on this thread waits until it says for what. A task takes twice as
        long as its driver, who tells of the task too if it waits for it.
        """
        if self.after is None or not self.process.context().depth:
            return self.after
        return 2 * self.after

    def say_why(self, getting: Get, waited: float) -> None:
        """Log what a get on this thread has waited for. Another thread sees to it, so that the get
        goes on waiting.
        """
        context = self.process.context()
        who = f"{context.name}() [{short(context.task)}]: " if context.name else ""
        threading.Thread(
            target=self.say, args=(getting, f"{who}get() has waited {waited:g} s"), daemon=True
        ).start()

    def say(self, getting: Get, begin: str) -> None:
        """Nothing is said if the get is over by then, or another says something just now."""
        if not self.saying.acquire(blocking=False):
            return
        try:
            with self.process.lock:
                pending = list(getting.pending)
            lines = self.lines(pending[:EXPLAINED], WALK, lambda: self.over(getting))
            if not self.over(getting):
                what = "1 value" if len(pending) == 1 else f"{len(pending)} values"
                log.warning("%s", "\n  ".join([f"{begin} for {what}:", *lines]))
        except (OSError, errors.NotInitializedError):
            if not self.process.closed:  # (by shutdown, or a fork, while we looked)
                raise
        finally:
            self.saying.release()

    def over(self, getting: Get) -> bool:
        """Whether nobody wants to know any more."""
        return getting.done or self.process.closed

    def timed_out(
        self, objects: Sequence[ObjectId], timeout: float | None, pending: Iterable[ObjectId]
    ) -> errors.GetTimeoutError:
        """The error of a get that took too long: it says what the first missing values wait for.
        A get that may not wait at all is told what this process knows.
        """
        with self.process.lock:
            late = set(pending)
            entries = self.process.role.ownership.entries
            missing = [object_id for object_id in objects if entries[object_id].object in late]
        lines = self.lines(missing[:EXPLAINED], WALK_LATE if timeout else 0)
        return errors.GetTimeoutError(
            f"{len(missing)} of {len(objects)} values were not there within {timeout:g} s",
            waiting=lines,
        )

    def error(self, failed: Value, objects: Sequence[ObjectId]) -> BaseException:
        """The error that a get of these objects ends in. If it is that an owner has died: with
        what its node says of that.
        """
        error = load_error(failed.data)
        if type(error) is not errors.OwnerDiedError:
            return error
        with self.process.lock:
            entries = [self.process.role.ownership.entries.get(object_id) for object_id in objects]
        for entry in entries:
            if entry is not None and entry.value is failed and entry.owner is not None:
                error.args = (error.message + self.end_of(entry.owner), *error.args[1:])
        return error

    def end_of(self, process: Address) -> str:
        """How a process has ended. Its node may hear of it a little later than we have."""
        deadline = time.monotonic() + WALK_LATE
        while (left := deadline - time.monotonic()) > 0:
            inquiry = Inquiry([Question(SAME, node_of(process), END, process.process)])
            self.walk(inquiry, left)
            for finding in inquiry.findings.values():
                if finding.text:
                    return finding.text
            time.sleep(AGAIN)
        return ""
