"""One local cluster for each module of these tests."""

from __future__ import annotations

from api.conftest import two_cpus

__all__ = ["two_cpus"]
