"""A sort of 6 GB with 2 GiB of memory for data; see ``sort``. Measured when it is named only."""

from __future__ import annotations

from bench.clock import GIB
from bench.figures.sort import figure

FIGURE = figure(
    "sort_spilled",
    6,
    2 * GIB,
    900.0,
    {"floor": 1 / 1.5, "ray_data": 5, "spark": 5, "duckdb": 1.5},
    "in the sort itself: the floor, which has the same kernels and no runtime, is no more than 1.5 "
    "times as fast as DuckDB; the runtime adds a third of our processor time (19 of 56 s)",
)
