"""The figures, one per file, named in the order in which they are printed.

They are imported one at a time, so that a measuring process carries only what its own figure needs.
"""

from __future__ import annotations

from importlib import import_module

from bench.figure import Figure

NAMES = (
    "startup",
    "task_sync",
    "task_throughput",
    "put_get_100mib",
    "worker_starts",
    "actors",
    "scale_single",
    "idle",
    "recovery",
    "sort",
    "sort_spilled",
    "strategies",
    "transfer",
    "broadcast",
)

#: Measured when they are named only: a round takes a quarter of an hour or more.
ON_REQUEST = ("sort_spilled", "strategies")


def find(name: str) -> Figure:
    """The figure called `name`.

    Raises:
        KeyError: There is none; the message lists those there are.
    """
    if name not in NAMES:
        raise KeyError(f"no figure is called {name!r}; there are {', '.join(NAMES)}")
    figure: Figure = import_module(f"bench.figures.{name}").FIGURE
    return figure
