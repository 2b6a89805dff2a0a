"""Training with a parameter server: one actor holds the weights, workers send gradients to it.

Each worker takes the newest weights, computes a gradient on its share of the data, and sends it;
nobody waits for the slowest. Run it with ``python examples/parameter_server.py``.
"""

from __future__ import annotations

import numpy as np

import freehold as fh

ROWS, COLUMNS, WORKERS, STEPS = 4_000, 20, 4, 40


@fh.remote(max_restarts=1)
class ParameterServer(fh.Actor):
    """The weights, and how many gradients went into them."""

    def __init__(self, size: int, rate: float) -> None:
        self.weights = np.zeros(size)
        self.rate = rate
        self.updates = 0

    @fh.method
    def apply(self, gradient: np.ndarray) -> np.ndarray:
        """Take one gradient in; the weights after it."""
        self.weights = self.weights - self.rate * gradient
        self.updates += 1
        return self.weights

    @fh.method
    def state(self) -> tuple[np.ndarray, int]:
        """The weights now, and the number of updates."""
        return self.weights, self.updates


@fh.remote(num_cpus=0.5)
def work(server: fh.ActorHandle[ParameterServer], seed: int, truth: np.ndarray) -> float:
    """One worker: its own data, STEPS gradients. The error that it ends with."""
    random = np.random.default_rng(seed)
    data = random.normal(size=(ROWS, COLUMNS))
    target = data @ truth
    weights = np.zeros(COLUMNS)
    for _ in range(STEPS):
        gradient = data.T @ (data @ weights - target) / ROWS
        weights = fh.get(server.apply.remote(gradient))
    return float(np.abs(weights - truth).max())


def main() -> None:
    """Find weights that are known, and say how near we came."""
    with fh.init():
        truth = np.arange(COLUMNS, dtype=float)
        server = ParameterServer.remote(COLUMNS, 0.2)
        fh.get([work.remote(server, seed, truth) for seed in range(WORKERS)])
        weights, updates = fh.get(server.state.remote())
        worst = np.abs(weights - truth).max()
        print(f"{updates} updates; the worst weight is off by {worst:.4f}")


if __name__ == "__main__":
    main()
