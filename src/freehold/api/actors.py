"""Actors: ``@freehold.remote`` on a class, handles, and calls of their methods.

``Counter.remote(...)`` creates an actor and returns a handle; ``handle.add.remote(1)`` calls it. A
handle is a reference to the actor's object (``core.actors``) with what a caller has to know of its
class: the methods and their parameters, and whether calls keep their order. It can be passed,
stored in values, returned and compared; the actor ends when no handle is left anywhere and its
calls are done.

``handle.method.remote`` is the hot path: what can be done once is done when the handle is made.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, ParamSpec, TypeVar, overload

import msgspec

from freehold import errors
from freehold.api import detached, named, session
from freehold.api.actor_options import (
    ActorOptions,
    MethodOptions,
    actor_options,
    method_options,
    methods_of,
)
from freehold.api.arguments import NOTHING, pack, pickled
from freehold.api.environments import key_of, travelling
from freehold.api.generators import promised, yields
from freehold.api.methods import MARK, Actor
from freehold.api.options import STREAMING
from freehold.api.refs import ObjectRef
from freehold.api.strategies import inherited, placement_of
from freehold.core.calls import ActorTask
from freehold.core.streams import Stream, StreamCall
from freehold.core.submission import Function
from freehold.ids import FunctionId, function_id
from freehold.runtime.context import CONTEXT
from freehold.wire.fingerprint import fingerprint
from freehold.wire.messages import Call, Creation, Reference
from freehold.wire.names import NamedActor

if TYPE_CHECKING:
    from freehold.runtime.process import Process

T = TypeVar("T")
Typed = TypeVar("Typed", bound=Actor)
P = ParamSpec("P")
R = TypeVar("R")

NO_RESOURCES: Final[dict[str, int]] = {}


class MethodInfo(msgspec.Struct, array_like=True):
    """One method, as callers know it. ``parameters``: name, kind, and whether it has a default."""

    name: str
    parameters: list[tuple[str, int, bool]] | None
    num_returns: int = 1
    group: str = ""
    max_task_retries: int | None = None
    retried: bytes = b""
    backpressure: int = 0


class ActorInfo(msgspec.Struct, array_like=True):
    """A class, as callers of its actors know it."""

    name: str
    ordered: bool
    max_task_retries: int
    max_pending_calls: int
    methods: list[MethodInfo]


_encode = msgspec.msgpack.Encoder().encode


class Kind:
    """What the handles of one class share in this process: ``packed`` travels with each."""

    def __init__(self, packed: bytes) -> None:
        self.packed = packed
        self.info = info = msgspec.msgpack.decode(packed, type=ActorInfo)
        self.methods = {method.name: Method(info, method) for method in info.methods}


@functools.lru_cache(maxsize=1000)
def kind_of(packed: bytes) -> Kind:
    """The kind that was packed so: decoded once."""
    return Kind(packed)


class Method:
    """A method, made ready to be called."""

    __slots__ = (
        "arity",
        "backpressure",
        "call",
        "function",
        "name",
        "num_returns",
        "parameters",
        "retried",
        "retries",
        "title",
    )

    def __init__(self, info: ActorInfo, method: MethodInfo) -> None:
        self.name = method.name
        self.title = f"{info.name}.{method.name}"
        self.call = Call(method.name, method.group)
        self.num_returns = method.num_returns
        self.backpressure = method.backpressure
        retries = method.max_task_retries
        self.retries = info.max_task_retries if retries is None else retries
        self.retried = method.retried
        self.function = Function(
            FunctionId(b""), self.title, b"", (), function_id(self.title.encode())
        )
        self.parameters = method.parameters
        self.arity = arity(method.parameters)

    def changed(self, options: MethodOptions) -> Method:
        """The same method with other options."""
        other = Method.__new__(Method)
        other.name, other.arity, other.parameters = self.name, self.arity, self.parameters
        other.title = options.name or self.title
        other.call = Call(self.name, options.concurrency_group)
        other.num_returns = options.num_returns
        other.backpressure = options.backpressure
        retries = options.max_task_retries
        other.retries = self.retries if retries is None else retries
        other.retried = options.retried()
        other.function = self.function
        return other

    def check(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that calling the method itself would raise."""
        if self.parameters is None:
            return
        signature = inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    inspect._ParameterKind(kind),
                    default=None if default else inspect.Parameter.empty,
                )
                for name, kind, default in self.parameters
            ]
        )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.title}.remote(): {error}") from None


