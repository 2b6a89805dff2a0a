"""The words of errors: exceptions, deaths and what is known of them, as text for people."""

from typing import NamedTuple


def describe(error: BaseException) -> str:
    """``module.Type: message``, the last line of a traceback, even where ``__str__`` raises."""
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    try:
        text = str(error)
    except Exception as failure:  # a user's __str__ may do anything
        text = f"<its __str__ raised {type(failure).__name__}>"
    return f"{name}: {text}" if text else name


def sentence(text: str) -> str:
    """The text with a full stop, unless it already ends in punctuation."""
    text = text.rstrip()
    return text if not text or text[-1] in ".!?:" else text + "."


class TaskFacts(NamedTuple):
    """What a ``TaskError`` knows beside the user's own exception."""

    function_name: str
    cause: BaseException | None
    line: str  # the user's exception as the last line of its traceback
    traceback_text: str
    pid: int
    node_id: str
    passed_on: tuple[str, ...]  # the tasks it came through afterwards, in order
    record: bytes  # the form in which it travels; b"" for one made in this process


def headline(facts: TaskFacts) -> str:
    """``f() raised ValueError: bad``, with which an uncaught task error begins."""
    return f"{facts.function_name or 'a task'}() raised {facts.line}"


CRASHED = "It crashed in native code: suspect an extension module; faulthandler shows the line."

# What a death by each signal usually means on Linux; numbers from signal(7), x86 and Arm.
SIGNAL_ADVICE = {
    4: CRASHED,  # SIGILL
    6: "Native code aborted it, usually after a message on stderr.",  # SIGABRT
    7: CRASHED,  # SIGBUS
    8: CRASHED,  # SIGFPE
    9: "Someone killed it: the kernel when memory ran out, a person, or the program itself.",
    11: CRASHED,  # SIGSEGV
}


def manner_of_death(signal: int | None, exit_code: int | None) -> str:
    """How a process ended, in words."""
    if signal is not None:
        import signal as signals

        known = signal in set(signals.Signals)
        name = f"{signals.Signals(signal).name}, signal {signal}" if known else f"signal {signal}"
        return f"killed by {name}"
    return "manner of death unknown" if exit_code is None else f"exit code {exit_code}"
