"""Users' exceptions, of every kind, on their way: src/freehold/wire/failures.py."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import errno
import json
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from freehold.errors import TaskError
from freehold.wire import tracebacks
from freehold.wire.failures import dump_error, load_error
from freehold.wording import describe


def caught(function: Callable[[], object]) -> BaseException:
    """The exception that ``function`` raises, with its traceback."""
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def thrower(error: BaseException) -> Callable[[], object]:
    def user_code() -> None:
        raise error

    return user_code


def shipped(error: BaseException, function_name: str = "f", pid: int = 42) -> bytes:
    """As a worker ships it: raised, caught and dumped."""
    raised = caught(thrower(error))
    return dump_error(raised, function_name=function_name, pid=pid, node_id="n1")


def arrived(error: BaseException, function_name: str = "f") -> Any:
    """As it arrives at whoever asked for the result."""
    return load_error(shipped(error, function_name))


# -- the user's exceptions ------------------------------------------------------------------------


class NeedsArguments(Exception):
    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.where = where


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class MyOSError(FileNotFoundError):
    def __init__(self, path: str) -> None:
        super().__init__(errno.ENOENT, "gone", path)
        self.extra = 5


REGISTRY: list[type] = []


class Registered(Exception):
    def __init_subclass__(cls) -> None:
        REGISTRY.append(cls)


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class OnlyOne(type):
    def __new__(cls, name: str, bases: Any, space: Any) -> OnlyOne:
        if any(isinstance(base, OnlyOne) for base in bases):
            raise TypeError("no subclass")
        return super().__new__(cls, name, bases, space)


class Sealed(Exception, metaclass=OnlyOne):
    pass


class EnumError(Exception, enum.Enum):
    BAD = 1


class HasLock(Exception):
    def __init__(self) -> None:
        super().__init__("text", threading.Lock())
        self.lock = threading.Lock()
        self.code = 7


class Clashing(Exception):
    """Its attributes have the names that a TaskError uses."""

    def __init__(self) -> None:
        super().__init__("clash")
        self.pid = "mine"
        self.function_name = "mine too"

    @property
    def node_id(self) -> str:
        return "users"


class OwnNew(Exception):
    def __new__(cls, first: int, second: int) -> OwnNew:
        return super().__new__(cls, first + second)

    def __init__(self, first: int, second: int) -> None:
        self.first = first


ZOO = [
    ValueError("bad", 3),
    KeyError("k"),
    ZeroDivisionError(),
    NeedsArguments(5, where="here"),
    Slotted(9),
    Frozen(4),
    MyOSError("file"),
    OSError(errno.EACCES, "denied", "a", None, "b"),
    OSError("free text"),
    ConnectionResetError(errno.ECONNRESET, "reset"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
    UnicodeEncodeError("ascii", "é", 0, 1, "invalid"),
    SyntaxError("oops", ("file.py", 3, 4, "x = = 1")),
    ImportError("no x", name="x", path="p"),
    ModuleNotFoundError("no y", name="y"),
    AttributeError("no attribute", name="z", obj=object()),
    NameError("no name", name="w"),
    Registered("r"),
    OwnNew(1, 2),
    Clashing(),
    json.JSONDecodeError("bad json", "{", 1),
    TimeoutError("late"),
    RecursionError("deep"),
    MemoryError(),
    subprocess.CalledProcessError(3, ["ls"], output=b"o", stderr=b"e"),
    ExceptionGroup("several", [ValueError("one"), NeedsArguments(6, where="there")]),
]


@pytest.mark.parametrize("original", ZOO, ids=lambda error: type(error).__name__)
def test_a_users_error_arrives_as_its_own_type_too(original: Exception) -> None:
    """Goal: ``except UserType`` works and nothing of the exception is lost.

    Method: a zoo; what arrives is of both types, and its cause equals the original in type, text,
    arguments, attributes and slots.
    """
    error = arrived(original)
    assert isinstance(error, TaskError)
    assert isinstance(error, type(original))
    assert type(error).__name__ == type(original).__name__
    for copy_ in (error.cause, error):
        assert isinstance(copy_, type(original))
        if not isinstance(original, ExceptionGroup):
            assert copy_.args == original.args
        for name in ("errno", "filename", "filename2", "strerror", "object", "start", "reason"):
            assert getattr(copy_, name, None) == getattr(original, name, None)
        for name in ("code", "where", "extra", "name", "path", "first", "returncode", "lineno"):
            assert getattr(copy_, name, None) == getattr(original, name, None)
    assert type(error.cause) is type(original)
    assert str(error.cause) == str(original)
    assert str(error).startswith(f"f() raised {describe(original)}")
    assert error.function_name == "f"
    assert error.pid == 42
    assert error.node_id == "n1"
    assert "__notes__" not in error.__dict__
    assert "user_code" in error.traceback_text


def test_clashing_attributes_are_found_on_the_cause() -> None:
    """Goal: a TaskError's attributes mean one thing; the user's of that name stay reachable."""
    error = arrived(Clashing())
    assert (error.pid, error.node_id) == (42, "n1")
    assert (error.cause.pid, error.cause.function_name, error.cause.node_id) == (
        "mine",
        "mine too",
        "users",
    )


def test_the_class_for_both_is_made_once_and_stays_out_of_registries() -> None:
    """Goal: a cached class, unknown to the user's __init_subclass__, even one that forbids it."""
    assert type(arrived(ValueError("a"))) is type(arrived(ValueError("b")))
    arrived(Registered("x"))
    assert REGISTRY == []
    assert isinstance(arrived(Final("x")), Final)


