"""Detached actors: ``options(name=..., lifetime="detached")``.

The program does not make the actor: it hands the head all that it takes to make it
(``core.detached``), and gets a handle as anybody who knows the name does. Everything goes by value,
because what this process owns ends with it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from freehold.api import named
from freehold.api.actor_options import ActorOptions
from freehold.api.environments import key_of
from freehold.api.refs import ObjectRef
from freehold.api.strategies import placement_of
from freehold.core.submission import Function
from freehold.errors import ActorAlreadyExistsError
from freehold.wire import serial
from freehold.wire.detached import Blueprint, MakeDetached
from freehold.wire.messages import Creation

if TYPE_CHECKING:
    from freehold.api.actors import ActorHandle
    from freehold.runtime.process import Process

#: Bytes of class and arguments together: the head keeps them, in memory and in its journal, for
#: as long as the actor lives. What is larger belongs in a file, or in a call after the creation.
LARGEST: Final = 16 << 20


def blueprint(
    process: Process,
    options: ActorOptions,
    function: Function,
    creation: Creation,
    kind: bytes,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Blueprint:
    """All that it takes to make the actor. Waits for the values of references among the arguments,
    and copies them.

    Raises ValueError for an actor without a name, for references inside of arguments or in the
    class, and for more than ``LARGEST`` bytes; SerializationError; what a ``get`` of the references
    raises.
    """
    if not options.name:
        raise ValueError(
            f'an actor with lifetime="detached" needs a name, by which others find it: '
            f'{function.name}.options(name=..., lifetime="detached")'
        )
    name = f"detached actor {options.name!r}"
    packed = _by_value(process, args, kwargs)
    if packed.refs or function.captured:
        where = "an argument" if packed.refs else "the class"
        raise ValueError(
            f"{where} of {name} holds a reference or a handle, whose value would end with this "
            "program: pass the value itself, or have the constructor find the actor by get_actor()"
        )
    size = packed.size + len(function.pickled)
    if size > LARGEST:
        raise ValueError(
            f"the class and arguments of {name} take {size:,} bytes, and the head keeps no more "
            f"than {LARGEST:,} for as long as it lives: pass a path, or the data in a first call"
        )
    environment = key_of(process, options.runtime_env)
    return Blueprint(
        os.urandom(16),
        options.namespace,
        options.name,
        kind,
        function.name,
        function.pickled,
        packed.to_bytes(),
        options.vector(),
        creation,
        options.max_restarts,
        placement_of(options),
        process.role.environments[environment] if environment else None,
        [entry or str(Path.cwd()) for entry in sys.path],
        str(Path.cwd()),
    )


def create(process: Process, wanted: Blueprint, *, get_if_exists: bool) -> ActorHandle[Any]:
    """Have the actor made, unless its name is taken; return its handle, or that of the one that
    has the name, if that will do.

    Raises ActorAlreadyExistsError; ClusterUnreachableError if the head does not answer, or no
    process comes up that makes the actor, within ten seconds.
    """
    job = process.role.job
    deadline = time.monotonic() + named.HEAD_PATIENCE
    while True:
        (holder,) = named.asked(process, lambda number: MakeDetached(number, job, wanted)).actors
        ours = holder.detached == wanted.key
        handle = named.borrowed(process, holder, ended=ours)
        if handle is None:
            named.stale(process, holder, deadline)
        elif ours or get_if_exists:
            return handle
        else:
            raise ActorAlreadyExistsError(
                f"{handle!r} has the name {holder.name!r} in namespace {holder.namespace!r}"
            )


def _by_value(process: Process, args: tuple[Any, ...], kwargs: dict[str, Any]) -> serial.Serialized:
    """The arguments, with the values of references in their places."""
    refs = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, ObjectRef)]
    for ref in refs:
        ref._check()
    values = dict(zip(refs, process.get(refs, None)))

    def valued(arg: Any) -> Any:
        return values[arg] if isinstance(arg, ObjectRef) else arg

    args = tuple(map(valued, args))
    kwargs = {name: valued(arg) for name, arg in kwargs.items()}
    return serial.serialize((args, kwargs), "the arguments")
