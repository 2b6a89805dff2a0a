"""What a full shuffle is worth to training: accuracy and waiting time per epoch, by loader.

    python -m bench.loader [FOLDER]

Data: the 1,797 handwritten digits that scikit-learn ships, in order of their class, as a table in
pieces; a fifth of them, chosen at random, is kept for testing. Model: one hidden layer of 32, plain
SGD, PyTorch. Loaders: a full shuffle per epoch (``freehold.shuffle.loader.Epochs``), the next epoch
made while this one is used; a shuffle within a window of 256 rows; no shuffle. Prints a table, and
writes ``accuracy.svg`` and ``stall.svg`` into FOLDER if that is given.

Needs ``pip install 'freehold[arrow,torch]' scikit-learn``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.datasets import load_digits

import freehold as fh
from freehold.shuffle import drawing, loader

EPOCHS, ROWS, WINDOW, PIECES = 10, 32, 256, 8

Tensors = tuple[torch.Tensor, torch.Tensor]
Curve = list[tuple[float, float]]


def table(pixels: Any, digits: Any) -> Any:
    """Rows of 64 pixels and a digit."""
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 64)
    return pa.table({"pixels": flat, "digit": digits})


def tensors(batch: Any) -> Tensors:
    """A batch as PyTorch wants it."""
    pixels = batch["pixels"].combine_chunks().flatten().to_numpy().reshape(-1, 64)
    return torch.tensor(pixels), torch.tensor(batch["digit"].to_numpy())


def data() -> tuple[list[Any], Tensors]:
    """Training pieces in order of class, and the test set."""
    pixels, digits = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32)
    order = np.random.default_rng(0).permutation(len(digits))
    test, train = order[: len(order) // 5], order[len(order) // 5 :]
    train = train[np.argsort(digits[train], kind="stable")]
    pieces = [table(pixels[rows], digits[rows]) for rows in np.array_split(train, PIECES)]
    return pieces, (torch.tensor(pixels[test]), torch.tensor(digits[test]))


def train(epochs: Iterable[Iterable[Any]], test: Tensors) -> tuple[Curve, Curve]:
    """Accuracy (%) and seconds without a batch (ms), by epoch."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))
    descent = torch.optim.SGD(model.parameters(), lr=0.1)
    feed = torch.utils.data.DataLoader(loader.dataset(epochs, tensors), batch_size=None)
    accuracy, stall = [], []
    for epoch in range(1, EPOCHS + 1):
        waited, last = 0.0, time.perf_counter()
        for pixels, digits in feed:
            waited += time.perf_counter() - last
            descent.zero_grad()
            torch.nn.functional.cross_entropy(model(pixels), digits).backward()
            descent.step()
            last = time.perf_counter()
        right = (model(test[0]).argmax(1) == test[1]).float().mean().item()
        accuracy.append((float(epoch), 100 * right))
        stall.append((float(epoch), 1e3 * waited))
    return accuracy, stall


def full(pieces: list[Any]) -> Iterator[Iterable[Any]]:
    """Epochs of the full shuffle."""
    return (loader.batches(refs, ROWS) for refs in loader.Epochs(pieces, EPOCHS))


def windowed(pieces: list[Any]) -> Iterator[Iterable[Any]]:
    """Epochs shuffled within a window."""
    return (loader.local_batches(pieces, ROWS, WINDOW, seed=epoch) for epoch in range(EPOCHS))


def unshuffled(pieces: list[Any]) -> Iterator[Iterable[Any]]:
    """Epochs in the order of the input."""
    refs = [fh.put(piece) for piece in pieces]
    return (loader.batches(refs, ROWS) for _ in range(EPOCHS))


def main() -> None:
    """Train with each loader on the same model and data."""
    torch.set_num_threads(1)
    pieces, test = data()
    loaders: dict[str, Callable[[list[Any]], Iterator[Iterable[Any]]]] = {
        "full shuffle": full,
        f"window of {WINDOW}": windowed,
        "no shuffle": unshuffled,
    }
    accuracies, stalls = {}, {}
    with fh.init():
        for name, make in loaders.items():
            accuracies[name], stalls[name] = train(make(pieces), test)
            print(f"{name}, accuracy %: {' '.join(f'{y:.1f}' for _, y in accuracies[name])}")
            print(f"{name}, stall ms: {' '.join(f'{y:.0f}' for _, y in stalls[name])}")
    for folder in map(Path, sys.argv[1:]):
        for name, unit, curves in [("accuracy", "%", accuracies), ("stall", "ms", stalls)]:
            drawn = drawing.lines(f"{name} by epoch", "epoch", unit, curves)
            (folder / f"{name}.svg").write_text(drawn)


if __name__ == "__main__":
    main()
