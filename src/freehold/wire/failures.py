"""A task's exception on its way to whoever asked for the result.

Theory of operation. An exception is not shipped as a pickle of itself: that fails for a required
constructor argument, a lock among its attributes or a module missing at the other end, and then
the one thing the user needs is gone. It is taken apart instead. A ``Record`` holds a table of
``Link``, one for each exception reachable through ``__cause__``, ``__context__`` and groups. Each
piece of a link (its type, every argument, every attribute) is pickled alone, so that a bad piece
costs only itself and leaves a note. Text and traceback travel as text and always arrive.

Life of one error: ``dump_error`` in the worker; bytes in the reply; ``load_error`` at each ``get``,
which makes a fresh exception each time, since raising one changes it. The instance is made without
its ``__init__``, by the nearest built-in type among its bases. The user's type is found by name, or
rebuilt by value if it lives in ``__main__``; failing both, a stand-in with the same name is derived
from the nearest base that does exist, so that ``except`` and ``type(e).__name__`` still work.

The result is a ``TaskError`` that is also of the user's type, when Python allows that. When it then
passes through another task, only a ``Hop`` is added to the record it came with: nothing nests, and
a type that one process did not know is itself again in the next. Errors of Freehold (a lost object
inside a task) stay what they are.

It must not know sockets, retries or who waits. ``dump_error`` never raises an ``Exception``, and
``load_error`` only ``ProtocolError``; both run code of the user (``__str__``, ``__reduce__``) and
expect it to fail. Races: none; caches are only ever filled with equal entries.
"""

import copyreg
import functools
import pickle
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import msgspec

from freehold import errors
from freehold.errors import ProtocolError, TaskError
from freehold.wire import serial
from freehold.wire.tracebacks import LINKS_MAX, TEXT_MAX, notes_of, render, shorten, text_of
from freehold.wording import TaskFacts, describe

PIECE_MAX = 1024 * 1024  # bytes of one pickled argument or attribute
HOPS_MAX = 8  # tasks named on the way; the middle of a longer way is counted only
NESTED_MAX = 8  # task errors inside the chains of task errors, each of them a record


class Link(msgspec.Struct, array_like=True, gc=False):
    """One exception, in pieces."""

    kind: bytes  # its type, pickled; b"" if that failed
    bases: list[bytes]  # pickled types to derive a stand-in from, nearest first
    module: str
    name: str  # __qualname__
    text: str  # str(exception)
    args: list[bytes]  # each pickled; without the members of a group
    state: dict[str, bytes]  # __dict__ and __slots__
    notes: list[str]
    cause: int  # index into the table, -1 for none; so is context
    context: int
    suppress: bool  # __suppress_context__
    members: list[int]  # of an exception group
    record: bytes  # of a TaskError, b"" otherwise


class Hop(msgspec.Struct, array_like=True, gc=False):
    """A task that the error left: the first one raised it, the others only passed it on."""

    function_name: str
    pid: int
    node_id: str
    traceback: str


class Record(msgspec.Struct, array_like=True, gc=False, tag="error"):
    """An error as it travels. ``links[0]`` is the exception itself."""

    links: list[Link]
    hops: list[Hop]
    line: str  # the exception as the last line of its traceback
    system: bool  # an error of Freehold's own, to be raised as it is
    skipped: int  # hops left out after the first half of ``hops``
    nested: int  # how deep records are nested in this one


_encoder = msgspec.msgpack.Encoder()


def _decode(data: bytes) -> Record:
    """(Without a Decoder: to make one takes 2 ms of every start.)"""
    return msgspec.msgpack.decode(data, type=Record)


# -- taking apart ---------------------------------------------------------------------------------


def dump_error(error: BaseException, *, function_name: str, pid: int, node_id: str) -> bytes:
    """Pack an exception that left a task.

    Args:
        error: as caught, with its traceback; a ``TaskError`` from an earlier task is passed on.
        function_name, pid, node_id: the task it left and where that ran.

    Returns:
        Bytes for ``load_error``. Never raises an ``Exception``: the worst case is the text alone.
    """
    hop = Hop(shorten(function_name), pid, node_id, "")
    try:
        if isinstance(error, TaskError) and error.facts.record:
            return _encoder.encode(_passed_on(error, hop))
        if isinstance(error, TaskError) and error.cause is not None:
            return _encoder.encode(_made_here(error, hop))
        return _encoder.encode(_record(error, hop))
    except Exception as failure:
        note = f"[Freehold: the exception could not be taken apart: {describe(failure)[:1000]}]"
        return _encoder.encode(_text_only(error, hop, note))


