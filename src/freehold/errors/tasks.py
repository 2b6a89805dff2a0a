"""Errors of what ran, or was to run: tasks, workers, nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from freehold.errors.base import FreeholdError
from freehold.wording import SIGNAL_ADVICE, TaskFacts, describe, headline, manner_of_death, sentence


class TaskError(FreeholdError):
    """A task or actor method raised an exception.

    What happened: your function ran and raised. The error arrives as an instance of both this
    class and the type that was raised, so ``except ValueError`` works in the caller as it would
    around a plain call. Three kinds arrive as a plain ``TaskError``: types outside ``Exception``,
    such as ``KeyboardInterrupt`` and ``SystemExit`` (they would end the caller),
    ``StopIteration`` (it would silently end the caller's loop), and types that allow no subclass.
    Fault: the program. Retryable: no, unless the task names exceptions to retry.
    What to do: read the remote traceback in the message, or examine ``cause``.

    Attributes:
        function_name: the task that raised.
        cause: the user's exception, of exactly the user's type where that exists here.
        traceback_text: the remote traceback, without the frames of Freehold.
        pid, node_id: where it ran.
        passed_on: names of the tasks the error came through afterwards, in order.

    A user's attribute that has one of these names is found on ``cause``.
    """

    fault = "program"
    summary = "a task raised an exception"

    def __init_subclass__(cls, **options: Any) -> None:
        # The class made for one user type is no subclass in its author's eyes: it must not enter
        # a registry kept by the author's own __init_subclass__, so the call ends here.
        pass

    def __init__(
        self,
        function_name: str = "",
        cause: BaseException | None = None,
        *,
        traceback_text: str = "",
        pid: int = 0,
        node_id: str = "",
        passed_on: Sequence[str] = (),
    ) -> None:
        line = describe(cause) if cause is not None else "an exception"
        through = tuple(passed_on)
        facts = TaskFacts(function_name, cause, line, traceback_text, pid, node_id, through, b"")
        super().__init__(headline(facts))
        self.__dict__["_facts"] = facts

    @property
    def facts(self) -> TaskFacts:
        """Everything known, as one tuple."""
        return self.__dict__.get("_facts") or TaskFacts("", None, "", "", 0, "", (), b"")

    @property
    def function_name(self) -> str:
        """Name of the task that raised."""
        return self.facts.function_name

    @property
    def cause(self) -> BaseException | None:
        """The exception as the task raised it."""
        return self.facts.cause

    @property
    def traceback_text(self) -> str:
        """The remote traceback, without the frames of Freehold."""
        return self.facts.traceback_text

    @property
    def pid(self) -> int:
        """Process id of the worker that raised."""
        return self.facts.pid

    @property
    def node_id(self) -> str:
        """Node of the worker that raised."""
        return self.facts.node_id

    @property
    def passed_on(self) -> tuple[str, ...]:
        """Names of the tasks that the error came through afterwards."""
        return self.facts.passed_on

    @property
    def message(self) -> str:
        """What happened, without the traceback."""
        facts = self.facts
        text = headline(facts)
        if facts.passed_on:
            text += "\n  passed on by " + ", ".join(f"{name}()" for name in facts.passed_on)
        return text

    def __str__(self) -> str:
        trace = self.traceback_text.rstrip()
        return f"{self.message}\n\n{trace}" if trace else self.message


class TaskCancelledError(FreeholdError):
    """The task was cancelled, and has no result.

    Fault: the program; someone asked for it. Retryable: yes, by submitting it again.
    What to do: catch it where you cancel.
    The message is made from ``function_name`` and ``reason`` when left out.
    """

    fault = "program"
    retryable = True
    summary = "the task was cancelled"
    remedy = "Submit it again if its result is still wanted."

    def __init__(self, message: str = "", *, function_name: str = "", reason: str = "") -> None:
        named = f"{function_name}() was cancelled" if function_name else self.summary
        super().__init__(message or (f"{named}: {reason}" if reason else named))
        self.function_name = function_name
        self.reason = reason


class TaskTimeoutError(FreeholdError, TimeoutError):
    """The task has run for longer than its ``timeout``, and was ended.

    What happened: it was interrupted, or its worker killed because it did not hear; its children
    with it. Time in queues does not count. Fault: the program. Retryable: yes; ``retry_exceptions``
    does it, each attempt with the same timeout.
    What to do: see ``where`` it was; give it more time, or less to do.
    The message is made from ``function_name``, ``timeout`` (seconds) and ``where`` when left out.
    """

    fault = "program"
    retryable = True
    summary = "the task ran for longer than its timeout"
    remedy = "Give it a longer timeout, or less to do."

    def __init__(
        self, message: str = "", *, function_name: str = "", timeout: float = 0.0, where: str = ""
    ) -> None:
        if function_name and not message:
            message = f"{function_name}() ran for longer than its timeout of {timeout:g} s"
            message += f", and was at {where}" if where else ""
        super().__init__(message)
        self.function_name = function_name
        self.timeout = timeout
        self.where = where


class WorkerDiedError(FreeholdError):
    """The worker process died while it ran the task, and the task has no retries left.

    What happened: the operating system tells how the process ended: by a signal or with an exit
    code, and what memory looked like. Fault: unclear; the program (a crash in native code,
    ``os._exit``) or the machine (out of memory). Retryable: yes, unless the task does it each time.
    What to do: read the signal and the last lines of stderr, both in the message. After a SIGKILL
    with memory evidence give the task more ``memory=`` or run fewer at a time.

    Args:
        message: what was running; the rest of the text is made from the facts.
        pid, node_id: the process that died.
        signal: number of the signal that ended it, or None.
        exit_code: its exit code, or None.
        memory: a sentence on memory at the time, "" when nothing points there.
        stderr_tail: the last lines it wrote to stderr, oldest first.
    """

    retryable = True
    summary = "the worker died unexpectedly"

    def __init__(
        self,
        message: str = "",
        *,
        pid: int = 0,
        node_id: str = "",
        signal: int | None = None,
        exit_code: int | None = None,
        memory: str = "",
        stderr_tail: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.pid = pid
        self.node_id = node_id
        self.signal = signal
        self.exit_code = exit_code
        self.memory = memory
        self.stderr_tail = list(stderr_tail)

    def __str__(self) -> str:
        where = [f"pid {self.pid}"] if self.pid else []
        where += [f"node {self.node_id}"] if self.node_id else []
        where += [manner_of_death(self.signal, self.exit_code)]
        parts = [f"{self.message} ({', '.join(where)})."]
        if self.memory:
            parts += [sentence(self.memory), "Give it more memory= or run fewer such at a time."]
        elif self.signal is not None:
            parts += [SIGNAL_ADVICE.get(self.signal, "")]
        parts += [self.remedy]
        if self.stderr_tail:
            parts += ["Last lines of its stderr:\n  " + "\n  ".join(self.stderr_tail)]
        return " ".join(part for part in parts if part)


class NodeDiedError(FreeholdError):
    """A machine of the cluster was declared dead, and what ran there could not be moved.

    Fault: the machine (power, network, its own daemon). Retryable: yes, elsewhere.
    What to do: submit again; read that node's daemon log if it should be alive.
    The message is made from ``node_id`` and ``reason`` when left out.
    """

    fault = "machine"
    retryable = True
    summary = "a node died"
    remedy = "Submit again to run elsewhere; the log of that node's daemon tells more."

    def __init__(self, message: str = "", *, node_id: str = "", reason: str = "") -> None:
        named = f"node {node_id} died" if node_id else self.summary
        super().__init__(message or (f"{named}: {reason}" if reason else named))
        self.node_id = node_id
        self.reason = reason