def arity(parameters: Sequence[tuple[str, int, bool]] | None) -> tuple[int, int]:
    """How many positional arguments a call may have; (0, -1) for "ask the signature"."""
    if parameters is None:
        return 0, 1 << 30
    least = most = 0
    for _, kind, default in parameters:
        if kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += not default
        elif kind == inspect.Parameter.VAR_POSITIONAL:
            most = 1 << 30
        elif kind == inspect.Parameter.KEYWORD_ONLY and not default:
            return 0, -1
    return least, most


class ActorMethod(Generic[P, R]):
    """A method of an actor, bound to a handle."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle[Any], method: Method) -> None:
        self._handle = handle
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; return a reference to its result at once (a list of them if
        ``num_returns`` is not 1).

        Arguments as for tasks. Raises TypeError for arguments that do not fit the method,
        SerializationError for those that cannot travel, PendingCallsLimitExceededError.
        """
        method, ref = self._method, self._handle._ref
        least, most = method.arity
        if kwargs or not least <= len(args) <= most:
            method.check(args, kwargs)
        process = ref._process
        if process.closed:
            ref._check()
        packed = pack(process, args, kwargs) if args or kwargs else NOTHING
        blob, deps, borrowed, _ = packed
        given: Sequence[bytes] = (ref._ref.object,)
        if deps or borrowed:
            given = [*given, *[inner.object for inner in (*deps, *borrowed)]]
        function = method.function
        context = process.context()
        streams = method.num_returns == STREAMING
        task = (StreamCall if streams else ActorTask)(  # (by position, as in ``remote``)
            context.names.next_task(function.fingerprint, blob, given),
            function,
            blob,
            NO_RESOURCES,
            1 if streams else method.num_returns,
            deps,
            borrowed,
            method.retries,
            method.retried,
            context.depth,
            context.task,
            method.title,
        )
        task.actor = method.call
        if isinstance(task, StreamCall):
            task.stream = Stream(task, method.backpressure)
        self._handle._submit(process, task, context.run)
        return promised(process, task)

    def options(self, **options: Any) -> ActorMethod[P, R]:
        """The same method with other options, for one call or to keep. Names and meanings as in
        ``method``, and ``name``: what to call the calls in messages.
        """
        method = self._method
        base = MethodOptions(
            method.num_returns,
            method.call.group,
            method.retries,
            backpressure=method.backpressure,
        )
        changed = method_options(base, options)
        other = method.changed(changed)
        if "retry_exceptions" not in options:
            other.retried = method.retried
        return ActorMethod(self._handle, other)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        title = self._method.title
        raise TypeError(f"{title} is a method of an actor: call it with {title}.remote(...)")

    def __repr__(self) -> str:
        return f"<method {self._method.title} of {self._handle!r}>"


class ActorHandle(Generic[T]):
    """A name of an actor whose class is ``T``. Its attributes are the actor's methods."""

    __slots__ = ("__weakref__", "_kind", "_ref")

    def __init__(self, ref: ObjectRef[Any], kind: Kind) -> None:
        self._ref = ref
        self._kind = kind

    def __getattr__(self, name: str) -> Any:
        if name in ActorHandle.__slots__:  # (of a handle that is not finished)
            raise AttributeError(name)
        method = self._kind.methods.get(name)
        if method is None:
            if name.startswith("__") and name.endswith("__"):
                raise AttributeError(name)
            known = ", ".join(self._kind.methods)
            raise AttributeError(
                f"actor class {self._kind.info.name} has no method {name!r}; it has: {known}"
            )
        return ActorMethod(self, method)

    def _submit(self, process: Process, task: ActorTask, run: Any) -> None:
        info = self._kind.info
        with process.lock:
            if process.dropped:
                process.settle()
            calls = process.role.acting.calls
            callee = calls.callee(self._ref._ref.object, ordered=info.ordered)
            if 0 <= info.max_pending_calls <= callee.pending:
                raise errors.PendingCallsLimitExceededError(
                    f"{info.max_pending_calls} calls of {self!r} from this process are not done, "
                    "which is its max_pending_calls"
                )
            if run is not None:
                task.origin = process.origin(run)
            calls.submit(task, callee)
            process.pump.send_soon()

    def __del__(self) -> None:
        try:
            process = self._ref._process
        except AttributeError:  # a handle that was not finished
            return
        del self._ref
        process.transport.wake()  # an actor's end should not wait for the next turn

    def __dir__(self) -> list[str]:
        return sorted(self._kind.methods)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._ref == other._ref

    def __hash__(self) -> int:
        return hash(self._ref)

    def __reduce__(self) -> Any:
        return _handle, (self._ref, self._kind.packed)

    def __copy__(self) -> ActorHandle[T]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ActorHandle[T]:
        return self

    def __repr__(self) -> str:
        return f"Actor({self._kind.info.name}, {self._ref.hex()[:8]})"