def pack_task_error(error: TaskError) -> bytes:
    """The bytes by which a ``TaskError`` is pickled, for ``load_error``; no task is added."""
    facts = error.facts
    hop = Hop(facts.function_name, facts.pid, facts.node_id, facts.traceback_text)
    try:
        if facts.record:
            record = _decode(facts.record)
            _keep_notes(record, error)
        else:
            record = _record(facts.cause or error, hop)
        return _encoder.encode(record)
    except Exception as failure:
        note = f"[Freehold: the exception could not be taken apart: {describe(failure)[:1000]}]"
        return _encoder.encode(_text_only(error, hop, note))


def _reduce(error: TaskError, protocol: SupportsIndex = 4) -> tuple[Any, ...]:
    return load_error, (pack_task_error(error),)


copyreg.pickle(TaskError, _reduce)  # types made by both_types carry the same in themselves


def _record(error: BaseException, hop: Hop) -> Record:
    """Record of an exception that begins its journey at ``hop``."""
    hop.traceback = hop.traceback or render(error)
    found, omitted = _reachable(error)
    places = {id(one): index for index, one in enumerate(found)}
    links = [_link(one, places) for one in found]
    if omitted:
        links[0].notes.append(
            f"[Freehold: more than {LINKS_MAX} exceptions in its chain; rest cut]"
        )
    nested = max((_decode(link.record).nested + 1 for link in links if link.record), default=0)
    system = type(error).__module__ == errors.__name__  # a user's subclass is the user's error
    return Record(links, [hop], shorten(describe(error)), system, 0, nested)


