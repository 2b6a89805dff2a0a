"""Slots: what stands in the pickled arguments of a call for a reference at their top level, which
arrives as its value. In a file of its own, since who calls does not need what workers need.
"""

from __future__ import annotations

from typing import Any


class Slot:
    """Stands for a top-level reference in the pickled arguments."""

    __slots__ = ("index",)

    def __init__(self, index: int) -> None:
        self.index = index

    def __reduce__(self) -> Any:
        return Slot, (self.index,)
