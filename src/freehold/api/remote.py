"""Remote functions: ``@freehold.remote`` and ``f.remote()``.

``f.remote(*args)`` runs here, in the caller's thread, until the task is on its way: it serialises
the arguments, replaces top-level references by slots, moves large arguments to the store, and
hands the task to the owner core. It is the hot path of the whole system; what can be done once is
done at decoration or at the first call.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from freehold.api import session
from freehold.api.actor_options import ACTOR, ActorOptions, actor_options
from freehold.api.actors import ActorClass
from freehold.api.arguments import NOTHING, pack, pickled
from freehold.api.environments import key_of, travelling
from freehold.api.generators import ObjectRefGenerator, promised, yields
from freehold.api.mapping import Mapped, batched, mapped
from freehold.api.methods import Actor
from freehold.api.options import STREAMING, Options, checked, packed_exceptions
from freehold.api.refs import ObjectRef
from freehold.api.strategies import inherited, placement_of
from freehold.core.streams import Stream, StreamTask
from freehold.core.submission import Function, Task
from freehold.wire.fingerprint import fingerprint

if TYPE_CHECKING:
    from freehold.runtime.process import Process

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
A_contra = TypeVar("A_contra", contravariant=True)
B_contra = TypeVar("B_contra", contravariant=True)
C_contra = TypeVar("C_contra", contravariant=True)
D_contra = TypeVar("D_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class _Takes1(Protocol[A_contra, Q, R_co]):
    def local(self, a: A_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...


class _Takes2(Protocol[A_contra, B_contra, Q, R_co]):
    def local(self, a: A_contra, b: B_contra, /, *args: Q.args, **kwargs: Q.kwargs) -> R_co: ...


class _Takes3(Protocol[A_contra, B_contra, C_contra, Q, R_co]):
    def local(
        self, a: A_contra, b: B_contra, c: C_contra, /, *args: Q.args, **kwargs: Q.kwargs
    ) -> R_co: ...


class _Takes4(Protocol[A_contra, B_contra, C_contra, D_contra, Q, R_co]):
    def local(
        self,
        a: A_contra,
        b: B_contra,
        c: C_contra,
        d: D_contra,
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> R_co: ...


class RemoteFunction(Generic[P, R]):
    """A function whose calls are tasks. Made by ``freehold.remote``."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._options = options
        self._resources = options.vector()
        self._retry = packed_exceptions(options.retry_exceptions)
        self._limits = options.limits()
        self._streams = options.num_returns == STREAMING or (
            options.num_returns == 1 and yields(function)
        )
        self._num_returns = 1 if self._streams else options.num_returns
        self._task_type = StreamTask if self._streams else Task
        self._placement = placement_of(options)
        self._signature: inspect.Signature | None = None
        self._arity: tuple[int, int] = (0, -1)
        self._read_signature()
        self._process: Process | None = None
        self._prepared: Function | None = None
        self._captured: list[ObjectRef[Any]] = []
        self._batch: RemoteFunction[Any, Any] | None = None

    def _read_signature(self) -> None:
        """How many positional arguments a call may have; (0, -1) for "ask the signature"."""
        try:
            self._signature = inspect.signature(self._function)
        except (TypeError, ValueError):
            self._arity = (0, 1 << 30)
            return
        least = most = 0
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                most += 1
                least += parameter.default is parameter.empty
            elif parameter.kind is parameter.VAR_POSITIONAL:
                most = 1 << 30
            elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                return
        self._arity = (least, most)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = self._name()
        raise TypeError(
            f"{name} is a remote function: call {name}.remote(...) to run it as a task, or "
            f"{name}.local(...) to run it here"
        )

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, as if it had never been decorated."""
        return self._function(*args, **kwargs)

    @overload
    def options(self, *, num_returns: int, **options: Any) -> ManyReturns[P]: ...
    @overload
    def options(self, **options: Any) -> RemoteFunction[P, R]: ...
    def options(self, **options: Any) -> Any:
        """The same function with other options, for one call or to keep. Names and meanings as in
        ``remote``.
        """
        other = RemoteFunction(self._function, checked(self._options, options))
        if other._options.max_calls == self._options.max_calls:  # (the only one that travels so)
            other._prepared = self._prepared
            other._process = self._process
            other._captured = self._captured
        return other

    # References may stand for any of the first four positional arguments; a checker sees that
    # through these. It learns the parameters' types from ``local``: mypy 2.4 does not look into
    # RemoteFunction[Concatenate[A, Q], R].
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: _Takes1[A, Q, R],
        a: A | ObjectRef[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: _Takes2[A, B, Q, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: _Takes3[A, B, C, Q, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRef[R]: ...
    @overload
    def remote(
        self: _Takes4[A, B, C, D, Q, R],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRef[R]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # mypy: Concatenate
        """Submit a task; return a reference to its result at once, or several: ``num_returns``.

        Arguments that are references arrive as their values; references inside containers stay
        references. Raises TypeError for arguments that do not fit the function,
        SerializationError for those that cannot travel.
        """
        least, most = self._arity
        if kwargs or not least <= len(args) <= most:
            self._check_call(args, kwargs)
        process = self._process
        if process is None or process.closed:
            process = session.connected()
            self._prepare(process)
        function = self._prepared
        assert function is not None
        packed = pack(process, args, kwargs) if args or kwargs else NOTHING
        blob, deps, borrowed, _ = packed
        if function.captured:
            borrowed = [*borrowed, *function.captured]
        given = [ref.object for ref in (*deps, *borrowed)] if deps or borrowed else ()
        options = self._options
        context = process.context()
        task = self._task_type(  # (by position: passing names costs as much as making it)
            context.names.next_task(function.fingerprint, blob, given),
            function,
            blob,
            self._resources,
            self._num_returns,
            deps,
            borrowed,
            options.max_retries,
            self._retry,
            context.depth,
            context.task,
            options.name,
            self._limits,
        )
        placement = context.granted.placement
        if self._placement is not None or placement is not None:
            task.placement = inherited(self._placement, placement)
        if process.environment is not None or options.runtime_env is not None:
            task.environment = key_of(process, options.runtime_env)
        if isinstance(task, StreamTask):
            task.stream = Stream(task, options.backpressure)
        with process.lock:
            if process.dropped:
                process.settle()
            if context.run is not None:
                task.origin = process.origin(context.run)
            process.role.submit(task)
            process.pump.send_soon()
        return promised(process, task)

    @overload
    def map(
        self: _Takes1[A, Q, R],
        items: Iterable[A | ObjectRef[A]],
        /,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        batch_size: int | None = None,
    ) -> Mapped[R]: ...
    @overload
    def map(
        self: _Takes2[A, B, Q, R],
        items: Iterable[A | ObjectRef[A]],
        second: Iterable[B | ObjectRef[B]],
        /,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        batch_size: int | None = None,
    ) -> Mapped[R]: ...
    @overload
    def map(
        self,
        items: Iterable[Any],
        second: Iterable[Any],
        third: Iterable[Any],
        /,
        *more: Iterable[Any],
        ordered: bool = True,
        return_exceptions: bool = False,
        batch_size: int | None = None,
    ) -> Mapped[R]: ...
    def map(
        self,
        *iterables: Iterable[Any],
        ordered: bool = True,
        return_exceptions: bool = False,
        batch_size: int | None = None,
    ) -> Any:
        """Call the function for every item; return an iterator over the values. With several
        iterables it takes an argument from each, until the shortest ends.

        Items are taken from the iterables as values are given out, so these may be endless; a
        bounded number is under way. Items that take little time travel together.

        Args:
            ordered: give the values in the order of the items; False: as they come.
            return_exceptions: give the exception of an item that raised in its place. False: raise
                it there; ``next`` then goes on with the item after it.
            batch_size: items per task; None: as many as take 20 ms together. One, if the function
                has ``timeout`` or ``retry_exceptions``, which are about single calls.
        """
        return mapped(
            self,
            iterables,
            ordered=ordered,
            return_exceptions=return_exceptions,
            batch_size=batch_size,
        )

    def starmap(
        self,
        items: Iterable[Iterable[Any]],
        /,
        *,
        ordered: bool = True,
        return_exceptions: bool = False,
        batch_size: int | None = None,
    ) -> Mapped[R]:
        """The same, where each item is a tuple of arguments."""
        return mapped(
            self,
            (items,),
            ordered=ordered,
            return_exceptions=return_exceptions,
            batch_size=batch_size,
            star=True,
        )

    def _batched(self) -> RemoteFunction[Any, Any]:
        """The function that runs many items in one task; made once."""
        if self._batch is None:
            name = self._name()
            self._batch = RemoteFunction(batched(self._function, name), self._options)
        return self._batch

    def _check_call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Raise the TypeError that calling the function itself would raise."""
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{self._name()}.remote(): {error}") from None

    def _prepare(self, process: Process) -> None:
        """Pickle the function, once per session."""
        self._prepared, self._captured = pickled(
            self._function, self._name(), fingerprint(self._function), self._options.max_calls
        )
        self._process = process

    def _name(self) -> str:
        name = getattr(self._function, "__qualname__", None) or repr(self._function)
        return str(name).encode(errors="backslashreplace").decode()

    def __getstate__(self) -> tuple[Any, ...]:
        return (self._function, travelling(self._options))

    def __setstate__(self, state: tuple[Callable[P, R], Options]) -> None:
        RemoteFunction.__init__(self, *state)

    def __repr__(self) -> str:
        return f"<remote function {self._name()}>"


