"""What these tests share: a world that fails a test which leaves effects unclaimed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from core.hand import Hand
from core.world import World, process


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The world of process "me". A test that failed has left enough to read already."""
    made = World(process("me"))
    yield made
    if not getattr(request.node, "call_failed", False):
        made.nothing_left()


@pytest.fixture
def hand(world: World) -> Hand:
    """A worker of that world, for tests of rebirth."""
    return Hand(world)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    """Let the fixture know how the test itself went."""
    yield
    if call.when == "call":
        item.call_failed = call.excinfo is not None  # type: ignore[attr-defined]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long explorations run when they are asked for: ``pytest -m slow tests/core -o
    faulthandler_timeout=0`` (it reads the stack of a thread that runs, which has crashed one)."""
    if config.option.markexpr or config.option.keyword:
        return
    here = Path(__file__).parent
    slow = [i for i in items if i.get_closest_marker("slow") and i.path.is_relative_to(here)]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
