"""Which part of a value cannot be pickled, so that an error can name it.

Theory of operation. A pickler says that it met a lock, not where. The search walks the value as a
pickler does, part by part, and tries each part alone. A part that fails although everything inside
it succeeds is the culprit. Parts that only lead back to what is being searched already (a child
that knows its parent) fail without being to blame, and the search goes on beside them.

It knows how Python objects are put together and not how they travel: the trial is passed in. It
runs only after a failure, so it may be slow, but it is bounded in depth, breadth and trials; when a
bound is met it names the nearest part it reached. No state outlives a search: there are no races.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType
from typing import Any


def find(value: Any, name: str, can_pickle: Callable[[Any], bool]) -> str:
    """Path and type of the culprit in ``value``: ``argument 'cfg'.model.lock is a _thread.lock``.

    Args:
        value: an object that is known to fail.
        name: what to call it.
        can_pickle: the trial.
    """
    path, culprit = Search(can_pickle).find(value, name, 0) or (name, value)
    kind = type(culprit)
    module = "" if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "."
    return f"{path} is a {module}{kind.__qualname__}"


class Search:
    """Depth-first search for a part that fails to pickle though all of its own parts succeed."""

    DEPTH_MAX = 20
    PARTS_MAX = 1000  # of one object
    TRIALS_MAX = 2000  # in all; each costs a pickling of the part

    def __init__(self, can_pickle: Callable[[Any], bool]) -> None:
        self.can_pickle = can_pickle
        self.seen: dict[int, Any] = {}  # by id; the values keep the ids from being used again
        self.trials = 0

    def find(self, value: Any, path: str, depth: int) -> tuple[str, Any] | None:
        """Path and object of the culprit inside ``value``, which is known to fail.

        None if its failing parts have all been seen: then it fails only for what lies above it.
        """
        self.seen[id(value)] = value
        failed = False
        for step, part in itertools.islice(_parts(value), self.PARTS_MAX):
            if id(part) in self.seen:
                failed = failed or self.seen[id(part)] is part
                continue
            self.trials += 1
            if depth >= self.DEPTH_MAX or self.trials > self.TRIALS_MAX:
                break
            if self.can_pickle(part):
                continue
            failed = True
            found = self.find(part, path + step, depth + 1)
            if found is not None:
                return found
        return None if failed else (path, value)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a pickler would go on to from ``value``, each with how to write the step to it."""
    if isinstance(value, dict):
        for key, item in list(value.items()):
            yield " key " + _short(key), key
            yield f"[{_short(key)}]", item
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif isinstance(value, (set, frozenset)):
        for item in list(value):
            yield f" member {_short(item)}", item
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif isinstance(value, MethodType):
        yield ".__self__", value.__self__
    elif isinstance(value, functools.partial):
        yield ".func", value.func
        yield from _prefixed(".args", value.args)
        yield from _prefixed(".keywords", value.keywords)
        yield from _prefixed("", vars(value))
        return
    elif isinstance(value, type):
        for key, item in list(vars(value).items()):
            if key not in ("__dict__", "__weakref__"):  # made anew with every class
                yield f".{key}", item
        return
    if type(value) not in (dict, list, tuple, set, frozenset):
        yield from _parts_of_instance(value)


def _prefixed(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of an attribute, each with the attribute before its step."""
    return ((name + step, part) for step, part in _parts(value))


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        try:
            yield f" (its closure variable {name!r})", cell.cell_contents
        except ValueError:  # a variable not assigned yet
            pass
    for name in dict.fromkeys(_names(function.__code__)):
        if name in function.__globals__:
            yield f" (its global {name!r})", function.__globals__[name]
    yield " (its defaults)", function.__defaults__
    yield " (its defaults)", function.__kwdefaults__


def _names(code: CodeType) -> Iterator[str]:
    """The global names that a function uses, also in functions inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _parts_of_instance(value: Any) -> Iterator[tuple[str, Any]]:
    """The state that the object's own ``__reduce_ex__`` hands to the pickler."""
    try:
        steps = value.__reduce_ex__(5)
    except Exception:  # it refuses: the object itself is the culprit
        return
    if not isinstance(steps, tuple):
        return
    for index, item in enumerate(steps[1]):
        kind = "class" if isinstance(item, type) else f"constructor argument {index}"
        yield f" (its {kind})", item
    state = steps[2] if len(steps) > 2 else None
    for names in state if isinstance(state, tuple) else (state,):  # __dict__, or it and __slots__
        if isinstance(names, dict):
            for name, item in names.items():
                yield f".{name}", item
        elif names is not None:
            yield " (its state)", names
    if len(steps) > 3 and steps[3] is not None and not isinstance(value, list):
        for index, item in enumerate(steps[3]):  # what a deque or the like is filled with
            yield f"[{index}]", item
    if len(steps) > 4 and steps[4] is not None and not isinstance(value, dict):
        for key, item in steps[4]:
            yield f"[{_short(key)}]", item


def _short(key: Any) -> str:
    try:
        text = repr(key)
    except Exception:
        return f"<{type(key).__name__}>"
    return text if len(text) <= 60 else text[:57] + "..."
