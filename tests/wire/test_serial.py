"""User values as blobs: src/freehold/wire/serial.py."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import functools
import gc
import math
import mmap
import pickle
import subprocess
import sys
import textwrap
import threading
import types
import uuid
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import recfunctions

from freehold import errors
from freehold.errors import ProtocolError, SerializationError
from freehold.wire import serial
from freehold.wire.serial import deserialize, plain_blob, serialize


class Ref:
    """Stands for a reference: it travels as the real one does."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return serial.reduce_ref(self)


def blob_of(value: Any, *, by_view: bool) -> bytes:
    """The blob, made by either of the two ways that must agree."""
    serialized = serialize(value)
    if not by_view:
        return serialized.to_bytes()
    memory = bytearray(b"\xee" * (serialized.size + 8))
    serialized.write_into(memoryview(memory))
    assert memory[serialized.size :] == b"\xee" * 8  # nothing beyond the end
    return bytes(memory[: serialized.size])


def back(value: Any) -> Any:
    """The value after its journey; both ways of writing and the size are checked on the way."""
    blob = blob_of(value, by_view=False)
    assert blob == blob_of(value, by_view=True)
    assert len(blob) == serialize(value).size
    return deserialize(memoryview(blob))


# -- values ---------------------------------------------------------------------------------------


class Point(NamedTuple):
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Record:
    name: str
    data: Any


ZOO = [
    None,
    True,
    0,
    -(2**70),
    1.5,
    1j,
    "",
    "text é \U0001f600",
    b"",
    b"raw",
    b"x" * 300_000,
    bytearray(b"changes"),
    ((), {}),
    ((1, "a", b"x"), {"k": [1, {2, 3}]}),
    frozenset({1}),
    range(3),
    slice(1, 2),
    Ellipsis,
    NotImplemented,
    int,
    Point(1, 2),
    Colour.RED,
    Record("r", [1]),
    dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
    decimal.Decimal("1.10"),
    uuid.UUID(int=5),
    collections.OrderedDict(a=1),
    collections.deque([1, 2]),
    types.SimpleNamespace(a=1),
    functools.partial(int, base=2),
    math.sqrt,
    {"nested": [bytearray(b"a"), b"b", "__main__"]},
]


@pytest.mark.parametrize("value", ZOO, ids=lambda value: repr(value)[:30])
def test_values_come_back_equal(value: Any) -> None:
    """Goal: type and value survive both ways of writing."""
    result = back(value)
    assert type(result) is type(value)
    if isinstance(value, functools.partial):
        assert result("101") == 5
    else:
        assert result == value


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.binary().map(np.array),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@pytest.mark.parametrize("value", [None, True, 7, 1.5, "two", (1, "two", None)])
def test_bare_values_come_back_equal(value: Any) -> None:
    """Goal: what holds nothing is read the short way, from a message or a store alike."""
    blob = plain_blob(value)
    assert deserialize(blob) == deserialize(memoryview(blob)) == value
    assert type(deserialize(blob)) is type(value)


@given(json_like)
@settings(deadline=None)
def test_any_nesting_comes_back_equal(value: Any) -> None:
    """Goal: the same for values nobody thought of."""
    np.testing.assert_equal(back(value), value)


