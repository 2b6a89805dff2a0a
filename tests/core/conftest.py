"""What the tests of the machines share: a world that fails a test which leaves effects unclaimed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.world import World, process


@pytest.fixture
def world() -> Iterator[World]:
    """The world of process "me"."""
    made = World(process("me"))
    yield made
    made.nothing_left()
