"""Options of actors and of their methods: checked where they are written."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from freehold.api import named
from freehold.api import options as shared
from freehold.wire.messages import Creation

#: Calls of an actor with coroutine methods that run at once unless ``max_concurrency`` says other.
COROUTINES: Final = 1000
MOST_CALLS: Final = 1 << 20


class ActorOptions(shared.Asked, frozen=True):
    """What an actor asks for. See ``freehold.remote`` for the meaning of each."""

    num_cpus: float = 0
    max_restarts: int = 0
    max_task_retries: int = 0
    max_pending_calls: int = -1
    max_concurrency: int = 0
    concurrency_groups: Mapping[str, int] = {}
    namespace: str = ""
    get_if_exists: bool = False
    lifetime: str | None = None

    def creation(self, kind: type) -> Creation:
        """What the worker is told of how calls run."""
        coroutines = any(map(is_coroutine, methods_of(kind).values()))
        limit = self.max_concurrency or (COROUTINES if coroutines else 1)
        return Creation(coroutines, limit, dict(self.concurrency_groups))


class MethodOptions(msgspec.Struct, frozen=True):
    """What a method asks for. See ``freehold.method``."""

    num_returns: int = 1
    concurrency_group: str = ""
    max_task_retries: int | None = None
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    name: str = ""
    backpressure: int = 0

    def retried(self) -> bytes:
        """The wire form of ``retry_exceptions``."""
        return shared.packed_exceptions(self.retry_exceptions)


ACTOR: Final = ActorOptions.__struct_fields__
METHOD: Final = MethodOptions.__struct_fields__


def actor_options(base: ActorOptions, given: Mapping[str, Any]) -> ActorOptions:
    """``base`` with ``given`` on top. Raises TypeError or ValueError, naming the option, its value
    and what it takes.
    """
    shared.known(given, ACTOR)
    values = {name: value for name, value in given.items() if value is not None}
    for name in ("max_restarts", "max_task_retries"):
        if name in values:
            values[name] = shared.integer(name, values[name], -1, shared.MOST_RETRIES)
    if "max_pending_calls" in values:
        number = shared.integer("max_pending_calls", values["max_pending_calls"], -1, MOST_CALLS)
        if number == 0:
            raise ValueError("max_pending_calls must be at least 1, or -1 for any number, not 0")
        values["max_pending_calls"] = number
    if "max_concurrency" in values:
        number = shared.integer("max_concurrency", values["max_concurrency"], 1, MOST_CALLS)
        values["max_concurrency"] = number
    if "concurrency_groups" in values:
        values["concurrency_groups"] = _groups(values["concurrency_groups"])
    if "resources" in values:
        values["resources"] = shared.amounts(values["resources"])
    if "runtime_env" in values:
        values["runtime_env"] = shared.checked_environment(values["runtime_env"])
    if "name" in values:
        values["name"] = named.checked_name(values["name"])
    if "namespace" in values:
        values["namespace"] = named.checked_namespace(values["namespace"])
    if not isinstance(values.get("get_if_exists", False), bool):
        raise TypeError(f"get_if_exists must be True or False, not {values['get_if_exists']!r}")
    if values.get("lifetime") not in (None, "detached"):
        raise ValueError(f'lifetime must be None or "detached", not {values["lifetime"]!r}')
    options = msgspec.structs.replace(base, **values)
    if options.get_if_exists and not options.name:
        raise ValueError("get_if_exists=True needs a name")
    shared.check_vector(options.vector())
    return options


def _groups(value: object) -> dict[str, int]:
    if not isinstance(value, Mapping):
        raise TypeError(f"concurrency_groups must be a dict of names to limits, not {value!r}")
    groups = {}
    for name, limit in value.items():
        name = shared.text("a concurrency group's name", name)
        if not name:
            raise ValueError("a concurrency group's name must not be empty")
        groups[name] = shared.integer(f"the limit of group {name!r}", limit, 1, MOST_CALLS)
    return groups


def method_options(base: MethodOptions, given: Mapping[str, Any]) -> MethodOptions:
    """``base`` with ``given`` on top. Raises as ``actor_options`` does."""
    shared.known(given, METHOD)
    values = {name: value for name, value in given.items() if value is not None}
    if "num_returns" in values:
        values["num_returns"] = shared.returns(values["num_returns"])
    if "backpressure" in values:
        number = shared.integer("backpressure", values["backpressure"], 1, shared.MOST_RETURNS)
        values["backpressure"] = number
    if "max_task_retries" in values:
        number = shared.integer("max_task_retries", values["max_task_retries"], -1, 1 << 31)
        values["max_task_retries"] = number
    for name in ("concurrency_group", "name"):
        if name in values:
            values[name] = shared.text(name, values[name])
    if "retry_exceptions" in values:
        values["retry_exceptions"] = shared.exceptions(values["retry_exceptions"])
    return msgspec.structs.replace(base, **values)


def methods_of(kind: type) -> dict[str, Callable[..., Any]]:
    """The methods of a class that can be called from outside: all but ``__special__`` ones."""
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(kind):
        if name.startswith("__") and name.endswith("__"):
            continue
        member = getattr(kind, name, None)
        if inspect.isroutine(member):
            found[name] = member
    return found


def is_coroutine(method: Callable[..., Any]) -> bool:
    """Whether a call of it runs on an event loop."""
    return inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method)
