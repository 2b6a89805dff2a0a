"""A queue of a million tasks; see ``queued``. Measured when it is named only: Ray takes minutes."""

from __future__ import annotations

from bench.figures.queued import figure

FIGURE = figure("queued_million", 1_000_000, 1200.0, main=False)
