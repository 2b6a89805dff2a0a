"""Which files of a folder stay behind: patterns as in ``.gitignore``.

A pattern speaks of paths below the folder of the file that it stands in. ``*`` and ``?`` stop at a
slash, ``**`` does not; one with a slash in front or in the middle is bound to that folder, any
other matches at every depth; one that ends in a slash is for folders only; ``!`` takes a file back,
the last pattern that matches decides, and what is in a folder that stays behind stays behind too.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Pattern(NamedTuple):
    """One line. ``base``: the folder that it speaks of, "" or ending in a slash."""

    base: str
    matches: re.Pattern[str]
    folders_only: bool
    takes_back: bool


def parse(lines: Iterable[str], base: str = "") -> list[Pattern]:
    """The patterns of an ignore file; empty lines and comments (``#``) are none.

    Args:
        base: the folder in which the file lies, relative to the root, "" or ending in a slash.
    """
    patterns = []
    for line in lines:
        text = re.sub(r"(?<!\\)\s+$", "", line)
        if not text or text.startswith("#"):
            continue
        takes_back = text.startswith("!")
        text = text.removeprefix("!").removeprefix("\\")
        folders_only = text.endswith("/")
        text = text.rstrip("/")
        if not text:
            continue
        free = "/" not in text
        expression = _expression(text.lstrip("/"))
        if free:
            expression = f"(?:.*/)?{expression}"
        patterns.append(Pattern(base, re.compile(expression, re.DOTALL), folders_only, takes_back))
    return patterns


def _expression(text: str) -> str:
    """A glob as a regular expression."""
    out = []
    index = 0
    while index < len(text):
        char = text[index]
        if text.startswith("**/", index):
            out.append("(?:.*/)?")
            index += 3
            continue
        if text.startswith("/**", index) and index + 3 == len(text):
            out.append("/.*")
            break
        if char == "*":
            while text.startswith("*", index + 1):
                index += 1
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := text.find("]", index + 2)) > 0:
            inside = text[index + 1 : end].replace("\\", "\\\\")
            out.append("[" + ("^" + inside[1:] if inside[0] in "!^" else inside) + "]")
            index = end
        elif char == "\\" and index + 1 < len(text):
            index += 1
            out.append(re.escape(text[index]))
        else:
            out.append(re.escape(char))
        index += 1
    return "".join(out)


def ignored(path: str, patterns: Iterable[Pattern], *, folder: bool) -> bool:
    """Whether a path, relative to the root and with slashes, stays behind. Its parents do not."""
    verdict = False
    for pattern in patterns:
        if (folder or not pattern.folders_only) and path.startswith(pattern.base):
            if pattern.matches.fullmatch(path[len(pattern.base) :]):
                verdict = not pattern.takes_back
    return verdict
