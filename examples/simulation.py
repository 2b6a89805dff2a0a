"""A simulation in parts: a ring of cells, each part an actor, all placed together or not at all.

Heat spreads along a rod. The rod is cut into parts; each step every part needs the edges of its
neighbours, so parts that wait for each other must all be there: a placement group reserves their
CPUs in one step. References to edges go from part to part; the driver sees none of them. Run it
with ``python examples/simulation.py``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

import freehold as fh

PARTS, CELLS, STEPS = 4, 1_000, 200

Cells = npt.NDArray[np.float64]


@fh.remote(num_cpus=0.25)
class Part(fh.Actor):
    """A piece of the rod."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells.copy()  # (what arrives is a view of shared memory)

    @fh.method(num_returns=2)
    def edges(self) -> tuple[float, float]:
        """The temperatures at the left and the right end."""
        return float(self.cells[0]), float(self.cells[-1])

    @fh.method
    def step(self, left: float, right: float) -> None:
        """One step of time, between the neighbours' edges."""
        around = np.concatenate(([left], self.cells, [right]))
        self.cells += 0.25 * (around[:-2] - 2 * self.cells + around[2:])

    @fh.method
    def heat(self) -> float:
        """All the heat in this part."""
        return float(self.cells.sum())


def place() -> list[Part]:
    """The parts, each in a bundle of its own. Raises GetTimeoutError if there is no room."""
    group = fh.placement_group([{"CPU": 0.25}] * PARTS, strategy="PACK")
    fh.get(group.ready(), timeout=60)
    rod = np.zeros(PARTS * CELLS)
    rod[10] = 1_000.0  # so near to the end that some of it comes round to the last part
    return [
        Part.options(scheduling_strategy=fh.PlacementGroupSchedulingStrategy(group, number)).remote(
            cells
        )
        for number, cells in enumerate(np.split(rod, PARTS))
    ]


def simulate(parts: list[Part]) -> None:
    """All steps. What is sent is not waited for: each actor runs its calls in order."""
    for _ in range(STEPS):
        edges = [part.edges.remote() for part in parts]
        for number, part in enumerate(parts):
            left = edges[number - 1][1]  # (a ring: the first part is the last one's neighbour)
            right = edges[(number + 1) % PARTS][0]
            part.step.remote(left, right)


def main() -> None:
    """Heat one cell, let it spread, and check that none is lost."""
    with fh.init():
        parts = place()
        simulate(parts)
        heats = fh.get([part.heat.remote() for part in parts])
        print(f"{STEPS} steps of {PARTS} parts; all the heat: {sum(heats):.3f}")
        print("parts that are warm:", sum(heat > 1e-9 for heat in heats))


if __name__ == "__main__":
    main()
