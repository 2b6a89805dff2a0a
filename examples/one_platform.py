"""Shuffle, training and serving in one program, which hand each other references.

Three kinds of work that usually live in three systems: a table is shuffled over all nodes for each
epoch, two actors train a model on shares of the partitions and average it after each epoch, and two
replicas serve it while it is still being trained, each new version as it comes. Rows go from the
shuffle to the trainers, and models from there to the replicas, as references: the driver sees
neither. Run it with ``python examples/one_platform.py`` (needs ``pip install 'freehold[arrow]'``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it has no types
from numpy.typing import NDArray

import freehold as fh
from freehold.shuffle import loader

FEATURES, CLASSES = 8, 4
PIECES, ROWS, EPOCHS, TRAINERS, REPLICAS = 4, 1_000, 5, 2, 2

Array = NDArray[np.float64]

#: Where the rows of each class lie around.
CENTRES: Array = np.random.default_rng(0).normal(size=(CLASSES, FEATURES))


def rows(seed: int, labels: NDArray[np.int64]) -> Array:
    """Rows of the given classes."""
    noise = np.random.default_rng(seed).normal(scale=1.2, size=(len(labels), FEATURES))
    found: Array = CENTRES[labels] + noise
    return found


@fh.remote
def read(piece: int) -> Any:
    """A piece of the table. All its rows are of one class, as in a folder for each class."""
    labels = np.full(ROWS, piece % CLASSES)
    columns = dict(zip("abcdefgh", rows(piece, labels).T, strict=True))
    return pa.table({**columns, "label": labels})


def scores(model: Array, found: Array) -> Array:
    """How much each class is favoured for each row; the last line of the model is a constant."""
    favoured: Array = found @ model[:-1] + model[-1]
    return favoured


@fh.remote(num_cpus=0.5)
class Trainer(fh.Actor):
    """Trains on its share of an epoch."""

    @fh.method
    def train(self, model: Array, partitions: list[fh.ObjectRef[Any]]) -> Array:
        """One pass of stochastic gradient descent over the partitions."""
        model = model.copy()
        for batch in loader.batches(partitions, 25):
            found = np.column_stack([batch[name] for name in batch.column_names[:-1]])
            labels = batch["label"].to_numpy()
            odds = np.exp(scores(model, found))
            wrong = odds / odds.sum(axis=1, keepdims=True) - np.eye(CLASSES)[labels]
            model[:-1] -= 0.01 * found.T @ wrong / len(labels)
            model[-1] -= 0.01 * wrong.mean(axis=0)
        return model


@fh.remote(num_cpus=0.5)
def average(models: list[fh.ObjectRef[Array]]) -> Array:
    """One model from those of all trainers."""
    mean: Array = np.mean(fh.get(models), axis=0)
    return mean


@fh.remote(num_cpus=0)
class Replica(fh.Actor):
    """Serves predictions of the latest model that it was given."""

    def __init__(self) -> None:
        self.model: Array = np.zeros((FEATURES + 1, CLASSES))
        self.version = 0

    @fh.method
    def load(self, model: Array) -> int:
        """Take a new model; returns its version."""
        self.model, self.version = model, self.version + 1
        return self.version

    @fh.method
    def predict(self, found: Array) -> tuple[int, NDArray[np.int64]]:
        """The version of the model, and the class of each row."""
        return self.version, scores(self.model, found).argmax(axis=1)


def main() -> None:
    """In a session of its own."""
    with fh.init():
        pieces = [read.remote(piece) for piece in range(PIECES)]
        trainers = [Trainer.remote() for _ in range(TRAINERS)]
        replicas = [Replica.remote() for _ in range(REPLICAS)]
        labels = np.random.default_rng(1).integers(0, CLASSES, 400)
        asked = fh.put(rows(99, labels))
        model: fh.ObjectRef[Array] = fh.put(np.zeros((FEATURES + 1, CLASSES)))
        for refs in loader.Epochs(pieces, EPOCHS, partitions=2 * TRAINERS):
            shares = [
                trainer.train.remote(model, refs[rank::TRAINERS])
                for rank, trainer in enumerate(trainers)
            ]
            model = average.remote(shares)
            # Calls of one caller run in order: each replica answers with this epoch's model.
            for replica in replicas:
                replica.load.remote(model)
            for version, answers in fh.get([one.predict.remote(asked) for one in replicas]):
                right = 100 * float((answers == labels).mean())
                print(f"model {version}: {right:.0f} % of the answers are right")


if __name__ == "__main__":
    main()
