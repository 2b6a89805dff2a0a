"""User values to bytes and back, without copying what is large.

Theory of operation. A *blob* is one value at rest. It is written once, inline in a message or into
shared memory, and read any number of times:

    header   16 bytes: magic "FHV", kind, number of buffers (u32), length of the stream (u64)
    lengths  8 bytes for each buffer (u64)
    stream   the pickle (kind "p"; "n" if there is nothing in it but numbers, strings, None and
             tuples of them), or the bytes themselves when the value is ``bytes`` (kind "b")
    buffers  what pickle protocol 5 took out of band, each at an offset that is a multiple of 64

All integers are little-endian; gaps are padding. The header gives the total, so a blob that was cut
short is refused before any of it is believed. It does not guard against damage inside.

Life of one value: ``serialize`` runs the C pickler, which calls back for every large buffer instead
of copying it; ``size`` says how much room the blob needs; ``to_bytes`` or ``write_into`` makes the
only copy; ``deserialize`` hands out views of the blob's memory, read-only, so an array costs
nothing and lives as long as someone looks at it.

The C pickler goes first because it is six times as fast (0.9 against 5.3 us for small arguments).
cloudpickle takes over when it fails, and when its result names a module whose objects must travel
by value: another process has a different ``__main__``.

References inside values do not travel in the stream. The pickler leaves a number and the reference
goes into ``refs``; the owner's protocol carries those ("count before name") and the reader is
given the counted references to put in their places. The lists in use are per thread and nest:
``__reduce__`` or ``__setstate__`` of a user may itself put and get.

It must not know what a reference is, where blobs live, or numpy (arrays serialise themselves).
Races: a buffer that another thread changes during the copy is copied torn, as with any copy.
"""

from __future__ import annotations

import pickle
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from freehold.errors import ProtocolError, SerializationError

if TYPE_CHECKING:
    import cloudpickle

HEADER = struct.Struct("<3scIQ")
_HEADER_BYTES, _pack_header, _unpack_header = HEADER.size, HEADER.pack, HEADER.unpack_from
MAGIC = b"FHV"
KINDS = PICKLED, RAW, BARE = b"p", b"b", b"n"
ALIGNMENT = 64  # a cache line, and the widest vector register (AVX-512)

# Modules whose classes and functions go by value, as they are named in a pickle.
_by_value: tuple[bytes, ...] = (b"__main__",)


class _Threads(threading.local):
    """The list that collects references on this thread, and the one that supplies them."""

    collecting: list[Any] | None = None
    supplying: Sequence[Any] | None = None


_thread = _Threads()

#: Types whose values hold no references, no buffers, and nothing that goes by value.
PLAIN: Final = frozenset({type(None), bool, int, float, str})


#: What ``fingerprint`` looks at: enough to tell results of different calls apart, at 10 us for a
#: value of any size (a digest of all bytes would take as long as storing them).
FINGERPRINT_PARTS: Final = 16
FINGERPRINT_BYTES: Final = 4096


