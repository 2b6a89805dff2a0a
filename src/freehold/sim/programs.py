"""User code as data: programs that can be printed, shrunk and run by two interpreters.

A program is a list of functions; function 0 is the main program of a driver, the others are tasks
and may only call functions with higher numbers. A body is a list of operations on named
references. Names that do not exist are passed over, so that any operation can be deleted and the
rest is still a program. A main program goes on after an error; operations that would have used what
it did not get are then left out (``Lost``), so that those that run mean what they always mean.

The same interpreter (``run_body``) runs in the simulated cluster (``user``) and in the oracle: it
is a generator that yields requests and is sent their results. The *content* of a value is a digest
of where in the program it was made and of the contents of everything that went into it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeAlias

from freehold.sim.errors import Failure

Handle: TypeAlias = Any  # a reference as user code holds it; the backend knows what it is


@dataclass(frozen=True)
class Put:
    """``var = put(value of size bytes that contains refs)``."""

    at: int
    var: str
    size: int
    contains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """``vars = function.remote(*deps, [nested])``; ``sizes`` and ``keeps`` say what it returns."""

    at: int
    var: str
    function: int
    deps: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (0,)
    cpus: float = 1.0
    retries: int = 3
    retry_exceptions: bool = False


@dataclass(frozen=True)
class Get:
    """``get(vars)``; references inside the value of v become v.0, v.1, ...; ``hold``: views of the
    values live until the body ends, else no longer than the operation."""

    at: int
    vars: tuple[str, ...]
    timeout: float | None = None
    hold: bool = False


@dataclass(frozen=True)
class Wait:
    """``wait(vars, num_returns=needed, timeout)``."""

    at: int
    vars: tuple[str, ...]
    needed: int
    timeout: float | None
    fetch: bool


@dataclass(frozen=True)
class Drop:
    """``del var``."""

    at: int
    var: str


@dataclass(frozen=True)
class Cancel:
    """``cancel(var)``."""

    at: int
    var: str
    force: bool
    recursive: bool


@dataclass(frozen=True)
class Sleep:
    """Compute for so long."""

    at: int
    seconds: float


@dataclass(frozen=True)
class Raise:
    """Raise, in the first ``first`` executions of this call."""

    at: int
    first: int


@dataclass(frozen=True)
class Exit:
    """End the process, in the first ``first`` executions of this call."""

    at: int
    first: int


@dataclass(frozen=True)
class Make:
    """``var = Actor.remote(*deps, [nested])``: ``function`` is the constructor's body; ``limit``
    calls run at once; ``node``: on which of the case's nodes, if that lives, -1 for any."""

    at: int
    var: str
    function: int
    deps: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    restarts: int = 0
    limit: int = 1
    cpus: float = 0.0
    node: int = -1


@dataclass(frozen=True)
class Invoke:
    """``vars = actor.method.remote(*deps, [nested])``: ``function`` is the method's body. What it
    returns depends on its arguments alone, as of any call; its place in the order of calls is
    looked at by the checkers."""

    at: int
    var: str
    actor: str
    function: int
    deps: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (0,)
    retries: int = 0
    retry_exceptions: bool = False


@dataclass(frozen=True)
class Kill:
    """``kill(var, no_restart=not restart)``."""

    at: int
    var: str
    restart: bool


@dataclass(frozen=True)
class Quit:
    """``exit_actor()``, in the first ``first`` executions of this call; nothing in a task."""

    at: int
    first: int


@dataclass(frozen=True)
class Keep:
    """``globals()[slot] = var``: the reference outlives the task, in whichever worker ran it."""

    at: int
    var: str
    slot: int


@dataclass(frozen=True)
class Peek:
    """``get(globals()[slot], timeout)``, if an earlier task left anything there. Which worker this
    is is chance: what is read is checked, but enters no content and binds no name."""

    at: int
    slot: int
    timeout: float


@dataclass(frozen=True)
class Forget:
    """``del globals()[slot]``."""

    at: int
    slot: int


Op: TypeAlias = (
    Put
    | Call
    | Get
    | Wait
    | Drop
    | Cancel
    | Sleep
    | Raise
    | Exit
    | Make
    | Invoke
    | Kill
    | Quit
    | Keep
    | Peek
    | Forget
)


@dataclass(frozen=True)
class Function:
    """A body, and which references it returns inside its first result."""

    ops: tuple[Op, ...]
    returns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Program:
    """Functions; 0 is main."""

    functions: tuple[Function, ...]

    def uses(self, kind: type[Op]) -> bool:
        """Whether any body has such an operation."""
        return any(isinstance(op, kind) for body in self.functions for op in body.ops)


@dataclass
class Read:
    """A value as user code has it: its content and handles to the references inside."""

    content: bytes
    inner: list[Handle] = field(default_factory=list)


@dataclass
class Made:
    """One result of a body."""

    size: int
    content: bytes
    contains: list[Handle] = field(default_factory=list)


def digest(*parts: bytes) -> bytes:
    """16 bytes that depend on all parts and their order."""
    whole = blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(4, "big"))
        whole.update(part)
    return whole.digest()


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
    lost = Lost()
    env: dict[str, Handle] = {f"n{index}": handle for index, handle in enumerate(nested)}
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
            handles = yield from call(op, here, env)
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
                seen = digest(seen, *[read.content for read in reads])
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
                yield ("cancel", here, env[op.var], op.force, op.recursive)
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
        elif execution <= op.first:
            yield ("exit",)
    kept = [env[name] for name in body.returns if name in env]
    return [
        Made(size, digest(seen, bytes([index])), [] if index else kept)
        for index, size in enumerate(sizes)
    ]


