"""Operations on what is no reference: streams and placement groups. A part of ``run_body``.

Both have names of their own (``Running.held``) that no other operation can use. A stream that ends
in an error hands it out as its last value: a program finds it at once, so that what it takes, and
what it does with that, does not depend on chance."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, TypeAlias

from freehold.sim.bodies import Made, Running, digest, let
from freehold.sim.errors import Failure
from freehold.sim.ops import Close, Enroll, Group, Invoke, Ready, Remove, Stream, Take, Yield, made

Further: TypeAlias = Stream | Take | Close | Yield | Group | Ready | Remove | Enroll
Requests: TypeAlias = Generator[tuple[Any, ...], Any, bool]

#: What the count of a stream is whose consumer has closed it: nobody reads it.
CLOSED: Final = Made(10, b"closed")


def further(op: Further, here: str, running: Running) -> Requests:
    """Perform one of them. Returns whether the body goes on after it."""
    match op:
        case Stream():
            yield from start(op, here, running)
        case Take():
            yield from take(op, here, running)
        case Close():
            if op.stream in running.held:
                yield ("close", running.held.pop(op.stream))
        case Yield():
            return (yield from give(op, here, running))
        case Group():
            try:
                running.held[op.var] = yield ("group", here, op)
            except Failure:
                if not running.main:
                    raise
                running.lost.names.append(op.var)
        case Ready():
            if op.group in running.held:
                yield ("ready", here, running.held[op.group], op.timeout)
        case Remove():
            if op.group in running.held:
                yield ("remove", running.held.pop(op.group))
        case Enroll():
            yield from enroll(op, here)
    return True


def enroll(op: Enroll, here: str) -> Requests:
    """Make or find an actor by its name, and call it."""
    actor = yield ("enroll", here, op)
    if actor is None:
        return True
    call = Invoke(0, "", "", op.method, sizes=(10,))
    (value,) = yield ("invoke", f"{here}/0", call, actor, [], [])
    try:
        (read,) = yield ("get", f"{here}/0", [value], op.timeout, False)
    except Failure as failure:
        if failure.kind == "interrupted":
            raise
    else:
        for inner in read.inner:
            yield ("drop", inner)
    yield ("drop", value)
    if not op.hold:
        yield ("drop", actor)
    return True


def start(op: Stream, here: str, running: Running) -> Requests:
    """Call a generator function, or such a method of an actor."""
    env = running.env
    deps = [env[name] for name in op.deps if name in env and not env[name].actor]
    nested = [env[name] for name in op.nested if name in env]
    actor = env.get(op.actor)
    if op.actor and (actor is None or not actor.actor):
        return True
    running.held[op.var] = yield ("stream", here, op, actor, deps, nested)
    return True


def take(op: Take, here: str, running: Running) -> Requests:
    """Take the next values. What a main program does not get, for an error, it has lost."""
    stream = running.held.get(op.stream)
    names = made(op) if stream is not None else []
    for index, name in enumerate(names):
        try:
            handle = yield ("take", here, stream, op.patience)
        except Failure as failure:
            if failure.kind == "interrupted" or not running.main:
                raise
            running.lost.names += [op.stream, *names[index:]]
            return True
        if handle is None:
            return True
        yield from let(running.env, name, handle)
    return True


def give(op: Yield, here: str, running: Running) -> Requests:
    """Yield, as long as anybody wants it."""
    env = running.env
    contains = [env[name] for name in op.contains if name in env]
    for _ in range(op.times):
        number = running.given + 1
        content = digest(running.seen, here.encode(), number.to_bytes(4, "big"))
        wanted = yield ("yield", here, Made(op.size, content, contains))
        if wanted is None:  # not called for a stream
            return True
        if not wanted:
            return False
        running.given = number
    running.seen = digest(running.seen, running.given.to_bytes(4, "big"))
    return True