def test_the_same_type_can_be_raised_from_what_arrived() -> None:
    """Goal: the idiom ``raise type(e)(new text) from e`` makes the user's own type."""
    error = arrived(NeedsArguments(1, where="x"))
    assert type(type(error)(2, where="y")) is NeedsArguments


@pytest.mark.parametrize(
    "original",
    [
        KeyboardInterrupt("stop"),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError(),
        BaseExceptionGroup("g", [KeyboardInterrupt(), ValueError("v")]),
        StopIteration(5),
        StopAsyncIteration(),
        Sealed("s"),
        EnumError.BAD,
    ],
    ids=repr,
)
def test_what_must_not_or_cannot_be_of_both_types(original: BaseException) -> None:
    """Goal: such an exception neither ends the driver nor its loop: TaskError with a cause."""
    error = arrived(original)
    assert type(error) is TaskError
    assert type(error.cause) is type(original)
    assert str(error).startswith(f"f() raised {type(original).__qualname__}") or isinstance(
        original, (Sealed, EnumError, asyncio.CancelledError)
    )
    if isinstance(original, StopIteration):
        assert error.cause.value == 5
    if isinstance(original, SystemExit):
        assert error.cause.code == 3


def test_lost_parts_leave_a_note() -> None:
    """Goal: what will not pickle costs only itself. Method: a lock as argument and attribute."""
    error = arrived(HasLock())
    assert isinstance(error, HasLock)
    assert error.code == 7
    assert error.args[0] == "text"
    assert "lock" in error.args[1]
    assert [note.partition(" was left")[0] for note in error.__notes__] == [
        "[Freehold: argument 1",
        "[Freehold: attribute 'lock'",
    ]


def test_an_exception_that_cannot_print_itself() -> None:
    """Goal: a __str__ that raises is no reason to fail."""
    error = arrived(Mute("x"))
    assert isinstance(error, Mute)
    assert str(error).startswith("f() raised ")
    assert "<its __str__ raised RuntimeError>" in str(error)


