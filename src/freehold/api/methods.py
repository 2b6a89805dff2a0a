"""``freehold.method``, and what type checkers know of actors.

A handle of a class that derives from ``Actor`` is, to a checker, an instance of that class whose
methods decorated with ``method`` have ``remote``: so arguments and results of calls are checked,
also where references stand for arguments. At run time ``Actor`` is an empty class and ``method``
leaves a mark on the function. Handles of other classes work the same; their methods are unknown to
checkers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    ParamSpec,
    Protocol,
    TypeVar,
    overload,
)

from freehold.api.actor_options import MethodOptions, method_options

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

#: Where ``method`` leaves the options of a method, on the function.
MARK: Final = "__freehold_method__"

if TYPE_CHECKING:
    from freehold.api.actors import ActorClass, ActorHandle
    from freehold.api.remote import ManyReturns, RemoteFunction, StreamFunction

    class Actor(ActorHandle[Any]):
        """Base of actor classes whose handles a type checker shall know."""

        def __init__(self) -> None: ...

        # (mypy does not look at what a class decorator returns, so the class itself has these.)
        @classmethod
        def remote(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

        @classmethod
        def options(cls: type[T], **options: Any) -> ActorClass[T]: ...

        @classmethod
        def local(cls: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...

    class Method(Generic[P, R]):
        """A decorated method, as a type checker sees it."""

        def __get__(self, instance: object, owner: type | None = None) -> RemoteFunction[P, R]: ...

    class StreamMethod(Generic[P, T]):
        """One that yields."""

        def __get__(self, instance: object, owner: type | None = None) -> StreamFunction[P, T]: ...

    class ManyMethod(Generic[P]):
        """The same with ``num_returns``."""

        def __get__(self, instance: object, owner: type | None = None) -> ManyReturns[P]: ...

else:

    class Actor:
        """Base of actor classes whose handles a type checker shall know."""


class _Decorator(Protocol):
    """``method(**options)``, waiting for its function, as a type checker sees it."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> Method[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self,
        function: Callable[Concatenate[Any, P], Iterator[T]]
        | Callable[Concatenate[Any, P], AsyncIterator[T]],
        /,
    ) -> StreamMethod[P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Method[P, R]: ...


class _ManyDecorator(Protocol):
    """The same with ``num_returns``."""

    def __call__(self, function: Callable[Concatenate[Any, P], Any], /) -> ManyMethod[P]: ...


@overload
def method(function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Method[P, R]: ...
@overload
def method(  # type: ignore[overload-overlap]
    function: Callable[Concatenate[Any, P], Iterator[T]]
    | Callable[Concatenate[Any, P], AsyncIterator[T]],
    /,
) -> StreamMethod[P, T]: ...
@overload
def method(function: Callable[Concatenate[Any, P], R], /) -> Method[P, R]: ...
@overload
def method(*, num_returns: int, **options: Any) -> _ManyDecorator: ...
@overload
def method(**options: Any) -> _Decorator: ...
def method(function: Any = None, /, **options: Any) -> Any:
    """Options of one method of an actor class: ``@freehold.method(num_returns=2)``, or without
    options, for type checkers (see ``Actor``).

    Args:
        num_returns: how many values the method returns, each under a reference of its own.
        concurrency_group: the group of the class's ``concurrency_groups`` that limits its calls.
        max_task_retries: how often a call runs again when the actor dies under it (default: the
            actor's own).
        retry_exceptions: run a call again also when it raises: True, or a list of types.

    Raises:
        TypeError, ValueError: an unknown option, or a value that it cannot take.
    """
    checked = method_options(MethodOptions(), options)

    def mark(function: Any) -> Any:
        if not callable(function):
            raise TypeError(f"method() takes a function, not {function!r}")
        setattr(function, MARK, checked)
        return function

    return mark if function is None else mark(function)