ARRAYS = [
    np.arange(10),
    np.arange(12.0).reshape(3, 4),
    np.asfortranarray(np.arange(12).reshape(3, 4)),
    np.arange(20)[::2],
    np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    np.array(7.5),
    np.zeros(0),
    np.zeros((0, 3), np.int8),
    np.array([(1, 2.0, b"ab")], dtype=[("a", "i4"), ("b", "f8"), ("c", "S2")]),
    np.array([1, "two", None, [3]], dtype=object),
    np.array(["abc", "é"]),
    np.array([b"ab", b"c"]),
    np.array(["2020-01-01"], dtype="datetime64[D]"),
    np.arange(4, dtype=">u2"),
    np.array([True, False]),
    np.ma.masked_array([1, 2], [True, False]),
    np.broadcast_to(np.int64(3), (4,)),
    recfunctions.unstructured_to_structured(np.arange(6).reshape(3, 2)),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_arrays_come_back_equal(array: Any) -> None:
    """Goal: every kind of array survives, alone and inside other values, with type and order."""
    frozen = array.view()
    if not isinstance(array, np.ma.MaskedArray):
        frozen.flags.writeable = False
    for source in (array, frozen):
        alone, nested = back(source), back({"k": [source, 1]})["k"][0]
        for result in (alone, nested):
            assert type(result) is type(source)
            assert result.dtype == source.dtype
            assert result.shape == source.shape
            assert result.tolist() == source.tolist()
        assert alone.flags.f_contiguous >= source.flags.f_contiguous


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"abc"),
        memoryview(b""),
        memoryview(bytearray(8)).cast("d"),
        memoryview(np.arange(6, dtype="i4").reshape(2, 3)),
        memoryview(np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3))),
        memoryview(b"abcdef")[::2],
    ],
    ids=["bytes", "empty", "doubles", "rows", "columns", "strided"],
)
def test_memoryviews_stay_memoryviews(view: memoryview) -> None:
    """Goal: format, shape and contents survive, alone and nested; the memory is not copied."""
    for result in (back(view), back([view])[0]):
        assert type(result) is memoryview
        assert (result.format, result.shape) == (view.format, view.shape)
        assert result.tolist() == view.tolist()
        assert result.readonly


def test_classes_functions_and_closures_travel_by_value() -> None:
    """Goal: what has no importable name still comes back."""

    class Local:
        def __init__(self, data: Any) -> None:
            self.data = data

    offset = 3
    result = back([Local(np.arange(3)), lambda x: x + offset])
    assert result[0].data.tolist() == [0, 1, 2]
    assert result[1](4) == 7


def test_code_that_travels_knows_its_file() -> None:
    """Goal: tracebacks and debuggers show the user's lines on the other side, nested functions'
    too. Method: the code is that of this file, whose name cloudpickle takes away."""

    def outer() -> Any:
        return lambda: None

    far = back([outer])[0]
    assert {far.__code__.co_filename, far().__code__.co_filename} == {__file__}
    assert far.__code__.co_firstlineno == outer.__code__.co_firstlineno


def test_by_value_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a module that only this machine has travels along once it is registered."""
    import cloudpickle

    module = types.ModuleType("only_here")
    exec("class Thing:\n    pass", vars(module))
    monkeypatch.setitem(sys.modules, "only_here", module)
    monkeypatch.setattr(serial, "_by_value", serial._by_value)
    thing = module.Thing()  # type: ignore[attr-defined]
    by_name = serialize(thing).to_bytes()
    serial.travel_by_value(module)
    by_value = serialize(thing).to_bytes()
    monkeypatch.delitem(sys.modules, "only_here")
    cloudpickle.unregister_pickle_by_value(module)
    assert type(deserialize(by_value)).__name__ == "Thing"
    with pytest.raises(SerializationError, match="No module named 'only_here'") as caught:
        deserialize(by_name)
    assert "Install only_here where the task runs" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_main_travels_by_value(tmp_path: Path) -> None:
    """Goal: classes and functions of a script reach a process with another __main__.

    Method: a script writes an instance and a function; this process, which never ran it, reads.
    """
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import sys
        from freehold.wire import serial
        class Mine:
            value = 5
        def double(x):
            return 2 * x
        blob = serial.serialize([Mine(), double]).to_bytes()
        sys.stdout.buffer.write(blob)
        """)
    )
    source = str(Path(errors.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, script], capture_output=True, check=True, env={"PYTHONPATH": source}
    )
    mine, double = deserialize(run.stdout)
    assert (mine.value, double(4)) == (5, 8)


def test_what_is_imported_stays_small() -> None:
    """Goal: numpy is never imported by us, cloudpickle only when needed."""
    code = (
        "import sys; from freehold.wire import serial as s; s.deserialize(s.serialize((1, {}))"
        ".to_bytes()); print([m for m in ('numpy', 'cloudpickle') if m in sys.modules])"
    )
    source = str(Path(errors.__file__).parents[2])
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": source},
        text=True,
    )
    assert run.stdout.strip() == "[]"


# -- memory ---------------------------------------------------------------------------------------


def address(view: Any) -> int:
    return np.frombuffer(view, np.uint8).__array_interface__["data"][0]