def test_a_type_unknown_here_becomes_a_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: except by base and by name still work, and the text survives.

    Method: a module that exists while dumping and is gone while loading; then it is back, and the
    error, passed on by the process that did not know the type, is of that type again.
    """
    module = types.ModuleType("worker_only")
    exec("class Special(LookupError):\n    def __str__(self): return 'special text'", vars(module))
    monkeypatch.setitem(sys.modules, "worker_only", module)
    data = shipped(module.Special(1))
    monkeypatch.delitem(sys.modules, "worker_only")
    error: Any = load_error(data)
    assert isinstance(error, LookupError)
    assert type(error).__name__ == "Special"
    assert type(error).__module__ == "worker_only"
    assert str(error.cause) == "special text"
    assert error.cause.args == (1,)
    assert "stand-in for worker_only.Special" in error.__notes__[0]
    onward = dump_error(caught(thrower(error)), function_name="g", pid=2, node_id="n2")
    monkeypatch.setitem(sys.modules, "worker_only", module)
    assert isinstance(load_error(onward), module.Special)


def test_a_type_that_cannot_be_pickled_becomes_a_stand_in() -> None:
    """Goal: as above for a class that holds a lock and lives in a function."""

    class Local(ValueError):
        lock = threading.Lock()

    error = arrived(Local("x"))
    assert isinstance(error, ValueError)
    assert not isinstance(error, Local)
    assert type(error.cause).__name__ == "Local"
    assert str(error.cause) == "x"
    assert error.cause.args == ("x",)


def test_chain_and_notes() -> None:
    """Goal: cause, context, suppression and notes are those of the original."""

    def f() -> None:
        try:
            try:
                raise NeedsArguments(1, where="deep")
            except NeedsArguments:
                raise KeyError("middle")  # noqa: B904  # its context is what is tested
        except KeyError as error:
            new = ValueError("top")
            new.add_note("look")
            raise new from error

    error: Any = load_error(dump_error(caught(f), function_name="f", pid=1, node_id="n"))
    for top in (error, error.cause):
        assert top.__notes__ == ["look"]
        assert type(top.__cause__) is KeyError
        assert top.__suppress_context__ is True
        assert top.__cause__.__cause__ is None
        assert top.__cause__.__context__.where == "deep"
        assert top.__cause__.__suppress_context__ is False
    text = error.traceback_text
    assert text.index("code 1") < text.index("KeyError") < text.index("ValueError: top")
    assert "direct cause" in text
    assert "During handling" in text


def test_raise_from_none_hides_the_context() -> None:
    """Goal: ``from None`` keeps its meaning in text and in attributes."""

    def f() -> None:
        try:
            raise KeyError("secret")
        except KeyError:
            raise ValueError("clean") from None

    error = load_error(dump_error(caught(f), function_name="f", pid=1, node_id="n"))
    assert "secret" not in str(error)
    assert error.__suppress_context__ is True


def test_own_frames_are_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: users see their frames. Method: this file plays Freehold, a string plays the user."""
    space: dict[str, Any] = {}
    exec(compile("def user():\n    raise ValueError('x')", "user.py", "exec"), space)
    monkeypatch.setattr(tracebacks, "PACKAGE", str(Path(__file__).parent))
    text = tracebacks.render(caught(space["user"]))
    assert text.count("  File ") == 1
    assert 'File "user.py", line 2, in user' in text
    only_ours = tracebacks.render(caught(thrower(ValueError("y"))))
    assert "user_code" in only_ours


def test_group_members_and_their_own_chains() -> None:
    """Goal: except* works on what arrived, and members keep type, cause and notes."""
    inner = ExceptionGroup("inner", [NeedsArguments(3, where="w")])
    value = ValueError("v")
    value.__cause__ = KeyError("k")
    value.add_note("n")
    error = arrived(ExceptionGroup("outer", [value, inner, OSError(2, "x")]))
    parts: dict[str, Any] = {}
    try:
        raise error
    except* ValueError as group:
        parts["value"] = group.exceptions[0]
    except* NeedsArguments as group:
        parts["inner"] = group.exceptions[0]
    except* FileNotFoundError as group:
        parts["file"] = group.exceptions[0]
    assert parts["value"].__notes__ == ["n"]
    assert type(parts["value"].__cause__) is KeyError
    assert parts["inner"].exceptions[0].where == "w"
    assert parts["file"].errno == 2
    assert "+-- 3 of 3" in error.traceback_text