class Serialized:
    """A value on its way into a blob; holds on to the value's own memory until it is copied.

    Attributes:
        pickled: the stream; the value itself when that is ``bytes``.
        buffers: out-of-band memory, each contiguous, one-dimensional, of format "B".
        refs: references met, in the order of their numbers in the stream.
        size: bytes that the whole blob takes.
    """

    __slots__ = ("pickled", "buffers", "refs", "size", "_kind")

    def __init__(
        self, pickled: bytes, buffers: list[memoryview], refs: list[Any], kind: bytes = PICKLED
    ) -> None:
        self.pickled = pickled
        self.buffers = buffers
        self.refs = refs
        self._kind = kind
        self.size = HEADER.size + len(pickled)
        if buffers:
            self.size = _end(len(pickled), [len(buffer) for buffer in buffers])

    def to_bytes(self) -> bytes:
        """The blob as one ``bytes`` object, for small values that ride inside a message."""
        if not self.buffers:
            return HEADER.pack(MAGIC, self._kind, 0, len(self.pickled)) + self.pickled
        pieces: list[bytes | memoryview] = [self._front(), self.pickled]
        for gap, _, buffer in self._places():
            pieces += (bytes(gap), buffer)
        return b"".join(pieces)

    def fingerprint(self) -> bytes:
        """What tells this value from others at little cost, also in another process: its sizes, and
        the first bytes of the stream and of each buffer, and the last.
        """
        digest = blake2b(self.size.to_bytes(8, "little"), digest_size=16)
        for part in (memoryview(self.pickled), *self.buffers[:FINGERPRINT_PARTS]):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part[:FINGERPRINT_BYTES])
            digest.update(part[-FINGERPRINT_BYTES:])
        return digest.digest()

    def write_into(self, view: memoryview) -> None:
        """Write the blob at the start of ``view``.

        Args:
            view: writable, contiguous, one-dimensional, format "B", at least ``size`` long; starts
                at a multiple of 64 in memory if the buffers are to be aligned.

        Raises:
            ValueError: the view is too small or cannot be written. Nothing has been written then.
        """
        from freehold.copying import copy  # (ctypes: 4 ms of an import of Freehold)

        if view.readonly or len(view) < self.size:
            raise ValueError(f"a blob of {self.size} bytes needs that much writable memory: {view}")
        front = self._front()
        view[: len(front)] = front
        copy(view, len(front), memoryview(self.pickled))
        for gap, start, buffer in self._places():
            view[start - gap : start] = bytes(gap)  # what lay there before must not leak
            copy(view, start, buffer)

    def _front(self) -> bytes:
        """The header and the lengths."""
        lengths = [len(buffer) for buffer in self.buffers]
        header = HEADER.pack(MAGIC, self._kind, len(lengths), len(self.pickled))
        return header + struct.pack(f"<{len(lengths)}Q", *lengths) if lengths else header

    def _places(self) -> Iterator[tuple[int, int, memoryview]]:
        """Each buffer with the length of the gap before it and its offset."""
        end = HEADER.size + 8 * len(self.buffers) + len(self.pickled)
        layout = _layout(len(self.pickled), [len(buffer) for buffer in self.buffers])
        for (start, stop), buffer in zip(layout, self.buffers):
            yield start - end, start, buffer
            end = stop