def _passed_on(error: TaskError, hop: Hop) -> Record:
    """Record of a task error that arrived by record and now leaves another task."""
    record = _decode(error.facts.record)
    _keep_notes(record, error)
    hop.traceback = render(error, arrived=True)
    record.hops.append(hop)
    if len(record.hops) > HOPS_MAX:
        del record.hops[HOPS_MAX // 2]
        record.skipped += 1
    return record


def _made_here(error: TaskError, hop: Hop) -> Record:
    """Record of a ``TaskError`` that was made by its constructor."""
    facts = error.facts
    assert facts.cause is not None
    first = Hop(facts.function_name, facts.pid, facts.node_id, facts.traceback_text)
    record = _record(facts.cause, first)
    if (hop.function_name, hop.pid) != (first.function_name, first.pid):
        record.hops.append(hop)
    return record


def _keep_notes(record: Record, error: TaskError) -> None:
    """Notes may have been added since it arrived."""
    record.links[0].notes = notes_of(error)


def _text_only(error: BaseException, hop: Hop, note: str) -> Record:
    kind = type(error)
    line = shorten(describe(error))
    hop.traceback = hop.traceback or line
    base = pickle.dumps(Exception if isinstance(error, Exception) else BaseException)
    link = Link(
        b"",
        [base],
        kind.__module__,
        kind.__qualname__,
        line,
        [],
        {},
        [note],
        -1,
        -1,
        False,
        [],
        b"",
    )
    return Record([link], [hop], line, False, 0, 0)


def _reachable(error: BaseException) -> tuple[list[BaseException], bool]:
    """Every exception reachable from ``error``, itself first, and whether some were left out."""
    found = [error]
    known = {id(error)}
    for one in found:
        if isinstance(one, TaskError) and one is not error:
            continue  # it carries its own record, chain and all
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        for near in (*members, one.__cause__, one.__context__):
            if near is not None and id(near) not in known:
                if len(found) == LINKS_MAX:
                    return found, True
                known.add(id(near))
                found.append(near)
    return found, False


def _link(error: BaseException, places: Mapping[int, int]) -> Link:
    kind = type(error)
    link = Link(
        kind=b"",
        bases=[],
        module=str(kind.__module__),
        name=kind.__qualname__,
        text=shorten(text_of(error)),
        args=[],
        state={},
        notes=notes_of(error),
        cause=places.get(id(error.__cause__), -1),
        context=places.get(id(error.__context__), -1),
        suppress=error.__suppress_context__,
        members=[],
        record=b"",
    )
    if isinstance(error, TaskError) and (error.facts.record or error.cause is not None):
        record = pack_task_error(error)
        if len(record) <= PIECE_MAX and _decode(record).nested < NESTED_MAX:
            link.record = record
            return link
        link.notes.append("[Freehold: task errors nest too deep here; this one is text only]")
        link.bases = [pickle.dumps(TaskError)]
        return link
    link.kind, link.bases = _pack_type(kind, link)
    args = _native(kind).__reduce__(error)[1]
    if isinstance(error, BaseExceptionGroup):
        args = args[:1]
        link.members = [places[id(one)] for one in error.exceptions if id(one) in places]
    link.args = [_pack(f"argument {index}", arg, link) for index, arg in enumerate(args)]
    link.state = {name: _pack(f"attribute {name!r}", item, link) for name, item in _state(error)}
    return link


def _pack_type(kind: type[BaseException], link: Link) -> tuple[bytes, list[bytes]]:
    """The type, and its ancestors that can be found by name."""
    try:
        packed = serial.dump_plain(kind)
    except Exception as failure:
        packed = b""
        link.notes.append(f"[Freehold: its type could not be pickled: {describe(failure)[:1000]}]")
    bases = []
    for base in kind.__mro__[1:]:
        if issubclass(base, BaseException) and base.__module__ != "__main__":
            try:
                bases.append(pickle.dumps(base))
            except Exception:  # a local class: the next one up will do
                pass
    return packed, bases


def _pack(what: str, item: Any, link: Link) -> bytes:
    """One argument or attribute; a description in its place, and a note, where that fails."""
    if isinstance(item, str) and len(item) > TEXT_MAX and type(item) is str:
        item = shorten(item)
    try:
        packed = serial.dump_plain(item)
        if len(packed) <= PIECE_MAX:
            return packed
        why = f"it takes {len(packed):,} bytes"
    except Exception as failure:
        why = describe(failure)[:1000]
    link.notes.append(f"[Freehold: {what} was left out: {why}]")
    return pickle.dumps(f"<{type(item).__qualname__}, left out>")


def _state(error: BaseException) -> Iterator[tuple[str, Any]]:
    """Attributes to ship: the ``__dict__``, slots, and those that built-in types forget to."""
    for name, item in list(error.__dict__.items()):
        if name != "__notes__":
            yield name, item
    slots = [
        name
        for kind in type(error).__mro__
        if not _is_native(kind)
        for name, member in vars(kind).items()
        if isinstance(member, types.MemberDescriptorType)
    ]
    if isinstance(error, (AttributeError, NameError, ImportError)):
        slots += ["name"]  # not AttributeError.obj: it may be a whole model
    if isinstance(error, ImportError):
        slots += ["path"]
    for name in slots:
        try:
            yield name, getattr(error, name)
        except Exception:  # a slot not filled
            pass


# -- putting together -----------------------------------------------------------------------------


def load_error(data: bytes) -> BaseException:
    """The exception to raise for ``data``, made anew at each call.

    Returns:
        A ``TaskError`` that is also an instance of the user's type where that is possible, or an
        error of Freehold as it is.

    Raises:
        ProtocolError: these are not the bytes of an error.
    """
    try:
        record = _decode(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"an error arrived that cannot be read: {error}") from error
    if not record.links or not record.hops:
        raise ProtocolError("an error arrived without an exception or a task in it")
    builder = _Builder(record.links)
    try:
        cause = builder.chained(0, builder.made(0))
    except (IndexError, RecursionError) as error:  # places that do not exist, a group within itself
        raise ProtocolError("an error arrived whose parts do not fit together") from error
    if record.system:
        if record.hops[0].function_name:  # (not if the runtime itself made it, outside any task)
            note = f"[raised in {_place(record.hops[0])}]"
            cause.__dict__["__notes__"] = list(dict.fromkeys([*notes_of(cause), note]))
        return cause
    return _task_error(record, builder, cause, data)


def _task_error(
    record: Record, builder: "_Builder", cause: BaseException, data: bytes
) -> TaskError:
    """The exception that is of both types, or a plain ``TaskError`` around ``cause``."""
    both = both_types(type(cause))  # type: ignore[arg-type]  # mypy thinks types have no hash
    error: TaskError | None = None
    if both is not None:
        try:
            made = builder.made(0, both)
            assert isinstance(made, TaskError)
            error = made
        except Exception:  # some __new__, metaclass or layout that does not take part
            error = None
    if error is None:
        error = TaskError.__new__(TaskError)
        error.args = (record.line,)
    first = record.hops[0]
    names = [hop.function_name for hop in record.hops[1:]]
    if record.skipped:
        names.insert(HOPS_MAX // 2 - 1, f"... {record.skipped} more ...")
    facts = TaskFacts(
        first.function_name,
        cause,
        record.line,
        _journey(record),
        first.pid,
        first.node_id,
        tuple(names),
        data,
    )
    error.__dict__["_facts"] = facts
    builder.chained(0, error)
    return error


class _Builder:
    """Makes the exceptions of one record; each of them once."""

    def __init__(self, links: Sequence[Link]) -> None:
        self.links = links
        self.ready: dict[int, BaseException] = {}
        self.pieces: dict[int, tuple[tuple[Any, ...], dict[str, Any]]] = {}
        self.notes: dict[int, list[str]] = {}

    def made(self, index: int, kind: type[BaseException] | None = None) -> BaseException:
        """The exception of ``links[index]``, without its chain; with ``kind``, another of it."""
        if kind is None and index in self.ready:
            return self.ready[index]
        link = self.links[index]
        if link.record:
            return self.ready.setdefault(index, load_error(link.record))
        notes = self.notes.setdefault(index, [])
        args, state = self.unpacked(index, notes)
        if kind is not None:
            return _assembled(kind, args, state, link.text)
        try:
            error = _assembled(_find_type(link, notes), args, state, link.text)
        except Exception as failure:
            notes.append(
                f"[Freehold: it could not be rebuilt as it was: {describe(failure)[:1000]}]"
            )
            error = _assembled(
                stand_in(link.module, link.name, Exception), (link.text,), {}, link.text
            )
        return self.ready.setdefault(index, error)

    def unpacked(self, index: int, notes: list[str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments and attributes of a link; unpacked once, so that two exceptions share them."""
        if index not in self.pieces:
            link = self.links[index]
            args = [_unpack(f"argument {i}", one, notes) for i, one in enumerate(link.args)]
            if link.members:
                args.append([self.made(member) for member in link.members])
            state = {
                name: _unpack(f"attribute {name!r}", one, notes) for name, one in link.state.items()
            }
            self.pieces[index] = tuple(args), state
        return self.pieces[index]

    def chained(self, index: int, error: BaseException) -> BaseException:
        """``error``, made from ``links[index]``, with notes, cause and context in place."""
        pending = [(index, error)]
        done: set[int] = set()
        while pending:
            place, one = pending.pop()
            link = self.links[place]
            if id(one) in done or link.record:  # a task error came complete
                continue
            done.add(id(one))
            notes = [*link.notes, *self.notes.get(place, [])]
            if notes:
                one.__dict__["__notes__"] = list(dict.fromkeys(notes))
            near = {at: self.made(at) for at in (link.cause, link.context) if at >= 0}
            _set(one, "__cause__", near.get(link.cause))
            _set(one, "__context__", near.get(link.context))
            _set(one, "__suppress_context__", link.suppress)
            pending += [*near.items(), *((at, self.made(at)) for at in link.members)]
        return error


def _unpack(what: str, packed: bytes, notes: list[str]) -> Any:
    try:
        return pickle.loads(packed)
    except Exception as failure:
        why = describe(failure)[:1000]
        notes.append(f"[Freehold: {what} could not be rebuilt in this process: {why}]")
        return f"<not rebuilt: {why}>"


def _find_type(link: Link, notes: list[str]) -> type[BaseException]:
    """The type of the exception, or a stand-in where this process has no such type."""
    why = "it could not be pickled"
    if link.kind:
        try:
            kind = pickle.loads(link.kind)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                return kind
            why = f"{kind!r} is no exception"
        except Exception as failure:
            why = describe(failure)[:1000]
    notes.append(
        f"[Freehold: a stand-in for {link.module}.{link.name}, not the type itself: {why}]"
    )
    for packed in link.bases:
        try:
            return stand_in(link.module, link.name, pickle.loads(packed))
        except Exception:  # not here either: the next base is nearer to the built-in ones
            pass
    return stand_in(link.module, link.name, Exception)


@functools.lru_cache(maxsize=256)  # types made by a program at run time must not pile up
def stand_in(module: str, name: str, base: type[BaseException]) -> type[BaseException]:
    """A type of this name, for an exception whose own type is not to be had."""
    body = {"__module__": module, "__qualname__": name, "__str__": _text_as_shipped}
    return types.new_class(
        name.rpartition(".")[2], (base,), exec_body=lambda space: space.update(body)
    )


def _text_as_shipped(error: BaseException) -> str:
    return str(error.__dict__.get("_text", "")) or BaseException.__str__(error)


@functools.lru_cache(maxsize=256)
def both_types(user: type[BaseException]) -> type[TaskError] | None:
    """The type that is ``TaskError`` and ``user`` at once, named as ``user``; None if impossible.

    Its constructor makes a plain ``user``, so that the idiom ``raise type(e)(...) from e`` works.
    """
    unsafe = (StopIteration, StopAsyncIteration)  # they would end the caller's loop in silence
    if not issubclass(user, Exception) or issubclass(user, (TaskError, *unsafe)):
        return None
    body = {
        "__module__": user.__module__,
        "__qualname__": user.__qualname__,
        "__doc__": user.__doc__,
        "__reduce_ex__": _reduce,
        "__new__": lambda _, *args, **options: user(*args, **options),
    }
    try:
        return types.new_class(
            user.__name__, (TaskError, user), exec_body=lambda space: space.update(body)
        )
    except Exception:  # a metaclass or layout that allows no subclass
        return None


def _assembled(
    kind: type[BaseException], args: tuple[Any, ...], state: Mapping[str, Any], text: str
) -> BaseException:
    """An exception of this type with these contents, made without the user's ``__init__``."""
    native = _native(kind)
    try:
        error = _blank(native, kind, args)
        native.__init__(error, *args)  # UnicodeDecodeError and others keep their fields in C
    except Exception:  # an argument was lost on the way and the built-in type insists on it
        if issubclass(kind, BaseExceptionGroup):
            args = (text, [Exception("the members of this group were left out")])
            error = _blank(native, kind, args)
        else:
            error = _blank(native, kind, ())
            error.args = args
    if kind.__str__ is _text_as_shipped:
        error.__dict__["_text"] = text
    for name, item in state.items():
        if isinstance(_class_attribute(kind, name), types.MemberDescriptorType):
            _set(error, name, item)
        else:
            error.__dict__[name] = item
    return error


def _blank(
    native: type[BaseException], kind: type[BaseException], args: tuple[Any, ...]
) -> BaseException:
    try:
        return native.__new__(kind, *args)
    except TypeError:
        # MemoryError keeps spares and makes only itself: fine for it, not for a type that is also
        # a TaskError. Where the memory layout differs from BaseException this raises again.
        return BaseException.__new__(kind, *args)


def _native(kind: type[BaseException]) -> type[BaseException]:
    """The nearest base that is built in: it alone decides what an instance is in memory."""
    return next(base for base in kind.__mro__ if _is_native(base))


def _is_native(kind: type) -> bool:
    return not kind.__flags__ & (1 << 9)  # Py_TPFLAGS_HEAPTYPE: made at run time


def _class_attribute(kind: type, name: str) -> Any:
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def _set(error: BaseException, name: str, item: Any) -> None:
    """Set past a ``__setattr__`` of the user, such as that of a frozen dataclass."""
    BaseException.__setattr__(error, name, item)


# -- text ----------------------------------------------------------------------------------------


def _place(hop: Hop) -> str:
    node = f" on node {hop.node_id}" if hop.node_id else ""
    return f"{hop.function_name or 'a task'}(), pid {hop.pid}{node}"


def _journey(record: Record) -> str:
    """Where it was raised and by whom it was passed on, each with its traceback."""
    parts = []
    for index, hop in enumerate(record.hops):
        if index == HOPS_MAX // 2 and record.skipped:
            parts.append(f"Passed on by {record.skipped} more tasks.")
        head = f"{'Passed on by' if index else 'In'} {_place(hop)}"
        parts.append(f"{head}:\n{hop.traceback.rstrip()}" if hop.traceback else f"{head}.")
    return "\n\n".join(parts)
