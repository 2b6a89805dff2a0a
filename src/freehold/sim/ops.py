"""The operations of programs: what user code may do, as data.

A program is a list of functions; function 0 is the main program of a driver, the others are tasks
and may only call functions with higher numbers. A body is a list of operations on named
references. Names that do not exist are passed over, so that any operation can be deleted and the
rest is still a program. ``programs`` runs bodies, ``showing`` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Put:
    """``var = put(value of size bytes that contains refs)``."""

    at: int
    var: str
    size: int
    contains: tuple[str, ...] = ()


@dataclass(frozen=True)
class Call:
    """``vars = function.remote(*deps, [nested])``; ``sizes`` and ``keeps`` say what it returns;
    ``within``: a placement group, in its ``bundle``, -1 for any."""

    at: int
    var: str
    function: int
    deps: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (0,)
    cpus: float = 1.0
    retries: int = 3
    retry_exceptions: bool = False
    within: str = ""
    bundle: int = -1


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
    """``cancel(var, force, recursive, grace)``; ``anyone``: also what others own."""

    at: int
    var: str
    force: bool
    recursive: bool
    grace: float = 1.0
    anyone: bool = False


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


@dataclass(frozen=True)
class Stream:
    """``var = generator.remote(*deps, [nested])``, or a method's of ``actor``: a stream of what the
    body yields. ``window``: how many values may lie untaken, 0: as many as usual."""

    at: int
    var: str
    function: int
    deps: tuple[str, ...] = ()
    nested: tuple[str, ...] = ()
    cpus: float = 1.0
    retries: int = 3
    retry_exceptions: bool = False
    window: int = 0
    actor: str = ""

    @property
    def sizes(self) -> tuple[int, ...]:
        """What it returns besides: how many there were."""
        return (10,)


@dataclass(frozen=True)
class Take:
    """``var, var_1, ... = next(stream), next(stream), ...``, up to ``count``; ``patience``: each
    first with this timeout. A value that is an error is raised at once."""

    at: int
    var: str
    stream: str
    count: int
    patience: float | None = None


@dataclass(frozen=True)
class Close:
    """``stream.close()``, and the generator is dropped."""

    at: int
    stream: str


@dataclass(frozen=True)
class Yield:
    """``yield`` a value of size bytes that contains refs, ``times`` times, if the body was called
    for a stream; nothing else."""

    at: int
    size: int
    contains: tuple[str, ...] = ()
    times: int = 1


@dataclass(frozen=True)
class Group:
    """``var = placement_group(CPUs of each bundle, strategy)``."""

    at: int
    var: str
    bundles: tuple[float, ...]
    strategy: str


@dataclass(frozen=True)
class Ready:
    """``group.wait(timeout)``."""

    at: int
    group: str
    timeout: float


@dataclass(frozen=True)
class Remove:
    """``remove_placement_group(group)``."""

    at: int
    group: str


@dataclass(frozen=True)
class Enroll:
    """Get the actor called ``name``, or make it with the constructor ``function`` if there is none
    (-1: leave it); call it once, look at the answer for ``timeout`` seconds, and let go of it, with
    ``hold`` at the end of the body only."""

    at: int
    name: str
    function: int
    method: int
    restarts: int
    timeout: float
    hold: bool


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
    | Stream
    | Take
    | Close
    | Yield
    | Group
    | Ready
    | Remove
    | Enroll
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


def used(op: Op) -> tuple[str, ...]:
    """The names that an operation uses."""
    match op:
        case Put():
            return op.contains
        case Call():
            return (*op.deps, *op.nested, op.within)
        case Make():
            return op.deps + op.nested
        case Stream():
            return (*op.deps, *op.nested, op.actor)
        case Take() | Close():
            return (op.stream,)
        case Yield():
            return op.contains
        case Ready() | Remove():
            return (op.group,)
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
        case Put() | Make() | Stream() | Group():
            return [op.var]
        case Take():
            return [op.var, *[f"{op.var}_{index}" for index in range(1, op.count)]]
        case Call() | Invoke():
            return [op.var, *[f"{op.var}_{index}" for index in range(1, len(op.sizes))]]
        case Get():
            return [f"{name}." for name in op.vars]
        case _:
            return []