class ManyReturns(Protocol[P]):
    """A remote function with ``num_returns`` other than 1, as a type checker sees it."""

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: _Takes1[A, Q, Any],
        a: A | ObjectRef[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: _Takes2[A, B, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: _Takes3[A, B, C, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    @overload
    def remote(
        self: _Takes4[A, B, C, D, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> list[ObjectRef[Any]]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # (as above)
        """Submit a task; return one reference per return value."""

    def options(self, **options: Any) -> ManyReturns[P]:
        """The same with other options."""

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run the function here and now."""


class StreamFunction(Protocol[P, T]):
    """A remote generator function, as a type checker sees it."""

    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRefGenerator[T]: ...
    @overload
    def remote(
        self: _Takes1[A, Q, Any],
        a: A | ObjectRef[A],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[T]: ...
    @overload
    def remote(
        self: _Takes2[A, B, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[T]: ...
    @overload
    def remote(
        self: _Takes3[A, B, C, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[T]: ...
    @overload
    def remote(
        self: _Takes4[A, B, C, D, Q, Any],
        a: A | ObjectRef[A],
        b: B | ObjectRef[B],
        c: C | ObjectRef[C],
        d: D | ObjectRef[D],
        /,
        *args: Q.args,
        **kwargs: Q.kwargs,
    ) -> ObjectRefGenerator[T]: ...
    def remote(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # (as above)
        """Submit a task; return the references to what it yields, as they come."""

    @overload
    def options(self, *, num_returns: int, **options: Any) -> ManyReturns[P]: ...
    @overload
    def options(self, **options: Any) -> StreamFunction[P, T]: ...
    def options(self, **options: Any) -> Any:
        """The same with other options."""

    def local(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[T] | AsyncIterator[T]:
        """Run the function here and now."""


ACTOR_OPTIONS = frozenset(ACTOR)
FUNCTION_OPTIONS = frozenset(Options.__struct_fields__)


Typed = TypeVar("Typed", bound=Actor)  # (an actor class that a type checker shall know)


class _Decorator:
    """``remote(**options)``, waiting for its function or class."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        if ACTOR_OPTIONS.issuperset(given) and not FUNCTION_OPTIONS.issuperset(given):
            actor_options(ActorOptions(), given)  # (raises what there is to raise)
        else:
            checked(Options(), given)

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: type[Typed], /
    ) -> type[Typed]: ...
    @overload
    def __call__(self, function: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> RemoteFunction[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Iterator[T]] | Callable[P, AsyncIterator[T]], /
    ) -> StreamFunction[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
    def __call__(self, function: Any, /) -> Any:
        if inspect.isclass(function):
            return ActorClass(function, actor_options(ActorOptions(), self.given))
        return _decorate(function, checked(Options(), self.given))


class _ManyDecorator(Protocol):
    """The same with ``num_returns``, as a type checker sees it."""

    def __call__(self, function: Callable[P, R]) -> ManyReturns[P]: ...


def _decorate(function: Callable[P, R], options: Options) -> RemoteFunction[P, R]:
    if isinstance(function, RemoteFunction):
        raise TypeError(f"{function._name()} is a remote function already")
    if isinstance(function, ActorClass):
        raise TypeError(f"{function._name()} is an actor class already")
    if not callable(function):
        raise TypeError(f"remote() takes a function or a class, not {function!r}")
    return RemoteFunction(function, options)


@overload
def remote(function: type[Typed], /) -> type[Typed]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(function: Callable[P, Coroutine[Any, Any, R]], /) -> RemoteFunction[P, R]: ...
@overload
def remote(  # type: ignore[overload-overlap]
    function: Callable[P, Iterator[T]] | Callable[P, AsyncIterator[T]], /
) -> StreamFunction[P, T]: ...
@overload
def remote(function: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(*, num_returns: int, **options: Any) -> _ManyDecorator: ...
@overload
def remote(**options: Any) -> _Decorator: ...
def remote(function: Any = None, /, **options: Any) -> Any:
    """Turn a function into a remote function: ``@remote``, or ``@remote(num_cpus=2)`` with options.

    Args:
        num_returns: how many values the function returns, each under a reference of its own
            (default 1). With n other than 1 it returns, or yields, exactly n values. "streaming",
            the default of generator functions: any number, under a reference each as soon as it
            is made (``ObjectRefGenerator``). What a coroutine function returns is its result.
        backpressure: how many values of a stream may lie untaken before the function has to wait
            (default 1,000; and 64 MiB of them together, in any case).
        num_cpus, num_gpus: what a call needs to run (default 1 and 0); fractions down to 0.0001.
        memory: bytes that a call reserves, for placement.
        resources: amounts of custom resources.
        max_retries: how often a task is run again when its worker dies (default 3; -1: without
            end; 0: a task that may not run twice).
        max_calls: how many of the function's tasks one worker process runs before it is replaced
            (default 0: any number), for native code that leaks. What the process owns is handed
            over.
        retry_exceptions: run it again also when it raises: True, or a list of exception types.
            Counts as a retry.
        name: what to call the tasks in messages, instead of the function's name.
        runtime_env: what a call finds around it (see ``RuntimeEnv``), laid over the caller's own.
        scheduling_strategy: "SPREAD" over the nodes, a PlacementGroupSchedulingStrategy, a
            NodeAffinitySchedulingStrategy, or "DEFAULT".
        label_selector: labels that the node must have, {"zone": "a", "disk": "!in(hdd,tape)"}.
        fallback_strategy: further selectors, [{"label_selector": {...}}], of which the first is
            used for which there is a node.
        priority: the greater, the sooner it gets a worker (default 0). Each step counts as a minute
            of waiting, so that nothing waits for ever.
        timeout: seconds that the function may run (default: as long as it takes). Then the task is
            ended as by ``cancel(force=True)`` and fails with TaskTimeoutError, which
            ``retry_exceptions`` may retry. Queues and the way of the arguments do not count.
        retry_delay, retry_backoff, retry_jitter: before the n-th retry wait
            ``retry_delay * retry_backoff ** (n - 1)`` seconds (default 0, 1; an hour at most), give
            or take a random share of up to ``retry_jitter`` (0 to 1, default 0).

    Raises:
        TypeError, ValueError: an unknown option, or a value that it cannot take.
    """
    if function is None:
        return _Decorator(options)
    if inspect.isclass(function):
        return ActorClass(function, ActorOptions())
    return _decorate(function, Options())
