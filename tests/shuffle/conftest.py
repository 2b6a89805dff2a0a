"""A cluster made of nothing, for tests of the strategies: tasks run when somebody waits for them.

It stands in for the public names that the shuffle uses, remembers the greatest number of tasks
that were submitted and not yet waited for, and hands out arguments read-only, as the runtime does.
A test may hold a task back: whatever needs it does not run either, until nothing else is left.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import freehold as fh


@dataclass(eq=False)
class Ref:
    value: Any = None
    task: Any = None
    error: Exception | None = None
    counted: bool = False


class Actor:
    """An actor whose calls are done when they are made, in that order."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any) -> Ref:
            ref = Ref()
            try:
                ref.value = getattr(self.instance, name)(*args)
            except Exception as error:
                ref.error = error
            return ref

        return SimpleNamespace(remote=call)


def freeze(value: Any) -> None:
    """Make the arrays in a value read-only."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif isinstance(value, tuple):
        for item in value:
            freeze(item)


@dataclass
class Fake:
    """Refs and tasks of one process. ``order`` picks which pending ref a wait completes."""

    cpus: int = 2
    store_bytes: int = 1 << 30
    last_first: bool = False
    in_flight: int = 0
    most_in_flight: int = 0
    submitted: list[str] = field(default_factory=list)
    ran: list[tuple[str, Any]] = field(default_factory=list)
    held: Callable[[str, Any], bool] = lambda name, first: False
    options: Any = None
    cancelled: int = 0
    connected: bool = True
    pending: int = 0

    def remote(self, function: Any) -> Any:
        if inspect.isclass(function):
            actor = SimpleNamespace(remote=lambda *args: Actor(function(*args)))
            return SimpleNamespace(options=lambda **_: actor)

        def options(num_returns: int = 1, name: str = "", **_: Any) -> Any:
            def submit(*args: Any) -> Any:
                self.submitted.append(name)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                refs = [Ref() for _ in range(num_returns)]
                for ref in refs:
                    ref.task = (function, args, refs, name)
                refs[-1].counted = True
                return refs if num_returns > 1 else refs[0]

            return SimpleNamespace(remote=submit)

        return SimpleNamespace(options=options)

    def put(self, value: Any) -> Ref:
        return Ref(value)

    def run(self, ref: Ref) -> Any:
        if ref.error:
            raise ref.error
        if ref.task is None:
            return ref.value
        function, args, refs, name = ref.task
        values = [self.run(arg) if isinstance(arg, Ref) else arg for arg in args]
        self.ran.append((name, args[0]))
        result = function(*values)
        made = list(result) if inspect.isgenerator(result) else [result]
        assert len(made) == len(refs)
        for made_ref, value in zip(refs, made, strict=True):
            freeze(value)
            made_ref.value, made_ref.task = value, None
        return ref.value

    def wait(
        self, refs: list[Ref], num_returns: int, fetch_local: bool, timeout: float | None = None
    ) -> Any:
        assert not fetch_local
        if timeout is not None:  # cancelled tasks are seen to their end
            assert num_returns == len(refs) <= self.cancelled
            return refs, []
        assert num_returns == 1
        free = [ref for ref in refs if not self.waits(ref)] or refs
        chosen = free[-1 if self.last_first else 0]
        with suppress(Exception):  # an error is raised by get, not by wait
            self.run(chosen)
        self.in_flight -= chosen.counted
        self.pending = len(refs) - 1
        return [chosen], [ref for ref in refs if ref is not chosen]

    def waits(self, ref: Ref) -> bool:
        """Is the task that makes it held back, or one that it needs?"""
        if ref.task is None:
            return False
        _, args, _, name = ref.task
        needs = [arg for arg in args if isinstance(arg, Ref)]
        return self.held(name, args[0]) or any(self.waits(need) for need in needs)

    def get(self, refs: Any) -> Any:
        return self.run(refs) if isinstance(refs, Ref) else [self.run(ref) for ref in refs]

    def cancel(self, ref: Ref) -> None:
        self.cancelled += 1

    def is_initialized(self) -> bool:
        return self.connected

    def nodes(self) -> list[dict[str, Any]]:
        resources = {"CPU": float(self.cpus), "object_store_memory": float(self.store_bytes)}
        return [{"NodeID": "here", "Alive": True, "Resources": resources}]

    def init(self, address: str | None = None, **options: Any) -> None:
        self.options = options

    def shutdown(self) -> None:
        self.options = None

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: "here")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Replace the public names that the shuffle calls."""
    cluster = Fake()
    for name in (
        "remote put wait get cancel is_initialized nodes get_runtime_context init shutdown".split()
    ):
        monkeypatch.setattr(fh, name, getattr(cluster, name), raising=False)
    return cluster
