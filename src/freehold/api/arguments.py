"""What a call is made of, on its way: the function or class, pickled once a session, and the
arguments: what is inline, what is a reference, what becomes an object of its own.

References at the top level become numbered slots (they arrive as values), those deeper down are
found while pickling (they arrive as references). A call with more than 100 KiB of arguments has
its large ones put into the store first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from freehold.api.refs import ObjectRef
from freehold.core.submission import Function
from freehold.errors import SerializationError
from freehold.ids import function_id
from freehold.runtime.context import INLINE_BYTES
from freehold.runtime.slots import Slot
from freehold.wire import serial
from freehold.wire.messages import Reference

if TYPE_CHECKING:
    from freehold.runtime.process import Process


class Packed(NamedTuple):
    """Arguments ready to go. ``deps``: the references behind the slots; ``borrowed``: those
    inside the blob; ``held``: handles that keep what we put alive until the task is submitted.
    """

    blob: bytes
    deps: Sequence[Reference] = ()
    borrowed: Sequence[Reference] = ()
    held: Sequence[ObjectRef[Any]] = ()


NOTHING: Final = Packed(serial.NO_ARGUMENTS)


def pack(process: Process, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Serialise a call's arguments. Raises SerializationError, naming the part that cannot
    travel.
    """
    if not kwargs and serial.PLAIN.issuperset(map(type, args)):
        blob = serial.plain_blob((args, kwargs))
        if len(blob) <= INLINE_BYTES:
            return Packed(blob)
    slots: list[ObjectRef[Any]] = []
    if kwargs or any(isinstance(arg, ObjectRef) for arg in args):

        def slotted(arg: Any) -> Any:
            return _slot(arg, slots) if isinstance(arg, ObjectRef) else arg

        args, kwargs = _mapped(slotted, args, kwargs)
    try:
        packed = serial.serialize((args, kwargs), "the arguments")
    except SerializationError:
        for index, arg in enumerate(args):  # each alone, for the error to name it
            serial.serialize(arg, f"args[{index}]")
        for name, arg in kwargs.items():
            serial.serialize(arg, f"argument {name!r}")
        raise
    if packed.size > INLINE_BYTES:

        def stored(arg: Any) -> Any:
            if isinstance(arg, Slot) or serial.serialize(arg).size <= INLINE_BYTES:
                return arg
            return _slot(cast("ObjectRef[Any]", process.put(arg)), slots)

        args, kwargs = _mapped(stored, args, kwargs)
        packed = serial.serialize((args, kwargs), "the arguments")
    return Packed(
        packed.to_bytes(),
        [ref._ref for ref in slots],
        [ref._ref for ref in packed.refs],
        slots,
    )


def _slot(ref: ObjectRef[Any], slots: list[ObjectRef[Any]]) -> Slot:
    ref._check()
    slots.append(ref)
    return Slot(len(slots) - 1)


def _mapped(
    change: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(map(change, args)), {name: change(arg) for name, arg in kwargs.items()}


def pickled(
    code: Any, name: str, known_by: bytes, max_calls: int = 0
) -> tuple[Function, list[ObjectRef[Any]]]:
    """A function or class as it travels, and the references that it has captured. ``known_by``:
    its fingerprint.
    """
    blob, captured = serial.pickle_function(code, name)
    refs = [ref._ref for ref in captured]
    return Function(function_id(blob), name, blob, refs, known_by, max_calls), captured
