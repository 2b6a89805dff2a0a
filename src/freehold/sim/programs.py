"""User code as data: programs that can be printed, shrunk and run by two interpreters.

The same interpreter (``run_body``) runs in the simulated cluster (``user``) and in the oracle: it
is a generator that yields requests and is sent their results. The *content* of a value is a digest
of where in the program it was made and of the contents of everything that went into it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from freehold.sim.bodies import Handle, Made, Read, Running, digest, let, values
from freehold.sim.errors import Failure
from freehold.sim.ops import (
    Call,
    Cancel,
    Drop,
    Exit,
    Forget,
    Get,
    Invoke,
    Keep,
    Kill,
    Make,
    Peek,
    Program,
    Put,
    Quit,
    Raise,
    Sleep,
    Wait,
)
from freehold.sim.steps import CLOSED, further


def run_body(  # long: one branch per operation, read top to bottom like the language it is
    program: Program,
    number: int,
    path: str,
    sizes: Sequence[int],
    args: Sequence[Read],
    nested: Sequence[Handle],
    execution: int,
) -> Generator[tuple[Any, ...], Any, list[Made]]:
    """Run one body. Yields requests (a name and its operands); see ``user`` and ``oracle``.

    Args: path: where this call stands in the program; sizes: of the results; execution: how often
    this call has been begun, from 1. Raises Failure as user code would."""
    body = program.functions[number]
    main = number == 0
    seen = digest(path.encode(), *[arg.content for arg in args])
    env: dict[str, Handle] = {f"n{index}": handle for index, handle in enumerate(nested)}
    running = Running(main, path, seen, env)
    lost = running.lost
    for index, arg in enumerate(args):
        env.update({f"a{index}.{place}": inner for place, inner in enumerate(arg.inner)})
    for op in body.ops:
        here = f"{path}/{op.at}"
        if lost.touches(op):
            continue
        if isinstance(op, Put):
            contains = [env[name] for name in op.contains if name in env]
            value = Made(op.size, digest(here.encode()), contains)
            try:
                fresh = yield ("put", here, value)
            except Failure:
                if not main:
                    raise
                lost.names.append(op.var)
                continue
            yield from let(env, op.var, fresh)
        elif isinstance(op, Call | Make | Invoke):
            handles = yield from call(op, here, running)
            for index, handle in enumerate(handles):
                yield from let(env, f"{op.var}{'' if not index else f'_{index}'}", handle)
        elif isinstance(op, Kill):
            if op.var in env and env[op.var].actor:
                yield ("kill", here, env[op.var], op.restart)
        elif isinstance(op, Quit):
            if execution <= op.first:
                yield ("quit",)
        elif isinstance(op, Get):
            names = values(op.vars, env)
            if not names:
                continue
            try:
                reads = yield ("get", here, [env[name] for name in names], op.timeout, op.hold)
            except Failure as failure:
                if failure.kind == "interrupted" or (op.timeout is None and not main):
                    raise  # (a get with a timeout passes errors over: chance decides if it is late)
                if op.timeout is None:
                    lost.names += [f"{name}." for name in names]
                continue
            if op.timeout is None:
                running.seen = digest(running.seen, *[read.content for read in reads])
            for name, read in zip(names, reads):
                for place, handle in enumerate(read.inner):
                    if op.timeout is None:
                        yield from let(env, f"{name}.{place}", handle)
                    else:  # whether it was in time is chance, and names must not be
                        yield ("drop", handle)
        elif isinstance(op, Wait):
            names = values(op.vars, env)
            if names:
                handles = [env[name] for name in names]
                yield ("wait", here, handles, min(op.needed, len(names)), op.timeout, op.fetch)
        elif isinstance(op, Drop):
            if op.var in env:
                yield ("drop", env.pop(op.var))
        elif isinstance(op, Cancel):
            if values((op.var,), env):
                yield ("cancel", here, env[op.var], op)
        elif isinstance(op, Keep):
            if op.var in env:
                yield ("keep", env[op.var], op.slot)
        elif isinstance(op, Peek):
            yield from peek(op, here)
        elif isinstance(op, Forget):
            yield ("forget", op.slot)
        elif isinstance(op, Sleep):
            yield ("sleep", op.seconds)
        elif isinstance(op, Raise):
            if execution <= op.first:
                raise Failure("user", path)
        elif isinstance(op, Exit):
            if execution <= op.first:
                yield ("exit",)
        elif not (yield from further(op, here, running)):
            return [CLOSED for _ in sizes]
    kept = [env[name] for name in body.returns if name in env]
    return [
        Made(size, digest(running.seen, bytes([index])), [] if index else kept)
        for index, size in enumerate(sizes)
    ]


def call(
    op: Call | Make | Invoke, here: str, running: Running
) -> Generator[tuple[Any, ...], Any, list[Handle]]:
    """Call a function, make an actor, or call one. Returns what the names are bound to."""
    env = running.env
    deps = [env[name] for name in values(op.deps, env)]
    nested = [env[name] for name in op.nested if name in env]
    if isinstance(op, Invoke):
        actor = env.get(op.actor)
        if actor is None or not actor.actor:
            return []
        handles = yield ("invoke", here, op, actor, deps, nested)
    else:
        kind = "call" if isinstance(op, Call) else "make"
        group = running.held.get(op.within) if isinstance(op, Call) else None
        handles = yield (kind, here, op, deps, nested, group)
    return list(handles)


def peek(op: Peek, here: str) -> Generator[tuple[Any, ...], Any, None]:
    """Read what is kept, if there is anything, and let it go again."""
    handle = yield ("kept", op.slot)
    if handle is None or handle.actor:
        return
    try:
        (read,) = yield ("get", here, [handle], op.timeout, False)
    except Failure as failure:
        if failure.kind == "interrupted":
            raise
        return  # (late, or an error: which of them is chance)
    for inner in read.inner:
        yield ("drop", inner)
