"""Fingerprints: by which a function is known again in another process, and after another load.

The pickled form will not do: whether two equal strings in it are one object depends on what the
process has loaded before, and so do its bytes. This looks at the code, the defaults and what the
function captured, as far as these are plain values. Two functions that differ only in other things
(a captured array, say) have the same fingerprint; the tasks that a run submits to them are then
told apart by their arguments and their order (``ids.RunNames``).
"""

from __future__ import annotations

from hashlib import blake2b
from types import CodeType
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...))


def fingerprint(function: Any) -> bytes:
    """Eight bytes that another process would give the same function. Callables without code of
    their own (built-in functions, classes) are known by their names.
    """
    digest = blake2b(digest_size=8)
    named = (getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
    digest.update(repr(named).encode("utf-8", "backslashreplace"))
    code = getattr(function, "__code__", None)
    if isinstance(code, CodeType):
        cells = getattr(function, "__closure__", None) or ()
        captured = [_content(cell) for cell in cells]
        parts = (_code(code), _plain(getattr(function, "__defaults__", None)), _plain(captured))
        digest.update(repr(parts).encode("utf-8", "backslashreplace"))
    return digest.digest()


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _code(code: CodeType) -> Any:
    """What a code object does, as nested tuples of plain values."""
    return (code.co_code, code.co_names, code.co_varnames, _plain(code.co_consts))


def _plain(value: Any) -> Any:
    """A value as far as its text is the same everywhere; else the name of its type."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, CodeType):
        return _code(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(repr(_plain(item)) for item in value)
    return type(value).__qualname__