def values(names: Sequence[str], env: dict[str, Handle]) -> list[str]:
    """Those of the names that stand for values: an actor cannot be read."""
    return [name for name in names if name in env and not env[name].actor]


def call(
    op: Call | Make | Invoke, here: str, env: dict[str, Handle]
) -> Generator[tuple[Any, ...], Any, list[Handle]]:
    """Call a function, make an actor, or call one. Returns what the names are bound to."""
    deps = [env[name] for name in values(op.deps, env)]
    nested = [env[name] for name in op.nested if name in env]
    if isinstance(op, Invoke):
        actor = env.get(op.actor)
        if actor is None or not actor.actor:
            return []
        handles = yield ("invoke", here, op, actor, deps, nested)
    else:
        kind = "call" if isinstance(op, Call) else "make"
        handles = yield (kind, here, op, deps, nested)
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


class Lost:
    """Names that a main program would have, had no operation failed; "v." is all inside v."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def touches(self, op: Op) -> bool:
        """Whether the operation would use such a name; then what it makes is lost too."""
        if not self.names or not any(self.covers(name) for name in used(op)):
            return False
        self.names += made(op)
        return True

    def covers(self, name: str) -> bool:
        """Whether this name is lost."""
        return any(
            name == lost or name.startswith(lost if lost[-1] == "." else f"{lost}.")
            for lost in self.names
        )


def used(op: Op) -> tuple[str, ...]:
    """The names that an operation uses."""
    match op:
        case Put():
            return op.contains
        case Call() | Make():
            return op.deps + op.nested
        case Invoke():
            return (op.actor, *op.deps, *op.nested)
        case Get() | Wait():
            return op.vars
        case Drop() | Cancel() | Keep() | Kill():
            return (op.var,)
        case _:
            return ()


def made(op: Op) -> list[str]:
    """The names that an operation binds; "v." stands for all inside v."""
    match op:
        case Put() | Make():
            return [op.var]
        case Call() | Invoke():
            return [op.var, *[f"{op.var}_{index}" for index in range(1, len(op.sizes))]]
        case Get():
            return [f"{name}." for name in op.vars]
        case _:
            return []


def let(env: dict[str, Handle], var: str, handle: Handle) -> Generator[tuple[Any, ...], Any, None]:
    """Bind a name; what it was bound to before is dropped."""
    if var in env:
        yield ("drop", env[var])
    env[var] = handle


def show(program: Program) -> str:
    """The program as people read it."""
    lines = []
    for number, body in enumerate(program.functions):
        if not body.ops and not body.returns and number:
            continue
        lines.append("main:" if not number else f"f{number}:")
        lines += [f"    {show_op(op)}" for op in body.ops]
        if body.returns:
            lines.append(f"    return [{', '.join(body.returns)}]")
    return "\n".join(lines)


def show_op(op: Op) -> str:  # long: one line per operation
    """One operation as people read it."""
    match op:
        case Put():
            inside = f", containing {', '.join(op.contains)}" if op.contains else ""
            return f"{op.var} = put({op.size} bytes{inside})"
        case Call():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            sizes = ", ".join(f"{size}" for size in op.sizes)
            retry = ", retry_exceptions" if op.retry_exceptions else ""
            return (
                f"{op.var} = f{op.function}({', '.join(args)}) -> ({sizes}) bytes, "
                f"{op.cpus:g} cpus, {op.retries} retries{retry}"
            )
        case Get():
            timeout = "" if op.timeout is None else f", timeout={op.timeout:g}"
            return f"get({', '.join(op.vars)}{timeout}){' and hold' if op.hold else ''}"
        case Wait():
            fetch = ", fetch" if op.fetch else ""
            return f"wait({', '.join(op.vars)}, {op.needed}, timeout={op.timeout}{fetch})"
        case Drop():
            return f"del {op.var}"
        case Cancel():
            how = f"{', force' if op.force else ''}{', recursive' if op.recursive else ''}"
            return f"cancel({op.var}{how})"
        case Make():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            return (
                f"{op.var} = actor f{op.function}({', '.join(args)}), {op.restarts} restarts, "
                f"{op.limit} at once, {op.cpus:g} cpus{'' if op.node < 0 else f', on n{op.node}'}"
            )
        case Invoke():
            args = [*op.deps, *([f"[{', '.join(op.nested)}]"] if op.nested else [])]
            sizes = ", ".join(f"{size}" for size in op.sizes)
            retry = ", retry_exceptions" if op.retry_exceptions else ""
            return (
                f"{op.var} = {op.actor}.f{op.function}({', '.join(args)}) -> ({sizes}) bytes, "
                f"{op.retries} retries{retry}"
            )
        case Kill():
            return f"kill({op.var}{', restart' if op.restart else ''})"
        case Quit():
            return f"exit_actor() in the first {op.first} executions"
        case Keep():
            return f"globals()[{op.slot}] = {op.var}"
        case Peek():
            return f"get(globals()[{op.slot}], timeout={op.timeout:g})"
        case Forget():
            return f"del globals()[{op.slot}]"
        case Sleep():
            return f"sleep({op.seconds:g})"
        case Raise():
            return f"raise in the first {op.first} executions"
        case Exit():
            return f"exit in the first {op.first} executions"
