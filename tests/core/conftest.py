"""What the tests of the machines share: a world that fails a test which leaves effects unclaimed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.world import World, process


@pytest.fixture
def world() -> Iterator[World]:
    """The world of process "me"."""
    made = World(process("me"))
    yield made
    made.nothing_left()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long explorations run when they are asked for: ``pytest -m slow tests/core``."""
    if config.option.markexpr or config.option.keyword:
        return
    here = Path(__file__).parent
    slow = [i for i in items if i.get_closest_marker("slow") and i.path.is_relative_to(here)]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