def _layout(stream: int, lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Start and end of each buffer in a blob whose stream has ``stream`` bytes."""
    end = HEADER.size + 8 * len(lengths) + stream
    for length in lengths:
        start = -(-end // ALIGNMENT) * ALIGNMENT
        end = start + length
        yield start, end


def _end(stream: int, lengths: Sequence[int]) -> int:
    """End of the last buffer, which is the size of the blob."""
    return max(end for _, end in _layout(stream, lengths))


# -- values to blobs ------------------------------------------------------------------------------


def serialize(value: Any, name: str = "the value") -> Serialized:
    """Prepare ``value`` for travel. Nothing large is copied yet.

    Args:
        value: anything that pickle or cloudpickle can take, references included.
        name: what to call it in an error, such as ``argument 'x'``.

    Raises:
        SerializationError: some part cannot be pickled; the message says which.
    """
    kind = type(value)
    if kind is bytes:
        return Serialized(value, [], [], RAW)
    if kind in PLAIN:
        return Serialized(pickle.dumps(value, 5), [], [], BARE)
    if kind is bytearray or kind is memoryview:
        value = _Recipe(_reduce_bytearray(value) if kind is bytearray else _reduce_view(value))
    outer = _thread.collecting
    refs: list[Any] = []
    kept: list[pickle.PickleBuffer] = []
    _thread.collecting = refs
    try:
        pickled = _pickle(value, refs, kept.append, kept)
        return Serialized(pickled, [buffer.raw() for buffer in kept] if kept else [], refs)
    except MemoryError:
        raise
    except Exception as error:
        raise _blame(value, name, error) from error
    finally:
        _thread.collecting = outer


def plain_blob(value: Any) -> bytes:
    """The blob of a value of a plain type, or of a tuple of such. A tuple takes 0.6 us, where
    ``serialize`` and ``to_bytes`` take 2.1.
    """
    pickled = pickle.dumps(value, 5)
    return _pack_header(MAGIC, BARE, 0, len(pickled)) + pickled


#: The arguments of a call that has none, and what most of those return that are called for what
#: they do. Whoever reads these very bytes knows what they are.
NO_ARGUMENTS: Final = plain_blob(((), {}))
NONE: Final = plain_blob(None)


def _pickle(
    value: Any,
    refs: list[Any],
    keep: Callable[[pickle.PickleBuffer], Any] | None,
    kept: list[pickle.PickleBuffer],
) -> bytes:
    """Pickle by reference where that will do, by value where it will not."""
    try:
        pickled = pickle.dumps(value, 5, buffer_callback=keep)
        for module in _by_value:
            if module in pickled:
                break
        else:
            return pickled
    except MemoryError:
        raise
    except Exception:  # also what a user's __reduce__ raises: cloudpickle may know better
        pass
    refs.clear()
    kept.clear()
    return _pickle_by_value(value, keep)


def _pickle_by_value(value: Any, keep: Callable[[pickle.PickleBuffer], Any] | None) -> bytes:
    import io

    file = io.BytesIO()
    _by_value_pickler()(file, protocol=5, buffer_callback=keep).dump(value)
    return file.getvalue()


def _by_value_pickler() -> type[cloudpickle.Pickler]:
    """cloudpickle, loaded at its first use (24 ms), with memoryviews that stay memoryviews and code
    that keeps the name of its file (cloudpickle 3.1.3 takes it away): tracebacks, debuggers and
    ``explain`` show the user's lines.
    """
    global _pickler
    if _pickler is None:
        from collections import ChainMap

        import cloudpickle

        table = cloudpickle.Pickler.dispatch_table
        reduce_code = table[CodeType]

        def reduce_named(code: CodeType) -> tuple[Any, ...]:
            return _code_of_file, (code.co_filename, *reduce_code(code))

        class ByValuePickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
            dispatch_table = ChainMap({memoryview: _reduce_view, CodeType: reduce_named}, table)

        _pickler = ByValuePickler
    return _pickler


_pickler: type[cloudpickle.Pickler] | None = None


def _code_of_file(filename: str, make: type[CodeType], parts: tuple[Any, ...]) -> CodeType:
    """The other end of ``reduce_named``."""
    return make(*parts).replace(co_filename=filename)


def travel_by_value(module: ModuleType) -> None:
    """From now on pickle the functions and classes of ``module`` by value, as those of __main__.

    For modules that exist on this machine only. The module must stay importable here.
    """
    global _by_value
    import cloudpickle

    cloudpickle.register_pickle_by_value(module)
    _by_value = (*_by_value, module.__name__.encode())


def pickle_function(function: Any, name: str = "the function") -> tuple[bytes, list[Any]]:
    """Pickle a function or class with all that it closes over.

    Returns:
        The pickle, and the references found in closures and globals, for ``load_function``.

    Raises:
        SerializationError: something that it closes over cannot be pickled.
    """
    outer = _thread.collecting
    refs: list[Any] = []
    _thread.collecting = refs
    try:
        return _pickle_by_value(function, None), refs
    except Exception as error:
        raise _blame(function, name, error) from error
    finally:
        _thread.collecting = outer


def dump_plain(value: Any) -> bytes:
    """Pickle a value alone, all of it in one piece; references cannot come along.

    Raises:
        Exception: whatever the picklers raise.
    """
    outer = _thread.collecting
    _thread.collecting = None
    try:
        return _pickle(value, [], None, [])
    finally:
        _thread.collecting = outer


def reduce_ref(ref: Any) -> tuple[Callable[[int], Any], tuple[int]]:
    """What a reference's ``__reduce__`` returns: it joins the serialisation that this thread is in.

    Raises:
        SerializationError: there is none; the reference was given to a pickler of the user's own.
    """
    refs = _thread.collecting
    if refs is None:
        raise SerializationError(
            "a reference can only travel inside a task's arguments, results or put values",
            remedy="Get the value and pickle that, or pass the reference through a task.",
        )
    refs.append(ref)
    return restore_ref, (len(refs) - 1,)


class _Recipe:
    """A value that is pickled as the call that makes it again."""

    __slots__ = ("steps",)

    def __init__(self, steps: tuple[Any, ...]) -> None:
        self.steps = steps

    def __reduce__(self) -> tuple[Any, ...]:
        return self.steps


def _reduce_bytearray(value: bytearray) -> tuple[Any, ...]:
    return bytearray, (pickle.PickleBuffer(value),)


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    """A memoryview as its bytes, element format and shape (None where the shape is one length)."""
    shape = view.shape if view.ndim != 1 and view.nbytes else None
    flat = pickle.PickleBuffer(view if view.c_contiguous else view.tobytes())
    return restore_view, (flat, view.format, shape)


# -- blobs to values ------------------------------------------------------------------------------


def deserialize(
    blob: bytes | memoryview, refs: Sequence[Any] = (), *, writable: bool = False
) -> Any:
    """The value in a blob. Its arrays are views of the blob's memory and keep that memory alive.

    Args:
        blob: exactly one blob, contiguous bytes.
        refs: references for the numbers in the stream, in the order of ``Serialized.refs``.
        writable: let arrays be changed in place, where the blob's own memory may be. The caller
            gives memory that belongs to nobody else.

    Raises:
        ProtocolError: these are not the bytes of one whole blob.
        SerializationError: unpickling failed; the cause tells why, such as a module missing here.
    """
    if blob == NONE:
        return None
    total = len(blob)
    if total >= _HEADER_BYTES and _unpack_header(blob) == (MAGIC, BARE, 0, total - _HEADER_BYTES):
        try:  # (1.1 us, where what may hold references takes 2.4)
            return pickle.loads(blob[_HEADER_BYTES:])
        except Exception as error:
            raise _cannot_rebuild("a value", error) from error
    kind, start, lengths, stream = _parse(blob)
    stop = start + stream
    view = memoryview(blob)
    if kind == RAW:
        return bytes(view[start:stop])
    if not (writable or view.readonly):
        view = view.toreadonly()
    outer = _thread.supplying
    _thread.supplying = refs
    try:
        if not lengths:
            return pickle.loads(view[start:stop])
        buffers = [view[begin:end] for begin, end in _layout(stream, lengths)]
        return pickle.loads(view[start:stop], buffers=buffers)
    except (ProtocolError, MemoryError):
        raise
    except Exception as error:
        raise _cannot_rebuild("a value", error) from error
    finally:
        _thread.supplying = outer


def _parse(blob: bytes | memoryview) -> tuple[bytes, int, Sequence[int], int]:
    """Kind, start of the stream, lengths of buffers and of the stream; checks that all is there."""
    total = len(blob)
    if total < _HEADER_BYTES:
        raise ProtocolError(f"a blob of {total} bytes is shorter than its header")
    magic, kind, count, stream = _unpack_header(blob)
    if magic != MAGIC or kind not in KINDS:
        raise ProtocolError(f"these bytes are not a value: they begin with {magic + kind!r}")
    if not count and _HEADER_BYTES + stream == total:
        return kind, _HEADER_BYTES, (), stream
    start = HEADER.size + 8 * count
    size = start + stream
    lengths: Sequence[int] = ()
    if count and start <= total:
        lengths = struct.unpack_from(f"<{count}Q", blob, HEADER.size)
        size = _end(stream, lengths)
    if size != total:
        raise ProtocolError(f"a blob of {size} bytes arrived as {total}: cut short or joined")
    return kind, start, lengths, stream


def load_function(pickled: bytes, refs: Sequence[Any] = ()) -> Any:
    """The function or class that ``pickle_function`` pickled.

    Raises:
        SerializationError: it could not be rebuilt here; the cause tells why.
    """
    outer = _thread.supplying
    _thread.supplying = refs
    try:
        return pickle.loads(pickled)
    except Exception as error:
        raise _cannot_rebuild("a function", error) from error
    finally:
        _thread.supplying = outer


def restore_ref(index: int) -> Any:
    """Called by the unpickler where a reference was: the one that the reader was given for it."""
    refs = _thread.supplying
    if refs is None:
        raise SerializationError(
            "a reference was unpickled outside of a task's arguments, results or put values",
            remedy="Let Freehold carry the value.",
        )
    if not 0 <= index < len(refs):
        raise ProtocolError(f"a value names reference {index}, but came with {len(refs)}")
    return refs[index]


def restore_view(flat: Any, form: str, shape: tuple[int, ...] | None) -> memoryview:
    """Called by the unpickler where a memoryview was."""
    view = memoryview(flat)
    cast: Any = view.cast  # typed for literal formats only
    result: memoryview = cast(form) if shape is None else cast(form, shape)
    return result


# -- errors ---------------------------------------------------------------------------------------


def _blame(value: Any, name: str, error: Exception) -> SerializationError:
    """The error to raise for a value that did not pickle."""
    if isinstance(error, SerializationError):
        return error
    if RecursionError in (type(error), type(error.__cause__)):
        return SerializationError(
            f"{name} is nested too deeply to be pickled",
            remedy="Flatten it, for example a linked list into a list.",
        )
    path = inspect_unpicklable(value, name)
    why = f"{type(error).__name__}: {error}"[:1000]
    what = f"{path}, which" if path else name
    return SerializationError(
        f"{what} cannot be pickled ({why})", path=path.rpartition(" is a ")[0]
    )


def _why_missing(name: str) -> str:
    return (
        f"Install {name} where the task runs, or ship it: runtime_env={{'pip': [...]}} for what is "
        "installed, {'py_modules': [...]} or {'working_dir': ...} for files of your own."
    )


#: What to say of a module that is missing here; a worker knows more (``runtime.importing``).
why_missing: Callable[[str], str] = _why_missing


def _cannot_rebuild(what: str, error: Exception) -> SerializationError:
    if isinstance(error, SerializationError):
        return error
    why = f"{type(error).__name__}: {error}"[:1000]
    remedy = "The error above says what this process lacks."
    if isinstance(error, ModuleNotFoundError) and error.name:
        remedy = why_missing(error.name)
    elif isinstance(error, ImportError):
        remedy = "Install that module where the task runs, or ship it with the program."
    return SerializationError(f"{what} could not be rebuilt in this process: {why}", remedy=remedy)


def can_pickle(value: Any) -> bool:
    """Whether ``value`` can travel. Costs one pickling, but copies no large buffers."""
    outer = _thread.collecting
    refs: list[Any] = []
    _thread.collecting = refs
    try:
        kept: list[pickle.PickleBuffer] = []
        _pickle(value, refs, kept.append, kept)
    except Exception:
        return False
    finally:
        _thread.collecting = outer
    return True


def inspect_unpicklable(value: Any, name: str = "the value") -> str:
    """Find the part of ``value`` that cannot be pickled.

    Returns:
        Its path and type, as in ``argument 'cfg'.model.lock is a _thread.lock``; "" if all is well.
    """
    from freehold.wire import unpicklable

    return "" if can_pickle(value) else unpicklable.find(value, name, can_pickle)
