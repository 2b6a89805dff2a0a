"""The tests of the roles share the world of the tests of the machines."""

from core.conftest import pytest_runtest_makereport, world

__all__ = ["pytest_runtest_makereport", "world"]
