"""The figures: one per file, and every file of this folder is one.

They are imported one at a time, so that a measuring process carries only what its own figure needs.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from bench.figure import Figure

ORDER = (
    "startup",
    "tasks",
    "actors",
    "small_objects",
    "large_objects",
    "placement_groups",
    "envelope",
    "queued",
    "footprint",
    "transfer",
)
"""Those that are printed first, in this order; all others follow by name."""

_FOUND = sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_"))
NAMES = (*ORDER, *(name for name in _FOUND if name not in ORDER))

#: Measured when they are named only: a round takes a quarter of an hour or more.
ON_REQUEST = ("sort_spilled", "strategies", "queued_million")
ALL = tuple(name for name in NAMES if name not in ON_REQUEST)


def find(name: str) -> Figure:
    """The figure called `name`.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    if name not in NAMES:
        raise KeyError(f"no figure is called {name!r}; there are {', '.join(NAMES)}")
    figure: Figure = import_module(f"bench.figures.{name}").FIGURE
    return figure


def main() -> tuple[str, ...]:
    """Names of the figures that are measured when none is named."""
    return tuple(name for name in NAMES if find(name).main)
