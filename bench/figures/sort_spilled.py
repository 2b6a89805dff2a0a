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
)