def test_arrays_are_views_of_the_blob() -> None:
    """Goal: no copy on the way in or out, and 64-byte alignment. Method: compare addresses."""
    array = np.arange(1000.0)
    odd = np.arange(3, dtype=np.uint8)
    serialized = serialize([odd, array, odd])
    assert [address(buffer) for buffer in serialized.buffers] == [
        odd.__array_interface__["data"][0],
        array.__array_interface__["data"][0],
        odd.__array_interface__["data"][0],
    ] or len(serialized.buffers) == 2  # the same object twice is pickled once
    memory = mmap.mmap(-1, serialized.size)  # starts at a page
    serialized.write_into(memoryview(memory))
    view = memoryview(memory)
    start = address(view)
    _, result, _ = deserialize(view)
    place = result.__array_interface__["data"][0]
    assert start < place < start + serialized.size
    assert place % 64 == 0
    assert result.flags.aligned


def test_results_are_read_only_unless_asked_for() -> None:
    """Goal: nobody writes into shared memory; a private copy may be written in place."""
    memory = bytearray(serialize(np.arange(3)).to_bytes())
    result = deserialize(memoryview(memory))
    with pytest.raises(ValueError, match="read-only"):
        result[0] = 9
    own = deserialize(memoryview(memory), writable=True)
    own[0] = 9
    assert result[0] == 9  # one memory


class Pin(bytearray):
    """Memory with a finalizer, as the store hands it out. A bytearray subclass takes weakrefs."""


def test_any_view_keeps_the_memory_alive() -> None:
    """Goal: the pin is let go exactly when the last view of the memory is gone."""
    memory = Pin(serialize({"a": np.arange(100), "b": 1}).to_bytes())
    freed: list[bool] = []
    weakref.finalize(memory, freed.append, True)
    value = deserialize(memoryview(memory))
    del memory
    part = value["a"][3:5]
    del value
    gc.collect()
    assert not freed
    assert part.tolist() == [3, 4]
    del part
    gc.collect()
    assert freed


def test_a_value_without_views_lets_go_at_once() -> None:
    """Goal: small values do not pin the store. Method: as above for plain objects and bytes."""
    for value in ([1, "two"], b"x" * 1000, bytearray(b"y")):
        memory = Pin(serialize(value).to_bytes())
        freed: list[bool] = []
        weakref.finalize(memory, freed.append, True)
        result = deserialize(memoryview(memory))
        del memory
        gc.collect()
        assert freed
        assert result == value


def test_large_bytes_are_not_copied_before_the_blob() -> None:
    """Goal: the only copy of top-level bytes, bytearrays and views is into the blob."""
    raw = b"r" * 1_000_000
    assert serialize(raw).pickled is raw
    for value in (bytearray(raw), memoryview(raw)):
        serialized = serialize(value)
        assert len(serialized.pickled) < 200
        assert address(serialized.buffers[0]) == address(value)


def test_write_into_refuses_what_does_not_fit() -> None:
    """Goal: a clear error and nothing written."""
    serialized = serialize(np.arange(3))
    small = bytearray(serialized.size - 1)
    with pytest.raises(ValueError, match="needs that much"):
        serialized.write_into(memoryview(small))
    assert not any(small)
    with pytest.raises(ValueError, match="needs that much"):
        serialized.write_into(memoryview(bytes(serialized.size)))


# -- references -----------------------------------------------------------------------------------


def test_references_are_numbered_and_replaced() -> None:
    """Goal: refs leave the stream in order; one handle twice counts once; the reader's are used."""
    first, second = Ref("a"), Ref("b")
    serialized = serialize([first, {"k": second}, first])
    assert serialized.refs == [first, second]
    here = [object(), object()]
    assert deserialize(serialized.to_bytes(), here) == [here[0], {"k": here[1]}, here[0]]


def test_references_with_fallback_are_not_counted_twice() -> None:
    """Goal: the failed first attempt of the C pickler leaves no reference or buffer behind."""
    first = Ref("a")
    array = np.arange(3)
    serialized = serialize([first, array, lambda: 1, "__main__"])
    assert serialized.refs == [first]
    assert len(serialized.buffers) == 1
    assert deserialize(serialized.to_bytes(), ["x"])[0] == "x"