def _handle(ref: ObjectRef[Any], packed: bytes) -> ActorHandle[Any]:
    """A handle that arrives."""
    return ActorHandle(ref, kind_of(packed))


class ActorClass(Generic[T]):
    """A class whose instances are actors. Made by ``freehold.remote``."""

    def __init__(self, kind: type[T], options: ActorOptions) -> None:
        self._arrive(kind, options)
        self._read()

    def _arrive(self, kind: type[T], options: ActorOptions) -> None:
        """All that can be done while the class is still being unpickled (it may name itself)."""
        self._class = kind
        self._options = options
        self._packed = b""
        self._process: Process | None = None
        self._prepared: Function | None = None
        self._captured: list[ObjectRef[Any]] = []

    def _read(self) -> None:
        """Look at the class, and check the options against it."""
        kind, options = self._class, self._options
        self._creation = options.creation(kind)
        self._placement = placement_of(options)
        self._packed = _encode(info_of(kind, options, self._creation))
        try:
            self._signature: inspect.Signature | None = inspect.signature(kind)
        except (TypeError, ValueError):
            self._signature = None
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            self.__dict__[name] = getattr(kind, name, None)

    @overload
    def remote(self: ActorClass[Typed], *args: Any, **kwargs: Any) -> Typed: ...
    @overload
    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Create an actor; return a handle at once. If its constructor raises, its calls do.

        Arguments as for tasks. Raises TypeError for arguments that do not fit the constructor,
        SerializationError for those that cannot travel.
        """
        if not self._packed:
            self._read()
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._name()}.remote(): {error}") from None
        process = session.connected()
        if self._process is not process:
            self._prepare(process)
        function = self._prepared
        assert function is not None
        options = self._options
        if options.lifetime is not None:
            wanted = detached.blueprint(
                process, options, function, self._creation, self._packed, args, kwargs
            )
            return detached.create(process, wanted, get_if_exists=options.get_if_exists)
        packed = pack(process, args, kwargs) if args or kwargs else NOTHING
        context = process.context()
        borrowed = [*packed.borrowed, *function.captured]
        task = ActorTask(
            context.names.next_task(
                function.fingerprint, packed.blob, [ref.object for ref in (*packed.deps, *borrowed)]
            ),
            function,
            packed.blob,
            resources=options.vector(),
            deps=packed.deps,
            borrowed=borrowed,
            max_retries=-1,
            depth=context.depth,
            parent=context.task,
            name=self._name(),
        )
        placement = context.granted.placement
        if self._placement is not None or placement is not None:
            task.placement = inherited(self._placement, placement)
        if process.environment is not None or options.runtime_env is not None:
            task.environment = key_of(process, options.runtime_env)
        task.actor = msgspec.structs.replace(self._creation)
        if not options.name:
            return self._create(process, task)
        actor = NamedActor(
            options.namespace, options.name, task.returns[0], process.address, self._packed
        )
        return named.create(
            process,
            actor,
            lambda: self._create(process, task),
            get_if_exists=options.get_if_exists,
        )

    def _create(self, process: Process, task: ActorTask) -> ActorHandle[T]:
        with process.lock:
            if process.dropped:
                process.settle()
            actor = process.role.acting.create(task, self._options.max_restarts)
            process.pump.send_soon()
        ref: ObjectRef[Any] = ObjectRef(process, Reference(actor, process.address))
        return ActorHandle(ref, kind_of(self._packed))

    def options(self, **options: Any) -> ActorClass[T]:
        """The same class with other options, for one actor or to keep. Names and meanings as in
        ``remote``.
        """
        other: ActorClass[T] = ActorClass(self._class, actor_options(self._options, options))
        other._prepared = self._prepared
        other._process = self._process
        other._captured = self._captured
        return other

    def local(self, *args: Any, **kwargs: Any) -> T:
        """An instance here and now, as if the class had never been decorated."""
        return self._class(*args, **kwargs)

    def _prepare(self, process: Process) -> None:
        """Pickle the class, once per session."""
        self._prepared, self._captured = pickled(
            self._class, self._name(), fingerprint(self._class.__init__)
        )
        self._process = process

    def _name(self) -> str:
        return self._class.__qualname__.rpartition(".")[2].encode(errors="replace").decode()

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = self._name()
        raise TypeError(
            f"{name} is an actor class: create an actor with {name}.remote(...), or an instance "
            f"in this process with {name}.local(...)"
        )

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        raise TypeError(
            f"{self._name()} is an actor class and cannot be a base: leave the base undecorated, "
            "and decorate only the classes that actors are made of"
        )

    def __reduce__(self) -> Any:
        return _class, (self._class, travelling(self._options))

    def __repr__(self) -> str:
        return f"<actor class {self._name()}>"


def _class(kind: type[T], options: ActorOptions) -> ActorClass[T]:
    """An actor class that arrives."""
    made: ActorClass[T] = ActorClass.__new__(ActorClass)
    made._arrive(kind, options)
    return made


def info_of(kind: type, options: ActorOptions, creation: Creation) -> ActorInfo:
    """What callers have to know. Raises ValueError for a group that the class does not have."""
    ordered = creation.limit == 1 and not creation.coroutines and not creation.groups
    methods = []
    for name, member in methods_of(kind).items():
        wanted: MethodOptions = getattr(member, MARK, MethodOptions())
        group = wanted.concurrency_group
        if group and group not in creation.groups:
            known = ", ".join(creation.groups) or "none"
            raise ValueError(
                f"{kind.__name__}.{name} is in concurrency group {group!r}; the class has: {known}"
            )
        methods.append(
            MethodInfo(
                name,
                parameters_of(kind, name, member),
                STREAMING if wanted.num_returns == 1 and yields(member) else wanted.num_returns,
                group,
                wanted.max_task_retries,
                wanted.retried(),
                wanted.backpressure,
            )
        )
    return ActorInfo(
        kind.__qualname__.rpartition(".")[2],
        ordered,
        options.max_task_retries,
        options.max_pending_calls,
        methods,
    )


def parameters_of(
    kind: type, name: str, member: Callable[..., Any]
) -> list[tuple[str, int, bool]] | None:
    """The parameters of a method as a caller sees them, without ``self``."""
    try:
        parameters = list(inspect.signature(member).parameters.values())
    except (TypeError, ValueError):
        return None
    raw = inspect.getattr_static(kind, name)
    if not isinstance(raw, staticmethod | classmethod) and parameters:
        first = parameters[0]
        if first.kind is not first.VAR_POSITIONAL:
            del parameters[0]
    return [
        (parameter.name, int(parameter.kind), parameter.default is not parameter.empty)
        for parameter in parameters
    ]


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor at once, as by a crash: its process is killed, nothing of it runs any more.

    Calls of it fail with ActorDiedError. With ``no_restart=False`` only this life of it ends, and
    it is made again if it has restarts left.
    """
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() takes the handle of an actor, not {actor!r}"[:200])
    if not isinstance(no_restart, bool):
        raise TypeError(f"no_restart must be True or False, not {no_restart!r}")
    ref = actor._ref
    ref._check()
    process = ref._process
    with process.lock:
        process.settle()
        process.role.acting.kill(ref._ref.object, restart=not no_restart)
        process.transport.flush()


def exit_actor() -> NoReturn:
    """End the actor whose method calls this, in good order. It is not made again; this call, and
    those that have not begun, fail with ActorDiedError.

    Raises RuntimeError outside of an actor's method.
    """
    context = CONTEXT.get()
    if context is None or context.run is None or type(context.run.message.actor) is not Call:
        raise RuntimeError("exit_actor() works in a method of an actor only")
    from freehold.runtime.hosting import ActorExit

    raise ActorExit
