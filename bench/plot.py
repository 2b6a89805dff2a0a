"""The plot of the page: for each metric how many times as good Freehold is as Ray, and as others.

    python -m bench.plot FILE.svg < BARS.json

Runs in the peers' environment, which has Matplotlib. Bars are a list of objects with `label`,
`ratios` by engine, and `target`, the least ratio to Ray that is aimed at, or null.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

MARKS = {"dask": "s", "pool": "^", "executor": "v", "floor": "|"}
LEAST = 0.04
"""Where the axis begins: the pools start a thousand times as fast as a runtime, far to the left."""

AHEAD, BEHIND, OTHER, AIM = "#3b7a57", "#b5473c", "#555555", "#111111"


def main(path: str) -> None:
    """Draw what standard input says into `path`."""
    bars: list[dict[str, Any]] = json.load(sys.stdin)
    # Text stays text, and ids do not change from run to run, so that a difference can be read.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "freehold", "font.size": 9})
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.22 * len(bars)), layout="constrained")
    draw(axes, bars)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def draw(axes: Any, bars: list[dict[str, Any]]) -> None:
    """One row per metric, the first at the top; a logarithmic axis around 1."""
    for row, bar in enumerate(bars):
        ratio = bar["ratios"].get("ray")
        if ratio is not None:
            colour = AHEAD if ratio >= 1 else BEHIND
            axes.barh(row, ratio - 1, left=1, height=0.7, color=colour, alpha=0.75)
        if bar["target"] is not None:
            axes.plot([bar["target"]] * 2, [row - 0.4, row + 0.4], color=AIM, linewidth=1.5)
        for engine, mark in MARKS.items():
            if engine in bar["ratios"]:
                axes.plot(bar["ratios"][engine], row, mark, color=OTHER, markersize=5)
    axes.set_xscale("log")
    axes.set_xlim(left=LEAST)
    axes.axvline(1, color=AIM, linewidth=0.8)
    axes.set_yticks(range(len(bars)), [bar["label"] for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel("times as good as the peer (1: equal)")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    handles = [plt.Line2D([], [], color=AHEAD, linewidth=7, alpha=0.75, label="Ray")]
    handles += [
        plt.Line2D([], [], color=OTHER, marker=mark, linestyle="", label=engine)
        for engine, mark in MARKS.items()
    ]
    handles.append(plt.Line2D([], [], color=AIM, linewidth=1.5, label="target beside Ray"))
    axes.legend(
        handles=handles, ncols=6, loc="lower center", bbox_to_anchor=(0.4, 1), frameon=False
    )


if __name__ == "__main__":
    main(sys.argv[1])