def test_references_in_functions() -> None:
    """Goal: a closure over a reference travels with it."""
    ref = Ref("a")
    pickled, refs = serial.pickle_function(lambda: ref)
    assert refs == [ref]
    assert serial.load_function(pickled, ["here"])() == "here"


def test_a_reference_outside_is_refused() -> None:
    """Goal: a pickle that nobody counts cannot be made or read."""
    with pytest.raises(SerializationError, match="can only travel inside"):
        pickle.dumps(Ref("a"))
    serialize(Ref("a"))
    with pytest.raises(SerializationError, match="can only travel inside"):
        pickle.dumps(Ref("a"))
    with pytest.raises(SerializationError, match="was unpickled outside"):
        serial.restore_ref(0)


def test_a_missing_reference_is_refused() -> None:
    """Goal: a stream that names more references than came with it is never believed."""
    blob = serialize([Ref("a"), Ref("b")]).to_bytes()
    with pytest.raises(ProtocolError, match="names reference 1, but came with 1"):
        deserialize(blob, ["only one"])


class PutsInside:
    """A value whose own pickling puts and gets other values."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getstate__(self) -> Any:
        nested = serialize(Ref("nested"))
        assert len(nested.refs) == 1
        return {"inner": self.inner}

    def __setstate__(self, state: Any) -> None:
        blob = serialize([Ref("other")]).to_bytes()
        assert deserialize(blob, ["other here"]) == ["other here"]
        self.__dict__.update(state)


def test_serialisations_nest() -> None:
    """Goal: put and get inside __getstate__ and __setstate__ do not disturb the outer one."""
    serialized = serialize([PutsInside(Ref("in")), Ref("out")])
    assert [ref.name for ref in serialized.refs] == ["in", "out"]
    value = deserialize(serialized.to_bytes(), ["in here", "out here"])
    assert (value[0].inner, value[1]) == ("in here", "out here")


def test_threads_do_not_mix() -> None:
    """Goal: refs of one thread never reach another. Method: two threads meet inside pickling."""
    meet = threading.Barrier(2, timeout=10)

    class Meets(Ref):
        def __reduce__(self) -> Any:
            meet.wait()
            return super().__reduce__()

    found: dict[str, list[Any]] = {}

    def work(name: str) -> None:
        found[name] = [ref.name for ref in serialize([Meets(name), Meets(name)]).refs]

    threads = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert found == {"a": ["a", "a"], "b": ["b", "b"]}


# -- refusals -------------------------------------------------------------------------------------

BLOBS = [serialize(v).to_bytes() for v in ([1, "two"], b"raw bytes", [np.arange(9), np.arange(2)])]
BLOBS.append(plain_blob((1, "two")))


@pytest.mark.parametrize("blob", BLOBS, ids=["pickled", "raw", "buffers", "bare"])
def test_a_cut_or_lengthened_blob_is_refused(blob: bytes) -> None:
    """Goal: never garbage. Method: every shorter length, and one byte more."""
    for part in [*(blob[:length] for length in range(len(blob))), blob + b"."]:
        with pytest.raises(ProtocolError):
            deserialize(memoryview(part))


@given(st.binary())
def test_foreign_bytes_are_refused(data: bytes) -> None:
    """Goal: bytes of someone else are a ProtocolError."""
    with pytest.raises(ProtocolError):
        deserialize(data)


@given(
    st.sampled_from(BLOBS), st.sampled_from([0, 1, 2, 4, 5, 6, 7, 11, 12, 15]), st.integers(1, 255)
)
def test_a_damaged_header_is_refused(blob: bytes, place: int, change: int) -> None:
    """Goal: a header that is not ours, or does not add up. Method: flip bits of one of its bytes.

    Left out are the kind and the low bytes of the stream's length, which may grow into padding.
    """
    damaged = bytearray(blob)
    damaged[place] ^= change
    with pytest.raises(ProtocolError):
        deserialize(bytes(damaged))


def test_a_pickle_that_fails_to_load_is_named() -> None:
    """Goal: an error of the user's __setstate__ is told with its cause."""

    class Bad:
        def __reduce__(self) -> Any:
            return int, ("not a number",)

    with pytest.raises(SerializationError, match="could not be rebuilt in this process: Value"):
        deserialize(serialize(Bad()).to_bytes())
