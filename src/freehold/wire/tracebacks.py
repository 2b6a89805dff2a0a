"""Exceptions as text: what led to them, the frames of the user's code alone, all of it bounded.

Theory of operation. The standard library's renderer would show our own frames, follow a chain of
any length and print a task error's whole journey at each mention, so this is our own, in Python's
form. It must not know how errors travel. It calls ``__str__`` of the user's exceptions and expects
it to fail. Every text that leaves here is valid UTF-8 and at most ``TEXT_MAX`` characters long.
It holds no state: there are no races.
"""

from __future__ import annotations

import textwrap
import traceback
from pathlib import Path

from freehold.errors import TaskError
from freehold.wording import describe

TEXT_MAX = 64 * 1024  # characters of any one text: message, note, traceback
LINKS_MAX = 64  # exceptions of one chain
FRAMES_MAX = 200  # of one exception, the last ones: a RecursionError has a thousand
NOTES_MAX = 32  # of one exception
MEMBERS_MAX, GROUPS_MAX = 16, 4  # of an exception group, and groups within groups

PACKAGE = str(Path(__file__).parents[1]) + "/"


def shorten(text: str, limit: int = TEXT_MAX) -> str:
    """The text within the limit, its middle left out; and always valid UTF-8."""
    if len(text) > limit:
        half = limit // 2 - 32
        omitted = len(text) - 2 * half
        text = f"{text[:half]}\n... {omitted:,} characters left out ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"<its __str__ raised {type(failure).__name__}>"


def notes_of(error: BaseException) -> list[str]:
    """Its notes, as text, whatever the user put there; of very many the first and the last."""
    notes = error.__dict__.get("__notes__")
    if not isinstance(notes, (list, tuple)):
        return []
    half = NOTES_MAX // 2
    if len(notes) > 2 * half:
        gap = f"[Freehold: {len(notes) - 2 * half} notes left out]"
        notes = [*notes[:half], gap, *notes[-half:]]
    return [shorten(note) for note in notes if isinstance(note, str)]


CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def render(error: BaseException, *, arrived: bool = False, depth: int = 0) -> str:
    """The traceback of an exception and of what led to it, in Python's form, oldest first.

    Args:
        error: the exception.
        arrived: it was raised in another task before: show what happened in this one alone.
        depth: of exception groups around it.

    Returns:
        Text without the notes of ``error`` itself: they are printed after the text as it is.
    """
    text = ""
    chain = _chain(error)
    for one, link in reversed(chain):
        if arrived and one.__traceback__ is None:
            continue
        head = _frames(one)
        tail = "" if arrived and one is error else _last_lines(one, depth, one is not error)
        text = f"{text}{link if text else ''}{head}{tail}"
    return shorten(text)


def _chain(error: BaseException) -> list[tuple[BaseException, str]]:
    """The exception and those that led to it, newest first, each with the words that join it on.

    The words stand between an exception and the older one that it follows.
    """
    chain: list[tuple[BaseException, str]] = []
    known = set()
    one: BaseException | None = error
    while one is not None and id(one) not in known and len(chain) < LINKS_MAX:
        known.add(id(one))
        chain.append((one, CAUSED if one.__cause__ is not None else DURING))
        if isinstance(one, TaskError) and one is not error:
            break  # the text of a task error tells the rest
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return chain


def _frames(error: BaseException) -> str:
    """The frames of the user's code; all frames if there are none of the user's."""
    if error.__traceback__ is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__, limit=-FRAMES_MAX)
    users = [frame for frame in frames if not frame.filename.startswith(PACKAGE)]
    lines = traceback.StackSummary.from_list(users or frames).format()
    return "Traceback (most recent call last):\n" + "".join(lines)


def _last_lines(error: BaseException, depth: int, with_notes: bool) -> str:
    """``Type: message``, notes, and the members of a group."""
    lines = [describe(error), *(notes_of(error) if with_notes or depth else ())]
    if isinstance(error, BaseExceptionGroup):
        for index, member in enumerate(error.exceptions[:MEMBERS_MAX]):
            lines.append(f"  +-- {index + 1} of {len(error.exceptions)}")
            inner = render(member, depth=depth + 1) if depth < GROUPS_MAX else describe(member)
            lines.append(textwrap.indent(inner.rstrip(), "  | ", lambda _: True))
    return "\n".join(lines) + "\n"
